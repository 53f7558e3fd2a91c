//! A log whose history at the server is another one than here, from an offset or a seq on: what was confirmed goes, and
//! own entries that the server does not have any more are undecided again. One transaction.

use std::collections::BTreeMap;

use crate::id::{ActorId, EntryId, LogName, Offset, Seq};
use crate::packed::Void;
use crate::storage::commit::{CommitAbort, Committed, Decision, check_actor, check_fence};
use crate::storage::purge::Purged;
use crate::storage::row::{self, DeadLetter, Verdicts, Voids};
use crate::storage::{self, Key, Write};

/// What is undone of one log.
#[derive(Clone, Debug)]
pub struct Rewind {
    /// The leader's epoch.
    pub fence: u64,
    /// The log.
    pub log: LogName,
    /// Under whose name the database writes.
    pub actor: ActorId,
    /// Through which seq verdicts were recorded when the rows were read; the commit aborts if more are by now.
    pub decided: Seq,
    /// The verdicts that the server still has.
    pub verdicts: Verdicts,
    /// Own seqs that are not offered again.
    pub voids: Vec<Void>,
    /// What is lost of this device's, and what it still holds of others'.
    pub letters: BTreeMap<EntryId, DeadLetter>,
    /// Whether confirmed state goes, with everything that was made of it.
    pub rebuild: bool,
}

impl Rewind {
    pub(super) fn reads(&self) -> Vec<Key> {
        let (voids, verdicts) = (storage::voids_key(&self.log, self.actor), storage::verdicts_key(&self.log));
        vec![storage::leader_key(), storage::identity_key(), voids, verdicts]
    }

    pub(super) fn decide(&self, rows: &[Option<Vec<u8>>]) -> Decision {
        let row = |at: usize| rows.get(at).and_then(Option::as_deref);
        let log = &self.log;
        check_fence(self.fence, row(0))?;
        check_actor(self.actor, row(1))?;
        let through = |verdicts: Verdicts| if verdicts.actor == self.actor { verdicts.through } else { Seq(0) };
        let decided = match row(3).map(row::decode) {
            // A damaged row says nothing, and is written anew here.
            Some(Err(_)) => self.decided,
            Some(Ok(verdicts)) => through(verdicts),
            None => Seq(0),
        };
        if decided != self.decided {
            return Err(CommitAbort::Overtaken);
        }
        // Another tab may have given some up meanwhile.
        let mut voids: Voids = row(2).map_or(Ok(Voids::default()), row::decode_either)?;
        for void in &self.voids {
            for (from, through) in voids.without(void.from, void.through) {
                voids.add(Void { from, through, reason: void.reason.clone() });
            }
        }
        let mut writes = vec![
            Write::Put(storage::verdicts_key(log), row::encode(&self.verdicts)),
            Write::Put(storage::voids_key(log, self.actor), row::encode_twice(&voids)),
        ];
        let put = |(id, letter): (&EntryId, &DeadLetter)| {
            Write::Put(storage::dead_letter_key(log, id.actor, id.seq), row::encode(letter))
        };
        writes.extend(self.letters.iter().map(put));
        if self.rebuild {
            // What was erased comes again from the server, and so does the word that it is.
            writes.push(Purged::new(Some(0), Offset(0), 0).write(log));
            let received = storage::received_key(log, Offset(0));
            writes.push(Write::Delete(storage::snapshot_key(log)));
            writes.push(Write::DeleteRange(received, storage::received_key(log, Offset(u64::MAX))));
            writes.extend(storage::folds_of(log).map(|(first, end)| Write::DeleteRange(first, end)));
        }
        Ok((writes, Committed::Rewound(voids)))
    }
}
