//! What can be wrong with a policy, and where.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One step from the root of the document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field.
    Field(&'static str),
    /// An element of a list.
    Index(usize),
}

/// Where in the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(pub Vec<Segment>);

impl Place {
    /// A field of the document.
    #[must_use]
    pub fn field(name: &'static str) -> Place {
        Place(alloc::vec![Segment::Field(name)])
    }

    /// A field below this place.
    #[must_use]
    pub fn at(&self, name: &'static str) -> Place {
        let mut path = self.0.clone();
        path.push(Segment::Field(name));
        Place(path)
    }

    /// An element below this place.
    #[must_use]
    pub fn index(&self, index: usize) -> Place {
        let mut path = self.0.clone();
        path.push(Segment::Index(index));
        Place(path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if nth == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Something wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub what: What,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// A fixed field with another value.
    #[error("`{found}` is not supported, expected {expected}")]
    Unsupported {
        /// What was written.
        found: String,
        /// What can be.
        expected: &'static str,
    },
    /// A name out of form.
    #[error(
        "`{found}` is no name: 1 to 128 characters of a-z, 0-9, `-`, `.` and `/`, beginning with a letter or digit"
    )]
    Name {
        /// What was written.
        found: String,
    },
    /// A text that is too long or holds control characters.
    #[error("the text has {chars} characters, at most {limit} printable ones are allowed")]
    Text {
        /// How long.
        chars: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Revisions count from 1.
    #[error("revision 0, revisions count from 1")]
    Revision,
    /// A list that needs an element.
    #[error("the list is empty")]
    Empty,
    /// Twice the same.
    #[error("`{name}` stands here twice")]
    Twice {
        /// What.
        name: String,
    },
    /// A list over its bound.
    #[error("{count} elements, at most {limit} are allowed")]
    TooMany {
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// No system call of this architecture.
    #[error("unknown system call `{name}` for {arch}{}", did_you_mean(near))]
    UnknownCall {
        /// The name.
        name: String,
        /// The architecture.
        arch: &'static str,
        /// The nearest name.
        near: Option<&'static str>,
    },
    /// A number where there is a name.
    #[error("number {nr} has a name, write `{name}`")]
    Named {
        /// The number.
        nr: u32,
        /// Its name.
        name: &'static str,
    },
    /// A number that carries x32's bit.
    #[error("{nr} is no number of a system call for {arch}")]
    Number {
        /// The number.
        nr: u32,
        /// The architecture.
        arch: &'static str,
    },
    /// A rule with several actions, or none.
    #[error("a rule has exactly one of `allow`, `ask` and `deny`")]
    OneAction,
    /// A field that does not go with the rule's action.
    #[error("`{field}` does not go with `{action}`")]
    NotWith {
        /// The field.
        field: &'static str,
        /// The rule's action.
        action: &'static str,
    },
    /// Two ways to say when.
    #[error("`until` and `during` exclude each other")]
    UntilAndDuring,
    /// A phase that cannot stand here.
    #[error("`{found}` cannot stand here, expected {expected}")]
    Phase {
        /// What was written.
        found: String,
        /// What can be.
        expected: &'static str,
    },
    /// The other way to say it is the one.
    #[error("write `until: {until}` instead")]
    WriteUntil {
        /// The phase.
        until: &'static str,
    },
    /// The phases of a rule say nothing.
    #[error("these are all phases, leave `during` out")]
    AllPhases,
    /// The errno is not one of those that programs expect.
    #[error("unknown errno `{found}`, expected EPERM, EACCES or ENOSYS")]
    Errno {
        /// What was written.
        found: String,
    },
    /// Not an argument of the call.
    #[error("`{call}` has no argument `{arg}`{known}{}", did_you_mean(near))]
    UnknownArg {
        /// The call.
        call: String,
        /// The argument.
        arg: String,
        /// Those it has, as `, it has a, b`.
        known: String,
        /// The nearest of them.
        near: Option<&'static str>,
    },
    /// One argument, two conditions: the runtimes turn that into OR.
    #[error("two conditions on argument `{arg}`: join them in one mask and list")]
    ArgTwice {
        /// The argument.
        arg: String,
    },
    /// No constant of this name for the argument.
    #[error(
        "unknown constant `{name}` for argument `{arg}` of `{call}`{}",
        did_you_mean(near)
    )]
    UnknownConstant {
        /// The constant.
        name: String,
        /// The argument.
        arg: String,
        /// The call.
        call: String,
        /// The nearest one.
        near: Option<&'static str>,
    },
    /// A value with bits outside the mask or the argument's width can never hold.
    #[error("value {value:#x} has bits outside the mask {mask:#x}, the condition could never hold")]
    OutsideMask {
        /// The value.
        value: u64,
        /// The mask, cut to the width.
        mask: u64,
    },
    /// A range that ends before it begins.
    #[error("the range from {from:#x} to {to:#x} is empty")]
    EmptyRange {
        /// Its first value.
        from: u64,
        /// Its last.
        to: u64,
    },
    /// A range of one value.
    #[error("a range of one value, write {value:#x} instead")]
    OneValue {
        /// The value.
        value: u64,
    },
    /// A value that is in the list twice.
    #[error("value {value:#x} is in element {other} of the list already")]
    Overlap {
        /// The value.
        value: u64,
        /// The other element.
        other: usize,
    },
    /// A range that could be longer.
    #[error(
        "this and element {other} of the list touch, write one range from {from:#x} to {to:#x} instead"
    )]
    Touch {
        /// The other element.
        other: usize,
        /// The first value of both.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A condition that says nothing.
    #[error("the condition holds for every value, leave it out")]
    AlwaysHolds,
    /// A mask that compares nothing or more than there is.
    #[error("mask {mask:#x} does not fit an argument of {width} bits")]
    Mask {
        /// The mask.
        mask: u64,
        /// The width.
        width: u32,
    },
    /// A call both allowed and denied.
    #[error("`{name}` is denied by rules[{other}] and allowed here")]
    Contradiction {
        /// The call.
        name: String,
        /// The other rule.
        other: usize,
    },
    /// A call that the kernel allows by its number and that the gate is to see.
    #[error(
        "`{name}` is asked here, and allowed by rules[{other}] in every phase whatever its arguments: the kernel would never ask"
    )]
    NeverAsked {
        /// The call.
        name: String,
        /// The other rule.
        other: usize,
    },
    /// A call denied twice.
    #[error("`{name}` is denied already by rules[{other}]")]
    DeniedTwice {
        /// The call.
        name: String,
        /// The other rule.
        other: usize,
    },
    /// An allow under the ceiling.
    #[error("`{name}` is under the ceiling: no rule can allow it")]
    UnderCeiling {
        /// The call.
        name: String,
    },
    /// A named ceiling that does not exist.
    #[error("unknown ceiling `{found}`, the named one is `default`")]
    UnknownCeiling {
        /// What was written.
        found: String,
    },
    /// A duration out of form or bound.
    #[error("`{found}` is no duration from 0s to 86400s, as `10s` or `500ms`")]
    Duration {
        /// What was written.
        found: String,
    },
    /// A port, path or status out of form.
    #[error("{found} is no {wanted}")]
    Http {
        /// What was written.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Several triggers, or none.
    #[error("`when` has exactly one of `http`, `tcp`, `health` and `quiet`")]
    OneTrigger,
    /// A time without which its field says nothing.
    #[error("0 is no time to wait for, write at least `1ms`")]
    NoTime,
    /// A quiet time that would always be over at once.
    #[error(
        "no rule allows a call in startup that serving denies: there is nothing to be quiet about, end some with `until: serving`"
    )]
    NeverQuiet,
    /// A health check that could not run.
    #[error("the engine runs its health check as an exec, and `phases.exec.start` refuses those")]
    HealthNeedsExec,
    /// More restarts than make sense.
    #[error("{count} restarts, at most {limit} are allowed")]
    Restarts {
        /// How many.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
    /// After a restart nothing would end the startup.
    #[error(
        "`restarts` needs `phases.serving`: after a restart nothing else would end the startup"
    )]
    RestartsByHand,
    /// A restart that could not be told from anything else, or could not begin.
    #[error(
        "`restarts` needs a rule that allows `execve` or `execveat` in startup and none that allows it in serving: by that call a restart is seen"
    )]
    NeverRestarts,
    /// The oldest kernel out of form or too old.
    #[error("`{found}` is no kernel bound, expected `>=MAJOR.MINOR` of at least 5.11")]
    Kernel {
        /// What was written.
        found: String,
    },
    /// A call that must be allowed in every phase.
    #[error("`{name}` must be allowed in every phase without conditions: {why}")]
    Missing {
        /// The call.
        name: &'static str,
        /// Why.
        why: &'static str,
    },
}

/// A policy that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Too large to read.
    #[error("policy has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Not of the form at all.
    #[error("policy is not of the form: {problem}")]
    Shape {
        /// What the reader found.
        problem: String,
    },
    /// The bytes are not those that were hashed.
    #[error("policy is not in canonical form")]
    NotCanonical,
    /// Problems of meaning, all that were found.
    #[error("{}", list(problems))]
    Problems {
        /// In the order of the document; never empty.
        problems: Vec<Problem>,
    },
}

fn did_you_mean(near: &Option<&'static str>) -> String {
    near.map_or_else(String::new, |near| {
        alloc::format!(", did you mean `{near}`?")
    })
}

fn list(problems: &[Problem]) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    for (nth, problem) in problems.iter().enumerate() {
        let separator = if nth == 0 { "" } else { "; " };
        if write!(text, "{separator}{problem}").is_err() {
            return text;
        }
    }
    text
}
