//! What the configuration says about the export, checked. Reads no file but the machine's name.

use lazaret_fhir::audit::{Node, NodeError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use ureq::http::Uri;

/// Bytes of the queue when nothing else is said.
pub(crate) const DEFAULT_MAX_BYTES: u64 = 64 << 20;

/// The queue must hold several of the largest batches.
const MIN_BYTES: u64 = 8 << 20;

/// Where the queue is when nothing else is said.
pub(crate) const DEFAULT_QUEUE: &str = "/var/lib/lazaret/audit";

/// Debian's bundle of trusted authorities, for https when no other is named.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The export cannot be meant like this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SettingsError {
    /// Not the base URL of a FHIR server. The URL is not repeated: it may hold a password.
    #[error("`audit-endpoint` {wrong}")]
    Endpoint {
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// The daemon has no directory that a relative path could mean.
    #[error("`{key}` is `{}`, expected an absolute path", path.display())]
    Relative {
        /// The key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// Too small.
    #[error("`audit-queue-max-bytes` is {bytes}, expected at least {MIN_BYTES}")]
    Small {
        /// Its value.
        bytes: u64,
    },
    /// No name for the node.
    #[error("`audit-node-name` cannot be used")]
    Node(#[from] NodeError),
    /// None is given, and the machine's own cannot be read.
    #[error("cannot read the machine's name")]
    HostName(#[source] std::io::Error),
}

/// What was written, as it is.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// Base URL of the FHIR server.
    pub(crate) endpoint: String,
    /// Folder of the queue.
    pub(crate) queue: PathBuf,
    /// Bytes of it.
    pub(crate) max_bytes: u64,
    /// File with the bearer token.
    pub(crate) token_file: Option<PathBuf>,
    /// File with the authorities that may vouch for the server.
    pub(crate) ca_file: Option<PathBuf>,
    /// Name of the node; the machine's when nothing is said.
    pub(crate) node_name: Option<String>,
}

/// Settings that were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) endpoint: String,
    pub(super) queue: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) token_file: Option<PathBuf>,
    /// Only with https.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) node: Node,
}

impl Settings {
    /// Checks what was written.
    ///
    /// # Errors
    /// A URL that is not the base of a server, has a user name, a query or a fragment, or is plain http to another machine; a
    /// relative path; a queue below 8 MiB; a name that is none.
    pub(crate) fn new(written: Written) -> Result<Settings, SettingsError> {
        let (endpoint, tls) = endpoint(&written.endpoint)?;
        let absolute = |key, path: PathBuf| match path.is_absolute() {
            true => Ok(path),
            false => Err(SettingsError::Relative { key, path }),
        };
        if written.max_bytes < MIN_BYTES {
            return Err(SettingsError::Small {
                bytes: written.max_bytes,
            });
        }
        let node = match written.node_name {
            Some(name) => Node::new(&name)?,
            None => Node::new(&host_name()?)?,
        };
        let ca_file = written
            .ca_file
            .unwrap_or_else(|| Path::new(SYSTEM_AUTHORITIES).to_owned());
        let ca_file = absolute("audit-ca-file", ca_file)?;
        let token_file = written
            .token_file
            .map(|path| absolute("audit-token-file", path))
            .transpose()?;
        Ok(Settings {
            endpoint,
            queue: absolute("audit-queue", written.queue)?,
            max_bytes: written.max_bytes,
            token_file,
            ca_file: tls.then_some(ca_file),
            node,
        })
    }
}

/// The URL without a trailing slash, and whether it is https.
fn endpoint(text: &str) -> Result<(String, bool), SettingsError> {
    let refuse = |wrong| SettingsError::Endpoint { wrong };
    if text.contains('#') {
        return Err(refuse("has a fragment"));
    }
    let uri: Uri = text.parse().map_err(|_| refuse("is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(refuse("is not of the form https://HOST/PATH"));
    };
    if authority.as_str().contains('@') {
        return Err(refuse(
            "has a user name; a token belongs into `audit-token-file`",
        ));
    }
    if uri.query().is_some() {
        return Err(refuse("has a query"));
    }
    let tls = match scheme {
        "https" => true,
        "http" if is_loopback(authority.host()) => false,
        "http" => return Err(refuse("is plain http to another machine, expected https")),
        _ => return Err(refuse("is neither https nor http")),
    };
    Ok((text.trim_end_matches('/').to_owned(), tls))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// uname(2)'s node name, as proc(5) shows it.
fn host_name() -> Result<String, SettingsError> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .map_err(SettingsError::HostName)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(endpoint: &str) -> Written {
        Written {
            endpoint: endpoint.to_owned(),
            queue: DEFAULT_QUEUE.into(),
            max_bytes: DEFAULT_MAX_BYTES,
            token_file: None,
            ca_file: None,
            node_name: Some("n".to_owned()),
        }
    }

    #[test]
    fn endpoints() {
        for (good, ca) in [
            (
                "https://fhir.example/r4/",
                Some(Path::new(SYSTEM_AUTHORITIES)),
            ),
            ("http://127.0.0.1:8080/fhir", None),
            ("http://[::1]:8080", None),
            ("http://localhost/fhir", None),
        ] {
            let settings = Settings::new(written(good)).expect(good);
            assert_eq!(settings.endpoint, good.trim_end_matches('/'));
            assert_eq!(settings.ca_file.as_deref(), ca);
        }
        for (bad, why) in [
            ("http://fhir.example/r4", "plain http"),
            ("http://localhost.example/", "plain http"),
            ("http://128.0.0.1/", "plain http"),
            ("https://me:secret@fhir.example/", "user name"),
            ("https://fhir.example/?a=b", "a query"),
            ("https://fhir.example/#f", "a fragment"),
            ("ftp://fhir.example/", "neither"),
            ("/fhir", "the form"),
            ("https://", "not a URL"),
        ] {
            let message = Settings::new(written(bad)).expect_err(bad).to_string();
            assert!(message.contains(why), "{bad}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let good = || written("http://localhost/");
        let small = Written {
            max_bytes: MIN_BYTES - 1,
            ..good()
        };
        assert!(matches!(
            Settings::new(small),
            Err(SettingsError::Small { .. })
        ));
        let relative = Written {
            queue: "audit".into(),
            ..good()
        };
        assert!(matches!(
            Settings::new(relative),
            Err(SettingsError::Relative {
                key: "audit-queue",
                ..
            })
        ));
        let token = Written {
            token_file: Some("token".into()),
            ..good()
        };
        assert!(matches!(
            Settings::new(token),
            Err(SettingsError::Relative {
                key: "audit-token-file",
                ..
            })
        ));
        let node = Written {
            node_name: Some("a b".to_owned()),
            ..good()
        };
        assert!(matches!(Settings::new(node), Err(SettingsError::Node(_))));
        let own = Written {
            node_name: None,
            ..good()
        };
        assert_eq!(
            Settings::new(own)
                .expect("the machine has a name")
                .node
                .name(),
            host_name().expect("a name")
        );
    }
}
