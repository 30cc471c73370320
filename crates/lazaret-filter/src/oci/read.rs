//! Reads seccomp profiles: the `linux.seccomp` object of the OCI runtime specification, and the supersets of it that Docker
//! (moby `profiles/seccomp`) and podman (containers/common `pkg/seccomp`) load.
//!
//! Stricter than the engines, which ignore fields that they do not know: a misspelt `excludes` must not vanish. What a profile
//! means on a host is [`Document::resolve`].

use super::json::{self, Node, Object, Placed};
use super::note::Note;
use super::{Action, Architecture, OciArg, OciSyscall, errno};
use crate::abi::Abi;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// The largest profile that is read; Docker's has 16 KiB.
pub const MAX_PROFILE_BYTES: usize = 1 << 20;

/// How deep lists and objects may lie in each other; a profile needs five.
pub const MAX_DEPTH: usize = 16;

/// Why a profile is not read, or means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OciReadError {
    /// [`MAX_PROFILE_BYTES`].
    #[error("profile has {found} bytes, the limit is {MAX_PROFILE_BYTES}")]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// [`MAX_DEPTH`].
    #[error(
        "lists and objects of the profile lie {found} deep in each other, the limit is {MAX_DEPTH}"
    )]
    TooDeep {
        /// How deep.
        found: usize,
    },
    /// No JSON.
    #[error("line {line}, column {column}: {what}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
        /// The parser's words.
        what: String,
    },
    /// A field that no engine has.
    #[error("{place} is not a field that Docker, podman or the OCI specification know")]
    Unknown {
        /// Where.
        place: String,
    },
    /// A field that is there twice.
    #[error("{place} is there twice")]
    Twice {
        /// Where.
        place: String,
    },
    /// A field that must be there.
    #[error("{place} is missing")]
    Missing {
        /// Where.
        place: String,
    },
    /// A value of the wrong kind.
    #[error("{place} is {found}, expected {expected}")]
    Kind {
        /// Where.
        place: String,
        /// What must be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A number that is too large.
    #[error("{place} is {found}, the limit is {limit}")]
    Number {
        /// Where.
        place: String,
        /// The number.
        found: u64,
        /// The largest one.
        limit: u64,
    },
    /// An action, operator, architecture, errno or kernel version that does not exist.
    #[error("{place}: `{found}` is not known")]
    Word {
        /// Where.
        place: String,
        /// The word, shortened.
        found: String,
    },
    /// Two fields that say the same thing differently.
    #[error("{first} and {second} exclude each other")]
    Both {
        /// One place.
        first: String,
        /// The other.
        second: String,
    },
    /// `errno` wins with podman, `errnoRet` with Docker.
    #[error("{place} is not the errno that errnoRet says")]
    Errno {
        /// Where the name is.
        place: String,
    },
    /// runc refuses it.
    #[error("unnamed calls cannot be asked, runc refuses SCMP_ACT_NOTIFY as the default")]
    DefaultAsk,
    /// runc refuses it.
    #[error("call write cannot be asked, runc refuses SCMP_ACT_NOTIFY for it")]
    WriteAsk,
    /// libseccomp refuses it.
    #[error("errno {errno} is too large, libseccomp takes 4094 at most")]
    ErrnoLimit {
        /// Index in `syscalls`; `None` for the default action.
        rule: Option<usize>,
        /// As it arrives.
        errno: u16,
    },
    /// runc refuses it.
    #[error("syscalls[{rule}] has an empty name, runc refuses it")]
    EmptyName {
        /// Index in `syscalls`.
        rule: usize,
    },
    /// runc refuses it.
    #[error("syscalls[{rule}] compares argument {index}, the last is 5")]
    Argument {
        /// Index in `syscalls`.
        rule: usize,
        /// The argument's.
        index: u8,
    },
    /// An architecture that is served and cannot be described.
    #[error(
        "architecture {architecture:?} has no call table here, so its calls cannot be described"
    )]
    Architecture {
        /// It.
        architecture: Architecture,
    },
    /// libseccomp then takes all numbers from x32's first on, a rule table would not.
    #[error("x32 without x86-64 cannot be described")]
    X32Alone,
    /// libseccomp answers EEXIST.
    #[error(
        "libseccomp refuses syscalls[{rule}]: under {abi}, an earlier rule for call {call} gives the same arguments another action"
    )]
    Conflict {
        /// The name.
        call: String,
        /// Index in `syscalls`.
        rule: usize,
        /// The convention.
        abi: Abi,
    },
    /// libseccomp would change a part of its tree that two places share, which makes rules hold where they should not, or never
    /// comes to an end.
    #[error(
        "what libseccomp makes of syscalls[{rule}] with earlier rules for call {call} is an accident ({abi}); give each range of an argument its own rule without further conditions"
    )]
    Tangled {
        /// The name.
        call: String,
        /// Index in `syscalls`.
        rule: usize,
        /// The convention.
        abi: Abi,
    },
    /// A bug of libseccomp: its filter compares one half of an argument where it means another.
    #[error(
        "libseccomp's filter would mix up the halves of arguments in its tests for call {call} ({abi})"
    )]
    WrongWord {
        /// The name.
        call: String,
        /// The convention.
        abi: Abi,
    },
    /// A bug of libseccomp: its filter compares the architecture where it means the number.
    #[error(
        "libseccomp's filter for {abi} would not look at the number: each rule for a call that {abi} has is conditional, and others are for calls that it lacks"
    )]
    NumberNotLoaded {
        /// The convention.
        abi: Abi,
    },
    /// More tests than a filter has instructions.
    #[error("call {call} has too many conditional rules for a filter of 4096 instructions")]
    TooManyRules {
        /// The name.
        call: String,
    },
}

