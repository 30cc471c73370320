//! Filters as bytes: checked as the kernel checks them, run, shown, compared.

use crate::calls::Calls;
use lazaret_filter::abi::Abi;
use lazaret_filter::bitmap;
use lazaret_filter::chain::check_length;
use lazaret_filter::disasm::disassemble;
use lazaret_filter::interpret::{eval, eval_chain, eval_chain_at};
use lazaret_filter::program::{
    DATA_BYTES, INSTRUCTION_BYTES, Instruction, MEMORY_WORDS, Program, code,
};
use lazaret_filter::prove::{NO_CALL, ProveError, Space};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use std::collections::BTreeMap;

/// Calls that are tried for each filter.
const TRIED: usize = 64;
/// Instructions of a filter that is run.
const LONGEST: usize = 256;
/// Instructions of a filter that is proved: what more of them could show costs more than it is worth.
const LONGEST_PROVED: usize = 64;

/// What must hold for the bytes of a filter.
///
/// - Checking them ends; a filter that passes comes back as the same bytes.
/// - Running ends with a verdict, or says that the filter reads the instruction pointer. A chain of one filter is that
///   filter. Showing it ends.
/// - What the bitmap has is allowed whatever the arguments.
/// - The prover gives up, or its verdict for a call is the interpreter's. Compared with a fixed table, what it calls equal
///   decides equally, what it calls at least as strict is, and each difference is one.
///
/// Few byte strings are filters. From one that is none a filter is made that is like it, see [`repaired`].
///
/// # Panics
/// When one of them does not.
pub fn bpf(data: &[u8]) {
    let program = match Program::from_bytes(data) {
        Ok(program) => {
            assert_eq!(program.to_bytes(), data, "other bytes come back");
            program
        }
        Err(_) => repaired(data),
    };
    let length = program.instructions().len();
    if length > LONGEST {
        return;
    }
    for abi in Abi::ALL {
        assert!(!disassemble(&program, abi).is_empty());
    }
    let chain = [program];
    check_length(&chain).expect("a chain of one filter is never too long");
    runs(data, &chain);
    if length <= LONGEST_PROVED {
        proves(data, &chain);
    }
}

fn runs(data: &[u8], chain: &[Program; 1]) {
    let [program] = chain;
    for call in Calls::new(data).near_program(program).take(TRIED) {
        let alone = eval(program, &call);
        assert_eq!(alone, eval_chain(chain, &call), "{call:x?}");
        if let Some((abi, nr)) = Abi::of(call.arch, call.nr)
            && bitmap::allows(chain, abi, nr)
        {
            let verdict = alone.expect("the bitmap is filled without it").verdict;
            assert_eq!(verdict, Verdict::Allow, "{call:x?}");
        }
    }
}

fn proves(data: &[u8], chain: &[Program; 1]) {
    let table = fixed_table();
    let mut space = Space::new();
    let expected = space.of_table(&table).expect("the table is small");
    let Some(found) = decided(space.of_chain(chain)) else {
        return;
    };
    let comparison = decided(space.compare(&expected, &found));
    let [program] = chain;
    let calls = Calls::new(data).near_program(program).near_table(&table);
    for (nth, call) in (0u64..).zip(calls.take(TRIED)) {
        // addresses below and above 4 GiB: their halves are loaded one by one
        let from = nth << 28;
        let run = eval_chain_at(chain, &call, from).expect("a chain has a verdict");
        let proved = space
            .verdict(&found, &call, from)
            .expect("it is of this space");
        assert_eq!(proved, run.verdict, "{call:x?} from {from:#x}");
        let Some(comparison) = &comparison else {
            continue;
        };
        let wanted = table.decide(&call);
        if comparison.is_equal() {
            assert_eq!(run.verdict, wanted, "called equal: {call:x?}");
        }
        if comparison.is_at_least_as_strict() && call.nr != NO_CALL {
            assert!(
                run.verdict.permissiveness() <= wanted.permissiveness(),
                "called as strict: {call:x?}"
            );
        }
    }
    let lists = comparison
        .iter()
        .flat_map(|found| [&found.looser, &found.stricter, &found.other, &found.no_call]);
    for difference in lists.flatten() {
        let call = &difference.call;
        let from = difference.instruction_pointer.unwrap_or(0);
        let run = eval_chain_at(chain, call, from).expect("a chain has a verdict");
        assert_eq!(run.verdict, difference.found, "{difference:x?}");
        assert_eq!(table.decide(call), difference.expected, "{difference:x?}");
        assert_ne!(difference.expected, difference.found, "{difference:x?}");
    }
}

