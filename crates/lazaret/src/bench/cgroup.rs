//! CPU time of a container, read from its cgroup.
//!
//! Reads only: nothing is created, moved or limited. The CPU time of a cgroup holds that of every process that is or
//! was in it, so short-lived children count too.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most bytes that are read of a file under `/proc` or of a cgroup.
const MAX_BYTES: u64 = 1 << 20;

/// Why a process's CPU account cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// A file of `/proc` cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process is in no cgroup that counts CPU time.
    #[error("process {pid} is in no cgroup that counts CPU time")]
    NoAccount {
        /// The process.
        pid: u32,
    },
    /// The process is in the root cgroup: that would count the whole machine. Also what the kernel shows for a process
    /// whose leading thread has exited.
    #[error("process {pid} is in the root cgroup, which counts the whole machine")]
    Root {
        /// The process.
        pid: u32,
    },
    /// The process is outside what this program's cgroup namespace or mounts show.
    #[error("cgroup `{cgroup}` of process {pid} is not below the mounted `{mounted}`")]
    Outside {
        /// The process.
        pid: u32,
        /// Its cgroup.
        cgroup: String,
        /// The cgroup that is mounted.
        mounted: String,
    },
    /// The process shares its cgroup with this program: the load's own CPU time would be counted with it.
    #[error("process {pid} is in this program's own cgroup `{cgroup}`")]
    Own {
        /// The process.
        pid: u32,
        /// The cgroup.
        cgroup: String,
    },
}

/// Why a CPU account cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read: most likely the container has ended.
    #[error("cannot read CPU time from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold what the kernel documents.
    #[error("{} holds no CPU time", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
}

/// Where the CPU time of one cgroup is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuAccount {
    /// `cpuacct.usage` of cgroup v1, nanoseconds (kernel, `Documentation/admin-guide/cgroup-v1/cpuacct.rst`).
    V1(PathBuf),
    /// `usage_usec` in `cpu.stat` of cgroup v2, microseconds (kernel, `Documentation/admin-guide/cgroup-v2.rst`).
    V2(PathBuf),
}

impl CpuAccount {
    /// The account of the cgroup that this process is in.
    ///
    /// # Errors
    /// See [`FindError`]; above all, the root cgroup and this program's own are refused.
    pub fn of_process(pid: u32) -> Result<CpuAccount, FindError> {
        let read =
            |path: PathBuf| read_bounded(&path).map_err(|source| FindError::Read { path, source });
        find(
            pid,
            &read(PathBuf::from(format!("/proc/{pid}/cgroup")))?,
            &read(PathBuf::from("/proc/self/cgroup"))?,
            &read(PathBuf::from("/proc/self/mountinfo"))?,
        )
    }

    /// CPU time since the cgroup was made, in seconds.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn seconds(&self) -> Result<f64, ReadError> {
        let (CpuAccount::V1(path) | CpuAccount::V2(path)) = self;
        let text = read_bounded(path).map_err(|source| ReadError::Read {
            path: path.clone(),
            source,
        })?;
        self.parse(&text)
            .ok_or_else(|| ReadError::Format { path: path.clone() })
    }

    fn parse(&self, text: &str) -> Option<f64> {
        match self {
            CpuAccount::V1(_) => Some(text.trim().parse::<u64>().ok()? as f64 / 1e9),
            CpuAccount::V2(_) => {
                let usage = text
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec "))?;
                Some(usage.trim().parse::<u64>().ok()? as f64 / 1e6)
            }
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Which of the two hierarchies counts.
#[derive(Clone, Copy)]
enum Hierarchy {
    /// The v1 hierarchy with the `cpuacct` controller.
    Cpuacct,
    /// The v2 hierarchy.
    Unified,
}

/// The account of `pid`, from its `/proc/PID/cgroup`, from this program's own, and from the mounts that this program sees.
fn find(pid: u32, cgroups: &str, own: &str, mountinfo: &str) -> Result<CpuAccount, FindError> {
    // A hybrid machine has both; then v1 holds the controllers (cgroups(7), "Cgroups version 2").
    let (hierarchy, cgroup) = [Hierarchy::Cpuacct, Hierarchy::Unified]
        .into_iter()
        .find_map(|hierarchy| Some((hierarchy, cgroup_of(cgroups, hierarchy)?)))
        .ok_or(FindError::NoAccount { pid })?;
    if cgroup == "/" {
        return Err(FindError::Root { pid });
    }
    if cgroup_of(own, hierarchy) == Some(cgroup) {
        return Err(FindError::Own {
            pid,
            cgroup: cgroup.to_owned(),
        });
    }
    let (root, mount_point) = mount_of(mountinfo, hierarchy).ok_or(FindError::NoAccount { pid })?;
    let below = match cgroup.strip_prefix(root.trim_end_matches('/')) {
        Some(below) if below.starts_with('/') && !below.split('/').any(|part| part == "..") => {
            below
        }
        Some("") => return Err(FindError::Root { pid }),
        _ => {
            return Err(FindError::Outside {
                pid,
                cgroup: cgroup.to_owned(),
                mounted: root.to_owned(),
            });
        }
    };
    let directory = Path::new(mount_point).join(below.trim_start_matches('/'));
    Ok(match hierarchy {
        Hierarchy::Cpuacct => CpuAccount::V1(directory.join("cpuacct.usage")),
        Hierarchy::Unified => CpuAccount::V2(directory.join("cpu.stat")),
    })
}

/// The path in the lines `id:controllers:path` of `/proc/PID/cgroup` (cgroups(7)).
fn cgroup_of(cgroups: &str, hierarchy: Hierarchy) -> Option<&str> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match hierarchy {
            Hierarchy::Cpuacct => controllers.split(',').any(|name| name == "cpuacct"),
            Hierarchy::Unified => id == "0" && controllers.is_empty(),
        };
        fits.then_some(path)
    })
}

