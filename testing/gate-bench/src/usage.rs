//! What a process of ours holds: memory, descriptors, threads, children. Read from `/proc`.

use anyhow::Context;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Of one or several processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Proportional set size in KiB: memory, with what is shared counted in part (`smaps_rollup`, proc(5)).
    pub(crate) pss_kib: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Child processes, zombies included.
    pub(crate) children: u64,
}

impl Usage {
    /// Of one process.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Usage> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("process {pid} is gone"))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let pss = pss.and_then(|text| text.trim().strip_suffix(" kB"));
        let mut children = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            children += list.split_ascii_whitespace().count() as u64;
        }
        Ok(Usage {
            pss_kib: pss.context("no Pss in smaps_rollup")?.trim().parse()?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            threads: fs::read_dir(format!("/proc/{pid}/task"))?.count() as u64,
            children,
        })
    }

    /// Of all of these together.
    ///
    /// # Errors
    /// When one is gone.
    pub(crate) fn of_all(pids: &[u32]) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for &pid in pids {
            let one = Usage::of(pid)?;
            sum.pss_kib += one.pss_kib;
            sum.descriptors += one.descriptors;
            sum.threads += one.threads;
            sum.children += one.children;
        }
        Ok(sum)
    }

    /// Memory in MiB.
    pub(crate) fn pss_mib(&self) -> f64 {
        self.pss_kib as f64 / 1024.0
    }
}

/// The processes that run this program with a path below this folder among their arguments or, for such as have none, as
/// descendants of one that has: a node's daemon, and the holder of its listeners.
pub(crate) fn processes_of(program: &Path, folder: &Path) -> Vec<u32> {
    let mut runs: BTreeMap<u32, bool> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program) {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let named = String::from_utf8_lossy(&words).contains(&*folder.to_string_lossy());
            runs.insert(pid, named);
        }
    }
    let parent = |pid: u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok()
    };
    let ours = |pid: &u32| runs[pid] || parent(*pid).is_some_and(|of| runs.get(&of) == Some(&true));
    runs.keys().copied().filter(ours).collect()
}

/// Regular files and sockets below a folder.
pub(crate) fn files_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            Ok(_) => 1,
            // it went away meanwhile
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_is_seen() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "exec 9</dev/null; (read line; :); :"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let began = std::time::Instant::now();
        let usage = loop {
            let usage = Usage::of(shell.id()).expect("it runs");
            if usage.children == 1 {
                break usage;
            }
            assert!(began.elapsed().as_secs() < 30, "no subshell: {usage:?}");
        };
        assert!(usage.pss_kib > 0);
        // standard input, output and error, and the one that it opened
        assert!(usage.descriptors >= 4, "{usage:?}");
        assert_eq!(usage.threads, 1);
        let twice = Usage::of_all(&[shell.id(), shell.id()]).expect("it runs");
        assert_eq!((twice.threads, twice.children), (2, 2));
        // the subshell reads the end of the pipe
        drop(shell.stdin.take());
        shell.wait().expect("ours");
        assert!(Usage::of(1 << 23).is_err(), "larger than any pid");
    }

    #[test]
    fn a_program_is_found_by_its_arguments() {
        let program = fs::canonicalize("/bin/cat").expect("coreutils");
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(processes_of(&program, folder.path()), [0; 0]);
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("coreutils").success());
        // it waits for a writer
        let mut child = std::process::Command::new(&program)
            .arg(&pipe)
            .spawn()
            .expect("cat starts");
        assert_eq!(processes_of(&program, folder.path()), [child.id()]);
        child.kill().expect("ours");
        child.wait().expect("ours");
    }

    #[test]
    fn files_are_counted_at_every_depth() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("a")).expect("made");
        for name in ["b", "a/c"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(files_below(folder.path()), 2);
        assert_eq!(files_below(Path::new("/nonexistent")), 0);
    }
}
