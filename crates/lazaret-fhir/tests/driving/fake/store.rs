//! The resources of the fake server and what is done with them. Searches know `identifier`, `_tag`, `_sort`, `_include` and pages; other
//! parameters do not narrow.

use super::{Answer, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A host that cannot be reached: the exercise must stay on its base.
const ELSEWHERE: &str = "http://elsewhere.invalid:1/fhir";
const TYPES: [&str; 7] = [
    "Organization",
    "Practitioner",
    "Patient",
    "Encounter",
    "Condition",
    "Observation",
    "Bundle",
];

/// One thing that the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers 200 to a PATCH and changes nothing.
    IgnoresPatch,
    /// Answers 200 to a PUT and changes nothing.
    IgnoresUpdate,
    /// Stores what is not JSON.
    AcceptsAnything,
    /// Does the entries before the one that fails.
    HalvesTransactions,
    /// Always has another page.
    EndlessPages,
    /// Has an export that is never ready.
    NeverExports,
    /// Exports no Observation.
    ExportsHalf,
    /// Sorts backwards.
    SortsBackwards,
    /// Serves deleted resources.
    KeepsDeleted,
    /// Does not resolve references between the entries of a transaction.
    KeepsUuids,
}

#[derive(Default)]
pub(crate) struct Store {
    /// Type and id → versions; `None` is a deletion.
    all: BTreeMap<(String, u32), Vec<Option<Value>>>,
    last: u32,
    polls: u32,
}

