//! One blocking call of each kind that a stop can make fail with `EINTR`, and what ends its wait.
//!
//! Runs in the child only, on memory that is never freed.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3600);

/// A call that blocks, and what ends its wait.
pub(crate) struct Blocking {
    pub(crate) call: Box<dyn FnOnce() -> i64>,
    pub(crate) wake: Box<dyn FnOnce() + Send>,
}

/// Every call of [`blocking`], and its number in `/proc/TID/syscall`.
pub(crate) const CALLS: &[(&str, i64)] = &[
    ("epoll_wait", libc::SYS_epoll_wait),
    ("epoll_pwait", libc::SYS_epoll_pwait),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
    ("accept", libc::SYS_accept),
    ("accept4", libc::SYS_accept4),
    ("connect", libc::SYS_connect),
    ("read", libc::SYS_read),
    ("readv", libc::SYS_readv),
    ("recvfrom", libc::SYS_recvfrom),
    ("recvmsg", libc::SYS_recvmsg),
    ("recvmmsg", libc::SYS_recvmmsg),
    ("write", libc::SYS_write),
    ("writev", libc::SYS_writev),
    ("sendto", libc::SYS_sendto),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendmmsg", libc::SYS_sendmmsg),
    ("sendfile", libc::SYS_sendfile),
    ("splice", libc::SYS_splice),
    ("rt_sigtimedwait", libc::SYS_rt_sigtimedwait),
    ("semop", libc::SYS_semop),
    ("semtimedop", libc::SYS_semtimedop),
    ("io_getevents", libc::SYS_io_getevents),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    // calls of the kernel's own restarting, for comparison
    ("poll", libc::SYS_poll),
    ("futex", libc::SYS_futex),
    // epoll_wait of i386, from 64-bit code and from 32-bit code
    ("int80", 256),
    ("compat", 256),
];

/// Makes a call; the result, or minus an errno.
pub(crate) fn raw(nr: i64, args: [usize; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // JUSTIFICATION: wrappers may repeat a call after EINTR, or not exist.
    // SAFETY: pointers among the arguments come from `leaked`, so they stay valid and nothing else uses them.
    let returned = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    match returned {
        -1 => -i64::from(
            std::io::Error::last_os_error()
                .raw_os_error()
                .expect("an errno"),
        ),
        returned => returned,
    }
}

fn leaked<T>(value: T) -> usize {
    (&raw mut *Box::leak(Box::new(value))).addr()
}

fn exposed<T>(value: T) -> usize {
    (&raw mut *Box::leak(Box::new(value))).expose_provenance()
}

fn number(fd: &impl AsRawFd) -> usize {
    usize::try_from(fd.as_raw_fd()).expect("open")
}

/// One kilobyte to transfer, in the forms that the calls take it.
struct Buffer {
    bytes: usize,
    iovec: usize,
    message: usize,
    messages: usize,
}

/// What each call that transfers something asks for, in bytes; less than 256 − 133, so that no errno of an exit code is it.
pub(crate) const SIZE: i64 = 64;
const LENGTH: usize = SIZE as usize;

fn buffer() -> Buffer {
    let bytes = exposed([0_u8; LENGTH]);
    let vector = || libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(bytes),
        iov_len: LENGTH,
    };
    let iovec = exposed(vector());
    // name, name length, vector, its length, control, control length, flags: struct user_msghdr of 64-bit
    let header = [0, 0, iovec, 1, 0, 0, 0];
    Buffer {
        bytes,
        iovec,
        message: leaked(header),
        // struct mmsghdr: a header and a length
        messages: leaked([0, 0, iovec, 1, 0, 0, 0, 0]),
    }
}

fn receives(nr: i64, args: impl FnOnce(usize, Buffer) -> [usize; 6] + 'static) -> Blocking {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    ours.set_read_timeout(Some(HOUR)).expect("SO_RCVTIMEO");
    Blocking {
        call: Box::new(move || raw(nr, args(number(&ours), buffer()))),
        wake: Box::new(move || theirs.write_all(b"x").expect("written")),
    }
}

fn sends(nr: i64, args: impl FnOnce(usize, Buffer) -> [usize; 6] + 'static) -> Blocking {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
    ours.set_write_timeout(Some(HOUR)).expect("SO_SNDTIMEO");
    ours.set_nonblocking(true).expect("set");
    while ours.write(&[0; LENGTH]).is_ok() {}
    while ours.write(&[0]).is_ok() {}
    ours.set_nonblocking(false).expect("set");
    Blocking {
        call: Box::new(move || raw(nr, args(number(&ours), buffer()))),
        wake: Box::new(move || {
            theirs.set_nonblocking(true).expect("set");
            let mut all = Vec::new();
            drop(theirs.read_to_end(&mut all));
            // keeps the other end open until the child is gone
            std::mem::forget(theirs);
        }),
    }
}

