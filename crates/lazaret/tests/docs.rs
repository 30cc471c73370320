//! What the documentation shows is what the programs do; the policy language has a file of its own, `policy_page.rs`.

use std::path::Path;

fn doc(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_verb_is_in_the_manual() {
    use clap::CommandFactory;
    let manual = doc("docs/cli.md");
    let command = lazaret::args::Cli::command();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name();
        let shown = manual.contains(&format!("`{name}")) || manual.contains(&format!("│{name}"));
        assert!(shown, "`lazaret {name}` is not in docs/cli.md");
    }
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    use lazaret::exit::Exit;
    let manual = doc("docs/cli.md");
    for exit in [
        Exit::Yes,
        Exit::No,
        Exit::Usage,
        Exit::HostCannot,
        Exit::NotTrusted,
        Exit::Incomplete,
        Exit::Interrupted,
    ] {
        assert!(manual.contains(&format!("| {} |", exit.code())), "{exit:?}");
    }
}
