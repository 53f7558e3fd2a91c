//! Where every action is that was said to be stored: in the log, a dead letter, still in its device's outbox, replaced
//! by an action that its user or an operator put in its place, or discarded by its user. Of a line of replacements one
//! is in the log at most.

use std::collections::{BTreeMap, BTreeSet};

use driftlog_core::entry::Replaced;
use driftlog_core::id::{ActorId, EntryId, LogName, Seq, WriteId};
use driftlog_core::protocol::Code;
use driftlog_core::storage::row::{self, DeadLetter, Identity, Verdicts, Voids};
use driftlog_core::storage::{self, KeyRange};

use super::checker::{Told, Verdict};
use super::device::DeviceNumber;
use super::world::World;
use crate::database::Database;

/// The line that each own entry belongs to, and the action that it is, as far as devices have it.
type Lines = BTreeMap<Replaced, (Replaced, WriteId)>;

/// An action that is not in the log.
struct Missing {
    log: LogName,
    write: WriteId,
    id: Option<EntryId>,
    ids: BTreeSet<EntryId>,
    device: DeviceNumber,
    accepted: bool,
    /// It went with a restored backup.
    gone: bool,
}

impl World {
    /// Every action that was said to be stored is somewhere.
    pub(super) fn look_for_stored(&mut self) {
        let logs: Vec<_> = self.checker.logs.keys().cloned().collect();
        for log in logs {
            let lines = self.lines(&log);
            self.look_for_doubled_lines(&log, &lines);
            for missing in self.missing(&log) {
                let Missing { write, device, .. } = missing;
                if missing.accepted {
                    self.checker.violated("acked-lost", format!("{log} {write} was accepted and is not in the log"));
                } else if !self.is_kept(&missing, &lines) {
                    let name = &self.devices[device].name;
                    self.checker.violated("stored-lost", format!("{log} {write} was stored by {name} and is nowhere"));
                }
            }
        }
    }

    fn missing(&self, log: &LogName) -> Vec<Missing> {
        let Some(record) = self.checker.logs.get(log) else { return Vec::new() };
        let stored = self.checker.told.iter().filter(|((of, _), told)| of == log && told.stored);
        // What went with a restored backup comes again when its author does.
        let away = |told: &Told| !self.devices[told.device].is_online();
        let missing = stored.filter(|((_, write), told)| {
            !(record.writes.contains_key(write) || record.gone.contains(write) && away(told))
        });
        missing
            .map(|((log, write), told)| {
                let gone = record.gone.contains(write);
                let remade = self.checker.is_remade(log, *write, told.id);
                let accepted = told.verdict == Some(Verdict::Accepted) && !gone && !remade;
                let (id, ids) = (told.id, told.ids.clone());
                Missing { log: log.clone(), write: *write, id, ids, device: told.device, accepted, gone }
            })
            .collect()
    }

    fn lines(&self, log: &LogName) -> Lines {
        let mut lines = Lines::new();
        for device in &self.devices {
            for (key, bytes) in device.database.read(&KeyRange::prefix(own_prefix(log))) {
                let Some(actor) = storage::actor_of(&key) else { continue };
                for entry in row::decode_group(&bytes).unwrap_or_default() {
                    let id = EntryId { actor, seq: entry.header.seq };
                    let write = WriteId { run: entry.header.run, n: entry.header.n };
                    lines.insert(Replaced { id, digest: entry.digest() }, (entry.line(id), write));
                }
            }
        }
        lines
    }

    /// Whichever of a line was re-issued, and by whom: one of it is in the log at most.
    fn look_for_doubled_lines(&mut self, log: &LogName, lines: &Lines) {
        let Some(record) = self.checker.logs.get(log) else { return };
        let mut firsts = BTreeMap::new();
        for (target, offset) in &record.replaced {
            let first = lines.get(target).map_or(target, |(line, _)| line);
            if let Some(before) = firsts.insert(first, *offset) {
                let what = format!("{log}: {} is replaced at offset {before} and at {offset}", first.id);
                return self.checker.violated("doubled", what);
            }
        }
    }

