//! What a loader, runc or libseccomp ignores or bends of a profile.

use crate::abi::Abi;
use alloc::string::String;
use core::fmt;

/// A rule and one of its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index in `syscalls`.
    pub rule: usize,
    /// The name.
    pub call: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "syscalls[{}], call {}", self.rule, self.call)
    }
}

/// One thing that is not as the profile says, or not as it seems to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Note {
    /// The engine leaves the rule out on this host, because of `includes` or `excludes`.
    LeftOut {
        /// Index in `syscalls`.
        rule: usize,
        /// Which condition.
        because: String,
    },
    /// Docker does not know the field, podman does.
    PodmanOnly {
        /// Where.
        place: String,
    },
    /// podman does not know the field, Docker does.
    DockerOnly {
        /// Where.
        place: String,
    },
    /// Docker before 23.0 does not know the field.
    NewerDocker {
        /// Where.
        place: String,
    },
    /// `archMap` has no row for this host: only the host's own convention is served.
    NoArchitectureRow,
    /// libseccomp does not know the name: the rule has no effect.
    Unknown {
        /// The rule.
        place: Place,
    },
    /// No served convention has such a call: the rule has no effect.
    Absent {
        /// The rule.
        place: Place,
    },
    /// runc leaves the rule out: it says what the default action says.
    SaysDefault {
        /// The rule.
        place: Place,
    },
    /// A rule before it has fewer conditions: where both hold, that one counts, and libseccomp drops this one or a part.
    Covered {
        /// The rule.
        place: Place,
        /// Under this convention.
        abi: Abi,
    },
    /// libseccomp takes the rule for redundant and drops it.
    Redundant {
        /// The rule.
        place: Place,
        /// Under this convention.
        abi: Abi,
    },
    /// Two conditions name the same argument: runc makes a rule of each, so that any of them is enough.
    Alternatives {
        /// The rule.
        place: Place,
    },
    /// The rule also counts for the multiplexer, where the first argument is the call's number and others are not the call's.
    Multiplexed {
        /// The rule.
        place: Place,
        /// `socketcall` or `ipc`.
        through: &'static str,
    },
    /// Only the lower half of the value is compared.
    Narrowed {
        /// The rule.
        place: Place,
        /// The argument.
        arg: u8,
        /// The value.
        value: u64,
        /// Under this convention.
        abi: Abi,
    },
    /// A condition that looks at no bit always holds.
    NoBits {
        /// The rule.
        place: Place,
        /// The argument.
        arg: u8,
        /// Under this convention.
        abi: Abi,
    },
    /// `valueTwo` without a masked comparison is ignored.
    SecondValue {
        /// The rule.
        place: Place,
        /// The argument.
        arg: u8,
    },
    /// The bits of `valueTwo` outside the mask are ignored; the condition looks as if it never held.
    OutsideMask {
        /// The rule.
        place: Place,
        /// The argument.
        arg: u8,
    },
    /// `errnoRet` beside an action that has none is ignored.
    ErrnoIgnored {
        /// Index in `syscalls`; `None` for the default action.
        rule: Option<usize>,
    },
    /// runc cuts the number to 16 bits.
    ErrnoCut {
        /// Index in `syscalls`; `None` for the default action.
        rule: Option<usize>,
        /// As written.
        found: u32,
        /// As it arrives.
        kept: u16,
    },
    /// Flags do not change verdicts; runc before 1.2 refuses any.
    Flags,
    /// The host's convention is served though it is not listed.
    Native {
        /// It.
        abi: Abi,
    },
    /// runc answers ENOSYS from this number on, whatever the default action: the profile names none as large.
    NewerCalls {
        /// The convention.
        abi: Abi,
        /// The first of them; for x32 without its bit.
        from: u32,
    },
    /// The number -1, which a tracer uses to skip a call, gets the default action on x86-64; it would be one of x32.
    TracerSkip,
    /// libseccomp kills the thread for x86-64 numbers from 2^31 on, which no call has. A rule table has no word for a range of
    /// numbers: it says the default action there.
    HighNumbers,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule_or_default = |f: &mut fmt::Formatter<'_>, rule: &Option<usize>| match rule {
            Some(rule) => write!(f, "syscalls[{rule}]"),
            None => f.write_str("default action"),
        };
        match self {
            Note::LeftOut { rule, because } => {
                write!(f, "syscalls[{rule}] does not apply on this host: {because}")
            }
            Note::PodmanOnly { place } => write!(f, "{place} is ignored by Docker"),
            Note::DockerOnly { place } => write!(f, "{place} is ignored by podman"),
            Note::NewerDocker { place } => {
                write!(f, "{place} is ignored by Docker before 23.0")
            }
            Note::NoArchitectureRow => {
                f.write_str("archMap has no row for this host, only its own convention is served")
            }
            Note::Unknown { place } => {
                write!(f, "{place}: libseccomp does not know it, the rule is ignored")
            }
            Note::Absent { place } => write!(
                f,
                "{place}: no served architecture has it, the rule is ignored"
            ),
            Note::SaysDefault { place } => {
                write!(f, "{place}: says what the default action says, the rule is left out")
            }
            Note::Covered { place, abi } => write!(
                f,
                "{place}: a rule before it has fewer conditions and counts where both hold ({abi})"
            ),
            Note::Redundant { place, abi } => {
                write!(f, "{place}: libseccomp drops the rule as redundant ({abi})")
            }
            Note::Alternatives { place } => write!(
                f,
                "{place}: two conditions on one argument, any condition of the rule is enough"
            ),
            Note::Multiplexed { place, through } => write!(
                f,
                "{place}: on i386 also through {through}, where the conditions do not see the call's arguments"
            ),
            Note::Narrowed {
                place,
                arg,
                value,
                abi,
            } => write!(
                f,
                "{place}: only the lower 32 bits of {value:#x} are compared with argument {arg} ({abi})"
            ),
            Note::NoBits { place, arg, abi } => write!(
                f,
                "{place}: the condition on argument {arg} looks at no bit and always holds ({abi})"
            ),
            Note::SecondValue { place, arg } => {
                write!(f, "{place}: valueTwo of argument {arg} is ignored without a mask")
            }
            Note::OutsideMask { place, arg } => write!(
                f,
                "{place}: bits of valueTwo outside the mask of argument {arg} are ignored"
            ),
            Note::ErrnoIgnored { rule } => {
                rule_or_default(f, rule)?;
                f.write_str(": errnoRet is ignored, the action has none")
            }
            Note::ErrnoCut { rule, found, kept } => {
                rule_or_default(f, rule)?;
                write!(f, ": errnoRet {found} arrives as {kept}")
            }
            Note::Flags => f.write_str("flags do not change verdicts, and runc before 1.2 refuses them"),
            Note::Native { abi } => {
                write!(f, "calls of {abi} are served though the architecture is not listed")
            }
            Note::NewerCalls { abi, from } => write!(
                f,
                "runc answers ENOSYS for numbers from {from} on ({abi}), the profile names no newer call"
            ),
            Note::TracerSkip => {
                f.write_str("number -1 gets the default action, so that tracers can skip calls")
            }
            Note::HighNumbers => f.write_str(
                "libseccomp kills the thread for x86-64 numbers from 2^31 on, the table says the default action there",
            ),
        }
    }
}
