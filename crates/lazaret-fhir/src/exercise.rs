//! The run: every interaction that the server declares for the seven types, whole-system interactions, operations, refusals,
//! then sixteen clients at once.
//!
//! Flow: the CapabilityStatement gives a list of steps; each step runs on what the steps before it created and
//! becomes one row of the [`Coverage`]; the clients become one row each. The statuses of a row depend on the server and the
//! plan only: a run searches for resources that carry its own tag, counts no polls, and leaves alone what other runs left
//! behind. It deletes only what it created for being deleted.
//!
//! An interaction that fails does not end the run; a server that is gone does.

mod clients;
mod dialogue;
mod instance;
mod operations;
mod refusals;
mod search;
mod session;
mod steps;
mod system;

use crate::base::Base;
use crate::capability::{self, Capability, CapabilityError};
use crate::client::{Client, TransportError};
use crate::coverage::{Coverage, Expects, Figure, Figures, Interaction, Outcome, Subject};
use crate::kind::Kind;
use core::time::Duration;
use dialogue::{Dialogue, Problem};
use session::Session;
use std::collections::BTreeSet;
use std::time::Instant;
use steps::{Step, Uses};

/// Clients of the last stage.
pub const CLIENTS: u32 = 16;

/// After so many interactions in a row without any answer the server counts as gone.
const GONE_AFTER: u32 = 3;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub base: Base,
    /// Chooses the data's content.
    pub seed: u64,
    /// Number of the run. It must be new to the server's database: conditional creates of an old run's identifiers are
    /// answered otherwise. `u32::MAX` is the load's.
    pub run: u32,
    /// Time for one request, from the connect to the last byte of its answer.
    pub request_timeout: Duration,
    /// Time that is waited for a bulk export when everything else but the clients is done.
    pub export_timeout: Duration,
    /// Time for everything, looked at before each interaction: one that is under way may take its `request_timeout` more.
    pub deadline: Duration,
}

impl Plan {
    /// Seed 1, 30 s for a request (the first `$validate` of a JVM takes 4 to 7 s on an idle machine), 90 s for an export,
    /// 10 min for everything.
    #[must_use]
    pub fn new(base: Base, run: u32) -> Self {
        Self {
            base,
            seed: 1,
            run,
            request_timeout: Duration::from_secs(30),
            export_timeout: Duration::from_secs(90),
            deadline: Duration::from_secs(600),
        }
    }
}

/// Is told what happens, and asked whether to go on.
pub trait Progress: Sync {
    /// The row `name` begins; `done` of `of` are done.
    fn row(&self, done: usize, of: usize, name: &str);

    /// True when the run is to end. Asked between requests, and several times a second while polling.
    fn stopped(&self) -> bool {
        false
    }
}

/// Tells nobody.
impl Progress for () {
    fn row(&self, _done: usize, _of: usize, _name: &str) {}
}

/// A run did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExerciseError {
    /// The server's declaration could not be read.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// None of the seven types is declared.
    #[error("{base} declares none of the resource types that are exercised")]
    NothingDeclared {
        /// The server.
        base: String,
    },
    /// Several interactions in a row had no answer.
    #[error(
        "the server at {base} is gone: {GONE_AFTER} interactions in a row without an answer, the last was {row}"
    )]
    ServerGone {
        /// The server.
        base: String,
        /// Where it was noticed.
        row: String,
        /// What was reached before.
        coverage: Box<Coverage>,
        /// The last of them.
        source: TransportError,
    },
    /// [`Plan::deadline`] passed.
    #[error("the exercise of {base} was not done within {limit:?}")]
    Deadline {
        /// The server.
        base: String,
        /// The time it was given.
        limit: Duration,
        /// What was reached before.
        coverage: Box<Coverage>,
    },
    /// [`Progress::stopped`] said so.
    #[error("the exercise of {base} was stopped")]
    Stopped {
        /// The server.
        base: String,
        /// What was reached before.
        coverage: Box<Coverage>,
    },
}

/// Why the steps ended early.
enum End {
    Gone(String, TransportError),
    Deadline,
    Stopped,
}

/// Drives the server through everything.
///
/// # Errors
/// The server is no FHIR server, declares nothing of what is exercised, is gone, or the run was ended. An interaction that the
/// server refuses or fails is no error but a row.
pub fn run(plan: &Plan, progress: &dyn Progress) -> Result<Coverage, ExerciseError> {
    let started = Instant::now();
    let client = Client::new(plan.base.clone(), plan.request_timeout);
    let capability = capability::read(&client)?;
    let steps = steps::steps(&capability);
    if steps.is_empty() {
        return Err(ExerciseError::NothingDeclared {
            base: plan.base.to_string(),
        });
    }
    let mut book = Book {
        rows: Vec::new(),
        uses: BTreeSet::new(),
    };
    let limits = Limits {
        plan,
        started,
        progress,
    };
    let end = book.drive(&steps, &client, &capability, &limits);
    let figures = book.figures(&capability);
    let subject = Subject {
        base: plan.base.to_string(),
        software: capability.software,
        fhir_version: capability.fhir_version,
        run: plan.run,
        seed: plan.seed,
    };
    let coverage = Coverage::new(subject, milliseconds(started), figures, book.rows);
    let base = plan.base.to_string();
    match end {
        Ok(()) => Ok(coverage),
        Err(End::Gone(row, source)) => Err(ExerciseError::ServerGone {
            base,
            row,
            coverage: coverage.into(),
            source,
        }),
        Err(End::Deadline) => Err(ExerciseError::Deadline {
            base,
            limit: plan.deadline,
            coverage: coverage.into(),
        }),
        Err(End::Stopped) => Err(ExerciseError::Stopped {
            base,
            coverage: coverage.into(),
        }),
    }
}