    /// Whether a device, or a copy of it, still holds an action, or whoever may let go of it did.
    fn is_kept(&self, missing: &Missing, lines: &Lines) -> bool {
        let of = (missing.log.clone(), missing.write);
        if self.checker.erased.contains(&missing.log) || self.checker.passing.contains(&of) {
            return true;
        }
        let Some(id) = missing.id else { return false };
        let (log, device) = (&missing.log, missing.device);
        let first_of = |target: &Replaced| lines.get(target).map_or(target.clone(), |(line, _)| line.clone());
        let held = lines.values().filter(|(_, write)| *write == missing.write).map(|(line, _)| line);
        let remade = self.checker.remade.get(&(log.clone(), missing.write));
        let line = self.checker.lines.get(&(log.clone(), missing.write));
        let own: Vec<_> = held.chain(remade).chain(line).map(first_of).collect();
        let replaced = self.checker.logs.get(log).is_some_and(|record| {
            let mut replaced = record.replaced.keys().chain(&record.replaced_gone);
            // What a restored server had lost may come again from its author, after another issued it again.
            replaced.any(|target| target.id == id || own.contains(&first_of(target)))
                || own.iter().any(|line| record.has_first(line))
        });
        let discarded = self.checker.discarded.iter().filter(|(of, ..)| of == log).any(|(_, letter, last)| {
            missing.ids.iter().any(|id| letter.actor == id.actor && (letter.seq..=*last).contains(&id.seq))
        });
        let struck = self.checker.struck.contains(&(log.clone(), missing.write));
        let copied = self.devices[device].copied;
        // Its bytes were damaged before they could be told from what a copy brought into the log under the same id.
        let logged = self.checker.logs.get(log).into_iter().flat_map(|record| &record.entries);
        if struck && copied && logged.into_iter().any(|logged| logged.id() == id) {
            return true;
        }
        let mut holders =
            (0..self.devices.len()).filter(|other| *other == device || copied && self.devices[*other].copied);
        holders.any(|holder| {
            let database = &self.devices[holder].database;
            let verdicts = database.read(&KeyRange::only(storage::verdicts_key(log)));
            let verdicts = verdicts.first().and_then(|(_, bytes)| row::decode::<Verdicts>(bytes).ok());
            let undecided =
                verdicts.as_ref().is_none_or(|row| row.actor.origin() != id.actor.origin() || id.seq > row.through);
            let absent = verdicts.and_then(|row| row.mark(id.seq)).is_some_and(|mark| !mark.is_accepted());
            // Damaged bytes are found, and parked, by the next tab that reads them.
            let pending = undecided && (struck || is_own(database, log, missing.write));
            let let_go = replaced || discarded || has_letter(database, log, id, struck);
            let listed = missing.ids.iter().any(|id| is_listed(database, log, *id));
            pending || listed || (undecided || absent || missing.gone) && let_go
        })
    }
}

/// Whether the rows hold an action that this database will send or has: under the actor that it writes under, or handed
/// over to that one. What an actor left behind is sent by nobody.
fn is_own(database: &Database, log: &LogName, write: WriteId) -> bool {
    let row = |key| database.read(&KeyRange::only(key)).into_iter().next().map(|(_, bytes)| bytes);
    let identity = row(storage::identity_key()).and_then(|bytes| row::decode_either::<Identity>(&bytes).ok());
    let Some(identity) = identity else { return false };
    let voids = row(storage::voids_key(log, identity.actor));
    let voids: Voids = voids.and_then(|bytes| row::decode_either(&bytes).ok()).unwrap_or_default();
    let own = database.read(&KeyRange::prefix(own_prefix(log)));
    own.iter().any(|(key, bytes)| {
        let Some(actor) = storage::actor_of(key) else { return false };
        let last = match actor == identity.actor {
            true => Seq(u64::MAX),
            false => voids.earlier.iter().find(|(of, _)| *of == actor).map_or(Seq(0), |(_, last)| *last),
        };
        let entries = row::decode_group(bytes).unwrap_or_default();
        entries.iter().any(|entry| {
            let header = &entry.header;
            header.seq <= last && WriteId { run: header.run, n: header.n } == write
        })
    })
}

/// Whether an entry that was accepted is listed as lost by the server.
fn is_listed(database: &Database, log: &LogName, id: EntryId) -> bool {
    let row = database.read(&KeyRange::only(storage::dead_letter_key(log, id.actor, id.seq)));
    let letter = row.first().and_then(|(_, bytes)| row::decode::<DeadLetter>(bytes).ok());
    letter.is_some_and(|letter| matches!(letter.code, Some(Code::LostByServer | Code::OutcomeUnknown)))
}

/// Whether there is a dead letter for an entry. One whose own bytes are damaged does not say how many it stands for, and
/// one that says that the entry's were is none for an entry that nothing struck.
fn has_letter(database: &Database, log: &LogName, id: EntryId, struck: bool) -> bool {
    let letters = database.read(&KeyRange::prefix(storage::dead_letter_prefix(log)));
    letters.iter().any(|(key, bytes)| {
        let Some(first) = storage::number_of(key).map(Seq) else { return false };
        match row::decode::<DeadLetter>(bytes) {
            Ok(letter) if letter.code == Some(Code::Damaged) && !struck => false,
            Ok(letter) => (first..=letter.last(first)).contains(&id.seq),
            Err(_) => first == id.seq || struck && first < id.seq,
        }
    })
}

/// What all keys of own entries of a log begin with, whoever their actor is.
fn own_prefix(log: &LogName) -> Vec<u8> {
    let mut prefix = storage::own_prefix(log, ActorId::LOG);
    prefix.truncate(prefix.len() - ActorId::BYTES);
    prefix
}
