//! What the steps of a run leave for the steps after them.

use super::Limits;
use super::dialogue::{Dialogue, Problem};
use super::steps::Action;
use crate::capability::{Capability, TypeCapability};
use crate::data::{Identity, Links};
use crate::kind::Kind;
use std::collections::BTreeMap;

/// A resource that the run created.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: String,
    /// Its version after the create, where the server said it.
    pub(super) version: Option<String>,
}

/// State of a run.
pub(super) struct Session<'a> {
    pub(super) capability: &'a Capability,
    pub(super) limits: &'a Limits<'a>,
    /// The first resource of each type.
    known: BTreeMap<Kind, Known>,
    /// When the server stored the first resource, in its own clock and words (`meta.lastUpdated`).
    pub(super) stored: Option<String>,
    /// Where the status of the bulk export under way is.
    pub(super) export: Option<String>,
}

impl<'a> Session<'a> {
    pub(super) fn new(capability: &'a Capability, limits: &'a Limits<'a>) -> Self {
        Self {
            capability,
            limits,
            known: BTreeMap::new(),
            stored: None,
            export: None,
        }
    }

    pub(super) fn identity(&self, index: u32) -> Identity {
        let plan = self.limits.plan;
        Identity {
            seed: plan.seed,
            run: plan.run,
            index,
        }
    }

    /// Keeps the first of its type.
    pub(super) fn keep(&mut self, kind: Kind, known: Known) {
        self.known.entry(kind).or_insert(known);
    }

    pub(super) fn known(&self, kind: Kind) -> Result<&Known, Problem> {
        self.known
            .get(&kind)
            .ok_or(Problem::Missing("a created resource of this type"))
    }

    /// `Patient/1`.
    pub(super) fn reference(&self, kind: Kind) -> Option<String> {
        Some(format!("{kind}/{}", self.known.get(&kind)?.id))
    }

    pub(super) fn links(&self) -> Links {
        Links {
            organization: self.reference(Kind::Organization),
            practitioner: self.reference(Kind::Practitioner),
            patient: self.reference(Kind::Patient),
            encounter: self.reference(Kind::Encounter),
        }
    }

    /// What is declared for a type; steps exist for declared types only.
    pub(super) fn declared(&self, kind: Kind) -> Option<&TypeCapability> {
        self.capability.types.get(kind.name())
    }

    /// Runs one step.
    pub(super) fn act(
        &mut self,
        action: &Action<'_>,
        ask: &mut Dialogue<'_>,
    ) -> Result<(), Problem> {
        match *action {
            Action::Create(kind) => self.create(kind, ask),
            Action::Read(kind) => self.read(kind, ask),
            Action::Vread(kind) => self.vread(kind, ask),
            Action::Update(kind) => self.update(kind, ask),
            Action::Patch(kind) => self.patch(kind, ask),
            Action::HistoryInstance(kind) => self.history_instance(kind, ask),
            Action::HistoryType(kind) => self.history_type(kind, ask),
            Action::Delete(kind) => self.delete(kind, ask),
            Action::ConditionalCreate(kind) => self.conditional_create(kind, ask),
            Action::ConditionalUpdate(kind) => self.conditional_update(kind, ask),
            Action::ConditionalDelete(kind) => self.conditional_delete(kind, ask),
            Action::Search(kind, search) => self.search(kind, &search, ask),
            Action::SearchPost(kind) => self.search_post(kind, ask),
            Action::Paging(kind) => self.paging(kind, ask),
            Action::Parameter(kind, name, value) => self.parameter(kind, name, value, ask),
            Action::Xml(kind) => self.read_xml(kind, ask),
            Action::Validate(kind) => self.validate(kind, ask),
            Action::Everything(kind) => self.everything(kind, ask),
            Action::RefusesMalformed(kind) => self.refuses_malformed(kind, ask),
            Action::RefusesWrongType(kind) => self.refuses_wrong_type(kind, ask),
            Action::RefusesUnknownId(kind) => self.refuses_unknown_id(kind, ask),
            Action::RefusesOldVersion(kind) => self.refuses_old_version(kind, ask),
            Action::RefusesUnknownType => self.refuses_unknown_type(ask),
            Action::RefusesMediaType => self.refuses_media_type(ask),
            Action::HistorySystem => self.history_system(ask),
            Action::Batch => self.batch(ask),
            Action::Transaction => self.transaction(ask),
            Action::Rollback => self.rollback(ask),
            Action::Meta(kind) => self.meta(kind, ask),
            Action::MetaChange(kind, name) => self.meta_change(kind, name, ask),
            Action::Export(path) => self.export_start(path, ask),
            Action::ExportResult => self.export_result(ask),
        }
    }
}
