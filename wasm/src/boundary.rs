//! The bytes between TypeScript and the engine: msgpack both ways, shapes as in `ts/boundary.ts`, which names them.
//!
//! What comes in is parsed here once, into core's types where core has them; whoever holds a parsed request need not
//! doubt it. Arrays carry a word in front where several shapes are possible.
//!
//! **Invariant:** no other file of this crate knows these shapes.

pub(crate) mod answer;
pub(crate) mod fold;
pub(crate) mod request;

use driftlog_core::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request that is not what `ts/boundary.ts` says: a bug of this package, or a caller past its types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request is malformed: {0}")]
pub(crate) struct BadRequest(pub(crate) String);

/// Parses a request.
///
/// # Errors
/// [`BadRequest`] with the place that does not fit.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadRequest> {
    codec::from_bytes(bytes).map_err(|error| BadRequest(error.to_string()))
}

/// Writes an answer: structs as maps, everything else as arrays.
pub(crate) fn encode(answer: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    // Writing to memory does not fail, and no answer has a map of unknown length.
    let written = answer.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "{written:?}");
    bytes
}
