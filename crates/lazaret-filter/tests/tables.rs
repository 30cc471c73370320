//! The committed tables against others that were made without us: the `syscalls` crate's numbers, and what the running
//! kernel says of its own calls.

use std::collections::BTreeMap;

use lazaret_filter::abi::Abi;
use lazaret_filter::table::{self, Width};

/// Both tables have the same numbers, and the same names for them.
fn compare(abi: Abi, other: impl IntoIterator<Item = (u32, &'static str)>) {
    let other: Vec<(u32, &str)> = other
        .into_iter()
        // 64-bit times for 32-bit architectures, which asm-generic/unistd.h has under `__BITS_PER_LONG == 32`.
        .filter(|(nr, _)| abi != Abi::Aarch64 || !(403..=423).contains(nr))
        .map(|(nr, name)| match (abi, name) {
            // A word of the language.
            (_, "r#break") => (nr, "break"),
            // `__NR3264_fstatat` of asm-generic/unistd.h, which is `__NR_newfstatat` on 64-bit architectures.
            (Abi::Aarch64, "fstatat") => (nr, "newfstatat"),
            _ => (nr, name),
        })
        .collect();
    assert!(other.len() > 300, "{abi}: {}", other.len());
    let ours: Vec<(u32, &str)> = table::calls(abi).collect();
    let only = |a: &[(u32, &'static str)], b: &[(u32, &str)]| {
        let only = a.iter().copied().filter(|call| !b.contains(call));
        only.collect::<Vec<_>>()
    };
    assert_eq!(
        (only(&ours, &other), only(&other, &ours)),
        (vec![], vec![]),
        "{abi}"
    );
}

#[test]
fn numbers_are_those_of_an_independent_crate() {
    // Not `Sysno::iter`, which leaves the last call out.
    macro_rules! numbers {
        ($module:ident) => {
            (0..1024).filter_map(|nr| {
                let call = syscalls::$module::Sysno::new(nr)?;
                Some((u32::try_from(nr).ok()?, call.name()))
            })
        };
    }
    compare(Abi::X86_64, numbers!(x86_64));
    compare(Abi::I386, numbers!(x86));
    compare(Abi::Aarch64, numbers!(aarch64));
}

/// The kernel's own description of its calls (`CONFIG_FTRACE_SYSCALLS`), and of its types (BTF).
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kernel {
    use super::*;
    use std::process::Command;

    /// Functions whose name is not their call's, arch/x86/entry/syscalls/syscall_64.tbl.
    const FUNCTIONS: [(&str, &str); 6] = [
        ("newfstat", "fstat"),
        ("newlstat", "lstat"),
        ("newstat", "stat"),
        ("newuname", "uname"),
        ("sendfile64", "sendfile"),
        ("umount", "umount2"),
    ];

    /// Type and name of each argument of each call; `None`, said aloud, where the kernel cannot tell.
    fn events() -> Option<BTreeMap<String, Vec<(String, String)>>> {
        // In a mount namespace of its own, which ends with the command.
        let script = "mount -t tracefs tracefs /sys/kernel/tracing && \
                      cat /sys/kernel/tracing/events/syscalls/sys_enter_*/format";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .output()
            .expect("unshare is there");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            println!("SKIP: no call events to read: {}", said.trim());
            return None;
        }
        let text = String::from_utf8(output.stdout).expect("text");
        let calls = text
            .split("name: sys_enter_")
            .skip(1)
            .map(|event| {
                let function = event.lines().next().expect("a name");
                let call = FUNCTIONS
                    .iter()
                    .find(|(other, _)| *other == function)
                    .map_or(function, |(_, call)| call);
                // Those before the call's number belong to the event.
                let arguments = event
                    .lines()
                    .filter_map(|line| line.trim().strip_prefix("field:")?.split_once(';'))
                    .map(|(declaration, _)| declaration)
                    .skip_while(|declaration| *declaration != "int __syscall_nr")
                    .skip(1)
                    .map(|declaration| {
                        let (kind, name) = declaration.rsplit_once(' ').expect("type and name");
                        (kind.to_owned(), name.to_owned())
                    })
                    .collect();
                (call.to_owned(), arguments)
            })
            .collect::<BTreeMap<_, Vec<_>>>();
        assert!(calls.len() > 250, "{}", calls.len());
        Some(calls)
    }

    #[test]
    fn the_running_kernel_has_the_same_arguments() {
        let Some(calls) = events() else { return };
        for (call, arguments) in calls {
            if table::nr_of(Abi::X86_64, &call).is_none()
                && running() > table::Release::new(6, 18, 0)
            {
                continue; // newer than the tables
            }
            let names: Vec<&str> = arguments.iter().map(|(_, name)| name.as_str()).collect();
            let ours: Vec<&str> = table::args_of(&call)
                .unwrap_or_else(|| panic!("{call} has no arguments listed"))
                .iter()
                .map(|def| def.name)
                .collect();
            if call == "clone" {
                assert_eq!(ours, names[..3], "{call}"); // the rest is not the same on aarch64
            } else {
                assert_eq!(ours, names, "{call}");
            }
        }
    }

    fn running() -> table::Release {
        let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is there");
        let mut numbers = text
            .split(|c: char| !c.is_ascii_digit())
            .map(|number| number.parse().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        // A stable kernel's third number says nothing about calls.
        table::Release::new(next(), next(), 0)
    }

    #[test]
    fn the_running_kernel_has_the_same_widths() {
        let Ok(btf) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            println!("SKIP: no BTF of the kernel");
            return;
        };
        let Some(calls) = events() else { return };
        let sizes = sizes(&btf);
        for (call, arguments) in calls {
            for (def, (kind, name)) in table::args_of(&call).unwrap_or(&[]).iter().zip(arguments) {
                let kind = kind.strip_prefix("const ").unwrap_or(&kind);
                let kind = match kind.strip_prefix("enum ").unwrap_or(kind) {
                    // as DWARF, and so BTF, spells them
                    "unsigned" => "unsigned int",
                    "unsigned long" => "long unsigned int",
                    "long" => "long int",
                    kind => kind,
                };
                let bytes = if kind.ends_with('*') || kind.ends_with("*const") {
                    8
                } else {
                    *sizes
                        .get(kind)
                        .unwrap_or_else(|| panic!("{call} {name}: BTF has no {kind}"))
                };
                let expected = match def.width {
                    Width::Bits16 => 2,
                    Width::Bits32 => 4,
                    Width::Bits64 => 8,
                };
                assert_eq!(bytes, expected, "{call} {name}: {kind}");
            }
        }
    }

    /// Sizes in bytes of the named integers, enumerations and typedefs of scalars (Documentation/bpf/btf.rst).
    fn sizes(btf: &[u8]) -> BTreeMap<&str, u32> {
        const INT: u32 = 1;
        const POINTER: u32 = 2;
        const ENUM: u32 = 6;
        const TYPEDEF: u32 = 8;
        const CONST: u32 = 10;
        let word = |at: usize| {
            let bytes = btf.get(at..at + 4).expect("BTF is whole");
            u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
        };
        assert_eq!(word(0) & 0xffff, 0xeb9f, "BTF begins with its magic");
        let [header, types, types_len, strings] = [4, 8, 12, 16].map(|at| word(at) as usize);
        // Types are numbered from 1 in the order they come.
        let mut all = vec![(0, 0, 0)];
        let mut at = header + types;
        while at < header + types + types_len {
            let (name, info, value) = (word(at), word(at + 4), word(at + 8));
            let kind = info >> 24 & 0x1f;
            let members = (info & 0xffff) as usize;
            at += 12
                + match kind {
                    1 | 14 | 17 => 4,                // int, variable, declaration tag
                    3 => 12,                         // array
                    4 | 5 | 15 | 19 => members * 12, // struct, union, section, 64-bit enumeration
                    ENUM | 13 => members * 8,        // function prototype
                    2 | 7..=12 | 16 | 18 => 0,
                    other => panic!("BTF has types of the unknown kind {other}"),
                };
            all.push((name as usize, kind, value));
        }
        let mut sizes = BTreeMap::new();
        for &(name, kind, value) in &all {
            let mut of = (kind, value);
            while matches!(of.0, TYPEDEF | CONST) {
                let (_, kind, value) = all[of.1 as usize];
                of = (kind, value);
            }
            let size = match of {
                (POINTER, _) => 8,
                (INT | ENUM, bytes) => bytes,
                _ => continue,
            };
            if matches!(kind, INT | ENUM | TYPEDEF) && name != 0 {
                let name = btf.get(header + strings + name..).expect("BTF is whole");
                let end = name
                    .iter()
                    .position(|byte| *byte == 0)
                    .expect("a string ends");
                sizes.insert(str::from_utf8(&name[..end]).expect("a C name"), size);
            }
        }
        sizes
    }
}
