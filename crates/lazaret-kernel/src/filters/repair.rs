//! Makes a call go on that a stop cut short.
//!
//! A stop wakes a thread that sleeps in a call. Most calls then say one of the kernel's own restart codes, and the kernel
//! makes them again when no signal handler ran. Some say `EINTR`, stop or handler alike (signal(7), "Interruption of system
//! calls and library functions by stop signals"), and programs that handle no signals do not expect it. For these the
//! register with the result is given `ERESTARTNOHAND` before the thread goes on: made again without a handler, `EINTR` after
//! one, as if nobody had stopped it (`arch_do_signal_or_restart` and `handle_signal`, arch/x86/kernel/signal.c; the result is
//! looked at after the stop).
//!
//! A call is made again only if it is in [`AGAIN`]: `close` for instance has closed its descriptor when it says `EINTR`, and
//! what a driver's `ioctl` means by it nobody knows.

use super::ReadError;

/// Calls whose `EINTR` means that nothing was done, and which a stop can make return it:
///
/// - epoll (`ep_poll`, fs/eventpoll.c), `rt_sigtimedwait` (kernel/signal.c), System V semaphores (`__do_semtimedop`,
///   ipc/sem.c; on i386 also through `ipc`, whose other calls say `ERESTARTNOHAND`), `io_getevents` (fs/aio.c),
///   `io_uring_enter` (`io_run_task_work_sig`; it says how many entries it submitted if it did), `fallocate` on tmpfs
///   (`shmem_fallocate`, mm/shmem.c, before Linux 6.9; what it had allocated is undone);
/// - everything that can wait on a socket with `SO_RCVTIMEO` or `SO_SNDTIMEO` (`sock_intr_errno`, include/net/sock.h; on i386
///   also through `socketcall`, whose other calls do not wait): what was transferred already is returned as a short count
///   instead, and `connect` waits again for the same connection (`__inet_stream_connect`, net/ipv4/af_inet.c).
#[cfg(target_arch = "x86_64")]
const AGAIN: &[&str] = &[
    "accept",
    "accept4",
    "connect",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "fallocate",
    "io_getevents",
    "io_uring_enter",
    "ipc",
    "read",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmmsg_time64",
    "recvmsg",
    "rt_sigtimedwait",
    "rt_sigtimedwait_time64",
    "semop",
    "semtimedop",
    "semtimedop_time64",
    "sendfile",
    "sendfile64",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "socketcall",
    "splice",
    "write",
    "writev",
];

/// Refuses a thread that could not be repaired.
#[cfg(target_arch = "x86_64")]
pub(super) fn check(_tid: u32) -> Result<(), ReadError> {
    Ok(())
}

/// Refuses a thread that could not be repaired: any but one that waits for a supervisor, whose call is made again by the
/// kernel. On aarch64 the kernel looks at the result, and forgets the first argument, before a thread stops (`do_signal`,
/// arch/arm64/kernel/signal.c).
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn check(tid: u32) -> Result<(), ReadError> {
    match crate::process::waits_in_notification(tid) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ReadError::Architecture { tid }),
        Err(source) => Err(ReadError::Process { tid, source }),
    }
}

