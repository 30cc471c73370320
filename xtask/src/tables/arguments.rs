//! Names and widths of the register arguments of all calls of the 64-bit conventions.
//!
//! From the `SYSCALL_DEFINE`s of Debian's kernel sources, and [`super::newer`] for what is newer. 32-bit conventions have
//! no part in it: theirs are other functions, with other widths, and policies cannot condition them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::newer;
use super::numbers::Table;
use super::source::{self, ABIS, Declared};

/// The first is the kernel of Debian 12; the second adds calls, and has lost others.
const PACKAGES: [&str; 2] = ["linux-source-6.1", "linux-source-6.12"];

/// Low bits that count of each type, on 64-bit kernels. Pointers are not listed.
const WIDTHS: [(&str, u8); 32] = [
    // include/uapi/asm-generic/posix_types.h, include/linux/types.h
    ("aio_context_t", 64),
    ("clockid_t", 32),
    ("gid_t", 32),
    ("key_t", 32),
    ("loff_t", 64),
    ("mqd_t", 32),
    ("off_t", 64),
    ("pid_t", 32),
    ("qid_t", 32),
    ("rwf_t", 32),
    ("size_t", 64),
    ("timer_t", 32),
    ("uid_t", 32),
    ("umode_t", 16),
    // typedefs of pointers, include/uapi/linux/capability.h
    ("cap_user_data_t", 64),
    ("cap_user_header_t", 64),
    // include/linux/key.h
    ("key_serial_t", 32),
    // enumerations have the width of an int
    ("enum landlock_rule_type", 32),
    // include/uapi/asm-generic/int-ll64.h
    ("__s32", 32),
    ("__u32", 32),
    ("__u64", 64),
    ("s32", 32),
    ("u32", 32),
    ("u64", 64),
    // C
    ("int", 32),
    ("long", 64),
    ("short", 16),
    ("unsigned", 32),
    ("unsigned int", 32),
    ("unsigned long", 64),
    ("unsigned long long", 64),
    ("unsigned short", 16),
];

/// One argument: name and width in bits.
type Argument = (String, u8);

/// Reads both packages and renders the committed file.
///
/// # Errors
/// As [`source::read`]; a type of unknown width; packages that contradict each other; a call of which nothing is known.
pub(super) fn generate(tables: &[Table], target: &Path) -> Result<String> {
    let mut versions = Vec::new();
    let mut merged: BTreeMap<&str, BTreeMap<String, (String, Vec<Argument>)>> = BTreeMap::new();
    for package in PACKAGES {
        let read = source::read(package, target)?;
        versions.push(format!("{package} {}", read.version));
        for (abi, calls) in read.calls {
            let of_abi = merged.entry(abi).or_default();
            for (name, declared) in calls {
                let found = widths(&name, &declared)?;
                if let Some((_, known)) = of_abi.get(&name) {
                    ensure!(
                        *known == found,
                        "{name} of {abi} has other arguments in {package}: {found:?}, not {known:?}"
                    );
                } else {
                    of_abi.insert(name, (declared.file, found));
                }
            }
        }
    }
    let by_hand: BTreeMap<&str, Vec<Argument>> = newer::ARGUMENTS
        .into_iter()
        .map(|(name, arguments)| {
            let arguments = arguments.iter().map(|(name, kind)| {
                let width = width(kind).with_context(|| format!("unknown type {kind}"))?;
                Ok(((*name).to_owned(), width))
            });
            Ok((name, arguments.collect::<Result<_>>()?))
        })
        .collect::<Result<_>>()?;
    let names: BTreeSet<&str> = tables
        .iter()
        .filter(|table| ABIS.contains(&table.abi()))
        .flat_map(Table::names)
        .collect();
    let mut rows = Vec::new();
    for name in names {
        let of: Vec<&(String, Vec<Argument>)> = merged
            .values()
            .filter_map(|calls| calls.get(name))
            .collect();
        match (of.as_slice(), by_hand.get(name)) {
            ([], None) => {} // reserved numbers, and calls that were gone before Linux 6.1
            ([], Some(arguments)) => {
                rows.push((name, "Linux 6.18".to_owned(), arguments.clone()));
            }
            (_, Some(_)) => bail!("a source has {name}: take it out of the list by hand"),
            ([(file, first), rest @ ..], None) => {
                let mut common = first.clone();
                for (_, other) in rest {
                    let same = common.iter().zip(other).take_while(|(a, b)| a == b).count();
                    common.truncate(same);
                }
                let mut files = file.clone();
                for (other, _) in rest {
                    if other != file {
                        write!(files, ", {other}")?;
                    }
                }
                if of.iter().any(|(_, all)| all.len() != common.len()) {
                    write!(files, "; the rest differs")?;
                }
                rows.push((name, files, common));
            }
        }
    }
    render(&rows, &versions.join(", "))
}

fn widths(call: &str, declared: &Declared) -> Result<Vec<Argument>> {
    declared
        .arguments
        .iter()
        .map(|(name, kind)| {
            let width = width(kind).with_context(|| {
                format!(
                    "{}: {call}: {name} has the unknown type {kind}",
                    declared.file
                )
            })?;
            Ok((name.clone(), width))
        })
        .collect()
}

/// Bits of a type, without `const` and `__user`.
fn width(kind: &str) -> Option<u8> {
    let mut kind = kind.trim();
    while let Some(rest) = kind.strip_suffix("const") {
        kind = rest.trim_end();
    }
    if kind.ends_with('*') {
        return Some(64);
    }
    let kind = kind.strip_prefix("const ").unwrap_or(kind);
    WIDTHS
        .iter()
        .find(|(known, _)| *known == kind)
        .map(|(_, bits)| *bits)
}

fn render(rows: &[(&str, String, Vec<Argument>)], versions: &str) -> Result<String> {
    let mut out = String::new();
    writeln!(
        out,
        "//! Register arguments of the calls of the 64-bit conventions.\n//!\n\
         //! From Debian's {versions}.\n//!\n\
         //! @generated by `cargo xtask tables --arguments`; those newer than these are listed in\n\
         //! `xtask/src/tables/newer.rs`."
    )?;
    writeln!(
        out,
        "\nuse super::{{ArgDef, w16, w32, w64}};\n\n/// Sorted by call.\n#[rustfmt::skip]\n\
         pub(super) static ARGS: &[(&str, &[ArgDef])] = &["
    )?;
    for (name, file, arguments) in rows {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|(name, bits)| format!("w{bits}(\"{name}\")"))
            .collect();
        writeln!(
            out,
            "    (\"{name}\", &[{}]), // {file}",
            arguments.join(", ")
        )?;
    }
    writeln!(out, "];")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_its_width_or_none() {
        for (kind, expected) in [
            ("int", Some(32)),
            ("const clockid_t", Some(32)),
            ("umode_t", Some(16)),
            ("size_t", Some(64)),
            ("const char __user *", Some(64)),
            ("const void __user *const", Some(64)),
            ("const enum landlock_rule_type", Some(32)),
            ("struct timespec", None),
            ("const", None),
            ("", None),
        ] {
            assert_eq!(width(kind), expected, "{kind}");
        }
    }
}
