//! Waits until a server answers with a status.

use crate::base::{Base, BaseError};
use crate::client::{Call, Client};
use core::time::Duration;
use std::time::Instant;

/// Time for one attempt: a server that starts may accept a connection long before it answers.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A server did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// The URL is none.
    #[error("cannot wait for a server")]
    Url(#[from] BaseError),
    /// What should answer has ended.
    #[error(
        "the server ended after {waited:?}, before {url} answered {status}; the last attempt: {last}"
    )]
    Died {
        /// What was asked.
        url: String,
        /// The status that was waited for.
        status: u16,
        /// How long.
        waited: Duration,
        /// What the last attempt brought.
        last: String,
    },
    /// The time is over.
    #[error("{url} did not answer {status} within {limit:?}; the last attempt: {last}")]
    TimedOut {
        /// What was asked.
        url: String,
        /// The status that was waited for.
        status: u16,
        /// The time it was given.
        limit: Duration,
        /// What the last attempt brought.
        last: String,
    },
}

/// Asks `url` (plain HTTP, may have a query) every `interval` until it answers `status`, and tells how long that took.
/// `still_alive` is asked before every attempt.
///
/// # Errors
/// The URL is none, `timeout` is over, or `still_alive` says no. Each says what the last attempt brought.
pub fn wait(
    url: &str,
    status: u16,
    timeout: Duration,
    interval: Duration,
    still_alive: &dyn Fn() -> bool,
) -> Result<Duration, ReadyError> {
    let base: Base = url.split('?').next().unwrap_or_default().parse()?;
    let started = Instant::now();
    let mut last: Option<String> = None;
    let said = |last: Option<String>| last.unwrap_or_else(|| "none was made".to_owned());
    loop {
        let waited = started.elapsed();
        let url = || url.to_owned();
        if !still_alive() {
            return Err(ReadyError::Died {
                url: url(),
                status,
                waited,
                last: said(last),
            });
        }
        let left = timeout.saturating_sub(waited);
        if left.is_zero() {
            return Err(ReadyError::TimedOut {
                url: url(),
                status,
                limit: timeout,
                last: said(last),
            });
        }
        let client = Client::new(base.clone(), left.min(ATTEMPT));
        match client.send(Call::get(url())) {
            Ok(answer) if answer.status == status => return Ok(started.elapsed()),
            Ok(answer) => last = Some(format!("status {}", answer.status)),
            // The last attempt may have had no time; what came before it says more.
            Err(error) if left < ATTEMPT => {
                last.get_or_insert(error.to_string());
            }
            Err(error) => last = Some(error.to_string()),
        }
        std::thread::sleep(interval.min(timeout.saturating_sub(started.elapsed())));
    }
}
