//! The vocabularies of [`lazaret_filter::constants`] against the C headers that are installed: a program that prints the
//! values is compiled and run, once with the headers of this machine and once with those of `aarch64`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use lazaret_filter::abi::Abi;
use lazaret_filter::{constants, table};

/// The kernel's headers (Debian's `linux-libc-dev`).
const KERNEL: &[&str] = &[
    "linux/types.h",
    "asm/ioctls.h",
    "asm/mman.h",
    "asm/resource.h",
    "asm/signal.h",
    "asm/socket.h",
    "asm/termbits.h",
    "linux/close_range.h",
    "linux/eventpoll.h",
    "linux/fadvise.h",
    "linux/falloc.h",
    "linux/fcntl.h",
    "linux/fiemap.h",
    "linux/fs.h",
    "linux/futex.h",
    "linux/in.h",
    "linux/in6.h",
    "linux/inotify.h",
    "linux/membarrier.h",
    "linux/memfd.h",
    "linux/mman.h",
    "linux/mount.h",
    "linux/personality.h",
    "linux/pidfd.h",
    "linux/prctl.h",
    "linux/ptrace.h",
    "linux/random.h",
    "linux/resource.h",
    "linux/sched.h",
    "linux/seccomp.h",
    "linux/signalfd.h",
    "linux/sockios.h",
    "linux/time.h",
    "linux/timerfd.h",
    "linux/userfaultfd.h",
    "linux/wait.h",
];

/// The C library's, for what the kernel keeps in its own `include/linux`. These are the same on every architecture here.
const LIBRARY: &[&str] = &[
    "netinet/in.h",
    "netinet/tcp.h",
    "netinet/udp.h",
    "sys/eventfd.h",
    "sys/socket.h",
];

/// In no header of Debian 12: newer than Linux 6.1, or never shown to user space. Each is in the header that its list in
/// `constants` names, of Linux 6.13.
const IN_NO_HEADER: [&str; 22] = [
    "ARCH_SHSTK_DISABLE",
    "ARCH_SHSTK_ENABLE",
    "ARCH_SHSTK_LOCK",
    "ARCH_SHSTK_STATUS",
    "ARCH_SHSTK_UNLOCK",
    "F_CREATED_QUERY",
    "F_DUPFD_QUERY",
    "MADV_GUARD_INSTALL",
    "MADV_GUARD_REMOVE",
    "MEMBARRIER_CMD_GET_REGISTRATIONS",
    "MFD_EXEC",
    "MFD_NOEXEC_SEAL",
    "PR_GET_AUXV",
    "PR_GET_MDWE",
    "PR_GET_MEMORY_MERGE",
    "PR_SET_MDWE",
    "PR_SET_MEMORY_MERGE",
    "SOL_SCTP",
    "SOL_UDPLITE",
    "SOL_VSOCK",
    "SO_PASSPIDFD",
    "SO_PEERPIDFD",
];

/// Every name of every vocabulary that a call of the convention has.
fn names(abi: Abi) -> BTreeMap<&'static str, u64> {
    let mut names = BTreeMap::new();
    for (_, call) in table::calls(abi) {
        for def in table::args_of(call).unwrap_or(&[]) {
            for &(name, value) in constants::vocabulary(call, def.name).unwrap_or(&[]) {
                let other = names.insert(name, value);
                assert!(other.is_none_or(|other| other == value), "{name}");
            }
        }
    }
    assert!(names.len() > 500, "{}", names.len());
    names
}

/// The values that the headers give, of those names that they know.
fn values(
    folder: &Path,
    options: &[&str],
    headers: &[&str],
    names: impl Iterator<Item = &'static str>,
) -> BTreeMap<String, u64> {
    let mut known: BTreeSet<&str> = names.collect();
    let source = folder.join("values.c");
    let program = folder.join("values");
    // A name that the headers do not know is an error each; without them it compiles.
    loop {
        let mut text = String::from("#define _GNU_SOURCE\n");
        for header in headers {
            text += &format!("#include <{header}>\n");
        }
        text += "extern int printf(const char *, ...);\nint main(void) {\n";
        for name in &known {
            text +=
                &format!("printf(\"{name} %llu\\n\", (unsigned long long)(unsigned)({name}));\n");
        }
        text += "}\n";
        fs::write(&source, text).expect("folder is ours");
        let output = Command::new("cc")
            .args(["-w", "-fmax-errors=0", "-o"])
            .arg(&program)
            .arg(&source)
            .args(options)
            .env("LC_ALL", "C")
            .output()
            .expect("cc is there");
        if output.status.success() {
            break;
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let before = known.len();
        for line in errors.lines().filter(|line| line.contains("undeclared")) {
            if let Some(name) = line.split('\'').nth(1) {
                known.remove(name);
            }
        }
        assert!(known.len() < before, "{errors}");
    }
    let output = Command::new(&program).output().expect("it was just made");
    String::from_utf8(output.stdout)
        .expect("names and numbers")
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').expect("two words");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// What `found` knows is right, and what neither it nor the C library knows is in `IN_NO_HEADER`.
fn compare(abi: Abi, folder: &Path, options: &[&str], headers: &[&str]) {
    let names = names(abi);
    let mut found = values(folder, options, headers, names.keys().copied());
    let rest = names
        .keys()
        .copied()
        .filter(|name| !found.contains_key(*name));
    let rest: Vec<&str> = rest.collect();
    found.extend(values(folder, &[], LIBRARY, rest.into_iter()));
    let missing: Vec<&str> = names
        .keys()
        .copied()
        .filter(|name| !found.contains_key(*name))
        .collect();
    for name in missing {
        assert!(IN_NO_HEADER.contains(&name), "{abi}: no header has {name}");
    }
    for (name, value) in &found {
        assert_eq!(names.get(name.as_str()), Some(value), "{abi}: {name}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn values_are_those_of_the_installed_headers() {
    let folder = tempfile::tempdir().expect("a folder");
    let headers: Vec<&str> = KERNEL.iter().copied().chain(["asm/prctl.h"]).collect();
    compare(Abi::X86_64, folder.path(), &[], &headers);
}

/// What `aarch64` has of its own in arch/arm64/include/uapi/asm of Linux 6.1 adds names to the generic headers; only the
/// values of fcntl.h differ, and none of those has a name here.
#[test]
fn values_are_those_of_aarch64() {
    let folder = tempfile::tempdir().expect("a folder");
    let asm = folder.path().join("asm");
    fs::create_dir(&asm).expect("folder is ours");
    let write = |name: &str, text: &str| fs::write(asm.join(name), text).expect("folder is ours");
    for entry in fs::read_dir("/usr/include/asm-generic").expect("linux-libc-dev is there") {
        let name = entry.expect("readable").file_name();
        let name = name.to_str().expect("ASCII");
        write(name, &format!("#include <asm-generic/{name}>\n"));
    }
    write(
        "byteorder.h",
        "#include <linux/byteorder/little_endian.h>\n",
    );
    write("ptrace.h", ""); // registers
    write("sigcontext.h", "");
    write(
        "fcntl.h",
        "#define O_DIRECTORY 040000\n#define O_NOFOLLOW 0100000\n#define O_DIRECT 0200000\n\
         #define O_LARGEFILE 0400000\n#include <asm-generic/fcntl.h>\n",
    );
    let include = folder.path().to_str().expect("UTF-8").to_owned();
    let options = [
        "-nostdinc",
        "-D__BITS_PER_LONG=64",
        "-isystem",
        &include,
        "-isystem",
        "/usr/include",
    ];
    compare(Abi::Aarch64, folder.path(), &options, KERNEL);
}