impl Store {
    pub(crate) fn handle(&mut self, request: &Request, fault: Option<Fault>) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let method = request.method.as_str();
        let resource: Option<Value> = serde_json::from_slice(&request.body).ok();
        match (method, parts.as_slice()) {
            ("POST", []) => self.bundle(resource.as_ref(), fault),
            ("GET", ["_history"]) => history(self.all.values().flatten().flatten()),
            ("GET", ["$export"]) => {
                Answer::status(202).with("Content-Location", format!("{ELSEWHERE}/status"))
            }
            ("GET", ["status"]) => self.export_status(fault),
            ("GET", ["file", of]) => self.export_file(of),
            (_, [of, ..]) if !TYPES.contains(of) => Answer::status(404),
            ("POST", [of, "_search"]) => {
                self.search(of, &String::from_utf8_lossy(&request.body), fault)
            }
            ("POST", [_, "$validate"]) => {
                Answer::json(200, &json!({"resourceType": "OperationOutcome"}))
            }
            ("GET", [of]) => self.search(of, query, fault),
            ("GET", [of, "_history"]) => history(self.of_type(of)),
            ("POST", [of]) => self.create(of, request, resource, fault),
            ("PUT" | "DELETE", [of]) => match (self.find(of, &pairs(query)).first(), method) {
                (Some(id), "PUT") => self.put(of, *id, resource, None),
                (Some(id), _) => self.delete(of, *id),
                (None, _) => Answer::status(404),
            },
            (_, [of, id, rest @ ..]) => match id.parse() {
                Ok(id) => self.instance(method, of, id, rest, request, resource, fault),
                Err(_) => Answer::status(404),
            },
            _ => Answer::status(405),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn instance(
        &mut self,
        method: &str,
        of: &str,
        id: u32,
        rest: &[&str],
        request: &Request,
        resource: Option<Value>,
        fault: Option<Fault>,
    ) -> Answer {
        let Some(versions) = self.all.get(&(of.to_owned(), id)) else {
            return Answer::status(404);
        };
        let kept = versions.iter().flatten().last();
        let current = match (versions.last(), kept) {
            (Some(Some(current)), _) => current.clone(),
            (_, Some(kept)) if fault == Some(Fault::KeepsDeleted) => kept.clone(),
            _ => return Answer::status(410),
        };
        match (method, rest) {
            ("GET", []) if request.header("accept") == Some("application/fhir+xml") => {
                let body = format!("<{of} xmlns=\"http://hl7.org/fhir\"/>");
                Answer::raw(200, "application/fhir+xml", body.into_bytes())
            }
            ("GET", []) => Answer::json(200, &current),
            ("GET", ["_history"]) => history(versions.iter().flatten()),
            ("GET", ["_history", version]) => {
                let at = version.parse::<usize>().ok().and_then(|v| v.checked_sub(1));
                match at.and_then(|at| versions.get(at)?.clone()) {
                    Some(version) => Answer::json(200, &version),
                    None => Answer::status(404),
                }
            }
            ("GET", ["$everything"]) => searchset(&[&current], &[], None),
            ("GET", ["$meta"]) => parameters(&current["meta"]),
            ("POST", ["$meta-add"]) => parameters(&json!({"tag": [{"code": "extra"}]})),
            ("POST", ["$meta-delete"]) => parameters(&json!({})),
            ("PUT", []) if fault == Some(Fault::IgnoresUpdate) => Answer::json(200, &current),
            ("PUT", []) => self.put(of, id, resource, request.header("if-match")),
            ("PATCH", []) => {
                let mut changed = current;
                let operation = resource.unwrap_or_default()[0].clone();
                let place = changed.pointer_mut(operation["path"].as_str().unwrap_or("/"));
                match place {
                    Some(place) if fault != Some(Fault::IgnoresPatch) => {
                        *place = operation["value"].clone()
                    }
                    _ => {}
                }
                self.put(of, id, Some(changed), None)
            }
            ("DELETE", []) => self.delete(of, id),
            _ => Answer::status(405),
        }
    }

    fn of_type(&self, of: &str) -> impl Iterator<Item = &Value> {
        let last = self.all.iter().filter(move |((t, _), _)| t == of);
        last.filter_map(|(_, versions)| versions.last()?.as_ref())
    }

    fn find(&self, of: &str, pairs: &[(String, String)]) -> Vec<u32> {
        let matching = |resource: &Value, (name, value): &(String, String)| {
            let code = value.split('|').nth(1).unwrap_or(value);
            match name.as_str() {
                "identifier" if value.contains('|') => {
                    resource
                        .pointer("/identifier/0/value")
                        .or(resource.pointer("/identifier/value"))
                        == Some(&json!(code))
                }
                "_tag" if value.contains('|') => {
                    resource.pointer("/meta/tag/0/code") == Some(&json!(code))
                }
                _ => true,
            }
        };
        let found = self
            .of_type(of)
            .filter(|r| pairs.iter().all(|pair| matching(r, pair)));
        found
            .filter_map(|r| r["id"].as_str()?.parse().ok())
            .collect()
    }

    fn search(&self, of: &str, query: &str, fault: Option<Fault>) -> Answer {
        let pairs = pairs(query);
        let value = |name: &str| {
            pairs
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        let number =
            |name, otherwise| value(name).map_or(otherwise, |v: &str| v.parse().expect("a number"));
        let ids = self.find(of, &pairs);
        let mut found: Vec<&Value> = self
            .of_type(of)
            .filter(|r| ids.iter().any(|id| r["id"] == json!(id.to_string())))
            .collect();
        if value("_sort").is_some() {
            let keys = [
                "/birthDate",
                "/name",
                "/name/0/family",
                "/period/start",
                "/recordedDate",
                "/effectiveDateTime",
                "/timestamp",
            ];
            let key = |r: &Value| {
                keys.iter()
                    .find_map(|k| Some(r.pointer(k)?.as_str()?.to_owned()))
            };
            found.sort_by_key(|r| key(r));
            if fault == Some(Fault::SortsBackwards) {
                found.reverse();
            }
        }
        let (count, offset) = (number("_count", 100), number("_offset", 0));
        let page: Vec<&Value> = found.iter().skip(offset).take(count).copied().collect();
        let pointer = [
            "/partOf/reference",
            "/managingOrganization/reference",
            "/subject/reference",
        ];
        let reference = |r: &&Value| {
            pointer
                .iter()
                .find_map(|p| r.pointer(p)?.as_str().map(str::to_owned))
        };
        let included: Vec<&Value> = page
            .iter()
            .filter(|_| value("_include").is_some())
            .filter_map(reference)
            .filter_map(|r| {
                let (of, id) = r.split_once('/')?;
                self.all
                    .get(&(of.to_owned(), id.parse().ok()?))?
                    .last()?
                    .as_ref()
            })
            .collect();
        let tag = value("_tag").unwrap_or_default().replace('|', "%7C");
        let more =
            offset + count < found.len() || (fault == Some(Fault::EndlessPages) && count == 2);
        let next = more.then(|| {
            format!(
                "{ELSEWHERE}/{of}?_tag={tag}&_count={count}&_offset={}",
                offset + count
            )
        });
        searchset(&page, &included, next)
    }

    fn create(
        &mut self,
        of: &str,
        request: &Request,
        resource: Option<Value>,
        fault: Option<Fault>,
    ) -> Answer {
        if let Some(condition) = request.header("if-none-exist")
            && let Some(id) = self.find(of, &pairs(condition)).first()
        {
            return Answer::status(200)
                .with("Location", format!("{ELSEWHERE}/{of}/{id}/_history/1"));
        }
        if request.header("content-type") == Some("image/png") {
            return Answer::status(415);
        }
        let anything = fault == Some(Fault::AcceptsAnything);
        match resource {
            Some(resource) if anything || resource["resourceType"] == of => {
                self.store(of, resource)
            }
            None if anything => self.store(of, json!({"resourceType": of})),
            Some(_) => Answer::status(422),
            None => Answer::status(400),
        }
    }

    fn store(&mut self, of: &str, resource: Value) -> Answer {
        self.last += 1;
        self.put(of, self.last, Some(resource), None)
    }

    fn put(
        &mut self,
        of: &str,
        id: u32,
        resource: Option<Value>,
        if_match: Option<&str>,
    ) -> Answer {
        let Some(mut resource) = resource.filter(Value::is_object) else {
            return Answer::status(400);
        };
        let versions = self.all.entry((of.to_owned(), id)).or_default();
        let current = versions.len();
        if if_match.is_some_and(|tag| tag != format!("W/\"{current}\"")) {
            return Answer::status(412);
        }
        resource["id"] = id.to_string().into();
        resource["meta"]["lastUpdated"] = "2026-01-02T03:04:05.678+00:00".into();
        versions.push(Some(resource.clone()));
        let status = if current == 0 { 201 } else { 200 };
        let location = format!("{ELSEWHERE}/{of}/{id}/_history/{}", current + 1);
        Answer::json(status, &resource).with("Location", location)
    }

    fn delete(&mut self, of: &str, id: u32) -> Answer {
        self.all.entry((of.to_owned(), id)).or_default().push(None);
        Answer {
            status: 204,
            ..Answer::default()
        }
    }

    fn bundle(&mut self, bundle: Option<&Value>, fault: Option<Fault>) -> Answer {
        let Some(bundle) = bundle else {
            return Answer::status(400);
        };
        let of = bundle["type"].as_str().unwrap_or_default();
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        let fails = |entry: &Value| entry.pointer("/request/ifMatch").is_some();
        if entries.iter().any(fails) && fault != Some(Fault::HalvesTransactions) {
            return Answer::status(412);
        }
        let mut text = Value::from(entries).to_string();
        if fault != Some(Fault::KeepsUuids) {
            for (entry, at) in bundle["entry"].as_array().into_iter().flatten().zip(1..) {
                if let (Some(urn), Some(url)) =
                    (entry["fullUrl"].as_str(), entry["request"]["url"].as_str())
                {
                    text = text.replace(urn, &format!("{url}/{}", self.last + at));
                }
            }
        }
        let entries: Vec<Value> = serde_json::from_str(&text).expect("JSON with other references");
        let mut responses = Vec::new();
        for entry in &entries {
            if fails(entry) {
                return Answer::status(412);
            }
            let text = |pointer| {
                entry
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let body = entry
                .get("resource")
                .map_or(Vec::new(), |r| r.to_string().into_bytes());
            let request = Request {
                method: text("/request/method"),
                path: text("/request/url"),
                headers: Vec::new(),
                body,
            };
            let answer = self.handle(&request, fault);
            let location = answer.headers.iter().find(|(name, _)| *name == "Location");
            // Relative to the base, as HAPI writes it.
            let location =
                location.map(|(_, l)| l.trim_start_matches(ELSEWHERE).trim_start_matches('/'));
            responses.push(json!({"response": {"status": format!("{} x", answer.status), "location": location}}));
        }
        Answer::json(
            200,
            &json!({"resourceType": "Bundle", "type": format!("{of}-response"), "entry": responses}),
        )
    }

    fn export_status(&mut self, fault: Option<Fault>) -> Answer {
        self.polls += 1;
        // Every other poll is one too early.
        if fault == Some(Fault::NeverExports) || self.polls % 2 == 1 {
            return Answer::status(202).with("Retry-After", "0".to_owned());
        }
        let files = TYPES
            .iter()
            .filter(|of| !(fault == Some(Fault::ExportsHalf) && **of == "Observation"));
        let files: Vec<Value> = files
            .map(|of| json!({"type": of, "url": format!("{ELSEWHERE}/file/{of}")}))
            .collect();
        Answer::json(200, &json!({"output": files}))
    }

    fn export_file(&self, of: &str) -> Answer {
        let lines: Vec<String> = self.of_type(of).map(Value::to_string).collect();
        Answer::raw(
            200,
            "application/fhir+ndjson",
            (lines.join("\n") + "\n").into_bytes(),
        )
    }
}

fn history<'a>(versions: impl Iterator<Item = &'a Value>) -> Answer {
    let entries: Vec<Value> = versions.take(5).map(|r| json!({"resource": r})).collect();
    Answer::json(
        200,
        &json!({"resourceType": "Bundle", "type": "history", "entry": entries}),
    )
}

fn searchset(found: &[&Value], included: &[&Value], next: Option<String>) -> Answer {
    let entry = |mode| move |r: &&Value| json!({"resource": r, "search": {"mode": mode}});
    let entries: Vec<Value> = found
        .iter()
        .map(entry("match"))
        .chain(included.iter().map(entry("include")))
        .collect();
    let mut bundle = json!({"resourceType": "Bundle", "type": "searchset", "entry": entries});
    if let Some(next) = next {
        bundle["link"] =
            json!([{"relation": "self", "url": "x"}, {"relation": "next", "url": next}]);
    }
    Answer::json(200, &bundle)
}

fn parameters(meta: &Value) -> Answer {
    Answer::json(
        200,
        &json!({"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": meta}]}),
    )
}

/// Name and value of each pair, the value unescaped.
fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), unescape(value)))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out: Vec<u8> = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).expect("two hexadecimal digits"));
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(out).expect("UTF-8")
}
