//! Runs other programs so that a failure says which one, how it ended and what it said last.
//!
//! It decides nothing: what to run is the callers' affair.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};

/// How much of a failed program's output is shown, in bytes.
const SHOWN: u64 = 4096;

/// The largest standard output that is taken into memory, in bytes.
const MAX_OUTPUT: u64 = 64 << 20;

/// A command with its arguments and without standard input: nothing here asks questions.
pub fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it with both outputs kept aside.
///
/// # Errors
/// When it cannot be started or ends with another code than 0; the error carries the end of its output.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let log = tempfile::tempfile().context("cannot make a temporary file")?;
    run_into(command, log)
}

/// Runs it with both outputs in a log file that stays.
///
/// # Errors
/// As [`run`], and when the log cannot be written.
pub fn run_logged(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(log);
    run_into(
        command,
        file.with_context(|| format!("cannot write {}", log.display()))?,
    )
    .with_context(|| format!("all it said is in {}", log.display()))
}

fn run_into(command: &mut Command, mut log: File) -> anyhow::Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", name(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(anyhow!(
        "{} ended with {status}:\n{}",
        name(command),
        tail(&mut log)?
    ))
}

/// Runs it and returns its standard output.
///
/// # Errors
/// When it cannot be started, ends with another code than 0, or says more than 64 MiB or something that is not UTF-8.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let mut errors = tempfile::tempfile().context("cannot make a temporary file")?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", name(command)))?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(MAX_OUTPUT + 1).read_to_string(&mut text);
        let status = child.wait()?;
        read.with_context(|| format!("cannot read what {} says", name(command)))?;
        if text.len() as u64 > MAX_OUTPUT {
            bail!("{} said more than {MAX_OUTPUT} bytes", name(command));
        }
        if !status.success() {
            bail!(
                "{} ended with {status}:\n{}{}",
                name(command),
                text,
                tail(&mut errors)?
            );
        }
    }
    Ok(text)
}

/// Whether a program of this name is in `PATH` or the system's own folders.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

fn name(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args().take(6) {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    if command.get_args().len() > 6 {
        text.push_str(" …");
    }
    format!("`{text}`")
}

fn tail(file: &mut File) -> anyhow::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_says_what_the_program_said() {
        let error = run(&mut command(
            "sh",
            ["-c", "echo out; echo reason >&2; exit 7"],
        ))
        .expect_err("it exits with 7");
        let text = format!("{error:#}");
        assert!(
            text.contains("exit status: 7") && text.contains("out\nreason"),
            "{text}"
        );
        let error = output(&mut command("sh", ["-c", "echo reason >&2; exit 7"]))
            .expect_err("it exits with 7");
        assert!(format!("{error:#}").contains("reason"));
    }

    #[test]
    fn output_is_standard_output_only() {
        assert_eq!(
            output(&mut command("sh", ["-c", "echo data; echo noise >&2"]))
                .expect("it exits with 0"),
            "data\n"
        );
        assert!(output(&mut command("lazaret-no-such-program", [""; 0])).is_err());
    }
}
