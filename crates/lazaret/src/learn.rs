//! `lazaret learn`, `record` and `synth`: from an image to a policy text.

use crate::args::{Format, Learn, Naming, Record, Running, Stability, Synth};
use crate::cleanup::{Guard, write_file};
use crate::engine::{Engine, Image};
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::progress::Steps;
use crate::record::{Inside, Run, record, save};
use crate::{compile, exercise};
use anyhow::Context;
use lazaret_core::format::recording as wire;
use lazaret_core::policy::{Http, Policy, Serving, Trigger};
use lazaret_core::profile::{Profile, Unseen};
use lazaret_core::recording::{Exercise, Recording};
use lazaret_core::{filter::table, phase::Phase, synth};
use lazaret_fhir::base::Base;
use lazaret_text::policy as policy_text;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is exercised.
enum How<'a> {
    Fhir { base: String },
    Command { line: &'a str },
}

/// What a run of `learn` means.
struct Plan<'a> {
    image: Image,
    ready: Http,
    how: How<'a>,
}

/// `lazaret learn`
///
/// # Errors
/// As [`record`]; 2 when the image has no port and none is named; 5 when the evidence is incomplete. Recordings that were
/// complete stay in the directory.
pub fn learn(args: &Learn, format: Format) -> Outcome {
    let steps = Steps::new("learn");
    let engine = Engine;
    engine.version().or_exit(Exit::HostCannot)?;
    let image = engine.image(&args.image).or_exit(Exit::No)?;
    let plan = plan(&args.image, image, &args.running)?;
    let recordings_dir = args.out.join("recordings");
    std::fs::create_dir_all(&recordings_dir)
        .with_context(|| format!("cannot make directory `{}`", recordings_dir.display()))
        .or_exit(Exit::HostCannot)?;
    let mut recordings = Vec::new();
    let mut files = Vec::new();
    for number in 1..=args.runs {
        let steps = Steps::new(&format!("learn run {number} of {}", args.runs));
        let file = args.out.join(format!("coverage-{number}.json"));
        let recording = one_run(args, &plan, &steps, &file)?;
        let path = recordings_dir.join(format!("run-{number}.json"));
        save(&path, &recording)?;
        let calls = recording.observations.len();
        steps.done(&format!(
            "{calls} calls by phase, {} lost",
            recording.losses.total()
        ));
        files.push(path);
        recordings.push(recording);
    }
    steps.step("synthesising");
    let serving = Serving {
        trigger: Trigger::Http(plan.ready),
        settle_ms: args.running.settle * 1000,
        dwell_ms: 0,
    };
    let profile = Profile::of(recordings);
    let policy_file = args.out.join("policy.yaml");
    let policy = synthesise(
        &profile,
        &args.image,
        Some(serving),
        &args.naming,
        &policy_file,
    )?;
    compile::write_profile(
        &policy,
        Path::new("/run/lazaret/gate.sock"),
        &args.out.join("profile.json"),
    )?;
    steps.done(&format!("`{}` written", policy_file.display()));
    told(&profile, &policy, &policy_file, format);
    Ok(Exit::Yes)
}

fn plan<'a>(name: &str, image: Image, running: &'a Running) -> Outcome<Plan<'a>> {
    let base = match &running.fhir_base {
        Some(base) => base.clone(),
        None => {
            let ports: Vec<u16> = image.ports.iter().copied().collect();
            let [port] = ports[..] else {
                let found = match ports.len() {
                    0 => "exposes no TCP port".to_string(),
                    many => format!("exposes {many} TCP ports"),
                };
                return fail(
                    Exit::Usage,
                    format_args!("image `{name}` {found}: name the server with --fhir-base URL"),
                );
            };
            format!("http://127.0.0.1:{port}/fhir")
        }
    };
    let parsed: Base = base.parse().or_exit(Exit::Usage)?;
    let (port, path) = port_and_path(&parsed.to_string()).or_exit(Exit::Usage)?;
    let path = running
        .ready
        .clone()
        .unwrap_or_else(|| format!("{}/metadata", path.trim_end_matches('/')));
    if !path.starts_with('/') {
        return fail(
            Exit::Usage,
            format_args!("--ready `{path}` is no path: it begins with `/`"),
        );
    }
    let how = match &running.exercise_cmd {
        Some(line) => How::Command { line },
        None => How::Fhir { base },
    };
    Ok(Plan {
        image,
        ready: Http {
            port,
            path,
            status: 200,
        },
        how,
    })
}

