//! Posts batches to the FHIR server, and decides from its answers what became of each resource.
//!
//! Deciding ([`judge`]) is pure. One connection at most: there is one thread, and it waits for each answer. No proxy, no redirect: what
//! leaves the node goes to the configured server or nowhere.

use super::settings::Settings;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use lazaret_bundle::read::{self, Guard, ReadError};
use lazaret_fhir::audit::bundle;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::http::header;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Bytes of a token file.
const MAX_TOKEN: u64 = 16 << 10;

/// Bytes of a file of authorities; Debian's has 0.2 MB.
const MAX_AUTHORITIES: u64 = 4 << 20;

/// Bytes of an answer. A batch has at most 100 entries.
const MAX_ANSWER: u64 = 4 << 20;

/// The longest wait that a server can ask for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Nothing can be posted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PostError {
    /// The file of authorities cannot be read, or others can write it.
    #[error("cannot read the certificates of authorities")]
    Authorities(#[from] ReadError),
    /// It has no certificate.
    #[error("`{}` has no certificate", path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Ids that the server has.
    pub(super) delivered: BTreeSet<String>,
    /// Ids that it will never take.
    pub(super) rejected: BTreeSet<String>,
    /// Why the others are tried again, when there are others.
    pub(super) later: Option<Later>,
    /// Whether the server dealt with the batch, so that what is left is the entries' affair and others go first.
    pub(super) dealt_with: bool,
}

/// Try again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Later {
    /// Why, for the log.
    pub(super) why: String,
    /// Not before this, if the server said so.
    pub(super) wait: Option<Duration>,
}

/// What a status says about what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Done,
    /// Not now, or not with these rights or at this address: the content is not at fault.
    Later,
    Never,
}

impl Class {
    fn of(status: u16) -> Class {
        match status {
            200..=299 => Class::Done,
            // Rights, addresses, methods, protocol, limits of rate: what an operator or time changes.
            401..=405 | 407 | 408 | 410 | 421 | 423..=429 | 451 => Class::Later,
            400..=499 => Class::Never,
            _ => Class::Later,
        }
    }
}

/// What the answer to a whole batch says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Something about each entry.
    Entries(Vec<u16>),
    /// Nothing was taken; try again.
    Later(Later),
    /// Nothing was taken, for what it is.
    Never,
}

/// Decides from status, `Retry-After` and body. `count`: how many entries were sent.
fn judge(status: u16, wait: Option<Duration>, body: &[u8], count: usize) -> Verdict {
    match Class::of(status) {
        Class::Never => Verdict::Never,
        Class::Later => Verdict::Later(Later {
            why: format!("status {status}"),
            wait,
        }),
        Class::Done => match statuses(body) {
            Some(statuses) if statuses.len() == count => Verdict::Entries(statuses),
            _ => Verdict::Later(Later {
                why: format!("status {status}, and no batch-response for {count} entries"),
                wait,
            }),
        },
    }
}

/// `Bundle.entry.response.status` of each entry: it begins with three digits (R4, Bundle).
fn statuses(body: &[u8]) -> Option<Vec<u16>> {
    let bundle: Value = serde_json::from_slice(body).ok()?;
    if bundle["resourceType"] != "Bundle" {
        return None;
    }
    let status = |entry: &Value| entry["response"]["status"].as_str()?.get(..3)?.parse().ok();
    bundle["entry"].as_array()?.iter().map(status).collect()
}

/// RFC 9110, section 10.2.3: seconds or a date; bounded.
fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            let now = Timestamp::from_millisecond(now_ms.try_into().ok()?).ok()?;
            date.duration_since(now).try_into().unwrap_or_default()
        }
    };
    Some(wait.min(MAX_WAIT))
}

/// Talks to one server.
#[derive(Debug)]
pub(super) struct Poster {
    agent: Agent,
    endpoint: String,
    token_file: Option<PathBuf>,
}

