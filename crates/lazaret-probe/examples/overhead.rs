//! What the recorder costs per system call: `cargo run --release -p lazaret-probe --example overhead` as root.
//!
//! Two workers that were started before anything else, one in the host's pid namespace and one in a namespace of its own,
//! call in turns, only one at a time: first without a recorder, then with it, so that drift hits all cases alike. Time is
//! the thread's CPU time, and a turn is the best of a few short batches: a busy machine shows less in that. What is printed
//! are the medians of the rounds.
//!
//! It does not measure a server: see the report of `cargo xtask demo` for that.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lazaret_probe::{AttachKind, Limits, Probe};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 21;
const BATCHES: u32 = 10;
const CALLS: u32 = 10_000;
/// A call that does nothing, and one whose argument is summarised (a bad command on a bad descriptor).
const CASES: [(&str, &str); 2] = [("getppid", "110"), ("fcntl", "72")];

struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn start(mut command: Command) -> Result<Worker, Box<dyn Error>> {
        let mut child = command
            .arg(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Worker {
            stdin: child.stdin.take().ok_or("no standard input")?,
            stdout: BufReader::new(child.stdout.take().ok_or("no standard output")?),
            child,
        })
    }

    /// Nanoseconds per call.
    fn measure(&mut self, nr: &str) -> Result<f64, Box<dyn Error>> {
        writeln!(self.stdin, "{nr}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().parse::<f64>()? / f64::from(CALLS))
    }

    fn end(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.stdin);
        self.child.wait()?;
        Ok(())
    }
}

/// CPU time of this thread in nanoseconds.
fn cpu_ns() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Reads a call's number per line, makes it [`CALLS`] times, and that [`BATCHES`] times, and answers with the nanoseconds
/// of the fastest batch.
fn worker() -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lines() {
        let nr: libc::c_long = line?.trim().parse()?;
        let mut best = i64::MAX;
        for _ in 0..BATCHES {
            let start = cpu_ns();
            for _ in 0..CALLS {
                // JUSTIFICATION: the bare call is what is measured.
                // SAFETY: getppid takes nothing; fcntl on descriptor -1 fails before it looks at anything else.
                unsafe { libc::syscall(nr, -1, 1030, 0) };
            }
            best = best.min(cpu_ns() - start);
        }
        println!("{best}");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return worker();
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child"]);
    let mut inside = Worker::start(unshare)?;
    let mut outside = Worker::start(Command::new("env"))?;
    println!("{ROUNDS} rounds, best of {BATCHES} batches of {CALLS} calls, medians in ns per call");
    println!("call     kind    detached  detached, namespace  attached, host  attached, namespace");
    for (name, nr) in CASES {
        for kind in [AttachKind::TpBtf, AttachKind::RawTp] {
            let mut times = [const { Vec::new() }; 4];
            for _ in 0..ROUNDS {
                let [detached, detached_inside, host, recorded] = &mut times;
                detached.push(outside.measure(nr)?);
                detached_inside.push(inside.measure(nr)?);
                let probe = Probe::load_as(kind, Limits::default())?.attach()?;
                host.push(outside.measure(nr)?);
                recorded.push(inside.measure(nr)?);
                drop(probe);
            }
            let [a, b, c, d] = times.map(median);
            println!("{name:8} {kind:6} {a:9.0} {b:20.0} {c:15.0} {d:20.0}");
        }
    }
    inside.end()?;
    outside.end()
}
