//! What can be known of a client's change without its document: the part of the gate that reads foreign bytes.
//!
//! It needs no state, so a server does it in a process that it can kill, before the push reaches the log writer. What
//! passes here is a text change in canonical form, of bounded size, that automerge alone reads as the same change;
//! whether it fits its document is checked by [`Document::gate`](super::Document::gate), in steps that its size bounds.

use super::change::{self, ChangeRefusal};
use super::{Candidate, kernel};
use crate::limits;

/// Reads a change; gives the number of its ops.
///
/// # Errors
/// [`ChangeRefusal`]: what the gate would refuse whatever the document is, or what automerge does not read.
pub fn inspect(candidate: &Candidate<'_>) -> Result<usize, ChangeRefusal> {
    let (bytes, max) = (candidate.bytes.len(), limits::RICH_CHANGE_BYTES_MAX);
    if bytes > max {
        return Err(ChangeRefusal::TooLong { bytes, max });
    }
    let (change, hash) = change::decode(candidate.bytes)?;
    if change.actor != candidate.actor {
        return Err(ChangeRefusal::Actor { expected: candidate.actor, got: change.actor });
    }
    kernel::reads(candidate.bytes, &change, &hash).map_err(|reason| ChangeRefusal::Kernel { reason })?;
    Ok(change.ops.len())
}
