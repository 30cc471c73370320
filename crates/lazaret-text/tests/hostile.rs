//! Hostile files and texts: refused with a clear error, at the cost of little memory.
//!
//! One test after the other, in one function: the peak of memory is the process's.

use lazaret_text::{filter, policy};
use peak_alloc::PeakAlloc;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most that any of them may cost beyond its own text, in bytes.
const LIMIT: usize = 16 << 20;

/// Runs it, and its result with what it cost at its peak.
fn measured<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    let cost = MEMORY.peak_usage().saturating_sub(before);
    println!("{:>8} KiB  {name}", cost >> 10);
    assert!(cost < LIMIT, "{name} costs {cost} bytes");
    result
}

/// The error of a text, which must be one.
fn text(name: &str, text: &str) -> String {
    let Err(problems) = measured(name, || policy::parse(text)) else {
        panic!("{name} is taken for a policy");
    };
    let shown = problems.to_string();
    assert!(!problems.found().is_empty());
    assert!(
        shown.len() < 64 << 10,
        "{name}: an error of {} bytes",
        shown.len()
    );
    shown
}

/// The error of a file with all its sources, which must be one.
fn file(name: &str, path: &Path) -> String {
    let Err(error) = measured(name, || policy::read(path)) else {
        panic!("{name} is taken for a policy");
    };
    with_sources(&error)
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut shown = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(shown, ": {error}").expect("a string takes all");
        source = error.source();
    }
    shown
}

/// Ten levels, each nine times the one before: 9^10 values, when it is expanded.
fn bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..=10 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").expect("a string takes all");
    }
    text
}

#[test]
fn refused_with_a_clear_error_and_little_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    texts();
    files(folder.path());
    filters(folder.path());
}

fn texts() {
    let bound = 1 << 20;
    let shown = text("alias bomb", &bomb());
    assert!(
        shown.contains("line 1 column 9: anchors and aliases are not allowed"),
        "{shown}"
    );
    // more text than is parsed at all
    let shown = text("over the bound", &"#".repeat(bound + 1));
    assert!(
        shown.contains("the text has 1048577 bytes, at most 1048576 are read"),
        "{shown}"
    );

    for (name, deep) in [
        ("deep flow lists", "[".repeat(bound)),
        ("deep flow maps", "{a: ".repeat(bound / 4)),
        ("deep block lists", "- ".repeat(bound / 2)),
        ("deep block maps", {
            let mut text = String::new();
            for level in 0..1000 {
                writeln!(text, "{}a:", " ".repeat(level)).expect("a string takes all");
            }
            text
        }),
    ] {
        let shown = text(name, &deep);
        assert!(shown.contains("more than 16 levels"), "{name}: {shown}");
    }
    for (name, wide) in [
        ("wide flow list", format!("[{}", "1,".repeat(bound / 2 - 1))),
        ("wide block list", "- 1\n".repeat(bound / 4)),
        ("wide flow map", {
            let fields: String = (0..).map(|n| format!("{n}: 1,")).take(100_000).collect();
            format!("{{{fields}}}")
        }),
        (
            "many empty values",
            format!("[{}", "[],".repeat(bound / 3 - 1)),
        ),
    ] {
        let shown = text(name, &wide);
        assert!(shown.contains("more than 65536 values"), "{name}: {shown}");
    }
    text(
        "unknown fields",
        &(0..30_000)
            .map(|n| format!("field{n}: 1\n"))
            .collect::<String>(),
    );
    text(
        "one name",
        &format!("apiVersion: {}", "x".repeat(bound - 16)),
    );
    text("one field", &format!("{}: 1", "x".repeat(bound - 16)));
    text("one comment", &format!("#{}", "x".repeat(bound - 16)));
    text("only comments", &"#\n".repeat(bound / 2));
    text("only line breaks", &"\n".repeat(bound));
    text("documents", &"---\n".repeat(bound / 4));
    text(
        "escapes",
        &format!("\"{}\"", "\\u2028".repeat(bound / 6 - 1)),
    );
    text(
        "a block of text",
        &format!("a: |\n{}", "  x\n".repeat(bound / 4 - 2)),
    );
    text("tags", &format!("[{}", "!!str x,".repeat(bound / 8 - 1)));
    text("anchors", &format!("[{}", "&a x,".repeat(bound / 5 - 1)));
    text("complex keys", &"? ".repeat(bound / 2));
    text("directives", &"%YAML 1.2\n".repeat(bound / 10));
    text("NUL", "apiVersion: lazaret.dev/v1\0\n");
    text("only NUL", &"\0".repeat(bound));
    text(
        "huge number",
        &format!("metadata: {{name: a, revision: {}}}", "9".repeat(100_000)),
    );
    text("huge float", "metadata: {name: a, revision: 1e999999999}");
    text("not a number", "metadata: {name: a, revision: .nan}");
}

