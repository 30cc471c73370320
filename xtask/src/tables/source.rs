//! What a kernel source says about its calls: which function serves each, and how that function is declared.
//!
//! Only `x86_64` and `aarch64`, and only what they build: this is no C preprocessor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::debian::Package;
use crate::command::{command, run};

/// The conventions whose arguments are read.
pub(super) const ABIS: [&str; 2] = ["x86_64", "aarch64"];

/// Where in the source there are tables and definitions of calls.
const FOLDERS: [&str; 14] = [
    "arch/arm64",
    "arch/x86",
    "block",
    "drivers/char",
    "drivers/pci",
    "fs",
    "include/uapi",
    "io_uring",
    "ipc",
    "kernel",
    "mm",
    "net",
    "scripts",
    "security",
];

/// Definitions that neither architecture builds: user mode Linux, machines without an MMU, kernels without POSIX timers.
const NOT_BUILT: [&str; 3] = ["arch/x86/um/", "mm/nommu.c", "kernel/time/posix-stubs.c"];

/// Where one file defines a function in several ways: the line before the one that an architecture builds.
const CHOSEN: [(&str, &str, &str); 2] = [
    // arch/x86/Kconfig selects CLONE_BACKWARDS if X86_32
    ("clone", "x86_64", "#else"),
    // arch/arm64/Kconfig selects CLONE_BACKWARDS
    ("clone", "aarch64", "#ifdef CONFIG_CLONE_BACKWARDS"),
];

/// The conditions in the second column of scripts/syscall.tbl that hold for arm64 (arch/arm64/kernel/Makefile.syscalls and
/// scripts/Makefile.asm-headers).
const ARM64_MARKS: [&str; 5] = ["common", "64", "renameat", "rlimit", "memfd_secret"];

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// One argument: name and type.
pub(super) type Argument = (String, String);

/// How a call is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    /// The file in the source.
    pub(super) file: String,
    /// In the order of the registers.
    pub(super) arguments: Vec<Argument>,
}

/// A `SYSCALL_DEFINE`, and the line before it.
#[derive(Debug)]
struct Definition {
    declared: Declared,
    before: String,
}

/// What a source package says.
#[derive(Debug)]
pub(super) struct Source {
    /// The package's version.
    pub(super) version: String,
    /// By convention, then by call.
    pub(super) calls: BTreeMap<&'static str, BTreeMap<String, Declared>>,
}

/// Downloads a source package and reads it.
///
/// # Errors
/// No package, a source that does not look as expected, or several definitions of which none is chosen.
pub(super) fn read(package: &str, target: &Path) -> Result<Source> {
    let deb = Package::get(package, target)?;
    let unpacked = deb.unpack()?;
    let tree = unpacked.path().join("tree");
    fs::create_dir(&tree).with_context(|| format!("cannot create {}", tree.display()))?;
    let archive = unpacked.path().join(format!("usr/src/{package}.tar.xz"));
    let mut tar = command("tar", ["--extract", "--xz", "--strip-components=1"]);
    tar.arg("--directory").arg(&tree).arg("--file").arg(archive);
    tar.args(FOLDERS.map(|folder| format!("{package}/{folder}")));
    run(&mut tar)?;

    let mut definitions = BTreeMap::new();
    for folder in FOLDERS {
        define(&tree, &tree.join(folder), &mut definitions)?;
    }
    let optional = optional(&read_file(&tree.join("kernel/sys_ni.c"))?);
    let mut calls = BTreeMap::new();
    for abi in ABIS {
        let mut of_abi = BTreeMap::new();
        for (name, function) in entries(abi, &tree)? {
            match choose(&definitions, &function, abi)? {
                Some(declared) => {
                    of_abi.insert(name, declared);
                }
                None => ensure!(
                    optional.contains(&function),
                    "no definition of sys_{function} for {abi}"
                ),
            }
        }
        ensure!(
            of_abi.len() > 250,
            "{package} has {} calls of {abi}, more than 250 expected",
            of_abi.len()
        );
        calls.insert(abi, of_abi);
    }
    Ok(Source {
        version: deb.version,
        calls,
    })
}

fn read_file(path: &Path) -> Result<String> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() as u64 <= MAX_FILE,
        "{} has more than {MAX_FILE} bytes",
        path.display()
    );
    // Comments in some files are in Latin-1.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The name of each call and of the function that serves it, without `sys_`.
