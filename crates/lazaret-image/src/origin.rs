//! Which engine made a bundle, and names that are safe in paths and command lines.

use crate::{ImageError, Roots, cut};
use core::fmt;
use std::ffi::OsStr;
use std::path::{Component, Path};

/// Ends the name of a storage driver's folder of containers (containers/storage `store.go`, `load`).
const CONTAINERS: &str = "-containers";

/// A container id or namespace as containerd allows them: letters and digits, with single `.`, `_` or `-` between,
/// at most 76 bytes (containerd `identifiers/validate.go`). So it is no option, no path and no filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`ImageError::ContainerId`].
    pub fn new(id: &str) -> Result<ContainerId, ImageError> {
        let bytes = id.as_bytes();
        let separator = |byte: u8| matches!(byte, b'.' | b'_' | b'-');
        let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let valid = bytes.len() <= 76
            && ends(bytes.first())
            && ends(bytes.last())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || separator(*byte))
            && bytes
                .windows(2)
                .all(|pair| !pair.iter().all(|byte| separator(*byte)));
        if valid {
            Ok(ContainerId(id.to_owned()))
        } else {
            Err(ImageError::ContainerId { id: cut(id) })
        }
    }

    /// Checks an id of Docker's: 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// [`ImageError::ContainerId`].
    pub fn docker(id: &str) -> Result<ContainerId, ImageError> {
        if id.len() == 64
            && id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            Ok(ContainerId(id.to_owned()))
        } else {
            Err(ImageError::ContainerId { id: cut(id) })
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container and the engine that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Docker: containerd's namespace `moby`.
    Docker(ContainerId),
    /// containerd in any other namespace.
    Containerd {
        /// The namespace.
        namespace: ContainerId,
        /// The container.
        id: ContainerId,
    },
    /// podman or CRI-O.
    Storage {
        /// The storage driver, which is in the names of the storage's folders.
        driver: ContainerId,
        /// The container.
        id: ContainerId,
    },
}

impl Origin {
    /// By containerd namespace. The namespace `moby` is Docker's (`libcontainerd/types`, `MainNamespace`).
    ///
    /// # Errors
    /// [`ImageError::ContainerId`].
    pub fn new(namespace: &str, id: &str) -> Result<Origin, ImageError> {
        if namespace == "moby" {
            return Ok(Origin::Docker(ContainerId::docker(id)?));
        }
        Ok(Origin::Containerd {
            namespace: ContainerId::new(namespace)?,
            id: ContainerId::new(id)?,
        })
    }

    /// A container that `containers/storage` has a folder for, whatever its driver (`store.go`, `ContainerDirectory`). None also
    /// when that cannot be read.
    #[must_use]
    pub fn in_storage(roots: &Roots, id: &str) -> Option<Origin> {
        // podman and CRI-O give ids as Docker does
        let id = ContainerId::docker(id).ok()?;
        let entries = std::fs::read_dir(&roots.storage).ok()?;
        entries.flatten().find_map(|entry| {
            let name = entry.file_name();
            let driver = name.to_str()?.strip_suffix(CONTAINERS)?;
            let driver = ContainerId::new(driver).ok()?;
            let origin = Origin::Storage {
                driver,
                id: id.clone(),
            };
            entry.path().join(id.as_str()).is_dir().then_some(origin)
        })
    }

