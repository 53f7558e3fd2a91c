//! The confirmed state of one log as the server keeps it: the fold of its entries, and the gate for rich changes.

use crate::entry::{Entry, Logged};
use crate::id::{ActorId, LogId};
use crate::protocol::Code;

/// The fold of a log's prefix.
#[derive(Clone, Debug)]
pub struct Confirmed {}

/// A stored snapshot does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmedError {
    /// Load an older snapshot or fold from the beginning.
    #[error("the snapshot does not read: {0}")]
    Snapshot(String),
}

impl Confirmed {
    /// The state of a log without entries.
    pub fn new(_log: LogId) -> Self {
        Self {}
    }

    /// A stored snapshot.
    ///
    /// # Errors
    /// [`ConfirmedError::Snapshot`].
    pub fn from_snapshot(_bytes: &[u8]) -> Result<Self, ConfirmedError> {
        Ok(Self {})
    }

    /// The bytes of a snapshot.
    ///
    /// # Errors
    /// [`ConfirmedError::Snapshot`].
    pub fn to_snapshot(&mut self) -> Result<Vec<u8>, ConfirmedError> {
        Ok(Vec::new())
    }

    /// Whether the entry's rich changes may enter the log.
    ///
    /// # Errors
    /// Code and reason of the refusal; nothing of the entry was taken.
    pub fn gate(&mut self, _actor: ActorId, _entry: &Entry) -> Result<(), (Code, String)> {
        Ok(())
    }

    /// Folds an entry that passed the gate. Tells whether a record that it changes was gone.
    pub fn fold(&mut self, _logged: &Logged) -> bool {
        false
    }
}
