//! What a client has of a snapshot whose transfer was cut. Source: docs/protocol.md, "subscribe".

use serde::{Deserialize, Serialize};

use crate::chain::Cursor;
use crate::entry::Digest;

/// The beginning of a snapshot, by what tells it from any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegun {
    /// The cursor the whole snapshot covers.
    pub cursor: Cursor,
    /// How many of its bytes are there, from the first on.
    pub bytes: u64,
    /// Their digest.
    pub digest: Digest,
}

impl SnapshotBegun {
    /// Where a snapshot goes on behind this beginning of it; none if this begins another one, or is all of it.
    pub fn goes_on_at(&self, cursor: Cursor, snapshot: &[u8]) -> Option<usize> {
        let at = usize::try_from(self.bytes).ok().filter(|at| *at < snapshot.len())?;
        (self.cursor == cursor && self.digest == Digest::of(&[&snapshot[..at]])).then_some(at)
    }
}
