//! Who is at the other end of a Unix socket, as the kernel says.
//!
//! The kernel keeps the credentials of the moment of `connect(2)`, `listen(2)` or `socketpair(2)` (unix(7), `SO_PEERCRED`):
//! what the peer becomes later, and to whom it hands the socket, does not show. Decides nothing.

use crate::returned::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Supplementary groups of a process at most (`NGROUPS_MAX`, include/uapi/linux/limits.h).
const MAX_GROUPS: usize = 65_536;

/// Groups that are asked for at first; few processes have more.
const FEW_GROUPS: usize = 32;

/// The kernel did not say who the peer is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// `SO_PEERCRED`.
    #[error("cannot tell who connected")]
    Credentials(#[source] io::Error),
    /// `SO_PEERGROUPS`, from Linux 4.13 on.
    #[error("cannot tell the groups of the process that connected")]
    Groups(#[source] io::Error),
}

/// A process at the other end of a Unix socket, as it was when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id in this program's pid namespace; 0 when it is not visible there.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
    /// Its supplementary groups; `gid` need not be among them.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Whether it acts for this group, by its effective or a supplementary group id.
    #[must_use]
    pub fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }
}

/// Who connected to a Unix socket (`SO_PEERCRED`, `SO_PEERGROUPS`; unix(7)).
///
/// # Errors
/// When the descriptor is no connected Unix socket.
pub fn peer(socket: impl AsFd) -> Result<Peer, PeerError> {
    let socket = socket.as_fd();
    let credentials = credentials(socket).map_err(PeerError::Credentials)?;
    Ok(Peer {
        // negative numbers are no pids
        pid: u32::try_from(credentials.pid).unwrap_or(0),
        uid: credentials.uid,
        gid: credentials.gid,
        groups: groups(socket).map_err(PeerError::Groups)?,
    })
}

/// The user id alone.
pub(super) fn uid(socket: impl AsFd) -> Result<u32, PeerError> {
    credentials(socket)
        .map(|credentials| credentials.uid)
        .map_err(PeerError::Credentials)
}

fn credentials(socket: impl AsFd) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t; // 12
    // JUSTIFICATION: rustix's socket_peercred calls a peer without a pid in our namespace (pid 0) undefined.
    // SAFETY: SO_PEERCRED writes at most `length` bytes, the size of `peer`, to a live local (unix(7)).
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    check(returned.into())?;
    // another family answers with less (or not at all), and a socket without a peer with no user (-1): never take zeros
    // for root
    if usize::try_from(length) != Ok(size_of::<libc::ucred>()) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(peer)
}

fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; FEW_GROUPS];
    loop {
        // at most 4 * MAX_GROUPS
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // JUSTIFICATION: neither std nor rustix wraps SO_PEERGROUPS.
        // SAFETY: the kernel writes at most `length` bytes, the size of `groups`, which is exclusively borrowed; every bit
        // pattern is a group id.
        let returned = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or(0) / size_of::<u32>();
        match check(returned.into()) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // `length` then says how much it would be (sk_getsockopt, net/core/sock.c)
            Err(error)
                if error.raw_os_error() == Some(libc::ERANGE)
                    && count > groups.len()
                    && count <= MAX_GROUPS =>
            {
                groups.resize(count, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_is_told_by_its_process_user_and_groups() {
        let (here, _there) = UnixStream::pair().expect("socket pair");
        let peer = peer(&here).expect("told");
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        let own = rustix::process::getgroups().expect("told");
        let own: BTreeSet<u32> = own.into_iter().map(|group| group.as_raw()).collect();
        assert_eq!(peer.groups.iter().copied().collect::<BTreeSet<_>>(), own);
        assert!(peer.is_in(peer.gid));
        assert!(!peer.is_in(u32::MAX));
    }

    #[test]
    fn many_groups_are_all_told() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: not root, cannot join groups");
            return;
        }
        for count in [0, 1, FEW_GROUPS, FEW_GROUPS + 1, 5000] {
            let wanted: Vec<u32> = (0..count as u32).map(|group| 70_000 + group).collect();
            let joined = wanted.clone();
            let made = std::thread::spawn(move || {
                // JUSTIFICATION: libc's wrapper changes every thread; this one alone is to be in these groups.
                // SAFETY: setgroups reads `joined.len()` numbers from a live vector; the thread ends right afterwards.
                let returned =
                    unsafe { libc::syscall(libc::SYS_setgroups, joined.len(), joined.as_ptr()) };
                (returned, UnixStream::pair())
            });
            let (returned, pair) = made.join().expect("ended");
            assert_eq!(returned, 0);
            let (here, _there) = pair.expect("socket pair");
            let peer = peer(&here).expect("told");
            assert_eq!(peer.groups, wanted);
            assert_eq!(peer.is_in(70_000), count > 0);
        }
    }

    #[test]
    fn what_has_no_peer_is_refused() {
        let (one, _two) = std::io::pipe().expect("pipe");
        assert!(matches!(peer(&one), Err(PeerError::Credentials(_))));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = tcp.local_addr().expect("bound");
        let client = std::net::TcpStream::connect(address).expect("connected");
        assert!(peer(&client).is_err(), "never taken for root");
    }
}
