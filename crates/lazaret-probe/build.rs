//! Compiles `src/bpf/recorder.bpf.c` to the BPF object that the crate embeds.
//!
//! It needs clang and nothing else: the header files of libbpf come with `libbpf-cargo`, and no kernel header is used.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/bpf/recorder.bpf.c";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    if arch != "x86_64" {
        return Err(format!(
            "lazaret-probe records on x86_64 only, and the target is {arch}"
        ));
    }
    if Command::new("clang").arg("--version").output().is_err() {
        return Err(
            "lazaret-probe needs clang to compile its eBPF program: apt-get install clang".into(),
        );
    }
    let out_dir = env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
    let object = PathBuf::from(out_dir).join("recorder.bpf.o");
    SkeletonBuilder::new()
        .source(SOURCE)
        // v3 instructions (Linux 5.12): atomics that return the old value
        .clang_args(["-mcpu=v3", "-Wall", "-Werror"])
        .obj(object)
        .build()
        .map_err(|error| format!("cannot compile {SOURCE}: {error:#}"))
}
