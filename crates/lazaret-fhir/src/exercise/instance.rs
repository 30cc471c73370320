//! Interactions with single resources: create, read, vread, update, patch, delete, history, and the conditional forms.
//! What is written is read back: an answer of 200 alone does not prove that the server did the work.

use super::dialogue::{Dialogue, Problem, check, entries};
use super::session::{Known, Session};
use crate::client::{Answer, Call, query};
use crate::data;
use crate::kind::Kind;
use serde_json::Value;
use ureq::http::Method;

/// Resources of each type that the run creates: enough for three pages of two.
pub(super) const FIXTURES: u32 = 5;
/// Index of the resource that is created to be deleted.
const VICTIM: u32 = 100;
/// Index of the resource of the conditional interactions.
const CONDITIONAL: u32 = 101;

impl Session<'_> {
    pub(super) fn create(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        for index in 0..FIXTURES {
            let resource = data::resource(kind, self.identity(index), &self.links());
            let known = create(kind, &resource, ask)?;
            self.keep(kind, known);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let found = ask.resource(self.get(kind, ask)?, &[200], kind.name())?;
        if self.stored.is_none() {
            let stored = found.pointer("/meta/lastUpdated").and_then(Value::as_str);
            self.stored = stored.map(str::to_owned);
        }
        let ours = self.identity(0).identifier(kind);
        let first = found
            .pointer("/identifier/0/value")
            .or_else(|| found.pointer("/identifier/value"));
        check(
            first.and_then(Value::as_str) == Some(&ours),
            "the resource is not the one that was created",
        )
    }

    pub(super) fn vread(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let known = self.known(kind)?;
        let version = known.version.as_ref();
        let version = version.ok_or(Problem::Missing("a version in the answer to the create"))?;
        let url = ask.url(&format!("{kind}/{}/_history/{version}", known.id));
        let found = ask.resource(Call::get(url), &[200], kind.name())?;
        let id = found.get("id").and_then(Value::as_str);
        check(id == Some(&known.id), "the version is of another resource")
    }

    pub(super) fn update(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let (pointer, [value, _]) = kind.change();
        let id = self.known(kind)?.id.clone();
        let resource = self.changed(kind, 0, Some(&id), value.clone());
        let url = ask.url(&format!("{kind}/{id}"));
        ask.ask(Call::new(Method::PUT, url).json(&resource), &[200])?;
        self.written(kind, pointer, &value, ask)
    }

    pub(super) fn patch(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let (pointer, [_, value]) = kind.change();
        let patch = patch(pointer, &value);
        let url = ask.url(&format!("{kind}/{}", self.known(kind)?.id));
        let call = Call::new(Method::PATCH, url).body("application/json-patch+json", patch);
        ask.ask(call, &[200])?;
        self.written(kind, pointer, &value, ask)
    }

    pub(super) fn history_instance(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let url = ask.url(&format!("{kind}/{}/_history", self.known(kind)?.id));
        let bundle = ask.bundle(Call::get(url), "history")?;
        check(
            !entries(&bundle).is_empty(),
            "the history of a resource that exists is empty",
        )
    }

    pub(super) fn history_type(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let url = ask.url(&format!("{kind}/_history?_count=5"));
        let bundle = ask.bundle(Call::get(url), "history")?;
        check(
            !entries(&bundle).is_empty(),
            "the history of a type that has resources is empty",
        )
    }

    pub(super) fn history_system(&mut self, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let bundle = ask.bundle(Call::get(ask.url("_history?_count=5")), "history")?;
        check(
            !entries(&bundle).is_empty(),
            "the history of a server that has resources is empty",
        )
    }

    /// A resource to which nothing refers: servers refuse to delete others.
    pub(super) fn delete(&mut self, kind: Kind, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let victim = create(
            kind,
            &data::resource(kind, self.identity(VICTIM), &self.links()),
            ask,
        )?;
        let url = ask.url(&format!("{kind}/{}", victim.id));
        ask.ask(Call::new(Method::DELETE, url.clone()), &[200, 204])?;
        // 410 where the server keeps a tombstone, 404 where not (R4 http, "delete").
        ask.ask(Call::get(url), &[404, 410])?;
        Ok(())
    }

    pub(super) fn conditional_create(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let identity = self.identity(CONDITIONAL);
        let resource = data::resource(kind, identity, &self.links());
        let condition = query(&[("identifier", &identity.token(kind))]);
        for expected in [201, 200] {
            let call = Call::new(Method::POST, ask.url(kind.name())).json(&resource);
            ask.ask(call.header("If-None-Exist", &condition), &[expected])?;
        }
        Ok(())
    }

    pub(super) fn conditional_update(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let (_, [value, _]) = kind.change();
        let url = self.conditional_url(kind, ask);
        let call = Call::new(Method::PUT, url).json(&self.changed(kind, CONDITIONAL, None, value));
        // 201 where conditional creates are not known and nothing matched.
        ask.ask(call, &[200, 201])?;
        Ok(())
    }

    pub(super) fn conditional_delete(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let url = self.conditional_url(kind, ask);
        ask.ask(Call::new(Method::DELETE, url), &[200, 204])?;
        Ok(())
    }

    fn conditional_url(&self, kind: Kind, ask: &Dialogue<'_>) -> String {
        let condition = query(&[("identifier", &self.identity(CONDITIONAL).token(kind))]);
        ask.url(&format!("{kind}?{condition}"))
    }

    /// A GET of the first resource of a type.
    pub(super) fn get(&self, kind: Kind, ask: &Dialogue<'_>) -> Result<Call, Problem> {
        Ok(Call::get(
            ask.url(&format!("{kind}/{}", self.known(kind)?.id)),
        ))
    }

    /// The resource with its changeable value set to `value`.
    pub(super) fn changed(&self, kind: Kind, index: u32, id: Option<&str>, value: Value) -> Value {
        let mut resource = data::resource(kind, self.identity(index), &self.links());
        let (pointer, _) = kind.change();
        if let Some(place) = resource.pointer_mut(pointer) {
            *place = value;
        }
        if let (Some(id), Some(map)) = (id, resource.as_object_mut()) {
            map.insert("id".to_owned(), id.into());
        }
        resource
    }

    fn written(
        &self,
        kind: Kind,
        pointer: &str,
        value: &Value,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let found = ask.resource(self.get(kind, ask)?, &[200], kind.name())?;
        check(
            found.pointer(pointer) == Some(value),
            &format!("{pointer} is not {value} afterwards"),
        )
    }
}