/// A profile as it is written, for any host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub(super) default_action: Action,
    pub(super) default_errno: Option<u32>,
    pub(super) architectures: Vec<Architecture>,
    pub(super) arch_map: Vec<ArchitectureRow>,
    pub(super) flags: Vec<String>,
    pub(super) listener_path: Option<String>,
    pub(super) listener_metadata: Option<String>,
    pub(super) rules: Vec<DocumentRule>,
    pub(super) notes: Vec<Note>,
}

/// A row of `archMap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchitectureRow {
    pub(super) architecture: Architecture,
    pub(super) sub_architectures: Vec<Architecture>,
}

/// One of `syscalls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DocumentRule {
    pub(super) syscall: OciSyscall,
    pub(super) includes: Filter,
    pub(super) excludes: Filter,
}

/// On which hosts a rule counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) capabilities: Vec<String>,
    pub(super) architectures: Vec<String>,
    pub(super) min_kernel: Option<(u16, u16)>,
}

/// Reads a profile, in any of the forms.
///
/// # Guarantees
/// Memory stays within a small multiple of [`MAX_PROFILE_BYTES`]. Every field of the text is used or refused.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(bytes: &[u8]) -> Result<Document, OciReadError> {
    if bytes.len() > MAX_PROFILE_BYTES {
        return Err(OciReadError::TooLarge { found: bytes.len() });
    }
    let found = json::depth(bytes);
    if found > MAX_DEPTH {
        return Err(OciReadError::TooDeep { found });
    }
    let root: Node = serde_json::from_slice(bytes).map_err(|error| OciReadError::Json {
        line: error.line(),
        column: error.column(),
        what: error.to_string(),
    })?;
    document(Placed::root(root).object()?)
}

fn document(mut root: Object) -> Result<Document, OciReadError> {
    let mut notes = Vec::new();
    let default_action = root.need("defaultAction")?.word()?;
    for field in [
        "defaultErrnoRet",
        "flags",
        "listenerPath",
        "listenerMetadata",
    ] {
        newer_docker(&root, field, &mut notes);
    }
    let default_errno = errno_of(&mut root, "defaultErrnoRet", "defaultErrno", &mut notes)?;
    let architectures: Vec<Architecture> = optional(root.take("architectures"), Placed::words)?;
    let arch_map: Vec<ArchitectureRow> = optional(root.take("archMap"), |rows| {
        rows.list()?.into_iter().map(architecture_row).collect()
    })?;
    if !architectures.is_empty() && !arch_map.is_empty() {
        return Err(OciReadError::Both {
            first: root.join("architectures"),
            second: root.join("archMap"),
        });
    }
    let flags = optional(root.take("flags"), Placed::texts)?;
    let listener_path = root.take_text("listenerPath")?;
    let listener_metadata = root.take_text("listenerMetadata")?;
    let rules = optional(root.take("syscalls"), |rules| {
        let rules = rules.list()?.into_iter();
        rules.map(|rule| document_rule(rule, &mut notes)).collect()
    })?;
    root.finish()?;
    Ok(Document {
        default_action,
        default_errno,
        architectures,
        arch_map,
        flags,
        listener_path,
        listener_metadata,
        rules,
        notes,
    })
}

fn newer_docker(root: &Object, field: &str, notes: &mut Vec<Note>) {
    if root.has(field) {
        notes.push(Note::NewerDocker {
            place: root.join(field),
        });
    }
}

