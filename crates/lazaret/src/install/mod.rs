//! `lazaret install`: the wrapper in an engine's configuration, and out again.
//!
//! The change of each engine's file is a function from text to text ([`docker`], [`containerd`], [`podman`]); here it is shown
//! and written. No engine is reloaded, restarted or asked anything but its version.

mod containerd;
mod docker;
mod edit;
mod file;
mod podman;
#[cfg(test)]
mod tests;
mod toml;
mod version;

use crate::args::{Format, Install, InstallEngine};
use crate::exit::{Exit, Failure, OrExit as _, Outcome, fail};
use anyhow::Context as _;
use edit::{Change, EditError, Edited, Scope};
use file::{FileError, Found};
use similar::TextDiff;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What becomes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    Planned,
    Written,
    Removed,
}

impl Done {
    const fn name(self) -> &'static str {
        match self {
            Done::Nothing => "nothing",
            Done::Planned => "planned",
            Done::Written => "written",
            Done::Removed => "removed",
        }
    }
}

/// `lazaret install`
///
/// # Flow
/// Read → change → parse the changed text again → show → write beside it, fsync, rename → read back.
///
/// # Guarantees
/// A file that cannot be understood is not touched. A second run changes nothing. What others wrote stays, byte for byte.
///
/// # Caveats
/// The engine uses the change when a person reloads it.
///
/// # Errors
/// Exit 1 when an entry is not ours or is in use, 2 for what cannot be understood, 3 when this host or user cannot.
pub fn main(args: &Install, format: Format) -> Outcome {
    let path = path(args);
    if args.root != Path::new("/") {
        file::no_links_below(&args.root, &path).map_err(file_failure)?;
    }
    let found = file::read(&path).map_err(file_failure)?;
    let program = program(args)?;
    let scope = if args.default {
        Scope::Default
    } else {
        Scope::Named
    };
    let change = if args.remove {
        Change::TakeOut(scope)
    } else {
        Change::Put(program, scope)
    };
    let edited = edit(args.engine, found.text.as_deref(), change)
        .map_err(|error| edit_failure(error, &path))?;
    let goes = args.remove && edited.empty && found.text.is_some() && !has_backup(&path)?;
    let before = found.text.clone().unwrap_or_default();
    let after = if goes { "" } else { edited.text.as_str() };
    if before == after && !goes {
        say(args, format, &path, Done::Nothing, "", &edited.notes);
        return Ok(Exit::Yes);
    }
    let diff = diff(&path, &found, after, goes);
    let done = if args.dry_run {
        Done::Planned
    } else {
        write(args, &path, &found, &edited, goes).map_err(file_failure)?
    };
    say(args, format, &path, done, &diff, &edited.notes);
    Ok(Exit::Yes)
}

fn path(args: &Install) -> PathBuf {
    let usual = match args.engine {
        InstallEngine::Docker => "etc/docker/daemon.json",
        InstallEngine::Containerd => "etc/containerd/config.toml",
        InstallEngine::Podman => "etc/containers/containers.conf.d/50-lazaret.conf",
    };
    let below = match &args.config {
        Some(config) if args.root == Path::new("/") => return config.clone(),
        Some(config) => config.strip_prefix("/").unwrap_or(config).to_owned(),
        None => PathBuf::from(usual),
    };
    args.root.join(below)
}

/// The wrapper's path, as the engine will use it. An engine that is told of a program that is not there starts no container.
fn program(args: &Install) -> Outcome<&str> {
    let shown = args.runtime.display();
    let Some(program) = args.runtime.to_str().filter(|_| args.runtime.is_absolute()) else {
        return fail(
            Exit::Usage,
            format!("`{shown}` is not an absolute path that an engine could be given"),
        );
    };
    if !edit::is_ours(program) {
        return fail(
            Exit::Usage,
            format!("`{shown}` is not named lazaret-runtime: --remove would not know it again"),
        );
    }
    if args.remove {
        return Ok(program);
    }
    let there = args
        .root
        .join(args.runtime.strip_prefix("/").unwrap_or(&args.runtime));
    match there.metadata() {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(program),
        Ok(_) => fail(
            Exit::HostCannot,
            format!("`{}` is no program", there.display()),
        ),
        Err(error) => Err(error)
            .with_context(|| {
                format!(
                    "cannot find the wrapper `{}` (hint: --runtime PROGRAM)",
                    there.display()
                )
            })
            .or_exit(Exit::HostCannot),
    }
}

