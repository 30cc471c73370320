//! Where metrics are served: a Unix socket or a TCP address, and only one that this machine alone reaches, unless the
//! configuration says `public:`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Before the path of a Unix socket.
const UNIX: &str = "unix:";
/// Before an address that other machines may reach.
const PUBLIC: &str = "public:";

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket that root alone reaches.
    Unix(PathBuf),
    /// An address of this machine.
    Tcp(SocketAddr),
}

/// An address that is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AddressError {
    /// Not as it should be written.
    #[error(
        "`{found}` is no address for metrics, expected `127.0.0.1:9464`, `[::1]:9464` or `unix:/run/lazaret/metrics.sock`"
    )]
    Malformed {
        /// What was written.
        found: String,
    },
    /// The daemon has no directory that a relative path could mean.
    #[error("`{found}` is a relative path, expected an absolute one after `unix:`")]
    Relative {
        /// What was written.
        found: String,
    },
    /// Others could read it.
    #[error(
        "metrics on {found} could be read from other machines: there is no TLS and no authentication here; use \
         a loopback address or a Unix socket, or write `public:{found}` if something else protects it"
    )]
    Reachable {
        /// What was written.
        found: SocketAddr,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let found = || text.to_owned();
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Address::Unix(path))
            } else {
                Err(AddressError::Relative { found: found() })
            };
        }
        let (address, public) = match text.strip_prefix(PUBLIC) {
            Some(address) => (address, true),
            None => (text, false),
        };
        let address: SocketAddr = address
            .parse()
            .map_err(|_| AddressError::Malformed { found: found() })?;
        // `::ffff:127.0.0.1` is IPv4
        if public || address.ip().to_canonical().is_loopback() {
            Ok(Address::Tcp(address))
        } else {
            Err(AddressError::Reachable { found: address })
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Address::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_reaches_is_taken_and_nothing_else_by_chance() {
        for good in [
            "127.0.0.1:9464",
            "127.8.0.1:1",
            "[::1]:9464",
            "[::ffff:127.0.0.1]:9464",
            "unix:/run/lazaret/metrics.sock",
        ] {
            assert_eq!(
                good.parse::<Address>().map(|address| address.to_string()),
                Ok(good.to_owned())
            );
        }
        for reachable in [
            "0.0.0.0:9464",
            "[::]:9464",
            "192.0.2.7:9464",
            "[::ffff:192.0.2.7]:1",
        ] {
            let error = reachable.parse::<Address>().expect_err("reachable");
            assert!(
                error.to_string().contains("no TLS and no authentication"),
                "{error}"
            );
            let public = format!("public:{reachable}").parse::<Address>();
            assert!(matches!(public, Ok(Address::Tcp(_))));
        }
        for malformed in [
            "",
            "9464",
            ":9464",
            "localhost:9464",
            "127.0.0.1",
            "unix",
            "public:",
            "public:unix:/x",
        ] {
            let error = malformed.parse::<Address>().expect_err(malformed);
            assert!(matches!(error, AddressError::Malformed { .. }), "{error}");
        }
        for relative in ["unix:", "unix:metrics.sock"] {
            let error = relative.parse::<Address>().expect_err(relative);
            assert!(matches!(error, AddressError::Relative { .. }), "{error}");
        }
    }
}
