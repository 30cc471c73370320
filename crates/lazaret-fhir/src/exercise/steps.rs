//! From the declaration to the list of steps. Nothing is sent here.

use super::search::parameter_value;
use crate::capability::{Capability, TypeCapability};
use crate::coverage::Expects;
use crate::kind::{Kind, Search};
use std::collections::BTreeSet;

/// A point of the declaration, by name: `Patient.create`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Uses {
    Interaction(String),
    Parameter(String),
    Operation(String),
}

/// What a step does; each is a function of [`super::session::Session`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Action<'a> {
    Create(Kind),
    Read(Kind),
    Vread(Kind),
    Update(Kind),
    Patch(Kind),
    HistoryInstance(Kind),
    HistoryType(Kind),
    Delete(Kind),
    ConditionalCreate(Kind),
    ConditionalUpdate(Kind),
    ConditionalDelete(Kind),
    Search(Kind, Search),
    SearchPost(Kind),
    Paging(Kind),
    Parameter(Kind, &'a str, Option<&'static str>),
    Xml(Kind),
    Validate(Kind),
    Everything(Kind),
    RefusesMalformed(Kind),
    RefusesWrongType(Kind),
    RefusesUnknownId(Kind),
    RefusesOldVersion(Kind),
    RefusesUnknownType,
    RefusesMediaType,
    HistorySystem,
    Batch,
    Transaction,
    Rollback,
    Meta(Kind),
    MetaChange(Kind, &'static str),
    Export(&'static str),
    ExportResult,
}

/// One row to be.
#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    pub(super) name: String,
    pub(super) declared: bool,
    /// Tried even if it is not declared, because servers answer it without saying so.
    pub(super) always: bool,
    pub(super) expects: Expects,
    /// What of the declaration it reaches when it succeeds.
    pub(super) uses: Vec<Uses>,
    pub(super) action: Action<'a>,
}

/// Everything that is declared for the exercised types and the whole system.
pub(super) fn declared(capability: &Capability) -> BTreeSet<Uses> {
    let mut all = BTreeSet::new();
    for kind in Kind::ALL {
        let Some(of) = capability.types.get(kind.name()) else {
            continue;
        };
        all.extend(
            of.interactions
                .iter()
                .map(|i| Uses::Interaction(format!("{kind}.{i}"))),
        );
        all.extend(
            of.search
                .keys()
                .map(|p| Uses::Parameter(format!("{kind}.{p}"))),
        );
        all.extend(
            of.operations
                .iter()
                .map(|o| Uses::Operation(format!("{kind}.{o}"))),
        );
    }
    let system = &capability.system_interactions;
    all.extend(
        system
            .iter()
            .map(|i| Uses::Interaction(format!("system.{i}"))),
    );
    let system = &capability.system_operations;
    all.extend(
        system
            .iter()
            .map(|o| Uses::Operation(format!("system.{o}"))),
    );
    all
}

/// The list. All creates come first, so that references resolve; deletes touch nothing that later steps need. What only reads comes
/// last, between the request of the bulk export and its result: an export whose resources vanish meanwhile may fail, and
/// waiting for it costs nothing this way. Empty when none of the types is declared.
pub(super) fn steps(capability: &Capability) -> Vec<Step<'_>> {
    let types: Vec<(Kind, &TypeCapability)> = Kind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, capability.types.get(kind.name())?)))
        .collect();
    let mut list = List { steps: Vec::new() };
    for (kind, of) in &types {
        list.interaction(*kind, of, "create", "create", Action::Create(*kind));
    }
    for (kind, of) in &types {
        list.instance(*kind, of);
        list.conditional(*kind, of);
        list.meta(*kind, of);
        list.refusals(*kind, of);
    }
    if let Some((_, first)) = types.first() {
        list.system(capability, first);
        list.export(capability, |list| {
            for (kind, of) in &types {
                list.search(*kind, of);
                list.operations(*kind, of, capability);
            }
        });
    }
    list.steps
}

