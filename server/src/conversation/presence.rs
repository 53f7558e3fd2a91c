//! What one session says of itself, and what it is told of others.

use std::collections::{BTreeMap, BTreeSet};

use driftlog_core::id::LogName;
use driftlog_core::protocol::frame::LogNumber;

use super::Conversation;
use crate::presence::{Speaker, Told};

/// Where one session says something, and what it was told.
#[derive(Default)]
pub(super) struct PresentHere {
    says: BTreeSet<LogName>,
    told: BTreeMap<LogNumber, Told>,
    /// Logs with news that the socket has had no room for.
    due: BTreeSet<LogNumber>,
}

impl PresentHere {
    /// The reader of a log stands somewhere: the first time, it is to hear of everybody.
    pub(super) fn stands(&mut self, number: LogNumber) {
        if !self.told.contains_key(&number) {
            self.due.insert(number);
        }
    }

    /// A log is given up: under its number another may come.
    pub(super) fn forget(&mut self, number: LogNumber) {
        self.told.remove(&number);
        self.due.remove(&number);
    }
}

impl Conversation {
    /// The peer says something of itself in a log, or takes it back.
    pub(super) fn say(&mut self, log: LogName, value: Option<&[u8]>) {
        let Some(speaker) = self.speaker() else { return };
        if self.shared.presences.say(&log, &speaker, value) {
            self.shared.feeds.present(&log);
        }
        if value.is_some() {
            self.present.says.insert(log);
        } else {
            self.present.says.remove(&log);
        }
    }

    /// It says nothing any more in a log that it gives up.
    pub(super) fn fall_silent(&mut self, log: &LogName) {
        if self.present.says.contains(log) {
            self.say(log.clone(), None);
        }
    }

    /// It ends.
    pub(super) fn fall_silent_everywhere(&mut self) {
        std::mem::take(&mut self.present.says).into_iter().for_each(|log| self.say(log, None));
    }

    /// Tells the peer who says what now, where that is news and its socket has room. A log that is not open yet hears of
    /// everybody when it is.
    pub(super) fn tell_presence(&mut self) {
        self.present.due.append(&mut self.waker.take_present());
        while self.session.takes_presence()
            && let Some(number) = self.present.due.pop_first()
        {
            let Some(name) = self.session.followed(number).cloned() else { continue };
            let told = self.present.told.entry(number).or_default();
            for (connection, said) in self.shared.presences.news(&name, self.actor, told) {
                let said = said.as_ref().map(|(user, value)| (user.clone(), &**value));
                self.session.handle_presence(number, connection, said);
            }
        }
    }

    fn speaker(&self) -> Option<Speaker> {
        let (user, entered) = (self.user.clone()?, self.entered.as_ref()?);
        Some(Speaker { actor: self.actor, user, session: entered.number() })
    }
}
