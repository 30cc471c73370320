//! The conditional rules of one call as libseccomp keeps them: a tree of 32-bit tests.
//!
//! What a set of rules means to libseccomp follows from this tree, not from the rules: rules that share tests are merged,
//! rules that it takes for redundant vanish, a rule that contradicts another is refused, and where two rules hold, the order
//! of tests decides. Modelled after version 2.5.4: `_db_rule_gen_64`, `_db_rule_gen_32`, `_db_chain_lt`, `_db_chain_eq`,
//! `_db_tree_prune`, `_db_tree_add` in `src/db.c`; how a tree is walked is `_gen_bpf_chain` in `src/gen_bpf.c`.
//!
//! The sort of merge in which libseccomp loses track of its own nodes (two places of the tree share a level, and a further
//! rule changes it) is not modelled but refused, see [`Refused::Tangled`].

mod prune;

use self::prune::Trail;
use super::{OciArg, Operator};
use crate::rule::Verdict;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// Why a rule does not get into the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// libseccomp answers `EEXIST`: the same tests lead to another action.
    Conflict,
    /// What libseccomp does with it depends on how its nodes lie in memory.
    Tangled,
}

/// How many bits of an argument the convention has, and so how libseccomp compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// One 32-bit comparison of the lower half (i386, x32).
    One,
    /// Upper half first, then the lower one.
    Two,
}

/// How a word is compared with the datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// The whole word is equal.
    Equal,
    /// The masked word is equal; to libseccomp a test of its own, even where the mask is full.
    Masked,
    /// The word is larger.
    Greater,
    /// The word is as large or larger.
    GreaterOrEqual,
}

/// What decides the order of tests of the same word: the operator that the rule had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Lower,
    Upper,
    Equality,
}

/// One 32-bit test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// Whether the upper half is compared.
    pub upper: bool,
    /// How.
    pub compare: Compare,
    /// The bits that are compared.
    pub mask: u32,
    /// With what.
    pub datum: u32,
    rank: Rank,
    /// The rule's value with both halves.
    whole: u64,
}

impl Test {
    fn same(&self, other: &Test) -> bool {
        (self.arg, self.upper, self.compare, self.mask, self.datum)
            == (
                other.arg,
                other.upper,
                other.compare,
                other.mask,
                other.datum,
            )
    }

    /// Levels are sorted by this, the largest first.
    fn order(&self, other: &Test) -> Ordering {
        let place = |test: &Test| (test.arg, test.upper, test.rank);
        place(self).cmp(&place(other)).then_with(|| {
            let datum = self.datum.cmp(&other.datum);
            if self.rank == Rank::Upper {
                datum.reverse()
            } else {
                datum
            }
        })
    }
}

/// Where a test leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To the next test of the level, or out of it.
    Out,
    /// To a verdict.
    Verdict(Verdict),
    /// To a deeper level, and when nothing holds there as [`Next::Out`].
    Level(usize),
}

impl Next {
    fn verdict(self) -> Option<Verdict> {
        match self {
            Next::Verdict(verdict) => Some(verdict),
            _ => None,
        }
    }

    fn level(self) -> Option<usize> {
        match self {
            Next::Level(level) => Some(level),
            _ => None,
        }
    }
}

/// A test and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The test.
    pub test: Test,
    /// When it holds.
    pub yes: Next,
    /// When it does not.
    pub no: Next,
}

impl Node {
    fn is_leaf(&self) -> bool {
        self.yes.level().is_none() && self.no.level().is_none()
    }

    fn is_zombie(&self) -> bool {
        self.yes == Next::Out && self.no == Next::Out
    }
}

#[derive(Clone, Debug, Default)]
struct Level {
    nodes: Vec<Node>,
    /// Two places of the rule that made it lead here.
    shared: bool,
}

/// The rules of one call under one convention.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    // Levels that nothing leads to any more stay: a tree lives for one translation. All indices in `Next::Level` are of
    // levels that were pushed before, and no level is ever taken out, so indexing cannot fail.
    levels: Vec<Level>,
    top: Option<usize>,
    /// What a rule without conditions says: it replaces what is there, and nothing comes after it.
    decided: Option<Verdict>,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the tree.
    Whole,
    /// It is not, or not all of it: a rule with fewer conditions was there first.
    Covered,
    /// It is not: libseccomp takes it for redundant.
    Redundant,
}

impl Tree {
    /// The tests of a level, in the order in which they are tried.
    pub(super) fn level(&self, level: usize) -> &[Node] {
        &self.levels[level].nodes
    }

