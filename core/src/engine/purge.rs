//! Letting what has to leave go: events whose lifetime is over, and what was erased, go out of the rows of this device,
//! with the leader.
//!
//! ```text
//! due ──► snapshot: received rows go behind it ──► own rows, a few at a time: written again without what leaves
//!                                                        ▲──── more left ───┘──► the row that says how far
//! ```
//!
//! **Within what time:** in the minute behind its end, while a tab leads; what was erased at once; else with the next tab
//! that leads. Nothing that is undecided goes: what comes late for what was erased is void at the server, which says the
//! erase again behind it. Cut anywhere, it is due again, since the row that says how far is written last.

use std::collections::BTreeSet;

use crate::entry::Entry;
use crate::fold::Checkpoint;
use crate::id::{ActorId, EntryId, LogName, Offset, Seq};
use crate::replica::Leaves;
use crate::storage::commit::Commit;
use crate::storage::purge::{Purge, Purged};
use crate::storage::{self, Key, KeyRange, Row, own, row};
use crate::time::WallMs;

use super::{Engine, Hint, Request, Slot};

/// From one purge of a log to the next, at least.
const PAUSE_MS: WallMs = 60_000;
/// By how much the server may be behind what was taken for its time before that counts, in milliseconds: the way of a
/// welcome takes some.
const CLOCK_AHEAD_MS: WallMs = 10_000;
/// Rows looked at in one step.
const STEP_ROWS: u32 = 256;

/// The purge of one log.
#[derive(Debug, Default)]
pub(super) struct Purges {
    /// The next one does not begin before.
    not_before: WallMs,
    step: Step,
    /// When what leaves in this purge had to.
    was: Option<WallMs>,
    /// Behind the last erase that is carried out with it.
    erased: Offset,
    /// When the next event ends, among those that were looked at in this purge and stay.
    expires: Option<WallMs>,
    /// When rows were looked at last, by what was taken for the server's clock: until when they stay was told by it.
    looked: WallMs,
    /// What the row says that is stored.
    pub(super) stored: Option<WallMs>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    /// The snapshot is being stored that takes the place of received rows.
    Snapshot,
    /// Own rows are being read and written.
    Rows,
}

/// A step of the purge that is being committed.
#[derive(Debug)]
pub(super) struct Purging {
    /// Where the next one begins; none: this is the last.
    next: Option<Key>,
    /// When the next event ends among those that stay, as far as was looked.
    expires: Option<WallMs>,
    /// Dead letters that go with it.
    letters: Vec<EntryId>,
}

impl Purges {
    /// The snapshot that is stored next takes the place of all received rows, whatever still reads them.
    pub(super) fn takes_all(&self) -> bool {
        self.step == Step::Snapshot
    }

    pub(super) fn clock_stepped_back(&mut self, by: WallMs) {
        self.not_before = self.not_before.saturating_sub(by);
    }
}

impl Slot {
    /// What the next snapshot writes of events that end later: their rows may be covered by it and stay.
    pub(super) fn purged_row(&mut self) -> Option<Purged> {
        // What a purge that is under way was due for is due until it is done.
        let due = [self.replica.leaves_at(), self.purges.was].into_iter().flatten().min();
        let at = due.filter(|at| Some(*at) != self.purges.stored)?;
        self.purges.stored = Some(at);
        Some(Purged::new(Some(at), self.replica.purged(), self.purges.looked))
    }

    /// Takes the row that says how far the log is purged. One that is damaged says nothing: everything is looked at.
    pub(super) fn learn_purged(&mut self, row: Option<&Row>) {
        let Some((_, bytes)) = row else { return };
        let purged = row::decode::<Purged>(bytes).unwrap_or_else(|_| Purged::new(Some(0), Offset(0), 0));
        (self.purges.stored, self.purges.looked) = (purged.expires, purged.looked);
        self.replica.purged_to(purged.erased);
        self.replica.leaves_by(purged.expires);
    }

    /// The entries of an own row, and whether bytes in it are damaged that may be of what was erased: those are decided,
    /// and go as well. None: seqs in it are damaged that are not decided; they are given up first.
    fn own_closed(&self, actor: ActorId, key: &Key, bytes: &[u8]) -> Option<(Vec<Entry>, bool)> {
        if let Ok(entries) = row::decode_group(bytes) {
            return Some((entries, false));
        }
        let first = Seq(storage::number_of(key)?);
        let own = own::read([(key.clone(), bytes.to_vec())], first, None).ok()?;
        let closed = |seq: &Seq| self.replica.is_closed(EntryId { actor, seq: *seq });
        let erased = self.replica.state().erased_end() > Offset(0);
        own.damaged.iter().all(|damaged| closed(damaged.seqs.end())).then_some((own.entries, erased))
    }

    /// What folds came to before the last erase, and their dead letters.
    fn folds_erased(&self, log: &LogName, rows: impl Iterator<Item = Row>) -> Vec<Key> {
        let erased = self.replica.state().erased_end();
        let (mut gone, mut stale) = (Vec::new(), BTreeSet::new());
        for (key, bytes) in rows {
            // Checkpoints come before letters.
            if let Some(fold) = storage::fold_of(log, &key) {
                if row::decode::<Checkpoint>(&bytes).is_ok_and(|checkpoint| checkpoint.erased == erased) {
                    continue;
                }
                stale.insert(fold);
            } else if !storage::fold_of_letter(log, &key).is_some_and(|fold| stale.contains(&fold)) {
                continue;
            }
            gone.push(key);
        }
        gone
    }

    /// It is due again, after the pause between two: what fails may do so for long.
    fn purge_failed(&mut self) {
        self.purges.step = Step::Idle;
        self.replica.leaves_by(self.purges.was.take().map(|was| was.max(1)));
    }

