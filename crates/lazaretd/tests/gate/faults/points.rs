//! Every place at which the daemon can be made to kill itself has a row in the table of [`super::killed`].

use super::killed::ROWS;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn named_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("sources") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            named_in(&path, names);
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source");
        let calls = text.split("fault::point(\"").skip(1);
        names.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
}

#[test]
fn every_point_has_a_row_and_every_row_a_point() {
    let mut points = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    named_in(&sources, &mut points);
    let name = |fault: &str| fault.split(':').next().unwrap_or_default().to_owned();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| name(row.fault)).collect();
    assert_eq!(points, rows);
    assert!(points.len() >= 20, "{} points", points.len());
}