/// Root and mount point of the hierarchy in `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Mount points with blanks are
/// escaped there and then not found, which is an error further up, not a wrong file.
fn mount_of(mountinfo: &str, hierarchy: Hierarchy) -> Option<(&str, &str)> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, mount_point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, _source, options) = (back.next()?, back.next()?, back.next()?);
        let fits = match hierarchy {
            Hierarchy::Cpuacct => {
                kind == "cgroup" && options.split(',').any(|name| name == "cpuacct")
            }
            Hierarchy::Unified => kind == "cgroup2",
        };
        fits.then_some((root, mount_point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
24 23 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw
30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V2_MOUNTS: &str =
        "29 23 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const OWN: &str = "3:cpu,cpuacct:/\n0::/user.slice/session.scope\n";

    fn path_of(cgroups: &str, mounts: &str) -> Result<CpuAccount, FindError> {
        find(7, cgroups, OWN, mounts)
    }

    #[test]
    fn v1_before_v2() {
        let found = path_of("4:memory:/x\n3:cpu,cpuacct:/docker/abc\n0::/\n", V1_MOUNTS);
        let path = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpuacct.usage");
        assert_eq!(found.ok(), Some(CpuAccount::V1(path)));
    }

    #[test]
    fn v2_with_colons_in_the_path() {
        let found = path_of("0::/kubelet/cri:c:1\n", V2_MOUNTS);
        let path = PathBuf::from("/sys/fs/cgroup/kubelet/cri:c:1/cpu.stat");
        assert_eq!(found.ok(), Some(CpuAccount::V2(path)));
    }

    #[test]
    fn a_part_of_the_tree_mounted_as_root() {
        let mounts = "29 23 0:25 /host /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = path_of("0::/host/box\n", mounts);
        let path = PathBuf::from("/sys/fs/cgroup/box/cpu.stat");
        assert_eq!(found.ok(), Some(CpuAccount::V2(path)));
    }

    #[test]
    fn wrong_cgroups_are_refused() {
        let outside = "29 23 0:25 /host /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        type Fits = fn(&FindError) -> bool;
        let cases: [(&str, &str, Fits); 10] = [
            ("3:cpu,cpuacct:/\n", V1_MOUNTS, |e| {
                matches!(e, FindError::Root { .. })
            }),
            ("0::/\n", V2_MOUNTS, |e| matches!(e, FindError::Root { .. })),
            // v1 says root: v2's better-looking path must not be taken instead
            ("3:cpuacct:/\n0::/box\n", V1_MOUNTS, |e| {
                matches!(e, FindError::Root { .. })
            }),
            ("0::/host\n", outside, |e| {
                matches!(e, FindError::Root { .. })
            }),
            ("0::/user.slice/session.scope\n", V2_MOUNTS, |e| {
                matches!(e, FindError::Own { .. })
            }),
            ("0::/hostile\n", outside, |e| {
                matches!(e, FindError::Outside { .. })
            }),
            ("0::/../box\n", V2_MOUNTS, |e| {
                matches!(e, FindError::Outside { .. })
            }),
            ("0::/host/../box\n", outside, |e| {
                matches!(e, FindError::Outside { .. })
            }),
            ("4:memory:/x\n", V1_MOUNTS, |e| {
                matches!(e, FindError::NoAccount { .. })
            }),
            ("0::/box\n", "", |e| {
                matches!(e, FindError::NoAccount { .. })
            }),
        ];
        for (cgroups, mounts, fits) in cases {
            let error = path_of(cgroups, mounts).expect_err(cgroups);
            assert!(fits(&error), "{cgroups:?}: {error}");
        }
    }

    #[test]
    fn usage_is_read_in_its_unit() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("usage");
        let read = |account: CpuAccount, text: &str| {
            std::fs::write(&path, text).expect("a file");
            account.seconds()
        };
        let v1 = || CpuAccount::V1(path.clone());
        let v2 = || CpuAccount::V2(path.clone());
        assert_eq!(read(v1(), "1500000000\n").ok(), Some(1.5));
        assert_eq!(
            read(v2(), "usage_usec 2500000\nuser_usec 1\n").ok(),
            Some(2.5)
        );
        for wrong in ["", "-1\n", "usage_usec x\n"] {
            assert!(
                matches!(read(v1(), wrong), Err(ReadError::Format { .. })),
                "{wrong:?}"
            );
            assert!(
                matches!(read(v2(), wrong), Err(ReadError::Format { .. })),
                "{wrong:?}"
            );
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(v1().seconds(), Err(ReadError::Read { .. })));
    }

    /// This process itself: whatever the machine looks like, its own cgroup must never be accepted.
    #[test]
    fn the_own_process_is_refused() {
        assert!(CpuAccount::of_process(std::process::id()).is_err());
    }
}
