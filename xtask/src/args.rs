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
        /// With a newer Docker (28.5.2, runc 1.3.2) than Debian's, built from the Go module proxy
        #[arg(long, requires = "only")]
        newer_docker: bool,
        /// Only tests whose name contains this
        #[arg(requires = "only", default_value = "")]
        name: String,
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
    /// Benchmarks: medians and ratios of one run, beside what else could do the work
    Bench {
        /// What is measured
        #[arg(value_enum, default_value_t = Subject::Filter)]
        subject: Subject,
        /// Only these parts of `gate`: asked, admission, burst, listeners, start
        #[arg(long, value_delimiter = ',', value_name = "PART")]
        only: Vec<String>,
    },
    /// Container lives one after the other against one gate; fails when a descriptor, process, thread, file or memory is left
    Soak {
        /// How many
        #[arg(long, default_value_t = 1000)]
        lives: u32,
        /// Kill the gate and start it again in the middle of every so many; 0 for never
        #[arg(long, default_value_t = 50, value_name = "LIVES")]
        restart_every: u32,
        /// What runs them
        #[arg(long, value_enum, default_value_t = SoakEngine::None)]
        engine: SoakEngine,
    },
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

/// What `cargo xtask bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Our compiler and prover beside libseccomp and seccompiler
    Filter,
    /// lazaretd beside the least that can answer, thousands of containers, floods, `docker run` with and without it
    Gate,
}

/// What runs the containers of a soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SoakEngine {
    /// Nothing: processes in pid namespaces
    None,
    /// A private Docker engine
    Docker,
}
