//! What follows when the engine before this one did not come back from its work: a trap of the wasm.
//!
//! ```text
//!                          counted                    3 times
//! trap ──next engine──► in the database ──tried again──────────► given up
//!                                                                   │
//!   own entry without a verdict: a dead letter, its seq a void ◄────┤
//!   the local snapshot: taken for damaged, had again ◄──────────────┤
//!   a confirmed entry: the log stops before it (`degraded`) and ◄───┘
//!   goes on behind it from a snapshot of the server that covers it
//! ```
//!
//! **A confirmed entry is never skipped.** As long as no snapshot covers it the log shows what lies before it; local
//! work goes on and is shipped, its verdicts come, and a snapshot is asked for again with growing waits.

use crate::draft::Draft;
use crate::id::{LogName, Offset, WriteId};
use crate::notice::LogStatus;
use crate::protocol::Code;
use crate::replica::Replica;
use crate::snapshot;
use crate::state::State;
use crate::storage::Row;
use crate::storage::commit::{Commit, Park, Trapped};
use crate::storage::row::{self, Identity, Received};
use crate::storage::traps::Traps;
use crate::time::WallMs;
use crate::witness::Marker;

use super::{CallError, Engine, Hint, Phase, Request, Slot};

/// The first wait before a snapshot is asked for again, in milliseconds; each one doubles it.
const ASK_MS_FIRST: WallMs = 30_000;

/// The longest wait before a snapshot is asked for again, in milliseconds.
const ASK_MS_MAX: WallMs = 60 * 60 * 1_000;

/// What is known of traps in one log.
#[derive(Debug, Default)]
pub(super) struct Known {
    traps: Traps,
    /// The confirmed entry before which the log stops.
    barrier: Option<Offset>,
    /// No snapshot covers it yet: when it is asked for again.
    uncovered_until: Option<WallMs>,
    /// The wait before that.
    wait: WallMs,
    /// The leader said that the log is stopped.
    pub(super) stopped_by_leader: bool,
}

impl Known {
    /// Whether the log stops before an entry that traps.
    pub(super) fn asks(&self) -> bool {
        self.barrier.is_some()
    }

    /// Whether a snapshot is wanted instead of the entries behind the cursor.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.barrier.is_some() && self.uncovered_until.is_none()
    }

    /// Whether a snapshot that ends here leads past the entry.
    pub(super) fn is_covered_by(&self, end: Offset) -> bool {
        self.barrier.is_none_or(|barrier| end > barrier)
    }

    /// There is a new session: it is asked for a snapshot at once, if one is wanted.
    pub(super) fn ask_again(&mut self) -> bool {
        self.uncovered_until = None;
        self.barrier.is_some()
    }

    /// What it takes to give up own entries without a verdict that trap; none if there are none.
    pub(super) fn park(&self, replica: &Replica, now: WallMs) -> Option<Park> {
        let seq_of = |write| replica.outbox().seq_of(write);
        let trapping = self.traps.own().filter_map(|(write, reason)| Some((seq_of(write)?, reason)));
        let parks = trapping.map(|(seq, reason)| {
            let reason = format!("the engine does not come back from this action: {reason}");
            replica.park(seq, Code::Trapped, &reason, now)
        });
        parks.fold(None, joined)
    }
}

/// Two parks of one log as one.
pub(super) fn joined(first: Option<Park>, second: Option<Park>) -> Option<Park> {
    match (first, second) {
        (Some(mut first), Some(second)) => {
            first.letters.extend(second.letters);
            Some(first)
        }
        (first, second) => first.or(second),
    }
}

impl Slot {
    /// Takes the row that counts traps. Its own entries are not laid, so that they can be given up.
    pub(super) fn learn_traps(&mut self, build: &str, row: Option<&Row>) {
        let traps: Option<Traps> = row.and_then(|(_, bytes)| row::decode(bytes).ok());
        self.traps.traps = traps.filter(|traps| traps.build == build).unwrap_or_default();
        self.replica.leave_out(self.traps.traps.own().map(|(write, _)| write));
    }

    /// The state of the local snapshot; none if it is damaged, or given up.
    pub(super) fn stored_snapshot(&self, bytes: &[u8]) -> Option<State> {
        if self.traps.traps.snapshot() {
            return None;
        }
        self.replica.marker().snapshot();
        let state = snapshot::decode(bytes).ok();
        self.replica.marker().done();
        state
    }

