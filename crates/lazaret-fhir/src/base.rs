//! The server's base URL, and the rule that no request leaves it.
//!
//! A server writes absolute URLs of its own making into links, `Location` and export manifests. Behind a port mapping or in
//! a container's network those name a host that is not reachable from here, or worse, another machine. So only the path
//! and the query of such a URL are used; scheme, host and port are always the base's.

use core::fmt;
use core::str::FromStr;
use ureq::http::Uri;

/// An `http://` URL without query, fragment, user name or trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    origin: String,
    path: String,
}

/// A text is not a base URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// It does not parse.
    #[error("`{url}` is not a URL")]
    Syntax {
        /// What was given.
        url: String,
    },
    /// It is not plain HTTP with a host.
    #[error("`{url}` is not of the form http://HOST:PORT/PATH; only plain http is spoken")]
    NotHttp {
        /// What was given.
        url: String,
    },
    /// It has a part that a base URL cannot have.
    #[error("base URL `{url}` has {part}, which a base URL cannot have")]
    Part {
        /// What was given.
        url: String,
        /// Which part.
        part: &'static str,
    },
}

/// A URL that the server gave cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("the server's link `{link}` is not under {base}")]
pub struct LinkError {
    /// The link, cut to 200 characters.
    pub link: String,
    /// The base it should be under.
    pub base: String,
}

impl FromStr for Base {
    type Err = BaseError;

    fn from_str(text: &str) -> Result<Self, BaseError> {
        let url = || text.to_owned();
        if text.contains('#') {
            return Err(BaseError::Part {
                url: url(),
                part: "a fragment",
            });
        }
        let uri: Uri = text.parse().map_err(|_| BaseError::Syntax { url: url() })?;
        let authority = match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) => authority.as_str(),
            _ => return Err(BaseError::NotHttp { url: url() }),
        };
        if authority.contains('@') {
            return Err(BaseError::Part {
                url: url(),
                part: "a user name",
            });
        }
        if uri.query().is_some() {
            return Err(BaseError::Part {
                url: url(),
                part: "a query",
            });
        }
        Ok(Self {
            origin: format!("http://{authority}"),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Base {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.origin, self.path)
    }
}

impl Base {
    /// The URL of `rest` below the base; an empty `rest` is the base itself, and a query may follow the base directly.
    #[must_use]
    pub fn url(&self, rest: &str) -> String {
        if rest.is_empty() || rest.starts_with('?') {
            format!("{self}{rest}")
        } else {
            format!("{self}/{rest}")
        }
    }

    /// A URL that the server gave, moved to the base's host.
    ///
    /// # Errors
    /// The link is unreadable, or its path is not under the base's path.
    pub fn rebase(&self, link: &str) -> Result<String, LinkError> {
        self.below(link).map(|rest| self.url(&rest))
    }

    /// What a URL that the server gave says below the base: `Patient/1/_history/1`.
    ///
    /// # Errors
    /// As [`Base::rebase`].
    pub fn below(&self, link: &str) -> Result<String, LinkError> {
        let refuse = || LinkError {
            link: link.chars().take(200).collect(),
            base: self.to_string(),
        };
        // `Patient/1`: relative to the base, as servers write it into a transaction-response.
        let relative = !link.contains("://") && !link.starts_with('/');
        let absolute = if relative {
            format!("{}/{link}", self.path)
        } else {
            link.to_owned()
        };
        let uri: Uri = absolute.parse().map_err(|_| refuse())?;
        let full = uri.path_and_query().map_or("", |p| p.as_str());
        let rest = full.strip_prefix(self.path.as_str()).ok_or_else(refuse)?;
        match rest.strip_prefix('/') {
            Some(rest) => Ok(rest.to_owned()),
            // `/fhir?_getpages=…` is the base with a query; `/fhirplus` is another path.
            None if rest.is_empty() || rest.starts_with('?') => Ok(rest.to_owned()),
            None => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        let shown = |text: &str| {
            text.parse::<Base>()
                .map(|b| b.to_string())
                .map_err(|e| e.to_string())
        };
        assert_eq!(
            shown("http://127.0.0.1:8080/fhir/").as_deref(),
            Ok("http://127.0.0.1:8080/fhir")
        );
        assert_eq!(shown("http://server").as_deref(), Ok("http://server"));
        for bad in [
            "",
            "server",
            "https://server/fhir",
            "http://a b/",
            "/fhir",
            "http://u:p@server/",
            "http://s/?q=1",
            "http://s/#x",
        ] {
            assert!(shown(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn links_are_moved_to_the_base_or_refused() {
        let base: Base = "http://127.0.0.1:18080/fhir".parse().expect("a base");
        let check = |link: &str, expected: Option<&str>| {
            assert_eq!(base.rebase(link).ok().as_deref(), expected, "{link}");
        };
        check(
            "http://127.0.0.1:18080/fhir?_getpages=7",
            Some("http://127.0.0.1:18080/fhir?_getpages=7"),
        );
        check(
            "https://elsewhere.example/fhir/Patient/1",
            Some("http://127.0.0.1:18080/fhir/Patient/1"),
        );
        check(
            "/fhir/Patient?_count=2&x=%7C",
            Some("http://127.0.0.1:18080/fhir/Patient?_count=2&x=%7C"),
        );
        check(
            "Patient/1/_history/2",
            Some("http://127.0.0.1:18080/fhir/Patient/1/_history/2"),
        );
        check("//elsewhere.example/fhir/Patient/1", None);
        check("http://127.0.0.1:18080/other/Patient/1", None);
        check("a b", None);
        check("http://127.0.0.1:18080/fhirplus", None);
        check("http://a b", None);
    }
}
