//! Bringing logs up from the database, and keeping up with what other tabs wrote there.
//!
//! A log is loaded in two reads, the snapshot first, because it says from where the rest is wanted. If the leader
//! made a new snapshot in between, the rest does not fit and the loading starts again.
//!
//! **What is damaged is never applied and never passed over:** received rows and snapshots are the server's too, and
//! are fetched again from the last good cursor; verdicts are told again; own entries are given up with their seqs.

use std::collections::BTreeMap;

use crate::id::{ActorId, EntryId, LogName, Offset, Seq, UserId};
use crate::notice::LogStatus;
use crate::replica::{self, Replica};
use crate::storage::own::{self, Damaged};
use crate::storage::row::{self, DeadLetter, Received, Verdicts, Voids};
use crate::storage::{self, KeyRange, Row};

use super::identity::letters_of;
use super::settling::Settling;
use super::traps::joined;
use super::{Engine, Hint, Output, Phase, Request, Slot};

/// What a log says while rows of it are damaged here.
const DAMAGED: &str = "rows of the local database are damaged; they are fetched again from the server";

impl Engine {
    /// The log's slot; loads it if it is new here.
    pub(super) fn slot(&mut self, name: &LogName) {
        if self.slots.contains_key(name) {
            return;
        }
        let slot = Slot {
            replica: Replica::watched(name.clone(), self.actor(), self.config.run, self.marker(name)),
            phase: Phase::Loading,
            opening: None,
            refreshing: false,
            refresh_failed: false,
            refresh_again: false,
            snapshotting: false,
            catching_up: false,
            rows_left: false,
            clearing: false,
            unstored: None,
            settling: Settling::default(),
            rows_damaged: false,
            snapshot_end: Offset(0),
            parking: false,
            opened: None,
            rewinding: None,
            opened_last: None,
            appends_unknown: false,
            unreadable: false,
            told: None,
            pressure: super::pressure::Pressed::default(),
            folds: BTreeMap::new(),
            holes: super::folds::Holes::default(),
            traps: super::traps::Known::default(),
            pruned: super::prune::Pruned::default(),
            purges: super::purge::Purges::default(),
        };
        self.slots.insert(name.clone(), slot);
        if self.identity.is_some() {
            self.load(name);
        }
    }

    /// The identity is known: what waits for it can start.
    pub(super) fn identified(&mut self, identity: row::Identity) {
        let first = self.identity.is_none();
        let taken_over = self.identity.as_ref().is_some_and(|before| before.actor != identity.actor);
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
        if taken_over {
            self.taken_over();
        }
    }

    pub(super) fn load(&mut self, name: &LogName) {
        let (actor, run, marker) = (self.actor(), self.config.run, self.marker(name));
        if let Some(slot) = self.slots.get_mut(name) {
            slot.replica = Replica::watched(name.clone(), actor, run, marker);
            slot.phase = Phase::Loading;
        }
        let voids = storage::voids_key(name, actor);
        let (snapshot, verdicts) = (storage::snapshot_key(name), storage::verdicts_key(name));
        let keys = [snapshot, verdicts, storage::traps_key(name), voids, storage::purged_key(name)];
        self.read(Request::LoadSnapshot(name.clone()), keys.map(KeyRange::only).to_vec());
    }

    pub(super) fn snapshot_loaded(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let actor = self.actor();
        let build = self.resume.build.clone();
        let (is_timed, now) = (self.clock_offset.is_some(), self.server_now());
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.learn_traps(&build, rows.get(2).and_then(|rows| rows.first()));
        let voids = rows.get(3).and_then(|rows| rows.first()).map(|(_, bytes)| row::decode_either::<Voids>(bytes));
        slot.replica.begin_behind(voids.and_then(Result::ok).unwrap_or_default().earlier);
        slot.learn_purged(rows.get(4).and_then(|rows| rows.first()));
        if is_timed {
            slot.server_is_at(now);
        }
        if let Some((_, bytes)) = rows.first().and_then(|rows| rows.first()) {
            match slot.stored_snapshot(bytes) {
                Some(state) => {
                    slot.snapshot_end = state.cursor().next;
                    slot.replica.restart(state, bytes.len());
                }
                // Confirmed state can be had again from the server; nothing own is in it.
                None => slot.rows_damaged = true,
            }
        }
        // What is decided and folded is not read again. The next read may find more of it; then it is skipped there.
        // If this row is damaged, everything is undecided until the server tells it again.
        let verdicts: Option<Verdicts> =
            rows.get(1).and_then(|rows| rows.first()).and_then(|(_, bytes)| row::decode(bytes).ok());
        let verdicts = verdicts.filter(|verdicts| verdicts.actor == actor);
        let done = verdicts.as_ref().map_or(Seq(0), |verdicts| verdicts.through);
        slot.replica.start_after(done.min(slot.replica.covered()), verdicts);
        let mut ranges = self.tail_ranges(name);
        ranges.extend(self.earlier_ranges(name));
        self.read(Request::LoadTail(name.clone()), ranges);
    }

