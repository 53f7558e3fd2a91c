//! The bytes between TypeScript and the engine: msgpack both ways, shapes as in `ts/boundary.ts`, which names them.
//!
//! What comes in is parsed here once, into core's types where core has them; whoever holds a parsed request need not
//! doubt it. Arrays carry a word in front where several shapes are possible.
//!
//! **Invariant:** no other file of this crate knows these shapes.

pub(crate) mod request;

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
    rmp_serde::from_slice(bytes).map_err(|error| BadRequest(error.to_string()))
}
