//! A fresh actor takes over from one that cannot go on, because a copy of the database writes under it or because the
//! server has forgotten it: identity and every log's own entries in one transaction.
//!
//! The successor goes on with the numbers of its predecessor. What was decided under that is a void under the successor,
//! and what was not is issued again under the same seq, naming the original; so ids, needs and what an author had seen
//! of its own work mean the same as before. Rows of the predecessor stay.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::id::{ActorId, ClientId, EntryId, LogName, Seq};
use crate::storage::commit::{CommitAbort, Committed, Decision, check_actor, check_fence};
use crate::storage::row::{self, DeadLetter, Verdicts, Voids};
use crate::storage::{self, Key, Write};

/// Entries in one row of re-issued ones, at the most.
const GROUP_ENTRIES_MAX: usize = 1024;

/// Everything of one database that a successor takes over.
#[derive(Clone, Debug)]
pub struct Succession {
    /// The leader's epoch.
    pub fence: u64,
    /// Under whose name the database wrote so far; the commit aborts if it is another one by now.
    pub from: ActorId,
    /// Under whose name it writes from now on.
    pub to: ActorId,
    /// The database's new id, where another database has the old one too.
    pub client: Option<ClientId>,
    /// How many logs had own entries when their rows were read; the commit aborts if there are more by now.
    pub known: u64,
    /// Every log with own entries.
    pub logs: Vec<Inherited>,
}

/// What a successor takes over of one log.
#[derive(Clone, Debug, PartialEq)]
pub struct Inherited {
    /// The log.
    pub log: LogName,
    /// The next seq when the rows were read; the commit aborts if more was appended since.
    pub next: Seq,
    /// Through which seq verdicts were recorded then; the commit aborts if more are by now.
    pub decided: Seq,
    /// Seqs that hold nothing under the successor, and whose they were.
    pub voids: Voids,
    /// What is decided, as the successor has it.
    pub verdicts: Verdicts,
    /// What is issued again, ascending.
    pub entries: Vec<Entry>,
    /// Dead letters of seqs that are the successor's now.
    pub moved: BTreeMap<EntryId, DeadLetter>,
    /// New dead letters.
    pub letters: BTreeMap<EntryId, DeadLetter>,
}

impl Succession {
    pub(super) fn reads(&self) -> Vec<Key> {
        let logs = self.logs.iter().flat_map(|log| [storage::next_key(&log.log), storage::verdicts_key(&log.log)]);
        [storage::leader_key(), storage::identity_key()].into_iter().chain(logs).collect()
    }

    pub(super) fn decide(&self, rows: &[Option<Vec<u8>>]) -> Decision {
        let row = |at: usize| rows.get(at).and_then(Option::as_deref);
        check_fence(self.fence, row(0))?;
        let mut identity = check_actor(self.from, row(1))?;
        if identity.logs != self.known {
            return Err(CommitAbort::Overtaken);
        }
        identity.succeed(self.to, self.client);
        let mut writes = vec![Write::Put(storage::identity_key(), row::encode_twice(&identity))];
        for (at, inherited) in self.logs.iter().enumerate() {
            inherited.check(self.from, row(2 + 2 * at), row(3 + 2 * at))?;
            writes.extend(inherited.writes(self.to));
        }
        Ok((writes, Committed::Identity(identity)))
    }
}

impl Inherited {
    /// Rows that changed since they were read make the decision anew.
    fn check(&self, from: ActorId, next: Option<&[u8]>, verdicts: Option<&[u8]>) -> Result<(), CommitAbort> {
        let next: Seq = next.map_or(Ok(Seq(1)), row::decode_either)?;
        let through = |verdicts: Verdicts| if verdicts.actor == from { verdicts.through } else { Seq(0) };
        let decided = match verdicts.map(row::decode) {
            // A damaged row says nothing, and is written anew.
            Some(Err(_)) => self.decided,
            Some(Ok(verdicts)) => through(verdicts),
            None => Seq(0),
        };
        match (next, decided) == (self.next, self.decided) {
            true => Ok(()),
            false => Err(CommitAbort::Overtaken),
        }
    }

    fn writes(&self, to: ActorId) -> Vec<Write> {
        let log = &self.log;
        let mut writes = vec![
            Write::Put(storage::voids_key(log, to), row::encode_twice(&self.voids)),
            Write::Put(storage::verdicts_key(log), row::encode(&self.verdicts)),
        ];
        let follows = |one: &Entry, two: &Entry| one.header.seq.next() == two.header.seq;
        let groups = self.entries.chunk_by(follows).flat_map(|stretch| stretch.chunks(GROUP_ENTRIES_MAX));
        let add = |group: &[Entry]| {
            let key = storage::own_key(log, to, group.first()?.header.seq);
            Some(Write::Add(key, row::encode_group(group)))
        };
        writes.extend(groups.filter_map(add));
        let key = |id: &EntryId| storage::dead_letter_key(log, id.actor, id.seq);
        writes.extend(self.moved.keys().map(|id| Write::Delete(key(id))));
        let moved = self.moved.iter().map(|(id, letter)| (EntryId { actor: to, seq: id.seq }, letter));
        let letters = self.letters.iter().map(|(id, letter)| (*id, letter)).chain(moved);
        writes.extend(letters.map(|(id, letter)| Write::Put(key(&id), row::encode(letter))));
        writes
    }
}
