//! Requests of one row and what their answers are worth.

use crate::base::LinkError;
use crate::client::{Answer, Call, Client, TransportError, excerpt};
use serde_json::Value;

/// Why an interaction did not succeed.
#[derive(Debug)]
pub(super) enum Problem {
    /// No answer.
    Transport(TransportError),
    /// A 4xx that was not expected.
    Refused(String),
    /// A 5xx, or an answer that is wrong.
    Failed(String),
    /// Something that an earlier interaction should have left is not there.
    Missing(&'static str),
}

impl core::fmt::Display for Problem {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            // `Broken` keeps its cause apart; a row has one line.
            Self::Transport(error) => match core::error::Error::source(error) {
                Some(source) => write!(out, "{error}: {source}"),
                None => write!(out, "{error}"),
            },
            Self::Refused(detail) | Self::Failed(detail) => out.write_str(detail),
            Self::Missing(what) => write!(out, "needs {what}"),
        }
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The requests of one row.
pub(super) struct Dialogue<'a> {
    client: &'a Client,
    statuses: Vec<u16>,
}

impl<'a> Dialogue<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self {
            client,
            statuses: Vec::new(),
        }
    }

    /// The URL of `rest` below the base.
    pub(super) fn url(&self, rest: &str) -> String {
        self.client.base().url(rest)
    }

    /// A link of the server, moved to the base's host.
    pub(super) fn rebase(&self, link: &str) -> Result<String, Problem> {
        Ok(self.client.base().rebase(link)?)
    }

    /// What a link of the server says below the base.
    pub(super) fn below(&self, link: &str) -> Result<String, Problem> {
        Ok(self.client.base().below(link)?)
    }

    /// Sends a request, notes its status, and accepts it if it is one of `accepted`.
    pub(super) fn ask(&mut self, call: Call, accepted: &[u16]) -> Result<Answer, Problem> {
        let answer = self.client.send(call).map_err(Problem::Transport)?;
        self.statuses.push(answer.status);
        accept(&answer, accepted)?;
        Ok(answer)
    }

    /// As [`Dialogue::ask`], of an answer whose status only counts when it is not `unnoted`: that of a poll.
    pub(super) fn poll(
        &mut self,
        call: Call,
        accepted: &[u16],
        unnoted: u16,
    ) -> Result<Answer, Problem> {
        let answer = self.client.send(call).map_err(Problem::Transport)?;
        if answer.status != unnoted {
            self.statuses.push(answer.status);
        }
        accept(&answer, accepted)?;
        Ok(answer)
    }

    /// As [`Dialogue::ask`], where the answer must be a resource of type `of`.
    pub(super) fn resource(
        &mut self,
        call: Call,
        accepted: &[u16],
        of: &str,
    ) -> Result<Value, Problem> {
        let answer = self.ask(call, accepted)?;
        let value = json(&answer)?;
        match value.get("resourceType").and_then(Value::as_str) {
            Some(found) if found == of => Ok(value),
            found => Err(Problem::Failed(format!(
                "the answer is a {}, not a {of}",
                found.unwrap_or("thing without resourceType")
            ))),
        }
    }

    /// A Bundle of type `of`.
    pub(super) fn bundle(&mut self, call: Call, of: &str) -> Result<Value, Problem> {
        let bundle = self.resource(call, &[200], "Bundle")?;
        match bundle.get("type").and_then(Value::as_str) {
            Some(found) if found == of => Ok(bundle),
            found => Err(Problem::Failed(format!(
                "the Bundle is a {}, not a {of}",
                found.unwrap_or("thing without type")
            ))),
        }
    }

    /// Notes a status that was inside an answer, as those in a batch-response.
    pub(super) fn note(&mut self, status: u16) {
        self.statuses.push(status);
    }

    /// Whether the last answer was 501 Not Implemented.
    pub(super) fn not_implemented(&self) -> bool {
        self.statuses.last() == Some(&501)
    }

    pub(super) fn into_statuses(self) -> Vec<u16> {
        self.statuses
    }
}

fn accept(answer: &Answer, accepted: &[u16]) -> Result<(), Problem> {
    if accepted.contains(&answer.status) {
        return Ok(());
    }
    let detail = format!(
        "status {} instead of {accepted:?}{}",
        answer.status,
        diagnostics(answer)
    );
    match answer.status {
        400..=499 => Err(Problem::Refused(detail)),
        _ => Err(Problem::Failed(detail)),
    }
}

/// The first issue of an OperationOutcome, else the body's start.
fn diagnostics(answer: &Answer) -> String {
    let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let text = value
        .as_ref()
        .and_then(|v| v.pointer("/issue/0/diagnostics"))
        .and_then(Value::as_str);
    let text = text.map_or_else(|| excerpt(&answer.body), |t| excerpt(t.as_bytes()));
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

/// The answer as JSON.
pub(super) fn json(answer: &Answer) -> Result<Value, Problem> {
    serde_json::from_slice(&answer.body).map_err(|_| {
        Problem::Failed(format!(
            "the answer ({}) is not JSON: {}",
            answer.content_type,
            excerpt(&answer.body)
        ))
    })
}

/// The entries of a Bundle; none when there are none.
pub(super) fn entries(bundle: &Value) -> &[Value] {
    bundle
        .get("entry")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// `Err(Failed)` unless `true_` holds.
pub(super) fn check(holds: bool, otherwise: &str) -> Result<(), Problem> {
    if holds {
        Ok(())
    } else {
        Err(Problem::Failed(otherwise.to_owned()))
    }
}
