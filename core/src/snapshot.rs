//! Snapshots: the bytes of confirmed state. The format is not written yet; there are no snapshots until it is.

use crate::state::State;

/// No bytes of this format exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("snapshots are not written yet")]
pub struct SnapshotError;

/// The bytes of a state.
///
/// # Errors
/// [`SnapshotError`].
pub fn encode(_: &mut State) -> Result<Vec<u8>, SnapshotError> {
    Err(SnapshotError)
}

/// The state of these bytes.
///
/// # Errors
/// [`SnapshotError`].
pub fn decode(_: &[u8]) -> Result<State, SnapshotError> {
    Err(SnapshotError)
}