/// A JSON Patch (RFC 6902) that replaces one value.
pub(super) fn patch(pointer: &str, value: &Value) -> Vec<u8> {
    serde_json::json!([{"op": "replace", "path": pointer, "value": value}])
        .to_string()
        .into_bytes()
}

/// Creates a resource; the answer must say its id, in `Location` as R4 demands.
pub(super) fn create(
    kind: Kind,
    resource: &Value,
    ask: &mut Dialogue<'_>,
) -> Result<Known, Problem> {
    let call = Call::new(Method::POST, ask.url(kind.name())).json(resource);
    let answer = ask.ask(call, &[201])?;
    created(kind, &answer, ask)
}

fn created(kind: Kind, answer: &Answer, ask: &Dialogue<'_>) -> Result<Known, Problem> {
    let Some(location) = &answer.location else {
        return Err(Problem::Failed("201 without Location".to_owned()));
    };
    let path = ask.below(location)?;
    let mut parts = path.split('/');
    let known = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(of), Some(id), Some("_history"), Some(version)) if of == kind.name() => Known {
            id: id.to_owned(),
            version: Some(version.to_owned()),
        },
        (Some(of), Some(id), None, None) if of == kind.name() => {
            // W/"1": a weak tag of the version (R4 http, "versioning").
            let etag = answer
                .etag
                .as_deref()
                .map(|e| e.trim_start_matches("W/").trim_matches('"'));
            Known {
                id: id.to_owned(),
                version: etag.map(str::to_owned),
            }
        }
        _ => {
            return Err(Problem::Failed(format!(
                "Location `{path}` is not that of a {kind}"
            )));
        }
    };
    check(!known.id.is_empty(), "Location without an id")?;
    Ok(known)
}
