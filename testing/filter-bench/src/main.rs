//! Our compiler and prover beside libseccomp and the seccompiler crate, in one run.
//!
//! `cargo xtask bench` does the set-up and runs this. It prints a table of medians and ratios; nothing here passes or fails
//! by a time. Compile time is from the in-memory rules to the array of instructions, for libseccomp from `seccomp_init` on, as
//! a runtime calls it. Instructions executed are counted by our interpreter for every contender's filter alike.

#![forbid(unsafe_code)]

mod measure;
mod mix;
mod seccompiler;
mod subject;

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::compile::{compile, compile_weighted};
use lazaret_core::filter::program::Program;
use lazaret_core::filter::prove::prove;
use measure::{Work, medians, timed};
use mix::Mix;
use seccomp_judge::Search;
use std::time::Duration;
use subject::Subject;

/// Rounds for each contender; enough for a median on a noisy machine.
const ROUNDS: usize = 51;

/// Rounds of each proof.
const PROOFS: usize = 11;

/// What the others are compared to.
const LIBSECCOMP: &str = "libseccomp";

fn main() -> anyhow::Result<()> {
    let mix = Mix::serving(include_bytes!("../data/hapi-recording.json"))?;
    println!(
        "call mix: {} calls that a HAPI FHIR server made while serving; medians of {ROUNDS} interleaved rounds\n",
        mix.total()
    );
    for subject in subject::all()? {
        measure_one(&subject, &mix)?;
    }
    Ok(())
}

/// A contender that expresses the subject: its filter, and the work that makes it again.
struct Contender<'a> {
    name: &'static str,
    filter: Program,
    work: Work<'a>,
}

fn measure_one(subject: &Subject, mix: &Mix) -> anyhow::Result<()> {
    let weights = mix.weights(Abi::X86_64);
    let seccompiler = seccompiler::Input::new(&subject.table);
    let mut contenders = vec![
        Contender {
            name: "lazaret, weighted by the mix",
            filter: compile_weighted(&subject.table, &weights)?,
            work: Box::new(|| timed(|| Ok(compile_weighted(&subject.table, &weights)?))),
        },
        Contender {
            name: "lazaret",
            filter: compile(&subject.table)?,
            work: Box::new(|| timed(|| Ok(compile(&subject.table)?))),
        },
    ];
    for (name, search) in [
        (LIBSECCOMP, Search::Linear),
        ("libseccomp, binary tree", Search::Tree),
    ] {
        contenders.push(Contender {
            name,
            filter: seccomp_judge::compile_for(&subject.profile, search)?.0,
            work: Box::new(move || Ok(seccomp_judge::compile_for(&subject.profile, search)?.1)),
        });
    }
    let cannot = match &seccompiler {
        Ok(input) => {
            contenders.push(Contender {
                name: "seccompiler",
                filter: seccompiler::program(&input.clone().compile()?)?,
                // it takes its input for itself
                work: Box::new(|| {
                    let input = input.clone();
                    timed(|| Ok(input.compile()?))
                }),
            });
            None
        }
        Err(why) => Some(why),
    };
    let linear = contenders
        .iter()
        .find(|contender| contender.name == LIBSECCOMP);
    let judged = linear.map(|contender| contender.filter.clone());
    let figures = figures(contenders, mix)?;
    println!("{}", subject.name);
    print_figures(&figures);
    if let Some(why) = cannot {
        println!("  {:<30} cannot express it: {why}", "seccompiler");
    }
    if let Some(filter) = judged {
        prove_one(subject, &filter)?;
    }
    println!();
    Ok(())
}

/// What was measured of one contender.
struct Figures {
    name: &'static str,
    compile: Duration,
    instructions: usize,
    executed: f64,
}

fn figures(contenders: Vec<Contender<'_>>, mix: &Mix) -> anyhow::Result<Vec<Figures>> {
    let (filters, mut works): (Vec<_>, Vec<_>) = contenders
        .into_iter()
        .map(|contender| ((contender.name, contender.filter), contender.work))
        .unzip();
    let times = medians(&mut works, ROUNDS)?;
    filters
        .into_iter()
        .zip(times)
        .map(|((name, filter), compile)| {
            Ok(Figures {
                name,
                compile,
                instructions: filter.instructions().len(),
                executed: mix.mean_executed(&filter)?,
            })
        })
        .collect()
}

/// Each figure, and in brackets its ratio to libseccomp's in the same run.
fn print_figures(figures: &[Figures]) {
    println!(
        "  {:<30} {:>22} {:>20} {:>22}",
        "", "compile time", "instructions", "executed for a call"
    );
    let base = figures.iter().find(|figures| figures.name == LIBSECCOMP);
    for one in figures {
        let ratio = |of: fn(&Figures) -> f64| base.map_or(f64::NAN, |base| of(one) / of(base));
        println!(
            "  {:<30} {:>12.1} µs ({:>4.2}) {:>12} ({:>5.2}) {:>14.1} ({:>5.2})",
            one.name,
            one.compile.as_secs_f64() * 1e6,
            ratio(|figures| figures.compile.as_secs_f64()),
            one.instructions,
            ratio(|figures| figures.instructions as f64),
            one.executed,
            ratio(|figures| figures.executed),
        );
    }
}

/// How long the proof takes that libseccomp's filter means the table, and what it says.
fn prove_one(subject: &Subject, filter: &Program) -> anyhow::Result<()> {
    let chain = std::slice::from_ref(filter);
    let comparison = prove(&subject.table, chain)?;
    let says = if comparison.is_equal() {
        "equal".to_owned()
    } else if comparison.is_at_least_as_strict() {
        let first = comparison.stricter.first().or(comparison.other.first());
        first.map_or_else(String::new, |first| {
            format!(
                "at least as strict; not equal first at numbers {:?}: {:?}, where the rules say {:?}",
                first.numbers, first.found, first.expected
            )
        })
    } else {
        "looser".to_owned()
    };
    let work: Work<'_> = Box::new(|| timed(|| Ok(prove(&subject.table, chain)?)));
    let times = medians(&mut [work], PROOFS)?;
    for time in times {
        println!(
            "  proof of libseccomp's filter   {:>12.1} ms: {says}",
            time.as_secs_f64() * 1e3
        );
    }
    Ok(())
}
