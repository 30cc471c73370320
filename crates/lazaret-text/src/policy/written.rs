//! A policy together with the text that it was read from, to show where something stands.

use super::{KIND, locate, refused};
use crate::error::{Finding, TextError};
use crate::source::Source;
use crate::{file, shape, tree};
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::policy::{MAX_BYTES, Place, Policy, Written};
use std::path::Path;

/// A policy and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    text: String,
    wire: PolicyV1,
    policy: Policy,
}

impl Text {
    /// Reads and checks a policy text.
    ///
    /// # Errors
    /// As [`super::read`].
    pub fn read(path: &Path) -> Result<Text, TextError> {
        let text = file::read(path, KIND, MAX_BYTES)?;
        let problems = |problems| refused(path, &text, problems);
        let policy = super::parse(&text).map_err(problems)?;
        let root = tree::parse(&text).map_err(problems)?;
        let source = Source::new(&text);
        // it was read so a moment ago
        let wire = shape::value(source, &root)
            .map_err(|_| {
                source
                    .finding(0, String::new(), "the text has no form")
                    .into()
            })
            .map_err(problems)?;
        Ok(Text { text, wire, policy })
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Something to say of a place in the canonical text, shown where it stands in this one.
    #[must_use]
    pub fn finding(&self, canonical: &Place, what: &str) -> Finding {
        let place = Written::new(&self.policy, &self.wire).place(canonical);
        // read before, so there is a tree; without one the begin of the text is as good as any place
        let offset = tree::parse(&self.text).map_or(0, |root| locate(&root, &place).start);
        Source::new(&self.text).finding(offset, place.to_string(), what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn places_are_those_of_the_text() {
        let text = "apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {name: t, revision: 3}
image: {name: t, digests: [\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]}
environment: {arch: x86_64, runtimes: [runc 1.1.5], kernel: \">=5.11\", noNewPrivileges: true}
mode: enforce
ceiling: default
otherwise: {action: errno, errno: EPERM}
rules:
  - allow: [write, exit, exit_group, restart_syscall, rt_sigreturn, read]
    why: required
  - allow: [getpid, bind]
    why: its own
";
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let read = Text::read(file.path()).expect("a policy");
        // in canonical order `bind` comes first, in its rule and among the rules
        let place = Place::field("rules").index(0).at("allow").index(0);
        let found = read.finding(&place, "here");
        assert_eq!((found.line, found.column), (12, 21));
        assert_eq!(found.place, "rules[1].allow[1]");
        let found = read.finding(&Place::field("evidence"), "nowhere");
        assert_eq!((found.line, found.column), (1, 1));
    }
}
