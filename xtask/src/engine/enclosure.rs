//! Where a private engine lives: namespaces, folders and a cgroup of its own, all of which go away with it.
//!
//! A daemon is started under `unshare --net --mount`. The network namespace keeps `dockerd --bridge=none` from deleting
//! the machine's `docker0` and keeps published ports inside; the mount namespace keeps overlay mounts and the
//! folders whose paths the engines hard-code from touching the machine's, and lets the kernel undo every
//! mount when the last process has ended. There is no pid namespace: the gate must see the pids that the runtime reports.
//!
//! What is written down in `/run/lazaret-xtask/OWNER-N/enclosure.json` is enough to take an enclosure apart, so
//! [`remove_abandoned`] finishes what a killed xtask left. Processes are found in the enclosure's own cgroup, or in its mount
//! namespace (the tmpfs in it bears the enclosure's mark as its source, unlike an inode number never used twice), or in the
//! network namespace of one that was: no process outside it can be hit.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::cleanup::{self, Undo};
use crate::command::command;
use crate::process::{self, ProcessId};

/// Sockets live here: `sun_path` holds 108 bytes (unix(7)), which a path in a build folder easily passes.
const RUN: &str = "/run/lazaret-xtask";

/// Folders whose paths the engines hard-code: containerd's shims, dockerd's plugins and key, containerd's `opt` plugin. A
/// private tmpfs is laid over each.
const COVERED: [&str; 4] = [
    "/run/containerd",
    "/run/docker",
    "/etc/docker",
    "/opt/containerd",
];

/// Those of them that did not exist before, one a line.
const MADE: &str = "/run/lazaret-xtask/made";

/// How long a daemon may take to end when asked, before it is killed.
const END_LIMIT: Duration = Duration::from_secs(20);

