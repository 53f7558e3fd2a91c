//! Looking up own entries after any number of reloads.
//!
//! What is undecided, not folded yet or refused is held in memory and answered from there. One other entry costs two
//! reads of one row: the run row says in which group its write is, and the group has it. Only a list that includes
//! accepted entries reads the rows of all groups, since it shall hold them all.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Entry;
use crate::id::{ActorId, EntryId, LogName, Offset, RunId, Seq, WriteId};
use crate::protocol::frame::MarkedStatus;
use crate::storage::commit::Prepared;
use crate::storage::row::{self, DeadLetter};
use crate::storage::{self, KeyRange, Row, own};
use crate::time::WallMs;
use crate::value::Value;

use super::{CallError, Engine, Output, Request, RequestId, Slot};

/// An own entry and how far it came.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnEntry {
    /// The id that the app knows.
    pub write: WriteId,
    /// (actor, seq), once it is stored.
    pub id: Option<EntryId>,
    /// The action.
    pub name: String,
    /// Its arguments.
    pub args: Option<Value>,
    /// The author's clock.
    pub time: WallMs,
    /// How far it came.
    pub status: OwnStatus,
    /// Its offset and when the server took it, as far as this device holds what says so: a snapshot does not.
    pub place: Option<(Offset, WallMs)>,
    /// The entry that it re-issues.
    pub replaces: Option<EntryId>,
    /// A dead letter of which a replacement is undecided.
    pub redriven: bool,
}

/// How far an own entry came.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnStatus {
    /// Not durable yet.
    Pending,
    /// Durable on this device.
    Stored,
    /// In the log; with an outcome if it had no effect.
    Accepted(Option<MarkedStatus>),
    /// Not in the log: the status, the number of the code, and the reason.
    Refused(MarkedStatus, Option<u16>, String),
}

/// Which own entries a list shall hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// All that this device still keeps: reads the rows of all groups.
    All,
    /// Those that are not accepted: undecided ones and dead letters, from memory.
    NotAccepted,
    /// Dead letters from a seq on alone, from memory; costs nothing for those before it or for what is undecided.
    Refused(Seq),
}

