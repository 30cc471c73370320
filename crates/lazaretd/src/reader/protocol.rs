//! What daemon and reader say to each other: one request, one reply, each with its length before it.
//!
//! Bounded on both sides before anything is parsed. No IO but reading and writing a frame.

use lazaret_core::filter::program::Program;
use lazaret_kernel::process::NamespaceId;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Bytes of a request at most: two numbers as JSON.
pub(super) const MAX_REQUEST: usize = 128;

/// Bytes of a reply at most: 64 filters (`lazaret_kernel::filters` reads no more) of 4096 instructions, each with its length.
pub(super) const MAX_REPLY: usize = 1 + 64 * (LENGTH + 4096 * 8);

/// Bytes of an error's text at most.
const MAX_TEXT: usize = 4000;

/// Bytes of a length.
const LENGTH: usize = 4;

const CHAIN: u8 = 0;
const OWN_NAMESPACE: u8 = 1;
const FAILED: u8 = 2;

/// Which thread's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// The thread.
    pub(super) tid: u32,
    /// The pid namespace that it must be in.
    pub(super) namespace: NamespaceId,
}

impl Request {
    /// As it is sent.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        // two numbers: serialising them cannot fail (serde_json, "Errors" of to_vec)
        serde_json::to_vec(&self).unwrap_or_default()
    }

    /// `None`: nonsense.
    pub(super) fn parse(bytes: &[u8]) -> Option<Request> {
        serde_json::from_slice(bytes).ok()
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The filters, the first installed first.
    Chain(Vec<Program>),
    /// The thread is in the reader's own pid namespace and was not touched.
    OwnNamespace,
    /// Why nothing was read.
    Failed(String),
}

impl Reply {
    /// As it is sent.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Reply::Chain(programs) => {
                let mut bytes = vec![CHAIN];
                for program in programs {
                    let program = program.to_bytes();
                    // a program has at most 4096 instructions of 8 bytes
                    bytes.extend((program.len() as u32).to_le_bytes());
                    bytes.extend(program);
                }
                bytes
            }
            Reply::OwnNamespace => vec![OWN_NAMESPACE],
            Reply::Failed(text) => {
                let mut bytes = vec![FAILED];
                bytes.extend(text.bytes().take(MAX_TEXT));
                bytes
            }
        }
    }

    /// `None`: nonsense. An empty chain is nonsense too: it would mean that every call is allowed.
    pub(super) fn parse(bytes: &[u8]) -> Option<Reply> {
        let (kind, mut rest) = bytes.split_first()?;
        match *kind {
            CHAIN => {
                let mut programs = Vec::new();
                while !rest.is_empty() {
                    let (length, after) = rest.split_first_chunk()?;
                    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                    let (program, after) = after.split_at_checked(length)?;
                    programs.push(Program::from_bytes(program).ok()?);
                    rest = after;
                }
                (!programs.is_empty()).then_some(Reply::Chain(programs))
            }
            OWN_NAMESPACE => rest.is_empty().then_some(Reply::OwnNamespace),
            FAILED => Some(Reply::Failed(String::from_utf8_lossy(rest).into_owned())),
            _ => None,
        }
    }
}

/// Sends one frame.
///
/// # Errors
/// When the other side is gone.
pub(super) fn send(mut stream: impl Write, body: &[u8]) -> io::Result<()> {
    // both sides send less than MAX_REPLY
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(body);
    stream.write_all(&frame)
}

/// Receives one frame; `None` when the other side has hung up before it.
///
/// # Errors
/// When it is longer than `limit`, ends early, or does not come in time.
pub(super) fn receive(mut stream: impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; LENGTH];
    let mut got = 0;
    while let Some(free) = length.get_mut(got..).filter(|free| !free.is_empty()) {
        match stream.read(free) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => got += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {length} bytes, expected at most {limit}"),
        ));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_core::filter::program::Instruction;

    fn program(verdict: u32) -> Program {
        // BPF_RET | BPF_K
        let ret = Instruction {
            code: 0x06,
            jt: 0,
            jf: 0,
            k: verdict,
        };
        Program::new(vec![ret]).expect("valid")
    }

    #[test]
    fn what_is_said_is_understood() {
        for reply in [
            Reply::Chain(vec![program(0), program(0x7fff_0000)]),
            Reply::OwnNamespace,
            Reply::Failed("no such thread".to_owned()),
        ] {
            assert_eq!(Reply::parse(&reply.to_bytes()), Some(reply));
        }
    }

    #[test]
    fn nonsense_is_not_understood() {
        let chain = Reply::Chain(vec![program(0)]).to_bytes();
        for bytes in [
            &[][..],
            &[9],
            // no filter at all would allow everything
            &[CHAIN],
            &[OWN_NAMESPACE, 0],
            chain.get(..chain.len() - 1).expect("long enough"),
            // a length beyond the end
            &[CHAIN, 255, 255, 255, 255, 0],
            // an instruction that is none
            &[CHAIN, 8, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Reply::parse(bytes), None, "{bytes:?}");
        }
        for bytes in ["", "{}", "{\"tid\":1,\"namespace\":2,\"more\":3}"] {
            assert_eq!(Request::parse(bytes.as_bytes()), None, "{bytes}");
        }
    }

    #[test]
    fn a_frame_is_bounded_and_whole() {
        let mut bytes = Vec::new();
        send(&mut bytes, b"abc").expect("written");
        assert_eq!(receive(&bytes[..], 3).expect("read"), Some(b"abc".to_vec()));
        assert_eq!(receive(&[][..], 3).expect("hung up"), None);
        let long = receive(&bytes[..], 2).expect_err("too long");
        assert_eq!(long.kind(), io::ErrorKind::InvalidData);
        let cut = receive(&bytes[..6], 3).expect_err("cut");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let cut = receive(&bytes[..2], 3).expect_err("cut");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