    /// Where the walk begins, or the verdict when no argument is looked at; [`Next::Out`] for a tree without rules.
    pub(super) fn top(&self) -> Next {
        match (self.decided, self.top) {
            (Some(verdict), _) => Next::Verdict(verdict),
            (None, Some(level)) => Next::Level(level),
            (None, None) => Next::Out,
        }
    }

    /// Adds a rule (`db_rule_add`). The arguments have different indices.
    pub(super) fn add(
        &mut self,
        args: &[OciArg],
        verdict: Verdict,
        words: Words,
    ) -> Result<Added, Refused> {
        if self.decided.is_some() {
            return Ok(Added::Covered);
        }
        let Some(rule) = self.chain(args, verdict, words) else {
            self.decided = Some(verdict);
            return Ok(Added::Whole);
        };
        let Some(top) = self.top else {
            self.top = Some(rule);
            return Ok(Added::Whole);
        };
        let mut trail = Trail::default();
        let pruned = self.prune(top, rule, &mut trail, verdict)?;
        if self.levels[top].nodes.is_empty() {
            self.top = Some(rule);
            return Ok(Added::Whole);
        }
        if !pruned && trail.matching && trail.tree_ended && trail.below_rule {
            return Ok(Added::Redundant);
        }
        self.merge(top, rule)
    }

    fn push(&mut self, node: Node) -> usize {
        self.levels.push(Level {
            nodes: vec![node],
            shared: false,
        });
        self.levels.len() - 1
    }

    /// The levels of a rule alone, one node each; the first one's index. `None` without conditions.
    fn chain(&mut self, args: &[OciArg], verdict: Verdict, words: Words) -> Option<usize> {
        let mut sorted: Vec<&OciArg> = args.iter().filter(|arg| !is_no_op(arg, words)).collect();
        sorted.sort_by_key(|arg| arg.index);
        let mut next = Next::Verdict(verdict);
        for arg in sorted.into_iter().rev() {
            let first = match words {
                Words::One => self.one_word(arg, next),
                Words::Two => self.two_words(arg, next),
            };
            next = Next::Level(first);
        }
        next.level()
    }

    fn one_word(&mut self, arg: &OciArg, next: Next) -> usize {
        let (compare, negated) = match arg.op {
            Operator::Equal => (Compare::Equal, false),
            Operator::MaskedEqual => (Compare::Masked, false),
            Operator::Greater => (Compare::Greater, false),
            Operator::GreaterOrEqual => (Compare::GreaterOrEqual, false),
            Operator::NotEqual => (Compare::Equal, true),
            Operator::LessOrEqual => (Compare::Greater, true),
            Operator::Less => (Compare::GreaterOrEqual, true),
        };
        let (yes, no) = if negated {
            (Next::Out, next)
        } else {
            (next, Next::Out)
        };
        self.push(Node {
            test: test(arg, false, compare),
            yes,
            no,
        })
    }

    fn two_words(&mut self, arg: &OciArg, next: Next) -> usize {
        let out = Next::Out;
        let (lower, equal_no, greater_yes, lower_sides) = match arg.op {
            Operator::Equal => (Compare::Equal, out, None, (next, out)),
            Operator::MaskedEqual => (Compare::Masked, out, None, (next, out)),
            Operator::NotEqual => (Compare::Equal, next, None, (out, next)),
            Operator::Greater => (Compare::Greater, out, Some(next), (next, out)),
            Operator::GreaterOrEqual => (Compare::GreaterOrEqual, out, Some(next), (next, out)),
            Operator::LessOrEqual => (Compare::Greater, next, Some(out), (out, next)),
            Operator::Less => (Compare::GreaterOrEqual, next, Some(out), (out, next)),
        };
        let twice = equal_no == next || greater_yes == Some(next);
        if let (Some(level), true) = (next.level(), twice) {
            self.levels[level].shared = true;
        }
        let lower = self.push(Node {
            test: test(arg, false, lower),
            yes: lower_sides.0,
            no: lower_sides.1,
        });
        let compare = if arg.op == Operator::MaskedEqual {
            Compare::Masked
        } else {
            Compare::Equal
        };
        let equal = self.push(Node {
            test: test(arg, true, compare),
            yes: Next::Level(lower),
            no: equal_no,
        });
        match greater_yes {
            None => equal,
            Some(yes) => self.push(Node {
                test: test(arg, true, Compare::Greater),
                yes,
                no: Next::Level(equal),
            }),
        }
    }