/// What was proved; nothing where the prover says that it cannot. Its other errors are findings.
fn decided<T>(result: Result<T, ProveError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(
            ProveError::Undecided { .. } | ProveError::TooLarge | ProveError::TooManyRanges { .. },
        ) => None,
        Err(error) => panic!("{error}"),
    }
}

/// A verdict of every kind, with and without conditions.
fn fixed_table() -> RuleTable {
    let condition = |arg, mask, values: Values| Condition { arg, mask, values };
    let conditional = |all, verdict, otherwise| Entry {
        branches: vec![Branch { all, verdict }],
        otherwise,
    };
    let numbers = Numbers {
        entries: BTreeMap::from([
            (0, Entry::always(Verdict::Allow)),
            (1, Entry::always(Verdict::Log)),
            (
                9,
                conditional(
                    vec![condition(2, 7, [0, 1, 3].into())],
                    Verdict::Allow,
                    Verdict::Ask,
                ),
            ),
            (
                41,
                conditional(
                    vec![
                        condition(0, 0xffff_ffff, Values::of([1..=2, 10..=10])),
                        condition(1, u64::MAX, Values::of([0..=1 << 40])),
                    ],
                    Verdict::Errno(97),
                    Verdict::Trap(1),
                ),
            ),
        ]),
        otherwise: Verdict::Errno(1),
    };
    let arm = Numbers {
        entries: BTreeMap::new(),
        otherwise: Verdict::Allow,
    };
    RuleTable {
        abis: BTreeMap::from([(Abi::X86_64, numbers), (Abi::Aarch64, arm)]),
        foreign: Verdict::KillProcess,
    }
}

/// Codes of every kind, so that a byte chooses one of them.
const CODES: [u16; 40] = [
    code::LD_W_ABS,
    code::LD_W_LEN,
    code::LDX_W_LEN,
    code::LD_IMM,
    code::LDX_IMM,
    code::LD_MEM,
    code::LDX_MEM,
    code::ST,
    code::STX,
    code::ADD_K,
    code::ADD_X,
    code::SUB_K,
    code::SUB_X,
    code::MUL_K,
    code::MUL_X,
    code::DIV_K,
    code::DIV_X,
    code::OR_K,
    code::OR_X,
    code::AND_K,
    code::AND_X,
    code::LSH_K,
    code::LSH_X,
    code::RSH_K,
    code::RSH_X,
    code::NEG,
    code::XOR_K,
    code::XOR_X,
    code::JA,
    code::JEQ_K,
    code::JEQ_X,
    code::JGT_K,
    code::JGT_X,
    code::JGE_K,
    code::JGE_X,
    code::JSET_K,
    code::JSET_X,
    code::RET_K,
    code::TAX,
    code::TXA,
];

/// A filter like the bytes: each eight of them an instruction, with what the kernel would refuse put right. Memory is
/// written before all else, so that it may be read anywhere.
fn repaired(data: &[u8]) -> Program {
    let chunks = data.as_chunks::<INSTRUCTION_BYTES>().0;
    let length = chunks.len().min(LONGEST - MEMORY_WORDS - 1);
    let mut instructions: Vec<Instruction> = (0..MEMORY_WORDS as u32)
        .map(|word| Instruction::statement(code::ST, word))
        .collect();
    for (at, bytes) in chunks.iter().take(length).enumerate() {
        let mut i = Instruction::from_bytes(*bytes);
        if !CODES.contains(&i.code) && i.code != code::RET_A {
            i.code = CODES[usize::from(i.code) % CODES.len()];
        }
        // instructions after this one, the last return among them: at least 1
        let after = length - at;
        let near = |by: usize| by % after;
        match i.code {
            // the instruction pointer is left to filters that are whole: eval has no verdict for them
            code::LD_W_ABS => i.k = [0, 4, 16, 20, 24, 28, 32, 40, 48, 56, 60][i.k as usize % 11],
            code::LD_MEM | code::LDX_MEM | code::ST | code::STX => i.k %= MEMORY_WORDS as u32,
            code::DIV_K => i.k = i.k.max(1),
            code::LSH_K | code::RSH_K => i.k %= 32,
            code::JA => i.k = near(i.k as usize) as u32,
            _ if i.code & 0x07 == 0x05 => {
                i.jt = near(i.jt.into()) as u8;
                i.jf = near(i.jf.into()) as u8;
            }
            _ => {}
        }
        instructions.push(i);
    }
    instructions.push(Instruction::statement(code::RET_K, 0x7fff_0000));
    Program::new(instructions).expect("everything the kernel refuses was put right")
}

const _: () = assert!(
    DATA_BYTES == 64,
    "the offsets above are those of seccomp_data"
);
