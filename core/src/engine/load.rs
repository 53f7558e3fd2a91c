//! Bringing logs up from the database, and keeping up with what other tabs wrote there.
//!
//! A log is loaded in two reads, the snapshot first, because it says from where the rest is wanted. If the leader
//! made a new snapshot in between, the rest does not fit and the loading starts again.

use crate::codec::DecodeError;
use crate::entry::Entry;
use crate::id::{LogName, Seq, UserId};
use crate::notice::LogStatus;
use crate::replica::{self, Replica};
use crate::snapshot;
use crate::storage::row::{self, DeadLetter, Received, Verdicts};
use crate::storage::{self, KeyRange, Row};

use super::{Engine, Output, Phase, Request, Slot};

impl Engine {
    /// The log's slot; loads it if it is new here.
    pub(super) fn slot(&mut self, name: &LogName) {
        if self.slots.contains_key(name) {
            return;
        }
        let slot = Slot {
            replica: Replica::new(name.clone(), self.actor(), self.config.run),
            phase: Phase::Loading,
            opening: None,
            refreshing: false,
            refresh_again: false,
            snapshotting: false,
            catching_up: false,
            rows_left: false,
            clearing: false,
            unstored: None,
            opened: None,
            appends_unknown: false,
            unreadable: false,
        };
        self.slots.insert(name.clone(), slot);
        if self.identity.is_some() {
            self.load(name);
        }
    }

    /// The identity is known: what waits for it can start.
    pub(super) fn identified(&mut self, identity: row::Identity) {
        let first = self.identity.is_none();
        self.slots.values_mut().for_each(|slot| slot.replica.set_user(identity.user.clone()));
        self.identity = Some(identity);
        if first {
            for name in self.slots.keys().cloned().collect::<Vec<_>>() {
                self.load(&name);
            }
            if self.elected {
                self.elected = false;
                self.elected();
            }
        }
    }

    fn load(&mut self, name: &LogName) {
        let (actor, run) = (self.actor(), self.config.run);
        if let Some(slot) = self.slots.get_mut(name) {
            slot.replica = Replica::new(name.clone(), actor, run);
            slot.phase = Phase::Loading;
        }
        let keys = [storage::snapshot_key(name), storage::verdicts_key(name)];
        self.read(Request::LoadSnapshot(name.clone()), keys.map(KeyRange::only).to_vec());
    }

    pub(super) fn snapshot_loaded(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let actor = self.actor();
        let Some(slot) = self.slots.get_mut(name) else { return };
        if let Some((_, bytes)) = rows.first().and_then(|rows| rows.first()) {
            match snapshot::decode(bytes) {
                Ok(state) => slot.replica.restart(state, bytes.len()),
                // Confirmed state can be had again from the server; nothing own is in it.
                Err(error) => slot.replica.stop(
                    LogStatus::Degraded,
                    &format!("the snapshot in the local database is damaged ({error}); fetching it again"),
                ),
            }
        }
        // What is decided and folded is not read again. The next read may find more of it; then it is skipped there.
        let verdicts: Option<Verdicts> =
            rows.get(1).and_then(|rows| rows.first()).and_then(|(_, bytes)| row::decode(bytes).ok());
        let verdicts = verdicts.filter(|verdicts| verdicts.actor == actor);
        let done = verdicts.as_ref().map_or(Seq(0), |verdicts| verdicts.through);
        slot.replica.start_after(done.min(slot.replica.state().folded(actor)), verdicts);
        let ranges = self.tail_ranges(name);
        self.read(Request::LoadTail(name.clone()), ranges);
    }

    /// Verdicts, dead letters, received rows from the cursor on, own rows from what is known on; at one moment.
    fn tail_ranges(&self, name: &LogName) -> Vec<KeyRange> {
        let Some(slot) = self.slots.get(name) else { return Vec::new() };
        let replica = &slot.replica;
        let own = replica.outbox().known().next();
        let [own_before, own_after] = storage::own_from(name, self.actor(), own);
        let [before, after] = storage::received_from(name, replica.state().cursor().next);
        vec![
            KeyRange::only(storage::verdicts_key(name)),
            KeyRange::prefix(storage::dead_letter_prefix(name)),
            before,
            after,
            own_before,
            own_after,
        ]
    }

    pub(super) fn tail_loaded(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let Some(tail) = Tail::read(rows) else { return self.load_failed(name, "damaged rows".to_owned()) };
        let actor = self.actor();
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        let Some(slot) = self.slots.get_mut(name) else { return };
        let replica = &mut slot.replica;
        replica.set_user(user.clone());
        replica.learn(tail.own);
        replica.load_dead_letters(tail.letters, Seq(u64::MAX));
        if let Some(verdicts) = tail.verdicts.filter(|verdicts| verdicts.actor == actor) {
            replica.decide(verdicts, &[], Vec::new());
        }
        // What does not fit is fetched from the server again.
        slot.rows_left = !apply_received(replica, user.as_ref(), tail.received);
        slot.phase = Phase::Ready;
        slot.replica.set_status(LogStatus::Local, "");
        let catching_up = slot.catching_up;
        if let Some(schema) = slot.opening.take() {
            self.opened(name, schema);
        }
        // Elected while this was read: what another tab stored up to then is read before anything is asked for.
        if catching_up {
            return self.refresh(name);
        }
        self.subscribe(name);
    }

    pub(super) fn load_failed(&mut self, name: &LogName, reason: String) {
        if self.slots.get(name).is_some_and(|slot| slot.opening.is_some()) {
            self.slots.remove(name);
            self.outputs.push_back(Output::Opened(name.clone(), Err(reason)));
        }
    }