fn files(folder: &Path) {
    let path = |name: &str| -> PathBuf { folder.join(name) };
    let made = |name: &str, content: &[u8]| -> PathBuf {
        std::fs::write(path(name), content).expect("the folder can be written");
        path(name)
    };

    let large = path("large");
    let mut sparse = std::fs::File::create(&large).expect("the folder can be written");
    sparse
        .write_all(b"apiVersion: lazaret.dev/v1\n#")
        .expect("it can be written");
    sparse.set_len(100 << 20).expect("it can be made longer");
    let shown = file("100 MiB", &large);
    assert_eq!(
        shown,
        format!(
            "policy `{}` is larger than 1048576 bytes, the most that is read",
            large.display()
        )
    );

    let shown = file("/dev/zero", Path::new("/dev/zero"));
    assert_eq!(shown, "cannot read policy `/dev/zero`: it is a device");
    let shown = file("a folder", folder);
    assert!(shown.ends_with("it is a directory"), "{shown}");
    let shown = file("no file", &path("none"));
    assert!(
        shown.starts_with("cannot open policy `") && shown.contains("No such file"),
        "{shown}"
    );

    let pipe = path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a named pipe");
    let shown = file("a pipe without a writer", &pipe);
    assert!(
        shown.contains("line 1 column 1: expected fields, found nothing"),
        "{shown}"
    );

    let shown = file("no UTF-8", &made("latin1", b"a: b\nname: caf\xe9\n"));
    assert!(
        shown.ends_with("is no UTF-8 text: line 2 has the byte 0xe9"),
        "{shown}"
    );
    let shown = file("UTF-16", &made("utf16", b"\xff\xfea\0:\0"));
    assert!(
        shown.ends_with("is no UTF-8 text: line 1 has the byte 0xff"),
        "{shown}"
    );
    let shown = file(
        "a byte order mark",
        &made("bom", b"\xef\xbb\xbfsurprise: 1\n"),
    );
    assert!(
        shown.contains("line 1 column 1: unknown field `surprise`"),
        "{shown}"
    );
}

fn filters(folder: &Path) {
    let path = folder.join("filter.bpf");
    for (content, wanted) in [
        (&b""[..], "filter is empty"),
        (
            &[0x06, 0, 0, 0, 0, 0, 0xff][..],
            "filter has 7 bytes, not a multiple of 8",
        ),
        (
            &[0x20, 0, 0, 0, 0, 0, 0, 0][..],
            "last instruction is no return",
        ),
        (
            &[0xff; 8][..],
            "instruction 0 has code 0xffff, which seccomp does not allow",
        ),
        (
            &[0; 8 * 4096 + 1][..],
            "is larger than 32768 bytes, the most that is read",
        ),
    ] {
        std::fs::write(&path, content).expect("the folder can be written");
        let Err(error) = measured("filter", || filter::read(&path)) else {
            panic!("{content:x?} is taken for a filter");
        };
        let shown = with_sources(&error);
        assert!(
            shown.ends_with(wanted) && shown.contains("filter.bpf"),
            "{shown}"
        );
    }
    let sparse = std::fs::File::create(&path).expect("the folder can be written");
    sparse.set_len(100 << 20).expect("it can be made longer");
    assert!(measured("100 MiB filter", || filter::read(&path)).is_err());
    let allow = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];
    std::fs::write(&path, allow).expect("the folder can be written");
    let read = filter::read(&path).expect("a filter");
    assert_eq!(read.to_bytes(), allow);
}

#[test]
fn a_pipe_with_a_writer_is_read_to_its_end() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let text = b"\xef\xbb\xbfapiVersion: x\n";
    let writing = std::thread::spawn(move || writer.write_all(text));
    let shown = policy::read(Path::new(&path))
        .expect_err("it is no policy")
        .to_string();
    assert!(writing.join().expect("no panic").is_ok());
    assert!(shown.contains("missing field"), "{shown}");
}