/// `http://127.0.0.1:8080/fhir` → (8080, `/fhir`).
fn port_and_path(base: &str) -> anyhow::Result<(u16, String)> {
    let rest = base
        .strip_prefix("http://")
        .context("only plain http is spoken inside a container's network")?;
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, String::new()), |(host, path)| {
            (host, format!("/{path}"))
        });
    let port = match authority.rsplit_once(':') {
        Some((_, port)) => port
            .parse()
            .with_context(|| format!("`{port}` is no TCP port"))?,
        None => 80,
    };
    Ok((port, path))
}

fn one_run(
    args: &Learn,
    plan: &Plan<'_>,
    steps: &Steps,
    coverage_file: &Path,
) -> Outcome<Recording> {
    let mut create = args.running.run_args.clone();
    create.push(args.image.clone());
    create.extend(args.running.cmd_args.iter().cloned());
    let run = Run {
        create,
        image_name: &args.image,
        image: &plan.image,
        ready: Some(&plan.ready),
        ready_timeout: Duration::from_secs(args.running.ready_timeout),
        settle: Duration::from_secs(args.running.settle),
        dwell: Duration::from_secs(args.running.dwell),
    };
    record(&run, steps, |inside| match &plan.how {
        How::Fhir { base } => exercise_fhir(inside, base, steps, coverage_file).map(Some),
        How::Command { line } => exercise_command(inside, line, steps).map(Some),
    })
}

fn exercise_fhir(
    inside: &Inside<'_>,
    base: &str,
    steps: &Steps,
    coverage_file: &Path,
) -> Outcome<Exercise> {
    let began = Instant::now();
    let coverage = inside
        .network
        .run(|| exercise::fhir(base, 1, steps))
        .or_exit(Exit::HostCannot)??;
    let json = serde_json::to_vec(&coverage)
        .context("cannot write the coverage")
        .or_exit(Exit::HostCannot)?;
    write_file(coverage_file, &json).or_exit(Exit::HostCannot)?;
    let counts = coverage.counts();
    if counts.failed > 0 {
        let (failed, file) = (counts.failed, coverage_file.display());
        return fail(
            Exit::No,
            format_args!("{failed} interactions failed while learning, see `{file}`"),
        );
    }
    let interactions = &coverage.figures().interactions;
    Ok(Exercise {
        name: "fhir".to_string(),
        declared: interactions.declared as u64,
        succeeded: interactions.reached as u64,
        duration_ms: milliseconds(began),
    })
}

fn exercise_command(inside: &Inside<'_>, line: &str, steps: &Steps) -> Outcome<Exercise> {
    steps.step("exercising by command");
    let began = Instant::now();
    let run = || {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        let (mut child, guard) = Guard::command(&mut command)?;
        let status = child.wait()?;
        guard.keep();
        std::io::Result::Ok(status)
    };
    let status = inside
        .network
        .run(run)
        .or_exit(Exit::HostCannot)?
        .context("cannot run `sh`")
        .or_exit(Exit::HostCannot)?;
    if !status.success() {
        return fail(
            Exit::No,
            format_args!("the exercise command ended with {status}"),
        );
    }
    Ok(Exercise {
        name: line.chars().take(200).collect(),
        declared: 0,
        succeeded: 0,
        duration_ms: milliseconds(began),
    })
}