fn edit(
    engine: InstallEngine,
    text: Option<&str>,
    change: Change<'_>,
) -> Result<Edited, EditError> {
    match engine {
        InstallEngine::Docker => docker::edit(text, change),
        InstallEngine::Containerd => containerd::edit(text, change),
        InstallEngine::Podman => podman::edit(text, change),
    }
}

fn has_backup(path: &Path) -> Outcome<bool> {
    let backup = file::read(&file::backup(path)).map_err(file_failure)?;
    Ok(backup.text.is_some())
}

fn diff(path: &Path, found: &Found, after: &str, goes: bool) -> String {
    let name = path.display().to_string();
    let none = || "/dev/null".to_owned();
    let old = found.text.as_ref().map_or_else(none, |_| name.clone());
    let new = if goes { none() } else { name };
    TextDiff::from_lines(found.text.as_deref().unwrap_or_default(), after)
        .unified_diff()
        .header(&old, &new)
        .to_string()
}

/// Writes or removes; before the first change of ours a copy is kept, and when the last one is out and the file is what the
/// copy holds, the copy goes.
fn write(
    args: &Install,
    path: &Path,
    found: &Found,
    edited: &Edited,
    goes: bool,
) -> Result<Done, FileError> {
    if goes {
        file::remove(path, found)?;
        return Ok(Done::Removed);
    }
    if !args.remove && !is_in(args.engine, found) {
        file::keep(path, found)?;
    }
    file::replace(path, found, &edited.text)?;
    if args.remove {
        let backup = file::backup(path);
        let copy = file::read(&backup)?;
        if copy.text.as_ref() == Some(&edited.text) {
            file::remove(&backup, &copy)?;
        }
    }
    Ok(Done::Written)
}

/// Whether there is something of ours in a file already: taking it out would change it.
fn is_in(engine: InstallEngine, found: &Found) -> bool {
    let taken_out = edit(
        engine,
        found.text.as_deref(),
        Change::TakeOut(Scope::Default),
    );
    taken_out.is_ok_and(|edited| Some(&edited.text) != found.text.as_ref())
}

fn say(args: &Install, format: Format, path: &Path, done: Done, diff: &str, notes: &[String]) {
    let mut notes = notes.to_vec();
    if !args.remove {
        notes.extend(runtime_configuration(&args.root));
        let version = (args.root == Path::new("/"))
            .then(|| version::installed(args.engine))
            .flatten();
        notes.extend(version::advice(args.engine, version));
    } else if done != Done::Nothing {
        notes.push(version::after_removal(args.engine).to_owned());
    }
    match format {
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "install", "v": 1, "engine": args.engine.name(), "file": path, "done": done.name(), "diff": diff,
                "notes": notes,
            })
        ),
        Format::Text => {
            print!("{diff}");
            let shown = path.display();
            match done {
                Done::Nothing => eprintln!("nothing to do: `{shown}` is as asked"),
                Done::Planned => eprintln!("nothing written (--dry-run): `{shown}`"),
                Done::Written => eprintln!("written: `{shown}`"),
                Done::Removed => eprintln!("removed: `{shown}`"),
            }
            notes.iter().for_each(|note| eprintln!("  {note}"));
        }
    }
}

/// What is missing before any container of the runtime can start.
fn runtime_configuration(root: &Path) -> Option<String> {
    let there = root.join("etc/lazaret/runtime.toml");
    (!there.exists()).then(|| {
        format!(
            "missing: `{}`; without it no container of this runtime starts; it needs `runtime = '/usr/sbin/runc'`",
            there.display()
        )
    })
}

fn file_failure(error: FileError) -> Failure {
    let exit = match &error {
        FileError::Link { .. } | FileError::Changed { .. } => Exit::No,
        FileError::Kind { .. } | FileError::TooLarge { .. } | FileError::NotText { .. } => {
            Exit::Usage
        }
        _ => Exit::HostCannot,
    };
    Failure {
        exit,
        error: error.into(),
    }
}

fn edit_failure(error: EditError, path: &Path) -> Failure {
    let exit = match &error {
        EditError::Syntax { .. } | EditError::Shape { .. } | EditError::Repeated { .. } => {
            Exit::Usage
        }
        _ => Exit::No,
    };
    Failure {
        exit,
        error: anyhow::Error::from(error).context(format!("`{}` is left as it is", path.display())),
    }
}
