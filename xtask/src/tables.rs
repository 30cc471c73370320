//! Generates `lazaret-filter`'s system call tables from the headers of Debian's `linux-libc-dev`.
//!
//! The tables are committed: building Lazaret needs no header. `run(true)` only says whether they are what the headers
//! give. The headers end at the calls of the Debian kernel, so calls that are newer than that come from [`NEWER`], and a
//! header that knows a name wins over that list.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `__X32_SYSCALL_BIT`; our tables hold x32 numbers without it.
const X32_BIT: &str = "__X32_SYSCALL_BIT";

/// The names that `asm-generic/unistd.h` gives to numbers that are no calls.
const NOT_CALLS: [&str; 2] = ["syscalls", "arch_specific_syscall"];

/// One table: where its numbers come from.
struct Source {
    /// The convention, as `lazaret_filter::abi::Abi::name` has it, and the name of the generated file.
    abi: &'static str,
    /// What is handed to `cc -E -dM`.
    include: &'static str,
    /// Macros that the architecture's own header defines before it includes the generic one.
    defines: &'static [&'static str],
}

const SOURCES: [Source; 4] = [
    Source {
        abi: "x86_64",
        include: "x86_64-linux-gnu/asm/unistd_64.h",
        defines: &[],
    },
    Source {
        abi: "i386",
        include: "x86_64-linux-gnu/asm/unistd_32.h",
        defines: &[],
    },
    Source {
        abi: "x32",
        include: "x86_64-linux-gnu/asm/unistd_x32.h",
        defines: &[],
    },
    // The macros are those of arch/arm64/include/uapi/asm/unistd.h in Linux 6.1.
    Source {
        abi: "aarch64",
        include: "asm-generic/unistd.h",
        defines: &[
            "__ARCH_WANT_RENAMEAT",
            "__ARCH_WANT_NEW_STAT",
            "__ARCH_WANT_SET_GET_RLIMIT",
            "__ARCH_WANT_TIME32_SYSCALLS",
            "__ARCH_WANT_SYS_CLONE3",
            "__ARCH_WANT_MEMFD_SECRET",
        ],
    },
];

/// A call newer than Debian 12's headers.
struct Newer {
    nr: u32,
    name: &'static str,
    /// The first kernel that has it.
    since: (u16, u16),
    abis: &'static [&'static str],
}

/// Every convention: since Linux 5.1 new calls get one number everywhere.
const COMMON: &[&str] = &["x86_64", "i386", "x32", "aarch64"];
/// Marked `64` in arch/x86/entry/syscalls/syscall_64.tbl, in which x32 has no part.
const X86_64: &[&str] = &["x86_64"];
/// Marked `64` in syscall_64.tbl and reserved everywhere else.
const NOT_X32: &[&str] = &["x86_64", "i386", "aarch64"];

const fn newer(
    nr: u32,
    name: &'static str,
    since: (u16, u16),
    abis: &'static [&'static str],
) -> Newer {
    Newer {
        nr,
        name,
        since,
        abis,
    }
}

/// Calls that Linux 6.2 to 6.18 added: arch/x86/entry/syscalls/syscall_64.tbl, syscall_32.tbl and scripts/syscall.tbl
/// (before 6.11 include/uapi/asm-generic/unistd.h) of those releases.
const NEWER: [Newer; 21] = [
    newer(335, "uretprobe", (6, 11), X86_64),
    newer(336, "uprobe", (6, 18), X86_64),
    newer(451, "cachestat", (6, 5), COMMON),
    newer(452, "fchmodat2", (6, 6), COMMON),
    newer(453, "map_shadow_stack", (6, 6), NOT_X32),
    newer(454, "futex_wake", (6, 7), COMMON),
    newer(455, "futex_wait", (6, 7), COMMON),
    newer(456, "futex_requeue", (6, 7), COMMON),
    newer(457, "statmount", (6, 8), COMMON),
    newer(458, "listmount", (6, 8), COMMON),
    newer(459, "lsm_get_self_attr", (6, 8), COMMON),
    newer(460, "lsm_set_self_attr", (6, 8), COMMON),
    newer(461, "lsm_list_modules", (6, 8), COMMON),
    newer(462, "mseal", (6, 10), COMMON),
    newer(463, "setxattrat", (6, 13), COMMON),
    newer(464, "getxattrat", (6, 13), COMMON),
    newer(465, "listxattrat", (6, 13), COMMON),
    newer(466, "removexattrat", (6, 13), COMMON),
    newer(467, "open_tree_attr", (6, 15), COMMON),
    newer(468, "file_getattr", (6, 17), COMMON),
    newer(469, "file_setattr", (6, 17), COMMON),
];

/// Writes the tables, or with `check` only compares the committed ones with what the headers give.
///
/// # Errors
/// No C preprocessor, no `linux-libc-dev`, a header that does not look as expected, two names for one number, or, with
/// `check`, a table that differs.
pub fn run(check: bool) -> Result<()> {
    let package = package_version()?;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/lazaret-filter/src/table");
    let mut stale = Vec::new();
    let mut files = Vec::new();
    for source in &SOURCES {
        let calls = calls_of(source)?;
        files.push((
            dir.join(format!("{}.rs", source.abi)),
            render(source, &calls, &package)?,
        ));
    }
    files.push((dir.join("since.rs"), render_since()?));
    for (path, text) in files {
        if check {
            let committed = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            // The package's version may move without a change of any number.
            if !code_lines(&committed).eq(code_lines(&text)) {
                stale.push(path);
            }
        } else {
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if !stale.is_empty() {
        bail!(
            "system call tables differ from the headers, run `cargo xtask tables`: {}",
            list(&stale)
        );
    }
    Ok(())
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("//!"))
}

fn package_version() -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", "linux-libc-dev"])
        .output()
        .context("cannot run dpkg-query")?;
    ensure!(
        output.status.success(),
        "linux-libc-dev is not installed: apt-get install linux-libc-dev"
    );
    String::from_utf8(output.stdout).context("version of linux-libc-dev is not UTF-8")
}