fn optional<T: Default>(
    value: Option<Placed>,
    read: impl FnOnce(Placed) -> Result<T, OciReadError>,
) -> Result<T, OciReadError> {
    value.map_or_else(|| Ok(T::default()), read)
}

fn architecture_row(row: Placed) -> Result<ArchitectureRow, OciReadError> {
    let mut row = row.object()?;
    let read = ArchitectureRow {
        architecture: row.need("architecture")?.word()?,
        sub_architectures: optional(row.take("subArchitectures"), Placed::words)?,
    };
    row.finish()?;
    Ok(read)
}

/// A number by itself, and podman's name for it.
fn errno_of(
    object: &mut Object,
    number: &str,
    name: &str,
    notes: &mut Vec<Note>,
) -> Result<Option<u32>, OciReadError> {
    let place = object.join(name);
    let number = object
        .take(number)
        .map(|number| number.small(u32::MAX.into()))
        .transpose()?;
    let Some(text) = object.take_text(name)? else {
        return Ok(number);
    };
    // containers/common, getErrno: a decimal number or a name
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let named = if digits {
        text.parse().ok()
    } else {
        errno::number(&text)
    };
    let Some(named) = named else {
        return Err(OciReadError::Word {
            place,
            found: json::excerpt(&text),
        });
    };
    match number {
        None => notes.push(Note::PodmanOnly { place }),
        Some(number) if number != named => return Err(OciReadError::Errno { place }),
        Some(_) => {}
    }
    Ok(Some(named))
}

fn document_rule(rule: Placed, notes: &mut Vec<Note>) -> Result<DocumentRule, OciReadError> {
    let mut rule = rule.object()?;
    let name = rule.take_text("name")?;
    let names = rule.take("names");
    let names = match (name, names) {
        (None, None) => {
            return Err(OciReadError::Missing {
                place: rule.join("names"),
            });
        }
        (None, Some(names)) => names.texts()?,
        (Some(name), None) => vec![name],
        (Some(name), Some(names)) => {
            if !names.texts()?.is_empty() {
                return Err(OciReadError::Both {
                    first: rule.join("name"),
                    second: rule.join("names"),
                });
            }
            vec![name]
        }
    };
    let syscall = OciSyscall {
        names,
        action: rule.need("action")?.word()?,
        errno_ret: errno_of(&mut rule, "errnoRet", "errno", notes)?,
        args: optional(rule.take("args"), |args| {
            args.list()?.into_iter().map(argument).collect()
        })?,
    };
    let includes = optional(rule.take("includes"), |it| filter(it, notes))?;
    let excludes = optional(rule.take("excludes"), |it| filter(it, notes))?;
    rule.take("comment").map(Placed::text).transpose()?;
    rule.finish()?;
    Ok(DocumentRule {
        syscall,
        includes,
        excludes,
    })
}

fn argument(arg: Placed) -> Result<OciArg, OciReadError> {
    let mut arg = arg.object()?;
    let read = OciArg {
        index: arg.need("index")?.small(5)?,
        value: arg.need("value")?.number()?,
        value_two: optional(arg.take("valueTwo"), Placed::number)?,
        op: arg.need("op")?.word()?,
    };
    arg.finish()?;
    Ok(read)
}

fn filter(object: Placed, notes: &mut Vec<Note>) -> Result<Filter, OciReadError> {
    let mut object = object.object()?;
    let min_kernel = match object.take("minKernel") {
        None => None,
        Some(version) => {
            let place = version.place().to_string();
            let text = version.text()?;
            let read = kernel_version(&text).ok_or_else(|| OciReadError::Word {
                place: place.clone(),
                found: json::excerpt(&text),
            })?;
            notes.push(Note::DockerOnly { place });
            Some(read)
        }
    };
    let read = Filter {
        capabilities: optional(object.take("caps"), Placed::texts)?,
        architectures: optional(object.take("arches"), Placed::texts)?,
        min_kernel,
    };
    object.finish()?;
    Ok(read)
}

/// moby, `KernelVersion.UnmarshalJSON`: two numbers of 8 bits, not both 0; an empty text is older than every kernel.
fn kernel_version(text: &str) -> Option<(u16, u16)> {
    if text.is_empty() {
        return Some((0, 0));
    }
    let (version, revision) = text.split_once('.')?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| {
        part.parse::<u8>()
            .ok()
            .filter(|_| digits(part))
            .map(u16::from)
    };
    let read = (number(version)?, number(revision)?);
    (read != (0, 0)).then_some(read)
}
