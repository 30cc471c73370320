//! A recording as it is written: one JSON object, `type: recording`, `v: 1`.
//!
//! The value types of [`crate::recording`] are their own wire form; this adds the envelope and its bounds.

use crate::recording::Recording;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Largest recording that is read, in bytes.
pub const MAX_BYTES: usize = 16 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordingV1 {
    #[serde(rename = "type")]
    kind: String,
    v: u32,
    recording: Recording,
}

/// A recording that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Too large to read.
    #[error("recording has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Not of the form; also a file that was cut off.
    #[error("recording is not of the form: {problem}")]
    Shape {
        /// What the reader found.
        problem: String,
    },
    /// Another format.
    #[error("expected `recording` version 1, found `{kind}` version {v}")]
    Version {
        /// Its type.
        kind: String,
        /// Its version.
        v: u32,
    },
}

/// The file's content; the digest of these bytes is the recording's identity.
#[must_use]
pub fn write(recording: &Recording) -> Vec<u8> {
    let wire = RecordingV1 {
        kind: "recording".to_string(),
        v: 1,
        recording: recording.clone(),
    };
    // no maps with keys other than integers and strings, no floats: serialising cannot fail (serde_json, "Errors")
    let mut bytes = serde_json::to_vec(&wire).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Reads a file's content.
///
/// # Errors
/// Larger than [`MAX_BYTES`], not of the form, or of another version.
pub fn read(bytes: &[u8]) -> Result<Recording, ReadError> {
    if bytes.len() > MAX_BYTES {
        return Err(ReadError::TooLarge {
            bytes: bytes.len(),
            limit: MAX_BYTES,
        });
    }
    let wire: RecordingV1 = serde_json::from_slice(bytes).map_err(|error| ReadError::Shape {
        problem: error.to_string(),
    })?;
    if wire.kind != "recording" || wire.v != 1 {
        return Err(ReadError::Version {
            kind: wire.kind,
            v: wire.v,
        });
    }
    Ok(wire.recording)
}
