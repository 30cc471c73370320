//! Calls that findings are about: those that a server makes all the time, and those that an intruder needs.

use super::super::{Allow, Policy};
use super::Severity;
use crate::ceiling::{self, Reach};
use crate::phase::Phase;
use lazaret_filter::rule::Condition;
use lazaret_filter::table;

/// Calls that servers make at every request, sorted: input and output on open descriptors, waiting, locks, clocks.
///
/// The list is that of the loops in epoll(7), poll(2) and futex(2), together with the calls that were each at least 1 % of
/// all calls while a HAPI FHIR server on a JVM answered requests (`docs/measurements.md`): gettid, writev, futex, read, lseek,
/// `sched_yield`.
pub const HOT: [&str; 29] = [
    "clock_gettime",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "futex",
    "getpid",
    "gettid",
    "gettimeofday",
    "lseek",
    "poll",
    "ppoll",
    "pread64",
    "preadv",
    "pselect6",
    "pwrite64",
    "pwritev",
    "read",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sched_yield",
    "select",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "write",
    "writev",
];

/// Why a call should not be open while a server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Danger {
    /// What it is good for, a phrase without a subject.
    pub why: &'static str,
    /// What to do about it.
    pub instead: &'static str,
    /// How much it matters.
    pub severity: Severity,
}

/// Which part of a call is meant.
#[derive(Clone, Copy)]
enum Part {
    All,
    /// Only where these bits of the argument can be set.
    Bits {
        arg: u8,
        bits: u64,
    },
    /// Only where the bits of the mask, which are neighbours, can be one of the values.
    Field {
        arg: u8,
        mask: u64,
        values: &'static [u64],
    },
    /// Only where the argument can be something else.
    Other {
        arg: u8,
        than: &'static [u64],
    },
}

struct Group {
    calls: &'static [&'static str],
    part: Part,
    danger: Danger,
}

const UNTIL: &str = "allow it `until: serving`, or under `ask`";

/// Block and character devices in the `mode` of `mknod`, its second argument, and of `mknodat`, its third (`S_IFMT`, `S_IFBLK`,
/// `S_IFCHR`: `include/uapi/linux/stat.h`).
const fn devices(arg: u8) -> Part {
    Part::Field {
        arg,
        mask: 0xf000,
        values: &[0x2000, 0x6000],
    }
}

/// Anything but `AF_UNIX`, `AF_INET`, `AF_INET6`, and `AF_NETLINK`, by which getaddrinfo(3) and getifaddrs(3) ask for addresses
/// (`include/linux/socket.h`).
const UNUSUAL_FAMILY: Part = Part::Other {
    arg: 0,
    than: &[1, 2, 10, 16],
};

const DEVICES: Danger = Danger {
    why: "makes device files",
    instead: "leave it out; for named pipes, narrow `mode` to 0x1000 (S_IFIFO) under the mask 0xf000",
    severity: Severity::Warning,
};

/// `PROT_EXEC` (`include/uapi/asm-generic/mman-common.h`), in the third argument of all four calls.
const EXECUTABLE: Part = Part::Bits { arg: 2, bits: 4 };

const GROUPS: &[Group] = &[
    Group {
        calls: &["execve", "execveat"],
        part: Part::All,
        danger: Danger {
            why: "starts another program, a shell above all",
            instead: "allow it `until: serving`; the gate sees it either way",
            severity: Severity::Warning,
        },
    },
    Group {
        calls: &[
            "capset",
            "setfsgid",
            "setfsuid",
            "setgid",
            "setgroups",
            "setregid",
            "setresgid",
            "setresuid",
            "setreuid",
            "setuid",
        ],
        part: Part::All,
        danger: Danger {
            why: "changes on whose behalf the process acts",
            instead: UNTIL,
            severity: Severity::Warning,
        },
    },
    Group {
        calls: &["mknod"],
        part: devices(1),
        danger: DEVICES,
    },
    Group {
        calls: &["mknodat"],
        part: devices(2),
        danger: DEVICES,
    },
    Group {
        calls: &["clone3"],
        part: Part::All,
        danger: Danger {
            why: "can make namespaces, its flags lie behind a pointer where no filter can look",
            instead: "deny it with ENOSYS, C libraries then use `clone`",
            severity: Severity::Warning,
        },
    },
    Group {
        calls: &["socket"],
        part: UNUSUAL_FAMILY,
        danger: Danger {
            why: "opens protocols of the kernel that servers rarely use and intruders like",
            instead: "narrow `domain` to those that are used, as AF_INET, AF_INET6, AF_UNIX",
            severity: Severity::Warning,
        },
    },
    Group {
        calls: &["memfd_create"],
        part: Part::All,
        danger: Danger {
            why: "makes a file without a name, from which programs run that are on no disk",
            instead: UNTIL,
            severity: Severity::Note,
        },
    },
    Group {
        calls: &["mmap", "mprotect", "pkey_mprotect"],
        part: EXECUTABLE,
        danger: Danger {
            why: "makes memory executable",
            instead: "only a just-in-time compiler and plug-ins need that; else narrow `prot` to values without PROT_EXEC",
            severity: Severity::Note,
        },
    },
    Group {
        calls: &[
            "chmod",
            "chown",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "fchown",
            "fchownat",
            "lchown",
        ],
        part: Part::All,
        danger: Danger {
            why: "makes a dropped file executable, or gives it to someone else",
            instead: UNTIL,
            severity: Severity::Note,
        },
    },
    Group {
        calls: &["bind", "listen"],
        part: Part::All,
        danger: Danger {
            why: "opens a port, a back door's too",
            instead: UNTIL,
            severity: Severity::Note,
        },
    },
];

