//! Own entries that are decided and in a stored snapshot: the commit by which they go.

use crate::id::{ActorId, LogName, Seq};
use crate::storage::{self, Key, Write};

/// Own entries that are not needed here any more.
#[derive(Clone, Debug)]
pub struct Prune {
    /// The leader's epoch.
    pub fence: u64,
    /// The log.
    pub log: LogName,
    /// Whose entries they are.
    pub actor: ActorId,
    /// The first key of own entries that stays.
    pub end: Key,
    /// The run rows that lead to those that go.
    pub runs: Vec<Key>,
}

impl Prune {
    pub(super) fn writes(&self) -> Vec<Write> {
        let first = storage::own_key(&self.log, self.actor, Seq(0));
        let runs = self.runs.iter().cloned().map(Write::Delete);
        runs.chain([Write::DeleteRange(first, self.end.clone())]).collect()
    }
}
