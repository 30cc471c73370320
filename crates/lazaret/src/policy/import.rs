//! `lazaret policy import`: a profile as a policy text.

use crate::args::{Format, Import};
use crate::cleanup::write_file;
use crate::exit::{Exit, OrExit, Outcome};
use crate::given;
use anyhow::Context;
use lazaret_core::policy::import::{Subject, import};

pub(super) fn main(args: &Import, format: Format) -> Outcome {
    let profile = given::profile(&args.file, &args.host)?;
    let file = args.file.display().to_string();
    let name = args.name.clone().unwrap_or_else(|| {
        let stem = args.file.file_stem().unwrap_or_default();
        let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let stem = stem.to_string_lossy().to_ascii_lowercase();
        stem.chars().map(fits).collect()
    });
    // a reason is one short line
    let shown: String = file.chars().filter(|c| !c.is_control()).take(200).collect();
    let subject = Subject {
        image: args.image.clone().unwrap_or_else(|| name.clone()),
        name,
        digests: args.digests.clone(),
        no_new_privileges: args.no_new_privileges,
        source: format!("the profile {shown}"),
    };
    let imported = import(&profile.table, profile.abi, subject)
        .with_context(|| format!("cannot import profile `{file}`"))
        .or_exit(Exit::Usage)?;
    given::tell(&profile.notes);
    profile.tell_without_table("are closed by the policy");
    let notes: Vec<String> = imported.notes.iter().map(ToString::to_string).collect();
    given::tell(&notes);
    let policy = &imported.policy;
    let text = lazaret_text::policy::write(policy.wire()).or_exit(Exit::HostCannot)?;
    write_file(&args.out, text.as_bytes()).or_exit(Exit::HostCannot)?;
    match format {
        Format::Text => println!(
            "{} revision {}: {}",
            policy.name(),
            policy.revision(),
            policy.digest()
        ),
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "imported", "v": 1, "name": policy.name(), "digest": policy.digest(),
                "profile_notes": profile.notes, "notes": notes,
            })
        ),
    }
    Ok(Exit::Yes)
}
