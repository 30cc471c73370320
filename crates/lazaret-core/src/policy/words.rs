//! Conditions and verdicts in words, with the kernel's names for arguments and constants.
//!
//! For people: nothing parses this text. What stands here is used by every verb that shows a meaning, whether it comes from
//! a policy, a profile or a filter that a kernel runs, so it takes the types of `lazaret-filter` and no policy.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use lazaret_filter::abi::Abi;
use lazaret_filter::prove::{Cube, Operand, Region};
use lazaret_filter::rule::{Call, Condition, Verdict};
use lazaret_filter::{constants, table};

/// How many values or ranges of a condition are written out.
const SHOWN: usize = 12;

/// How many names of bits a mask may have before it is written as a number.
const BITS: usize = 3;

/// The arguments whose values are sums of single bits (`SYSCALL_DEFINE` names, as in [`table::args_of`]).
const FLAGS: [&str; 4] = ["clone_flags", "flags", "prot", "unshare_flags"];

/// The errno's name where programs are known to expect it, else its number.
#[must_use]
pub fn errno(errno: u16) -> String {
    // include/uapi/asm-generic/errno-base.h, errno.h
    let name = match errno {
        0 => "errno 0 (success without the call)",
        1 => "EPERM",
        2 => "ENOENT",
        5 => "EIO",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        19 => "ENODEV",
        22 => "EINVAL",
        38 => "ENOSYS",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        _ => return format!("errno {errno}"),
    };
    name.to_string()
}

/// What the kernel does.
#[must_use]
pub fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::KillProcess => "kill process".to_string(),
        Verdict::KillThread => "kill thread".to_string(),
        Verdict::Trap(0) => "trap (SIGSYS)".to_string(),
        Verdict::Trap(datum) => format!("trap (SIGSYS, datum {datum})"),
        Verdict::Errno(number) => errno(number),
        Verdict::Ask => "ask".to_string(),
        Verdict::Trace(datum) => format!("trace (datum {datum})"),
        Verdict::Log => "allow and log".to_string(),
        Verdict::Allow => "allow".to_string(),
    }
}

/// Numbers as names, in the order of the numbers: single ones where the table has a name, ranges where it has none. For x32
/// without its bit.
#[must_use]
pub fn numbers(abi: Abi, numbers: &RangeInclusive<u32>) -> Vec<String> {
    let range = |first: u32, last: u32| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}..={last}")
        }
    };
    let mut names = Vec::new();
    let mut next = Some(*numbers.start());
    for (nr, name) in table::calls(abi).filter(|(nr, _)| numbers.contains(nr)) {
        match next {
            // above `first`, so there is a number before it
            Some(first) if first < nr => names.push(range(first, nr - 1)),
            _ => {}
        }
        names.push(name.to_string());
        next = nr.checked_add(1);
    }
    if let Some(first) = next.filter(|first| first <= numbers.end()) {
        names.push(range(first, *numbers.end()));
    }
    names
}

/// A call as it would be made: `socket(family = AF_VSOCK, type = SOCK_STREAM)`, of x86-64 unless it says so. Arguments that are
/// 0 and behind the last other one are left out.
#[must_use]
pub fn call(call: &Call) -> String {
    let Some((abi, nr)) = Abi::of(call.arch, call.nr) else {
        return format!("number {} under architecture {:#x}", call.nr, call.arch);
    };
    let name = table::name_of(abi, nr);
    let used = call
        .args
        .iter()
        .rposition(|arg| *arg != 0)
        .map_or(0, |last| last + 1);
    let args: Vec<String> = (0u8..)
        .zip(call.args.iter().take(used))
        .map(|(arg, value)| {
            let mask = u64::MAX;
            let values = [*value].into();
            let whole = Condition { arg, mask, values };
            let words = condition(name, &whole);
            // the width does not matter where all bits are given
            words.replace(" (64 bits)", "")
        })
        .collect();
    let shown = table::display(abi, nr);
    if abi != Abi::X86_64 {
        format!("{shown}({}) of {abi}", args.join(", "))
    } else {
        format!("{shown}({})", args.join(", "))
    }
}

/// A region of arguments: its cubes joined by OR. Empty when the arguments do not matter.
#[must_use]
pub fn region(call: Option<&str>, region: &Region) -> String {
    if region.is_everything() {
        return String::new();
    }
    let mut cubes: Vec<String> = region.cubes.iter().map(|one| cube(call, one)).collect();
    if region.more {
        cubes.push("more".to_string());
    }
    cubes.join(" or ")
}

fn cube(call: Option<&str>, cube: &Cube) -> String {
    let terms: Vec<String> = cube
        .terms
        .iter()
        .map(|term| match term.operand {
            Operand::Argument(arg) => condition(
                call,
                &Condition {
                    arg,
                    mask: term.mask,
                    values: term.values.clone(),
                },
            ),
            Operand::InstructionPointer => term.to_string(),
        })
        .collect();
    terms.join(" and ")
}

