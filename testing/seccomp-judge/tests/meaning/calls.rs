//! Calls on both sides of everything that a profile compares.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::compile;
use lazaret_filter::interpret::eval;
use lazaret_filter::oci::{Engine, Note, OciSeccomp};
use lazaret_filter::program::Program;
use lazaret_filter::rule::{Call, RuleTable};
use lazaret_filter::table;

/// A sequence that looks random and is the same each time (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn pick(&mut self, values: &[u64]) -> u64 {
        values[(self.next() >> 33) as usize % values.len()]
    }
}

/// Values around everything the profile compares with, in both halves.
fn values(profile: &OciSeccomp) -> Vec<u64> {
    let mut written = vec![0, 1, u64::MAX];
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        written.extend([arg.value, arg.value_two, arg.value & arg.value_two]);
    }
    written.sort_unstable();
    written.dedup();
    let halves: Vec<u64> = written
        .iter()
        .flat_map(|value| [value & 0xffff_ffff, value >> 32])
        .flat_map(|half| [half.wrapping_sub(1), half, half + 1, half ^ 0x8000_0000])
        .map(|half| half & 0xffff_ffff)
        .collect();
    let mut values = written.clone();
    values.extend(
        written
            .iter()
            .flat_map(|v| [v.wrapping_sub(1), v.wrapping_add(1), !v]),
    );
    for low in &halves {
        values.extend([*low, low | 1 << 32, low | 0xffff_ffff << 32]);
    }
    for high in halves {
        values.extend(written.iter().map(|low| high << 32 | low & 0xffff_ffff));
    }
    values.push(20); // the last of socketcall
    values.extend(1..=24);
    values.sort_unstable();
    values.dedup();
    values
}

/// Architecture words and raw numbers.
fn numbers(profile: &OciSeccomp, all: bool) -> Vec<(u32, u32)> {
    let mut numbers = Vec::new();
    let names: Vec<&String> = profile
        .syscalls
        .iter()
        .flat_map(|rule| &rule.names)
        .collect();
    for abi in Abi::ALL {
        let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
        let mut of_abi: Vec<u32> = names
            .iter()
            .filter_map(|name| table::nr_of(abi, name))
            .collect();
        if all {
            of_abi.extend(0..600);
        } else {
            let near: Vec<u32> = of_abi
                .iter()
                .flat_map(|nr| [nr + 1, nr.saturating_sub(1)])
                .collect();
            of_abi.extend(near);
            of_abi.extend([
                0,
                102,
                117,
                335,
                456,
                457,
                511,
                512,
                547,
                548,
                1000,
                0x3fff_ffff,
            ]);
        }
        of_abi.sort_unstable();
        of_abi.dedup();
        numbers.extend(of_abi.into_iter().map(|nr| (abi.audit_arch(), nr | bit)));
        numbers.extend(
            [
                X32_BIT - 1,
                X32_BIT,
                0x8000_0000,
                0xbfff_ffff,
                0xc000_0000,
                u32::MAX,
            ]
            .map(|nr| (abi.audit_arch(), nr)),
        );
    }
    numbers.extend([(0x4000_0028, 3), (0, 0), (u32::MAX, 1)]); // ARM, and no architecture
    numbers
}

/// Compares verdicts: `each` random argument sets for every number that has conditions. Says how many calls were compared.
pub(crate) fn compare(
    profile: &OciSeccomp,
    (table, notes): &(RuleTable, Vec<Note>),
    filter: &Program,
    (each, all): (usize, bool),
    seed: u64,
) -> usize {
    let ours = compile(table).expect("our compiler takes it");
    let mut dice = Dice::new(seed);
    let values = values(profile);
    let high = notes.contains(&Note::HighNumbers);
    let mut compared = 0;
    for (arch, nr) in numbers(profile, all) {
        // what no table can say yet, see `high_numbers` below
        if high && arch == Abi::X86_64.audit_arch() && (0x8000_0000..0xc000_0000).contains(&nr) {
            continue;
        }
        let conditional = Abi::of(arch, nr)
            .and_then(|(abi, nr)| table.abis.get(&abi)?.entries.get(&nr))
            .is_some_and(|entry| !entry.branches.is_empty());
        let count = if conditional { each } else { 4 };
        for round in 0..count {
            let mut call = Call {
                arch,
                nr,
                args: [0; 6],
            };
            if round > 0 {
                call.args = std::array::from_fn(|_| dice.pick(&values));
            }
            let found = eval(filter, &call).expect("no instruction pointer").verdict;
            let expected = table.decide(&call);
            assert_eq!(
                expected,
                found,
                "{call:x?}\n{profile:#?}\n{:#?}",
                entry(table, &call)
            );
            assert_eq!(
                eval(&ours, &call).expect("ours").verdict,
                found,
                "ours: {call:x?}"
            );
            compared += 1;
        }
    }
    compared
}

fn entry(table: &RuleTable, call: &Call) -> Option<lazaret_filter::rule::Entry> {
    let (abi, nr) = Abi::of(call.arch, call.nr)?;
    table.abis.get(&abi)?.entries.get(&nr).cloned()
}

/// The library without runc's stub.
pub(crate) fn plain() -> Engine {
    Engine::debian12().without_stub()
}
