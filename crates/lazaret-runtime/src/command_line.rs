//! What an engine typed for the runtime, read by runc's own rules.
//!
//! Only what is needed to find the bundle, the container and the log file is understood; nothing is validated, because
//! the runtime gets the same words and complains itself.
//!
//! The rules are those of Go's `flag` package and of `github.com/urfave/cli` 1.22, which runc 1.0 to 1.3 use: one or two
//! dashes, `--option value` or `--option=value`, `--` ends the options; options of a command may stand behind its
//! operands, and are moved before them (`command.go`, `reorderArgs`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Our own option. It stands among the global ones and takes a value.
const CONFIG: &str = "lazaret-config";

/// Options with a value, and without.
struct Grammar {
    valued: &'static [&'static str],
    plain: &'static [&'static str],
}

/// `runc --help`, 1.1.5 to 1.3.
const GLOBAL: Grammar = Grammar {
    valued: &["log", "log-format", "root", "criu", "rootless"],
    plain: &["debug", "systemd-cgroup", "help", "h", "version", "v"],
};

/// `runc create --help` and `runc run --help`: one grammar for both, as no option means different things.
const CREATE: Grammar = Grammar {
    valued: &[
        "bundle",
        "b",
        "console-socket",
        "pidfd-socket",
        "pid-file",
        "preserve-fds",
    ],
    plain: &[
        "no-pivot",
        "no-new-keyring",
        "detach",
        "d",
        "keep",
        "no-subreaper",
        "help",
        "h",
    ],
};

/// `runc restore --help`.
const RESTORE: Grammar = Grammar {
    valued: &[
        "console-socket",
        "image-path",
        "work-path",
        "manage-cgroups-mode",
        "bundle",
        "b",
        "pid-file",
        "empty-ns",
        "status-fd",
        "lsm-profile",
        "lsm-mount-context",
    ],
    plain: &[
        "tcp-established",
        "ext-unix-sk",
        "shell-job",
        "file-locks",
        "detach",
        "d",
        "no-subreaper",
        "no-pivot",
        "auto-dedup",
        "lazy-pages",
        "help",
        "h",
    ],
};

/// `runc kill --help`.
const KILL: Grammar = Grammar {
    valued: &[],
    plain: &["all", "a", "help", "h"],
};

/// A command line of the wrapper.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Value of `--lazaret-config`.
    pub(crate) config: Option<PathBuf>,
    /// Everything else, for the runtime.
    pub(crate) runtime_arguments: Vec<OsString>,
    /// Value of `--log`.
    pub(crate) log: Option<PathBuf>,
    /// Value of `--log-format`.
    pub(crate) log_format: Option<OsString>,
    /// Value of `--root`.
    pub(crate) root: Option<PathBuf>,
    /// What the runtime is to do.
    pub(crate) action: Action,
}

/// What the runtime is to do, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// `create` or `run`.
    Create(NewContainer),
    /// `restore`.
    Restore(NewContainer),
    /// `kill`.
    Kill {
        /// The container.
        id: OsString,
        /// The signal; `SIGTERM` when none was given.
        signal: OsString,
    },
    /// Anything else, and anything the runtime itself will refuse.
    #[default]
    Other,
}

/// A container to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewContainer {
    /// Its id.
    pub(crate) id: OsString,
    /// Value of `--bundle`; the runtime's default is its working directory.
    pub(crate) bundle: Option<PathBuf>,
}

/// An option in front of which nobody can tell what the words behind it mean.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandLineError {
    /// The runtime may know it, the wrapper does not, and a container would be made.
    #[error("option `{option}` is not known, so the container to confine cannot be told")]
    UnknownOption {
        /// As typed.
        option: String,
    },
    /// Our option without its value.
    #[error("option `--{CONFIG}` needs a path")]
    NoConfig,
}

/// One word, as Go's `flag` package sees it.
enum Word<'a> {
    Operand,
    /// `--`
    End,
    Option {
        name: &'a str,
        /// Behind `=`.
        value: Option<&'a OsStr>,
    },
}

