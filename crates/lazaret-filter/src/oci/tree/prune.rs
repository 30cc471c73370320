//! How libseccomp takes out of a tree what a new rule makes redundant, and finds out whether the new rule is (`_db_tree_prune`,
//! `src/db.c`).
//!
//! Decides nothing about rules with other tests: those are merged by the parent module.

use super::{Next, Node, Refused, Tree, side};
use crate::rule::Verdict;
use core::cmp::Ordering;

/// How far the search for redundant rules has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trail {
    pub(super) matching: bool,
    pub(super) matched_once: bool,
    pub(super) rule_ended: bool,
    pub(super) tree_ended: bool,
    pub(super) below_tree: bool,
    pub(super) below_rule: bool,
}

impl Trail {
    fn join(&mut self, other: Trail) {
        self.matching |= other.matching;
        self.matched_once |= other.matched_once;
        self.rule_ended |= other.rule_ended;
        self.tree_ended |= other.tree_ended;
        self.below_tree |= other.below_tree;
        self.below_rule |= other.below_rule;
    }
}

enum Pruned {
    Stop,
    Goon(bool),
}

impl Tree {
    /// `_db_tree_prune`: takes out what the rule makes redundant, and finds out whether the rule is. Says whether it took
    /// something out.
    pub(super) fn prune(
        &mut self,
        level: usize,
        rule: usize,
        trail: &mut Trail,
        verdict: Verdict,
    ) -> Result<bool, Refused> {
        if trail.matched_once && !trail.matching {
            return Ok(false);
        }
        let new = self.levels[rule].nodes[0];
        let mut seen = *trail;
        let mut pruned = false;
        let mut at = 0;
        let found = loop {
            let Some(&old) = self.levels[level].nodes.get(at) else {
                // fell through: nothing matched
                break false;
            };
            let count = self.levels[level].nodes.len();
            if old.test.same(&new.test) {
                match self.prune_same(level, at, new, *trail, &mut seen, verdict)? {
                    Pruned::Stop => break true,
                    Pruned::Goon(some) => pruned |= some,
                }
            } else if old.test.order(&new.test) == Ordering::Less {
                if trail.below_rule {
                    break true;
                }
                let mut stop = false;
                for yes in [true, false] {
                    let Some(deeper) = side(old, yes).level() else {
                        continue;
                    };
                    let mut below = *trail;
                    below.matching = false;
                    below.below_tree = true;
                    pruned |= self.prune(deeper, rule, &mut below, verdict)?;
                    let gone = self.tidy(level, at, yes);
                    if below.matching {
                        seen.join(below);
                        stop = true;
                        break;
                    }
                    if gone {
                        break;
                    }
                }
                if stop {
                    break true;
                }
            } else {
                if trail.below_tree {
                    break true;
                }
                let mut stop = false;
                for yes in [true, false] {
                    let Some(rest) = side(new, yes).level() else {
                        continue;
                    };
                    let mut below = *trail;
                    below.matching = false;
                    below.below_rule = true;
                    // below a rule nothing is taken out
                    self.prune(level, rest, &mut below, verdict)?;
                    if below.matching {
                        seen.join(below);
                        stop = true;
                        break;
                    }
                }
                if stop {
                    break true;
                }
            }
            if self.levels[level].nodes.len() == count {
                at += 1;
            }
        };
        if found && seen.matching {
            trail.join(seen);
        } else {
            trail.matching = false;
        }
        Ok(pruned)
    }

    /// A node of the tree with the very test of the rule's.
    fn prune_same(
        &mut self,
        level: usize,
        at: usize,
        new: Node,
        trail: Trail,
        seen: &mut Trail,
        verdict: Verdict,
    ) -> Result<Pruned, Refused> {
        if self.levels[level].shared {
            return Err(Refused::Tangled);
        }
        let old = self.levels[level].nodes[at];
        seen.matching = true;
        seen.matched_once = true;
        seen.rule_ended |= new.is_leaf();
        seen.tree_ended |= old.is_leaf();
        for yes in [true, false] {
            if side(old, yes) != Next::Out && side(new, yes) == Next::Out {
                return Ok(Pruned::Stop);
            }
        }
        let verdicts = |node: Node| (node.yes.verdict(), node.no.verdict());
        if seen.rule_ended && seen.tree_ended && verdicts(old) != verdicts(new) {
            return Ok(Pruned::Stop);
        }
        let mut pruned = false;
        for yes in [true, false] {
            let Some(rest) = side(new, yes).level() else {
                continue;
            };
            let mut below = trail;
            below.matching = true;
            below.matched_once = true;
            let mut gone = false;
            if let Some(deeper) = side(old, yes).level() {
                pruned |= self.prune(deeper, rest, &mut below, verdict)?;
                gone = self.tidy(level, at, yes);
            }
            if below.matching {
                seen.join(below);
            }
            if gone {
                return Ok(Pruned::Goon(true));
            }
        }
        if seen.matching && self.only(level, verdict) {
            if seen.rule_ended && seen.below_tree {
                self.levels[level].nodes.remove(at);
                return Ok(Pruned::Goon(true));
            }
            if seen.tree_ended && seen.below_rule {
                return Ok(Pruned::Stop);
            }
        }
        Ok(Pruned::Goon(pruned))
    }

    /// Forgets a level that has become empty, and the node that then leads nowhere. Says whether the node is gone.
    fn tidy(&mut self, level: usize, at: usize, yes: bool) -> bool {
        let node = self.levels[level].nodes[at];
        let empty = side(node, yes)
            .level()
            .is_some_and(|deeper| self.levels[deeper].nodes.is_empty());
        if !empty {
            return false;
        }
        let node = &mut self.levels[level].nodes[at];
        if yes {
            node.yes = Next::Out;
        } else {
            node.no = Next::Out;
        }
        let gone = node.is_zombie();
        if gone {
            self.levels[level].nodes.remove(at);
        }
        gone
    }
}