    /// By the bundle's path: `…/io.containerd.runtime.v2.task/<namespace>/<id>` (containerd `runtime/v2/bundle.go`) or
    /// `…/<driver>-containers/<id>/userdata` (containers/storage `store.go`, `ContainerDirectory`, `ContainerRunDirectory`).
    /// The path is only read, not followed.
    ///
    /// # Errors
    /// [`ImageError::UnknownEngine`], [`ImageError::OtherBundle`], [`ImageError::ContainerId`].
    pub fn of_bundle(bundle: &Path, id: &str) -> Result<Origin, ImageError> {
        let mut names = bundle.components().rev().map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let mut next = || names.next().flatten().and_then(OsStr::to_str);
        match (next(), next(), next()) {
            (Some(last), Some(namespace), Some("io.containerd.runtime.v2.task")) => {
                if last != id {
                    return Err(ImageError::OtherBundle {
                        bundle: bundle.to_owned(),
                        id: cut(id),
                    });
                }
                Origin::new(namespace, id)
            }
            (Some("userdata"), Some(last), Some(folder)) if folder.ends_with(CONTAINERS) => {
                if last != id {
                    return Err(ImageError::OtherBundle {
                        bundle: bundle.to_owned(),
                        id: cut(id),
                    });
                }
                Ok(Origin::Storage {
                    driver: ContainerId::new(folder.trim_end_matches(CONTAINERS))?,
                    // podman and CRI-O give ids as Docker does
                    id: ContainerId::docker(id)?,
                })
            }
            _ => Err(ImageError::UnknownEngine {
                bundle: bundle.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let hex = "1f0a23d70766c7302ccf646d56f5ea5412af8365e479b55a756e43dd22ba0730";
        for id in ["c1", "a.b-c_d", "A", hex, &"a".repeat(76)] {
            assert!(ContainerId::new(id).is_ok(), "{id}");
        }
        for id in [
            "",
            "-a",
            "a-",
            "a..b",
            "a/b",
            "..",
            ".",
            "a b",
            "a\n",
            "é",
            &"a".repeat(77),
        ] {
            assert!(ContainerId::new(id).is_err(), "{id}");
        }
        assert!(ContainerId::docker(hex).is_ok());
        for id in ["c1", &hex[1..], &hex.to_uppercase(), &hex.replace('a', "/")] {
            assert!(ContainerId::docker(id).is_err(), "{id}");
        }
    }

    #[test]
    fn bundles() {
        let hex = "1f0a23d70766c7302ccf646d56f5ea5412af8365e479b55a756e43dd22ba0730";
        let check = |bundle: &str, id: &str, expected: &str| {
            let found = match Origin::of_bundle(Path::new(bundle), id) {
                Ok(Origin::Docker(id)) => format!("docker {id}"),
                Ok(Origin::Containerd { namespace, id }) => format!("containerd {namespace} {id}"),
                Ok(Origin::Storage { driver, id }) => format!("storage {driver} {id}"),
                Err(ImageError::UnknownEngine { .. }) => "unknown engine".to_owned(),
                Err(ImageError::OtherBundle { .. }) => "other bundle".to_owned(),
                Err(ImageError::ContainerId { .. }) => "bad id".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{bundle}");
        };
        let task = "/run/containerd/io.containerd.runtime.v2.task";
        check(&format!("{task}/moby/{hex}"), hex, &format!("docker {hex}"));
        check(
            &format!("{task}/moby/{hex}/"),
            hex,
            &format!("docker {hex}"),
        );
        check(&format!("{task}/k8s.io/c1"), "c1", "containerd k8s.io c1");
        check(&format!("{task}/moby/c1"), "c1", "bad id");
        check(&format!("{task}/a/c2"), "c1", "other bundle");
        check(&format!("{task}/a/.."), "..", "unknown engine");
        check(&format!("{task}/../c1"), "c1", "unknown engine");
        let storage = "/var/lib/containers/storage/overlay-containers";
        let bundle = format!("{storage}/{hex}/userdata");
        check(&bundle, hex, &format!("storage overlay {hex}"));
        check(&bundle, "c1", "other bundle");
        check(&format!("{storage}/c1/userdata"), "c1", "bad id");
        check(&format!("/x/-containers/{hex}/userdata"), hex, "bad id");
        check(
            &format!("/x/containers/{hex}/userdata"),
            hex,
            "unknown engine",
        );
        check("/tmp/bundle", "bundle", "unknown engine");
        check("c1", "c1", "unknown engine");
    }
}