struct List<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> List<'a> {
    fn push(
        &mut self,
        group: &str,
        name: &str,
        declared: bool,
        uses: Vec<Uses>,
        action: Action<'a>,
    ) {
        self.steps.push(Step {
            name: format!("{group}.{name}"),
            declared,
            always: false,
            expects: if name.starts_with("refuses-") {
                Expects::Refusal
            } else {
                Expects::Success
            },
            uses,
            action,
        });
    }

    fn interaction(
        &mut self,
        kind: Kind,
        of: &TypeCapability,
        name: &str,
        code: &str,
        action: Action<'a>,
    ) {
        let uses = vec![Uses::Interaction(format!("{kind}.{code}"))];
        self.push(
            kind.name(),
            name,
            of.interactions.contains(code),
            uses,
            action,
        );
    }

    fn instance(&mut self, kind: Kind, of: &TypeCapability) {
        for (code, action) in [
            ("read", Action::Read(kind)),
            ("vread", Action::Vread(kind)),
            ("update", Action::Update(kind)),
            ("patch", Action::Patch(kind)),
            ("history-instance", Action::HistoryInstance(kind)),
            ("history-type", Action::HistoryType(kind)),
            ("delete", Action::Delete(kind)),
        ] {
            self.interaction(kind, of, code, code, action);
        }
    }

    fn conditional(&mut self, kind: Kind, of: &TypeCapability) {
        for (name, declared, action) in [
            (
                "conditional-create",
                of.conditional_create,
                Action::ConditionalCreate(kind),
            ),
            (
                "conditional-update",
                of.conditional_update,
                Action::ConditionalUpdate(kind),
            ),
            (
                "conditional-delete",
                of.conditional_delete,
                Action::ConditionalDelete(kind),
            ),
        ] {
            self.push(kind.name(), name, declared, Vec::new(), action);
        }
    }

    fn search(&mut self, kind: Kind, of: &'a TypeCapability) {
        let searchable = of.interactions.contains("search-type");
        let interaction = || Uses::Interaction(format!("{kind}.search-type"));
        for search in kind.searches() {
            let declared = of.search.contains_key(search.parameter)
                && (search.sort != "include" || includes(of, search.value));
            let uses = vec![
                interaction(),
                Uses::Parameter(format!("{kind}.{}", search.parameter)),
            ];
            let name = format!("search-{}", search.sort);
            self.push(
                kind.name(),
                &name,
                searchable && declared,
                uses,
                Action::Search(kind, *search),
            );
        }
        self.push(
            kind.name(),
            "search-post",
            searchable,
            vec![interaction()],
            Action::SearchPost(kind),
        );
        self.push(
            kind.name(),
            "paging",
            searchable,
            vec![interaction()],
            Action::Paging(kind),
        );
        for (parameter, sort) in &of.search {
            let uses = vec![
                interaction(),
                Uses::Parameter(format!("{kind}.{parameter}")),
            ];
            let action = Action::Parameter(kind, parameter, parameter_value(parameter, sort));
            self.push(
                kind.name(),
                &format!("parameter.{parameter}"),
                searchable,
                uses,
                action,
            );
        }
    }

    /// R4's operations on tags, security labels and profiles.
    fn meta(&mut self, kind: Kind, of: &TypeCapability) {
        for (name, action) in [
            ("meta", Action::Meta(kind)),
            ("meta-add", Action::MetaChange(kind, "meta-add")),
            ("meta-delete", Action::MetaChange(kind, "meta-delete")),
        ] {
            let uses = vec![Uses::Operation(format!("{kind}.{name}"))];
            self.push(
                kind.name(),
                &format!("${name}"),
                of.operations.contains(name),
                uses,
                action,
            );
        }
    }

    fn operations(&mut self, kind: Kind, of: &TypeCapability, capability: &Capability) {
        let xml = ["xml", "application/fhir+xml"]
            .iter()
            .any(|f| capability.formats.contains(*f));
        self.push(kind.name(), "read-xml", xml, Vec::new(), Action::Xml(kind));
        let uses = |name: &str| vec![Uses::Operation(format!("{kind}.{name}"))];
        let declared = of.operations.contains("validate");
        self.push(
            kind.name(),
            "$validate",
            declared,
            uses("validate"),
            Action::Validate(kind),
        );
        // R4 defines it for these two of the seven.
        if matches!(kind, Kind::Patient | Kind::Encounter) {
            let declared = of.operations.contains("everything");
            self.push(
                kind.name(),
                "$everything",
                declared,
                uses("everything"),
                Action::Everything(kind),
            );
        }
    }

    fn refusals(&mut self, kind: Kind, of: &TypeCapability) {
        let create = of.interactions.contains("create");
        let read = of.interactions.contains("read");
        let versions = of.versioning == "versioned-update" && of.interactions.contains("update");
        for (name, declared, action) in [
            ("refuses-malformed", create, Action::RefusesMalformed(kind)),
            ("refuses-wrong-type", create, Action::RefusesWrongType(kind)),
            ("refuses-unknown-id", read, Action::RefusesUnknownId(kind)),
            (
                "refuses-old-version",
                versions,
                Action::RefusesOldVersion(kind),
            ),
        ] {
            self.push(kind.name(), name, declared, Vec::new(), action);
        }
    }

    fn system(&mut self, capability: &Capability, first: &TypeCapability) {
        let declares = |code: &str| capability.system_interactions.contains(code);
        let uses = |code: &str| vec![Uses::Interaction(format!("system.{code}"))];
        self.push(
            "system",
            "history",
            declares("history-system"),
            uses("history-system"),
            Action::HistorySystem,
        );
        for (code, action) in [
            ("batch", Action::Batch),
            ("transaction", Action::Transaction),
        ] {
            self.push("system", code, declares(code), uses(code), action);
            if let Some(step) = self.steps.last_mut() {
                step.always = true;
            }
        }
        let rollback = declares("transaction") && first.versioning == "versioned-update";
        self.push(
            "system",
            "refuses-half-a-transaction",
            rollback,
            Vec::new(),
            Action::Rollback,
        );
        self.push(
            "system",
            "refuses-unknown-type",
            true,
            Vec::new(),
            Action::RefusesUnknownType,
        );
        self.push(
            "system",
            "refuses-media-type",
            true,
            Vec::new(),
            Action::RefusesMediaType,
        );
    }

    /// The export around what `meanwhile` adds.
    fn export(&mut self, capability: &Capability, meanwhile: impl FnOnce(&mut Self)) {
        let of_patients = capability
            .types
            .get("Patient")
            .is_some_and(|t| t.operations.contains("export"));
        let system = capability.system_operations.contains("export");
        let (path, used) = if of_patients && !system {
            ("Patient/$export", "Patient.export")
        } else {
            ("$export", "system.export")
        };
        let declared = system || of_patients;
        self.push(
            "system",
            "$export",
            declared,
            Vec::new(),
            Action::Export(path),
        );
        meanwhile(self);
        let uses = vec![Uses::Operation(used.to_owned())];
        self.push(
            "system",
            "$export-result",
            declared,
            uses,
            Action::ExportResult,
        );
    }
}

/// Servers write `Patient:organization`, `Patient.organization`, or `*`; some do not list them at all.
fn includes(of: &TypeCapability, value: &str) -> bool {
    of.includes.is_empty()
        || of.includes.contains(value)
        || of.includes.contains(&value.replace(':', "."))
        || of.includes.contains("*")
}