fn entries(abi: &str, tree: &Path) -> Result<BTreeMap<String, String>> {
    let generic = tree.join("scripts/syscall.tbl");
    if abi == "x86_64" {
        let table = tree.join("arch/x86/entry/syscalls/syscall_64.tbl");
        Ok(entries_of_table(&read_file(&table)?, &["common", "64"]))
    } else if generic.exists() {
        Ok(entries_of_table(&read_file(&generic)?, &ARM64_MARKS))
    } else {
        // Before Linux 6.11 there was only the header.
        let header = tree.join("include/uapi/asm-generic/unistd.h");
        Ok(entries_of_header(&read_file(&header)?))
    }
}

/// Rows `number mark name function …`; a row without a function is a reserved number.
fn entries_of_table(table: &str, marks: &[&str]) -> BTreeMap<String, String> {
    table
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let number = columns.next()?;
            let mark = columns.next()?;
            let name = columns.next()?;
            let function = columns.next()?.strip_prefix("sys_")?;
            (!number.starts_with('#') && marks.contains(&mark))
                .then(|| (name.to_owned(), function.to_owned()))
        })
        .collect()
}

/// Lines `__SYSCALL(__NR_name, function)` and their kin: of `__SC_3264(number, 32-bit, 64-bit)` the last counts, of
/// `__SC_COMP(number, native, compat)` the first.
fn entries_of_header(header: &str) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    // A function may be on the next line after a backslash.
    let header = header.replace("\\\n", " ");
    for line in header.lines() {
        let Some((kind, rest)) = line.split_once('(') else {
            continue;
        };
        let at = match kind {
            "__SYSCALL" | "__SC_COMP" => 1,
            "__SC_3264" | "__SC_COMP_3264" => 2,
            _ => continue,
        };
        let mut parts = rest.trim_end().trim_end_matches(')').split(',');
        let name = parts.next().and_then(|number| {
            number
                .trim()
                .strip_prefix("__NR_")
                .or_else(|| number.trim().strip_prefix("__NR3264_"))
        });
        let function = parts
            .nth(at - 1)
            .and_then(|function| function.trim().strip_prefix("sys_"));
        if let (Some(name), Some(function)) = (name, function) {
            entries.insert(name.to_owned(), function.to_owned());
        }
    }
    entries
}

/// Reads the definitions of all C files in a folder.
fn define(
    tree: &Path,
    folder: &Path,
    definitions: &mut BTreeMap<String, Vec<Definition>>,
) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            define(tree, &path, definitions)?;
        } else if path.extension().is_some_and(|extension| extension == "c") {
            let name = path
                .strip_prefix(tree)
                .context("a file outside its tree")?
                .display()
                .to_string();
            if NOT_BUILT.iter().any(|start| name.starts_with(start)) {
                continue;
            }
            for (function, definition) in
                parse(&name, &read_file(&path)?).with_context(|| format!("cannot read {name}"))?
            {
                definitions.entry(function).or_default().push(definition);
            }
        }
    }
    Ok(())
}

/// `SYSCALL_DEFINEn(function, type, name, …)` at the start of a line.
fn parse(file: &str, text: &str) -> Result<Vec<(String, Definition)>> {
    let mut found = Vec::new();
    let mut before = "";
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        if let Some(rest) = line.strip_prefix("SYSCALL_DEFINE")
            && let Some((digit, _)) = rest.split_once('(')
            && let Ok(count) = digit.parse::<usize>()
        {
            let inside = text
                .get(start..)
                .and_then(|rest| rest.split_once('('))
                .and_then(|(_, rest)| rest.split_once(')'))
                .with_context(|| format!("no end: {}", line.trim()))?
                .0;
            let mut parts = inside
                .split(',')
                .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
            let function = parts.next().unwrap_or_default();
            let parts: Vec<String> = parts.collect();
            ensure!(
                parts.len() == count * 2,
                "{function} has {count} arguments in {} parts",
                parts.len()
            );
            let arguments = parts
                .chunks_exact(2)
                .filter_map(|pair| match pair {
                    [kind, name] => Some((name.clone(), kind.clone())),
                    _ => None,
                })
                .collect();
            found.push((
                function,
                Definition {
                    declared: Declared {
                        file: file.to_owned(),
                        arguments,
                    },
                    before: before.trim().to_owned(),
                },
            ));
        }
        before = line;
    }
    Ok(found)
}

/// The functions that may be missing from a kernel, whose calls then say ENOSYS: `COND_SYSCALL(function);` in
/// kernel/sys_ni.c, and `ni_syscall` itself. Some of them have long been gone altogether.
fn optional(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("COND_SYSCALL(")?.strip_suffix(");"))
        .chain(["ni_syscall"])
        .map(str::to_owned)
        .collect()
}

