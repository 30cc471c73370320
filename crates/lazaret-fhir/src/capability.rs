//! What a server declares: its CapabilityStatement, read from `[base]/metadata`, reduced to what can be exercised.
//!
//! The document is another program's and may hold anything, so unknown fields are skipped; what is needed must be there and
//! of the right kind, else the server is refused as *not FHIR* in one sentence.

use crate::base::Base;
use crate::client::{Call, Client, TransportError, excerpt};
use core::time::Duration;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// `[base]/metadata` is not the CapabilityStatement of a FHIR R4 server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// No answer, or one larger than 16 MiB.
    #[error("cannot read the CapabilityStatement")]
    Transport(#[from] TransportError),
    /// Another status than 200.
    #[error("{url} answers {status} instead of 200, with {content_type}: {found}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// Its `Content-Type`, or `no content type`.
        content_type: String,
        /// The body's start.
        found: String,
    },
    /// Not JSON.
    #[error("{url} is not FHIR: it answers {content_type} that is not JSON: {found}")]
    NotJson {
        /// What was asked.
        url: String,
        /// Its `Content-Type`, or `no content type`.
        content_type: String,
        /// The body's start.
        found: String,
    },
    /// JSON of another kind.
    #[error("{url} is not FHIR: resourceType is {found}, not CapabilityStatement")]
    WrongResource {
        /// What was asked.
        url: String,
        /// The `resourceType`, or `missing`.
        found: String,
    },
    /// A CapabilityStatement whose parts are not as FHIR R4 has them.
    #[error("{url} is a CapabilityStatement that cannot be read")]
    Malformed {
        /// What was asked.
        url: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Another release of FHIR.
    #[error("{url} declares FHIR {found}; the exercise speaks FHIR 4 (R4, R4B)")]
    Release {
        /// What was asked.
        url: String,
        /// The `fhirVersion`.
        found: String,
    },
    /// No `rest` entry of mode `server`.
    #[error("{url} declares no REST server")]
    NoServer {
        /// What was asked.
        url: String,
    },
}

/// What a server declares for one resource type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeCapability {
    /// Codes as `read`, `search-type`.
    pub interactions: BTreeSet<String>,
    /// `no-version`, `versioned` or `versioned-update`; empty when not said.
    pub versioning: String,
    /// `If-None-Exist` on create.
    pub conditional_create: bool,
    /// PUT with search parameters.
    pub conditional_update: bool,
    /// DELETE with search parameters.
    pub conditional_delete: bool,
    /// Search parameter → its kind, as `token`.
    pub search: BTreeMap<String, String>,
    /// Values of `_include`, as `Encounter:subject`.
    pub includes: BTreeSet<String>,
    /// Operations without the dollar sign.
    pub operations: BTreeSet<String>,
}

/// What a server declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// `fhirVersion`, as `4.0.1`.
    pub fhir_version: String,
    /// Software name and version, as `HAPI FHIR Server 8.8.0`; `unnamed` when not said.
    pub software: String,
    /// Formats as declared, codes or media types.
    pub formats: BTreeSet<String>,
    /// Media types of PATCH; empty when not said.
    pub patch_formats: BTreeSet<String>,
    /// Resource type → what is declared for it.
    pub types: BTreeMap<String, TypeCapability>,
    /// Whole-system codes, as `transaction`.
    pub system_interactions: BTreeSet<String>,
    /// Whole-system operations without the dollar sign.
    pub system_operations: BTreeSet<String>,
}

/// Asks `base` what it can do. `timeout` holds for the whole answer.
///
/// # Errors
/// There is no answer in time, it is larger than 16 MiB, or not the CapabilityStatement of a FHIR 4 server.
pub fn fetch(base: &Base, timeout: Duration) -> Result<Capability, CapabilityError> {
    read(&Client::new(base.clone(), timeout))
}

pub(crate) fn read(client: &Client) -> Result<Capability, CapabilityError> {
    let url = client.base().url("metadata");
    let answer = client.send(Call::get(url.clone()))?;
    if answer.status != 200 {
        return Err(CapabilityError::Status {
            url,
            status: answer.status,
            content_type: named(&answer.content_type),
            found: excerpt(&answer.body),
        });
    }
    parse(&url, &answer.content_type, &answer.body)
}

