//! The release in which each call appeared: the list of syscalls(2) in Debian's `manpages-dev`, and what that list lacks.
//!
//! The list ends at Linux 5.14. Releases before 2.6 that it gives as `2.4` are the stable series, not the development
//! kernel in which a call was first seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};

use super::newer::NEWER;

/// The package with the page.
pub(super) const PACKAGE: &str = "manpages-dev";
/// The page in it.
pub(super) const PAGE: &str = "usr/share/man/man2/syscalls.2.gz";

/// Major, minor, patch.
pub(super) type Release = (u16, u16, u16);

/// Calls up to Linux 6.1 that the list lacks.
const LACKING: [(&str, Release); 4] = [
    // mount_setattr(2) of the same package
    ("mount_setattr", (5, 12, 0)),
    // arch/x86/entry/syscalls/syscall_64.tbl of these releases
    ("process_mrelease", (5, 15, 0)),
    ("futex_waitv", (5, 16, 0)),
    ("set_mempolicy_home_node", (5, 17, 0)),
];

/// The release that gave 32-bit kernels calls with 64-bit times, all at once: numbers 403 to 423 of
/// arch/x86/entry/syscalls/syscall_32.tbl.
const TIME64: Release = (5, 1, 0);

/// Those calls.
const TIME64_CALLS: [&str; 20] = [
    "clock_adjtime64",
    "clock_getres_time64",
    "clock_gettime64",
    "clock_nanosleep_time64",
    "clock_settime64",
    "futex_time64",
    "io_pgetevents_time64",
    "mq_timedreceive_time64",
    "mq_timedsend_time64",
    "ppoll_time64",
    "pselect6_time64",
    "recvmmsg_time64",
    "rt_sigtimedwait_time64",
    "sched_rr_get_interval_time64",
    "semtimedop_time64",
    "timer_gettime64",
    "timer_settime64",
    "timerfd_gettime64",
    "timerfd_settime64",
    "utimensat_time64",
];

/// Calls whose entry in the list is empty or contradicts the call's own page in the same package, which is right.
const CORRECTED: [(&str, Release); 9] = [
    // The list has an empty column and says under Notes: added as "pread" in 2.2, renamed in 2.6.
    ("pread64", (2, 2, 0)),
    ("pwrite64", (2, 2, 0)),
    // mbind(2), get_mempolicy(2), set_mempolicy(2); the list says 2.6.6
    ("get_mempolicy", (2, 6, 7)),
    ("mbind", (2, 6, 7)),
    ("set_mempolicy", (2, 6, 7)),
    // membarrier(2); the list says 3.17
    ("membarrier", (4, 3, 0)),
    // pkey_alloc(2), mprotect(2); the list says 4.8
    ("pkey_alloc", (4, 9, 0)),
    ("pkey_free", (4, 9, 0)),
    ("pkey_mprotect", (4, 9, 0)),
];

/// Numbers that are reserved for calls that no kernel has since 2.4: unimplemented(2) and syscalls(2), "System calls that
/// are not implemented in the standard kernel"; `epoll_ctl_old` and `epoll_wait_old` have a number in
/// arch/x86/entry/syscalls/syscall_64.tbl and no entry point.
const NEVER: [&str; 18] = [
    "afs_syscall",
    "break",
    "epoll_ctl_old",
    "epoll_wait_old",
    "ftime",
    "getpmsg",
    "gtty",
    "idle",
    "lock",
    "mpx",
    "prof",
    "profil",
    "putpmsg",
    "security",
    "stty",
    "tuxcall",
    "ulimit",
    "vserver",
];