    /// Leaves out the rows from the first entry on that traps, and stops the log visibly. Tells whether there were any.
    pub(super) fn stop_before_trap(&mut self, rows: &mut Vec<Option<Received>>) -> bool {
        let next = self.replica.state().cursor().next;
        let Some((offset, reason)) = self.traps.traps.confirmed(next) else { return false };
        self.traps.barrier = Some(offset);
        let count = rows.len();
        rows.retain(|row| row.as_ref().is_none_or(|row| row.after.next <= offset));
        let reason = format!(
            "the engine does not come back from the entry at offset {offset} ({reason}); \
             a snapshot of the server that covers it is waited for"
        );
        if !self.replica.status().is_stopped() {
            self.replica.stop(LogStatus::Degraded, &reason);
        }
        rows.len() < count
    }

    /// Confirmed state was replaced. True if it was stopped and lies behind every entry that traps now.
    pub(super) fn pass_trap(&mut self) -> bool {
        let next = self.replica.state().cursor().next;
        let barrier = self.traps.traps.confirmed(next).map(|(offset, _)| offset);
        let passed = self.traps.barrier.is_some() && barrier.is_none();
        (self.traps.barrier, self.traps.uncovered_until, self.traps.wait) = (barrier, None, 0);
        passed
    }
}

impl Engine {
    /// The first thing: what the engine before did not come back from is counted before anything is read.
    pub(super) fn begin(&mut self) {
        let Some(trap) = self.resume.trap.clone() else { return self.identify() };
        let build = self.resume.build.clone();
        let trapped = Trapped { log: trap.log, work: trap.work, reason: trap.reason, build, at: self.now };
        self.commit(Request::Trapped, Commit::Trapped(trapped));
    }

    /// Reads who this database is.
    pub(super) fn identify(&mut self) {
        let identity = Identity::new(self.config.client, self.config.actor);
        self.commit(Request::Identity, Commit::Identity(identity));
    }

    /// Tells the witness of work on a log.
    pub(super) fn marker(&self, name: &LogName) -> Marker {
        Marker::new(self.resume.witness.clone(), name)
    }

    /// Records an action again that the engine before had in its view, but not stored: under its own number, on what
    /// its author had seen of the log. Its mutator does not run again.
    ///
    /// # Errors
    /// [`CallError`]; nothing was recorded.
    pub fn act_again(
        &mut self,
        name: &LogName,
        draft: Draft,
        (n, seen): (u64, Offset),
        now: WallMs,
    ) -> Result<WriteId, CallError> {
        self.set_now(now);
        let clock_now = self.server_now();
        let slot = self.slots.get_mut(name).filter(|slot| slot.phase == Phase::Ready);
        let Some(slot) = slot else { return Err(CallError::NotOpen(name.clone())) };
        let draft = draft.merged();
        let write = slot.replica.act_seen(draft, (n, seen), clock_now, &mut self.clock, &mut self.random)?;
        self.acts = self.acts.max(n);
        self.settle();
        Ok(write)
    }

    /// There is more of the log than this tab comes back from: the leader may be past it, and is asked for a snapshot.
    pub(super) fn ask_past_trap(&mut self, name: &LogName) {
        let stopped = self.slots.get(name).filter(|slot| slot.traps.asks());
        let at = stopped.map(|slot| slot.replica.state().cursor().next);
        if let (None, Some(at)) = (self.fence, at) {
            self.hint(&Hint::Damaged((name.clone(), at)));
        }
    }

    /// What came is no snapshot that covers the entry that traps. Nothing is read until one is asked for again.
    pub(super) fn not_covered(&mut self, name: &LogName, cost: u64) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let known = &mut slot.traps;
        known.wait = known.wait.saturating_mul(2).clamp(ASK_MS_FIRST, ASK_MS_MAX);
        known.uncovered_until = Some(self.now.saturating_add(known.wait));
        if let Some(session) = &mut self.session {
            session.worked_off(name, cost);
            session.unsubscribe(name);
        }
        self.subscribe(name);
        self.tell_status(name);
    }

    /// Asks again for the snapshots that did not cover what traps.
    pub(super) fn ask_for_snapshots(&mut self) {
        let now = self.now;
        let due = |slot: &Slot| slot.traps.uncovered_until.is_some_and(|at| at <= now);
        let names: Vec<_> = self.slots.iter().filter(|(_, slot)| due(slot)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let (Some(session), Some(slot)) = (&mut self.session, self.slots.get_mut(&name)) {
                slot.traps.uncovered_until = None;
                session.unsubscribe(&name);
            }
            self.subscribe(&name);
        }
    }
}
