//! The recorder's life: loaded, attached, read. A wrong order does not compile.

use std::fmt;
use std::fs;

use lazaret_core::phase::Phase;
use lazaret_core::recording::Losses;
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{
    ErrorKind, Link, Map, MapCore, MapFlags, Object, ObjectBuilder, Program, ProgramMut,
    ProgramType,
};
use rustix::thread::{MembarrierCommand, membarrier};
use rustix::time::{ClockId, clock_gettime};

use crate::arguments;
use crate::error::{AttachError, LoadError, PhaseError, ReadError};
use crate::fold::{self, Entries, Recorded};
use crate::namespace::{PidNamespace, Seen};
use crate::wire::{self, CallKey, CallValue, NamespaceValue};

/// The compiled `src/bpf/recorder.bpf.c`.
pub(crate) static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recorder.bpf.o"));

/// Where the kernel shows its type information (`Documentation/bpf/btf.rst`).
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Programs and their tracepoints, in the order they are attached: `sys_enter` last, so that its first run finds the
/// others at work.
const PROGRAMS: [(&str, &str); 4] = [
    ("on_exit", "sched_process_exit"),
    ("on_exec", "sched_process_exec"),
    ("on_fork", "sched_process_fork"),
    ("on_sys_enter", "sys_enter"),
];

/// How the programs sit on their tracepoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    /// As BTF-aware raw tracepoints (`tp_btf`).
    TpBtf,
    /// As plain raw tracepoints (`raw_tp`).
    RawTp,
}

impl fmt::Display for AttachKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttachKind::TpBtf => "tp_btf",
            AttachKind::RawTp => "raw_tp",
        })
    }
}

/// Room in the kernel. All of it is taken when the probe is loaded; what does not fit later is counted as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Combinations of namespace, convention, phase and call. 24 bytes for each possible CPU, and 64.
    pub calls: u32,
    /// The same with an argument: how many arguments can have summaries.
    pub value_sets: u32,
    /// The same with an argument and its value. 8 bytes for each possible CPU, and 72.
    pub values: u32,
    /// Processes alive at the same time in the recorded namespaces.
    pub processes: u32,
    /// Pid namespaces seen, dead ones included.
    pub namespaces: u32,
}

impl Default for Limits {
    /// Room for some hundred containers; about 6 MB on 2 CPUs and 40 MB on 64.
    fn default() -> Limits {
        Limits {
            calls: 16_384,
            value_sets: 8_192,
            values: 16_384,
            processes: 32_768,
            namespaces: 4_096,
        }
    }
}

impl Limits {
    /// Enough to see whether the kernel takes the programs.
    const SMALLEST: Limits = Limits {
        calls: 1,
        value_sets: 1,
        values: 1,
        processes: 1,
        namespaces: 1,
    };

    /// Sizes of the maps.
    fn maps(&self) -> [(&'static str, u32); 7] {
        [
            ("calls", self.calls),
            ("value_sets", self.value_sets),
            ("values", self.values),
            ("processes", self.processes),
            ("namespaces", self.namespaces),
            ("phases", self.namespaces),
            // as many: a number names one namespace at a time
            ("slots", self.namespaces),
        ]
    }
}

/// State of a [`Probe`]: in the kernel, and not running.
#[derive(Debug)]
pub struct Loaded(());

/// State of a [`Probe`]: running.
#[derive(Debug)]
pub struct Attached {
    /// Dropping them detaches the programs.
    links: Vec<Link>,
    /// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns()` reads too.
    started_ns: u64,
}

/// The recorder. Dropping it takes it out of the kernel.
#[derive(Debug)]
pub struct Probe<State> {
    state: State,
    object: Object,
    kind: AttachKind,
}

/// Whether this host can record, and how.
///
/// Loads the programs, attaches one that does nothing without the others, and takes all out again.
///
/// # Errors
/// The reason why it cannot, in one sentence.
pub fn probe_support() -> Result<AttachKind, LoadError> {
    Probe::load(Limits::SMALLEST).map(|probe| probe.kind)
}

impl Probe<Loaded> {
    /// Loads the recorder: as `tp_btf`, and where the kernel refuses that, as `raw_tp`. Decided by trying.
    ///
    /// # Errors
    /// One variant per step, see [`LoadError`].
    pub fn load(limits: Limits) -> Result<Probe<Loaded>, LoadError> {
        match Self::load_as(AttachKind::TpBtf, limits) {
            Err(LoadError::Refused { .. } | LoadError::NotPermitted) => {
                Self::load_as(AttachKind::RawTp, limits)
            }
            result => result,
        }
    }