    /// Own rows of the actors before this one, as far as confirmed state does not cover them.
    fn earlier_ranges(&self, name: &LogName) -> Vec<KeyRange> {
        let Some(slot) = self.slots.get(name) else { return Vec::new() };
        let from = slot.replica.covered().next();
        let earlier = slot.replica.outbox().earlier().iter().filter(|(_, last)| *last >= from);
        earlier.flat_map(|(actor, last)| storage::own_between(name, *actor, from, *last)).collect()
    }

    /// Identity, verdicts, voids, next seq, dead letters, received rows from the cursor on, own rows from what is known on; at
    /// one moment.
    fn tail_ranges(&self, name: &LogName) -> Vec<KeyRange> {
        let Some(slot) = self.slots.get(name) else { return Vec::new() };
        let replica = &slot.replica;
        let actor = self.actor();
        let [own_before, own_after] = storage::own_from(name, actor, replica.outbox().known().next());
        let [before, after] = storage::received_from(name, replica.state().cursor().next);
        vec![
            KeyRange::only(storage::identity_key()),
            KeyRange::only(storage::verdicts_key(name)),
            KeyRange::only(storage::voids_key(name, actor)),
            KeyRange::only(storage::next_key(name)),
            KeyRange::prefix(storage::dead_letter_prefix(name)),
            before,
            after,
            own_before,
            own_after,
        ]
    }

    pub(super) fn tail_loaded(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let mut tail = match self.tail(name, rows) {
            Ok(tail) => tail,
            Err(reason) => return self.load_failed(name, reason),
        };
        let actor = self.actor();
        if self.is_overtaken(name, &tail) {
            return self.load(name);
        }
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        let Some(slot) = self.slots.get_mut(name) else { return };
        let replica = &mut slot.replica;
        replica.set_user(user.clone());
        replica.load_dead_letters(tail.letters, Seq(u64::MAX));
        // What the actors before had decided is a void under this one, and is learned behind it.
        replica.parked(&tail.voids, Vec::new());
        replica.learn_earlier(tail.earlier);
        replica.learn(tail.own);
        if let Some(verdicts) = tail.verdicts.filter(|verdicts| verdicts.actor == actor) {
            replica.decide(verdicts, &[], Vec::new());
        }
        let park = joined(replica.park_damaged(tail.damaged, self.now), slot.traps.park(replica, self.now));
        let left_out = slot.stop_before_trap(&mut tail.received);
        // What does not fit is fetched from the server again.
        slot.rows_left = !apply_received(&mut slot.replica, user.as_ref(), tail.received);
        slot.phase = Phase::Ready;
        slot.rows_damaged |= slot.rows_left;
        slot.replica.set_status(LogStatus::Local, if slot.rows_damaged { DAMAGED } else { "" });
        let (catching_up, left) = (slot.catching_up, slot.rows_left);
        let grown = std::mem::take(&mut slot.refresh_again);
        if let Some(schema) = slot.opening.take() {
            self.opened(name, schema);
        }
        self.commit_park(name, park);
        if self.fence.is_none() {
            // What the leader says of the log while it is being read is not heard.
            self.hint(&Hint::Wanted(name.clone()));
        }
        if left_out {
            self.ask_past_trap(name);
        }
        // Elected while this was read: what another tab stored up to then is read before anything is asked for. Told of
        // more, or between two snapshots: that is read now.
        if catching_up || grown || left && !self.elected {
            return self.refresh(name);
        }
        self.remake_moved(name);
        self.subscribe(name);
    }

    /// Whether the rows are another actor's than this log has here: then they are of no use, and are read again once it
    /// goes on under that one.
    fn is_overtaken(&mut self, name: &LogName, tail: &Tail) -> bool {
        let actor = self.slots.get(name).map(|slot| slot.replica.actor());
        match &tail.identity {
            Some(identity) if identity.actor != self.actor() => {
                self.identified(identity.clone());
                true
            }
            _ => actor != Some(self.actor()),
        }
    }

