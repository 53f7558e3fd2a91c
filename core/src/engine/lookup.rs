//! Looking up own entries after any number of reloads.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::id::{ActorId, EntryId, LogName, Offset, Seq, WriteId};
use crate::packed::Item;
use crate::protocol::frame::MarkedStatus;
use crate::storage::row::{self, Received};
use crate::storage::{self, KeyRange, Row};
use crate::time::WallMs;
use crate::value::Value;

use super::{CallError, Engine, Output, Request, RequestId};

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

impl Engine {
    /// Asks for all own entries of a log that this device still holds; [`Output::OwnEntries`] answers.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn own_entries(&mut self, name: &LogName) -> Result<RequestId, CallError> {
        self.replica(name)?;
        let prefixes = [storage::own_prefix(name, self.actor()), storage::received_prefix(name)];
        Ok(self.read(Request::OwnEntries(name.clone()), prefixes.map(KeyRange::prefix).to_vec()))
    }

    pub(super) fn own_entries_read(&mut self, id: RequestId, name: &LogName, rows: Vec<Vec<Row>>) {
        let Ok([own, received]) = <[Vec<Row>; 2]>::try_from(rows) else { return };
        let places = places(self.actor(), &received);
        let stored = own.into_iter().flat_map(|(_, bytes)| row::decode_group(&bytes).unwrap_or_default());
        let mut entries: Vec<_> = stored.filter_map(|entry| self.stored_entry(name, &entry, &places)).collect();
        if let Some(slot) = self.slots.get(name) {
            let known: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.write).collect();
            let pending = slot.replica.outbox().pending().map(|prepared| OwnEntry {
                write: WriteId { run: self.config.run, n: prepared.n },
                id: None,
                name: prepared.body.name.to_string(),
                args: prepared.body.args.clone(),
                time: prepared.time.ms(),
                status: OwnStatus::Pending,
                place: None,
            });
            entries.extend(pending.filter(|entry| !known.contains(&entry.write)));
        }
        self.outputs.push_back(Output::OwnEntries(id, entries));
    }

    fn stored_entry(&self, name: &LogName, entry: &Entry, places: &Places) -> Option<OwnEntry> {
        let replica = &self.slots.get(name)?.replica;
        let seq = entry.header.seq;
        let id = EntryId { actor: replica.actor(), seq };
        let verdicts = replica.outbox().verdicts();
        let status = match verdicts.mark(seq) {
            Some(mark) if !mark.is_accepted() => {
                let letter = replica.dead_letters().find(|(letter, _)| **letter == id).map(|(_, letter)| letter);
                let code = letter.and_then(|letter| letter.code).map(|code| code.number());
                OwnStatus::Refused(mark, code, letter.map(|letter| letter.reason.clone()).unwrap_or_default())
            }
            mark if seq <= verdicts.through || seq <= replica.state().folded(id.actor) => OwnStatus::Accepted(mark),
            _ => OwnStatus::Stored,
        };
        Some(OwnEntry {
            write: WriteId { run: entry.header.run, n: entry.header.n },
            id: Some(id),
            name: entry.body.name.to_string(),
            args: entry.body.args.clone(),
            time: entry.header.time.ms(),
            place: places.get(&seq).copied().filter(|_| matches!(status, OwnStatus::Accepted(_))),
            status,
        })
    }
}

/// Where own entries stand in the log, and since when.
type Places = BTreeMap<Seq, (Offset, WallMs)>;

fn places(actor: ActorId, rows: &[Row]) -> Places {
    let received = rows.iter().filter_map(|(_, bytes)| row::decode::<Received>(bytes).ok());
    let items = received.flat_map(|received| received.entries.unpack(received.from).unwrap_or_default());
    items
        .filter_map(|item| match item {
            Item::Stub(stub) if stub.id.actor == actor => Some((stub.id.seq, (stub.offset, stub.accepted.ms()))),
            Item::Entry(logged) if logged.actor == actor => {
                Some((logged.entry.header.seq, (logged.offset, logged.accepted.ms())))
            }
            _ => None,
        })
        .collect()
}