impl Poster {
    /// Reads the authorities, once. `limit` is for one request, from the connect to the end of the answer.
    ///
    /// # Errors
    /// When they cannot be read, or there are none.
    pub(super) fn new(settings: &Settings, limit: Duration) -> Result<Poster, PostError> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(limit))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Not the environment's: a proxy would be another machine.
            .proxy(None)
            .max_idle_connections(1)
            .user_agent(concat!("lazaretd/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.ca_file {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            config = config.https_only(true).tls_config(
                TlsConfig::builder()
                    .provider(TlsProvider::Rustls)
                    .unversioned_rustls_crypto_provider(provider)
                    .root_certs(authorities(path)?)
                    .build(),
            );
        }
        Ok(Poster {
            agent: config.build().new_agent(),
            endpoint: settings.endpoint.clone(),
            token_file: settings.token_file.clone(),
        })
    }

    /// Posts these resources. A batch that is refused as a whole is posted again in halves, so that one bad resource does not take
    /// the others with it.
    pub(super) fn post(&self, entries: &[Value]) -> Outcome {
        let mut outcome = Outcome::default();
        self.deliver(entries, &mut outcome);
        outcome
    }

    fn deliver(&self, entries: &[Value], outcome: &mut Outcome) {
        let ids = entries
            .iter()
            .map(|entry| entry["id"].as_str().unwrap_or_default());
        match self.send(entries) {
            Verdict::Entries(statuses) => {
                outcome.dealt_with = true;
                for (id, status) in ids.zip(statuses) {
                    match Class::of(status) {
                        Class::Done => drop(outcome.delivered.insert(id.to_owned())),
                        Class::Never => drop(outcome.rejected.insert(id.to_owned())),
                        Class::Later => {
                            let why = format!("status {status} for an entry");
                            outcome.later = Some(Later { why, wait: None });
                        }
                    }
                }
            }
            Verdict::Later(later) => outcome.later = Some(later),
            Verdict::Never if entries.len() > 1 => {
                let (one, other) = entries.split_at(entries.len() / 2);
                self.deliver(one, outcome);
                // After a failure the rest waits too.
                if outcome.later.is_none() {
                    self.deliver(other, outcome);
                }
            }
            Verdict::Never => outcome.rejected.extend(ids.map(str::to_owned)),
        }
    }

    fn send(&self, entries: &[Value]) -> Verdict {
        let later = |why: String| Verdict::Later(Later { why, wait: None });
        let mut request = self
            .agent
            .post(&self.endpoint)
            .header(header::CONTENT_TYPE, "application/fhir+json")
            .header(header::ACCEPT, "application/fhir+json")
            .header("Prefer", "return=minimal");
        match self.token().transpose() {
            Some(Ok(token)) => {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            Some(Err(why)) => return later(why),
            None => {}
        }
        let mut answer = match request.send(bundle(entries).to_string()) {
            Ok(answer) => answer,
            Err(error) => return later(error.to_string()),
        };
        let status = answer.status().as_u16();
        let wait = answer
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, super::now_ms()));
        match answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
        {
            Ok(body) => judge(status, wait, &body, entries.len()),
            Err(error) => later(format!("status {status}, then {error}")),
        }
    }

    /// Read for each request: tokens are renewed by others.
    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let text = read::guarded(path, MAX_TOKEN, Guard::Secret).map_err(|e| e.to_string())?;
        let token = text.trim();
        // RFC 6750, section 2.1
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if token.is_empty() || !token.bytes().all(good) {
            return Err(format!("`{}` has no bearer token", path.display()));
        }
        Ok(Some(token.to_owned()))
    }
}

fn authorities(path: &std::path::Path) -> Result<RootCerts, PostError> {
    let text = read::guarded(path, MAX_AUTHORITIES, Guard::Pinned)?;
    let certificates: Vec<_> = parse_pem(text.as_bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(PostError::NoAuthority {
            path: path.to_owned(),
        });
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn response(statuses: &[&str]) -> Vec<u8> {
        let entries: Vec<_> = statuses
            .iter()
            .map(|status| json!({"response": {"status": status}}))
            .collect();
        json!({"resourceType": "Bundle", "type": "batch-response", "entry": entries})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn answers() {
        let two = response(&["201 Created", "400"]);
        assert_eq!(judge(200, None, &two, 2), Verdict::Entries(vec![201, 400]));
        for (status, body, count) in [
            (200, &two[..], 3),
            (200, b"<html>".as_slice(), 2),
            (200, b"{\"resourceType\":\"OperationOutcome\"}", 0),
            (302, &two, 2),
            (401, &two, 2),
            (403, &two, 2),
            (404, &two, 2),
            (408, &two, 2),
            (429, &two, 2),
            (500, &two, 2),
            (503, &two, 2),
        ] {
            let verdict = judge(status, None, body, count);
            assert!(
                matches!(verdict, Verdict::Later(_)),
                "{status} {count}: {verdict:?}"
            );
        }
        for status in [400, 409, 412, 413, 415, 422] {
            assert_eq!(judge(status, None, &two, 2), Verdict::Never, "{status}");
        }
    }

    #[test]
    fn waits_that_servers_ask_for() {
        let now = 1_445_412_470_000;
        for (text, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("999999999", Some(3600)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(10)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }
}
