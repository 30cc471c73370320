//! Exercises a server: `exercise URL RUN [COVERAGE.json]`.
use lazaret_fhir::exercise::{Plan, run};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, url, number, rest @ ..] = args.as_slice() else {
        return Err("usage: exercise URL RUN [COVERAGE.json]".into());
    };
    let coverage = run(&Plan::new(url.parse()?, number.parse()?), &())?;
    if let [file] = rest {
        std::fs::write(file, serde_json::to_vec_pretty(&coverage)?)?;
    }
    print!("{coverage}");
    Ok(())
}
