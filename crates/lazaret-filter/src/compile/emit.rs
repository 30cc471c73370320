//! Lays a decision graph out as instructions.
//!
//! Instructions are emitted from the last to the first. Jumps in classic BPF only go forward, so every target is placed
//! before the jumps to it are, and its distance is known. A conditional jump reaches over 255 instructions; beyond that it
//! goes by a trampoline (`ja`, which reaches everything), or by a second return.

use super::CompileError;
use super::graph::{Graph, Id, Node};
use crate::program::{Instruction, MAX_INSTRUCTIONS, Program, code};
use crate::rule::Verdict;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Emits what can be reached from `root`.
pub(super) fn emit(graph: &Graph, root: Id) -> Result<Program, CompileError> {
    let mut emitter = Emitter {
        graph,
        reversed: Vec::new(),
        labels: BTreeMap::new(),
        returns: BTreeMap::new(),
    };
    emitter.place(root);
    // a root that only returns has not been placed by anything that leads to it
    emitter.before(root);
    emitter.finish()
}

/// Collects instructions from the last to the first.
struct Emitter<'g> {
    graph: &'g Graph,
    /// The last instruction of the program is the first here.
    reversed: Vec<Instruction>,
    /// For each emitted node, returns left out, the index in `reversed` of the latest instruction that leads to it: itself
    /// or a trampoline.
    labels: BTreeMap<Id, usize>,
    /// The latest return of a verdict.
    returns: BTreeMap<Verdict, usize>,
}

impl Emitter<'_> {
    fn push(&mut self, instruction: Instruction) -> usize {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }

    /// Emits a node after everything that it leads to. A list of open work instead of recursion, because a chain of
    /// branches can be thousands of nodes deep.
    fn place(&mut self, root: Id) {
        enum Step {
            Visit(Id),
            Emit(Id),
        }
        let mut open = alloc::vec![Step::Visit(root)];
        while let Some(step) = open.pop() {
            match step {
                Step::Visit(id) if self.labels.contains_key(&id) => {}
                Step::Visit(id) => match self.graph.node(id) {
                    Node::Return(_) => {}
                    Node::Load { then, .. } | Node::And { then, .. } => {
                        open.extend([Step::Emit(id), Step::Visit(then)]);
                    }
                    // What comes off the list first is placed farther away. The failing side of a search for a number is
                    // its lower part: so code has the order of the numbers.
                    Node::Test { holds, fails, .. } => {
                        open.extend([Step::Emit(id), Step::Visit(fails), Step::Visit(holds)]);
                    }
                },
                Step::Emit(id) => {
                    let at = match self.graph.node(id) {
                        Node::Return(_) => continue,
                        Node::Load { offset, then } => {
                            self.before(then);
                            self.push(Instruction::statement(code::LD_W_ABS, offset))
                        }
                        Node::And { mask, then } => {
                            self.before(then);
                            self.push(Instruction::statement(code::AND_K, mask))
                        }
                        Node::Test {
                            code,
                            k,
                            holds,
                            fails,
                        } => self.jump(code, k, holds, fails),
                    };
                    self.labels.insert(id, at);
                }
            }
        }
    }

    /// The index of the latest instruction that leads to a target.
    fn latest(&self, target: Id) -> Option<usize> {
        match self.graph.node(target) {
            Node::Return(verdict) => self.returns.get(&verdict).copied(),
            _ => self.labels.get(&target).copied(),
        }
    }

    /// The instructions between the one that will be emitted next and the target.
    fn skipped(&self, target: Id) -> Option<usize> {
        let latest = self.latest(target)?;
        // an emitted index is below the length
        Some(self.reversed.len() - 1 - latest)
    }

    /// Makes sure that a jump can reach the target with at most `limit` skipped instructions.
    fn reach(&mut self, target: Id, limit: usize) {
        if self.skipped(target).is_some_and(|skipped| skipped <= limit) {
            return;
        }
        let at = self.lead(target);
        match self.graph.node(target) {
            Node::Return(verdict) => self.returns.insert(verdict, at),
            _ => self.labels.insert(target, at),
        };
    }

    /// An instruction that leads to the target from wherever that is.
    fn lead(&mut self, target: Id) -> usize {
        match (self.graph.node(target), self.skipped(target)) {
            // a second return costs as much as a trampoline, and runs faster
            (Node::Return(verdict), _) => {
                self.push(Instruction::statement(code::RET_K, verdict.to_raw()))
            }
            (_, Some(skipped)) => {
                // Beyond 4096 the program is refused in the end, long before 32 bits are full.
                let k = u32::try_from(skipped).unwrap_or(u32::MAX);
                self.push(Instruction::statement(code::JA, k))
            }
            (_, None) => unreachable!("`place` emits a node after everything that it leads to"),
        }
    }

    /// Makes sure that the next instruction runs into the target. A test that stands elsewhere is repeated when that takes
    /// no more than the jump to it.
    fn before(&mut self, target: Id) {
        if self.skipped(target) == Some(0) {
            return;
        }
        match self.graph.node(target) {
            Node::Test {
                code,
                k,
                holds,
                fails,
            } if [holds, fails]
                .iter()
                .all(|&way| self.skipped(way).is_some_and(|skipped| skipped < 255)) =>
            {
                let at = self.jump(code, k, holds, fails);
                self.labels.insert(target, at);
            }
            // jumps can still go straight to the target: what was noted of it stays
            _ => {
                self.lead(target);
            }
        }
    }

    /// A conditional jump.
    fn jump(&mut self, code: u16, k: u32, holds: Id, fails: Id) -> usize {
        // one less, because the other way's trampoline can come in between
        self.reach(holds, 254);
        self.reach(fails, 255);
        let offset = |target: Id| {
            self.skipped(target)
                .and_then(|skipped| u8::try_from(skipped).ok())
                .expect("`reach` brought the target within 255 instructions")
        };
        let (jt, jf) = (offset(holds), offset(fails));
        self.push(Instruction::jump(code, k, jt, jf))
    }

    fn finish(mut self) -> Result<Program, CompileError> {
        let found = self.reversed.len();
        if found > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong { found });
        }
        self.reversed.reverse();
        Program::new(self.reversed).map_err(CompileError::Invalid)
    }
}
