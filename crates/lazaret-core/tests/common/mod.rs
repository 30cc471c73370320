//! A small policy to vary, and what becomes of it.

use lazaret_core::format::policy::PolicyV1;
use lazaret_core::policy::{Policy, PolicyError, Problem};

/// A policy in JSON with these rules beside the required ones; `extra` replaces top-level fields.
pub(crate) fn text(rules: &str, extra: &[(&str, &str)]) -> String {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let rules = format!(
        r#"[{{"allow":["exit","exit_group","read","restart_syscall","rt_sigreturn","write"],"why":"required"}}{}{rules}]"#,
        if rules.is_empty() { "" } else { "," }
    );
    let image = format!(r#"{{"name":"t","digests":["{digest}"]}}"#);
    let mut fields = vec![
        ("apiVersion", r#""lazaret.dev/v1""#),
        ("ceiling", r#""default""#),
        (
            "environment",
            r#"{"arch":"x86_64","kernel":">=5.11","noNewPrivileges":true,"runtimes":["runc 1.1.5"]}"#,
        ),
        ("image", image.as_str()),
        ("kind", r#""SyscallPolicy""#),
        ("metadata", r#"{"name":"t","revision":1}"#),
        ("mode", r#""enforce""#),
        ("otherwise", r#"{"action":"errno","errno":"EACCES"}"#),
        ("rules", rules.as_str()),
    ];
    for (name, value) in extra {
        fields.retain(|(field, _)| field != name);
        fields.push((name, value));
    }
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

pub(crate) fn read(json: &str) -> Result<Policy, PolicyError> {
    Policy::try_from(serde_json::from_str::<PolicyV1>(json).expect("the test's JSON has the shape"))
}

#[track_caller]
pub(crate) fn problems(json: &str) -> Vec<Problem> {
    match read(json) {
        Err(PolicyError::Problems { problems }) => problems,
        other => panic!("{json}: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(json: &str, wanted: &[&str]) {
    let found: Vec<String> = problems(json).iter().map(ToString::to_string).collect();
    assert_eq!(found, wanted, "{json}");
}
