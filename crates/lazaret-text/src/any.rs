//! Files that are one thing or another, for verbs that take both.

use crate::error::TextError;
use crate::{file, policy, profile};
use lazaret_core::format::policy::API_VERSION;
use lazaret_core::policy::{MAX_BYTES, Policy};
use lazaret_filter::oci::{Document, MAX_PROFILE_BYTES};
use std::path::Path;

/// What a file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A policy, in YAML or in its canonical form.
    Policy(Box<Policy>),
    /// A seccomp profile, in any of its forms.
    Profile(Box<Document>),
}

/// Reads a policy or a profile, whichever it is.
///
/// A profile is a JSON object with a field `defaultAction`, which every profile has and no policy. All else is read as a
/// policy, and refused as one.
///
/// # Errors
/// As [`policy::read`] or [`profile::read`].
pub fn read(path: &Path) -> Result<Input, TextError> {
    let text = file::read(path, "policy or profile", MAX_BYTES.max(MAX_PROFILE_BYTES))?;
    let (kind, result) = if is_profile(&text) {
        let read = profile::parse(&text).map(|read| Input::Profile(Box::new(read)));
        (profile::KIND, read)
    } else {
        let read = policy::parse(&text).map(|read| Input::Policy(Box::new(read)));
        (policy::KIND, read)
    };
    result.map_err(|problems| TextError::Problems {
        kind,
        path: path.to_path_buf(),
        problems,
    })
}

/// Whether it looks like a profile. A quoted `defaultAction` inside of a text of a policy has its quotes escaped in JSON.
pub(crate) fn is_profile(text: &str) -> bool {
    text.trim_start().starts_with('{') && text.contains("\"defaultAction\"")
}

/// Whether a text that is no profile looks like a policy.
pub(crate) fn is_policy(text: &str) -> bool {
    text.contains(API_VERSION)
}