impl Engine {
    /// Asks for own entries of a log, oldest first; [`Output::OwnEntries`] answers.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn own_entries(&mut self, name: &LogName, which: Own) -> Result<RequestId, CallError> {
        self.replica(name)?;
        let entries = self.slots.get(name).map(|slot| match which {
            Own::All => None,
            Own::NotAccepted => Some(slot.not_accepted(&BTreeSet::new())),
            Own::Refused(from) => Some(slot.refused(from).into_values().collect()),
        });
        match entries.flatten() {
            Some(entries) => Ok(self.own_answered(entries)),
            None => {
                let own = storage::own_of_origin(name, self.actor());
                Ok(self.read(Request::OwnEntries(name.clone()), vec![own]))
            }
        }
    }

    /// Asks for one own entry of a log; [`Output::OwnEntries`] answers with it, or with nothing.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn own_entry(&mut self, name: &LogName, write: WriteId) -> Result<RequestId, CallError> {
        self.replica(name)?;
        if let Some(entry) = self.slots.get(name).and_then(|slot| slot.in_memory(write)) {
            return Ok(self.own_answered(vec![entry]));
        }
        let range = storage::run_before(name, write.run, write.n + 1);
        Ok(self.read(Request::OwnRun(name.clone(), write), vec![range]))
    }

    fn own_answered(&mut self, entries: Vec<OwnEntry>) -> RequestId {
        self.request_last += 1;
        self.outputs.push_back(Output::OwnEntries(self.request_last, Ok(entries)));
        self.request_last
    }

    /// The group that may hold the write is known: read it.
    pub(super) fn own_run_read(&mut self, id: RequestId, name: LogName, write: WriteId, rows: &[Vec<Row>]) {
        let Some((_, bytes)) = rows.first().and_then(|rows| rows.first()) else {
            return self.outputs.push_back(Output::OwnEntries(id, Ok(Vec::new())));
        };
        let range = match row::decode::<EntryId>(bytes) {
            Ok(first) => KeyRange::only(storage::own_key(&name, first.actor, first.seq)),
            // The row is damaged: it only saves reading them all.
            Err(_) => storage::own_of_origin(&name, self.actor()),
        };
        self.requests.insert(id, Request::OwnGroup(name, write));
        self.outputs.push_back(Output::Read(id, vec![range]));
    }

    pub(super) fn own_group_read(&mut self, id: RequestId, name: &LogName, write: WriteId, rows: Vec<Vec<Row>>) {
        let slot = self.slots.get(name);
        let found = own::read(rows.into_iter().flatten(), Seq(1), None).map(|own| {
            let mut found = own.entries.into_iter().filter(|entry| write_of(entry) == write);
            let entry = slot.and_then(|slot| slot.in_memory(write).or_else(|| Some(slot.stored(&found.next()?))));
            entry.into_iter().collect()
        });
        self.outputs.push_back(Output::OwnEntries(id, found.map_err(|error| error.to_string())));
    }

    pub(super) fn own_entries_read(&mut self, id: RequestId, name: &LogName, rows: Vec<Vec<Row>>) {
        let Some(slot) = self.slots.get(name) else {
            return self.outputs.push_back(Output::OwnEntries(id, Ok(Vec::new())));
        };
        // What is damaged among them is listed with the dead letters.
        // Rows of an earlier actor that were issued again stand there twice.
        let is_author = |(key, _): &Row| {
            let first = storage::number_of(key).map(Seq);
            first.is_some_and(|first| storage::actor_of(key) == Some(slot.replica.outbox().author_of(first)))
        };
        let rows = rows.into_iter().flatten().filter(is_author);
        let stored = match own::read(rows, Seq(1), None) {
            Ok(own) => own.entries,
            Err(error) => return self.outputs.push_back(Output::OwnEntries(id, Err(error.to_string()))),
        };
        let read: Vec<_> = stored.into_iter().map(|entry| slot.stored(&entry)).collect();
        let known: BTreeSet<_> = read.iter().map(|entry| entry.write).collect();
        let is_kept = |entry: &OwnEntry| match entry.status {
            OwnStatus::Refused(..) => entry.id.is_some_and(|id| slot.replica.dead_letter(id).is_some()),
            _ => true,
        };
        let mut entries: Vec<_> = read.into_iter().filter(is_kept).collect();
        entries.extend(slot.not_accepted(&known));
        self.outputs.push_back(Output::OwnEntries(id, Ok(entries)));
    }
}

impl Slot {
    /// Everything that is held and not accepted, but for what is `known` already: by seq, then what has none.
    fn not_accepted(&self, known: &BTreeSet<WriteId>) -> Vec<OwnEntry> {
        let outbox = self.replica.outbox();
        let undecided = outbox.held().map(|entry| self.stored(entry));
        let undecided = undecided.filter(|entry| entry.status == OwnStatus::Stored);
        let mut sequenced: BTreeMap<(Seq, ActorId), OwnEntry> =
            undecided.filter_map(|entry| Some((place_of(entry.id?), entry))).collect();
        sequenced.extend(self.refused(Seq(0)));
        let pending = outbox.pending().map(|prepared| self.pending(prepared));
        sequenced.into_values().chain(pending).filter(|entry| !known.contains(&entry.write)).collect()
    }

    /// Dead letters from a seq on, by seq.
    fn refused(&self, from: Seq) -> BTreeMap<(Seq, ActorId), OwnEntry> {
        let own = |id: &EntryId| self.replica.outbox().author_of(id.seq) == id.actor;
        let letters = self.replica.dead_letters_from(from).map(|(id, letter)| match Entry::from_bytes(&letter.entry) {
            Ok(entry) if letter.write.is_some() && own(id) => self.stored(&entry),
            Ok(entry) if letter.write.is_some() => self.foreign(*id, letter, &entry),
            _ => damaged(*id, letter),
        });
        letters.filter_map(|entry| Some((place_of(entry.id?), entry))).collect()
    }

