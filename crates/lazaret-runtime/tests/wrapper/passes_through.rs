//! What is not ours reaches the runtime as it was typed, and comes back as the runtime said it: once against a runtime
//! that records, once against the real runc, so that the first does not test our imagination.

use crate::host::{Failure, Host, ID, Run, fake_runtime};
use std::process::Command;

/// Command lines that no confinement concerns; `BUNDLE` stands for a directory without `config.json`.
const LINES: [&[&str]; 14] = [
    &["--version"],
    &["--help"],
    &[],
    &["--bogus"],
    &["bogus"],
    &["--root", "ROOT", "state", "nobody"],
    &["--root", "ROOT", "list", "-q"],
    &["--root", "ROOT", "delete", "--force", "nobody"],
    &["--root", "ROOT", "kill", "nobody", "15"],
    &["--root", "ROOT", "kill", "--all", "nobody", "SIGKILL"],
    &["--root", "ROOT", "create", "--bundle", "BUNDLE", "c1"],
    &[
        "--root=ROOT",
        "--log-format=json",
        "run",
        "-b",
        "BUNDLE",
        "--",
        "c1",
    ],
    &["--root", "ROOT", "create", "--bundle", "BUNDLE"],
    &["--root", "ROOT", "exec", "nobody", "--lazaret-config", "x"],
];

fn words(host: &Host, line: &[&str]) -> Result<Vec<String>, Failure> {
    let bundle = host.at("empty");
    std::fs::create_dir_all(&bundle)?;
    let root = host.at("root");
    let (bundle, root) = (bundle.to_str().ok_or("path")?, root.to_str().ok_or("path")?);
    Ok(line
        .iter()
        .map(|word| word.replace("BUNDLE", bundle).replace("ROOT", root))
        .collect())
}

#[test]
fn a_recording_runtime_sees_no_difference() -> Result<(), Failure> {
    let host = Host::new()?;
    for line in LINES {
        let words = words(&host, line)?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        for end in ["0", "1", "137", "signal"] {
            let without_pid = |run: Result<Run, Failure>| {
                run.map(|mut run| {
                    run.record.retain(|(name, _)| name != "pid");
                    run
                })
            };
            let plain = without_pid(host.run(&mut Command::new(fake_runtime()), &words, end))?;
            let wrapped = without_pid(host.run(&mut host.wrapper(), &words, end))?;
            assert_eq!(plain.stdout, "output of the runtime\n");
            assert_eq!(plain.record.len(), 4, "{line:?}");
            assert_eq!(wrapped, plain, "{line:?}");
        }
    }
    Ok(())
}

#[test]
fn the_runtime_takes_the_wrappers_place() -> Result<(), Failure> {
    let host = Host::new()?;
    let child = host
        .wrapper()
        .args(["state", ID])
        .env("RECORD", host.at("record"))
        .env("END", "0")
        .stdin(std::process::Stdio::null())
        .spawn()?;
    let id = child.id();
    child.wait_with_output()?;
    let recorded = std::fs::read_to_string(host.at("record/pid"))?;
    assert_eq!(recorded.trim(), id.to_string());
    Ok(())
}

/// Leaves out the times that runc's log lines carry.
fn timeless(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.split_once("\" level=") {
            Some((time, rest)) if time.starts_with("time=\"") => format!("level={rest}"),
            _ => match line.split_once(",\"time\":\"") {
                Some((rest, _)) => format!("{rest}}}\n"),
                None => line.to_owned(),
            },
        })
        .collect()
}

#[test]
fn runc_sees_no_difference() -> Result<(), Failure> {
    let runc = "/usr/sbin/runc";
    if !std::path::Path::new(runc).exists() {
        println!("SKIP: `{runc}` is not installed (Debian package runc)");
        return Ok(());
    }
    let host = Host::new()?;
    let configuration = std::fs::read_to_string(host.at("runtime.toml"))?;
    let fake = fake_runtime().display().to_string();
    host.write("runtime.toml", &configuration.replace(&fake, runc))?;
    let mut codes = std::collections::BTreeSet::new();
    for line in LINES {
        let words = words(&host, line)?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let run = |mut command: Command| -> Result<Run, Failure> {
            let mut run = crate::host::run(command.args(&words).output()?, Vec::new());
            run.stderr = timeless(&run.stderr);
            Ok(run)
        };
        let plain = run(Command::new(runc))?;
        assert_eq!(run(host.wrapper())?, plain, "{line:?}");
        codes.insert(plain.status.code());
    }
    assert!(codes.len() > 1, "every line ended alike: {codes:?}");
    Ok(())
}
