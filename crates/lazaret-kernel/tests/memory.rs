//! How many arenas the allocator makes for many threads, with a limit and without: each in a process of its own, which is this
//! program again, run as its test `child`.

use lazaret_kernel::memory::limit_arenas;
use std::process::Command;
use std::sync::Barrier;

const CHILD: &str = "LAZARET_TEST_ARENAS";
const THREADS: usize = 12;

/// The size of an arena's heap on 64-bit machines (`HEAP_MAX_SIZE`, malloc/arena.c): as much is reserved at once, at a multiple
/// of it.
const HEAP: u64 = 64 << 20;

#[test]
fn child() {
    let Ok(limit) = std::env::var(CHILD) else {
        return;
    };
    if let Ok(limit) = limit.parse() {
        limit_arenas(limit);
    }
    let (allocated, counted) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let kept = std::hint::black_box(vec![1u8; 1000]);
                allocated.wait();
                counted.wait();
                drop(kept);
            });
        }
        allocated.wait();
        println!("\n@{}", heaps());
        counted.wait();
    });
}

/// Heaps of arenas other than the first, which grows with `brk(2)`: a mapping that can be written, and the rest of the
/// reserved space.
fn heaps() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
    let bounds = |line: &str| -> Option<(u64, u64)> {
        let (first, last) = line.split_whitespace().next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some((hex(first)?, hex(last)?))
    };
    let lines: Vec<&str> = maps.lines().collect();
    let heap = |pair: &&[&str]| {
        let (Some(used), Some(rest)) = (bounds(pair[0]), bounds(pair[1])) else {
            return false;
        };
        used.0 % HEAP == 0
            && used.1 == rest.0
            && rest.1 == used.0 + HEAP
            && pair[1].contains("---p")
    };
    lines.windows(2).filter(heap).count()
}

fn heaps_with(limit: &str) -> usize {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, limit)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said.lines().find_map(|line| line.strip_prefix('@'));
    said.and_then(|count| count.parse().ok())
        .expect("the child counted")
}

#[test]
fn many_threads_share_few_arenas() {
    if cfg!(not(target_env = "gnu")) {
        println!("SKIP: another C library than glibc");
        return;
    }
    // the test's own thread may have one already
    assert!(heaps_with("1") <= 1);
    assert!(heaps_with("2") <= 2);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let without = heaps_with("none");
    assert!(without >= THREADS.min(8 * cpus) / 2, "{without} arenas");
}
