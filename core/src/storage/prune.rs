//! Own entries that are decided and in a stored snapshot: the commit by which they go.

use crate::id::LogName;
use crate::storage::{Key, Write};

/// Own entries that are not needed here any more.
#[derive(Clone, Debug)]
pub struct Prune {
    /// The leader's epoch.
    pub fence: u64,
    /// The log.
    pub log: LogName,
    /// The first key that goes.
    pub start: Key,
    /// The first key behind it that stays: of the same actor, whoever has taken over since they were read.
    pub end: Key,
    /// The run rows that lead to those that go.
    pub runs: Vec<Key>,
}

impl Prune {
    pub(super) fn writes(&self) -> Vec<Write> {
        let runs = self.runs.iter().cloned().map(Write::Delete);
        runs.chain([Write::DeleteRange(self.start.clone(), self.end.clone())]).collect()
    }
}
