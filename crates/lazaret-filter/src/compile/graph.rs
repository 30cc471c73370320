//! The decision graph between tables and instructions: nodes with equal meaning exist once (value numbering).
//!
//! Knows nothing of distances and order; that is the work of [`super::emit`].

use crate::rule::Verdict;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A node of a [`Graph`]. Equal nodes have equal ids, so an id also says what the code from there on does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(usize);

/// One step of a filter. `A` is the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// The end.
    Return(Verdict),
    /// `A` becomes the word at this offset of `struct seccomp_data`.
    Load {
        /// Bytes from its start.
        offset: u32,
        /// What follows.
        then: Id,
    },
    /// `A &= mask`.
    And {
        /// The bits that stay.
        mask: u32,
        /// What follows.
        then: Id,
    },
    /// A jump that depends on `A`.
    Test {
        /// `JEQ_K`, `JGE_K` or `JSET_K` of [`crate::program::code`].
        code: u16,
        /// What `A` is compared with.
        k: u32,
        /// What follows when the test holds.
        holds: Id,
        /// What follows when it does not.
        fails: Id,
    },
}

/// All nodes, in the order in which they were made: a node only leads to older ones.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    ids: BTreeMap<Node, Id>,
}

impl Graph {
    fn intern(&mut self, node: Node) -> Id {
        let nodes = &mut self.nodes;
        *self.ids.entry(node).or_insert_with(|| {
            nodes.push(node);
            Id(nodes.len() - 1)
        })
    }

    pub(super) fn node(&self, id: Id) -> Node {
        // ids are only made by `intern`, and nodes never go away
        self.nodes[id.0]
    }

    pub(super) fn verdict(&mut self, verdict: Verdict) -> Id {
        self.intern(Node::Return(verdict))
    }

    /// A load, or only what follows when that does not look at `A`.
    pub(super) fn load(&mut self, offset: u32, then: Id) -> Id {
        if self.ignores_accumulator(then) {
            return then;
        }
        self.intern(Node::Load { offset, then })
    }

    /// A mask, or only what follows when that does not look at `A`.
    pub(super) fn and(&mut self, mask: u32, then: Id) -> Id {
        if mask == u32::MAX || self.ignores_accumulator(then) {
            return then;
        }
        self.intern(Node::And { mask, then })
    }

    /// A test, or only what follows when both ways lead to the same place.
    pub(super) fn test(&mut self, code: u16, k: u32, holds: Id, fails: Id) -> Id {
        if holds == fails {
            return holds;
        }
        self.intern(Node::Test {
            code,
            k,
            holds,
            fails,
        })
    }

    fn ignores_accumulator(&self, id: Id) -> bool {
        matches!(self.node(id), Node::Return(_) | Node::Load { .. })
    }

    /// The nodes between `root` and `end`, returns left out: about the instructions that they need. Counts to `limit` only.
    pub(super) fn size(&self, root: Id, end: Id, limit: usize) -> usize {
        let mut seen = BTreeSet::new();
        let mut open = alloc::vec![root];
        while let Some(id) = open.pop()
            && seen.len() < limit
        {
            let (next, second) = match self.node(id) {
                Node::Return(_) => continue,
                Node::Load { then, .. } | Node::And { then, .. } => (then, None),
                Node::Test { holds, fails, .. } => (holds, Some(fails)),
            };
            if id != end && seen.insert(id) {
                open.push(next);
                open.extend(second);
            }
        }
        seen.len()
    }
}