fn word(text: &OsStr) -> Word<'_> {
    let bytes = text.as_bytes();
    if bytes == b"--" {
        return Word::End;
    }
    let name = match bytes {
        [b'-', b'-', name @ ..] | [b'-', name @ ..] if !name.is_empty() => name,
        _ => return Word::Operand,
    };
    let (name, value) = match name.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (name, value) = name.split_at(at);
            // `value` begins with the `=` that was found
            (name, value.get(1..).map(OsStr::from_bytes))
        }
        None => (name, None),
    };
    Word::Option {
        // no option that is known has other bytes
        name: std::str::from_utf8(name).unwrap_or_default(),
        value,
    }
}

/// Options and operands of one level.
#[derive(Default)]
struct Parsed {
    options: Vec<(String, OsString)>,
    operands: Vec<OsString>,
}

impl Parsed {
    /// The last of these options wins.
    fn last(&self, names: &[&str]) -> Option<&OsStr> {
        self.options
            .iter()
            .rev()
            .find(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value.as_os_str())
    }

    fn path(&self, names: &[&str]) -> Option<PathBuf> {
        self.last(names).map(PathBuf::from)
    }

    fn asks_for_help(&self) -> bool {
        self.last(&["help", "h", "version", "v"]).is_some()
    }
}

/// How reading options ended early.
enum Stop {
    /// Not in the grammar.
    Unknown(OsString),
    /// The last option has no value; the runtime says so.
    NoValue,
}

impl Grammar {
    fn knows(&self, name: &str) -> bool {
        self.valued.contains(&name) || self.plain.contains(&name)
    }

    /// Go's `flag.FlagSet.Parse`: options up to the first operand or `--`.
    fn parse(&self, words: &[OsString]) -> Result<Parsed, Stop> {
        let mut parsed = Parsed::default();
        let mut words = words.iter();
        while let Some(text) = words.as_slice().first() {
            let (name, value) = match word(text) {
                Word::Operand => break,
                Word::End => {
                    words.next();
                    break;
                }
                Word::Option { name, value } => (name, value),
            };
            words.next();
            let value = if self.plain.contains(&name) {
                value.unwrap_or_default()
            } else if self.valued.contains(&name) {
                match value.or_else(|| words.next().map(OsString::as_os_str)) {
                    Some(value) => value,
                    None => return Err(Stop::NoValue),
                }
            } else {
                return Err(Stop::Unknown(text.clone()));
            };
            parsed.options.push((name.to_owned(), value.to_owned()));
        }
        parsed.operands = words.as_slice().to_vec();
        Ok(parsed)
    }

    /// `reorderArgs` of urfave/cli: known options move to the front, each with the word behind it if that could be its
    /// value. It does so for options without a value as well; that oddity is runc's, so it is ours.
    fn reorder(&self, words: &[OsString]) -> Vec<OsString> {
        let (mut front, mut rest) = (Vec::new(), Vec::new());
        let mut may_be_value = false;
        for (at, text) in words.iter().enumerate() {
            let known = |name: &str| self.knows(name);
            match word(text) {
                Word::End => {
                    rest.extend(words.iter().skip(at).cloned());
                    break;
                }
                _ if may_be_value && !text.as_bytes().starts_with(b"-") => {
                    may_be_value = false;
                    front.push(text.clone());
                }
                Word::Option { name, value } if known(name) => {
                    may_be_value = value.is_none();
                    front.push(text.clone());
                }
                _ => rest.push(text.clone()),
            }
        }
        front.append(&mut rest);
        front
    }
}

