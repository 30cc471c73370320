//! `lazaret permit` as a user meets it: exit codes, messages, what is left in the store.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const IMAGE: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";

struct Desk(TempDir);

impl Desk {
    /// With a key that `store` pins, and a stranger's.
    fn new() -> Desk {
        let desk = Desk(TempDir::new().expect("a temporary directory"));
        for key in ["site.key", "other.key"] {
            desk.check(&["key", "generate", "-o", key], 0, "BEGIN PUBLIC KEY");
        }
        fs::create_dir_all(desk.path().join("store/keys")).expect("made");
        let pinned = desk.path().join("store/keys/site.pem");
        fs::copy(desk.path().join("site.key.pub"), pinned).expect("copied");
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs it; exit code and a part of what it says.
    #[track_caller]
    fn check(&self, args: &[&str], code: i32, said: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_lazaret"))
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .expect("lazaret runs");
        let both = [output.stdout, output.stderr].concat();
        let all = String::from_utf8_lossy(&both).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {all}");
        assert!(all.contains(said), "{args:?}: `{said}` is not in: {all}");
        all
    }

    /// `permit sign` with these options besides those that every permit needs.
    #[track_caller]
    fn sign(&self, options: &[&str], code: i32, said: &str) {
        let common = [
            "permit",
            "sign",
            "--key",
            "site.key",
            "--image-digest",
            IMAGE,
            "--reason",
            "INC-7",
            "-o",
            "p.json",
        ];
        self.check(&[&common, options].concat(), code, said);
    }

    #[track_caller]
    fn verify(&self, image: &str, at: &str, code: i32, said: &str) {
        let common = ["permit", "verify", "p.json", "--keys", "store/keys"];
        let more = ["--image-digest", image, "--at", at];
        self.check(&[&common[..], &more[..]].concat(), code, said);
    }

    #[track_caller]
    fn store(&self, args: &[&str], code: i32, said: &str) -> String {
        self.check(
            &[&["permit"], args, &["--store", "store"]].concat(),
            code,
            said,
        )
    }
}

#[test]
fn what_was_signed_verifies_for_its_image_in_its_time() {
    let desk = Desk::new();
    desk.sign(
        &[
            "--for",
            "2h",
            "--from",
            "2026-01-31T08:00:00Z",
            "--calls",
            "ceiling",
            "--container",
            "fhir",
        ],
        0,
        "2026-01-31T08:00:00Z to 2026-01-31T10:00:00Z",
    );
    desk.verify(IMAGE, "2026-01-31T08:00:00Z", 0, "only    container fhir");
    desk.verify(IMAGE, "2026-01-31T09:59:59Z", 0, "with every call");
    desk.verify(
        IMAGE,
        "2026-01-31T07:59:59Z",
        1,
        "holds from 2026-01-31T08:00:00Z",
    );
    desk.verify(
        IMAGE,
        "2026-01-31T10:00:00Z",
        1,
        "held until 2026-01-31T10:00:00Z",
    );
    desk.verify(
        OTHER,
        "2026-01-31T09:00:00Z",
        4,
        "permit is for sha256:e3b0",
    );
    desk.verify(IMAGE, "2026-01-31 09:00", 2, "expected UTC as in");
    desk.check(
        &[
            "verify",
            "p.json",
            "--keys",
            "store/keys",
            "--image-digest",
            IMAGE,
        ],
        4,
        "wanted `https://lazaret.dev/policy/v1`",
    );
    let text = fs::read_to_string(desk.path().join("p.json")).expect("a permit");
    fs::write(
        desk.path().join("p.json"),
        text.replacen("\"sig\":\"", "\"sig\":\"AAAA", 1),
    )
    .expect("written");
    desk.verify(
        IMAGE,
        "2026-01-31T09:00:00Z",
        4,
        "no signature by a pinned key",
    );
}

#[test]
fn terms_that_no_permit_can_have_are_not_signed() {
    let desk = Desk::new();
    desk.sign(&["--for", "8d"], 2, "at most 604800 s (7 days)");
    desk.sign(&["--for", "0h"], 2, "not after it begins");
    desk.sign(
        &["--for", "2"],
        2,
        "expected a whole number and s, m, h or d",
    );
    desk.sign(
        &["--for", "2h", "--container", "../x"],
        2,
        "its container has to be",
    );
    desk.sign(&["--for", "2h", "--calls", "all"], 2, "invalid value");
    let nothing = [
        "permit", "sign", "--key", "site.key", "--for", "2h", "-o", "p.json",
    ];
    desk.check(
        &[&nothing[..], &["--reason", "x"]].concat(),
        2,
        "--image-digest",
    );
    desk.check(
        &[&nothing[..], &["--reason", "", "--image-digest", IMAGE]].concat(),
        2,
        "its reason has to be",
    );
    assert!(!desk.path().join("p.json").exists());
    desk.sign(&["--for", "7d"], 0, "signed sha256:");
}

#[test]
fn permits_are_installed_listed_and_removed() {
    let desk = Desk::new();
    desk.store(&["list"], 1, "no permit is installed in `store`");
    desk.sign(&["--for", "2h"], 0, "signed");
    desk.store(&["install", "p.json"], 0, "installed sha256:");
    let listed = desk.store(&["list"], 0, "(holds)");
    desk.store(&["clean"], 0, "no permit in `store` has expired");
    let digest = listed.split_whitespace().nth(1).expect("a digest");
    desk.store(&["remove", OTHER], 1, "is not installed");
    desk.store(&["remove", digest], 0, "removed: store/permits/");
    desk.store(&["list"], 1, "no permit is installed");

    // long ago: not installed, and cleaned where it lies
    let digest = {
        desk.sign(
            &["--for", "2h", "--from", "2020-01-31T08:00:00Z"],
            0,
            "2020",
        );
        desk.store(&["install", "p.json"], 1, "held until 2020-01-31T10:00:00Z");
        let shown = desk.check(
            &[
                "permit",
                "verify",
                "p.json",
                "--keys",
                "store/keys",
                "--image-digest",
                IMAGE,
                "--at",
                "2020-01-31T09:00:00Z",
            ],
            0,
            "verified sha256:",
        );
        let digest = shown.split_whitespace().nth(1).expect("a digest");
        digest.trim_start_matches("sha256:").to_owned()
    };
    let file = desk.path().join(format!("store/permits/{digest}.json"));
    fs::copy(desk.path().join("p.json"), &file).expect("copied");
    desk.store(&["list"], 0, "(expired)");
    // by a stranger, and under another's name: shown, not cleaned
    let common = [
        "permit",
        "sign",
        "--key",
        "other.key",
        "--image-digest",
        IMAGE,
        "--reason",
        "x",
    ];
    desk.check(
        &[&common[..], &["--for", "2h", "-o", "q.json"]].concat(),
        0,
        "signed",
    );
    desk.store(&["install", "q.json"], 4, "no signature by a pinned key");
    let strange = desk
        .path()
        .join("store/permits")
        .join(format!("{}.json", "5".repeat(64)));
    fs::copy(desk.path().join("q.json"), &strange).expect("copied");
    desk.store(&["list"], 4, "refused (signature)");
    desk.store(&["clean"], 0, "removed: ");
    assert!(!file.exists() && strange.exists());
    desk.sign(&["--for", "2h"], 0, "signed");
    fs::copy(desk.path().join("p.json"), &strange).expect("copied");
    desk.store(&["list"], 4, "refused (name)");
}
