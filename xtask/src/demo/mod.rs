//! `cargo xtask demo`: the whole chain on a real FHIR server, and what it must show.
//!
//! A stage per module, in the order in which they run. Lazaret's programs are used as a user would use them: by their
//! command lines; they leave their results in `target/demo`, the stages add what only they can see to `facts.json`, and
//! `lazaret report` makes one report of it and says which promises hold. One that does not fails the command.

mod attack;
mod bench;
mod facts;
mod gate;
mod learn;
mod refuse;
mod restart;
mod serve;
mod trust;
mod world;

use std::fs;

use anyhow::{Context, bail};

use crate::command::command;
use crate::setup::Setup;
use facts::Facts;
use gate::Gate;
use world::World;

/// Runs everything; the results are in `target/demo`.
///
/// # Errors
/// When a stage fails, or a promise does not hold (then everything is written all the same).
pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let out = setup.target.join("demo");
    if out.exists() {
        fs::remove_dir_all(&out).context("cannot remove the last demo's results")?;
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let world = World::open(setup, &out)?;
    let mut facts = Facts::new(&world)?;
    learn::learn(&world)?;
    let papers = trust::papers(&world)?;

    let gate = Gate::start(&world)?;
    let fleet = serve::fleet(&world, &mut facts)?;
    bench::bench(&world, &fleet)?;
    let gate = restart::restart(&world, gate, &fleet, &mut facts)?;
    drop(fleet);
    serve::more_starts(&world, &mut facts)?;
    refuse::refusals(&world, &papers, &mut facts)?;
    attack::attacks(&world, &mut facts)?;
    drop(gate);

    facts.write(&out)?;
    let mut report = command(world.programs.path("lazaret")?, ["report"]);
    let output = report.arg(&out).output().context("cannot run lazaret")?;
    setup.steps.say(format_args!(
        "took {:.0} s; {}",
        setup.steps.elapsed().as_secs_f64(),
        out.join("report.html").display()
    ));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!(
            "not everything was shown (`lazaret report` ended with {})",
            output.status
        );
    }
    Ok(())
}
