//! At `kill` with the container's stop signal the gate hears of it first; nothing about the gate changes the kill.

use crate::host::{Failure, Host, ID, Run};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// What containerd says before the command for a container of Docker's.
const MOBY: &[&str] = &["--root", "/run/docker/runtime-runc/moby"];

fn kill(host: &Host, before: &[&str], id: &str, signal: &str) -> Result<Run, Failure> {
    let words = [before, &["kill", id, signal]].concat();
    let run = host.run(&mut host.wrapper(), &words, "7")?;
    assert_eq!(run.status.code(), Some(7));
    assert_eq!(run.stderr, "complaint of the runtime\n");
    let same = words.into_iter().map(str::to_owned).collect();
    assert_eq!(run.words(), Some(same));
    Ok(run)
}

/// What a gate hears during one kill; None when nobody called.
fn heard(host: &Host, signal: &str) -> Result<Option<String>, Failure> {
    heard_from(host, MOBY, signal)
}

fn heard_from(host: &Host, before: &[&str], signal: &str) -> Result<Option<String>, Failure> {
    let path = host.at("control.sock");
    let listener = UnixListener::bind(&path)?;
    let runtime_ran = host.at("record/words");
    let gate = std::thread::spawn(move || -> Result<Option<String>, std::io::Error> {
        let (stream, _) = listener.accept()?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if runtime_ran.exists() {
            line.insert_str(0, "too late: ");
        }
        (&stream).write_all(b"{\"type\":\"done\",\"v\":1}\n")?;
        Ok(Some(line))
    });
    kill(host, before, ID, signal)?;
    // lets a gate go that nobody called; one that was called has hung up, and does not see it
    drop(UnixStream::connect(&path));
    std::fs::remove_file(path)?;
    Ok(gate.join().map_err(|_| "the gate panicked")??)
}

#[test]
fn the_stop_signal_is_announced_before_it_is_sent() -> Result<(), Failure> {
    let host = Host::new()?;
    let line = format!("{{\"type\":\"stopping\",\"v\":1,\"container\":\"{ID}\"}}\n");
    // the recorded image says STOPSIGNAL SIGQUIT
    for signal in ["3", "QUIT", "SIGQUIT"] {
        assert_eq!(heard(&host, signal)?.as_deref(), Some(line.as_str()));
    }
    for signal in ["15", "SIGKILL", "SIGUSR1"] {
        assert_eq!(heard(&host, signal)?, None, "{signal}");
    }
    host.change_container("\"StopSignal\":\"SIGQUIT\"", "\"StopSignal\":\"\"")?;
    assert_eq!(heard(&host, "15")?.as_deref(), Some(line.as_str()));
    Ok(())
}

/// podman says no root, CRI-O its own.
#[test]
fn a_container_of_podmans_is_found_in_its_storage() -> Result<(), Failure> {
    let host = Host::new()?;
    let root = host.at("storage").display().to_string();
    host.configure(&format!(
        "podman_root = '{root}'\npodman_run = '{root}/run'"
    ))?;
    for before in [&[][..], &["--root", "/run/runc"]] {
        assert_eq!(heard_from(&host, before, "3")?, None, "nobody's");
    }
    host.write(
        &format!("storage/vfs-containers/{ID}/userdata/config.json"),
        r#"{"annotations": {"org.opencontainers.image.stopSignal": "3"}}"#,
    )?;
    let line = format!("{{\"type\":\"stopping\",\"v\":1,\"container\":\"{ID}\"}}\n");
    for before in [&[][..], &["--root", "/run/runc"]] {
        assert_eq!(heard_from(&host, before, "QUIT")?, Some(line.clone()));
        assert_eq!(heard_from(&host, before, "15")?, None);
    }
    Ok(())
}

#[test]
fn no_gate_changes_nothing() -> Result<(), Failure> {
    let host = Host::new()?;
    kill(&host, MOBY, ID, "SIGQUIT")?;
    host.write("control.sock", "no socket")?;
    kill(&host, MOBY, ID, "SIGQUIT")?;
    kill(&host, MOBY, "../../etc", "SIGQUIT")?;
    kill(&host, MOBY, ID, "nonsense")?;
    Ok(())
}

#[test]
fn a_deaf_gate_does_not_hold_up_the_kill() -> Result<(), Failure> {
    let host = Host::new()?;
    // connections wait in the queue and are never accepted
    let _listener = UnixListener::bind(host.at("control.sock"))?;
    let started = Instant::now();
    kill(&host, MOBY, ID, "SIGQUIT")?;
    // the bound is 200 ms; the rest is for a busy machine
    assert!(started.elapsed() < Duration::from_secs(5));
    Ok(())
}
