//! XML, `$validate`, `$everything` and the bulk export.

use super::dialogue::{Dialogue, Problem, check, entries, json};
use super::session::Session;
use crate::client::{Answer, Call, escape};
use crate::data;
use crate::kind::Kind;
use core::time::Duration;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Instant;
use ureq::http::Method;

/// Time between two polls of an export when the server names none, and the bounds of what it may name: a server's own
/// suggestion is often two minutes.
const POLL_DEFAULT: Duration = Duration::from_millis(500);
const POLL_MAX: Duration = Duration::from_secs(1);
/// How long a poll sleeps before it looks whether the run was stopped.
const POLL_SLICE: Duration = Duration::from_millis(100);
/// Files of one export that are downloaded at most.
const FILES: usize = 64;

impl Session<'_> {
    pub(super) fn read_xml(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let call = self
            .get(kind, ask)?
            .header("Accept", "application/fhir+xml");
        let answer = ask.ask(call, &[200])?;
        let body = String::from_utf8_lossy(&answer.body);
        let root = format!("<{kind} ");
        check(
            answer.content_type.contains("xml") && body.contains(&root),
            "the answer is not the resource in XML",
        )
    }

    pub(super) fn validate(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let resource = data::resource(kind, self.identity(0), &self.links());
        let call = Call::new(Method::POST, ask.url(&format!("{kind}/$validate"))).json(&resource);
        ask.resource(call, &[200], "OperationOutcome").map(drop)
    }

    pub(super) fn everything(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let id = &self.known(kind)?.id;
        let url = ask.url(&format!("{kind}/{id}/$everything?_count=50"));
        let bundle = ask.resource(Call::get(url), &[200], "Bundle")?;
        let found = entries(&bundle).iter().any(|entry| {
            let text = |p| entry.pointer(p).and_then(Value::as_str);
            text("/resource/resourceType") == Some(kind.name()) && text("/resource/id") == Some(id)
        });
        check(found, "the resource itself is not in the answer")
    }

    pub(super) fn meta(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let url = ask.url(&format!("{kind}/{}/$meta", self.known(kind)?.id));
        ask.resource(Call::get(url), &[200], "Parameters").map(drop)
    }

    /// Adds a tag, or takes the same tag away (`name` is the operation's).
    pub(super) fn meta_change(
        &mut self,
        kind: Kind,
        name: &str,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let tag = serde_json::json!({"system": data::TAG_SYSTEM, "code": "extra"});
        let parameters = serde_json::json!({
            "resourceType": "Parameters",
            "parameter": [{"name": "meta", "valueMeta": {"tag": [tag]}}],
        });
        let url = ask.url(&format!("{kind}/{}/${name}", self.known(kind)?.id));
        let found = ask.resource(
            Call::new(Method::POST, url).json(&parameters),
            &[200],
            "Parameters",
        )?;
        let tags = found
            .pointer("/parameter/0/valueMeta/tag")
            .and_then(Value::as_array);
        let code = |tag: &Value| tag.get("code").and_then(Value::as_str) == Some("extra");
        let there = tags.is_some_and(|tags| tags.iter().any(code));
        check(
            there == (name == "meta-add"),
            "the tags afterwards are not those that were asked for",
        )
    }

    /// <https://hl7.org/fhir/uv/bulkdata/export.html>: request, polls, manifest, downloads. Limited to what the server stored since
    /// the run began, so that a used server exports no more than a fresh one.
    pub(super) fn export_start(
        &mut self,
        path: &str,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let kinds = Kind::ALL
            .iter()
            .filter(|kind| self.declared(**kind).is_some());
        let names: Vec<&str> = kinds.map(|k| k.name()).collect();
        let mut url = ask.url(&format!("{path}?_type={}", names.join(",")));
        if let Some(stored) = &self.stored {
            url.push_str(&format!("&_since={}", escape(stored)));
        }
        let answer = ask.ask(Call::get(url).header("Prefer", "respond-async"), &[202])?;
        let Some(status) = &answer.content_location else {
            return Err(Problem::Failed("202 without Content-Location".to_owned()));
        };
        self.export = Some(ask.rebase(status)?);
        Ok(())
    }

    pub(super) fn export_result(&mut self, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let manifest = self.poll(ask)?;
        let files = manifest
            .get("output")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        check(files.len() <= FILES, "the export has more than 64 files")?;
        let mut exported = BTreeSet::new();
        let mut noted = 0;
        for file in files {
            let text = |name| file.get(name).and_then(Value::as_str).unwrap_or_default();
            let call =
                Call::get(ask.rebase(text("url"))?).header("Accept", "application/fhir+ndjson");
            let answer = ask.poll(call, &[200], noted)?;
            noted = answer.status;
            if lines(&answer, text("type"))? > 0 {
                exported.insert(text("type").to_owned());
            }
        }
        let missing =
            |kind: &Kind| self.reference(*kind).is_some() && !exported.contains(kind.name());
        match Kind::ALL.iter().find(|kind| missing(kind)) {
            Some(kind) => Err(Problem::Failed(format!("no {kind} was exported"))),
            None => Ok(()),
        }
    }

    fn poll(&self, ask: &mut Dialogue<'_>) -> Result<Value, Problem> {
        let limit = self.limits.plan.export_timeout;
        let url = self
            .export
            .as_ref()
            .ok_or(Problem::Missing("an accepted $export"))?;
        let started = Instant::now();
        loop {
            let answer = ask.poll(Call::get(url.clone()), &[200, 202], 202)?;
            if answer.status == 200 {
                return json(&answer);
            }
            check(
                started.elapsed() < limit,
                &format!("the export was not ready within {limit:?}"),
            )?;
            let named = answer.retry_after_s.map(Duration::from_secs);
            let next = Instant::now() + named.unwrap_or(POLL_DEFAULT).clamp(POLL_SLICE, POLL_MAX);
            while Instant::now() < next {
                if self.limits.check().is_err() {
                    return Err(Problem::Failed(
                        "the run ended while the export was not ready".to_owned(),
                    ));
                }
                std::thread::sleep(POLL_SLICE);
            }
        }
    }
}

/// Counts the lines of an NDJSON file; each must be a resource of type `of`.
fn lines(answer: &Answer, of: &str) -> Result<usize, Problem> {
    let mut count = 0;
    for line in answer
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
    {
        let value: Option<Value> = serde_json::from_slice(line).ok();
        let found = value
            .as_ref()
            .and_then(|v| v.get("resourceType"))
            .and_then(Value::as_str);
        check(
            found == Some(of),
            &format!("a line of an exported file is not a {of}"),
        )?;
        count += 1;
    }
    Ok(count)
}