/// The definition that an architecture builds; `None` where there is none, and for `ni_syscall`, which is a definition
/// but no call: it only says ENOSYS.
fn choose(
    definitions: &BTreeMap<String, Vec<Definition>>,
    function: &str,
    abi: &str,
) -> Result<Option<Declared>> {
    if function == "ni_syscall" {
        return Ok(None);
    }
    let own = if abi == "x86_64" {
        "arch/x86/"
    } else {
        "arch/arm64/"
    };
    let chosen = CHOSEN
        .iter()
        .find(|(of, on, _)| *of == function && *on == abi);
    let candidates: Vec<&Declared> = definitions
        .get(function)
        .into_iter()
        .flatten()
        .filter(|d| !d.declared.file.starts_with("arch/") || d.declared.file.starts_with(own))
        .filter(|d| chosen.is_none_or(|(_, _, before)| d.before == *before))
        .map(|d| &d.declared)
        .collect();
    let Some(first) = candidates.first() else {
        return Ok(None);
    };
    if let Some(other) = candidates
        .iter()
        .find(|other| other.arguments != first.arguments)
    {
        bail!(
            "sys_{function} is defined in {} and differently in {}, and nothing says which {abi} has",
            first.file,
            other.file
        );
    }
    Ok(Some((*first).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORK: &str = "#ifdef CONFIG_CLONE_BACKWARDS\nSYSCALL_DEFINE2(clone, unsigned long, flags,\n\t\t int __user *, tid)\n\
                        #else\nSYSCALL_DEFINE2(clone, int __user *, tid, unsigned long, flags)\n#endif\n\
                        SYSCALL_DEFINE0(ni_syscall)\n\
                        \tSYSCALL_DEFINE1(inside, int, a)\nSYSCALL_DEFINE0(fork)\n{\n";

    fn definitions() -> BTreeMap<String, Vec<Definition>> {
        let mut all: BTreeMap<String, Vec<Definition>> = BTreeMap::new();
        for (function, definition) in parse("kernel/fork.c", FORK).expect("well formed") {
            all.entry(function).or_default().push(definition);
        }
        all
    }

    #[test]
    fn an_architecture_has_its_own_order() {
        let all = definitions();
        assert_eq!(
            all.keys().collect::<Vec<_>>(),
            ["clone", "fork", "ni_syscall"]
        );
        let first = |abi| {
            let declared = choose(&all, "clone", abi).expect("chosen").expect("there");
            declared.arguments.first().cloned()
        };
        let pair = |name: &str, kind: &str| Some((name.to_owned(), kind.to_owned()));
        assert_eq!(first("aarch64"), pair("flags", "unsigned long"));
        assert_eq!(first("x86_64"), pair("tid", "int __user *"));
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        let mut all = definitions();
        if let Some(clone) = all.remove("clone") {
            all.insert("other".into(), clone);
        }
        choose(&all, "other", "x86_64").expect_err("two definitions");
        for none in ["missing", "ni_syscall"] {
            assert_eq!(
                choose(&all, none, "x86_64").expect("no contradiction"),
                None
            );
        }
        parse("a.c", "SYSCALL_DEFINE2(half, int, a)\n").expect_err("one argument is missing");
        parse("a.c", "SYSCALL_DEFINE1(open, int, a\n").expect_err("no end");
    }

    #[test]
    fn only_optional_functions_may_be_missing() {
        let optional =
            optional("/* COND_SYSCALL(no); */\nCOND_SYSCALL(bpf);\nCOND_SYSCALL_COMPAT(x);\n");
        assert!(optional.iter().eq(["bpf", "ni_syscall"]));
    }

    #[test]
    fn both_forms_of_a_table_name_the_function() {
        let pairs = |entries: BTreeMap<String, String>| entries.into_iter().collect::<Vec<_>>();
        let pair = |name: &str, function: &str| (name.to_owned(), function.to_owned());
        let table = "# 9 common no sys_no\n0 common read sys_read\n5 64 stat sys_newstat\n5 time32 stat sys_old\n\
                     60 common exit sys_exit - noreturn\n174 64 create_module\n";
        assert_eq!(
            pairs(entries_of_table(table, &["common", "64"])),
            [
                pair("exit", "exit"),
                pair("read", "read"),
                pair("stat", "newstat")
            ]
        );
        let header = "__SYSCALL(__NR_read, sys_read)\n__SC_COMP(__NR_io_setup, sys_io_setup, compat_sys_io_setup)\n\
                      __SC_3264(__NR3264_truncate, sys_truncate64, sys_truncate)\n#define __SYSCALL(x, y)\n\
                      __SC_COMP_3264(__NR_p, sys_p_time32, \\\n sys_p, compat_sys_p)\n";
        assert_eq!(
            pairs(entries_of_header(header)),
            [
                pair("io_setup", "io_setup"),
                pair("p", "p"),
                pair("read", "read"),
                pair("truncate", "truncate")
            ]
        );
    }
}