/// Conditions joined by AND; `any arguments` for none. `call` is the name of the call, where it has one.
#[must_use]
pub fn conditions(call: Option<&str>, all: &[Condition]) -> String {
    if all.is_empty() {
        return "any arguments".to_string();
    }
    let each: Vec<String> = all.iter().map(|one| condition(call, one)).collect();
    each.join(" and ")
}

/// One condition: `family in {AF_UNIX, AF_INET}`, `type & 0xf = SOCK_STREAM`, `fd in 3..=9`.
#[must_use]
pub fn condition(call: Option<&str>, condition: &Condition) -> String {
    let definition = call
        .and_then(table::args_of)
        .and_then(|args| args.get(usize::from(condition.arg)));
    let name = definition.map_or_else(|| format!("arg{}", condition.arg), |def| def.name.into());
    let words = Words {
        call,
        arg: definition.map(|def| def.name),
        mask: condition.mask,
    };
    let width = definition.map_or(u64::MAX, |def| def.width.mask());
    let subject = if condition.mask == width {
        name
    } else if condition.mask == u64::MAX {
        // a filter can look at bits that the kernel then ignores
        format!("{name} (64 bits)")
    } else {
        format!("{name} & {}", words.mask())
    };
    format!("{subject} {}", words.values(condition))
}

/// The vocabulary of one argument under one mask.
struct Words<'c> {
    call: Option<&'c str>,
    arg: Option<&'static str>,
    mask: u64,
}

impl Words<'_> {
    fn constant(&self, value: u64) -> Option<&'static str> {
        constants::name(self.call?, self.arg?, value)
    }

    fn are_flags(&self) -> bool {
        self.arg.is_some_and(|name| FLAGS.contains(&name))
    }

    /// Names of every bit of a value, lowest first; `None` when one has none.
    fn bits(&self, value: u64) -> Option<Vec<&'static str>> {
        (0..u64::BITS)
            .map(|bit| 1 << bit)
            .filter(|bit| value & bit != 0)
            .map(|bit| self.constant(bit))
            .collect()
    }

    fn mask(&self) -> String {
        let named = self.are_flags().then(|| self.bits(self.mask)).flatten();
        match named {
            Some(names) if names.len() == 1 => names.concat(),
            Some(names) if names.len() <= BITS => format!("({})", names.join("|")),
            _ => format!("{:#x}", self.mask),
        }
    }

    fn value(&self, value: u64) -> String {
        if self.are_flags() {
            // 0 of a few flags means that none is set, not the constant that is 0 (PROT_NONE)
            let whole = self.mask & 0xffff_ffff == 0xffff_ffff;
            let exact = if value == 0 && !whole {
                None
            } else {
                self.constant(value)
            };
            let sum = || {
                let names = self.bits(value).filter(|names| names.len() > 1)?;
                Some(names.join("|"))
            };
            if let Some(words) = exact.map(ToString::to_string).or_else(sum) {
                return words;
            }
        } else if let Some(name) = self.constant(value) {
            return name.to_string();
        }
        number(value)
    }

    fn values(&self, condition: &Condition) -> String {
        let ranges: Vec<_> = condition.values.ranges().collect();
        // everything but a few single values is said by those
        let mut gaps: Vec<u64> = Vec::new();
        let mut next = Some(0);
        let mut single = true;
        for range in &ranges {
            if let Some(first) = next
                && first != *range.start()
            {
                single &= first + 1 == *range.start();
                gaps.push(first);
            }
            next = range.end().checked_add(1);
        }
        let contiguous = (self.mask & self.mask.wrapping_add(1)) == 0;
        let reaches_end = ranges.last().is_some_and(|last| *last.end() >= self.mask);
        if single && contiguous && reaches_end && !gaps.is_empty() && gaps.len() <= 4 {
            let gaps: Vec<String> = gaps.iter().map(|value| self.value(*value)).collect();
            return match gaps.as_slice() {
                [one] => format!("!= {one}"),
                several => format!("not in {{{}}}", several.join(", ")),
            };
        }
        let mut shown: Vec<String> = Vec::new();
        for range in &ranges {
            let (first, last) = (*range.start(), *range.end());
            if last - first < 3 {
                shown.extend((first..=last).map(|value| self.value(value)));
            } else if contiguous && last >= self.mask {
                shown.push(format!(">= {}", self.value(first)));
            } else {
                shown.push(format!("{}..={}", self.value(first), self.value(last)));
            }
        }
        let count = shown.len();
        if count > SHOWN {
            shown.truncate(SHOWN);
            shown.push(format!("… {} more", count - SHOWN));
        }
        match shown.as_slice() {
            [one] if one.starts_with(">=") => one.clone(),
            [one] if one.contains("..=") => format!("in {one}"),
            [one] => format!("= {one}"),
            several => format!("in {{{}}}", several.join(", ")),
        }
    }
}

