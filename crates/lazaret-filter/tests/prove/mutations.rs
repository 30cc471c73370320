//! One instruction of a filter is changed: when that changes what the filter does, the proof says where; when the proof says
//! *equal*, no evaluation finds a difference.

use crate::lists::{FILES, read, table_of};
use crate::programs::{COMPUTE, JUMP};
use crate::random::SplitMix;
use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::compile;
use lazaret_filter::interpret::eval_chain_at;
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::prove::{ProveError, Space, prove};
use lazaret_filter::rule::{Call, RuleTable};

/// Mutations of each filter that the kernel would take.
const EACH: usize = 60;

/// Evaluations of each mutation that is called equal.
const EVALUATIONS: usize = 100_000;

const CONVENTIONS: [Abi; 3] = [Abi::X86_64, Abi::I386, Abi::X32];

/// The same filter with one instruction changed, if that is still a filter.
fn mutated(filter: &Program, random: &mut SplitMix) -> Option<(usize, Program)> {
    let mut instructions = filter.instructions().to_vec();
    let at = random.next() as usize % instructions.len();
    let i = &mut instructions[at];
    let before = *i;
    let pick = |random: &mut SplitMix, from: &[u16]| from[random.next() as usize % from.len()];
    match random.next() % 10 {
        0 => i.k ^= 1 << (random.next() % 32),
        1 => i.k = i.k.wrapping_add(1),
        2 => i.k = i.k.wrapping_sub(1),
        3 => i.jt = i.jt.wrapping_add(1 + (random.next() % 3) as u8),
        4 => i.jf = i.jf.wrapping_add(1 + (random.next() % 3) as u8),
        5 => i.jt = i.jt.wrapping_sub(1),
        6 => core::mem::swap(&mut i.jt, &mut i.jf),
        7 => i.code = pick(random, &JUMP),
        8 => i.code = pick(random, &COMPUTE),
        _ => {
            i.code = pick(
                random,
                &[
                    code::RET_K,
                    code::RET_A,
                    code::LD_W_LEN,
                    code::LD_IMM,
                    code::TXA,
                ],
            )
        }
    }
    if *i == before {
        return None;
    }
    Some((at, Program::new(instructions).ok()?))
}

/// Calls near everything that either filter compares with anything, for each of the conventions and some others.
struct Probes {
    constants: Vec<u32>,
    random: SplitMix,
}

impl Probes {
    fn new(programs: [&Program; 2]) -> Probes {
        let of = programs.into_iter().flat_map(Program::instructions);
        let mut constants: Vec<u32> = of
            .filter(|i| !matches!(i.code, code::RET_K | code::LD_W_ABS | code::JA))
            .map(|i: &Instruction| i.k)
            .collect();
        constants.sort_unstable();
        constants.dedup();
        Probes {
            constants,
            random: SplitMix(7),
        }
    }

    fn word(&mut self) -> u32 {
        let random = &mut self.random;
        let near = self.constants[random.next() as usize % self.constants.len()];
        match random.next() % 16 {
            0 => near.wrapping_add(1),
            1 => near.wrapping_sub(1),
            2 => near ^ 1 << (random.next() % 32),
            3 => random.next() as u32,
            4..=6 => random.next() as u32 % 64,
            _ => near,
        }
    }

    fn call(&mut self) -> (Call, u64) {
        let abi = CONVENTIONS[self.random.next() as usize % 3];
        let arch = match self.random.next() % 16 {
            0 => self.word(),
            _ => abi.audit_arch(),
        };
        let number = match self.random.next() % 4 {
            0 => self.word(),
            1 => self.word() | X32_BIT,
            2 => (self.random.next() as u32 % 512) | X32_BIT,
            _ => self.random.next() as u32 % 512,
        };
        let args = std::array::from_fn(|_| {
            let high = if self.random.next().is_multiple_of(4) {
                self.word()
            } else {
                0
            };
            u64::from(high) << 32 | u64::from(self.word())
        });
        (
            Call {
                arch,
                nr: number,
                args,
            },
            self.random.next(),
        )
    }
}

#[derive(Default, Debug)]
struct Count {
    tried: usize,
    different: usize,
    equal: usize,
    undecided: usize,
}

/// Mutates a filter that means `table`, but for the number -1.
fn check(name: &str, table: &RuleTable, filter: &Program, count: &mut Count) {
    let mut random = SplitMix(0x1a2a_4e70);
    let baseline = prove(table, std::slice::from_ref(filter)).expect("decided");
    assert!(baseline.is_equal_for_calls(), "{name}");
    let mut tried = 0;
    while tried < EACH {
        let Some((at, mutant)) = mutated(filter, &mut random) else {
            continue;
        };
        tried += 1;
        let mut space = Space::new();
        let before = space
            .of_chain(std::slice::from_ref(filter))
            .expect("decided");
        let after = match space.of_chain(std::slice::from_ref(&mutant)) {
            Ok(after) => after,
            Err(ProveError::Undecided { .. }) => {
                count.undecided += 1;
                continue;
            }
            Err(error) => panic!("{name}, instruction {at}: {error}"),
        };
        let comparison = space.compare(&before, &after).expect("decided");
        let lists = [
            &comparison.looser,
            &comparison.stricter,
            &comparison.other,
            &comparison.no_call,
        ];
        let word = |program: &Program, call: &Call, ip| {
            let outcome = eval_chain_at(std::slice::from_ref(program), call, ip);
            outcome.expect("an instruction pointer is given").verdict
        };
        for d in lists.into_iter().flatten() {
            let ip = d.instruction_pointer.unwrap_or(0);
            assert_eq!(
                word(filter, &d.call, ip),
                d.expected,
                "{name}, instruction {at}"
            );
            assert_eq!(
                word(&mutant, &d.call, ip),
                d.found,
                "{name}, instruction {at}"
            );
            assert_ne!(d.expected, d.found);
        }
        if !comparison.is_equal() {
            assert!(lists.into_iter().any(|list| !list.is_empty()));
            // the table finds it, too, wherever it is a call
            let by_table = prove(table, &[mutant]).expect("decided");
            assert_eq!(
                by_table.is_equal_for_calls(),
                comparison.is_equal_for_calls()
            );
            count.different += 1;
            continue;
        }
        count.equal += 1;
        let mut probes = Probes::new([filter, &mutant]);
        for _ in 0..EVALUATIONS {
            let (call, ip) = probes.call();
            assert_eq!(
                word(filter, &call, ip),
                word(&mutant, &call, ip),
                "{name}, instruction {at}: {call:x?}"
            );
        }
    }
    count.tried += tried;
}

#[test]
fn single_instructions() {
    let mut count = Count::default();
    for name in FILES {
        let filter = read(name);
        let abis = if name.starts_with("libseccomp") {
            &CONVENTIONS[..]
        } else {
            &CONVENTIONS[..1]
        };
        let table = table_of(&filter, abis);
        check(name, &table, &filter, &mut count);
        let own = compile(&table).expect("fits");
        check(&format!("{name}, compiled here"), &table, &own, &mut count);
    }
    println!("{count:?}");
    assert!(count.different >= 200 && count.equal >= 20, "{count:?}");
    assert!(count.undecided * 10 < count.tried, "{count:?}");
}