/// Nothing to do: see [`check`].
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn repair(_number: i32) -> std::io::Result<()> {
    Ok(())
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::repair;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::AGAIN;
    use crate::returned::check;
    use lazaret_core::filter::abi::Abi;
    use lazaret_core::filter::table::name_of;
    use std::io;

    /// `ERESTARTNOHAND` (include/linux/errno.h); never seen outside of the kernel but by a tracer.
    const ERESTARTNOHAND: i32 = 514;

    /// The registers of a stopped thread, `struct user_regs_struct` for 64-bit code and `struct user_regs_struct32` for
    /// 32-bit code (arch/x86/include/asm/user_64.h, user32.h).
    enum Registers {
        Long([u64; 27]),
        Short([u32; 17]),
    }

    /// Where the result is; `rax` and `eax`.
    const RAX: usize = 10;
    const EAX: usize = 6;
    /// Where the number of the call is, negative outside of calls; `orig_rax` and `orig_eax`.
    const ORIG_RAX: usize = 15;
    const ORIG_EAX: usize = 11;

    impl Registers {
        fn get(number: i32) -> io::Result<Registers> {
            let mut buffer = [0_u64; 27];
            let mut vector = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: size_of_val(&buffer),
            };
            // JUSTIFICATION: rustix has no ptrace.
            // SAFETY: the kernel writes at most iov_len bytes to iov_base, which is `buffer`, exclusively borrowed.
            let returned = unsafe {
                libc::ptrace(
                    libc::PTRACE_GETREGSET,
                    number,
                    libc::NT_PRSTATUS,
                    &raw mut vector,
                )
            };
            check(returned)?;
            // the kernel says with the length which of the two it was (task_user_regset_view, arch/x86/kernel/ptrace.c)
            if vector.iov_len == size_of::<[u64; 27]>() {
                return Ok(Registers::Long(buffer));
            }
            if vector.iov_len != size_of::<[u32; 17]>() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut words = buffer
                .iter()
                .flat_map(|pair| [*pair as u32, (*pair >> 32) as u32]);
            // 54 words are there
            Ok(Registers::Short(std::array::from_fn(|_| {
                words.next().unwrap_or_default()
            })))
        }

        /// The number of the call that returns just now, if one does.
        fn call(&self) -> Option<u32> {
            // the kernel looks at the lower half only (syscall_get_nr, arch/x86/include/asm/syscall.h)
            let number = match self {
                Registers::Long(all) => all[ORIG_RAX] as u32,
                Registers::Short(all) => all[ORIG_EAX],
            };
            (number.cast_signed() >= 0).then_some(number)
        }

        fn result(&self) -> i64 {
            match self {
                Registers::Long(all) => all[RAX].cast_signed(),
                Registers::Short(all) => all[EAX].cast_signed().into(),
            }
        }

        /// Writes the result, and the registers before it back as they were.
        fn set_result(mut self, number: i32, result: i32) -> io::Result<()> {
            let (base, length) = match &mut self {
                Registers::Long(all) => {
                    all[RAX] = i64::from(result).cast_unsigned();
                    (all.as_mut_ptr().cast(), (RAX + 1) * size_of::<u64>())
                }
                Registers::Short(all) => {
                    all[EAX] = result.cast_unsigned();
                    (all.as_mut_ptr().cast(), (EAX + 1) * size_of::<u32>())
                }
            };
            let mut vector = libc::iovec {
                iov_base: base,
                iov_len: length,
            };
            // JUSTIFICATION: rustix has no ptrace.
            // SAFETY: the kernel reads iov_len bytes from iov_base, which is the head of an array in `self`. Only the result of
            // a call of the other process changes, to a value that the kernel itself uses there.
            let returned = unsafe {
                libc::ptrace(
                    libc::PTRACE_SETREGSET,
                    number,
                    libc::NT_PRSTATUS,
                    &raw mut vector,
                )
            };
            check(returned).map(drop)
        }
    }

    /// By which convention the call was made: 64-bit code can call by the 32-bit one, so the registers do not tell.
    fn arch(number: i32) -> io::Result<u32> {
        // op and three bytes of padding, arch, instruction pointer, stack pointer: all that is filled in outside of system call
        // stops (ptrace_get_syscall_info, kernel/ptrace.c, from Linux 5.3 on)
        let mut info = [0_u32; 6];
        // JUSTIFICATION: rustix has no ptrace.
        // SAFETY: the kernel writes at most the given number of bytes to the pointer, which is `info`, exclusively borrowed.
        let returned = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                number,
                size_of_val(&info),
                info.as_mut_ptr(),
            )
        };
        check(returned)?;
        Ok(info[1])
    }

    /// Makes the call go on that the stop of this thread cut short, if it would fail with `EINTR` otherwise.
    pub(in super::super) fn repair(number: i32) -> io::Result<()> {
        let registers = Registers::get(number)?;
        let Some(call) = registers.call() else {
            return Ok(());
        };
        if registers.result() != -i64::from(libc::EINTR) || !is_made_again(arch(number)?, call) {
            return Ok(());
        }
        registers.set_result(number, -ERESTARTNOHAND)
    }

    fn is_made_again(arch: u32, call: u32) -> bool {
        Abi::of(arch, call)
            .and_then(|(abi, nr)| name_of(abi, nr))
            .is_some_and(|name| AGAIN.contains(&name))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use lazaret_core::filter::abi::X32_BIT;

        #[test]
        fn what_is_made_again_depends_on_the_convention() {
            let long = Abi::X86_64.audit_arch();
            let short = Abi::I386.audit_arch();
            for (arch, nr, expected) in [
                (long, 232, true),                     // epoll_wait
                (long, 256, false),                    // migrate_pages
                (short, 256, true),                    // epoll_wait
                (short, 232, false),                   // fgetxattr
                (long, 102, false),                    // getuid
                (short, 102, true),                    // socketcall
                (long, 3, false),                      // close
                (short, 6, false),                     // close
                (long, 16, false),                     // ioctl
                (long, X32_BIT | 232, true),           // epoll_wait
                (long, X32_BIT | 519, true),           // recvmsg of x32
                (long, 519, false),                    // nothing
                (Abi::Aarch64.audit_arch(), 22, true), // epoll_pwait
                (0, 232, false),
            ] {
                assert_eq!(is_made_again(arch, nr), expected, "{arch:#x} {nr}");
            }
        }

        #[test]
        fn every_name_is_a_call() {
            for name in AGAIN {
                let known = [Abi::X86_64, Abi::I386]
                    .into_iter()
                    .any(|abi| lazaret_core::filter::table::nr_of(abi, name).is_some());
                assert!(known, "{name}");
            }
        }
    }
}