/// What ends a run before its end.
struct Limits<'a> {
    plan: &'a Plan,
    started: Instant,
    progress: &'a dyn Progress,
}

impl Limits<'_> {
    fn check(&self) -> Result<(), End> {
        if self.progress.stopped() {
            Err(End::Stopped)
        } else if self.started.elapsed() > self.plan.deadline {
            Err(End::Deadline)
        } else {
            Ok(())
        }
    }
}

/// The rows so far, and what of the declaration they have used with success.
struct Book {
    rows: Vec<Interaction>,
    uses: BTreeSet<Uses>,
}

impl Book {
    fn drive(
        &mut self,
        steps: &[Step],
        client: &Client,
        capability: &Capability,
        limits: &Limits<'_>,
    ) -> Result<(), End> {
        let of = steps.len() + CLIENTS as usize;
        let mut session = Session::new(capability, limits);
        let mut unanswered = 0;
        let mut end = Ok(());
        for (done, step) in steps.iter().enumerate() {
            end = end.and_then(|()| limits.check());
            if end.is_err() {
                self.rows
                    .push(step.row(Outcome::Skipped, "the run ended before"));
                continue;
            }
            limits.progress.row(done, of, &step.name);
            if !step.declared && !step.always {
                self.rows.push(step.row(Outcome::NotDeclared, ""));
                continue;
            }
            let began = Instant::now();
            let mut dialogue = Dialogue::new(client);
            let problem = session.act(&step.action, &mut dialogue).err();
            let gone = matches!(problem, Some(Problem::Transport(_)));
            unanswered = if gone { unanswered + 1 } else { 0 };
            if problem.is_none() {
                self.uses.extend(step.uses.iter().cloned());
            }
            let mut row = step.judge(problem.as_ref(), dialogue.not_implemented());
            row.statuses = dialogue.into_statuses();
            row.elapsed_ms = milliseconds(began);
            self.rows.push(row);
            if let (GONE_AFTER, Some(Problem::Transport(source))) = (unanswered, problem) {
                end = Err(End::Gone(step.name.clone(), source));
            }
        }
        end?;
        limits.check()?;
        limits.progress.row(steps.len(), of, "clients");
        let rows = clients::run(limits, capability);
        self.rows.extend(rows);
        limits.progress.row(of, of, "done");
        limits.check()
    }

    fn figures(&self, capability: &Capability) -> Figures {
        let mut declared = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut reached = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (uses, into) in [
            (steps::declared(capability), &mut declared),
            (self.uses.clone(), &mut reached),
        ] {
            for used in uses {
                match used {
                    Uses::Interaction(name) => into.0.insert(name),
                    Uses::Parameter(name) => into.1.insert(name),
                    Uses::Operation(name) => into.2.insert(name),
                };
            }
        }
        Figures {
            interactions: Figure::new(&declared.0, &reached.0),
            search_parameters: Figure::new(&declared.1, &reached.1),
            operations: Figure::new(&declared.2, &reached.2),
        }
    }
}

impl Step<'_> {
    fn row(&self, outcome: Outcome, detail: &str) -> Interaction {
        Interaction {
            name: self.name.clone(),
            declared: self.declared,
            expects: self.expects,
            outcome,
            statuses: Vec::new(),
            detail: detail.to_owned(),
            elapsed_ms: 0,
        }
    }

    fn judge(&self, problem: Option<&Problem>, not_implemented: bool) -> Interaction {
        let Some(problem) = problem else {
            return self.row(Outcome::Succeeded, "");
        };
        let outcome = match problem {
            Problem::Refused(_) if !self.declared => Outcome::NotDeclared,
            Problem::Failed(_) if !self.declared && not_implemented => Outcome::NotDeclared,
            Problem::Refused(_) => Outcome::Refused,
            Problem::Missing(_) => Outcome::Skipped,
            Problem::Failed(_) | Problem::Transport(_) => Outcome::Failed,
        };
        self.row(outcome, &problem.to_string())
    }
}

/// Creates one resource for the load and gives its id.
pub(crate) fn create_one(
    client: &Client,
    kind: Kind,
    resource: &serde_json::Value,
) -> Result<String, String> {
    let known = instance::create(kind, resource, &mut Dialogue::new(client));
    known
        .map(|known| known.id)
        .map_err(|problem| problem.to_string())
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The row of a client.
fn client_row(
    name: String,
    declared: bool,
    began: Instant,
    problem: Option<Problem>,
    statuses: Vec<u16>,
) -> Interaction {
    let outcome = match &problem {
        None if !declared => Outcome::NotDeclared,
        None => Outcome::Succeeded,
        Some(Problem::Refused(_)) => Outcome::Refused,
        Some(Problem::Missing(_)) => Outcome::Skipped,
        Some(Problem::Failed(_) | Problem::Transport(_)) => Outcome::Failed,
    };
    Interaction {
        name,
        declared,
        expects: Expects::Success,
        outcome,
        statuses,
        detail: problem.map_or(String::new(), |p| p.to_string()),
        elapsed_ms: milliseconds(began),
    }
}
