//! System call tables, rule tables, a compiler to classic BPF, an interpreter, and the proof that what a kernel runs is what
//! was meant: seccomp filters as values.
//!
//! ```text
//!                     oci::profile ──► a runtime's libseccomp ─┐
//!   rule::RuleTable ──┤                                        ├─► program::Program ─► interpret, disasm
//!         │           compile::compile ────────────────────────┘          │
//!         └──────────────────────────► prove::prove ◄─────────────────────┘
//! ```
//!
//! [`rule::RuleTable::decide`] is the meaning; everything else is measured against it:
//!
//! - [`table`] and [`constants`]: numbers, names, register arguments and the names of their values.
//! - [`rule`]: verdicts by convention and number, with conditions on masked arguments: values, sets, ranges.
//! - [`mod@compile`]: `eval(compile(table)?, call) == table.decide(call)` for every call; few instructions, and with
//!   [`compile::Weights`] few that run for frequent calls.
//! - [`program`]: a filter that passes the kernel's own checks, whoever made it; also read from the kernel's bytes.
//! - [`interpret`]: runs one filter, or the chain that a process has, as the kernel would.
//! - [`mod@prove`]: for every call at once, where a chain is looser or stricter than a table, with a call that shows it.
//! - `oci` (feature `serde`): a table as a `linux.seccomp` profile, refused where runc or libseccomp would bend it.
//! - [`disasm`]: filters as text, with the names of calls, arguments and values.
//! - [`mod@bitmap`]: which calls the kernel allows without running a filter.
//! - [`mod@chain`]: whether one more filter fits into what a process has.
//!
//! Three properties that filters often lack, and that these have by construction: the architecture is always tested, and the
//! conventions that share one (x86-64 and x32) are told apart; an argument is compared in the width that the kernel looks at;
//! and a call that is decided by its number alone is decided before any argument is loaded.
//!
//! Pure: no operating system, no `unsafe`, no policy language. What a *policy* is, phases and the ask band are in
//! `lazaret-core`; loading a filter is `lazaret-kernel`.
//!
//! # Example
//!
//! ```
//! use lazaret_filter::abi::Abi;
//! use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Verdict};
//! use lazaret_filter::{compile, constants, interpret, prove, table};
//!
//! let abi = Abi::X86_64;
//! let socket = table::nr_of(abi, "socket").unwrap();
//! let (domain, definition) = table::arg("socket", "domain").unwrap();
//! let unix = constants::value("socket", "domain", "AF_UNIX").unwrap();
//!
//! // sockets of one domain only; everything else is allowed
//! let local = Condition { arg: domain, mask: definition.width.mask(), values: [unix].into() };
//! let numbers = Numbers {
//!     entries: [(socket, Entry {
//!         branches: vec![Branch { all: vec![local], verdict: Verdict::Allow }],
//!         otherwise: Verdict::Errno(97), // EAFNOSUPPORT
//!     })].into(),
//!     otherwise: Verdict::Allow,
//! };
//! let mut rules = RuleTable::single(abi, numbers, Verdict::KillProcess);
//! let filter = compile::compile(&rules)?;
//!
//! let mut call = Call::new(abi, socket);
//! call.args[0] = 2; // AF_INET
//! assert_eq!(interpret::eval(&filter, &call)?.verdict, Verdict::Errno(97));
//!
//! // a filter that allows what the rules deny is found out
//! rules.abis.get_mut(&abi).unwrap().otherwise = Verdict::Errno(1);
//! let comparison = prove::prove(&rules, &[filter])?;
//! assert_eq!(comparison.looser[0].found, Verdict::Allow);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod abi;
pub mod bitmap;
pub mod chain;
pub mod compile;
pub mod constants;
pub mod disasm;
pub mod interpret;
#[cfg(feature = "serde")]
pub mod oci;
pub mod program;
pub mod prove;
pub mod rule;
pub mod table;