/// The release of each of these calls, where it has one.
///
/// # Errors
/// A call that neither the page nor a list here knows, or an entry of those lists that is superfluous.
pub(super) fn releases<'a>(
    page: &str,
    calls: &BTreeSet<&'a str>,
) -> Result<BTreeMap<&'a str, Release>> {
    let listed = parse(page)?;
    ensure!(
        listed.len() > 400,
        "syscalls(2) lists {} calls, more than 400 expected",
        listed.len()
    );
    let mut by_hand: BTreeMap<&str, Release> = CORRECTED.into_iter().collect();
    for (name, release) in LACKING
        .into_iter()
        .chain(TIME64_CALLS.map(|name| (name, TIME64)))
        .chain(NEWER.iter().map(|n| (n.name, (n.since.0, n.since.1, 0))))
    {
        ensure!(
            !listed.contains_key(name),
            "syscalls(2) now lists {name}: take it out of the list by hand"
        );
        by_hand.insert(name, release);
    }
    let mut releases = BTreeMap::new();
    for &name in calls {
        match by_hand.get(name).or(listed.get(name)) {
            Some(_) if NEVER.contains(&name) => bail!("{name} is said to exist and never to have"),
            Some(&release) => {
                releases.insert(name, release);
            }
            None if NEVER.contains(&name) => {}
            None => bail!("nothing says when {name} appeared"),
        }
    }
    for name in by_hand.keys().chain(&NEVER) {
        ensure!(calls.contains(name), "no table has {name}");
    }
    Ok(releases)
}

/// Reads the rows `\fBname\fP(2)<tab>release[; release][<tab>notes]` of the page's table. Rows without a release are left
/// out: the page's "1.0 or earlier" is written as 1.0 in it.
fn parse(page: &str) -> Result<BTreeMap<String, Release>> {
    let mut listed = BTreeMap::new();
    let rows = page
        .lines()
        .skip_while(|line| *line != ".TS")
        .take_while(|line| *line != ".TE");
    for row in rows {
        let Some((name, rest)) = row
            .strip_prefix("\\fB")
            .and_then(|row| row.split_once("\\fP(2)"))
        else {
            continue; // comments, continued notes
        };
        let mut columns = rest.split('\t');
        columns.next();
        let Some(column) = columns.next().filter(|column| !column.is_empty()) else {
            continue;
        };
        // Two where a call was also put into the older stable series: the earlier one.
        let mut earliest: Option<Release> = None;
        for text in column.split("; ") {
            let release = release(text)
                .with_context(|| format!("syscalls(2): {name}: not a release: {text}"))?;
            earliest = Some(earliest.map_or(release, |other| other.min(release)));
        }
        if let Some(release) = earliest {
            listed.insert(name.to_owned(), release);
        }
    }
    Ok(listed)
}

/// `2.4.8.1` has a fourth part (IA-64 only), which is dropped.
fn release(text: &str) -> Option<Release> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let patch = parts.next().map_or(Some(0), |part| part.parse().ok())?;
    Some((major, minor, patch))
}

/// The committed file.
pub(super) fn render(releases: &BTreeMap<&str, Release>, version: &str) -> Result<String> {
    let mut out = String::new();
    writeln!(
        out,
        "//! The release in which each call appeared, from syscalls(2) of Debian's {PACKAGE} {version}.\n//!\n\
         //! @generated by `cargo xtask tables`; what that page lacks is listed in `xtask/src/tables/since.rs`."
    )?;
    writeln!(
        out,
        "\nuse super::Release;\n\n/// Sorted by name.\npub(super) static SINCE: &[(&str, Release)] = &["
    )?;
    for (name, (major, minor, patch)) in releases {
        writeln!(
            out,
            "    (\"{name}\", Release::new({major}, {minor}, {patch})),"
        )?;
    }
    writeln!(out, "];")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_of_a_row() {
        let page = "\\fBoutside\\fP(2)\t1.0\n.TS\n\\fBSystem call\\fP\t\\fBKernel\\fP\n.\\\" comment\n\\fBread\\fP(2)\t1.0\n\
                    \\fBtkill\\fP(2)\t2.6; 2.4.22\n\\fBpoll\\fP(2)\t2.0.36; 2.2\n\\fBaccept\\fP(2)\t2.0\tT{\nSee notes\nT}\n\
                    \\fBpread64\\fP(2)\t\tT{\n.TE\n\\fBafter\\fP(2)\t1.0\n";
        let listed = parse(page).expect("well formed");
        let expected = [
            ("accept", (2, 0, 0)),
            ("poll", (2, 0, 36)),
            ("read", (1, 0, 0)),
            ("tkill", (2, 4, 22)),
        ];
        assert!(listed.iter().map(|(n, r)| (n.as_str(), *r)).eq(expected));
    }

    #[test]
    fn refuses_what_is_no_release() {
        for text in ["soon", "2", "2.x", ""] {
            assert_eq!(release(text), None, "{text}");
        }
        parse(".TS\n\\fBread\\fP(2)\t??\n.TE\n").expect_err("no release");
    }
}