/// Reads the body of an answer to `[base]/metadata`. `url` and `content_type` are for messages only: what counts is the body.
///
/// # Errors
/// It is not the CapabilityStatement of a FHIR 4 server.
pub fn parse(url: &str, content_type: &str, body: &[u8]) -> Result<Capability, CapabilityError> {
    let url = || url.to_owned();
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| CapabilityError::NotJson {
            url: url(),
            content_type: named(content_type),
            found: excerpt(body),
        })?;
    match value.get("resourceType").and_then(|v| v.as_str()) {
        Some("CapabilityStatement") => {}
        found => {
            let found = found.map_or("missing".to_owned(), |f| {
                format!("`{}`", excerpt(f.as_bytes()))
            });
            return Err(CapabilityError::WrongResource { url: url(), found });
        }
    }
    let statement = wire::Statement::deserialize(value)
        .map_err(|source| CapabilityError::Malformed { url: url(), source })?;
    if !statement.fhir_version.starts_with("4.") {
        return Err(CapabilityError::Release {
            url: url(),
            found: statement.fhir_version,
        });
    }
    let rest = statement.rest.into_iter().find(|r| r.mode == "server");
    let rest = rest.ok_or_else(|| CapabilityError::NoServer { url: url() })?;
    let software = statement.software.map(|s| match s.version {
        Some(version) => format!("{} {version}", s.name),
        None => s.name,
    });
    Ok(Capability {
        fhir_version: statement.fhir_version,
        software: software.unwrap_or_else(|| "unnamed".to_owned()),
        formats: statement.format.into_iter().collect(),
        patch_formats: statement.patch_format.into_iter().collect(),
        types: rest
            .resource
            .into_iter()
            .map(wire::Resource::reduce)
            .collect(),
        system_interactions: codes(rest.interaction),
        system_operations: rest.operation.into_iter().map(|o| o.name).collect(),
    })
}

fn named(content_type: &str) -> String {
    if content_type.is_empty() {
        "no content type".to_owned()
    } else {
        format!("`{content_type}`")
    }
}

fn codes(list: Vec<wire::Code>) -> BTreeSet<String> {
    list.into_iter().map(|c| c.code).collect()
}

/// <https://hl7.org/fhir/R4/capabilitystatement.html>, as far as it is used.
mod wire {
    use super::{TypeCapability, codes};
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Statement {
        pub(super) fhir_version: String,
        pub(super) software: Option<Software>,
        #[serde(default)]
        pub(super) format: Vec<String>,
        #[serde(default)]
        pub(super) patch_format: Vec<String>,
        #[serde(default)]
        pub(super) rest: Vec<Rest>,
    }

    #[derive(Deserialize)]
    pub(super) struct Software {
        pub(super) name: String,
        pub(super) version: Option<String>,
    }

    #[derive(Deserialize)]
    pub(super) struct Rest {
        pub(super) mode: String,
        #[serde(default)]
        pub(super) resource: Vec<Resource>,
        #[serde(default)]
        pub(super) interaction: Vec<Code>,
        #[serde(default)]
        pub(super) operation: Vec<Named>,
    }

    #[derive(Deserialize)]
    pub(super) struct Code {
        pub(super) code: String,
    }

    #[derive(Deserialize)]
    pub(super) struct Named {
        pub(super) name: String,
    }

    #[derive(Deserialize)]
    pub(super) struct SearchParam {
        name: String,
        #[serde(rename = "type")]
        kind: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Resource {
        #[serde(rename = "type")]
        name: String,
        #[serde(default)]
        interaction: Vec<Code>,
        #[serde(default)]
        versioning: String,
        #[serde(default)]
        conditional_create: bool,
        #[serde(default)]
        conditional_update: bool,
        #[serde(default)]
        conditional_delete: String,
        #[serde(default)]
        search_param: Vec<SearchParam>,
        #[serde(default)]
        search_include: Vec<String>,
        #[serde(default)]
        operation: Vec<Named>,
    }

    impl Resource {
        pub(super) fn reduce(self) -> (String, TypeCapability) {
            let reduced = TypeCapability {
                interactions: codes(self.interaction),
                versioning: self.versioning,
                conditional_create: self.conditional_create,
                conditional_update: self.conditional_update,
                conditional_delete: matches!(
                    self.conditional_delete.as_str(),
                    "single" | "multiple"
                ),
                search: self
                    .search_param
                    .into_iter()
                    .map(|p| (p.name, p.kind))
                    .collect(),
                includes: self.search_include.into_iter().collect(),
                operations: self.operation.into_iter().map(|o| o.name).collect(),
            };
            (self.name, reduced)
        }
    }
}