    /// An entry of somebody else that is kept because the server has lost it.
    fn foreign(&self, id: EntryId, letter: &DeadLetter, entry: &Entry) -> OwnEntry {
        OwnEntry {
            write: write_of(entry),
            name: entry.body.name.to_string(),
            args: entry.body.args.clone(),
            time: entry.header.time.ms(),
            replaces: entry.header.replaces.as_ref().map(|replaced| replaced.id),
            redriven: self.replica.is_under_way(id),
            ..damaged(id, letter)
        }
    }

    /// One entry, if it is held.
    fn in_memory(&self, write: WriteId) -> Option<OwnEntry> {
        let outbox = self.replica.outbox();
        if let Some(entry) = outbox.seq_of(write).and_then(|seq| outbox.stored(seq)) {
            return Some(self.stored(entry));
        }
        let is_it = |prepared: &&Prepared| write == WriteId { run: self.replica.run(), n: prepared.n };
        outbox.pending().find(is_it).map(|prepared| self.pending(prepared))
    }

    fn pending(&self, prepared: &Prepared) -> OwnEntry {
        OwnEntry {
            write: WriteId { run: self.replica.run(), n: prepared.n },
            id: None,
            name: prepared.body.name.to_string(),
            args: prepared.body.args.clone(),
            time: prepared.time.ms(),
            status: OwnStatus::Pending,
            place: None,
            replaces: prepared.replaces.as_ref().map(|replaced| replaced.id),
            redriven: false,
        }
    }

    fn stored(&self, entry: &Entry) -> OwnEntry {
        let replica = &self.replica;
        let seq = entry.header.seq;
        let id = EntryId { actor: replica.outbox().author_of(seq), seq };
        let verdicts = replica.outbox().verdicts();
        let letter = replica.dead_letter(id);
        // One that was given up here is refused before the server says so.
        let given_up = letter.filter(|_| seq > verdicts.through).map(|letter| letter.status);
        let status = match verdicts.mark(seq).or(given_up) {
            Some(mark) if !mark.is_accepted() => {
                let code = letter.and_then(|letter| letter.code).map(|code| code.number());
                OwnStatus::Refused(mark, code, letter.map(|letter| letter.reason.clone()).unwrap_or_default())
            }
            mark if seq <= verdicts.through || seq <= replica.covered() => OwnStatus::Accepted(mark),
            _ => OwnStatus::Stored,
        };
        let place = replica.place(seq).filter(|_| matches!(status, OwnStatus::Accepted(_)));
        OwnEntry {
            write: write_of(entry),
            id: Some(id),
            name: entry.body.name.to_string(),
            args: entry.body.args.clone(),
            time: entry.header.time.ms(),
            place,
            status,
            replaces: entry.header.replaces.as_ref().map(|replaced| replaced.id),
            redriven: replica.is_under_way(id),
        }
    }
}

/// A dead letter whose bytes no longer tell what they were.
fn damaged(id: EntryId, letter: &DeadLetter) -> OwnEntry {
    let code = letter.code.map(|code| code.number());
    OwnEntry {
        // Run 0 is nobody's; the seq tells such letters apart.
        write: letter.write.unwrap_or(WriteId { run: RunId::default(), n: id.seq.0 }),
        id: Some(id),
        name: String::new(),
        args: None,
        time: letter.at,
        status: OwnStatus::Refused(letter.status, code, letter.reason.clone()),
        place: None,
        replaces: None,
        redriven: false,
    }
}

/// Own entries are listed by seq; those of others among them, too.
fn place_of(id: EntryId) -> (Seq, ActorId) {
    (id.seq, id.actor)
}

fn write_of(entry: &Entry) -> WriteId {
    WriteId { run: entry.header.run, n: entry.header.n }
}
