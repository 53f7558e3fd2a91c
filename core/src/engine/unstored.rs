//! Arrivals that could not be stored: what of them may be tried when, while the session stays open.
//!
//! On a full quota nothing new is granted to the server, since credit is given back only for what is stored, so what
//! waits here is bounded by one credit. Received entries are large and the server has them; verdicts are small and free
//! the outbox. So verdicts go alone when both do not fit, and what does not fit at all is tried again with back-off.

use crate::id::LogName;
use crate::random::Random;
use crate::replica::Storable;
use crate::session::backoff::Backoff;
use crate::time::WallMs;

use super::{CommitFailure, Engine, Slot};

/// When what did not fit is tried again.
#[derive(Debug, Default)]
pub(super) struct Unstored {
    backoff: Backoff,
    at: WallMs,
    /// Verdicts alone did not fit either.
    verdicts_too: bool,
}

impl Unstored {
    /// What may be stored now; none: nothing.
    pub(super) fn storable(unstored: Option<&Self>, now: WallMs) -> Option<Storable> {
        match unstored {
            Some(unstored) if now < unstored.at && unstored.verdicts_too => None,
            Some(unstored) if now < unstored.at => Some(Storable::Verdicts),
            _ => Some(Storable::Everything),
        }
    }

    /// The clock stepped back by so much.
    pub(super) fn clock_stepped_back(&mut self, by: WallMs) {
        self.at = self.at.saturating_sub(by);
    }

    fn fail(&mut self, now: WallMs, (entries, verdicts): (bool, bool), random: &mut Random) {
        self.verdicts_too = verdicts && !entries;
        // Verdicts that fail alone, right behind the whole, are one failure with it.
        if !(self.verdicts_too && now < self.at) {
            self.at = now.saturating_add(self.backoff.fail(random).max(1));
        }
    }
}

impl Engine {
    /// What arrived was not stored. The server has all of it, but nothing is asked for again: it is kept and retried.
    pub(super) fn receive_failed(&mut self, name: &LogName, failure: CommitFailure) {
        let reason = match failure {
            CommitFailure::Aborted(_) => return self.unseated(),
            // All of it is written once more after an unknown outcome: its rows are put, not added.
            CommitFailure::Full(reason) | CommitFailure::Failed(reason) | CommitFailure::Unknown(reason) => reason,
        };
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.rows_left |= std::mem::take(&mut slot.clearing);
        let had = slot.replica.arrivals_mut().not_stored();
        slot.unstored.get_or_insert_default().fail(self.now, had, &mut self.random);
        slot.replica.wait_for_storage(&reason);
        self.tell_status(name);
    }

    /// When the arrivals of a log that did not fit are tried again.
    pub(super) fn unstored_due(&self, slot: &Slot) -> Option<WallMs> {
        slot.unstored.as_ref().map(|unstored| unstored.at).filter(|at| *at > self.now)
    }

    /// The page or the network came back: perhaps there is space.
    pub(super) fn retry_unstored(&mut self) {
        let now = self.now;
        self.slots.values_mut().filter_map(|slot| slot.unstored.as_mut()).for_each(|unstored| unstored.at = now);
    }
}
