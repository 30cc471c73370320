//! `cargo xtask`: parse, run, exit code. What the commands stand on is in the library of the same name.

#![forbid(unsafe_code)]

mod args;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;
use xtask::host::HostCannot;
use xtask::setup::Setup;
use xtask::{audit, bench, cleanup, demo, deny, fuzz, tables, test, tidy};

use crate::args::{Args, Command, Part, SoakEngine, Subject};

/// "The answer is no": a check or test failed.
const EXIT_NO: u8 = 1;
/// "The host cannot".
const EXIT_HOST_CANNOT: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = cleanup::on_signals().and_then(|()| run(&args.command));
    cleanup::before_exit();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::from(if error.is::<HostCannot>() {
                EXIT_HOST_CANNOT
            } else {
                EXIT_NO
            })
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Demo => demo::run(&Setup::prepare()?),
        Command::Test { only: None, .. } => test::run(&Setup::prepare()?),
        Command::Test {
            only: Some(Part::E2e),
            newer_docker,
            name,
        } => {
            let setup = if *newer_docker {
                Setup::prepare_with_newer_docker()?
            } else {
                Setup::prepare()?
            };
            test::run_e2e(&setup, name)
        }
        Command::Tidy => tidy::run(&Setup::without_packages()?.workspace),
        Command::Tables {
            arguments: false,
            check,
        } => tables::run(*check),
        Command::Tables {
            arguments: true,
            check,
        } => tables::run_arguments(*check),
        Command::Deny => deny::run(&Setup::without_packages()?),
        Command::Fuzz { target, minutes } => {
            let setup = Setup::without_packages()?;
            match target {
                Some(target) => fuzz::run(&setup, &[target.as_str()], *minutes),
                None => fuzz::run(&setup, &fuzz::TARGETS, *minutes),
            }
        }
        Command::Bench {
            subject: Subject::Filter,
            ..
        } => bench::filter(&Setup::prepare()?),
        Command::Bench {
            subject: Subject::Gate,
            only,
        } => bench::gate(&Setup::prepare()?, only),
        Command::Soak {
            lives,
            restart_every,
            engine,
        } => {
            let containers = match engine {
                SoakEngine::None => bench::Containers::Cheap,
                SoakEngine::Docker => bench::Containers::Docker,
            };
            bench::soak(&Setup::prepare()?, containers, *lives, *restart_every)
        }
        Command::Audit => audit::run(&Setup::prepare()?),
        Command::Images => {
            let setup = Setup::prepare()?;
            let hapi = setup.hapi()?;
            for image in [&setup.rogue(&hapi)?, &setup.berth()?, &hapi] {
                println!("{} {}", image.reference(), image.config_digest());
            }
            Ok(())
        }
        Command::Engine => run_engine(&Setup::prepare()?),
    }
}

/// A private engine to try things with by hand.
fn run_engine(setup: &Setup) -> anyhow::Result<()> {
    let hapi = setup.hapi()?;
    let rogue = setup.rogue(&hapi)?;
    let berth = setup.berth()?;
    let docker = setup.docker(&BTreeMap::new())?;
    for image in [&hapi, &rogue, &berth] {
        docker.load(&setup.steps, image)?;
    }
    println!("export DOCKER_HOST=unix://{}", docker.socket().display());
    println!(
        "# containers with --network host are reached with: nsenter --net=/proc/{}/ns/net …",
        docker.pid()?
    );
    eprintln!("Ctrl-C ends it");
    loop {
        std::thread::park();
    }
}
