//! Licences, sources and duplicates of all dependencies, judged by cargo-deny under `deny.toml`.
//!
//! Not part of `cargo xtask test`: cargo-deny takes four minutes of CPU time to build. Advisories are left out: their
//! database is fetched from a host that a build machine need not reach.

use crate::command::{command, exists, run_logged};
use crate::setup::Setup;

/// The version `deny.toml` was written for.
const VERSION: &str = "0.20.2";

/// Builds cargo-deny into `target/tools` when it is neither there nor in `PATH`, and runs it.
///
/// # Errors
/// When it does not build, or finds something.
pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let tools = setup.target.join("tools");
    let own = tools.join("bin/cargo-deny");
    if !own.is_file() && !exists("cargo-deny") {
        setup
            .steps
            .step("cargo-deny: build (takes minutes, once)", |_| {
                let mut install = command(
                    "cargo",
                    [
                        "install",
                        "cargo-deny",
                        "--locked",
                        "--version",
                        VERSION,
                        "--root",
                    ],
                );
                run_logged(
                    install.arg(&tools),
                    &setup.target.join("logs/cargo-deny-install.log"),
                )
            })?;
    }
    setup.steps.step("cargo-deny", |_| {
        let program = if own.is_file() {
            own.into_os_string()
        } else {
            "cargo-deny".into()
        };
        let mut deny = command(
            program,
            [
                "--workspace",
                "--locked",
                "check",
                "bans",
                "licenses",
                "sources",
            ],
        );
        run_logged(
            deny.current_dir(&setup.workspace),
            &setup.target.join("logs/cargo-deny.log"),
        )
    })
}
