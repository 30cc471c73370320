//! What daemon and holder say to each other: one message is one packet (`SOCK_SEQPACKET`), at most one descriptor goes
//! with it. Bytes to values and back; no IO.
//!
//! The holder speaks first: [`Reply::Here`], or [`Reply::Refused`] to a second daemon. The daemon says [`Request::Hello`], the
//! holder answers [`Reply::Welcome`] and gives back so many [`Reply::Kept`]. From then on each request has one reply.
//!
//! Holder and daemon can be of different versions of this program: an upgrade starts a new daemon while the old holder
//! runs. So this must stay understood for ever, and what is added later is asked for by a higher version in `Hello`.

use std::fmt;

/// The version that this program speaks.
const VERSION: u8 = 1;

/// Bytes of a name at most (`FDNAME_MAX`, systemd's basic/fd-util.h).
pub(crate) const MAX_NAME: usize = 255;

/// Bytes of a message at most: a letter and a name.
pub(super) const MAX_MESSAGE: usize = 1 + MAX_NAME;

/// A name that both the holder and systemd take: letters, digits, `.`, `_` and `-`. systemd forbids `:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn new(text: &str) -> Option<Name> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(good);
        fits.then(|| Name(text.to_owned()))
    }

    fn parse(bytes: &[u8]) -> Option<Name> {
        Name::new(std::str::from_utf8(bytes).ok()?)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a daemon asks of the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Give me everything, and keep it for so many seconds when I am gone.
    Hello {
        /// Seconds.
        hold_for_s: u32,
    },
    /// Keep the descriptor that comes with this.
    Put(Name),
    /// Close that one.
    Remove(Name),
    /// Close everything and exit.
    LetGo,
}

/// What the holder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It listens to this peer.
    Here,
    /// So many descriptors follow.
    Welcome {
        /// How many.
        count: u32,
    },
    /// One of them.
    Kept(Name),
    /// Done.
    Done,
    /// Not done.
    Refused(Refusal),
}

/// Why the holder does not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// One daemon at a time.
    #[error("another daemon is connected")]
    Busy,
    /// It holds as many as it may.
    #[error("it holds as many descriptors as it may open")]
    Full,
    /// The name is in use.
    #[error("it holds one of that name already")]
    Exists,
    /// The message has no meaning at that place.
    #[error("message was not understood")]
    Nonsense,
}

impl Request {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Request::Hello { hold_for_s } => {
                let mut bytes = vec![b'H', VERSION];
                bytes.extend(hold_for_s.to_le_bytes());
                bytes
            }
            Request::Put(name) => with_name(b'P', name),
            Request::Remove(name) => with_name(b'R', name),
            Request::LetGo => vec![b'L'],
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Request> {
        let (&kind, rest) = bytes.split_first()?;
        match (kind, rest) {
            (b'H', [VERSION, seconds @ ..]) => Some(Request::Hello {
                hold_for_s: u32::from_le_bytes(seconds.try_into().ok()?),
            }),
            (b'P', name) => Name::parse(name).map(Request::Put),
            (b'R', name) => Name::parse(name).map(Request::Remove),
            (b'L', []) => Some(Request::LetGo),
            _ => None,
        }
    }

    /// Descriptors that go with it.
    pub(super) fn descriptors(&self) -> usize {
        usize::from(matches!(self, Request::Put(_)))
    }
}

impl Reply {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Reply::Here => vec![b'V', VERSION],
            Reply::Welcome { count } => {
                let mut bytes = vec![b'W'];
                bytes.extend(count.to_le_bytes());
                bytes
            }
            Reply::Kept(name) => with_name(b'K', name),
            Reply::Done => vec![b'D'],
            Reply::Refused(why) => vec![b'N', letter(*why)],
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Reply> {
        let (&kind, rest) = bytes.split_first()?;
        match (kind, rest) {
            // a later holder may know more; this daemon asks for this version
            (b'V', [version, ..]) if *version >= VERSION => Some(Reply::Here),
            (b'W', count) => Some(Reply::Welcome {
                count: u32::from_le_bytes(count.try_into().ok()?),
            }),
            (b'K', name) => Name::parse(name).map(Reply::Kept),
            (b'D', []) => Some(Reply::Done),
            (b'N', [why]) => REFUSALS
                .into_iter()
                .find(|refusal| letter(*refusal) == *why)
                .map(Reply::Refused),
            _ => None,
        }
    }
}

const REFUSALS: [Refusal; 4] = [
    Refusal::Busy,
    Refusal::Full,
    Refusal::Exists,
    Refusal::Nonsense,
];

fn letter(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Busy => b'b',
        Refusal::Full => b'f',
        Refusal::Exists => b'e',
        Refusal::Nonsense => b'n',
    }
}

fn with_name(kind: u8, name: &Name) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(name.as_str().bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_as_it_was_said() {
        let name = Name::new(&"n".repeat(MAX_NAME)).expect("a name");
        for request in [
            Request::Hello { hold_for_s: 30 },
            Request::Put(name.clone()),
            Request::Remove(name.clone()),
            Request::LetGo,
        ] {
            let bytes = request.to_bytes();
            assert!(bytes.len() <= MAX_MESSAGE);
            assert_eq!(Request::parse(&bytes), Some(request));
        }
        let mut replies = vec![
            Reply::Here,
            Reply::Welcome { count: 2000 },
            Reply::Kept(name),
            Reply::Done,
        ];
        replies.extend(REFUSALS.map(Reply::Refused));
        for reply in replies {
            let bytes = reply.to_bytes();
            assert!(bytes.len() <= MAX_MESSAGE);
            assert_eq!(Reply::parse(&bytes), Some(reply));
        }
    }

    #[test]
    fn what_has_no_meaning_is_nothing() {
        for bytes in [
            &b""[..],
            b"H",
            b"H\x02\x1e\0\0\0",
            b"H\x01\x1e\0\0",
            b"H\x01\x1e\0\0\0\0",
            b"P",
            b"Pa:b",
            b"Pa/b",
            b"P\xff",
            b"R",
            b"Bx",
            b"Lx",
            b"X",
        ] {
            assert_eq!(Request::parse(bytes), None, "{bytes:?}");
        }
        for bytes in [
            &b""[..],
            b"V",
            b"V\0",
            b"W\0",
            b"K",
            b"Dx",
            b"N",
            b"Nx",
            b"Q",
        ] {
            assert_eq!(Reply::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_bytes_of_version_1_are_these() {
        let name = Name::new("c1-7.x_Y").expect("a name");
        assert_eq!(Request::Put(name.clone()).to_bytes(), b"Pc1-7.x_Y");
        assert_eq!(Request::Remove(name.clone()).to_bytes(), b"Rc1-7.x_Y");
        let hello = Request::Hello { hold_for_s: 258 };
        assert_eq!(hello.to_bytes(), b"H\x01\x02\x01\0\0");
        assert_eq!(Request::LetGo.to_bytes(), b"L");
        assert_eq!(Reply::Here.to_bytes(), b"V\x01");
        assert_eq!(Reply::Kept(name).to_bytes(), b"Kc1-7.x_Y");
        assert_eq!(Reply::Welcome { count: 3 }.to_bytes(), b"W\x03\0\0\0");
    }

    #[test]
    fn names_have_bounds() {
        for good in ["a", "gate", "0", "x.y_z-1", &"n".repeat(255)] {
            assert!(Name::new(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "a:b", "a/b", "ä", "a\n", &"n".repeat(256)] {
            assert!(Name::new(bad).is_none(), "{bad}");
        }
    }
}