    /// Loads the recorder in one way and tries no other.
    ///
    /// # Errors
    /// As [`Probe::load`].
    pub fn load_as(kind: AttachKind, limits: Limits) -> Result<Probe<Loaded>, LoadError> {
        fs::metadata(KERNEL_BTF).map_err(|reason| LoadError::NoTypeInformation {
            path: KERNEL_BTF,
            reason,
        })?;
        let own = PidNamespace::own().map_err(|source| LoadError::OwnNamespace { source })?;
        // libbpf writes its own account of a refusal to standard error; the error says it.
        let print = libbpf_rs::set_print(None);
        let object = load_object(kind, limits);
        libbpf_rs::set_print(print);
        let object = object?;
        configure(&object, &own)?;
        Ok(Probe {
            state: Loaded(()),
            object,
            kind,
        })
    }

    /// Starts recording.
    ///
    /// # Errors
    /// When the kernel refuses one of the programs; then none stays.
    pub fn attach(self) -> Result<Probe<Attached>, AttachError> {
        let started_ns = monotonic_ns();
        let links = PROGRAMS
            .into_iter()
            .map(|(name, tracepoint)| {
                let program = program_mut(&self.object, name)
                    .ok_or(AttachError::Missing { program: name })?;
                attach(&program, self.kind, tracepoint)
                    .map_err(|reason| AttachError::Attach { tracepoint, reason })
            })
            .collect::<Result<Vec<Link>, AttachError>>()?;
        Ok(Probe {
            state: Attached { links, started_ns },
            object: self.object,
            kind: self.kind,
        })
    }
}

impl<State> Probe<State> {
    /// How the programs are, or will be, attached.
    #[must_use]
    pub fn attach_kind(&self) -> AttachKind {
        self.kind
    }
}

impl Probe<Attached> {
    /// Says in which phase the native processes of a namespace are from now on.
    ///
    /// A namespace that is still in its prelude may be set to a later phase; the first `execve` then changes nothing.
    ///
    /// # Errors
    /// When the phase is one that follows from what processes do, when no process of the namespace was seen, or when the
    /// map cannot be written.
    pub fn set_phase(&mut self, namespace: &PidNamespace, phase: Phase) -> Result<(), PhaseError> {
        if matches!(phase, Phase::Prelude | Phase::Exec) {
            return Err(PhaseError::NotSettable { phase });
        }
        let slot = self.slot(namespace)?;
        // The program's compare-and-swap from prelude to startup works on this same word, and only while it says prelude:
        // whichever comes last, the later phase stays.
        let value = u32::from(wire::phase_code(phase));
        self.map("phases")?
            .update(&slot.to_ne_bytes(), &value.to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| PhaseError::Write { source })
    }

    /// The namespaces seen so far, in the order they were met.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn namespaces(&self) -> Result<Vec<Seen>, ReadError> {
        self.all_namespaces()?
            .into_iter()
            .zip(0u32..)
            .map(|(namespace, slot)| {
                let phase = self.lookup("phases", &slot.to_ne_bytes(), wire::phase)?;
                Ok(Seen {
                    inum: namespace.inum,
                    phase: phase.ok_or(ReadError::Malformed { map: "phases" })?,
                    from_start: namespace.from_start,
                })
            })
            .collect()
    }

    /// What was recorded until about now, while recording goes on.
    ///
    /// A count that changes while it is read may show in one CPU's part and not in another's: good for progress and for
    /// the time of the last new call, not for a recording.
    ///
    /// # Errors
    /// As [`Probe::finish`].
    pub fn snapshot(&self, namespace: &PidNamespace) -> Result<Recorded, ReadError> {
        let slot = self.slot(namespace)?;
        let entries = Entries {
            calls: self.calls(slot)?,
            values: self.values(slot)?,
            sets: self.sets(slot)?,
        };
        let namespaces = self.all_namespaces()?;
        Ok(Recorded {
            observations: fold::observations(entries, self.state.started_ns),
            losses: Losses {
                failed_insertions: self.lost()?,
                missed_runs: self.missed_runs()?,
            },
            attach_kind: self.kind,
            from_start: namespaces
                .iter()
                .zip(0u32..)
                .any(|(namespace, at)| at == slot && namespace.from_start),
            nested: namespaces
                .iter()
                .filter(|namespace| namespace.parent == slot)
                .count(),
        })
    }

