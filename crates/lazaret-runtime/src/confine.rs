//! At `create`: is this container to be confined, and if so, its profile into `config.json`.

use crate::command_line::NewContainer;
use crate::config::Config;
use crate::config_json;
use anyhow::{Context as _, anyhow, bail, ensure};
use lazaret_bundle::read::{self, ReadError};
use lazaret_bundle::store;
use lazaret_core::digest::Digest;
use lazaret_core::filter::oci::OciSeccomp;
use lazaret_image::{ImageError, ImageIdentity};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Largest `config.json` that is read, in bytes.
const CONFIG_JSON_LIMIT: u64 = 16 * 1024 * 1024;

/// The value of the label or annotation that confines.
const REQUIRED: &str = "required";

/// Why a container is confined.
#[derive(Debug, PartialEq, Eq)]
enum Reason {
    Label(String),
    Listed,
    Stored,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Label(label) => write!(f, "it is labelled `{label}={REQUIRED}`"),
            Reason::Listed => f.write_str("its image is listed in the node's configuration"),
            Reason::Stored => f.write_str("its image is in the node's store"),
        }
    }
}

/// What is to be done with a new container.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// Nothing asks for it.
    LeaveAlone,
    /// Its `config.json` gets this profile.
    Confine(Vec<u8>),
}

/// Puts the profile into the bundle of a container that is to be confined, and leaves every other bundle alone.
///
/// # Flow
/// `config.json` is read (a bundle without one is the runtime's to refuse) → image → selected? → profile of the highest
/// revision in the store → new `config.json` beside the old one, renamed over it.
///
/// # Guarantees
/// A container that is selected is never created without its profile. The file is replaced as a whole or not at all.
///
/// # Assumptions
/// The bundle belongs to the engine and nobody else writes it meanwhile.
///
/// # Caveats
/// The profile is not verified here: the gate does that at the container's first `execve`, against the filter that the
/// kernel runs.
///
/// # Errors
/// One sentence that says why the container must not be created.
pub(crate) fn create(config: &Config, new: &NewContainer) -> anyhow::Result<()> {
    let bundle = bundle(new)?;
    let path = bundle.join("config.json");
    let Some(text) = read_config_json(&path)? else {
        return Ok(());
    };
    let Choice::Confine(profile) = choose(config, new, &bundle, &text)? else {
        return Ok(());
    };
    let profile: Box<RawValue> =
        serde_json::from_slice(&profile).context("cannot use the stored profile")?;
    let edited = config_json::with_seccomp(&text, &profile)?;
    replace(&path, edited.as_bytes())
        .with_context(|| format!("cannot replace `{}`", path.display()))
}

/// Refuses to restore a container that is to be confined: its processes come back with the filter of the checkpoint, not
/// with a profile.
///
/// # Errors
/// One sentence that says why the container must not be restored.
pub(crate) fn restore(config: &Config, new: &NewContainer) -> anyhow::Result<()> {
    let bundle = bundle(new)?;
    let Some(text) = read_config_json(&bundle.join("config.json"))? else {
        return Ok(());
    };
    match choose(config, new, &bundle, &text)? {
        Choice::LeaveAlone => Ok(()),
        Choice::Confine(_) => bail!(
            "container {} must be confined and cannot be restored from a checkpoint: only a new one can",
            new.id.display()
        ),
    }
}

/// The runtime's default bundle is its working directory.
fn bundle(new: &NewContainer) -> anyhow::Result<PathBuf> {
    let given = new.bundle.as_deref().unwrap_or(Path::new(""));
    Ok(std::env::current_dir()
        .context("cannot find the working directory")?
        .join(given))
}

fn read_config_json(path: &Path) -> anyhow::Result<Option<String>> {
    match read::bounded(path, CONFIG_JSON_LIMIT) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| anyhow!("`{}` is not UTF-8 text", path.display())),
        Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn choose(
    config: &Config,
    new: &NewContainer,
    bundle: &Path,
    text: &str,
) -> anyhow::Result<Choice> {
    let id = new.id.to_string_lossy();
    let annotations = config_json::annotations(text)?;
    let image = match lazaret_image::resolve(bundle, &id, &config.roots()) {
        Ok(image) => Some(image),
        // made by hand or by a builder: only its own annotation can ask for a policy
        Err(ImageError::UnknownEngine { .. }) => None,
        Err(error) => {
            return Err(error).with_context(|| format!("the image of container {id} is not known"));
        }
    };
    let stored = match &image {
        Some(image) => store::knows(&config.store, &image.digests)?,
        None => false,
    };
    let Some(reason) = reason(config, image.as_ref(), &annotations, stored)? else {
        return Ok(Choice::LeaveAlone);
    };
    let Some(image) = image else {
        bail!("container {id} must be confined ({reason}), but no engine that is known made it");
    };
    let Some((_, profile)) = store::read_profile_newest(&config.store, &image.digests)
        .with_context(|| format!("container {id} must be confined ({reason}) and cannot"))?
    else {
        bail!(
            "container {id} must be confined ({reason}), but the store `{}` has no policy for {}",
            config.store.display(),
            list(&image.digests)
        );
    };
    let seccomp: OciSeccomp =
        serde_json::from_slice(&profile).context("cannot use the stored profile")?;
    let listener = seccomp.listener_path.as_deref().unwrap_or("nobody");
    ensure!(
        Path::new(listener) == config.listener_socket,
        "container {id} must be confined ({reason}), but its profile hands the listener to `{listener}`, not to this \
         node's gate `{}`",
        config.listener_socket.display()
    );
    Ok(Choice::Confine(profile))
}

fn reason(
    config: &Config,
    image: Option<&ImageIdentity>,
    annotations: &BTreeMap<String, String>,
    stored: bool,
) -> anyhow::Result<Option<Reason>> {
    let name = &config.select.label;
    let label = image.and_then(|image| image.labels.get(name));
    let values = [label, annotations.get(name)];
    for value in values.into_iter().flatten() {
        ensure!(
            value == REQUIRED,
            "label `{name}` is `{value}`, the only value it can have is `{REQUIRED}`"
        );
    }
    if values.iter().any(Option::is_some) {
        return Ok(Some(Reason::Label(name.clone())));
    }
    if image.is_some_and(|image| !image.digests.is_disjoint(&config.select.images)) {
        return Ok(Some(Reason::Listed));
    }
    Ok(stored.then_some(Reason::Stored))
}

fn list(digests: &BTreeSet<Digest>) -> String {
    let texts: Vec<_> = digests.iter().map(Digest::to_string).collect();
    texts.join(", ")
}

/// Replaces a file by a rename in its directory, keeping its mode.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mode = path.metadata()?.permissions().mode() & 0o7777;
    let temporary = path.with_extension(format!("json.lazaret.{}", std::process::id()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| {
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.write_all(bytes)
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    written.inspect_err(|_| {
        // the first error is the one to tell
        drop(std::fs::remove_file(&temporary));
    })
}
