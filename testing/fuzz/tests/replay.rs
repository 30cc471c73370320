//! Every seed and every input that was ever a finding, once more.

use lazaret_fuzz::Target;
use std::fs;
use std::path::Path;

/// Runs a target over the files of a folder, in the order of their names; how many there were.
fn replay(folder: &Path, target: Target) -> usize {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.is_file() && !path.ends_with(".gitkeep"))
        .collect();
    files.sort();
    for file in &files {
        // the name is shown when the target panics
        println!("{}", file.display());
        target(&fs::read(file).expect("the file can be read"));
    }
    files.len()
}

#[test]
fn seeds_and_findings_hold() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, target) in lazaret_fuzz::TARGETS {
        let seeds = replay(&here.join("seeds").join(name), target);
        assert!(seeds > 0, "{name} has no seed");
        replay(&here.join("regressions").join(name), target);
    }
    let data = here.join("../../crates/lazaret-filter/tests/data");
    assert!(replay(&data, lazaret_fuzz::bpf) > 0);
    assert!(replay(&data.join("profiles"), lazaret_fuzz::oci_json) > 0);
}

#[test]
fn every_target_has_its_program() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in lazaret_fuzz::TARGETS {
        let program = here.join("targets").join(name).with_extension("rs");
        let text = fs::read_to_string(&program).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            text.contains(&format!("lazaret_fuzz::{name}(data)")),
            "{name}"
        );
    }
}
