//! What has to leave the local database before its time: the commit by which it goes, and the row that says how far.
//!
//! Rows of entries are written once and never again, but for this.

use serde::{Deserialize, Serialize};

use crate::codec::Format;
use crate::id::{LogName, Offset};
use crate::storage::row;
use crate::storage::{self, Key, Write};
use crate::time::WallMs;

/// How far a log is purged.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Purged {
    format: Format<1>,
    /// When the next event ends that is in a row here, by the server's clock; none: there is none.
    pub expires: Option<WallMs>,
    /// Erases before this offset were carried out here.
    pub erased: Offset,
    /// When rows were looked at last, by what was taken for the server's clock; 0: they were not.
    pub looked: WallMs,
}

impl Purged {
    /// A log in which the next event ends at this time, purged of what was erased before an offset, as it was when it
    /// was looked at.
    pub fn new(expires: Option<WallMs>, erased: Offset, looked: WallMs) -> Self {
        Self { format: Format, expires, erased, looked }
    }
}

/// Own rows without what has to leave.
#[derive(Clone, Debug)]
pub struct Purge {
    /// The leader's epoch.
    pub fence: u64,
    /// The log.
    pub log: LogName,
    /// Rows of own entries, with what stays of each; nothing: the row goes.
    pub rows: Vec<(Key, Vec<u8>)>,
    /// Other rows that go: dead letters, and what folds came to that may have used what was erased.
    pub gone: Vec<Key>,
    /// How far the log is purged with this commit; none: there is more to do.
    pub purged: Option<Purged>,
}

impl Purge {
    pub(super) fn writes(&self) -> Vec<Write> {
        let rows = self.rows.iter().map(|(key, bytes)| match bytes.is_empty() {
            true => Write::Delete(key.clone()),
            false => Write::Put(key.clone(), bytes.clone()),
        });
        let gone = self.gone.iter().cloned().map(Write::Delete);
        rows.chain(gone).chain(self.purged.iter().map(|purged| purged.write(&self.log))).collect()
    }
}

impl Purged {
    /// The row.
    pub(super) fn write(&self, log: &LogName) -> Write {
        Write::Put(storage::purged_key(log), row::encode(self))
    }
}
