//! When the server may let go of the details of a refusal: once they are recorded here and survive a power loss.
//!
//! Verdicts are stored in relaxed commits, refusals with their dead letters too: a strict commit takes some milliseconds
//! in which no action is stored, and under load each batch of verdicts may bring a refusal. A power loss may take the
//! latest; then the server tells them again, with code and reason, because it was not told that they are settled. Once
//! in a while one strict commit writes what was recorded since the last one again, and only then `settled` leaves.
//!
//! The same commit writes the row of verdicts anew where a leader finds it damaged that knows them: one that is up to date
//! has no verdict to store, and other tabs would take for undecided what it knows to be decided.
//!
//! **Invariant:** through which seq everything is settled stands in the row of verdicts, so what a run of the client
//! leaves unsettled is settled by a later one.

use crate::id::{LogName, Seq};
use crate::storage::commit::{Commit, Committed, Settle};
use crate::time::WallMs;

use super::{CommitFailure, Engine, Hint, Request, Slot};

/// How long a refusal waits before it is settled, in milliseconds. The server keeps its reason for so long; strict
/// commits are what bounds how many actions a device stores, and each of these takes the place of one.
const SETTLE_MS: WallMs = 5_000;
/// How long after a commit that failed, in milliseconds.
const RETRY_MS: WallMs = 30_000;
/// Dead letters of one commit at the most; the rest is the next one's.
const LETTERS_MAX: usize = 256;

/// When the refusals of a log are to be settled.
#[derive(Debug, Default)]
pub(super) struct Settling {
    at: Option<WallMs>,
    under_way: bool,
    /// The row of verdicts was found damaged.
    damaged: bool,
    /// The commit that is under way writes that row.
    mending: bool,
}

impl Settling {
    /// The clock stepped back by so much.
    pub(super) fn clock_stepped_back(&mut self, by: WallMs) {
        self.at = self.at.map(|at| at.saturating_sub(by));
    }

    /// Whether to begin now; if there is something to settle, it is due after a while.
    fn begins(&mut self, is_unsettled: bool, now: WallMs) -> bool {
        let wanted = is_unsettled || self.damaged;
        if !wanted {
            // Another tab did it meanwhile: a time that is over and stands for nothing would be due for ever.
            self.at = None;
        }
        if !wanted || self.under_way {
            return false;
        }
        let begins = *self.at.get_or_insert(now.saturating_add(SETTLE_MS)) <= now;
        if begins {
            (self.at, self.under_way) = (None, true);
            self.mending = std::mem::take(&mut self.damaged);
        }
        begins
    }
}

impl Engine {
    /// Settles what is recorded and due, while there is somebody to tell.
    pub(super) fn settle_refusals(&mut self) {
        let (Some(fence), true) = (self.fence, self.session.is_some()) else { return };
        let mut due = Vec::new();
        let now = self.now;
        self.slots.turn_mut(|name, slot| {
            if slot.settling.begins(slot.replica.outbox().verdicts().is_unsettled(), now) {
                due.push((name.clone(), slot.settle(name, fence)));
            }
        });
        for (name, settle) in due {
            self.commit(Request::Settle(name), Commit::Settle(settle));
        }
    }

    /// The row of verdicts was found damaged: what is known here takes its place, if this tab leads.
    pub(super) fn verdicts_damaged(&mut self, name: &LogName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.replica.outbox().verdicts().through > Seq(0) && !slot.settling.mending {
            (slot.settling.damaged, slot.settling.at) = (true, Some(self.now));
        }
    }

    pub(super) fn settled(&mut self, name: &LogName, result: Result<Committed, CommitFailure>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.settling.under_way = false;
        let mended = std::mem::take(&mut slot.settling.mending);
        match result {
            Ok(Committed::Settled(through)) => {
                slot.replica.outbox_mut().settle(through);
                self.tell_settled(name);
                if mended {
                    self.hint(&Hint::Grew(name.clone()));
                }
            }
            Err(CommitFailure::Aborted(_)) => self.unseated(),
            _ => {
                slot.settling.damaged |= mended;
                slot.settling.at = Some(self.now.saturating_add(RETRY_MS));
            }
        }
    }

    /// Tells the server what is settled: when it is, and in each session once, since the last word may have been lost.
    pub(super) fn tell_settled(&mut self, name: &LogName) {
        let (Some(session), Some(slot)) = (&mut self.session, self.slots.get(name)) else { return };
        let settled = slot.replica.outbox().verdicts().settled;
        if settled > Seq(0) {
            session.settled(name, settled);
        }
    }

    /// When the refusals of a log are to be settled.
    pub(super) fn settling_due(&self, slot: &Slot) -> Option<WallMs> {
        let free = self.fence.is_some() && self.session.is_some() && !slot.settling.under_way;
        slot.settling.at.filter(|_| free)
    }
}

impl Slot {
    fn settle(&self, name: &LogName, fence: u64) -> Settle {
        let verdicts = self.replica.outbox().verdicts();
        let own = self.replica.dead_letters().filter(|(id, _)| id.actor == verdicts.actor);
        let recent = own.map(|(id, _)| id.seq).filter(|seq| *seq > verdicts.settled);
        let letters: Vec<_> = recent.take_while(|seq| *seq <= verdicts.through).take(LETTERS_MAX).collect();
        let through = match letters.last() {
            Some(last) if letters.len() == LETTERS_MAX => *last,
            _ => verdicts.through,
        };
        let damaged = self.settling.mending.then(|| verdicts.clone());
        Settle { fence, log: name.clone(), actor: verdicts.actor, through, letters, damaged }
    }
}