/// Takes our option out of the words and reads the rest.
///
/// # Errors
/// [`CommandLineError`]. A line that the runtime itself will refuse is [`Action::Other`], no error.
pub(crate) fn parse(words: Vec<OsString>) -> Result<CommandLine, CommandLineError> {
    let (config, runtime_arguments) = take_config(words)?;
    let mut line = CommandLine {
        config,
        ..CommandLine::default()
    };
    let global = match GLOBAL.parse(&runtime_arguments) {
        Ok(global) => global,
        Err(stop) => {
            let makes_container = runtime_arguments
                .iter()
                .any(|word| ["create", "run", "restore"].iter().any(|verb| word == verb));
            line.runtime_arguments = runtime_arguments;
            return match stop {
                Stop::Unknown(option) if makes_container => Err(unknown(&option)),
                Stop::Unknown(_) | Stop::NoValue => Ok(line),
            };
        }
    };
    line.log = global.path(&["log"]);
    line.log_format = global.last(&["log-format"]).map(OsStr::to_owned);
    line.root = global.path(&["root"]);
    if !global.asks_for_help()
        && let Some((verb, words)) = global.operands.split_first()
    {
        line.action = action(verb, words)?;
    }
    line.runtime_arguments = runtime_arguments;
    Ok(line)
}

fn action(verb: &OsStr, words: &[OsString]) -> Result<Action, CommandLineError> {
    let grammar = match verb.to_str() {
        Some("create" | "run") => CREATE,
        Some("restore") => RESTORE,
        Some("kill") => KILL,
        _ => return Ok(Action::Other),
    };
    let parsed = match grammar.parse(&grammar.reorder(words)) {
        Ok(parsed) if !parsed.asks_for_help() => parsed,
        // an unknown option of `kill` confines nobody less
        Err(Stop::Unknown(option)) if verb != "kill" => return Err(unknown(&option)),
        Ok(_) | Err(_) => return Ok(Action::Other),
    };
    let bundle = parsed.path(&["bundle", "b"]);
    Ok(match (verb.to_str(), parsed.operands.as_slice()) {
        (Some("create" | "run"), [id]) => Action::Create(NewContainer {
            id: id.clone(),
            bundle,
        }),
        (Some("restore"), [id]) => Action::Restore(NewContainer {
            id: id.clone(),
            bundle,
        }),
        (Some("kill"), [id]) => Action::Kill {
            id: id.clone(),
            signal: "SIGTERM".into(),
        },
        (Some("kill"), [id, signal]) => Action::Kill {
            id: id.clone(),
            signal: signal.clone(),
        },
        // a wrong number of operands: runc refuses it (`utils.go`, `checkArgs`)
        _ => Action::Other,
    })
}

fn unknown(option: &OsStr) -> CommandLineError {
    CommandLineError::UnknownOption {
        option: option.to_string_lossy().chars().take(80).collect(),
    }
}

