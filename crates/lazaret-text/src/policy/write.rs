//! A policy as YAML, in the order and the layout in which people read one.

use crate::error::WriteError;
use crate::tree::{self, At, Node};
use lazaret_core::format::policy::{
    CeilingV1, ConditionV1, EnvironmentV1, EvidenceV1, ImageV1, MetadataV1, ModeV1, OtherwiseV1,
    PhasesV1, PolicyV1, RuleV1, ValueV1,
};
use serde::Serialize;
use serde_saphyr::{FlowMap, FlowSeq};

/// The text of a policy, in the order in which people read one.
///
/// # Errors
/// None that a policy can cause; the writer's own.
pub fn write(wire: &PolicyV1) -> Result<String, WriteError> {
    let text = serde_saphyr::to_string(&Text {
        api_version: &wire.api_version,
        kind: &wire.kind,
        metadata: FlowMap(&wire.metadata),
        image: &wire.image,
        environment: &wire.environment,
        mode: &wire.mode,
        phases: &wire.phases,
        ceiling: &wire.ceiling,
        otherwise: FlowMap(&wire.otherwise),
        rules: wire.rules.iter().map(rule).collect(),
        evidence: wire.evidence.as_ref(),
    })?;
    Ok(hexadecimal_masks(text))
}

/// Rules as a list of its own, not indented.
///
/// # Errors
/// As [`write`].
pub(crate) fn rules(rules: &[RuleV1]) -> Result<String, WriteError> {
    #[derive(Serialize)]
    struct Only<R: Serialize> {
        rules: Vec<R>,
    }

    let rules = rules.iter().map(rule).collect();
    let text = hexadecimal_masks(serde_saphyr::to_string(&Only { rules })?);
    let list = text.strip_prefix("rules:\n").unwrap_or(&text);
    let indent = list.len() - list.trim_start_matches(' ').len();
    Ok(list
        .lines()
        .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()))
        .collect())
}

/// Masks in base 16, in which one sees the bits. The writer knows base 10 only; what it wrote is found by its place.
fn hexadecimal_masks(text: String) -> String {
    let Ok(root) = tree::parse(&text) else {
        return text;
    };
    let mut changed = String::with_capacity(text.len());
    let mut rest = 0;
    let conditions = root
        .elements("rules")
        .flat_map(|rule| rule.elements("when"));
    for mask in conditions.filter_map(|condition| condition.field("mask")) {
        let At { start, len } = mask.at;
        if let Node::Unsigned(bits @ 10..) = mask.node
            && text.get(start..start + len) == Some(bits.to_string().as_str())
            && let Some(before) = text.get(rest..start)
        {
            changed.push_str(before);
            changed.push_str(&format!("{bits:#x}"));
            rest = start + len;
        }
    }
    changed.push_str(text.get(rest..).unwrap_or_default());
    changed
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Text<'p, R: Serialize> {
    api_version: &'p str,
    kind: &'p str,
    metadata: FlowMap<&'p MetadataV1>,
    image: &'p ImageV1,
    environment: &'p EnvironmentV1,
    mode: &'p ModeV1,
    phases: &'p PhasesV1,
    ceiling: &'p CeilingV1,
    otherwise: FlowMap<&'p OtherwiseV1>,
    rules: Vec<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'p EvidenceV1>,
}

/// A rule, `C` being what a call is written as.
#[derive(Serialize)]
struct RuleText<'p, C: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<FlowSeq<&'p Vec<C>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask: Option<FlowSeq<&'p Vec<C>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<FlowSeq<&'p Vec<C>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    during: Option<FlowSeq<&'p Vec<String>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    when: Vec<FlowMap<ConditionText<'p>>>,
    why: &'p str,
}

fn rule(rule: &RuleV1) -> impl Serialize {
    RuleText {
        allow: rule.allow.as_ref().map(FlowSeq),
        ask: rule.ask.as_ref().map(FlowSeq),
        deny: rule.deny.as_ref().map(FlowSeq),
        errno: rule.errno.as_deref(),
        until: rule.until.as_deref(),
        during: rule.during.as_ref().map(FlowSeq),
        when: rule.when.iter().map(condition).collect(),
        why: &rule.why,
    }
}

#[derive(Serialize)]
struct ConditionText<'p> {
    arg: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<u64>,
    #[serde(rename = "in")]
    values: FlowSeq<&'p Vec<ValueV1>>,
}

fn condition(condition: &ConditionV1) -> FlowMap<ConditionText<'_>> {
    FlowMap(ConditionText {
        arg: &condition.arg,
        mask: condition.mask,
        values: FlowSeq(&condition.values),
    })
}