    /// The server says what time it is. Where it is earlier than it was taken to be when rows were looked at, they are
    /// again: an entry that is dated ahead may have been taken at its word.
    pub(super) fn server_is_at(&mut self, at: WallMs) {
        if at.saturating_add(CLOCK_AHEAD_MS) < self.purges.looked {
            self.purges.looked = 0;
            self.replica.leaves_by(Some(1));
        }
    }

    fn purge_due(&self, clock_offset: i64) -> Option<WallMs> {
        let at = self.replica.leaves_at()?.saturating_add(1).saturating_add_signed(-clock_offset);
        // What was erased does not wait.
        let at = if self.replica.leaves_at() == Some(0) { 0 } else { at.max(self.purges.not_before) };
        (self.purges.step == Step::Idle && self.is_free()).then_some(at)
    }
}

impl Engine {
    /// When a log is to be purged.
    pub(super) fn purge_due(&self, slot: &Slot) -> Option<WallMs> {
        slot.purge_due(self.clock_offset.unwrap_or_default()).filter(|_| self.fence.is_some())
    }

    /// After every event: what is due begins, if nothing else of that log is under way.
    pub(super) fn settle_purges(&mut self) {
        if self.fence.is_none() {
            return;
        }
        let (now, offset) = (self.now, self.clock_offset.unwrap_or_default());
        let mut names = Vec::new();
        self.slots.turn_mut(|name, slot| {
            if slot.purge_due(offset).is_none_or(|at| at > now) {
                return;
            }
            (slot.purges.step, slot.purges.not_before) = (Step::Snapshot, now.saturating_add(PAUSE_MS));
            slot.purges.was = slot.replica.take_leaving();
            slot.purges.erased = slot.replica.state().erased_end();
            names.push(name.clone());
        });
        names.iter().for_each(|name| self.write_snapshot(name));
    }

    /// Received rows are gone: own rows are next.
    pub(super) fn purge_behind_snapshot(&mut self, name: &LogName, stored: bool) {
        let Some(slot) = self.slots.get_mut(name).filter(|slot| slot.purges.step == Step::Snapshot) else { return };
        if stored {
            slot.purges.step = Step::Rows;
            slot.purges.expires = None;
            self.purge_step(name, None);
        } else {
            slot.purge_failed();
        }
    }

    fn purge_step(&mut self, name: &LogName, from: Option<Key>) {
        let all = storage::own_of_origin(name, self.actor());
        let mut ranges = Vec::new();
        if from.is_none() {
            ranges.extend(storage::folds_of(name).map(|(first, end)| KeyRange::between(first, end)));
        }
        ranges.insert(0, KeyRange { start: from.unwrap_or(all.start), limit: Some(STEP_ROWS), ..all });
        self.read(Request::PurgeRows(name.clone()), ranges);
    }

    /// The next own rows; none if they do not read now.
    pub(super) fn purge_rows_read(&mut self, name: &LogName, rows: Option<Vec<Vec<Row>>>) {
        let now = self.server_now();
        let Some(slot) = self.slots.get_mut(name) else { return };
        let (Some(fence), Some(rows)) = (self.fence, rows) else { return slot.purge_failed() };
        let mut rows = rows.into_iter();
        let own = rows.next().unwrap_or_default();
        let mut gone = slot.folds_erased(name, rows.flatten());
        let letters = slot.replica.letters_over(now);
        let letters_end = slot.replica.letters_end(now);
        gone.extend(letters.iter().map(|id| storage::dead_letter_key(name, id.actor, id.seq)));
        let (rows, covered) = (own, slot.pruned.covered);
        let full = rows.len() as u32 == STEP_ROWS;
        let next = rows.last().filter(|_| full).map(|(key, _)| storage::key_after(key));
        let (mut expires, mut written) = ([slot.purges.expires, letters_end].into_iter().flatten().min(), Vec::new());
        for (key, bytes) in rows {
            let Some(actor) = storage::actor_of(&key) else { continue };
            let Some((entries, damaged)) = slot.own_closed(actor, &key, &bytes) else { continue };
            let count = entries.len();
            let stay = entries.into_iter().filter(|entry| match slot.replica.leaves(actor, entry, now, covered) {
                Leaves::Now => false,
                Leaves::At(at) => {
                    expires = [expires, Some(at)].into_iter().flatten().min();
                    true
                }
                Leaves::Never => true,
            });
            let stay: Vec<_> = stay.collect();
            if stay.len() < count || damaged {
                written.push((key, row::encode_group(&stay)));
            }
        }
        // What had to stay is looked at again with its verdict, or by the next start.
        if slot.replica.is_erased_open() {
            slot.purges.erased = slot.replica.purged();
        }
        let erased = slot.purges.erased;
        slot.purges.looked = now;
        let purged = next.is_none().then(|| Purged::new(expires, erased, now));
        let purge = Purge { fence, log: name.clone(), rows: written, gone, purged };
        self.commit(Request::Purge(name.clone(), Purging { next, expires, letters }), Commit::Purge(purge));
    }

    pub(super) fn purged(&mut self, name: &LogName, purging: Purging, done: bool) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if done {
            slot.replica.discard_letters(&purging.letters);
            self.hint(&Hint::Grew(name.clone()));
        }
        let Some(slot) = self.slots.get_mut(name) else { return };
        match purging.next.filter(|_| done) {
            Some(next) => {
                slot.purges.expires = purging.expires;
                self.purge_step(name, Some(next));
            }
            None if done => {
                (slot.purges.step, slot.purges.was) = (Step::Idle, None);
                slot.replica.leaves_by(purging.expires);
                slot.purges.stored = purging.expires;
                slot.replica.purged_to(slot.purges.erased);
            }
            None => slot.purge_failed(),
        }
    }
}