    /// Reads what other tabs wrote since.
    pub(super) fn refresh(&mut self, name: &LogName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.phase != Phase::Ready {
            return;
        }
        if slot.refreshing {
            slot.refresh_again = true;
            return;
        }
        slot.refreshing = true;
        let ranges = self.tail_ranges(name);
        self.read(Request::Refresh(name.clone()), ranges);
    }

    pub(super) fn refresh_failed(&mut self, name: &LogName) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.refreshing = false;
        }
    }

    pub(super) fn refreshed(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let leading = self.fence.is_some();
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.refreshing = false;
        let again = std::mem::take(&mut slot.refresh_again);
        let Some(tail) = Tail::read(rows) else { return };
        let replica = &mut slot.replica;
        replica.learn(tail.own);
        // Another tab may have discarded or redriven one.
        let through = tail.verdicts.as_ref().map_or(Seq(0), |verdicts| verdicts.through);
        replica.load_dead_letters(tail.letters, through);
        let catching_up = std::mem::take(&mut slot.catching_up);
        if !leading || catching_up {
            let fits = apply_received(replica, user.as_ref(), tail.received);
            if let Some(verdicts) = tail.verdicts {
                replica.decide(verdicts, &[], Vec::new());
            }
            slot.rows_left = leading && !fits;
            if !fits {
                // The leader moved the rows behind a new snapshot: start from there.
                return self.reload(name);
            }
        }
        if again {
            self.refresh(name);
        }
        if let Some(opened) = self.slots.get_mut(name).and_then(|slot| slot.opened.take()) {
            self.log_met(name, opened);
        }
        self.subscribe(name);
    }

    /// Starts the confirmed state again from the snapshot row, which is ahead of the rows read here.
    fn reload(&mut self, name: &LogName) {
        self.read(Request::ReloadSnapshot(name.clone()), vec![KeyRange::only(storage::snapshot_key(name))]);
    }

    pub(super) fn snapshot_reloaded(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let snapshot = rows.first().and_then(|rows| rows.first());
        let state = snapshot.and_then(|(_, bytes)| Some((snapshot::decode(bytes).ok()?, bytes.len())));
        let ahead = state.filter(|(state, _)| state.cursor().next > slot.replica.state().cursor().next);
        match ahead {
            Some((state, bytes)) => {
                slot.replica.restart(state, bytes);
                self.refresh(name);
            }
            // A leader fetches what is missing; another tab can only wait for it, visibly.
            None if self.fence.is_some() => self.subscribe(name),
            None => slot.replica.set_status(LogStatus::Degraded, "rows of the local database are damaged"),
        }
    }

    /// The rows say what became of an append whose outcome was unknown.
    pub(super) fn unknown_resolved(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.appends_unknown = false;
        let Ok(own) = own_entries(rows.into_iter().flatten()) else { return };
        let ours: Vec<_> = match slot.replica.outbox().appending() {
            Some(append) => own
                .iter()
                .filter(|entry| {
                    entry.header.run == append.run && append.entries.iter().any(|prepared| prepared.n == entry.header.n)
                })
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        // A group is one row: all of it is there, or nothing.
        if ours.is_empty() {
            slot.replica.outbox_mut().append_again();
        } else {
            slot.replica.appended(&ours);
        }
        slot.replica.learn(own);
    }
}

/// Applies received rows in order, as far as they follow each other and their chain is right. Tells whether all did.
fn apply_received(replica: &mut Replica, user: Option<&UserId>, rows: Vec<Received>) -> bool {
    for received in rows {
        if !replica.met() && replica.meet(received.log_id, vec![received.epoch]).is_err() {
            return false;
        }
        let at = replica.state().cursor();
        if received.after.next <= at.next {
            continue;
        }
        if received.from != at.next || replica.state().log() != received.log_id {
            return false;
        }
        let own = (replica.actor(), user, replica.outbox());
        let Ok(items) = replica::resolve(at, &received.entries, received.after, own) else { return false };
        replica.add_epoch(received.epoch);
        replica.count_tail(received.entries.len() * 64);
        replica.apply(items);
        if replica.state().cursor() != received.after {
            return false;
        }
    }
    true
}

/// The rows of one log, read at one moment.
struct Tail {
    verdicts: Option<Verdicts>,
    letters: Vec<(Seq, DeadLetter)>,
    received: Vec<Received>,
    own: Vec<Entry>,
}

impl Tail {
    fn read(rows: Vec<Vec<Row>>) -> Option<Self> {
        let [verdicts, letters, before, after, own_before, own_after] = <[Vec<Row>; 6]>::try_from(rows).ok()?;
        Some(Self {
            verdicts: verdicts.first().and_then(|(_, bytes)| row::decode(bytes).ok()),
            letters: letters
                .iter()
                .filter_map(|(key, bytes)| Some((Seq(storage::number_of(key)?), row::decode(bytes).ok()?)))
                .collect(),
            received: before.iter().chain(&after).filter_map(|(_, bytes)| row::decode(bytes).ok()).collect(),
            own: own_entries(own_before.into_iter().chain(own_after)).ok()?,
        })
    }
}

fn own_entries(rows: impl Iterator<Item = Row>) -> Result<Vec<Entry>, DecodeError> {
    let mut entries = Vec::new();
    for (_, bytes) in rows {
        entries.extend(row::decode_group(&bytes).map_err(|error| DecodeError::Malformed(error.to_string()))?);
    }
    Ok(entries)
}
