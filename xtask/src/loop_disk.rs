//! A sacrificial disk, "the host's disk" of the escape demonstration: a file with a filesystem behind a loop device.
//!
//! It is made and read with e2fsprogs, never mounted by us. Dropping it detaches the device and removes the file; what a
//! killed xtask left is removed by the next [`LoopDisk::create`]. Nothing else on the machine is reached through it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cleanup::{self, Undo};
use crate::command::{command, output, run};
use crate::process::ProcessId;

/// The file that the attack changes.
pub const FILE: &str = "hosts-file";

/// What it holds before.
pub const CONTENT: &str = "this file is on the host's disk\n";

/// Large enough for ext4 with a journal.
const SIZE: &str = "16M";

/// How long the kernel may take to give the device up after the last user has gone.
const DETACH_LIMIT: Duration = Duration::from_secs(10);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loop device with an ext4 filesystem that holds [`FILE`].
#[derive(Debug)]
pub struct LoopDisk {
    device: PathBuf,
    image: PathBuf,
    _undo: Undo,
}

impl LoopDisk {
    /// Makes the file below `target` and attaches it to a free loop device.
    ///
    /// # Errors
    /// When a tool of e2fsprogs or losetup fails, or what an earlier xtask left cannot be detached.
    pub fn create(target: &Path) -> anyhow::Result<Self> {
        let folder = target.join("loop");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        remove_abandoned(&folder)?;
        let owner = ProcessId::own().context("cannot read /proc/self/stat")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let image = folder.join(format!("{}-{}-{number}.img", owner.pid, owner.start_ticks));
        let undo = cleanup::register({
            let image = image.clone();
            move || {
                if let Err(error) = remove(&image) {
                    eprintln!("cannot clean up {}: {error:#}", image.display());
                }
            }
        });
        let content = image.with_extension("content");
        fs::write(&content, CONTENT)
            .with_context(|| format!("cannot write {}", content.display()))?;
        run(command("truncate", ["--size", SIZE]).arg(&image))?;
        run(command("mkfs.ext4", ["-q", "-F"]).arg(&image))?;
        // debugfs ends with 0 whatever happens: what it wrote is read back below.
        run(command(
            "debugfs",
            ["-w", "-R", &format!("write {} {FILE}", content.display())],
        )
        .arg(&image))?;
        fs::remove_file(&content)
            .with_context(|| format!("cannot remove {}", content.display()))?;
        let device = output(command("losetup", ["--find", "--show"]).arg(&image))?;
        let disk = Self {
            device: device.trim().into(),
            image,
            _undo: undo,
        };
        let found = disk.read_back()?;
        if found != CONTENT {
            bail!("debugfs did not write {FILE} to {}", disk.image.display());
        }
        Ok(disk)
    }

    /// `/dev/loopN`.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// What [`FILE`] holds now; empty when it is gone.
    ///
    /// # Errors
    /// When debugfs cannot be started or finds no filesystem.
    pub fn read_back(&self) -> anyhow::Result<String> {
        // Through the device's backing file: the kernel writes the device's pages there when the filesystem is synced or
        // unmounted, and the attack does both.
        output(command("debugfs", ["-R", &format!("cat {FILE}")]).arg(&self.image))
    }
}

/// Detaches every device that this file is behind, waits until they are free, and removes the file.
fn remove(image: &Path) -> anyhow::Result<()> {
    let end = Instant::now() + DETACH_LIMIT;
    loop {
        let devices = devices_of(image)?;
        if devices.is_empty() {
            break;
        }
        if Instant::now() > end {
            bail!(
                "{} stays attached: is it still mounted in a container?",
                devices.join(", ")
            );
        }
        for device in devices {
            // A device in use is detached by the kernel when its last user goes (losetup(8)): asking again is harmless.
            command("losetup", ["--detach", &device])
                .status()
                .context("cannot start `losetup`")?;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    for left in [image.to_owned(), image.with_extension("content")] {
        if left.exists() {
            fs::remove_file(&left).with_context(|| format!("cannot remove {}", left.display()))?;
        }
    }
    Ok(())
}

fn devices_of(image: &Path) -> anyhow::Result<Vec<String>> {
    let list = output(
        command(
            "losetup",
            ["--noheadings", "--output", "NAME", "--associated"],
        )
        .arg(image),
    )?;
    Ok(list.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Removes the disks whose xtask has ended without doing so; their names tell whose they are.
fn remove_abandoned(folder: &Path) -> anyhow::Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        let owner = path.file_stem().and_then(|stem| {
            let mut parts = stem.to_str()?.split('-');
            Some(ProcessId {
                pid: parts.next()?.parse().ok()?,
                start_ticks: parts.next()?.parse().ok()?,
            })
        });
        if path.extension().is_some_and(|e| e == "img")
            && owner.is_some_and(|owner| !owner.is_alive())
        {
            remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root and e2fsprogs are what `cargo xtask test` provides.
    #[test]
    #[ignore = "needs root and loop devices; run by `cargo xtask test`"]
    fn what_is_written_to_the_device_is_read_back_and_nothing_stays() {
        let target = tempfile::tempdir().expect("temporary");
        let disk =
            LoopDisk::create(target.path()).expect("root, e2fsprogs and loop devices are there");
        assert_eq!(disk.read_back().expect("debugfs"), CONTENT);
        let (device, image) = (disk.device().to_owned(), disk.image.clone());
        let mount = tempfile::tempdir().expect("temporary");
        // In a mount namespace of its own: the test cannot leave it mounted.
        let script = "mount \"$0\" \"$1\" && echo changed > \"$1/hosts-file\" && umount \"$1\"";
        run(command("unshare", ["--mount", "--", "sh", "-c", script])
            .arg(&device)
            .arg(mount.path()))
        .expect("mount");
        assert_eq!(disk.read_back().expect("debugfs"), "changed\n");
        drop(disk);
        assert!(!image.exists());
        let attached =
            output(command("losetup", ["--noheadings", "--output", "BACK-FILE"]).arg("--all"));
        assert!(
            !attached
                .expect("losetup")
                .contains(&*image.to_string_lossy())
        );
    }

    #[test]
    #[ignore = "needs root and loop devices; run by `cargo xtask test`"]
    fn a_disk_whose_owner_was_killed_is_removed() {
        let target = tempfile::tempdir().expect("temporary");
        let folder = target.path().join("loop");
        fs::create_dir(&folder).expect("temporary");
        // Process 1 started at another time than this: whoever owned it is gone.
        let image = folder.join("1-18446744073709551615-0.img");
        run(command("truncate", ["--size", SIZE]).arg(&image)).expect("coreutils");
        run(command("losetup", ["--find"]).arg(&image)).expect("root and loop devices are there");
        let _disk = LoopDisk::create(target.path()).expect("as above");
        assert!(!image.exists());
        assert!(devices_of(&image).expect("losetup").is_empty());
    }
}
