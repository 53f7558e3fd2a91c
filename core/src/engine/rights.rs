//! Rights that the token does not give: what a log does without them, and when it asks for them again.
//!
//! A log that may be read and not appended to stays up to date while its own entries wait (`read-only`); one that may
//! be appended to and not read ships them and hears only verdicts (`append-only`). Nothing is refused for that, and the
//! next token, in the next session or in this one, is asked for everything again.

use crate::id::LogName;
use crate::notice::LogStatus;
use crate::session::link::LinkState;

use super::Engine;

impl Engine {
    /// The token gives no right to read the log, or none at all. The first is tried before the second is believed.
    pub(super) fn log_forbidden(&mut self, name: &LogName, reason: &str) {
        let (Some(session), Some(slot)) = (&mut self.session, self.slots.get_mut(name)) else { return };
        let opened = session.push_from(name).is_some();
        if opened || std::mem::replace(&mut slot.unreadable, true) {
            slot.replica.stop(LogStatus::Forbidden, reason);
            return self.give_up(name);
        }
        session.unsubscribe(name);
        self.subscribe(name);
    }

    /// Asks anew for every log that lacks a right: there is another token.
    pub(super) fn ask_for_rights(&mut self) {
        if self.link.state() != LinkState::Live {
            return;
        }
        let lacking = self.slots.iter().filter(|(_, slot)| slot.replica.status().wants_right());
        for name in lacking.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let (Some(session), Some(slot)) = (&mut self.session, self.slots.get_mut(&name)) else { continue };
            session.unsubscribe(&name);
            slot.unreadable = false;
            slot.replica.try_again();
            self.subscribe(&name);
        }
    }
}
