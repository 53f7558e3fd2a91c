//! Everything of a tab that waits for a time, and the one timer that stands for all of it.

use crate::id::LogName;
use crate::replica::Hold;
use crate::storage::commit::Commit;
use crate::time::WallMs;

use super::{Engine, Output, Request, Slot};

/// How long the engine waits before it asks a database again that failed, in milliseconds.
const DATABASE_RETRY_MS: WallMs = 1_000;

impl Engine {
    /// Takes the time of a call. Where the clock stepped back, what waits for a time waits no longer than before.
    pub(super) fn set_now(&mut self, now: WallMs) {
        let back = self.now.saturating_sub(now);
        self.now = now;
        if back == 0 {
            return;
        }
        // The server's clock did not. What leaves by it waits no longer either.
        self.clock_offset = self.clock_offset.map(|offset| offset.saturating_add_unsigned(back));
        for at in [&mut self.scan_at, &mut self.database_retry_at] {
            if *at < WallMs::MAX {
                *at = at.saturating_sub(back);
            }
        }
        self.link.clock_stepped_back(back);
        for slot in self.slots.values_mut() {
            slot.pressure.clock_stepped_back(back);
            slot.settling.clock_stepped_back(back);
            slot.purges.clock_stepped_back(back);
            if let Some(unstored) = &mut slot.unstored {
                unstored.clock_stepped_back(back);
            }
            if let Some(hold) = slot.replica.hold().cloned() {
                let retry_at = hold.retry_at.map(|at| at.saturating_sub(back));
                slot.replica.set_hold(Some(Hold { retry_at, ..hold }));
            }
        }
        self.folds_clock_stepped_back(back);
        // The shell's timer was set for the due time of before.
        self.timeout = None;
    }

    /// The server's time; before it said it, this device's.
    pub(super) fn server_now(&self) -> WallMs {
        self.server_time().unwrap_or(self.now)
    }

    /// The server's time, once it said it.
    pub(super) fn server_time(&self) -> Option<WallMs> {
        self.clock_offset.map(|offset| self.now.saturating_add_signed(offset))
    }

    /// The server says what time it is.
    pub(super) fn server_is_at(&mut self, at: WallMs) {
        self.clock_offset = Some(at as i64 - self.now as i64);
        self.slots.values_mut().for_each(|slot| slot.server_is_at(at));
    }

    /// The server accepted something at this time by its clock, just now: where the clock was set ahead since the welcome,
    /// this is how a device hears of it.
    pub(super) fn server_was_at(&mut self, at: WallMs) {
        if at > self.server_now() {
            self.clock_offset = self.clock_offset.map(|_| at as i64 - self.now as i64);
        }
    }

    /// What the database could not do is tried again a little later.
    pub(super) fn retry_database(&mut self) {
        self.database_retry_at = self.database_retry_at.min(self.now.saturating_add(DATABASE_RETRY_MS));
    }

    pub(super) fn timed_out(&mut self) {
        self.timeout = None;
        if self.now >= self.database_retry_at {
            self.database_retry_at = WallMs::MAX;
            self.try_database();
        }
        if self.now >= self.scan_at && self.fence.is_some() {
            self.scan();
            self.ask_for_snapshots();
            self.tell_all();
        }
        self.push_held();
        self.folds_timed_out();
        let act = self.link.timeout(self.now, &mut self.random);
        self.link_act(act);
    }

    fn try_database(&mut self) {
        if std::mem::take(&mut self.lead_failed) && self.elected && self.fence.is_none() {
            self.commit(Request::Lead, Commit::Lead);
        }
        let failed =
            |(name, slot): (&LogName, &mut Slot)| std::mem::take(&mut slot.refresh_failed).then(|| name.clone());
        let names: Vec<_> = self.slots.iter_mut().filter_map(failed).collect();
        names.iter().for_each(|name| self.refresh(name));
    }

    /// When something of a log waits for its time to come.
    fn due(&self, slot: &Slot) -> Option<WallMs> {
        let due = [self.held_until(slot), self.unstored_due(slot), self.settling_due(slot), self.purge_due(slot)];
        due.into_iter().chain([self.rest_due(slot), self.pressure_due(slot), slot.fold_deadline()]).flatten().min()
    }

    /// Of the other logs the timer knows already, also where it has run down and is not told yet.
    pub(super) fn set_timeout(&mut self) {
        let leads = self.fence.is_some();
        let scan_at = if leads { self.scan_at } else { WallMs::MAX };
        self.slots.join_turn();
        let of_all = || self.slots.values().filter_map(|slot| self.due(slot)).min().unwrap_or(WallMs::MAX);
        let of_turn = || self.slots.turn().filter_map(|(_, slot)| self.due(slot)).min().unwrap_or(WallMs::MAX);
        let of_logs = if self.timeout.is_none() { of_all() } else { of_turn() };
        let link = self.link.deadline().unwrap_or(WallMs::MAX);
        let due = link.min(self.presence_due()).min(scan_at).min(self.database_retry_at).min(of_logs);
        if self.timeout.is_none_or(|set| set > due) {
            self.timeout = Some(due);
            if due < WallMs::MAX {
                self.outputs.push_back(Output::Timeout(due));
            }
        }
        debug_assert!(self.slots.values().filter_map(|slot| self.due(slot)).all(|due| Some(due) >= self.timeout));
    }
}
