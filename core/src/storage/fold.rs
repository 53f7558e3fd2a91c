//! What a fold has come to, as it is written: never over what another tab has that is ahead.

use crate::fold::{Changes, Checkpoint};
use crate::id::{LogName, Name, Offset};
use crate::storage::{self, Write, row};

/// What a fold has come to: its checkpoint with the dead letters behind it, or only what the user did to those.
#[derive(Clone, Debug)]
pub struct FoldCommit {
    /// The log.
    pub log: LogName,
    /// The fold.
    pub fold: Name,
    /// The version of its handlers. A tab with older ones writes nothing.
    pub version: u64,
    /// How often it began anew. A tab that has not heard of the last time writes nothing.
    pub revision: u64,
    /// What is new.
    pub changes: Changes,
}

impl FoldCommit {
    /// Nothing, if another tab is ahead: with newer handlers, or after a redrive that this one has not heard of.
    pub(super) fn writes(&self, row: Option<&[u8]>) -> Vec<Write> {
        let (log, fold) = (&self.log, &self.fold);
        // A damaged checkpoint is none: it can be had again.
        let known = row.and_then(|row| row::decode::<Checkpoint>(row).ok());
        let ahead = |known: &Checkpoint| (known.version, known.revision) > (self.version, self.revision);
        if known.as_ref().is_some_and(ahead) {
            return Vec::new();
        }
        let mut writes = Vec::new();
        if known.as_ref().is_none_or(|known| known.version != self.version) {
            let first = storage::fold_letter_key(log, fold, Offset(0));
            writes.push(Write::DeleteRange(first, storage::fold_letter_key(log, fold, Offset(u64::MAX))));
        }
        for (offset, letter) in &self.changes.letters {
            let key = storage::fold_letter_key(log, fold, *offset);
            writes.push(match letter {
                Some(letter) => Write::Put(key, row::encode(letter)),
                None => Write::Delete(key),
            });
        }
        let further = |checkpoint: &&Checkpoint| {
            known.as_ref().is_none_or(|known| {
                (known.version, known.revision, known.log) != (self.version, self.revision, checkpoint.log)
                    || known.done.next < checkpoint.done.next
            })
        };
        if let Some(checkpoint) = self.changes.checkpoint.as_ref().filter(further) {
            writes.push(Write::Put(storage::fold_key(log, fold), row::encode(checkpoint)));
        }
        writes
    }
}
