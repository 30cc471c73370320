//! What was typed.

use clap::{Parser, Subcommand, ValueEnum};

/// Developer commands of Lazaret.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole chain on a real FHIR server: learn, sign, gate, serve, attack, report; results in target/demo
    Demo,
    /// Every check and every test, the ones that need root included
    Test {
        /// Only this part
        #[arg(long, value_enum)]
        only: Option<Part>,
    },
    /// Checks what the compiler does not: crate edges, sizes of files, headers of modules, silenced lints
    Tidy,
    /// Licences, sources and duplicates of all dependencies, by cargo-deny, which is built when it is not there
    Deny,
    /// Generates the system call tables from Debian's packages
    Tables {
        /// The calls' arguments, from kernel sources (300 MB), instead of numbers and releases
        #[arg(long)]
        arguments: bool,
        /// Only say whether they are up to date
        #[arg(long)]
        check: bool,
    },
    /// Runs the fuzz targets with coverage; inputs that find something are kept as tests
    Fuzz {
        /// Only this target
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(xtask::fuzz::TARGETS))]
        target: Option<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: u32,
    },
    /// Our compiler and prover beside libseccomp and seccompiler: medians and ratios of one run
    Bench,
    /// The audit export against a real FHIR server: its validator's verdict on each kind of event, and what it stored
    Audit,
    /// Makes the images that the demo and the tests start
    Images,
    /// Starts a private engine with the images loaded, and runs until Ctrl-C
    Engine,
}

/// Parts of `cargo xtask test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The end-to-end tests of the command line and the gate, with private engines
    E2e,
}