fn listening(name: &str) -> (UnixListener, SocketAddr) {
    // abstract: in a network namespace, so with the process's own id
    let name = format!("lazaret-test-{name}-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("an address");
    let listener = UnixListener::bind_addr(&address).expect("bound");
    (listener, address)
}

fn accepts(nr: i64) -> Blocking {
    let (listener, address) = listening("accept");
    // a listener's timeouts are those of any socket; std has them for streams
    let stream = UnixStream::from(OwnedFd::from(listener.try_clone().expect("a copy")));
    stream.set_read_timeout(Some(HOUR)).expect("SO_RCVTIMEO");
    Blocking {
        call: Box::new(move || raw(nr, [number(&listener), 0, 0, 0, 0, 0])),
        wake: Box::new(move || {
            std::mem::forget(UnixStream::connect_addr(&address).expect("connected"));
        }),
    }
}

fn connects() -> Blocking {
    let (listener, address) = listening("connect");
    // a second listen changes the backlog, and 0 lets one wait (unix_listen, net/unix/af_unix.c)
    assert_eq!(raw(libc::SYS_listen, [number(&listener), 0, 0, 0, 0, 0]), 0);
    std::mem::forget(UnixStream::connect_addr(&address).expect("the one that may wait"));
    let mut bytes = [0_u8; 110];
    bytes[0] = libc::AF_UNIX as u8;
    let name = address.as_abstract_name().expect("abstract").to_vec();
    bytes[3..3 + name.len()].copy_from_slice(&name);
    let length = 3 + name.len();
    Blocking {
        call: Box::new(move || {
            let fd = raw(
                libc::SYS_socket,
                [
                    libc::AF_UNIX as usize,
                    libc::SOCK_STREAM as usize,
                    0,
                    0,
                    0,
                    0,
                ],
            );
            let fd = i32::try_from(fd).expect("a descriptor");
            // SAFETY: just made, known to nobody else.
            let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
            socket.set_write_timeout(Some(HOUR)).expect("SO_SNDTIMEO");
            raw(
                libc::SYS_connect,
                [number(&socket), leaked(bytes), length, 0, 0, 0],
            )
        }),
        wake: Box::new(move || {
            std::mem::forget(listener.accept().expect("accepted"));
            std::mem::forget(listener);
        }),
    }
}

fn polls(call: impl FnOnce(usize) -> i64 + 'static) -> Blocking {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let epoll = raw(libc::SYS_epoll_create1, [0; 6]);
    let epoll = usize::try_from(epoll).expect("a descriptor");
    // struct epoll_event is packed: events, then 64 bits of data
    let event = leaked([libc::EPOLLIN as u32, 0, 0]);
    let added = raw(
        libc::SYS_epoll_ctl,
        [
            epoll,
            libc::EPOLL_CTL_ADD as usize,
            number(&ours),
            event,
            0,
            0,
        ],
    );
    assert_eq!(added, 0);
    Blocking {
        call: Box::new(move || {
            let returned = call(epoll);
            drop(ours);
            returned
        }),
        wake: Box::new(move || {
            theirs.write_all(b"x").expect("written");
            std::mem::forget(theirs);
        }),
    }
}

fn semaphore(nr: i64) -> Blocking {
    // in an IPC namespace of the child's own, so it goes with it
    let set = raw(libc::SYS_semget, [0, 1, 0o600, 0, 0, 0]);
    let set = usize::try_from(set).expect("a set");
    // struct sembuf: number, operation, flags
    let take = leaked([0_i16, -1, 0]);
    let give = leaked([0_i16, 1, 0]);
    Blocking {
        call: Box::new(move || raw(nr, [set, take, 1, 0, 0, 0])),
        wake: Box::new(move || {
            assert_eq!(raw(libc::SYS_semop, [set, give, 1, 0, 0, 0]), 0);
        }),
    }
}

fn signalled(call: impl FnOnce() -> i64 + 'static) -> Blocking {
    let mask = leaked(1_u64 << (libc::SIGUSR1 - 1));
    let blocked = raw(
        libc::SYS_rt_sigprocmask,
        [libc::SIG_BLOCK as usize, mask, 0, 8, 0, 0],
    );
    assert_eq!(blocked, 0);
    let tid = usize::try_from(raw(libc::SYS_gettid, [0; 6])).expect("a thread");
    let pid = std::process::id() as usize;
    Blocking {
        call: Box::new(call),
        wake: Box::new(move || {
            let signal = libc::SIGUSR1 as usize;
            assert_eq!(raw(libc::SYS_tgkill, [pid, tid, signal, 0, 0, 0]), 0);
        }),
    }
}

fn events() -> Blocking {
    let context = exposed(0_usize);
    assert_eq!(raw(libc::SYS_io_setup, [1, context, 0, 0, 0, 0]), 0);
    let place: *const usize = std::ptr::with_exposed_provenance(context);
    // SAFETY: the leaked word above, which the kernel has filled in and nobody changes.
    let context = unsafe { place.read() };
    Blocking {
        call: Box::new(move || {
            raw(
                libc::SYS_io_getevents,
                [context, 1, 1, leaked([0_u64; 4]), 0, 0],
            )
        }),
        wake: Box::new(move || {
            let file = std::fs::File::open("/proc/self/exe").expect("own program");
            // struct iocb: data; key and flags; opcode 0 (IOCB_CMD_PREAD), priority and descriptor; buffer; length; offset; 0; 0
            let fd = (number(&file) as u64) << 32;
            let block = leaked([0, 0, fd, buffer().bytes as u64, LENGTH as u64, 0, 0, 0_u64]);
            let blocks = leaked(block);
            assert_eq!(raw(libc::SYS_io_submit, [context, 1, blocks, 0, 0, 0]), 1);
            std::mem::forget(file);
        }),
    }
}

fn ring() -> Blocking {
    // struct io_uring_params, 30 words: ten, then the offsets in the submission ring (head, tail …), then the others
    let params = exposed([0_u32; 30]);
    let ring = raw(libc::SYS_io_uring_setup, [2, params, 0, 0, 0, 0]);
    let ring = usize::try_from(ring).expect("a ring");
    let tail: *const u32 = std::ptr::with_exposed_provenance(params);
    // SAFETY: word 11 of the leaked 30 above.
    let tail = unsafe { tail.add(11) };
    // SAFETY: as above; the kernel has filled it in and nobody changes it.
    let tail = unsafe { tail.read() } as usize;
    let map = move |offset: usize| {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_SHARED | libc::MAP_POPULATE) as usize;
        let address = raw(libc::SYS_mmap, [0, 4096, protection, flags, ring, offset]);
        usize::try_from(address).expect("mapped")
    };
    let enter = move |submit: usize, wait: usize| {
        let flags = wait; // IORING_ENTER_GETEVENTS is 1
        raw(libc::SYS_io_uring_enter, [ring, submit, wait, flags, 0, 0])
    };
    Blocking {
        call: Box::new(move || enter(0, 1)),
        wake: Box::new(move || {
            // an entry of zeros is IORING_OP_NOP, and index 0 is in the array already
            let tail: *mut u32 = std::ptr::with_exposed_provenance_mut(map(0) + tail);
            // SAFETY: inside the submission ring's first page, which was just mapped; nobody else uses it.
            unsafe { tail.write_volatile(1) };
            assert_eq!(enter(1, 0), 1);
        }),
    }
}