/// What is dangerous about a call as this rule opens it while the container serves.
pub(super) fn danger(policy: &Policy, rule: usize, nr: u32) -> Option<Danger> {
    let name = table::name_of(policy.abi, nr)?;
    let open = |part: Part| {
        allows_in(policy, nr, Phase::Serving)
            .filter(|allow| allow.rule == rule)
            .any(|allow| reaches(&allow.conditions, part))
    };
    // what a policy with a ceiling of its own allows of the named one
    if let Some(forbidden) = ceiling::DEFAULT.iter().find(|one| one.call == name) {
        let part = match forbidden.reach {
            Reach::Always => Part::All,
            Reach::Unless { arg, mask } => Part::Bits { arg, bits: mask },
        };
        if !policy.ceiling.contains_key(&nr) && open(part) {
            return Some(Danger {
                why: forbidden.why,
                instead: "no server of this kind needs it: use the ceiling `default`",
                severity: Severity::Warning,
            });
        }
    }
    let group = GROUPS.iter().find(|group| group.calls.contains(&name))?;
    open(group.part).then_some(group.danger)
}

/// What rules allow of a call in a phase.
pub(super) fn allows_in(policy: &Policy, nr: u32, phase: Phase) -> impl Iterator<Item = &Allow> {
    let rules = policy.call(nr).filter(|rules| rules.deny.is_none());
    let allows = rules.into_iter().flat_map(|rules| &rules.allows);
    allows.filter(move |allow| allow.scope.holds(phase))
}

fn reaches(all: &[Condition], part: Part) -> bool {
    match part {
        Part::All => true,
        Part::Bits { arg, bits } => on(all, arg).all(|condition| can_have(condition, bits)),
        Part::Field { arg, mask, values } => {
            on(all, arg).all(|condition| can_be(condition, mask, values))
        }
        Part::Other { arg, than } => on(all, arg).all(|condition| can_differ(condition, than)),
    }
}

fn on(all: &[Condition], arg: u8) -> impl Iterator<Item = &Condition> {
    all.iter().filter(move |condition| condition.arg == arg)
}

/// Whether the bits of the mask, which are neighbours, can be one of the values where the condition holds; also where the
/// condition does not look at all of them.
fn can_be(condition: &Condition, mask: u64, values: &[u64]) -> bool {
    if mask & !condition.mask != 0 {
        return true;
    }
    let shift = mask.trailing_zeros();
    let field = mask >> shift;
    condition.values.ranges().any(|range| {
        let (first, last) = (range.start() >> shift, range.end() >> shift);
        // a long range has every value of the field, so one is found within as many steps
        (first..=last).any(|one| values.contains(&((one & field) << shift)))
    })
}

/// Whether the argument can be none of a few values where the condition holds. They are numbers of 32 bits.
fn can_differ(condition: &Condition, than: &[u64]) -> bool {
    let int = u64::from(u32::MAX);
    if int & !condition.mask != 0 {
        return true;
    }
    condition.values.ranges().any(|range| {
        let (first, last) = (*range.start(), *range.end());
        // a range of more values than those few has another one, so it is found within as many steps
        (first..=last).any(|one| !than.contains(&one))
    })
}

/// Whether a value with one of the bits can meet the condition.
fn can_have(condition: &Condition, bits: u64) -> bool {
    let single = || {
        (0..u64::BITS)
            .map(|at| 1 << at)
            .filter(move |bit| bits & bit != 0)
    };
    // bits that are not compared are free
    bits & !condition.mask != 0
        || condition.values.ranges().any(|range| {
            let (first, last) = (*range.start(), *range.end());
            // the smallest value from `first` on that has the bit; both lie within the mask, so it does
            single().any(|bit: u64| first & bit != 0 || (first & !(bit - 1)) | bit <= last)
        })
}
