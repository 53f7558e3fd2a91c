//! Presence: what others say of themselves in a log at the moment, and what this client says. Never stored, the last
//! value wins, gone with the socket.
//!
//! The client's presence is one, whichever of its tabs said it: the leader sends it, at most every [`PACE_MS`] for each
//! log, and again in every session. What others say it hands on to the other tabs whole, so a lost hint costs nothing
//! but the time until the next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{ActorId, LogName, UserId};
use crate::limits::PRESENCE_BYTES_MAX;
use crate::notice::Notice;
use crate::protocol::frame;
use crate::session::link::LinkState;
use crate::time::WallMs;

use super::{CallError, Engine, Hint};

/// Between two values of one log, in milliseconds; what comes in between is replaced by what comes last.
const PACE_MS: u64 = 50;

/// What one other client says of itself in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// Its connection, by the actor that it writes under.
    pub connection: ActorId,
    /// Its user.
    pub user: UserId,
    /// What it says: bytes of the app.
    pub value: ByteBuf,
}

/// Every log's presences, as this tab knows them.
#[derive(Debug, Default)]
pub(super) struct Presences {
    own: BTreeMap<LogName, Own>,
    others: BTreeMap<LogName, BTreeMap<ActorId, Present>>,
}

#[derive(Debug)]
struct Own {
    value: Option<ByteBuf>,
    /// Not sent yet.
    waits: bool,
    sent: WallMs,
}

/// The value cannot be said: say less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a presence of {got} bytes; it may have {max}")]
pub struct PresenceTooLarge {
    /// Its bytes.
    pub got: usize,
    /// What it may have.
    pub max: usize,
}

impl Engine {
    /// Says something of this client in a log, for as long as it is connected; none: nothing any more.
    ///
    /// # Errors
    /// [`PresenceTooLarge`].
    pub fn set_presence(
        &mut self,
        name: &LogName,
        value: Option<Vec<u8>>,
        now: WallMs,
    ) -> Result<(), PresenceTooLarge> {
        let (got, max) = (value.as_ref().map_or(0, Vec::len), PRESENCE_BYTES_MAX);
        if got > max {
            return Err(PresenceTooLarge { got, max });
        }
        self.set_now(now);
        let value = value.map(ByteBuf::from);
        self.presence_said(name, value.clone());
        if self.fence.is_none() {
            self.hint(&Hint::Present((name.clone(), value)));
        }
        self.settle();
        Ok(())
    }

    /// What others say of themselves in a log, by their connections.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn presence(&self, name: &LogName) -> Result<Vec<Present>, CallError> {
        if !self.slots.contains_key(name) {
            return Err(CallError::NotOpen(name.clone()));
        }
        Ok(self.presences.others.get(name).map(|others| others.values().cloned().collect()).unwrap_or_default())
    }

    /// This tab or another said something.
    pub(super) fn presence_said(&mut self, name: &LogName, value: Option<ByteBuf>) {
        let own = Own { value: None, waits: false, sent: 0 };
        let own = self.presences.own.entry(name.clone()).or_insert(own);
        (own.value, own.waits) = (value, true);
    }

    /// Someone else said something, or nothing any more.
    pub(super) fn presence_arrived(&mut self, name: &LogName, frame: frame::Presence) {
        let frame::Presence { connection, said, .. } = frame;
        let others = self.presences.others.entry(name.clone()).or_default();
        match said {
            Some((user, value)) => drop(others.insert(connection, Present { connection, user, value })),
            None => drop(others.remove(&connection)),
        }
        self.tell_presence(name);
    }

    /// Another tab leads, and this is what it hears.
    pub(super) fn presence_hinted(&mut self, name: LogName, others: Vec<Present>) {
        if self.fence.is_none() {
            let others = others.into_iter().map(|present| (present.connection, present)).collect();
            self.presences.others.insert(name.clone(), others);
            self.outputs.push_back(super::Output::Notice(Notice::Presence(name)));
        }
    }

    /// The session is over: nobody is known to be there, and what this client said is said again in the next.
    pub(super) fn presence_over(&mut self) {
        for own in self.presences.own.values_mut() {
            (own.waits, own.sent) = (own.value.is_some(), 0);
        }
        let present = std::mem::take(&mut self.presences.others);
        for name in present.into_iter().filter(|(_, others)| !others.is_empty()).map(|(name, _)| name) {
            self.tell_presence(&name);
        }
    }

    /// Tells the app, and the other tabs, who is there.
    pub(super) fn tell_presence(&mut self, name: &LogName) {
        if self.fence.is_some() {
            let others = self.presences.others.get(name);
            let others = others.map(|others| others.values().cloned().collect()).unwrap_or_default();
            self.hint(&Hint::Presence((name.clone(), others)));
        }
        self.outputs.push_back(super::Output::Notice(Notice::Presence(name.clone())));
    }

    /// Sends what waits and is due.
    pub(super) fn send_presence(&mut self) {
        if self.link.state() != LinkState::Live || self.fence.is_none() {
            return;
        }
        let (Some(session), now) = (&mut self.session, self.now) else { return };
        for (name, own) in &mut self.presences.own {
            if own.waits && now >= own.sent.saturating_add(PACE_MS) && session.present(name, own.value.clone()) {
                (own.waits, own.sent) = (false, now);
            }
        }
    }

    /// When something that waits is due.
    pub(super) fn presence_due(&self) -> WallMs {
        if self.link.state() != LinkState::Live || self.fence.is_none() {
            return WallMs::MAX;
        }
        // What is due already waits for its log to be subscribed.
        let due = |own: &Own| Some(own.sent.saturating_add(PACE_MS)).filter(|due| own.waits && *due > self.now);
        self.presences.own.values().filter_map(due).min().unwrap_or(WallMs::MAX)
    }
}