/// How long killed processes and busy folders may take to disappear.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// How often a condition is looked at again.
pub(super) const POLL: Duration = Duration::from_millis(25);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What it takes to find and remove an enclosure, kept in its `enclosure.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The xtask that owns it.
    owner: ProcessId,
    /// `/run/lazaret-xtask/OWNER-N`.
    run: PathBuf,
    /// Images, containers: on disk.
    data: PathBuf,
    /// Name of the cgroup directly below the root of each hierarchy.
    cgroup: String,
    /// Source of the tmpfs mounts in the enclosure's mount namespace; unique, as it holds the owner's pid and start time.
    mark: String,
    /// The daemon, once it runs in its own namespaces.
    daemon: Option<ProcessId>,
}

/// An enclosure with its daemon; dropping it ends the daemon and removes everything.
#[derive(Debug)]
pub(super) struct Enclosure {
    record: Arc<Mutex<Record>>,
    /// Kept so that the daemon does not stay as a zombie.
    child: Arc<Mutex<Option<Child>>>,
    _undo: Undo,
}

impl Enclosure {
    /// Makes the folders. `target` is the build folder; images and containers are kept below it.
    ///
    /// # Errors
    /// When a folder cannot be made, or an abandoned enclosure cannot be removed.
    pub(super) fn create(target: &Path) -> anyhow::Result<Self> {
        remove_abandoned()?;
        let owner = ProcessId::own().context("cannot read /proc/self/stat")?;
        let name = format!("{}-{}", owner.pid, NEXT.fetch_add(1, Ordering::Relaxed));
        let record = Record {
            owner,
            run: Path::new(RUN).join(&name),
            data: target.join("engine").join(&name),
            cgroup: format!("lazaret-xtask-{name}"),
            mark: format!("lazaret-xtask-{name}-{}", owner.start_ticks),
            daemon: None,
        };
        fs::create_dir_all(RUN).with_context(|| format!("cannot create {RUN}"))?;
        fs::create_dir(&record.run)
            .with_context(|| format!("cannot create {}", record.run.display()))?;
        record.save()?;
        fs::create_dir_all(&record.data)
            .with_context(|| format!("cannot create {}", record.data.display()))?;
        let record = Arc::new(Mutex::new(record));
        let child = Arc::new(Mutex::new(None));
        let undo = cleanup::register({
            let (record, child) = (Arc::clone(&record), Arc::clone(&child));
            move || take_apart(&record, &child)
        });
        Ok(Self {
            record,
            child,
            _undo: undo,
        })
    }

    /// Folder for sockets and other short-lived files; short enough for a socket's path.
    pub(super) fn run(&self) -> PathBuf {
        lock(&self.record).run.clone()
    }

    /// Folder on disk for what is large.
    pub(super) fn data(&self) -> PathBuf {
        lock(&self.record).data.clone()
    }

    /// The cgroup containers belong into, as an absolute path in each hierarchy.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", lock(&self.record).cgroup)
    }

    /// The daemon's pid, which names its namespaces too.
    ///
    /// # Errors
    /// When it does not run.
    pub(super) fn daemon_pid(&self) -> anyhow::Result<u32> {
        let record = lock(&self.record);
        let daemon = record
            .daemon
            .as_ref()
            .context("the private engine does not run")?;
        if !daemon.is_alive() {
            bail!(
                "the private engine has ended; its log is in {}",
                record.run.display()
            );
        }
        Ok(daemon.pid)
    }

    /// Starts the daemon in namespaces of its own and returns when `ready` says that it answers.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer within `limit`; the error carries the end of its log.
    pub(super) fn start(
        &self,
        daemon: &[&str],
        limit: Duration,
        ready: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let log_path = self.run().join("daemon.log");
        let log = fs::File::create(&log_path)
            .with_context(|| format!("cannot create {}", log_path.display()))?;
        make_mount_points()?;
        // `$0` and `$@` are the daemon; the script ends in `exec`, so the child's pid is the daemon's.
        let mark = lock(&self.record).mark.clone();
        let mut script = "set -e; ip link set lo up; ".to_owned();
        for path in COVERED {
            script.push_str(&format!("mount -t tmpfs -o mode=711 {mark} {path}; "));
        }
        script.push_str("exec \"$0\" \"$@\"");
        let mut unshare = command(
            "unshare",
            [
                "--net",
                "--mount",
                "--propagation",
                "slave",
                "--",
                "sh",
                "-c",
                &script,
            ],
        );
        unshare.args(daemon).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C on the terminal goes to the whole foreground process group; the daemon is ended by us, in order.
        std::os::unix::process::CommandExt::process_group(&mut unshare, 0);
        let child = unshare.spawn().context("cannot start `unshare`")?;
        let pid = child.id();
        *lock(&self.child) = Some(child);

        let end = Instant::now() + limit;
        loop {
            // In this order: a daemon that answers has long been in its own namespaces.
            let answers = ready();
            self.note_daemon(pid)?;
            if answers {
                break;
            }
            let ended = lock(&self.child)
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten();
            if let Some(status) = ended {
                bail!(
                    "{} ended with {status}:\n{}",
                    daemon.first().unwrap_or(&""),
                    end_of(&log_path)
                );
            }
            if Instant::now() > end {
                bail!(
                    "{} does not answer after {} s:\n{}",
                    daemon.first().unwrap_or(&""),
                    limit.as_secs(),
                    end_of(&log_path)
                );
            }
            std::thread::sleep(POLL);
        }
        if lock(&self.record).daemon.is_none() {
            bail!("the engine answered, yet its namespaces cannot be read");
        }
        Ok(())
    }

    /// Notes the daemon once it is in its own namespaces.
    fn note_daemon(&self, pid: u32) -> anyhow::Result<()> {
        let mut record = lock(&self.record);
        if record.daemon.is_none() && process::sees_mount(pid, &record.mark) {
            record.daemon = ProcessId::of(pid);
            record.save()?;
        }
        Ok(())
    }

    /// A command that runs in the enclosure's network namespace, with the machine's own files.
    ///
    /// # Errors
    /// When the daemon does not run.
    pub(super) fn in_network(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> anyhow::Result<Command> {
        let mut enter = command(
            "nsenter",
            [
                format!("--net=/proc/{}/ns/net", self.daemon_pid()?),
                "--".into(),
            ],
        );
        enter.arg(program);
        Ok(enter)
    }

    /// A command that runs in the enclosure's network and mount namespaces.
    ///
    /// # Errors
    /// When the daemon does not run.
    pub(super) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
        let pid = self.daemon_pid()?;
        let mut enter = command(
            "nsenter",
            [
                format!("--net=/proc/{pid}/ns/net"),
                format!("--mount=/proc/{pid}/ns/mnt"),
                "--".into(),
            ],
        );
        enter.arg(program);
        Ok(enter)
    }
}

impl Record {
    fn save(&self) -> anyhow::Result<()> {
        let path = self.run.join("enclosure.json");
        let fresh = self.run.join("enclosure.json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Ends the daemon and everything in the enclosure, then removes its cgroup and folders.
    ///
    /// Steps: kill the containers, ask the daemon to end, kill what is left in the namespaces, remove the cgroup, the
    /// folders and the mount points that were made. Each step may find its work done already.
    fn remove(&self) -> anyhow::Result<()> {
        kill_cgroup(&self.cgroup);
        if let Some(process) = self.daemon.and_then(|daemon| daemon.open()) {
            process.terminate();
            process.wait_gone(END_LIMIT);
        }
        let end = Instant::now() + GONE_LIMIT;
        loop {
            let left = process::in_namespaces_of(&self.mark);
            if left.is_empty() {
                break;
            }
            if Instant::now() > end {
                bail!("processes of the private engine do not end: {left:?}");
            }
            left.iter()
                .filter_map(ProcessId::open)
                .for_each(|p| p.kill());
            std::thread::sleep(POLL);
        }
        kill_cgroup(&self.cgroup);
        remove_cgroup(&self.cgroup)?;
        remove_folder(&self.data)?;
        remove_folder(&self.run)?;
        remove_mount_points();
        if let Some(parent) = self.data.parent() {
            fs::remove_dir(parent).ok();
        }
        Ok(())
    }
}

/// Makes the folders that a private tmpfs is laid over where they are missing, and notes that it did.
fn make_mount_points() -> anyhow::Result<()> {
    for path in COVERED {
        match fs::create_dir(path) {
            Ok(()) => fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(MADE)
                .and_then(|mut notes| writeln!(notes, "{path}"))
                .with_context(|| format!("cannot write {MADE}"))?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("cannot create {path}")),
        }
    }
    Ok(())
}

/// Removes the mount points that were made, and the folder of all enclosures, when this was the last: removing a folder
/// takes what others have mounted on it away from them (rename(2) and rmdir(2) since Linux 3.18).
fn remove_mount_points() {
    let others = fs::read_dir(RUN)
        .into_iter()
        .flatten()
        .flatten()
        .any(|e| e.path() != Path::new(MADE));
    if others {
        return;
    }
    for path in fs::read_to_string(MADE)
        .unwrap_or_default()
        .lines()
        .filter(|line| COVERED.contains(line))
    {
        // Where somebody else has put something in the meantime it is not empty, and stays.
        fs::remove_dir(path).ok();
    }
    fs::remove_file(MADE).ok();
    fs::remove_dir(RUN).ok();
}

fn take_apart(record: &Mutex<Record>, child: &Mutex<Option<Child>>) {
    // A copy: nothing may wait for this lock while processes are given time to end.
    let record = lock(record).clone();
    if record.daemon.is_none()
        && let Some(child) = lock(child).as_mut()
    {
        // Interrupted before the daemon had its namespaces: it has started nothing yet.
        child.kill().ok();
    }
    if let Err(error) = record.remove() {
        eprintln!("cannot clean up {}: {error:#}", record.run.display());
    }
    if let Some(mut child) = lock(child).take() {
        child.wait().ok();
    }
}

/// Removes the enclosures whose xtask has ended without doing so, as after SIGKILL.
///
/// # Errors
/// When one of them cannot be removed.
pub(super) fn remove_abandoned() -> anyhow::Result<()> {
    let entries = match fs::read_dir(RUN) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {RUN}")),
    };
    for entry in entries {
        let path = entry?.path();
        // The notes of mount points, or a folder whose maker has not written its record yet.
        let Ok(text) = fs::read(path.join("enclosure.json")) else {
            continue;
        };
        let record: Record = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not an enclosure's record", path.display()))?;
        if record.run == path && !record.owner.is_alive() {
            eprintln!("removing what xtask {} left", record.owner.pid);
            record.remove()?;
        }
    }
    Ok(())
}

/// The folders of this cgroup, one for each hierarchy (cgroups(7): v1 has one per controller, v2 one in all).
fn cgroup_folders(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            // proc(5): the mount point is field 5, the type follows the separator `-`.
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let point = before.split(' ').nth(4)?;
            matches!(kind, "cgroup" | "cgroup2").then(|| Path::new(point).join(name))
        })
        .filter(|path| path.is_dir())
        .collect()
}

fn kill_cgroup(name: &str) {
    for folder in cgroup_folders(name) {
        for cgroup in tree(&folder) {
            let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            procs
                .lines()
                .filter_map(|pid| ProcessId::of(pid.parse().ok()?)?.open())
                .for_each(|process| process.kill());
        }
    }
}

/// A cgroup can be removed when it has no processes and no children: leaves first.
fn remove_cgroup(name: &str) -> anyhow::Result<()> {
    let end = Instant::now() + GONE_LIMIT;
    loop {
        let left: Vec<PathBuf> = cgroup_folders(name)
            .iter()
            .flat_map(|folder| tree(folder))
            .filter(|cgroup| fs::remove_dir(cgroup).is_err() && cgroup.exists())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("cgroups of the private engine stay busy: {left:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// A folder and all below it, children before parents.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .flat_map(|entry| tree(&entry.path()))
        .collect();
    found.push(folder.to_owned());
    found
}

/// Removes a folder, unless something is mounted in it in our own namespace: that would be removed with it.
fn remove_folder(path: &Path) -> anyhow::Result<()> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let inside = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|point| Path::new(point).starts_with(path));
    if let Some(point) = inside {
        bail!("{point} is mounted, so {} is left as it is", path.display());
    }
    let end = Instant::now() + GONE_LIMIT;
    loop {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            // The kernel takes a mount namespace apart a moment after its last process has gone.
            Err(e) if Instant::now() > end => {
                return Err(e).with_context(|| format!("cannot remove {}", path.display()));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn end_of(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(15))
        .map(|l| format!("  {l}\n"))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What it guards is written in one assignment: a panic in between cannot leave it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An enclosure around a program that only waits, with a second process in it that the first does not end.
    fn with_a_sleeper(target: &Path) -> Enclosure {
        let enclosure = Enclosure::create(target).expect("root, as `cargo xtask test` has");
        let script = "setsid sleep 601 & exec sleep 600";
        enclosure
            .start(&["sh", "-c", script], Duration::from_secs(20), || true)
            .ok();
        let pid = lock(&enclosure.child)
            .as_ref()
            .expect("it was started")
            .id();
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            enclosure
                .note_daemon(pid)
                .expect("the record can be written");
            let record = lock(&enclosure.record).clone();
            if record.daemon.is_some() && process::in_namespaces_of(&record.mark).len() >= 2 {
                break;
            }
            assert!(Instant::now() < end, "the sleepers do not start");
            std::thread::sleep(POLL);
        }
        enclosure
    }

    fn nothing_is_left(record: &Record) {
        assert!(process::in_namespaces_of(&record.mark).is_empty());
        assert!(!record.run.exists() && !record.data.exists());
        assert_eq!(cgroup_folders(&record.cgroup), [""; 0].map(PathBuf::from));
    }

    #[test]
    #[ignore = "needs root; run by `cargo xtask test`"]
    fn dropping_it_leaves_nothing() {
        let target = tempfile::tempdir().expect("temporary");
        let enclosure = with_a_sleeper(target.path());
        let record = lock(&enclosure.record).clone();
        assert!(record.run.exists() && process::in_namespaces_of(&record.mark).len() >= 2);
        drop(enclosure);
        nothing_is_left(&record);
    }

    #[test]
    #[ignore = "needs root; run by `cargo xtask test`"]
    fn what_a_killed_xtask_left_is_removed_and_what_a_living_one_has_is_not() {
        let target = tempfile::tempdir().expect("temporary");
        let (ours, orphan) = (with_a_sleeper(target.path()), with_a_sleeper(target.path()));
        let mut record = lock(&orphan.record).clone();
        // As if its xtask had been killed: nobody has this pid with this start time.
        record.owner.start_ticks += 1;
        record.save().expect("the folder is there");
        remove_abandoned().expect("it can be removed");
        nothing_is_left(&record);
        assert!(ours.daemon_pid().is_ok() && ours.run().exists());
    }
}
