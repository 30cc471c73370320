//! Writes `docs/policy.schema.json`. `cargo run -p lazaret-core --features schema --example policy_schema`

use lazaret_core::format::policy::schema;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.schema.json");
    std::fs::write(path, schema())
}