/// epoll_wait of i386 from 64-bit code.
fn epoll_wait_int80(epoll: usize) -> i64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    let low = raw(
        libc::SYS_mmap,
        [
            0,
            4096,
            libc::PROT_WRITE as usize,
            flags as usize,
            usize::MAX,
            0,
        ],
    );
    let returned: i64;
    // JUSTIFICATION: there is no other way to call by the other convention.
    // SAFETY: the kernel writes one epoll_event to the page that was just mapped below 4 GiB. rbx belongs to the compiler, so
    // it is put back; int 0x80 clobbers r8 to r11 (arch/x86/entry/entry_64_compat.S).
    unsafe {
        std::arch::asm!(
            "xchg {epoll}, rbx",
            "int 0x80",
            "xchg {epoll}, rbx",
            epoll = inout(reg) epoll => _,
            inlateout("rax") 256_i64 => returned,
            in("rcx") low,
            in("rdx") 1_i64,
            in("rsi") -1_i64,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    returned
}

/// The call of this name.
pub(crate) fn blocking(name: &str) -> Blocking {
    let timed =
        |nr: i64| polls(move |epoll| raw(nr, [epoll, leaked([0_u32; 3]), 1, usize::MAX, 0, 0]));
    match name {
        "epoll_wait" => timed(libc::SYS_epoll_wait),
        "epoll_pwait" => timed(libc::SYS_epoll_pwait),
        "epoll_pwait2" => polls(|epoll| {
            raw(
                libc::SYS_epoll_pwait2,
                [epoll, leaked([0_u32; 3]), 1, 0, 0, 0],
            )
        }),
        "poll" => polls(|epoll| {
            let entry = leaked([epoll as u32, libc::POLLIN as u32]);
            raw(libc::SYS_poll, [entry, 1, usize::MAX, 0, 0, 0])
        }),
        "int80" => polls(epoll_wait_int80),
        "accept" => accepts(libc::SYS_accept),
        "accept4" => accepts(libc::SYS_accept4),
        "connect" => connects(),
        "read" => receives(libc::SYS_read, |fd, to| [fd, to.bytes, LENGTH, 0, 0, 0]),
        "readv" => receives(libc::SYS_readv, |fd, to| [fd, to.iovec, 1, 0, 0, 0]),
        "recvfrom" => receives(libc::SYS_recvfrom, |fd, to| [fd, to.bytes, LENGTH, 0, 0, 0]),
        "recvmsg" => receives(libc::SYS_recvmsg, |fd, to| [fd, to.message, 0, 0, 0, 0]),
        "recvmmsg" => receives(libc::SYS_recvmmsg, |fd, to| [fd, to.messages, 1, 0, 0, 0]),
        "write" => sends(libc::SYS_write, |fd, from| {
            [fd, from.bytes, LENGTH, 0, 0, 0]
        }),
        "writev" => sends(libc::SYS_writev, |fd, from| [fd, from.iovec, 1, 0, 0, 0]),
        "sendto" => sends(libc::SYS_sendto, |fd, from| {
            [fd, from.bytes, LENGTH, 0, 0, 0]
        }),
        "sendmsg" => sends(libc::SYS_sendmsg, |fd, from| [fd, from.message, 0, 0, 0, 0]),
        "sendmmsg" => sends(libc::SYS_sendmmsg, |fd, from| {
            [fd, from.messages, 1, 0, 0, 0]
        }),
        "sendfile" => {
            let file = std::fs::File::open("/proc/self/exe").expect("own program");
            let from = number(&file);
            std::mem::forget(file);
            sends(libc::SYS_sendfile, move |fd, _| [fd, from, 0, LENGTH, 0, 0])
        }
        "splice" => {
            let (reader, mut writer) = std::io::pipe().expect("a pipe");
            writer.write_all(&[0; LENGTH]).expect("written");
            let from = number(&reader);
            std::mem::forget((reader, writer));
            sends(libc::SYS_splice, move |fd, _| [from, 0, fd, 0, LENGTH, 0])
        }
        "rt_sigtimedwait" => signalled(|| {
            let set = leaked(1_u64 << (libc::SIGUSR1 - 1));
            raw(libc::SYS_rt_sigtimedwait, [set, 0, 0, 8, 0, 0])
        }),
        "semop" => semaphore(libc::SYS_semop),
        "semtimedop" => semaphore(libc::SYS_semtimedop),
        "io_getevents" => events(),
        "io_uring_enter" => ring(),
        "futex" => {
            let word = exposed(0_u32);
            Blocking {
                // FUTEX_WAIT is 0, FUTEX_WAKE is 1
                call: Box::new(move || raw(libc::SYS_futex, [word, 0, 0, 0, 0, 0])),
                wake: Box::new(move || {
                    assert_eq!(raw(libc::SYS_futex, [word, 1, 1, 0, 0, 0]), 1);
                }),
            }
        }
        _ => panic!("no such call: {name}"),
    }
}

/// A 32-bit program: it waits with `epoll_wait` for its standard input, and its result is its exit code.
pub(crate) fn compat_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let mut code: Vec<u8> = Vec::new();
    let data = BASE + HEADERS + 128;
    let mut load = |opcode: u8, value: u32| {
        code.push(opcode);
        code.extend(value.to_le_bytes());
    };
    // mov eax, ecx, edx, ebx, esi are B8, B9, BA, BB, BE
    load(0xb8, 254); // epoll_create
    load(0xbb, 1);
    code.extend([0xcd, 0x80, 0x89, 0xc3]); // int 0x80; mov ebx, eax
    let mut load = |opcode: u8, value: u32| {
        code.push(opcode);
        code.extend(value.to_le_bytes());
    };
    load(0xb8, 255); // epoll_ctl(ebx, EPOLL_CTL_ADD, 0, data)
    load(0xb9, 1);
    load(0xba, 0);
    load(0xbe, data);
    code.extend([0xcd, 0x80]);
    let mut load = |opcode: u8, value: u32| {
        code.push(opcode);
        code.extend(value.to_le_bytes());
    };
    load(0xb8, 256); // epoll_wait(ebx, data, 1, -1)
    load(0xb9, data);
    load(0xba, 1);
    load(0xbe, u32::MAX);
    code.extend([0xcd, 0x80, 0x89, 0xc3]); // int 0x80; mov ebx, eax
    code.extend([0xb8, 1, 0, 0, 0, 0xcd, 0x80]); // exit(ebx)
    assert!(code.len() <= 128);
    code.resize(128, 0);
    code.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // EPOLLIN
    let size = HEADERS + code.len() as u32;

    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2_u16, 3] {
        file.extend(half.to_le_bytes()); // executable, i386
    }
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        file.extend(u32::to_le_bytes(word)); // version, entry, program headers, sections, flags
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 7, 0x1000] {
        file.extend(u32::to_le_bytes(word)); // one loaded segment that may be everything
    }
    file.extend(code);
    file
}
