//! Batch and transaction.

use super::dialogue::{Dialogue, Problem, check, entries};
use super::search::matches;
use super::session::Session;
use crate::client::{Call, query};
use crate::data;
use crate::kind::Kind;
use serde_json::Value;
use ureq::http::Method;

/// Indices of the resources that batches and transactions create.
const BATCH: u32 = 110;
const TRANSACTION: u32 = 111;
const ROLLBACK: u32 = 112;

impl Session<'_> {
    /// A read, a search, a create, and a read of an unknown id, which fails alone.
    pub(super) fn batch(&mut self, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let kind = self.first_kind()?;
        let id = &self.known(kind)?.id;
        let identity = self.identity(BATCH);
        let search = format!(
            "{kind}?{}",
            query(&[("identifier", &self.identity(0).token(kind))])
        );
        let resource = data::resource(kind, identity, &self.links());
        let bundle = data::bundle(
            "batch",
            vec![
                data::entry("GET", &format!("{kind}/{id}"), None, None),
                data::entry("GET", &search, None, None),
                data::entry("POST", kind.name(), None, Some(resource)),
                data::entry("GET", &format!("{kind}/lazaret-no-such-id"), None, None),
            ],
        );
        let statuses = post(&bundle, "batch-response", ask)?.0;
        let done = statuses == [200, 200, 201, 404];
        check(done, "the entries' statuses are not 200, 200, 201, 404")
    }

    /// A patient, an encounter and an observation by `urn:uuid`; the observation must refer to what the others became.
    pub(super) fn transaction(&mut self, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        transaction(&data::transaction(self.identity(TRANSACTION)), ask)
    }

    /// One entry of two cannot be done: the other must not be done either.
    pub(super) fn rollback(&mut self, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let kind = self.first_kind()?;
        let identity = self.identity(ROLLBACK);
        let (_, [value, _]) = kind.change();
        let id = self.known(kind)?.id.clone();
        let resource = self.changed(kind, 0, Some(&id), value);
        let mut update = data::entry("PUT", &format!("{kind}/{id}"), None, Some(resource));
        if let Some(request) = update.get_mut("request").and_then(Value::as_object_mut) {
            // A version that the resource does not have.
            request.insert("ifMatch".to_owned(), "W/\"999\"".into());
        }
        let bundle = data::bundle(
            "transaction",
            vec![
                data::entry(
                    "POST",
                    kind.name(),
                    None,
                    Some(data::resource(kind, identity, &self.links())),
                ),
                update,
            ],
        );
        let call = Call::new(Method::POST, ask.url("")).json(&bundle);
        ask.ask(call, &[400, 404, 409, 412, 422])?;
        let url = ask.url(&format!(
            "{kind}?{}",
            query(&[("identifier", &identity.token(kind))])
        ));
        let found = ask.bundle(Call::get(url), "searchset")?;
        check(
            matches(&found, kind).is_empty(),
            "half of a refused transaction was done",
        )
    }

    fn first_kind(&self) -> Result<Kind, Problem> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| self.reference(*kind).is_some());
        kind.ok_or(Problem::Missing("a created resource"))
    }
}

/// Posts a transaction whose last entry is an observation and looks whether its reference was resolved.
pub(super) fn transaction(bundle: &Value, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
    let (statuses, response) = post(bundle, "transaction-response", ask)?;
    check(
        statuses.iter().all(|s| *s == 201),
        "not every entry was created",
    )?;
    let location = |entry: Option<&Value>| -> Result<String, Problem> {
        let text = entry
            .and_then(|e| e.pointer("/response/location"))
            .and_then(Value::as_str);
        let path =
            ask.below(text.ok_or(Problem::Failed("an entry without location".to_owned()))?)?;
        Ok(path
            .split("/_history")
            .next()
            .unwrap_or_default()
            .to_owned())
    };
    let patient = location(entries(&response).first())?;
    let observation = location(entries(&response).last())?;
    let found = ask.resource(Call::get(ask.url(&observation)), &[200], "Observation")?;
    let subject = found.pointer("/subject/reference").and_then(Value::as_str);
    check(
        subject.is_some_and(|s| s.ends_with(&patient)),
        "the reference between two entries was not resolved",
    )
}

/// Posts a Bundle to the base; the statuses of its entries become statuses of the row.
fn post(bundle: &Value, of: &str, ask: &mut Dialogue<'_>) -> Result<(Vec<u16>, Value), Problem> {
    let response = ask.bundle(Call::new(Method::POST, ask.url("")).json(bundle), of)?;
    check(
        entries(&response).len() == entries(bundle).len(),
        "the response has not as many entries as the request",
    )?;
    let mut statuses = Vec::new();
    for entry in entries(&response) {
        // `201 Created`: the code is the first word.
        let text = entry
            .pointer("/response/status")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let status = text.split(' ').next().and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| Problem::Failed("an entry without status".to_owned()))?;
        ask.note(status);
        statuses.push(status);
    }
    Ok((statuses, response))
}
