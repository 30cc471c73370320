//! The small server for the gate's own tests: `testing/berth`, linked statically, alone in an image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::{Image, Layer, StartConfig, fresh_folder, key, read, reuse};
use crate::programs;
use crate::steps::Steps;

/// Given explicitly, so that `crt-static` is not applied to build scripts and other packages' artifacts stay valid.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The image `lazaret/berth:test`. The program is always built; the image is made again when it has changed.
///
/// # Errors
/// When it does not build or is not linked statically.
pub fn berth(steps: &Steps, workspace: &Path, target: &Path) -> anyhow::Result<Image> {
    steps.step("image of berth", |_| {
        let config = format!("target.{TARGET}.rustflags=[\"-C\", \"target-feature=+crt-static\"]");
        let options = [
            "--release",
            "--package",
            "berth",
            "--target",
            TARGET,
            "--config",
            &config,
        ];
        let programs = programs::build(workspace, &options, &["berth"])?;
        let program = programs.path("berth")?;
        let key = key([("recipe", b"1".to_vec()), ("berth", read(program)?)])?;
        let folder = target.join("images/berth");
        if let Some(image) = reuse(steps, &folder, &key) {
            return Ok(image);
        }
        fresh_folder(&folder)?;
        let root = folder.join("root");
        for made in ["proc", "dev", "sys", "etc", "tmp"] {
            fs::create_dir_all(root.join(made))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::copy(program, root.join("berth"))
            .with_context(|| format!("cannot copy {}", program.display()))?;
        let layer = Layer::pack(&root, &folder)?;
        let start = StartConfig {
            user: "10001:10001".into(),
            exposed_ports: BTreeMap::from([("8080/tcp".into(), json!({}))]),
            env: vec!["PATH=/".into()],
            entrypoint: vec!["/berth".into()],
            working_dir: "/".into(),
        };
        Image::write(&folder, "lazaret/berth:test", key, vec![layer], &start)
    })
}
