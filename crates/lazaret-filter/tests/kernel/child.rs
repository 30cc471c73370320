//! One child for one case: it loads filters, makes one call, says how that went, and ends.

use lazaret_filter::abi::Abi;
use lazaret_filter::program::{Instruction, Program};
use lazaret_filter::rule::Call;

/// What a child does with one call, as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The call came back with this: its result, or minus an errno.
    Returned(i64),
    /// The child died by this signal.
    Died(i32),
    /// The kernel refused the filter with this errno.
    Refused(i32),
}

/// Loads the filters, oldest first, in a child, makes the call there, and says how that went.
pub(crate) fn in_child(chain: &[Program], nr: u32, args: [u64; 6]) -> Outcome {
    let call = Call {
        args,
        ..Call::new(Abi::X86_64, nr)
    };
    in_child_by(chain, &call, Supervisor::None)
}

/// [`in_child`] for a call of any convention that this processor has.
pub(crate) fn in_child_by(chain: &[Program], call: &Call, supervisor: Supervisor) -> Outcome {
    let chain: Vec<Vec<libc::sock_filter>> = chain.iter().map(|p| raw(p.instructions())).collect();
    case(&chain, call, supervisor)
}

/// Programs that may be no filters.
pub(crate) fn in_child_raw(chain: &[Vec<libc::sock_filter>], nr: u32, args: [u64; 6]) -> Outcome {
    let call = Call {
        args,
        ..Call::new(Abi::X86_64, nr)
    };
    case(chain, &call, Supervisor::None)
}

/// Who listens to the notifications of the newest filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supervisor {
    /// Nobody.
    None,
    /// A process that answers the first notification with this result.
    Answers(i64),
}

pub(crate) fn raw(instructions: &[Instruction]) -> Vec<libc::sock_filter> {
    instructions
        .iter()
        .map(|i| libc::sock_filter {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect()
}

fn case(chain: &[Vec<libc::sock_filter>], call: &Call, supervisor: Supervisor) -> Outcome {
    // One shared page carries the outcome: (0 nothing yet, 1 refused, 2 returned) and the value. Writing to it needs no call
    // that a filter could deny.
    // JUSTIFICATION: std has no shared anonymous memory and no fork.
    // SAFETY: a new anonymous mapping; no existing memory is touched.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    let page: *mut [i64; 2] = page.cast();
    // SAFETY: between fork and its death the child calls nothing but system calls and touches only memory that was prepared
    // before: no lock of another thread of the test harness can be met.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        child(chain, call, supervisor, page);
    }
    let mut status = 0;
    // SAFETY: `status` is ours and lives through the call; `pid` is a child that nobody else waits for.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    // SAFETY: the page is mapped, aligned and at least 16 bytes long, and its only other user is dead.
    let [kind, value] = unsafe { page.read_volatile() };
    // SAFETY: the mapping made above, not used afterwards.
    let unmapped = unsafe { libc::munmap(page.cast(), 4096) };
    assert_eq!(unmapped, 0);
    match kind {
        1 => Outcome::Refused(value as i32),
        2 => Outcome::Returned(value),
        _ => {
            assert!(libc::WIFSIGNALED(status), "child ended without a word");
            Outcome::Died(libc::WTERMSIG(status))
        }
    }
}

/// Never returns: ends by `exit_group` or a signal.
fn child(
    chain: &[Vec<libc::sock_filter>],
    call: &Call,
    supervisor: Supervisor,
    page: *mut [i64; 2],
) -> ! {
    // SAFETY: only changes this process, which has one thread.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mut helper = 0;
    for (at, filter) in chain.iter().enumerate() {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        let listens = supervisor != Supervisor::None && at + 1 == chain.len();
        let flags = if listens {
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        } else {
            0
        };
        // JUSTIFICATION: std and libc have no wrapper of seccomp(2).
        // SAFETY: `program` points at `len` instructions that live until the child's end; the kernel copies them before it
        // returns. The filter falls on this child only, which the test has made for it.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        if rc < 0 {
            let errno = std::io::Error::last_os_error().raw_os_error();
            finish(page, [1, errno.unwrap_or_default().into()]);
        }
        if listens && let Supervisor::Answers(result) = supervisor {
            helper = answer_one(rc as i32, result);
        }
    }
    let result = match call.arch {
        0x4000_0003 => by_interrupt(call),
        _ => by_syscall(call),
    };
    if helper > 0 {
        // SAFETY: the helper is our child and not yet waited for, so its number is not somebody else's.
        unsafe { libc::kill(helper, libc::SIGKILL) };
        // SAFETY: a null status is allowed.
        unsafe { libc::waitpid(helper, std::ptr::null_mut(), 0) };
    }
    finish(page, [2, result]);
}

/// Starts a process that answers the first notification. It ends with its parent.
fn answer_one(listener: i32, result: i64) -> i32 {
    // SAFETY: as in `case`: the new process makes system calls and touches its own stack.
    let pid = unsafe { libc::fork() };
    if pid != 0 {
        return pid;
    }
    // SAFETY: only changes this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    // SAFETY: all zeroes is a valid value, and the one that SECCOMP_IOCTL_NOTIF_RECV asks for.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SECCOMP_IOCTL_NOTIF_RECV and _SEND, include/uapi/linux/seccomp.h: _IOWR('!', 0, 80 bytes), _IOWR('!', 1, 24 bytes)
    // SAFETY: `notif` is a `struct seccomp_notif`, which this request fills.
    let received = unsafe { libc::ioctl(listener, 0xc050_2100, &raw mut notif) };
    if received == 0 {
        let mut answer = libc::seccomp_notif_resp {
            id: notif.id,
            val: result,
            error: 0,
            flags: 0,
        };
        // SAFETY: `answer` is a `struct seccomp_notif_resp`, which this request reads.
        unsafe { libc::ioctl(listener, 0xc018_2101, &raw mut answer) };
    }
    // SAFETY: ends the process without running anything of the test harness.
    unsafe { libc::_exit(0) }
}

/// A call of x86-64, or of x32 when the number has its bit.
fn by_syscall(call: &Call) -> i64 {
    let result: i64;
    // JUSTIFICATION: libc's `syscall` is right too, but would hide the difference between errno and a result of −1.
    // SAFETY: the tests only make calls that touch no memory: numbers out of range, or arguments that are plain values.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") i64::from(call.nr) => result,
            in("rdi") call.args[0],
            in("rsi") call.args[1],
            in("rdx") call.args[2],
            in("r10") call.args[3],
            in("r8") call.args[4],
            in("r9") call.args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A call of i386 from 64-bit code. The sixth argument stays what it is.
fn by_interrupt(call: &Call) -> i64 {
    let result: i64;
    // JUSTIFICATION: nothing else makes calls by this way. `rbx` is LLVM's, so it is put back.
    // SAFETY: as in `by_syscall`; the kernel clears r8 to r11 (entry_INT80_compat).
    unsafe {
        core::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) call.args[0] => _,
            inlateout("rax") i64::from(call.nr) => result,
            in("rcx") call.args[1],
            in("rdx") call.args[2],
            in("rsi") call.args[3],
            in("rdi") call.args[4],
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // the result of a 32-bit call is 32 bits wide
    i64::from(result as i32)
}

fn finish(page: *mut [i64; 2], words: [i64; 2]) -> ! {
    // SAFETY: the page is mapped, aligned and long enough, and the parent reads it only after our death.
    unsafe { page.write_volatile(words) };
    // SAFETY: ends the process without running anything of the test harness.
    unsafe { libc::_exit(0) }
}
