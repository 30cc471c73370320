//! Who may do what on the control socket.

use lazaret_core::control::Request;
use lazaret_kernel::handover::Peer;

/// Groups that may more than others. Root may everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Members may operate.
    pub(crate) operate: Option<u32>,
    /// Members may look.
    pub(crate) read: Option<u32>,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look: status, watch, drift.
    Read,
    /// Also change: phase, revise, stopping.
    Operate,
}

impl Roles {
    /// Whether anybody but root may come near the socket.
    pub(crate) fn are_given(&self) -> bool {
        self.operate.is_some() || self.read.is_some()
    }

    /// What this peer may do; nothing for most.
    pub(crate) fn of(&self, peer: &Peer) -> Option<Role> {
        let member = |group: Option<u32>| group.is_some_and(|group| peer.is_in(group));
        if peer.uid == 0 || member(self.operate) {
            Some(Role::Operate)
        } else if member(self.read) {
            Some(Role::Read)
        } else {
            None
        }
    }
}

impl Role {
    /// What a request needs.
    pub(crate) fn needed(request: &Request) -> Role {
        match request {
            Request::Status { .. } | Request::Watch { .. } | Request::Drift { .. } => Role::Read,
            Request::Phase { .. } | Request::Revise { .. } | Request::Stopping { .. } => {
                Role::Operate
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            pid: 1,
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn root_operates_members_do_what_their_group_may_and_others_nothing() {
        let roles = Roles {
            operate: Some(10),
            read: Some(20),
        };
        for (peer, expected) in [
            (peer(0, 0, &[]), Some(Role::Operate)),
            (peer(1000, 10, &[]), Some(Role::Operate)),
            (peer(1000, 1000, &[5, 10, 20]), Some(Role::Operate)),
            (peer(1000, 20, &[]), Some(Role::Read)),
            (peer(1000, 1000, &[20]), Some(Role::Read)),
            (peer(1000, 1000, &[11, 21]), None),
            // group root is not user root
            (peer(1000, 0, &[0]), None),
        ] {
            assert_eq!(roles.of(&peer), expected, "{peer:?}");
            let nobody = Roles::default().of(&peer);
            assert_eq!(nobody, (peer.uid == 0).then_some(Role::Operate));
        }
    }
}
