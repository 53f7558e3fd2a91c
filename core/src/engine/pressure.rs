//! Pressure: own work that piles up on this device, why, and the bound at which no more is recorded.
//!
//! While the server gives no credit, what is recorded waits in the log: nothing is dropped, and nothing waits in memory
//! alone. The app hears of it after a moment, so that an upload which flows is none. At the bound of the backlog an
//! action is not recorded at all, and the call says so; what was recorded before stays. Without a bound the device's
//! storage is one: when an append did not fit, the next action is tried alone, and no other is recorded meanwhile, so
//! that nothing more comes into view only to leave it again.

use crate::id::LogName;
use crate::notice::{Notice, Pressure, PressureLevel};
use crate::outbox::{Backlog, BacklogBound};
use crate::session::client::ClientSession;
use crate::session::link::LinkState;
use crate::time::WallMs;

use super::{Engine, Output, Slot};

/// How long a log is without credit before the app hears of it, in milliseconds.
const BLOCKED_MS: WallMs = 1_000;

/// The backlog of a log is at its bound: nothing was recorded. Call again when there is less pressure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{log} takes no more work: {} actions with {} bytes wait for the server's verdict{}; act again when it has \
     answered some of them",
    backlog.entries, backlog.bytes, if *storage_full { ", and this device can store no more" } else { "" }
)]
pub struct BacklogFull {
    /// The log.
    pub log: LogName,
    /// What waits.
    pub backlog: Backlog,
    /// Its bound.
    pub bound: BacklogBound,
    /// The bound is the device's storage.
    pub storage_full: bool,
}

/// What presses on one log.
#[derive(Debug, Default)]
pub(super) struct Pressed {
    /// There is something to push and no credit for it, since then.
    pub(super) blocked_since: Option<WallMs>,
    /// The leader says that the log is blocked.
    pub(super) blocked_elsewhere: bool,
    /// The last append did not fit.
    pub(super) storage_full: bool,
    /// What was counted of the log for the client's whole backlog.
    pub(super) counted: Backlog,
}

impl Pressed {
    /// The clock stepped back by so much.
    pub(super) fn clock_stepped_back(&mut self, by: WallMs) {
        self.blocked_since = self.blocked_since.map(|since| since.saturating_sub(by));
    }

    fn is_blocked(&self, now: WallMs) -> bool {
        self.blocked_since.is_some_and(|since| now >= since.saturating_add(BLOCKED_MS))
    }
}

impl Slot {
    /// Whether one more action may be recorded.
    pub(super) fn has_room(&self, log: &LogName, bound: BacklogBound) -> Result<(), BacklogFull> {
        let outbox = self.replica.outbox();
        let backlog = outbox.backlog();
        let storage_full = self.pressure.storage_full && outbox.pending().next().is_some();
        match storage_full || bound.is_reached(backlog) {
            true => Err(BacklogFull { log: log.clone(), backlog, bound, storage_full }),
            false => Ok(()),
        }
    }

    fn level(&self, bound: BacklogBound, blocked: bool) -> PressureLevel {
        let backlog = self.replica.outbox().backlog();
        match () {
            () if self.pressure.storage_full => PressureLevel::StorageFull,
            () if bound.is_reached(backlog) => PressureLevel::Full,
            () if bound.is_near(backlog) => PressureLevel::High,
            () if blocked => PressureLevel::Waiting,
            () => PressureLevel::None,
        }
    }
}

impl Engine {
    /// Looks at the logs after what could be pushed was pushed.
    pub(super) fn settle_pressure(&mut self) {
        let (now, leads, bound) = (self.now, self.fence.is_some(), self.config.backlog);
        let session = self.session.as_ref().filter(|_| leads && self.link.state() == LinkState::Live);
        self.slots.turn_and_unsent_mut(session.map(ClientSession::may_push), |name, slot| {
            let unsent = session.and_then(|session| session.push_from(name));
            let unsent = unsent.is_some_and(|from| slot.replica.outbox().has_to_push(from));
            let credit = session.is_some_and(|session| session.may_push_to(name));
            match unsent && !credit {
                true => drop(slot.pressure.blocked_since.get_or_insert(now)),
                false => slot.pressure.blocked_since = None,
            }
            let blocked = if leads { slot.pressure.is_blocked(now) } else { slot.pressure.blocked_elsewhere };
            let level = slot.level(bound, blocked && !slot.replica.outbox().is_empty());
            slot.replica.set_pressure(level);
        });
        self.slots.count_pressure();
    }

    /// Whether a log has been without credit for a while, as the leader tells the other tabs.
    pub(super) fn is_blocked(&self, slot: &Slot) -> bool {
        slot.pressure.is_blocked(self.now)
    }

    /// When a log has been without credit for long enough to tell.
    pub(super) fn pressure_due(&self, slot: &Slot) -> Option<WallMs> {
        let since = slot.pressure.blocked_since?;
        Some(since.saturating_add(BLOCKED_MS)).filter(|due| *due > self.now)
    }

    /// Own work of all logs that waits for the server, as far as this tab knows them.
    pub fn pressure(&self) -> Pressure {
        let mut pressure = Pressure { level: PressureLevel::None, log: None, backlog: Backlog::default() };
        for (name, slot) in self.slots.iter() {
            let Backlog { entries, bytes } = slot.replica.outbox().backlog();
            pressure.backlog.entries += entries;
            pressure.backlog.bytes += bytes;
            if slot.replica.pressure() > pressure.level {
                (pressure.level, pressure.log) = (slot.replica.pressure(), Some(name.clone()));
            }
        }
        pressure
    }

    /// Tells the app when it changed.
    pub(super) fn tell_pressure(&mut self) {
        let pressure = self.slots.pressure();
        debug_assert_eq!(pressure, self.pressure(), "whoever changed a log has touched it");
        if self.pressure_told.as_ref() != Some(&pressure) {
            self.pressure_told = Some(pressure.clone());
            self.outputs.push_back(Output::Notice(Notice::Pressure(pressure)));
        }
    }
}
