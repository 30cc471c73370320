//! Man pages and completions from the clap definitions.

use crate::args::{Cli, Man};
use crate::exit::{Exit, OrExit, Outcome};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

/// `lazaret man`
///
/// # Errors
/// Exit 3 when the directory cannot be written.
pub fn main(args: &Man) -> Outcome {
    let shown = args.out.display();
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make directory `{shown}`"))
        .or_exit(Exit::HostCannot)?;
    let written = clap_mangen::generate_to(Cli::command(), &args.out);
    written
        .with_context(|| format!("cannot write man pages to `{shown}`"))
        .or_exit(Exit::HostCannot)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let written = clap_complete::generate_to(shell, &mut Cli::command(), "lazaret", &args.out);
        written
            .with_context(|| format!("cannot write completions to `{shown}`"))
            .or_exit(Exit::HostCannot)?;
    }
    Ok(Exit::Yes)
}
