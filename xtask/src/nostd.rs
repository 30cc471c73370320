//! Whether `lazaret-filter` and `lazaret-core` build without an operating system.
//!
//! `#![no_std]` alone proves nothing: a dependency may still bring `std`. Here a static library without `std`, with a panic
//! handler of its own, is made from them. `std` has a panic handler too, and the compiler refuses two (E0152), so the build
//! fails exactly when something in the graph uses `std`; no other target need be installed. It is a workspace of its own below
//! `target`, as in ours other crates would switch on features that need `std`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::command::run;
use crate::programs::cargo;

/// The crates that must do without.
const CRATES: [&str; 2] = ["lazaret-filter", "lazaret-core"];

const SOURCE: &str = "\
#![no_std]
extern crate alloc;
struct None;
// SAFETY: never called: the library is only compiled.
unsafe impl core::alloc::GlobalAlloc for None {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 { core::ptr::null_mut() }
    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}
#[global_allocator]
static NONE: None = None;
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
";

/// Builds them.
///
/// # Errors
/// When `std` is used, with the compiler's words.
pub fn check(workspace: &Path, target: &Path) -> anyhow::Result<()> {
    let crates: Vec<(&str, _)> = CRATES
        .iter()
        .map(|name| (*name, workspace.join("crates").join(name)))
        .collect();
    let crates: Vec<(&str, &Path)> = crates
        .iter()
        .map(|(name, path)| (*name, path.as_path()))
        .collect();
    let folder = target.join("no-std");
    write(&folder, &crates)?;
    // The same versions as everywhere else; entries that are not used here are dropped from the copy.
    fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock"))
        .context("cannot copy Cargo.lock")?;
    build(&folder)
}

fn write(folder: &Path, crates: &[(&str, &Path)]) -> anyhow::Result<()> {
    let mut manifest = "[package]\nname = \"no-std\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
                        [lib]\ncrate-type = [\"staticlib\"]\n\n[profile.dev]\npanic = \"abort\"\n\n[dependencies]\n"
        .to_owned();
    let mut source = SOURCE.to_owned();
    for (name, path) in crates {
        writeln!(
            manifest,
            "{name} = {{ path = {:?} }}",
            path.display().to_string()
        )?;
        writeln!(source, "use {} as _;", name.replace('-', "_"))?;
    }
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("src/lib.rs"), source)?;
    Ok(())
}

fn build(folder: &Path) -> anyhow::Result<()> {
    run(cargo(folder, "build")
        .args(["--quiet", "--target-dir"])
        .arg(folder.join("target"))
        .env_remove("CARGO_TARGET_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a crate with this source as if it were one of ours.
    fn judge(source: &str) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("subject");
        fs::create_dir_all(path.join("src"))?;
        fs::write(
            path.join("Cargo.toml"),
            "[package]\nname = \"subject\"\nversion = \"0.0.0\"\nedition = \"2024\"\n",
        )?;
        fs::write(path.join("src/lib.rs"), source)?;
        let check = folder.path().join("check");
        write(&check, &[("subject", &path)])?;
        build(&check)
    }

    #[test]
    fn std_is_found_and_alloc_is_not_taken_for_it() {
        judge("#![no_std]\nextern crate alloc;\npub fn f() -> alloc::string::String { alloc::string::String::new() }")
            .expect("alloc is not std");
        for uses_std in [
            "#![no_std]\nextern crate std;\npub fn f() { std::process::exit(1) }",
            "pub fn f() {}",
        ] {
            let error = judge(uses_std).expect_err("it uses std");
            assert!(format!("{error:#}").contains("panic_impl"), "{error:#}");
        }
    }
}