    fn tail(&self, name: &LogName, rows: Vec<Vec<Row>>) -> Result<Tail, String> {
        let Some(slot) = self.slots.get(name) else { return Err("the log is gone".to_owned()) };
        Tail::read(rows, self.actor(), slot.replica.outbox().known().next())
            .ok_or_else(|| "own entries of the local database are of another version of this app: update".to_owned())
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
        // While a log goes back to what its server has, rows read before would be taken for what follows afterwards.
        if slot.phase != Phase::Ready || slot.refreshing || slot.is_going_back() {
            slot.refresh_again = true;
            return;
        }
        slot.refreshing = true;
        let ranges = self.tail_ranges(name);
        self.read(Request::Refresh(name.clone()), ranges);
    }

    pub(super) fn refresh_failed(&mut self, name: &LogName) {
        if let Some(slot) = self.slots.get_mut(name) {
            (slot.refreshing, slot.refresh_failed) = (false, true);
            self.retry_database();
        }
    }

    pub(super) fn refreshed(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let leading = self.fence.is_some();
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.refreshing = false;
        let again = std::mem::take(&mut slot.refresh_again);
        let Ok(mut tail) = self.tail(name, rows) else { return };
        if self.is_overtaken(name, &tail) {
            return;
        }
        let Some(slot) = self.slots.get_mut(name) else { return };
        let before = slot.replica.outbox().verdicts().rewound;
        if let Some(verdicts) = tail.verdicts.as_ref().filter(|verdicts| verdicts.rewound > before) {
            // Another tab went back to what a restored server has. Its letters say why what became a void is one.
            slot.replica.load_dead_letters(tail.letters, verdicts.through);
            return self.go_back(name, verdicts.clone(), &tail.voids, true);
        }
        let left_out = slot.stop_before_trap(&mut tail.received);
        let stopped = slot.traps.asks();
        let replica = &mut slot.replica;
        let actor = replica.actor();
        let letters = tail.letters.iter().filter(|(id, _)| id.actor == actor);
        let void = replica.parked(&tail.voids, letters.map(|(id, letter)| (id.seq, letter.clone())).collect());
        replica.learn(tail.own);
        // Another tab may have discarded or redriven one.
        let through = tail.verdicts.as_ref().map_or(Seq(0), |verdicts| verdicts.through);
        replica.load_dead_letters(tail.letters, through);
        let (catching_up, undecided) = (std::mem::take(&mut slot.catching_up), tail.undecided);
        let (mut fits, mut pruned) = (true, false);
        if !leading || catching_up {
            fits = apply_received(replica, user.as_ref(), tail.received);
            // The row that led to the cursor is gone, and nothing follows: a snapshot took their place.
            pruned = tail.alone && (slot.rows_damaged || replica.state().cursor().next != slot.snapshot_end);
            pruned |= stopped && !leading;
            if let Some(verdicts) = tail.verdicts {
                replica.decide(verdicts, &[], Vec::new());
            }
            slot.rows_left = leading && !fits;
            slot.rows_damaged |= !fits;
            if fits && !pruned && std::mem::take(&mut slot.rows_damaged) {
                replica.try_again();
            }
        }
        let park = slot.replica.park_damaged(tail.damaged, self.now);
        let park = joined(park, slot.traps.park(&slot.replica, self.now));
        self.commit_park(name, park);
        self.push_anew(name, void);
        if undecided {
            self.verdicts_damaged(name);
        }
        if left_out {
            self.ask_past_trap(name);
        }
        if !fits || pruned {
            // The leader moved the rows behind a new snapshot: start from there.
            return self.reload(name);
        }
        if again {
            self.refresh(name);
        }
        if let Some(opened) = self.slots.get_mut(name).and_then(|slot| slot.opened.take()) {
            self.log_met(name, opened);
        }
        self.remake_moved(name);
        self.subscribe(name);
    }

    /// Starts the confirmed state again from the snapshot row, which is ahead of the rows read here.
    fn reload(&mut self, name: &LogName) {
        self.read(Request::ReloadSnapshot(name.clone()), vec![KeyRange::only(storage::snapshot_key(name))]);
    }

