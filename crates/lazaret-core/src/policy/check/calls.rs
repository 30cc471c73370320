//! Lists of calls: names and numbers, resolved for one architecture.

use super::super::near::nearest;
use super::super::problem::{Place, What};
use super::Reader;
use crate::format::policy::CallV1;
use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::table;

/// Most calls of one list; every table has fewer.
const MAX_CALLS: usize = 1024;

/// What a list of calls is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A name that this architecture does not have allows nothing.
    Allowing,
    /// A name that this architecture does not have would leave something open.
    Closing,
}

/// A call of a list.
pub(super) struct Named<'n> {
    pub(super) place: Place,
    /// Its name, or its number where it has none.
    pub(super) name: Cow<'n, str>,
    pub(super) nr: u32,
}

impl Reader {
    /// Resolves calls; unknown names are problems, or (where they can only allow) noted.
    pub(super) fn calls<'n>(
        &mut self,
        place: &Place,
        calls: &'n [CallV1],
        abi: Abi,
        purpose: Use,
    ) -> Vec<Named<'n>> {
        self.bounded(place, calls.len(), MAX_CALLS);
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            let at = place.index(index);
            if !seen.insert(call) {
                let name = call.to_string();
                self.problem(at, What::Twice { name });
                continue;
            }
            let resolved = match call {
                CallV1::Number(nr) => self.number(&at, *nr, abi),
                CallV1::Name(name) => self.name_of_call(&at, name, abi, purpose),
            };
            if let Some(nr) = resolved {
                let name = match call {
                    CallV1::Number(nr) => Cow::Owned(nr.to_string()),
                    CallV1::Name(name) => Cow::Borrowed(name.as_str()),
                };
                found.push(Named {
                    place: at,
                    name,
                    nr,
                });
            }
        }
        found
    }

    /// A number stands only where the tables have no name: one way to write each call.
    fn number(&mut self, at: &Place, nr: u32, abi: Abi) -> Option<u32> {
        let what = match table::name_of(abi, nr) {
            Some(name) => What::Named { nr, name },
            // x32's bit makes it a call of another convention, which the policy closes
            None if Abi::of(abi.audit_arch(), nr) != Some((abi, nr)) => What::Number {
                nr,
                arch: abi.name(),
            },
            None => return Some(nr),
        };
        self.problem(at.clone(), what);
        None
    }

    fn name_of_call(&mut self, at: &Place, name: &str, abi: Abi, purpose: Use) -> Option<u32> {
        if let Some(nr) = table::nr_of(abi, name) {
            return Some(nr);
        }
        // a name of another architecture allows nothing here; one that nobody knows is a slip of the pen
        let elsewhere = Abi::ALL
            .iter()
            .any(|other| table::nr_of(*other, name).is_some());
        if elsewhere && purpose == Use::Allowing {
            self.unresolved.insert(name.to_string());
            return None;
        }
        let near = nearest(name, table::calls(abi).map(|(_, name)| name));
        let what = What::UnknownCall {
            name: name.chars().take(80).collect(),
            arch: abi.name(),
            near,
        };
        self.problem(at.clone(), what);
        None
    }
}
