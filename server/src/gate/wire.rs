//! What server and gate worker say to each other over the worker's standard input and output.
//!
//! A frame is a length and a CRC32C of four bytes each, little-endian, and a msgpack value: a [`Task`] one way, an
//! [`Answer`] the other, strictly in turns. Both ends are the same build, so there is no version.

use driftlog_core::codec;
use serde::{Deserialize, Serialize};

/// Bytes of the largest frame: a push frame's changes, or a long text with its edits.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes before the content of a frame.
pub(super) const HEAD_BYTES: usize = 8;

/// One rich change and the author that it must have been made by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) actor: [u8; 16],
    #[serde(with = "serde_bytes")]
    pub(super) bytes: Vec<u8>,
}

/// What a worker is asked: to read every change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) changes: Vec<Change>,
}

/// What was found in a change: the number of its ops, or why it is refused whatever its document is.
pub(super) type Found = Result<usize, String>;

/// What a worker says when it has survived: of each change, the number of its ops or its refusal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer(Vec<(Option<usize>, String)>);

impl Answer {
    pub(super) fn new(found: impl Iterator<Item = Found>) -> Self {
        let told = |found: Found| match found {
            Ok(ops) => (Some(ops), String::new()),
            Err(refusal) => (None, refusal),
        };
        Self(found.map(told).collect())
    }

    pub(super) fn found(self) -> Vec<Found> {
        self.0.into_iter().map(|(ops, refusal)| ops.ok_or(refusal)).collect()
    }
}

/// A frame that is not what was sent.
#[derive(Debug, thiserror::Error)]
#[error("a damaged frame: {0}")]
pub(super) struct Damaged(String);

/// The bytes of a frame.
pub(super) fn frame(value: &impl Serialize) -> Vec<u8> {
    let content = codec::to_bytes(value);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(crc32c::crc32c(&content).to_le_bytes());
    bytes.extend(content);
    bytes
}

/// The length of the content that a head announces.
pub(super) fn content_bytes(head: [u8; HEAD_BYTES]) -> Result<usize, Damaged> {
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length <= FRAME_BYTES_MAX { Ok(length) } else { Err(Damaged(format!("{length} bytes announced"))) }
}

/// The value of a frame.
pub(super) fn value<T: for<'a> Deserialize<'a>>(head: [u8; HEAD_BYTES], content: &[u8]) -> Result<T, Damaged> {
    let expected = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let got = crc32c::crc32c(content);
    if got != expected {
        return Err(Damaged(format!("checksum {got:08x}, expected {expected:08x}")));
    }
    codec::from_bytes(content).map_err(|error| Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_and_a_changed_one_is_found_out() {
        let answer = Answer::new([Ok(3), Err("refused".to_owned())].into_iter());
        let bytes = frame(&answer);
        let (head, content) = bytes.split_first_chunk::<HEAD_BYTES>().expect("a head");
        let read: Answer = value(*head, content).expect("whole");
        assert_eq!(read.found(), [Ok(3), Err("refused".to_owned())]);
        let task = Task { changes: vec![Change { actor: [7; 16], bytes: vec![1, 2, 3] }] };
        let bytes = frame(&task);
        let (head, content) = bytes.split_first_chunk::<HEAD_BYTES>().expect("a head");
        assert_eq!(content_bytes(*head).expect("in bounds"), content.len());
        assert_eq!(value::<Task>(*head, content).expect("whole"), task);
        for at in 0..content.len() {
            let mut damaged = content.to_vec();
            damaged[at] ^= 1;
            assert!(value::<Task>(*head, &damaged).is_err(), "byte {at}");
        }
        assert!(content_bytes([0xff; HEAD_BYTES]).is_err());
    }
}