    /// Whether every verdict in the level and below it is this one.
    fn only(&self, level: usize, verdict: Verdict) -> bool {
        let side = |next: Next| match next {
            Next::Out => true,
            Next::Verdict(found) => found == verdict,
            Next::Level(level) => self.only(level, verdict),
        };
        self.levels[level]
            .nodes
            .iter()
            .all(|node| side(node.yes) && side(node.no))
    }

    /// `_db_tree_add`: the first node of a rule's level goes into the level, or becomes one with a node that is there.
    fn merge(&mut self, level: usize, rule: usize) -> Result<Added, Refused> {
        if level == rule {
            return Err(Refused::Tangled);
        }
        let new = self.levels[rule].nodes[0];
        let mut at = 0;
        while let Some(old) = self.levels[level].nodes.get(at) {
            if old.test.same(&new.test) {
                return self.merge_node(level, at, new);
            }
            if old.test.order(&new.test) == Ordering::Less {
                break;
            }
            at += 1;
        }
        self.levels[level].nodes.insert(at, new);
        Ok(Added::Whole)
    }

    fn merge_node(&mut self, level: usize, at: usize, new: Node) -> Result<Added, Refused> {
        for yes in [true, false] {
            self.merge_verdict(level, at, new, yes)?;
        }
        for yes in [true, false] {
            let side = |node: Node| if yes { node.yes } else { node.no };
            let Some(deeper) = side(new).level() else {
                continue;
            };
            let old = &mut self.levels[level].nodes[at];
            match side(*old) {
                // the rest of the rule is left out as well
                Next::Verdict(_) => return Ok(Added::Covered),
                Next::Out if yes => old.yes = Next::Level(deeper),
                Next::Out => old.no = Next::Level(deeper),
                Next::Level(existing) => {
                    if self.levels[existing].shared || self.levels[deeper].shared {
                        return Err(Refused::Tangled);
                    }
                    if self.merge(existing, deeper)? == Added::Covered {
                        return Ok(Added::Covered);
                    }
                }
            }
        }
        Ok(Added::Whole)
    }

    fn merge_verdict(
        &mut self,
        level: usize,
        at: usize,
        new: Node,
        yes: bool,
    ) -> Result<(), Refused> {
        let side = |node: Node| if yes { node.yes } else { node.no };
        let Some(verdict) = side(new).verdict() else {
            return Ok(());
        };
        let old = self.levels[level].nodes[at];
        let becomes = match side(old) {
            Next::Out => verdict,
            Next::Level(deeper) if self.only(deeper, verdict) => verdict,
            Next::Level(_) => return Err(Refused::Conflict),
            Next::Verdict(found) if found == verdict => return Ok(()),
            Next::Verdict(_) if old.is_leaf() || new.is_leaf() => return Err(Refused::Conflict),
            // upper halves that are larger are larger than both rules' values: the rule with the larger one comes first
            Next::Verdict(_) if yes && new.test.upper && new.test.whole > old.test.whole => verdict,
            Next::Verdict(_) => return Ok(()),
        };
        let old = &mut self.levels[level].nodes[at];
        if yes {
            old.yes = Next::Verdict(becomes);
        } else {
            old.no = Next::Verdict(becomes);
        }
        Ok(())
    }
}

fn side(node: Node, yes: bool) -> Next {
    if yes { node.yes } else { node.no }
}

/// Whether libseccomp leaves a condition out because it looks at no bit (`_db_arg_cmp_need_lo`, `_db_arg_cmp_need_hi`).
pub(super) fn is_no_op(arg: &OciArg, words: Words) -> bool {
    arg.op == Operator::MaskedEqual
        && match words {
            Words::One => low(arg.value) == 0,
            Words::Two => arg.value == 0,
        }
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn test(arg: &OciArg, upper: bool, compare: Compare) -> Test {
    let half = |value: u64| low(if upper { value >> 32 } else { value });
    let (mask, datum) = match arg.op {
        Operator::MaskedEqual => (arg.value, arg.value_two),
        _ => (u64::MAX, arg.value),
    };
    let rank = match arg.op {
        Operator::Equal | Operator::NotEqual | Operator::MaskedEqual => Rank::Equality,
        Operator::Less | Operator::LessOrEqual => Rank::Upper,
        Operator::Greater | Operator::GreaterOrEqual => Rank::Lower,
    };
    Test {
        arg: arg.index,
        upper,
        compare,
        mask: half(mask),
        datum: half(datum) & half(mask),
        rank,
        whole: datum,
    }
}
