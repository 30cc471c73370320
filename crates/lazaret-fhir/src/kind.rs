//! The seven resource types that are exercised, and what is searched and changed in each.

use core::fmt;

/// A resource type, in the order in which they must be created so that references resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An organization.
    Organization,
    /// A practitioner.
    Practitioner,
    /// A patient.
    Patient,
    /// An encounter.
    Encounter,
    /// A condition.
    Condition,
    /// An observation.
    Observation,
    /// A bundle that is stored as such.
    Bundle,
}

/// Where a search by one sort of parameter finds this run's resources.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// The sort of search, as in the row's name.
    pub(crate) sort: &'static str,
    /// The parameter that must be declared.
    pub(crate) parameter: &'static str,
    /// What is written before the equals sign: the parameter with its modifier or chain.
    pub(crate) written: &'static str,
    /// The value. `{family}` and the like are filled in by `exercise::search`.
    pub(crate) value: &'static str,
}

const fn search(
    sort: &'static str,
    parameter: &'static str,
    written: &'static str,
    value: &'static str,
) -> Search {
    Search {
        sort,
        parameter,
        written,
        value,
    }
}

impl Kind {
    /// All of them, in order of creation.
    pub const ALL: [Self; 7] = [
        Self::Organization,
        Self::Practitioner,
        Self::Patient,
        Self::Encounter,
        Self::Condition,
        Self::Observation,
        Self::Bundle,
    ];

    /// FHIR's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organization => "Organization",
            Self::Practitioner => "Practitioner",
            Self::Patient => "Patient",
            Self::Encounter => "Encounter",
            Self::Condition => "Condition",
            Self::Observation => "Observation",
            Self::Bundle => "Bundle",
        }
    }

    /// Searches that find at least one of the resources that the run has created, by sort of parameter.
    /// <https://hl7.org/fhir/R4/searchparameter-registry.html>
    pub(crate) const fn searches(self) -> &'static [Search] {
        const TOKEN: Search = search("token", "identifier", "identifier", "{identifier}");
        const UPDATED: Search = search("date", "_lastUpdated", "_lastUpdated", "gt2000-01-01");
        match self {
            Self::Organization => {
                const {
                    &[
                        search("string", "name", "name", "{text}"),
                        TOKEN,
                        UPDATED,
                        search("reference", "partof", "partof", "{organization}"),
                        search(
                            "chained",
                            "partof",
                            "partof:Organization.name",
                            "{organization.name}",
                        ),
                        search("include", "partof", "_include", "Organization:partof"),
                        search("sort", "name", "_sort", "name"),
                    ]
                }
            }
            Self::Practitioner => {
                const {
                    &[
                        search("string", "family", "family", "{text}"),
                        TOKEN,
                        UPDATED,
                        search("sort", "family", "_sort", "family"),
                    ]
                }
            }
            Self::Patient => {
                const {
                    &[
                        search("string", "family", "family", "{text}"),
                        TOKEN,
                        search("date", "birthdate", "birthdate", "ge1900-01-01"),
                        search(
                            "reference",
                            "organization",
                            "organization",
                            "{organization}",
                        ),
                        search(
                            "chained",
                            "organization",
                            "organization:Organization.name",
                            "{organization.name}",
                        ),
                        search(
                            "include",
                            "organization",
                            "_include",
                            "Patient:organization",
                        ),
                        search("sort", "birthdate", "_sort", "birthdate"),
                    ]
                }
            }
            Self::Encounter => {
                const {
                    &[
                        TOKEN,
                        search("date", "date", "date", "ge2000-01-01"),
                        search("quantity", "length", "length", "gt1"),
                        search("reference", "subject", "subject", "{patient}"),
                        search(
                            "chained",
                            "subject",
                            "subject:Patient.family",
                            "{patient.name}",
                        ),
                        search("include", "subject", "_include", "Encounter:subject"),
                        search("sort", "date", "_sort", "date"),
                    ]
                }
            }
            Self::Condition => {
                const {
                    &[
                        search("string", "abatement-string", "abatement-string", "healed"),
                        TOKEN,
                        search("date", "onset-date", "onset-date", "ge2000-01-01"),
                        search("quantity", "onset-age", "onset-age", "gt1"),
                        search("reference", "subject", "subject", "{patient}"),
                        search(
                            "chained",
                            "subject",
                            "subject:Patient.family",
                            "{patient.name}",
                        ),
                        search("include", "subject", "_include", "Condition:subject"),
                        search("sort", "recorded-date", "_sort", "recorded-date"),
                    ]
                }
            }
            Self::Observation => {
                const {
                    &[
                        search("string", "value-string", "value-string", "calm"),
                        TOKEN,
                        search("date", "date", "date", "ge2000-01-01"),
                        search("quantity", "value-quantity", "value-quantity", "gt1"),
                        search("reference", "subject", "subject", "{patient}"),
                        search(
                            "chained",
                            "subject",
                            "subject:Patient.family",
                            "{patient.name}",
                        ),
                        search("include", "subject", "_include", "Observation:subject"),
                        search("sort", "date", "_sort", "date"),
                    ]
                }
            }
            Self::Bundle => {
                const {
                    &[
                        TOKEN,
                        search("date", "timestamp", "timestamp", "ge2000-01-01"),
                        search("sort", "timestamp", "_sort", "timestamp"),
                    ]
                }
            }
        }
    }

    /// JSON pointer of the value that the search of sort `sort` orders by.
    pub(crate) const fn sorted_by(self) -> &'static str {
        match self {
            Self::Organization => "/name",
            Self::Practitioner => "/name/0/family",
            Self::Patient => "/birthDate",
            Self::Encounter => "/period/start",
            Self::Condition => "/recordedDate",
            Self::Observation => "/effectiveDateTime",
            Self::Bundle => "/timestamp",
        }
    }

    /// JSON pointer of a value, what the update writes there, and what the patch writes there.
    pub(crate) fn change(self) -> (&'static str, [serde_json::Value; 2]) {
        match self {
            Self::Organization | Self::Practitioner | Self::Patient => {
                ("/active", [false.into(), true.into()])
            }
            Self::Encounter => ("/status", ["in-progress".into(), "finished".into()]),
            Self::Condition => ("/recordedDate", ["2021-03-04".into(), "2021-03-05".into()]),
            Self::Observation => ("/status", ["amended".into(), "corrected".into()]),
            Self::Bundle => (
                "/timestamp",
                ["2021-03-04T05:06:07Z".into(), "2021-03-05T06:07:08Z".into()],
            ),
        }
    }

    /// A reverse chain (`_has`) that the type's own references make possible.
    pub(crate) const fn reverse_chain(self) -> Option<&'static str> {
        match self {
            Self::Organization => Some("_has:Patient:organization:family"),
            Self::Practitioner => Some("_has:Encounter:participant:status"),
            Self::Patient => Some("_has:Observation:subject:status"),
            Self::Encounter => Some("_has:Observation:encounter:status"),
            Self::Condition => Some("_has:Encounter:diagnosis:status"),
            Self::Observation => Some("_has:Observation:has-member:status"),
            Self::Bundle => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}
