//! The target server with a tampered layer on top: what an attacker who could change the image would add.
//!
//! A class that runs beside the server and does what it is told by HTTP (`targets/hapi/rogue`), its native half, and a
//! static shell. The layers below are the target's own, so everything else is the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::{Image, Layer, StartConfig, fresh_folder, hapi, key, read, reuse};
use crate::command::{command, output, run};
use crate::steps::Steps;

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// The image `lazaret/hapi:rogue`; made when it is not there or what goes into it has changed.
///
/// # Errors
/// When javac or clang fail, or the target image's folder is gone.
pub fn rogue(
    steps: &Steps,
    workspace: &Path,
    target: &Path,
    base: &Image,
) -> anyhow::Result<Image> {
    let source = workspace.join("targets/hapi/rogue");
    let class = source.join("src/dev/lazaret/rogue/Rogue.java");
    let native = source.join("rogue.c");
    let key = key([
        ("recipe", b"1".to_vec()),
        ("base", base.config_digest().into()),
        ("class", read(&class)?),
        ("native", read(&native)?),
        (
            "compiler",
            output(&mut command("clang", ["--version"]))?.into_bytes(),
        ),
        ("shell", read(Path::new(BUSYBOX))?),
    ])?;
    let folder = target.join("images/rogue");
    if let Some(image) = reuse(steps, &folder, &key) {
        return Ok(image);
    }
    steps.step("HAPI FHIR: rogue layer", |_| {
        fresh_folder(&folder)?;
        let root = folder.join("root");
        let classes = folder.join("classes");
        for made in [&root.join("app"), &root.join("bin"), &classes] {
            fs::create_dir_all(made)?;
        }
        let java = hapi::java_home()?;
        let server = unpack_app(base, &folder)?;
        let mut javac = command(
            java.join("bin/javac"),
            ["-nowarn", "-encoding", "UTF-8", "-d"],
        );
        run(javac.arg(&classes).arg("-cp").arg(&server).arg(&class))?;
        let mut jar = command(
            java.join("bin/jar"),
            ["--create", "--date=2001-09-09T01:46:40Z", "--file"],
        );
        run(jar
            .arg(root.join("app/rogue.jar"))
            .arg("-C")
            .arg(&classes)
            .arg("."))?;
        let mut clang = command(
            "clang",
            ["-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"],
        );
        clang
            .arg("-I")
            .arg(java.join("include"))
            .arg("-I")
            .arg(java.join("include/linux"));
        run(clang
            .arg("-o")
            .arg(root.join("app/librogue.so"))
            .arg(&native))?;
        fs::copy(BUSYBOX, root.join("bin/busybox"))
            .with_context(|| format!("cannot copy {BUSYBOX}"))?;

        let layer = Layer::pack(&root, &folder)?;
        let mut layers = base.layers.clone();
        for below in &layers {
            below.share(&base.folder, &folder)?;
        }
        layers.push(layer);
        let start = StartConfig {
            entrypoint: hapi::entrypoint(
                &format!("{}:/app/rogue.jar", hapi::CLASS_PATH),
                "dev.lazaret.rogue.Rogue",
            ),
            exposed_ports: BTreeMap::from([
                ("8080/tcp".into(), json!({})),
                ("8081/tcp".into(), json!({})),
            ]),
            ..hapi::start_config()
        };
        Image::write(&folder, "lazaret/hapi:rogue", key, layers, &start)
    })
}

/// The target's launcher, out of its layer: the rogue class calls it.
fn unpack_app(base: &Image, folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let layer = base
        .layers
        .first()
        .context("the target image has no layer")?;
    let mut tar = command("tar", ["--extract", "--file"]);
    tar.arg(base.folder.join(layer.file()))
        .arg("--directory")
        .arg(folder)
        .arg("./app/app.jar");
    run(&mut tar)?;
    Ok(folder.join("app/app.jar"))
}