/// Numbers and names, newer ones merged in.
fn calls_of(source: &Source) -> Result<BTreeMap<u32, String>> {
    let mut cc = Command::new("cc");
    cc.args(["-E", "-dM", "-x", "c", "-include", source.include]);
    for define in source.defines {
        cc.arg(format!("-D{define}"));
    }
    let output = cc.arg("/dev/null").output().context("cannot run cc")?;
    ensure!(
        output.status.success(),
        "cc cannot preprocess {}: {}",
        source.include,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8(output.stdout).context("preprocessor output is not UTF-8")?;
    let mut by_name = parse(&text).with_context(|| format!("cannot read {}", source.include))?;
    ensure!(
        by_name.len() > 250,
        "{} has {} calls, more than 250 expected",
        source.include,
        by_name.len()
    );
    for newer in NEWER.iter().filter(|n| n.abis.contains(&source.abi)) {
        by_name.entry(newer.name.to_owned()).or_insert(newer.nr);
    }
    let mut calls = BTreeMap::new();
    for (name, nr) in by_name {
        if let Some(other) = calls.insert(nr, name.clone()) {
            bail!("{}: {other} and {name} both have number {nr}", source.abi);
        }
    }
    Ok(calls)
}

/// Reads `#define __NR_name value` out of a macro dump.
fn parse(text: &str) -> Result<BTreeMap<String, u32>> {
    let defines: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("__NR"))
        .collect();
    let mut calls = BTreeMap::new();
    for (&macro_name, &value) in &defines {
        let Some(name) = macro_name.strip_prefix("__NR_") else {
            continue; // __NR3264_*: looked up below
        };
        if NOT_CALLS.contains(&name) {
            continue;
        }
        // `__NR_fcntl __NR3264_fcntl` is one step; nothing in these headers needs two.
        let value = defines.get(value).copied().unwrap_or(value);
        let digits = match value.strip_prefix('(') {
            Some(sum) => sum
                .strip_prefix(X32_BIT)
                .and_then(|rest| rest.strip_prefix(" + "))
                .and_then(|rest| rest.strip_suffix(')')),
            None => Some(value),
        };
        let nr = digits
            .and_then(|digits| digits.parse().ok())
            .with_context(|| format!("{macro_name} is not a number: {value}"))?;
        calls.insert(name.to_owned(), nr);
    }
    Ok(calls)
}

fn render(source: &Source, calls: &BTreeMap<u32, String>, package: &str) -> Result<String> {
    let by_name: BTreeMap<&str, u32> = calls
        .iter()
        .map(|(nr, name)| (name.as_str(), *nr))
        .collect();
    let mut out = String::new();
    writeln!(
        out,
        "//! System calls of {}, from Debian's linux-libc-dev {package} (`{}`).",
        source.abi, source.include
    )?;
    writeln!(
        out,
        "//!\n//! @generated by `cargo xtask tables`; calls newer than that header are listed in `xtask/src/tables.rs`."
    )?;
    writeln!(out, "\n/// Sorted by number.")?;
    writeln!(out, "pub(super) static BY_NR: &[(u32, &str)] = &[")?;
    for (nr, name) in calls {
        writeln!(out, "    ({nr}, \"{name}\"),")?;
    }
    writeln!(out, "];\n\n/// Sorted by name.")?;
    writeln!(out, "pub(super) static BY_NAME: &[(&str, u32)] = &[")?;
    for (name, nr) in by_name {
        writeln!(out, "    (\"{name}\", {nr}),")?;
    }
    writeln!(out, "];")?;
    Ok(out)
}

fn render_since() -> Result<String> {
    let by_name: BTreeMap<&str, (u16, u16)> = NEWER.iter().map(|n| (n.name, n.since)).collect();
    let mut out = String::new();
    writeln!(
        out,
        "//! The kernels that added the calls newer than Debian 12's headers.\n//!\n//! @generated by `cargo xtask tables`."
    )?;
    writeln!(out, "\n/// Sorted by name; (major, minor).")?;
    writeln!(out, "pub(super) static SINCE: &[(&str, (u16, u16))] = &[")?;
    for (name, (major, minor)) in by_name {
        writeln!(out, "    (\"{name}\", ({major}, {minor})),")?;
    }
    writeln!(out, "];")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_forms_of_a_number() {
        let text = "#define __NR_read 0\n#define __NR3264_fcntl 25\n#define __NR_fcntl __NR3264_fcntl\n\
                    #define __NR_ioctl (__X32_SYSCALL_BIT + 514)\n#define __NR_syscalls 451\n#define OTHER 1\n";
        let calls = parse(text).expect("well formed");
        let expected = [("fcntl", 25), ("ioctl", 514), ("read", 0)];
        assert!(calls.iter().map(|(n, v)| (n.as_str(), *v)).eq(expected));
    }

    #[test]
    fn refuses_a_value_that_is_no_number() {
        for value in ["(SOMETHING + 1)", "0x10", "__NR_Linux", "-1"] {
            parse(&format!("#define __NR_read {value}\n")).expect_err(value);
        }
    }

    #[test]
    fn committed_tables_are_what_the_headers_give() {
        run(true).expect("tables are current");
    }
}