fn milliseconds(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// `lazaret record`
///
/// # Errors
/// As [`record`](crate::record::record).
pub fn record_only(args: &Record) -> Outcome {
    let steps = Steps::new("record");
    let engine = Engine;
    let ready = args.ready.as_deref().map(http).transpose()?;
    let name = image_argument(&args.run)?;
    let image = engine.image(name).or_exit(Exit::No)?;
    let run = Run {
        create: args.run.clone(),
        image_name: name,
        image: &image,
        ready: ready.as_ref(),
        ready_timeout: Duration::from_secs(args.ready_timeout),
        settle: Duration::ZERO,
        dwell: Duration::from_secs(args.seconds),
    };
    let recording = record(&run, &steps, |_| Ok(None))?;
    save(&args.out, &recording)?;
    let calls = recording.observations.len();
    steps.done(&format!(
        "{calls} calls by phase, {} lost: `{}`",
        recording.losses.total(),
        args.out.display()
    ));
    match recording.gaps().first() {
        None => Ok(Exit::Yes),
        Some(gap) => fail(
            Exit::Incomplete,
            format_args!("the recording is incomplete: {gap}"),
        ),
    }
}

/// The image among arguments of `docker run`: the first word that the engine knows as an image. Option values are tried
/// too, but a value that is an image's name is not the value of any option of `docker run` that takes another kind.
fn image_argument(run: &[String]) -> Outcome<&str> {
    let words = run.iter().filter(|word| !word.starts_with('-'));
    let mut known = words.filter(|word| Engine.image(word).is_ok());
    match known.next() {
        Some(image) => Ok(image),
        None => fail(
            Exit::No,
            "none of the arguments is an image that the engine has",
        ),
    }
}

fn http(text: &str) -> Outcome<Http> {
    let wrong = || format!("--ready `{text}` is not of the form PORT/PATH, as 8080/health");
    let (port, path) = text
        .split_once('/')
        .with_context(wrong)
        .or_exit(Exit::Usage)?;
    let port = port.parse().with_context(wrong).or_exit(Exit::Usage)?;
    Ok(Http {
        port,
        path: format!("/{path}"),
        status: 200,
    })
}

/// `lazaret synth`
///
/// # Errors
/// Exit 2 for a file that is no recording, 5 for evidence that is incomplete.
pub fn synth_only(args: &Synth, format: Format) -> Outcome {
    let recordings = args
        .recordings
        .iter()
        .map(|path| load(path))
        .collect::<Outcome<Vec<_>>>()?;
    let serving = match &args.ready {
        Some(text) => Some(Serving {
            trigger: Trigger::Http(http(text)?),
            settle_ms: args.settle * 1000,
            dwell_ms: 0,
        }),
        None => None,
    };
    let name = recordings
        .first()
        .map(|recording| recording.subject.name.clone())
        .unwrap_or_default();
    let profile = Profile::of(recordings);
    let policy = synthesise(&profile, &name, serving, &args.naming, &args.out)?;
    told(&profile, &policy, &args.out, format);
    Ok(Exit::Yes)
}

/// Reads a recording.
///
/// # Errors
/// Exit 2 for a file that is none.
pub fn load(path: &Path) -> Outcome<Recording> {
    let shown = path.display();
    let file = std::fs::File::open(path)
        .with_context(|| format!("cannot open recording `{shown}`"))
        .or_exit(Exit::Usage)?;
    let mut bytes = Vec::new();
    // one byte more than allowed, so that the reader can say so
    let bound = wire::MAX_BYTES as u64 + 1;
    file.take(bound)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read recording `{shown}`"))
        .or_exit(Exit::Usage)?;
    wire::read(&bytes)
        .with_context(|| format!("`{shown}`"))
        .or_exit(Exit::Usage)
}

fn synthesise(
    profile: &Profile,
    image: &str,
    serving: Option<Serving>,
    naming: &Naming,
    out: &Path,
) -> Outcome<Policy> {
    let request = synth::Request {
        name: naming.name.clone().unwrap_or_else(|| policy_name(image)),
        revision: naming.revision,
        serving,
        stability: match naming.stability {
            Stability::Exact => synth::Stability::Exact,
            Stability::Equivalent => synth::Stability::Equivalent,
        },
    };
    let synthesis = synth::synthesise(profile, &request)
        .context("cannot make a policy")
        .or_exit(Exit::Incomplete)?;
    for warning in &synthesis.warnings {
        eprintln!("warning: {warning}");
    }
    let yaml = policy_text::write(&synthesis.policy).or_exit(Exit::HostCannot)?;
    let policy = Policy::try_from(synthesis.policy)
        .context("the policy's own check failed")
        .or_exit(Exit::Usage)?;
    write_file(out, yaml.as_bytes()).or_exit(Exit::HostCannot)?;
    Ok(policy)
}

/// A policy's name from an image's: what the language allows of it.
fn policy_name(image: &str) -> String {
    let kept = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/') {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = image.chars().map(kept).take(128).collect();
    let name = name
        .trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_string();
    if name.is_empty() {
        "image".to_string()
    } else {
        name
    }
}

/// What came out, on standard output.
fn told(profile: &Profile, policy: &Policy, file: &PathBuf, format: Format) {
    let bands = policy.bands();
    let unseen = match profile.unseen() {
        Unseen::Unknown => "unknown (one run)".to_string(),
        Unseen::PerMille(share) => format!("{}.{} %", share / 10, share % 10),
    };
    let lost: u64 = profile
        .recordings()
        .values()
        .map(|recording| recording.losses.total())
        .sum();
    let abi = policy.abi();
    let names: Vec<&str> = bands
        .allow
        .iter()
        .filter_map(|nr| table::name_of(abi, *nr))
        .collect();
    let evidence = policy.wire().evidence.as_ref();
    let interactions = evidence
        .map(|evidence| evidence.interactions.clone())
        .unwrap_or_default();
    match format {
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "learned", "v": 1, "policy": file, "digest": policy.digest(), "runs": profile.recordings().len(),
                "lost": lost, "interactions": interactions, "unseen": unseen,
                "allow": names, "ask": bands.ask.len(), "deny": bands.deny.len(),
            })
        ),
        Format::Text => {
            println!(
                "policy       {} revision {}",
                policy.name(),
                policy.revision()
            );
            println!("digest       {}", policy.digest());
            println!(
                "evidence     {} runs, {lost} calls lost, {interactions} interactions, unseen {unseen}",
                profile.recordings().len()
            );
            println!(
                "allow band   {} calls while serving: {}",
                names.len(),
                names.join(" ")
            );
            println!(
                "ask band     {} calls, {} of them allowed in start-up",
                bands.ask.len(),
                policy
                    .allowed_in(Phase::Startup)
                    .filter(|nr| bands.ask.contains(nr))
                    .count()
            );
            println!("deny band    {} calls", bands.deny.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_have_a_port_and_a_path() {
        let read = |base: &str| port_and_path(base).ok();
        assert_eq!(
            read("http://127.0.0.1:8080/fhir"),
            Some((8080, "/fhir".to_string()))
        );
        assert_eq!(read("http://localhost"), Some((80, String::new())));
        assert_eq!(read("https://localhost"), None);
        assert_eq!(read("http://localhost:x/"), None);
    }

    #[test]
    fn names_of_images_become_names_of_policies() {
        for (image, name) in [
            ("lazaret/hapi:8.8", "lazaret/hapi-8.8"),
            ("Registry:5000/A_b@sha256:00", "registry-5000/a-b-sha256-00"),
            ("___", "image"),
        ] {
            assert_eq!(policy_name(image), name);
        }
    }
}
