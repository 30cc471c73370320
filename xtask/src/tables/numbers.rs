//! Numbers and names, from the headers of Debian's `linux-libc-dev`.
//!
//! The headers end at the calls of the Debian kernel, so calls that are newer than that come from [`NEWER`], and a header
//! that knows a name wins over that list.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::newer::NEWER;

/// `__X32_SYSCALL_BIT`; our tables hold x32 numbers without it.
const X32_BIT: &str = "__X32_SYSCALL_BIT";

/// The names that `asm-generic/unistd.h` gives to numbers that are no calls.
const NOT_CALLS: [&str; 2] = ["syscalls", "arch_specific_syscall"];

/// Where the numbers of one table come from.
struct Source {
    /// The convention, as `lazaret_filter::abi::Abi::name` has it, and the name of the generated file.
    abi: &'static str,
    /// What is handed to `cc -E -dM`.
    include: &'static str,
    /// Macros that the architecture's own header defines before it includes the generic one.
    defines: &'static [&'static str],
}

static SOURCES: [Source; 4] = [
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

/// The numbers of one convention.
pub(super) struct Table {
    source: &'static Source,
    calls: BTreeMap<u32, String>,
}

/// The tables of all conventions.
///
/// # Errors
/// No C preprocessor, a header that does not look as expected, or two names for one number.
pub(super) fn read() -> Result<Vec<Table>> {
    SOURCES
        .iter()
        .map(|source| {
            Ok(Table {
                source,
                calls: calls_of(source)?,
            })
        })
        .collect()
}

/// The installed version of the package with the headers.
///
/// # Errors
/// It is not installed.
pub(super) fn package_version() -> Result<String> {
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

impl Table {
    /// The convention, as `lazaret_filter::abi::Abi::name` has it.
    pub(super) fn abi(&self) -> &'static str {
        self.source.abi
    }

    /// Every call's name.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.calls.values().map(String::as_str)
    }

    /// The committed file.
    pub(super) fn render(&self, package: &str) -> Result<String> {
        let by_name: BTreeMap<&str, u32> = self
            .calls
            .iter()
            .map(|(nr, name)| (name.as_str(), *nr))
            .collect();
        let mut out = String::new();
        writeln!(
            out,
            "//! System calls of {}, from Debian's linux-libc-dev {package} (`{}`).",
            self.source.abi, self.source.include
        )?;
        writeln!(
            out,
            "//!\n//! @generated by `cargo xtask tables`; calls newer than that header are listed in `xtask/src/tables/newer.rs`."
        )?;
        writeln!(out, "\n/// Sorted by number.")?;
        writeln!(out, "pub(super) static BY_NR: &[(u32, &str)] = &[")?;
        for (nr, name) in &self.calls {
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
}
