//! How the log stands with the server, and what the app is told of it.

use crate::id::Offset;
use crate::notice::{LogState, LogStatus, Notice, PressureLevel};

use super::{Hold, Replica};

impl Replica {
    /// Notes how the log stands with the server.
    pub fn set_status(&mut self, status: LogStatus, reason: &str) {
        if (self.status, self.reason.as_str()) != (status, reason) && !self.status.is_stopped() {
            self.status = status;
            self.reason = reason.to_owned();
            self.progress();
        }
    }

    /// Notes how own entries pile up.
    pub fn set_pressure(&mut self, pressure: PressureLevel) {
        if self.pressure != pressure {
            self.pressure = pressure;
            self.progress();
        }
    }

    /// How own entries pile up.
    pub fn pressure(&self) -> PressureLevel {
        self.pressure
    }

    /// Own entries wait for the server, or no longer do. What others wrote arrives all the same.
    pub fn set_hold(&mut self, hold: Option<Hold>) {
        if self.hold != hold {
            self.hold = hold;
            self.progress();
        }
    }

    /// What own entries wait for at the server.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// A new session may heal what stopped the log, unless this build is too old for it.
    pub fn try_again(&mut self) {
        if self.status.is_stopped() && self.status != LogStatus::UpdateNeeded {
            self.status = LogStatus::Local;
            self.reason.clear();
        }
    }

    /// What stopped the log is behind it.
    pub fn go_on(&mut self) {
        self.try_again();
        self.set_status(LogStatus::Behind, "");
        self.catch_up();
    }

    /// Stops the log visibly; local work goes on.
    pub fn stop(&mut self, status: LogStatus, reason: &str) {
        self.status = status;
        self.reason = reason.to_owned();
        // No fold will come to tell it.
        self.tell_unplaced();
        self.progress();
    }

    /// The log is open at the server, which has it to `end`, with these rights.
    pub fn follow(&mut self, end: Offset, may_read: bool, may_append: bool) {
        // It may be lower than before: a server was put back.
        self.server_end = end;
        self.may_append = may_append;
        if may_read {
            self.set_status(LogStatus::Behind, "");
            self.catch_up();
        } else {
            self.set_status(LogStatus::AppendOnly, "the token gives no right to read this log");
            // No fold will come to tell it.
            self.tell_unplaced();
        }
    }

    /// Whether everything the server was known to have is in view now.
    pub fn catch_up(&mut self) {
        if matches!(self.status, LogStatus::Behind) && self.state.cursor().next >= self.server_end {
            match self.may_append {
                true => self.set_status(LogStatus::Synced, ""),
                false => self.set_status(LogStatus::ReadOnly, "the token gives no right to append to this log"),
            }
        }
    }

    /// What arrived cannot be stored for now, and so is not in view: says why, while it is tried again.
    pub fn wait_for_storage(&mut self, reason: &str) {
        if self.status != LogStatus::AppendOnly {
            self.set_status(LogStatus::Behind, &format!("what arrived cannot be stored yet: {reason}"));
        }
    }

    /// Tells the log's state, once per turn.
    pub(super) fn progress(&mut self) {
        let state = self.log_state();
        let name = self.name.clone();
        self.notices.retain(|notice| !matches!(notice, Notice::Log(log, _) if *log == name));
        self.notices.push(Notice::Log(name, state));
    }

    /// The log's state, for the app.
    pub fn log_state(&self) -> LogState {
        let (status, reason, retry_at) = match &self.hold {
            Some(hold) if !self.status.is_stopped() => (LogStatus::Held, &hold.reason, hold.retry_at),
            _ => (self.status, &self.reason, None),
        };
        LogState {
            status,
            reason: reason.clone(),
            retry_at,
            end: self.state.cursor().next,
            outbox: self.outbox.len(),
            outbox_bytes: self.outbox.backlog().bytes,
            pressure: self.pressure,
            dead_letters: self.dead_letters.len(),
        }
    }

    /// How it stands with the server.
    pub fn status(&self) -> LogStatus {
        self.status
    }
}
