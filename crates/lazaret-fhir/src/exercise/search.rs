//! Searches. Where it can be, a search is narrowed to the run's own tag, so that its result is the same on a used server.

use super::dialogue::{Dialogue, Problem, check, entries};
use super::instance::FIXTURES;
use super::session::Session;
use crate::client::{Call, query};
use crate::kind::{Kind, Search};
use serde_json::Value;
use std::collections::BTreeSet;
use ureq::http::Method;

/// Pages that are followed at most; a run has six resources of a type, on pages of two.
const PAGES: usize = 20;

impl Session<'_> {
    pub(super) fn search(
        &mut self,
        kind: Kind,
        search: &Search,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let value = self.fill(kind, search.value)?;
        let mut pairs = vec![(search.written, value.as_str())];
        // The second resource refers to the first, which may be of the same type: alone, it makes that one an inclusion.
        let second = self.identity(1).token(kind);
        if search.sort == "include" {
            pairs.push(("identifier", &second));
        }
        let url = self.search_url(kind, &pairs, ask);
        let bundle = ask.bundle(Call::get(url), "searchset")?;
        let found = matches(&bundle, kind);
        check(
            !found.is_empty(),
            "the search does not find what the run has created",
        )?;
        match search.sort {
            "include" => {
                let included = entries(&bundle).iter().any(|e| mode(e) == Some("include"));
                check(included, "nothing is included")
            }
            "sort" => {
                let keys: Vec<String> = found
                    .iter()
                    .filter_map(|r| Some(r.pointer(kind.sorted_by())?.as_str()?.to_lowercase()))
                    .collect();
                check(
                    keys.len() > 1 && keys.is_sorted(),
                    "the result is not sorted",
                )
            }
            _ => Ok(()),
        }
    }

    pub(super) fn search_post(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let form = query(&[("identifier", &self.identity(0).token(kind))]);
        let call = Call::new(Method::POST, ask.url(&format!("{kind}/_search")))
            .body("application/x-www-form-urlencoded", form.into_bytes());
        let bundle = ask.bundle(call, "searchset")?;
        check(
            !matches(&bundle, kind).is_empty(),
            "the search does not find what the run has created",
        )
    }

    /// Follows `next` to the end: every resource of the run once.
    pub(super) fn paging(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let mut next = Some(self.search_url(kind, &[("_count", "2")], ask));
        let mut seen = BTreeSet::new();
        let mut pages = 0;
        while let Some(url) = next {
            check(pages < PAGES, "the pages do not end")?;
            pages += 1;
            let bundle = ask.bundle(Call::get(url), "searchset")?;
            for resource in matches(&bundle, kind) {
                let id = resource
                    .get("id")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                check(
                    seen.insert(id.to_owned()),
                    "two pages have the same resource",
                )?;
            }
            next = next_link(&bundle)
                .map(|link| ask.rebase(link))
                .transpose()?;
        }
        check(
            seen.len() >= FIXTURES as usize,
            "the pages together do not have all that the run has created",
        )
    }

    /// One search by a declared parameter, with some value of its sort. What it finds does not matter.
    pub(super) fn parameter(
        &mut self,
        kind: Kind,
        name: &str,
        value: Option<&'static str>,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let written = if name == "_has" {
            kind.reverse_chain()
        } else {
            Some(name)
        };
        let (Some(written), Some(value)) = (written, value) else {
            return Err(Problem::Missing("a value for a parameter of this sort"));
        };
        let url = ask.url(&format!("{kind}?{}&_count=1", query(&[(written, value)])));
        ask.bundle(Call::get(url), "searchset").map(drop)
    }

    fn search_url(&self, kind: Kind, pairs: &[(&str, &str)], ask: &Dialogue<'_>) -> String {
        let tag = self.identity(0).tag();
        let mut pairs = pairs.to_vec();
        if self
            .declared(kind)
            .is_some_and(|of| of.search.contains_key("_tag"))
        {
            pairs.push(("_tag", &tag));
        }
        ask.url(&format!("{kind}?{}", query(&pairs)))
    }

    fn fill(&self, kind: Kind, value: &str) -> Result<String, Problem> {
        let first = self.identity(0);
        Ok(match value {
            "{text}" => first.name(kind),
            "{identifier}" => first.token(kind),
            "{organization.name}" => first.name(Kind::Organization),
            "{patient.name}" => first.name(Kind::Patient),
            "{organization}" => self
                .reference(Kind::Organization)
                .ok_or(Problem::Missing("a created Organization"))?,
            "{patient}" => self
                .reference(Kind::Patient)
                .ok_or(Problem::Missing("a created Patient"))?,
            literal => literal.to_owned(),
        })
    }
}

/// Some value for a parameter of a sort; `None` where none is known.
pub(super) fn parameter_value(name: &str, sort: &str) -> Option<&'static str> {
    match (name, sort) {
        ("_has", _) => Some("finished"),
        (_, "string" | "token") => Some("a"),
        (_, "reference") => Some("none"),
        (_, "date") => Some("gt2000-01-01"),
        (_, "number" | "quantity") => Some("gt1"),
        (_, "uri") => Some("urn:example:none"),
        // The components' sorts are in the names of R4's composites (`code-value-quantity`).
        (_, "composite") if name.ends_with("-quantity") => Some("a$gt1"),
        (_, "composite") if name.ends_with("-date") => Some("a$gt2000-01-01"),
        (_, "composite") => Some("a$a"),
        _ => None,
    }
}

fn mode(entry: &Value) -> Option<&str> {
    entry.pointer("/search/mode").and_then(Value::as_str)
}

/// The resources of type `kind` that matched. `search.mode` may be missing (R4: it is 0..1).
pub(super) fn matches(bundle: &Value, kind: Kind) -> Vec<&Value> {
    entries(bundle)
        .iter()
        .filter(|entry| mode(entry).is_none_or(|mode| mode == "match"))
        .filter_map(|entry| entry.get("resource"))
        .filter(|resource| {
            resource.get("resourceType").and_then(Value::as_str) == Some(kind.name())
        })
        .collect()
}

fn next_link(bundle: &Value) -> Option<&str> {
    let links = bundle.get("link")?.as_array()?;
    let next = links
        .iter()
        .find(|l| l.get("relation").and_then(Value::as_str) == Some("next"))?;
    next.get("url")?.as_str()
}