    pub(super) fn snapshot_reloaded(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let leading = self.fence.is_some();
        let Some(slot) = self.slots.get_mut(name) else { return };
        let snapshot = rows.first().and_then(|rows| rows.first());
        let state = snapshot.and_then(|(_, bytes)| Some((slot.stored_snapshot(bytes)?, bytes.len())));
        slot.snapshot_end = state.as_ref().map_or(slot.snapshot_end, |(state, _)| state.cursor().next);
        let at = slot.replica.state().cursor().next;
        match state.filter(|(state, _)| state.cursor().next > at) {
            Some((state, bytes)) => {
                slot.replica.restart(state, bytes);
                if std::mem::take(&mut slot.rows_damaged) | slot.pass_trap() {
                    slot.replica.try_again();
                }
                self.refresh(name);
            }
            // A leader fetches what is missing; another tab can only ask it for a snapshot, and wait visibly.
            None if leading => self.subscribe(name),
            None if slot.rows_damaged => {
                slot.replica.set_status(LogStatus::Degraded, DAMAGED);
                self.hint(&Hint::Damaged((name.clone(), at)));
            }
            None => {}
        }
    }

    /// An append's outcome is unknown: the rows know.
    pub(super) fn look_for_append(&mut self, name: &LogName) {
        let Some(slot) = self.slots.get(name) else { return };
        let ranges = storage::own_from(name, self.actor(), slot.replica.outbox().known().next());
        self.read(Request::AppendOutcome(name.clone()), ranges.to_vec());
    }

    /// The rows say what became of an append whose outcome was unknown.
    pub(super) fn unknown_resolved(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.appends_unknown = false;
        let from = slot.replica.outbox().known().next();
        let Ok(own) = own::read(rows.into_iter().flatten(), from, None).map(|own| own.entries) else { return };
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
fn apply_received(replica: &mut Replica, user: Option<&UserId>, rows: Vec<Option<Received>>) -> bool {
    for received in rows {
        let Some(received) = received else { return false };
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
        let own = (user, replica.outbox());
        replica.marker().confirmed(at.next);
        let items = replica::resolve(at, &received.entries, received.after, own);
        replica.marker().done();
        let Ok(items) = items else { return false };
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
    identity: Option<row::Identity>,
    verdicts: Option<Verdicts>,
    /// The row of verdicts is damaged.
    undecided: bool,
    voids: Voids,
    letters: Vec<(EntryId, DeadLetter)>,
    /// None for a row that is damaged.
    received: Vec<Option<Received>>,
    /// There is no received row at all, neither before the cursor nor behind it.
    alone: bool,
    own: Vec<crate::entry::Entry>,
    damaged: Vec<Damaged>,
    /// Own entries of the actors before this one.
    earlier: Vec<crate::entry::Entry>,
}

impl Tail {
    /// Own entries are wanted from a seq on. None if they are of a format that this build does not know.
    fn read(mut rows: Vec<Vec<Row>>, actor: ActorId, from: Seq) -> Option<Self> {
        let earlier = rows.split_off(rows.len().min(9));
        let [identity, verdicts, voids, next, letters, before, after, own_before, own_after] =
            <[Vec<Row>; 9]>::try_from(rows).ok()?;
        let identity = identity.first().and_then(|(_, bytes)| row::decode_either(bytes).ok());
        let undecided = verdicts.first().is_some_and(|(_, bytes)| row::decode::<Verdicts>(bytes).is_err());
        let verdicts: Option<Verdicts> = verdicts.first().and_then(|(_, bytes)| row::decode(bytes).ok());
        let next = next.first().and_then(|(_, bytes)| row::decode_either::<Seq>(bytes).ok());
        let own = own::read(own_before.into_iter().chain(own_after), from, next).ok()?;
        let alone = before.is_empty() && after.is_empty();
        // The row before the wanted ones hardly ever reaches into them; if it does and is damaged, a gap shows it.
        let before = before.iter().filter_map(|(_, bytes)| row::decode(bytes).ok()).map(Some);
        let received = before.chain(after.iter().map(|(key, bytes)| received(key, bytes))).collect();
        let letters = letters_of(&letters, verdicts.as_ref().filter(|verdicts| verdicts.actor == actor));
        // Should both copies be damaged, what was given up is found and given up again.
        let voids: Voids = voids.first().and_then(|(_, bytes)| row::decode_either(bytes).ok()).unwrap_or_default();
        // Where one actor's rows reach beyond what is its, the next one's begin.
        let end = voids.earlier.last().map(|(_, last)| last.next());
        let earlier = own::read(earlier.into_iter().flatten(), Seq(1), end).map(|own| own.entries).unwrap_or_default();
        let (own, damaged) = (own.entries, own.damaged);
        Some(Self { identity, verdicts, undecided, voids, letters, received, alone, own, damaged, earlier })
    }
}

/// A received row, if it is whole and stands where it belongs.
fn received(key: &[u8], bytes: &[u8]) -> Option<Received> {
    let received: Received = row::decode(bytes).ok()?;
    (storage::number_of(key).map(Offset) == Some(received.from)).then_some(received)
}