    /// Stops recording and reads what was recorded of one namespace.
    ///
    /// # Flow
    /// Detach; wait until no CPU runs a program any more; read.
    ///
    /// # Guarantees
    /// The maps are still while they are read. Every call of the namespace that was entered before this call and after
    /// [`Probe::attach`] is in the observations, or `losses` is not zero.
    ///
    /// # Errors
    /// When the namespace was never seen, or a map cannot be read.
    pub fn finish(mut self, namespace: &PidNamespace) -> Result<Recorded, ReadError> {
        self.state.links.clear();
        // Closing a link does not wait for a run that has begun. Runs are RCU read-side sections (__bpf_trace_run(),
        // kernel/trace/bpf_trace.c), so a grace period outlasts them: MEMBARRIER_CMD_GLOBAL is synchronize_rcu()
        // (kernel/sched/membarrier.c).
        membarrier(MembarrierCommand::Global).map_err(|errno| ReadError::Settle {
            source: errno.into(),
        })?;
        self.snapshot(namespace)
    }

    fn map(&self, name: &'static str) -> Result<Map<'_>, ReadError> {
        map(&self.object, name).ok_or(ReadError::Missing { map: name })
    }

    /// One entry, parsed.
    fn lookup<T>(
        &self,
        name: &'static str,
        key: &[u8],
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        self.map(name)?
            .lookup(key, MapFlags::ANY)
            .map_err(|source| ReadError::Lookup { map: name, source })?
            .map(|value| parse(&value).ok_or(ReadError::Malformed { map: name }))
            .transpose()
    }

    /// One entry of a map that has a value per CPU.
    fn lookup_percpu<T>(
        &self,
        name: &'static str,
        key: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, ReadError> {
        self.map(name)?
            .lookup_percpu(key, MapFlags::ANY)
            .map_err(|source| ReadError::Lookup { map: name, source })?
            .unwrap_or_default()
            .iter()
            .map(|value| parse(value).ok_or(ReadError::Malformed { map: name }))
            .collect()
    }

    fn slot(&self, namespace: &PidNamespace) -> Result<u32, ReadError> {
        let inum = namespace.inum();
        self.lookup("slots", &inum.to_ne_bytes(), wire::u32_alone)?
            .ok_or(ReadError::NotSeen { inum })
    }

    /// By slot.
    fn all_namespaces(&self) -> Result<Vec<NamespaceValue>, ReadError> {
        let used = self
            .lookup("slots_used", &0u32.to_ne_bytes(), wire::u32_alone)?
            .unwrap_or(0)
            .min(self.map("namespaces")?.max_entries());
        (0..used)
            .map(|slot| {
                self.lookup("namespaces", &slot.to_ne_bytes(), NamespaceValue::read)?
                    .ok_or(ReadError::Malformed { map: "namespaces" })
            })
            .collect()
    }

    fn calls(&self, slot: u32) -> Result<Vec<(CallKey, CallValue)>, ReadError> {
        let name = "calls";
        let mut calls = Vec::new();
        for bytes in self.map(name)?.keys() {
            let key = CallKey::read(&bytes).ok_or(ReadError::Malformed { map: name })?;
            if key.slot == slot
                && let Some(value) =
                    fold::over_cpus(self.lookup_percpu(name, &bytes, CallValue::read)?)
            {
                calls.push((key, value));
            }
        }
        Ok(calls)
    }

    fn values(&self, slot: u32) -> Result<Vec<(CallKey, u64, u64)>, ReadError> {
        let name = "values";
        let mut values = Vec::new();
        for bytes in self.map(name)?.keys() {
            let (key, value) = wire::value_key(&bytes).ok_or(ReadError::Malformed { map: name })?;
            if key.slot == slot {
                let counts = self.lookup_percpu(name, &bytes, wire::u64_alone)?;
                values.push((key, value, counts.into_iter().fold(0, u64::saturating_add)));
            }
        }
        Ok(values)
    }

    fn sets(&self, slot: u32) -> Result<Vec<(CallKey, bool)>, ReadError> {
        let name = "value_sets";
        let mut sets = Vec::new();
        for bytes in self.map(name)?.keys() {
            let key = CallKey::read(&bytes).ok_or(ReadError::Malformed { map: name })?;
            if key.slot == slot
                && let Some(overflowed) = self.lookup(name, &bytes, wire::set_overflowed)?
            {
                sets.push((key, overflowed));
            }
        }
        Ok(sets)
    }

    fn lost(&self) -> Result<u64, ReadError> {
        let counts = self.lookup_percpu("lost", &0u32.to_ne_bytes(), wire::u64_alone)?;
        Ok(counts.into_iter().fold(0, u64::saturating_add))
    }

    /// `bpf_prog_info.recursion_misses` of all four programs. Kernels before 6.1 run raw tracepoint programs without that
    /// check, and skip none.
    fn missed_runs(&self) -> Result<u64, ReadError> {
        PROGRAMS.into_iter().try_fold(0u64, |missed, (name, _)| {
            let failed = ReadError::ProgramInfo { program: name };
            let Some(id) = program_mut(&self.object, name)
                .and_then(|program| Program::id_from_fd(std::os::fd::AsFd::as_fd(&program)).ok())
            else {
                return Err(failed);
            };
            ProgInfoIter::default()
                .find(|info| info.id == id)
                .map(|info| missed.saturating_add(info.recursion_misses))
                .ok_or(failed)
        })
    }
}

/// Opens the embedded object, sizes its maps, loads it as `kind` and sees whether it can be attached.
fn load_object(kind: AttachKind, limits: Limits) -> Result<Object, LoadError> {
    let mut open = ObjectBuilder::default()
        .name("recorder_bpf")
        .and_then(|builder| builder.open_memory(OBJECT))
        .map_err(|source| LoadError::Open { source })?;
    for (name, entries) in limits.maps() {
        if entries == 0 {
            return Err(LoadError::ZeroLimit { limit: name });
        }
        open.maps_mut()
            .find(|map| map.name() == name)
            .ok_or(LoadError::Missing { kind: "map", name })?
            .set_max_entries(entries)
            .map_err(|source| LoadError::Resize {
                map: name,
                entries,
                source,
            })?;
    }
    if kind == AttachKind::RawTp {
        for mut program in open.progs_mut() {
            program.set_prog_type(ProgramType::RawTracepoint);
        }
    }
    let refused = |reason: libbpf_rs::Error| match reason.kind() {
        ErrorKind::PermissionDenied => LoadError::NotPermitted,
        _ => LoadError::Refused { kind, reason },
    };
    let object = open.load().map_err(refused)?;
    // Loading can work where attaching does not. `on_exec` only looks at entries that the other programs make, so
    // attaching it for a moment leaves no trace.
    let (name, tracepoint) = ("on_exec", "sched_process_exec");
    let program = program_mut(&object, name).ok_or(LoadError::Missing {
        kind: "program",
        name,
    })?;
    drop(attach(&program, kind, tracepoint).map_err(refused)?);
    Ok(object)
}

/// Tells the programs what they need to know before they run.
fn configure(object: &Object, own: &PidNamespace) -> Result<(), LoadError> {
    let write = |name: &'static str, key: u32, value: &[u8]| {
        map(object, name)
            .ok_or(LoadError::Missing { kind: "map", name })?
            .update(&key.to_ne_bytes(), value, MapFlags::ANY)
            .map_err(|source| LoadError::Configure { map: name, source })
    };
    write(
        "settings",
        0,
        &wire::config(own.inum(), own.is_initial(), arguments::VALUES_MAX),
    )?;
    let mut summaries = std::collections::BTreeMap::<u32, [Option<u64>; wire::ARGS]>::new();
    for mask in arguments::masks() {
        // a row that finds no place would go unrecorded: the table's test keeps that from happening
        if let Some(index) = wire::summary_index(mask.abi, mask.nr)
            && let Some(slot) = summaries
                .entry(index)
                .or_default()
                .get_mut(usize::from(mask.arg))
        {
            *slot = Some(mask.mask);
        }
    }
    for (index, masks) in summaries {
        write("summaries", index, &wire::summary(&masks))?;
    }
    Ok(())
}

fn attach(
    program: &ProgramMut<'_>,
    kind: AttachKind,
    tracepoint: &'static str,
) -> libbpf_rs::Result<Link> {
    match kind {
        AttachKind::TpBtf => program.attach_trace(),
        AttachKind::RawTp => program.attach_raw_tracepoint(tracepoint),
    }
}

fn map<'a>(object: &'a Object, name: &str) -> Option<Map<'a>> {
    object.maps().find(|map| map.name() == name)
}

fn program_mut<'a>(object: &'a Object, name: &str) -> Option<ProgramMut<'a>> {
    object.progs_mut().find(|program| program.name() == name)
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // CLOCK_MONOTONIC starts at boot and never is negative; 2^64 ns are 584 years
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
