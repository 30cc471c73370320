//! What a server must refuse. The refusal is the success; doing it is the failure.

use super::dialogue::{Dialogue, Problem};
use super::session::Session;
use crate::client::Call;
use crate::data;
use crate::kind::Kind;
use ureq::http::Method;

impl Session<'_> {
    pub(super) fn refuses_malformed(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let body = format!("{{\"resourceType\": \"{kind}\", \"identifier\": [{{");
        let call = Call::new(Method::POST, ask.url(kind.name()))
            .body(crate::client::FHIR_JSON, body.into_bytes());
        ask.ask(call, &[400, 422]).map(drop)
    }

    /// A resource of another type than the URL's.
    pub(super) fn refuses_wrong_type(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let other = if kind == Kind::Organization {
            Kind::Practitioner
        } else {
            Kind::Organization
        };
        let resource = data::resource(other, self.identity(0), &self.links());
        let call = Call::new(Method::POST, ask.url(kind.name())).json(&resource);
        ask.ask(call, &[400, 422]).map(drop)
    }

    pub(super) fn refuses_unknown_id(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let url = ask.url(&format!("{kind}/lazaret-no-such-id"));
        ask.ask(Call::get(url), &[404]).map(drop)
    }

    /// An update that rests on a version which the resource does not have (R4 http, "managing resource contention").
    pub(super) fn refuses_old_version(
        &mut self,
        kind: Kind,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        let (_, [value, _]) = kind.change();
        let id = self.known(kind)?.id.clone();
        let call = Call::new(Method::PUT, ask.url(&format!("{kind}/{id}")))
            .json(&self.changed(kind, 0, Some(&id), value))
            .header("If-Match", "W/\"999\"");
        ask.ask(call, &[409, 412]).map(drop)
    }

    pub(super) fn refuses_unknown_type(&mut self, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        ask.ask(Call::get(ask.url("NoSuchType/1")), &[400, 404])
            .map(drop)
    }

    pub(super) fn refuses_media_type(&mut self, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
        let call = Call::new(Method::POST, ask.url("Patient"))
            .body("image/png", b"not a patient".to_vec());
        ask.ask(call, &[400, 415]).map(drop)
    }
}
