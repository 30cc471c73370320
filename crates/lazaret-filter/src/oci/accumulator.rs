//! Where libseccomp's code for a tree of tests compares the wrong word.
//!
//! libseccomp leaves out a load when the test before left the same word in the accumulator. A test can also be reached from
//! deeper ones, which left another word there; then the load is put back, but only if the first place that libseccomp comes
//! from while it lays out the blocks is such a one (`_gen_bpf_node`, `_gen_bpf_chain` and the loop "pull in all of the
//! TGT_PTR_HSH jumps" of `_gen_bpf_build_bpf`, `src/gen_bpf.c` of 2.5.4). `a0 <= 0 or a0 <= 2^32` is wrongly compiled like
//! that. This module finds out whether some jump arrives with another word than the test expects; such filters are refused,
//! not modelled.

use super::tree::{Compare, Next, Node, Test, Tree};
use crate::rule::Verdict;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// The most blocks that are laid out; a filter has at most 4096 instructions, and equal blocks are one.
const MAX_BLOCKS: usize = 1 << 16;

/// Why a tree's code cannot be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsound {
    /// Some test compares another word than it means.
    WrongWord,
    /// More than [`MAX_BLOCKS`].
    TooLarge,
}

/// What the accumulator holds: a half of an argument, and which of its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Holds {
    arg: u8,
    upper: bool,
    mask: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// The default action.
    Default,
    Return(Verdict),
    Block(usize),
}

/// One test with what it does to the accumulator before. Equal ones are one block, also of different calls (`_hsh_add`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    /// `None` when it loads its word itself.
    expects: Option<Holds>,
    leaves: Holds,
    compare: (bool, bool),
    datum: u32,
    yes: Target,
    no: Target,
}

/// The blocks of all calls of a filter.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    ids: BTreeMap<Block, usize>,
    blocks: Vec<Block>,
    /// Whether the load was put back, for blocks that expect a word.
    reloads: BTreeMap<usize, bool>,
    laid_out: usize,
}

impl Blocks {
    /// Lays out the code of one more call.
    ///
    /// Which of two calls comes first is not modelled: where it would matter for a block that they share, the answer is
    /// [`Unsound::WrongWord`].
    pub(super) fn add(&mut self, tree: &Tree) -> Result<(), Unsound> {
        let Next::Level(top) = tree.top() else {
            return Ok(());
        };
        let first = self.level(tree, top, Target::Default, None)?;
        let mut reloads: BTreeMap<usize, bool> = BTreeMap::new();
        // depth first, the jump for "holds" before the other
        let mut pulls = vec![(first, None)];
        let mut edges = Vec::new();
        while let Some((target, from)) = pulls.pop() {
            let Target::Block(id) = target else {
                continue;
            };
            // ids are indices of `blocks`, which only grows
            let block = self.blocks[id];
            edges.push((id, from));
            if reloads.contains_key(&id) {
                continue;
            }
            reloads.insert(id, block.expects.is_some() && block.expects != from);
            pulls.push((block.no, Some(block.leaves)));
            pulls.push((block.yes, Some(block.leaves)));
        }
        for (id, from) in edges {
            let expects = self.blocks[id].expects;
            let reloaded = reloads.get(&id) == Some(&true);
            if expects.is_some() && !reloaded && expects != from {
                return Err(Unsound::WrongWord);
            }
        }
        for (id, reload) in reloads {
            if *self.reloads.entry(id).or_insert(reload) != reload {
                return Err(Unsound::WrongWord);
            }
        }
        Ok(())
    }

    /// `_gen_bpf_chain`: the first block of a level, from which `out` is reached when nothing holds.
    fn level(
        &mut self,
        tree: &Tree,
        level: usize,
        out: Target,
        holds: Option<Holds>,
    ) -> Result<Target, Unsound> {
        let mut holds = holds;
        let mut prepared: Vec<(&Node, Option<Holds>, Holds)> = Vec::new();
        for node in tree.level(level) {
            let (expects, leaves) = accumulator(&node.test, holds);
            prepared.push((node, expects, leaves));
            holds = Some(leaves);
        }
        let mut next = out;
        for (node, expects, leaves) in prepared.into_iter().rev() {
            self.laid_out += 1;
            if self.laid_out > MAX_BLOCKS {
                return Err(Unsound::TooLarge);
            }
            let mut side = |to: Next| match to {
                Next::Out => Ok(next),
                Next::Verdict(verdict) => Ok(Target::Return(verdict)),
                Next::Level(deeper) => self.level(tree, deeper, next, Some(leaves)),
            };
            let (yes, no) = (side(node.yes)?, side(node.no)?);
            let block = Block {
                expects,
                leaves,
                compare: (
                    node.test.compare == Compare::Greater,
                    node.test.compare == Compare::GreaterOrEqual,
                ),
                datum: node.test.datum,
                yes,
                no,
            };
            let id = *self.ids.entry(block).or_insert_with(|| {
                self.blocks.push(block);
                self.blocks.len() - 1
            });
            next = Target::Block(id);
        }
        Ok(next)
    }
}

/// `_gen_bpf_node`: what the test expects in the accumulator, if it does not load it, and what it leaves there.
fn accumulator(test: &Test, holds: Option<Holds>) -> (Option<Holds>, Holds) {
    let leaves = Holds {
        arg: test.arg,
        upper: test.upper,
        mask: test.mask,
    };
    let usable = holds.filter(|holds| {
        (holds.arg, holds.upper) == (test.arg, test.upper) && holds.mask & test.mask == test.mask
    });
    (usable, leaves)
}