/// Our option is only looked for where global options stand: an operand or a value may be spelt like it.
fn take_config(words: Vec<OsString>) -> Result<(Option<PathBuf>, Vec<OsString>), CommandLineError> {
    let mut config = None;
    let mut rest = Vec::new();
    let mut words = words.into_iter();
    while let Some(text) = words.next() {
        match word(&text) {
            Word::Option { name, value } if name == CONFIG => {
                let value = value.map(OsStr::to_owned).or_else(|| words.next());
                config = Some(value.ok_or(CommandLineError::NoConfig)?.into());
            }
            Word::Option { name, value: None } if GLOBAL.valued.contains(&name) => {
                rest.push(text);
                rest.extend(words.next());
            }
            Word::Option { .. } => rest.push(text),
            Word::Operand | Word::End => {
                rest.push(text);
                break;
            }
        }
    }
    rest.extend(words);
    Ok((config, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    /// The action and what is handed on, on one line.
    fn read(text: &str) -> String {
        let line = match parse(words(text)) {
            Ok(line) => line,
            Err(error) => return error.to_string(),
        };
        let shown = |path: &Option<PathBuf>| {
            path.as_ref()
                .map_or("-".to_owned(), |path| path.display().to_string())
        };
        match &line.action {
            Action::Create(new) => {
                format!("create {} in {}", new.id.display(), shown(&new.bundle))
            }
            Action::Restore(new) => {
                format!("restore {} in {}", new.id.display(), shown(&new.bundle))
            }
            Action::Kill { id, signal } => {
                format!(
                    "kill {} {} root {}",
                    id.display(),
                    signal.display(),
                    shown(&line.root)
                )
            }
            Action::Other => "other".to_owned(),
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(read(text), expected, "{text}");
    }

    #[test]
    fn what_engines_type() {
        check(
            "--root /r --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid --console-socket /s c1",
            "create c1 in /b",
        );
        check(
            "--root /var/run/docker/runtime-runc/moby --log /l --log-format json --systemd-cgroup kill c1 15",
            "kill c1 15 root /var/run/docker/runtime-runc/moby",
        );
        check("--root /r kill --all c1 9", "kill c1 9 root /r");
        check("--root /r delete --force create", "other");
        check("features", "other");
        check("", "other");
    }

    #[test]
    fn spellings() {
        check("create -b /b c1", "create c1 in /b");
        check("create -bundle=/b c1", "create c1 in /b");
        check("create --bundle=/a --bundle /b c1", "create c1 in /b");
        check("create --bundle /b -- c1", "create c1 in /b");
        check("run c1 -d --bundle /b", "create c1 in /b");
        check("run -d c1", "create c1 in -");
        check("-debug=true create c1", "create c1 in -");
        check("--log create create c1", "create c1 in -");
        check("-- create c1", "create c1 in -");
        check("create --pid-file --bundle c1", "create c1 in -");
        check("restore --image-path /i -b /b c1", "restore c1 in /b");
        check("kill c1", "kill c1 SIGTERM root -");
        // urfave/cli takes the word behind an option without value along when it moves it
        check("kill c1 --all 9", "kill 9 c1 root -");
    }

    #[test]
    fn what_the_runtime_refuses_itself() {
        for text in [
            "create",
            "create a b",
            "create --bundle",
            "--root",
            "create --help c1",
            "--version create c1",
            "kill",
            "kill a b c",
            "kill --bogus c1",
            "--bogus kill c1",
            "create -- --bundle /b c1",
        ] {
            check(text, "other");
        }
    }

    #[test]
    fn unknown_options_before_a_new_container() {
        for text in [
            "create --bogus c1",
            "--bogus x create c1",
            "run --bogus=1 c1",
            "--bogus restore c1",
        ] {
            let message = read(text);
            assert!(
                message.starts_with("option `--bogus") && message.ends_with("cannot be told"),
                "{text}: {message}"
            );
        }
    }

    #[test]
    fn our_option_is_taken_out() -> Result<(), CommandLineError> {
        let check =
            |text: &str, config: Option<&str>, rest: &str| -> Result<(), CommandLineError> {
                let line = parse(words(text))?;
                assert_eq!(line.config, config.map(PathBuf::from), "{text}");
                assert_eq!(line.runtime_arguments, words(rest), "{text}");
                Ok(())
            };
        check(
            "--lazaret-config /c --root /r state c1",
            Some("/c"),
            "--root /r state c1",
        )?;
        check(
            "--root /r --lazaret-config=/c state",
            Some("/c"),
            "--root /r state",
        )?;
        check(
            "--lazaret-config /a --lazaret-config /b state",
            Some("/b"),
            "state",
        )?;
        check("state c1", None, "state c1")?;
        // not where global options stand
        check(
            "--root --lazaret-config state",
            None,
            "--root --lazaret-config state",
        )?;
        check(
            "exec c1 --lazaret-config /c",
            None,
            "exec c1 --lazaret-config /c",
        )?;
        assert_eq!(
            parse(words("--root /r --lazaret-config")),
            Err(CommandLineError::NoConfig)
        );
        Ok(())
    }

    proptest! {
        /// Without our option the runtime gets exactly the words that were typed, bytes that are no text included.
        #[test]
        fn words_pass_unchanged(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..8)) {
            use std::os::unix::ffi::OsStringExt as _;
            let words: Vec<_> = words.into_iter().map(OsString::from_vec).collect();
            let line = parse(words.clone()).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(line.config, None);
            prop_assert_eq!(line.runtime_arguments, words);
        }
    }
}
