//! The exit codes, which are part of the command line's contract (`lazaret --help`, `docs/cli.md`).

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Yes; done.
    Yes,
    /// The answer is no: a check failed, two things differ, the container did not do what was asked.
    No,
    /// The command line or a file that was given is wrong.
    Usage,
    /// This host cannot: rights, kernel, engine, disk.
    HostCannot,
    /// A signature, key or digest does not verify.
    NotTrusted,
    /// A recording is incomplete.
    Incomplete,
    /// Interrupted by a signal, after cleaning up (128 + SIGINT, as a shell reports it).
    Interrupted,
}

impl Exit {
    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Yes => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::HostCannot => 3,
            Exit::NotTrusted => 4,
            Exit::Incomplete => 5,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// An error with the exit code it ends the program with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What went wrong, outermost step first.
    pub error: anyhow::Error,
}

/// What a command gives back.
pub type Outcome<T = Exit> = Result<T, Failure>;

/// Gives an error its exit code.
pub trait OrExit<T> {
    /// With this code.
    ///
    /// # Errors
    /// The error itself, with the code.
    fn or_exit(self, exit: Exit) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Outcome<T> {
        self.map_err(|error| Failure {
            exit,
            error: error.into(),
        })
    }
}

/// A failure from a message.
pub fn fail<T>(exit: Exit, message: impl std::fmt::Display) -> Outcome<T> {
    Err(Failure {
        exit,
        error: anyhow::anyhow!("{message}"),
    })
}
