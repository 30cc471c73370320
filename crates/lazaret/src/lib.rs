//! The command line of Lazaret: shells around the pure crates. `args` says what was typed, a module per verb says what it
//! means.

#![forbid(unsafe_code)]

pub mod args;
pub mod bench;
pub mod calls;
pub mod cleanup;
pub mod columns;
pub mod compile;
pub mod control;
pub mod decide;
pub mod doctor;
pub mod engine;
pub mod exercise;
pub mod exit;
pub mod given;
pub mod inspect;
pub mod inspected;
pub mod install;
pub mod learn;
pub mod man;
pub mod meaning;
pub mod pages;
pub mod policy;
pub mod progress;
pub mod prove;
pub mod record;
pub mod report;
pub mod source;
pub mod suggest;
pub mod trust;
pub mod utc;
pub mod watch;

use args::{Cli, Verb};
use exit::Outcome;

/// Does what was typed.
///
/// # Errors
/// What went wrong, with the exit code.
pub fn run(cli: &Cli) -> Outcome {
    let format = cli.format;
    match &cli.verb {
        Verb::Doctor(args) => doctor::main(args, format),
        Verb::Learn(args) => learn::learn(args, format),
        Verb::Record(args) => learn::record_only(args),
        Verb::Exercise(args) => exercise::main(&args.what, format),
        Verb::Synth(args) => learn::synth_only(args, format),
        Verb::Policy(verb) => policy::main(verb, format),
        Verb::Compile(args) => compile::main(args),
        Verb::Decide(args) => decide::main(args, format),
        Verb::Inspect(args) => inspected::main(args, format),
        Verb::Prove(args) => prove::main(args, format),
        Verb::Key(verb) => trust::key(verb, format),
        Verb::Sign(args) => trust::sign(args, format),
        Verb::Verify(args) => trust::verify(args, format),
        Verb::Bundle(verb) => trust::bundle(verb, format),
        Verb::Install(args) => install::main(args, format),
        Verb::Permit(verb) => trust::permit(verb, format),
        Verb::Status(args) => control::status(args, format),
        Verb::Watch(args) => watch::main(args, format),
        Verb::Phase(args) => control::phase(args),
        Verb::Revise(args) => control::revise(args, format),
        Verb::Suggest(args) => suggest::main(args, format),
        Verb::Bench(args) => pages::bench(args),
        Verb::Report(args) => pages::report(args),
        Verb::Man(args) => man::main(args),
    }
}
