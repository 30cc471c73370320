//! Rule tables by the seccompiler crate, as far as it can express them.

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::program::{Instruction, Program};
use lazaret_core::filter::rule::{Condition, Entry, RuleTable, Verdict};
use lazaret_core::filter::table;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// The rules of one call.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// A table in the form that seccompiler takes, or the sentence that says what of it has no such form. It knows two actions
/// for a filter, one convention, and no user notification.
#[derive(Clone)]
pub(crate) struct Input {
    rules: Rules,
    otherwise: SeccompAction,
}

impl Input {
    pub(crate) fn new(table: &RuleTable) -> Result<Input, String> {
        let (1, Some(numbers)) = (table.abis.len(), table.abis.get(&Abi::X86_64)) else {
            return Err("has one convention for each filter".to_owned());
        };
        let otherwise = action(numbers.otherwise)?;
        let mut rules = Rules::new();
        for (&nr, entry) in &numbers.entries {
            let name = table::name_of(Abi::X86_64, nr).unwrap_or("a call without a name");
            let of_call =
                self::rules(entry, numbers.otherwise).map_err(|what| format!("{name}: {what}"))?;
            if let Some(of_call) = of_call {
                rules.insert(i64::from(nr), of_call);
            }
        }
        Ok(Input { rules, otherwise })
    }

    /// Compiles it.
    pub(crate) fn compile(self) -> Result<BpfProgram, seccompiler::BackendError> {
        SeccompFilter::new(
            self.rules,
            self.otherwise,
            SeccompAction::Allow,
            TargetArch::x86_64,
        )?
        .try_into()
    }
}

/// What the kernel would get, as our own type.
pub(crate) fn program(compiled: &BpfProgram) -> anyhow::Result<Program> {
    let instructions = compiled.iter().map(|i| Instruction {
        code: i.code,
        jt: i.jt,
        jf: i.jf,
        k: i.k,
    });
    Ok(Program::new(instructions.collect())?)
}

fn action(verdict: Verdict) -> Result<SeccompAction, String> {
    match verdict {
        Verdict::Errno(errno) => Ok(SeccompAction::Errno(errno.into())),
        other => Err(format!("{other:?} is not tried here")),
    }
}

/// `None` for an entry that is the default.
fn rules(entry: &Entry, otherwise: Verdict) -> Result<Option<Vec<SeccompRule>>, String> {
    match (entry.branches.as_slice(), entry.otherwise) {
        ([], found) if found == otherwise => Ok(None),
        ([], Verdict::Allow) => Ok(Some(Vec::new())),
        (branches, found)
            if found == otherwise && branches.iter().all(|b| b.verdict == Verdict::Allow) =>
        {
            let mut rules = Vec::new();
            for branch in branches {
                rules.extend(alternatives(&branch.all)?);
            }
            Ok(Some(rules))
        }
        (_, found) => Err(format!(
            "{found:?} beside {otherwise:?} and Allow is a third action"
        )),
    }
}

/// One rule for each combination of values.
fn alternatives(conditions: &[Condition]) -> Result<Vec<SeccompRule>, String> {
    let mut all: Vec<Vec<SeccompCondition>> = vec![Vec::new()];
    for condition in conditions {
        let mut next = Vec::new();
        for before in &all {
            for range in condition.values.ranges() {
                let mut one = before.clone();
                let (first, last) = range.into_inner();
                if first == last {
                    one.push(compare(
                        condition,
                        SeccompCmpOp::MaskedEq(condition.mask),
                        first,
                    )?);
                } else {
                    one.push(compare(condition, SeccompCmpOp::Ge, first)?);
                    one.push(compare(condition, SeccompCmpOp::Le, last)?);
                }
                next.push(one);
            }
        }
        all = next;
    }
    all.into_iter()
        .map(|conditions| SeccompRule::new(conditions).map_err(|error| error.to_string()))
        .collect()
}

fn compare(
    condition: &Condition,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, String> {
    let length = if condition.mask >> 32 == 0 {
        SeccompCmpArgLen::Dword
    } else {
        SeccompCmpArgLen::Qword
    };
    let whole = condition.mask == u64::MAX || condition.mask == u64::from(u32::MAX);
    if !whole && !matches!(op, SeccompCmpOp::MaskedEq(_)) {
        return Err("has no order under a mask".to_owned());
    }
    SeccompCondition::new(condition.arg, length, op, value).map_err(|error| error.to_string())
}
