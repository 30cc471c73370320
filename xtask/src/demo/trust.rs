//! Stage 2: keys, signatures, and the node's store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::world::World;
use crate::command::run;

/// The papers that the demonstration works with.
pub(super) struct Papers {
    /// The good bundle, for the learnt image.
    pub(super) good: PathBuf,
    /// The same policy, signed by a key that the node does not pin.
    pub(super) other_key: PathBuf,
}

/// Makes keys, signs the learnt policy, and installs it for the learnt image and, as somebody would who did not look into
/// its layers, for the rogue image.
pub(super) fn papers(world: &World) -> anyhow::Result<Papers> {
    world
        .steps
        .step("sign the policy and install the bundle", |_| {
            let keys = world.store().join("keys");
            fs::create_dir_all(&keys)?;
            fs::set_permissions(world.store(), fs::Permissions::from_mode(0o700))?;
            let private = world.node.path();
            let (ours, theirs) = (private.join("site.key"), private.join("stranger.key"));
            for key in [&ours, &theirs] {
                run(world.lazaret(&["key", "generate", "--out"])?.arg(key))?;
            }
            let public = private.join("site.key.pub");
            fs::copy(&public, keys.join("site.pem")).context("cannot pin the key")?;
            fs::copy(&public, world.out.join("key.pub"))?;

            let policy = world.out.join("policy.yaml");
            let good = world.out.join("bundle.json");
            sign(world, &policy, &ours, &good)?;
            let other_key = private.join("other-key.json");
            sign(world, &policy, &theirs, &other_key)?;
            install(world, &good)?;

            let derived = private.join("rogue.yaml");
            let text = fs::read_to_string(&policy)?;
            ensure!(
                text.contains(world.hapi.config_digest()),
                "the policy does not name the image"
            );
            fs::write(
                &derived,
                text.replace(world.hapi.config_digest(), world.rogue.config_digest()),
            )?;
            let rogue = private.join("rogue.json");
            sign(world, &derived, &ours, &rogue)?;
            install(world, &rogue)?;
            Ok(Papers { good, other_key })
        })
}

fn sign(world: &World, policy: &Path, key: &Path, out: &Path) -> anyhow::Result<()> {
    run(world
        .lazaret(&["sign"])?
        .arg(policy)
        .arg("--key")
        .arg(key)
        .arg("--out")
        .arg(out))
}

/// Puts a bundle into the node's store.
pub(super) fn install(world: &World, bundle: &Path) -> anyhow::Result<()> {
    let mut command = world.lazaret(&["bundle", "install"])?;
    run(command
        .arg(bundle)
        .arg("--store")
        .arg(world.store())
        .arg("--listener")
        .arg(world.listener()))
}

/// The folder of an image's only revision in the store.
pub(super) fn folder(world: &World, digest: &str) -> anyhow::Result<PathBuf> {
    let image = world
        .store()
        .join("images")
        .join(digest.trim_start_matches("sha256:"));
    let mut revisions =
        fs::read_dir(&image).with_context(|| format!("cannot list `{}`", image.display()))?;
    let folder = revisions.next().context("no revision is installed")??;
    ensure!(
        revisions.next().is_none(),
        "several revisions are installed"
    );
    Ok(folder.path())
}