/// Small numbers as people count, large ones as masks are read.
fn number(value: u64) -> String {
    if value < 1024 {
        value.to_string()
    } else {
        format!("{value:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ops::RangeInclusive;
    use lazaret_filter::rule::Values;

    /// Call, argument, mask, values, and what is said.
    type Case<'c> = (&'c str, u8, u64, &'c [RangeInclusive<u64>], &'c str);

    fn said(name: &str, arg: u8, mask: u64, ranges: &[RangeInclusive<u64>]) -> String {
        let values = Values::of(ranges.iter().cloned());
        condition(Some(name), &Condition { arg, mask, values })
    }

    #[test]
    fn conditions_have_names() {
        let int = 0xffff_ffff;
        let cases: [Case<'_>; 16] = [
            ("socket", 0, int, &[2..=2], "family = AF_INET"),
            (
                "socket",
                0,
                int,
                &[2..=2, 10..=10],
                "family in {AF_INET, AF_INET6}",
            ),
            ("socket", 0, int, &[0..=39, 41..=int], "family != AF_VSOCK"),
            (
                "socket",
                0,
                int,
                &[0..=37, 39..=39, 41..=int],
                "family not in {AF_ALG, AF_VSOCK}",
            ),
            (
                "socket",
                0,
                u64::MAX,
                &[1..=1],
                "family (64 bits) = AF_UNIX",
            ),
            (
                "socket",
                1,
                0xf,
                &[1..=2],
                "type & 0xf in {SOCK_STREAM, SOCK_DGRAM}",
            ),
            (
                "clone",
                0,
                0x7e02_0000,
                &[0..=0],
                "clone_flags & 0x7e020000 = 0",
            ),
            (
                "clone",
                0,
                0x300,
                &[0x300..=0x300],
                "clone_flags & (CLONE_VM|CLONE_FS) = CLONE_VM|CLONE_FS",
            ),
            ("mprotect", 2, 4, &[0..=0], "prot & PROT_EXEC = 0"),
            ("mprotect", 2, u64::MAX, &[0..=0], "prot = PROT_NONE"),
            (
                "mprotect",
                2,
                u64::MAX,
                &[3..=3],
                "prot = PROT_READ|PROT_WRITE",
            ),
            ("listen", 1, int, &[4..=128], "backlog in 4..=128"),
            ("listen", 1, int, &[4096..=int], "backlog >= 0x1000"),
            ("futex", 1, 0x7f, &[0..=0], "op & 0x7f = FUTEX_WAIT"),
            ("tuxcall", 2, u64::MAX, &[7..=7], "arg2 = 7"),
            ("socket", 0, int, &[0..=int], "family >= AF_UNSPEC"),
        ];
        for (name, arg, mask, ranges, wanted) in cases {
            assert_eq!(said(name, arg, mask, ranges), wanted);
        }
        let many: Vec<_> = (0..40).map(|n| n * 2000..=n * 2000).collect();
        assert!(said("listen", 1, int, &many).ends_with("… 28 more}"));
        assert_eq!(conditions(Some("read"), &[]), "any arguments");
    }

    #[test]
    fn numbers_have_names_where_there_are_any() {
        let names = |range| numbers(Abi::X86_64, &range).join(" ");
        assert_eq!(names(0..=2), "read write open");
        assert_eq!(names(333..=336), "io_pgetevents rseq uretprobe uprobe");
        assert_eq!(
            names(334..=424),
            "rseq uretprobe uprobe 337..=423 pidfd_send_signal"
        );
        assert_eq!(names(500..=u32::MAX), "500..=4294967295");
        assert_eq!(names(500..=500), "500");
    }

    #[test]
    fn calls_are_written_as_they_are_made() {
        let mut socket = Call::new(Abi::X86_64, 41);
        socket.args = [40, 1, 0, 0, 0, 0];
        assert_eq!(
            call(&socket),
            "socket(family = AF_VSOCK, type = SOCK_STREAM)"
        );
        assert_eq!(call(&Call::new(Abi::X86_64, 39)), "getpid()");
        assert_eq!(call(&Call::new(Abi::X32, 39)), "getpid() of x32");
        assert_eq!(call(&Call::new(Abi::I386, 9999)), "9999() of i386");
        let far = Call {
            arch: 7,
            nr: 1,
            args: [0; 6],
        };
        assert_eq!(call(&far), "number 1 under architecture 0x7");
    }

    #[test]
    fn verdicts_have_names() {
        assert_eq!(verdict(Verdict::Errno(38)), "ENOSYS");
        assert_eq!(verdict(Verdict::Errno(77)), "errno 77");
        assert_eq!(verdict(Verdict::Trap(3)), "trap (SIGSYS, datum 3)");
    }
}
