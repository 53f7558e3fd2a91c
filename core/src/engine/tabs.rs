//! Tabs of one client: who leads, and what tabs tell each other.
//!
//! The log in the database is the truth; what tabs say is only a hint that there is something to read, or what the
//! leader sees of the connection. A lost hint costs time: the leader also looks by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::chain::Cursor;
use crate::codec::{self, tagged};
use crate::fold::history::Hole;
use crate::id::{LogName, Offset, UserId};
use crate::notice::{Connection, LogStatus, Notice};
use crate::protocol::frame;
use crate::replica::Hold;
use crate::session::client::Priority;
use crate::session::link::LinkState;
use crate::storage;
use crate::storage::Row;
use crate::storage::commit::Commit;
use crate::storage::row::{self, Verdicts};
use crate::time::WallMs;

use super::presence::Present;
use super::{Engine, OnlineWish, Output, Request};

/// How often the leader looks for work that nobody told it of, in milliseconds.
const SCAN_MS: WallMs = 30_000;

/// What one tab tells the others.
#[derive(Clone, Debug, PartialEq)]
pub enum Hint {
    /// This log grew in the database.
    Grew(LogName),
    /// This tab wants the log.
    Wanted(LogName),
    /// A new leader asks what is wanted.
    Leading(()),
    /// What the leader sees of the connection.
    Connection(ConnectionHint),
    /// How a log stands with the server.
    Log(LogHint),
    /// The app wants the connection on or off, in whichever tab it said so.
    Online(bool),
    /// Rows of this log are damaged, and this tab has no more than what lies before the offset.
    Damaged((LogName, Offset)),
    /// This tab's folds miss entries of the log, from a cursor to an offset (exclusive): only the server has them.
    Missing((LogName, Cursor, Offset)),
    /// A fresh actor has taken over.
    Succeeded(()),
    /// This tab says something of the client in a log.
    Present((LogName, Option<ByteBuf>)),
    /// What the leader hears that others say of themselves in a log.
    Presence((LogName, Vec<Present>)),
    /// The app said in this tab how much of the way the log gets.
    Priority((LogName, u8)),
}

tagged!(Hint {
    Grew(LogName) = 0,
    Wanted(LogName) = 1,
    Leading(()) = 2,
    Connection(ConnectionHint) = 3,
    Log(LogHint) = 4,
    Online(bool) = 5,
    Damaged((LogName, Offset)) = 6,
    Missing((LogName, Cursor, Offset)) = 7,
    Succeeded(()) = 8,
    Present((LogName, Option<ByteBuf>)) = 9,
    Presence((LogName, Vec<Present>)) = 10,
    Priority((LogName, u8)) = 11,
});

/// See [`Hint::Connection`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionHint {
    state: u8,
    reason: String,
    retry_at: Option<WallMs>,
    user: Option<UserId>,
    kept: Option<frame::Connection>,
}

/// See [`Hint::Log`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogHint {
    log: LogName,
    status: u8,
    reason: String,
    retry_at: Option<WallMs>,
    blocked: bool,
}

const LINK_STATES: [LinkState; 8] = [
    LinkState::Idle,
    LinkState::Connecting,
    LinkState::Live,
    LinkState::BackingOff,
    LinkState::Offline,
    LinkState::NeedsAuth,
    LinkState::Blocked,
    LinkState::Closed,
];

impl Engine {
    pub(super) fn hint(&mut self, hint: &Hint) {
        self.outputs.push_back(Output::Hint(codec::to_bytes(hint)));
    }

    pub(super) fn hinted(&mut self, bytes: &[u8]) {
        // Another version of the app may speak otherwise; hints carry no truth, so they may be ignored.
        let Ok(hint) = codec::from_bytes::<Hint>(bytes) else { return };
        match hint {
            Hint::Grew(name) => {
                if self.fence.is_some() {
                    self.slot(&name);
                }
                self.refresh(&name);
                self.look_again(&name);
            }
            Hint::Missing((name, at, end)) => {
                if self.fence.is_some() {
                    self.slot(&name);
                    self.want_history(&name, Hole { at, end });
                }
            }
            Hint::Wanted(name) => {
                if self.fence.is_some() {
                    self.want_here(&name);
                    // A tab that has just come knows nothing of the connection yet.
                    let connection = self.connection();
                    self.hint_connection(connection);
                    self.tell_status(&name);
                    self.tell_presence(&name);
                }
            }
            Hint::Leading(()) => {
                let names: Vec<_> = self.slots.keys().cloned().collect();
                // What the last leader was told is forgotten with it.
                names.iter().for_each(|name| self.look_again(name));
                self.tell_priorities();
                names.into_iter().for_each(|name| self.hint(&Hint::Wanted(name)));
            }
            Hint::Connection(hint) => self.connection_hinted(hint),
            Hint::Log(hint) => self.log_hinted(hint),
            Hint::Online(on) => {
                let wish = if on { OnlineWish::Connected } else { OnlineWish::Disconnected };
                self.wish_here(wish);
            }
            Hint::Present((name, value)) => self.presence_said(&name, value),
            Hint::Priority((name, number)) => self.prioritize_here(&name, Priority::from_number(number)),
            Hint::Presence((name, others)) => self.presence_hinted(name, others),
            Hint::Damaged((name, at)) => self.mend(&name, at),
            Hint::Succeeded(()) => self.identify(),
        }
    }

    fn connection_hinted(&mut self, hint: ConnectionHint) {
        if self.fence.is_some() {
            return;
        }
        let Some(state) = LINK_STATES.get(hint.state as usize).copied() else { return };
        let ConnectionHint { reason, retry_at, user, kept, .. } = hint;
        let kept = kept.map(|kept| kept.state());
        self.connection = Some(Connection { state, reason, retry_at, user, kept });
    }

    fn log_hinted(&mut self, LogHint { log, status, reason, retry_at, blocked }: LogHint) {
        let (None, Some(slot), Some(status)) =
            (self.fence, self.slots.get_mut(&log), LogStatus::ALL.get(status as usize))
        else {
            return;
        };
        slot.told = None;
        slot.pressure.blocked_elsewhere = blocked;
        if *status == LogStatus::Held {
            // What is held is the first entry without a verdict, so its verdict ends this here too.
            let seq = slot.replica.outbox().verdicts().through.next();
            slot.replica.set_hold(Some(Hold { seq, reason, retry_at }));
        } else {
            slot.replica.set_hold(None);
            // What the leader says of the log ends what it said before, and nothing that this tab found itself.
            if std::mem::replace(&mut slot.traps.stopped_by_leader, status.is_stopped()) && !slot.traps.asks() {
                slot.replica.try_again();
            }
            slot.replica.set_status(*status, &reason);
        }
    }

    /// A log is wanted by this tab.
    pub(super) fn want(&mut self, name: &LogName) {
        self.want_here(name);
        if self.fence.is_none() {
            self.hint(&Hint::Wanted(name.clone()));
        }
    }

    fn want_here(&mut self, name: &LogName) {
        self.wanted.insert(name.clone());
        if self.fence.is_some() {
            self.slot(name);
            self.subscribe(name);
        }
    }

    /// Elected by the browser: take the fence, so that a former leader's late writes fail.
    pub(super) fn elected(&mut self) {
        if !self.elected {
            self.elected = true;
            if self.identity.is_some() {
                self.commit(Request::Lead, Commit::Lead);
            }
        }
    }

    /// The fence is ours.
    pub(super) fn leading(&mut self, epoch: u64) {
        if !self.elected {
            return;
        }
        self.fence = Some(epoch);
        self.connection = None;
        self.hint(&Hint::Leading(()));
        self.wanted.extend(self.slots.keys().cloned());
        // What another tab stored up to now must be read before this tab stores behind it.
        let names: Vec<_> = self.slots.keys().cloned().collect();
        for slot in self.slots.values_mut() {
            slot.catching_up = true;
            // Held was the session of the leader before; without one, its time would come again and again.
            slot.replica.set_hold(None);
        }
        names.iter().for_each(|name| self.refresh(name));
        self.scan();
        if self.wish == OnlineWish::Connected {
            let act = self.link.connect(self.now);
            self.link_act(act);
        }
    }

    /// Another tab leads: its session is the client's.
    pub(super) fn unseated(&mut self) {
        self.elected = false;
        self.slots.touch_all();
        if self.fence.take().is_some() {
            let act = self.link.yield_lead();
            self.link_act(act);
            // It is sent its own snapshots.
            self.parts.clear();
            let names: Vec<_> = self.slots.keys().cloned().collect();
            names.iter().for_each(|name| self.refresh(name));
        }
    }

    /// Looks for logs with work that no open tab told of.
    pub(super) fn scan(&mut self) {
        self.scan_at = self.now.saturating_add(SCAN_MS);
        self.read(Request::Scan, vec![storage::all_next(), storage::all_verdicts()]);
    }

    pub(super) fn scanned(&mut self, rows: Vec<Vec<Row>>) {
        if self.fence.is_none() {
            return;
        }
        let [next, verdicts] = rows.as_slice() else { return };
        let verdicts: BTreeMap<_, _> =
            verdicts.iter().filter_map(|(key, bytes)| Some((storage::log_of(key)?, bytes))).collect();
        let through = |name: &LogName| {
            let row = verdicts.get(name);
            row.and_then(|bytes| row::decode::<Verdicts>(bytes).ok()).map_or(0, |verdicts| verdicts.through.0)
        };
        let with_work: Vec<_> = next
            .iter()
            .filter_map(|(key, bytes)| Some((storage::log_of(key)?, row::decode_either::<u64>(bytes).ok()?)))
            .filter(|(name, next)| *next > through(name) + 1)
            .map(|(name, _)| name)
            .collect();
        for name in with_work {
            self.slot(&name);
            self.refresh(&name);
        }
    }

    pub(super) fn wished(&mut self, wish: OnlineWish) {
        self.wish_here(wish);
        self.hint(&Hint::Online(wish == OnlineWish::Connected));
    }

    fn wish_here(&mut self, wish: OnlineWish) {
        self.wish = wish;
        if self.fence.is_some() {
            let act = match wish {
                OnlineWish::Connected => self.link.connect(self.now),
                OnlineWish::Disconnected => self.link.disconnect(),
            };
            self.link_act(act);
        }
    }

    pub(super) fn own_connection(&self) -> Connection {
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        Connection {
            state: self.link.state(),
            reason: self.link.reason().to_owned(),
            retry_at: self.link.retry_at(),
            user,
            kept: self.kept,
        }
    }

    /// Tells the app, and the other tabs, when the connection changed.
    pub(super) fn tell_connection(&mut self) {
        let connection = self.connection();
        if self.told.as_ref() == Some(&connection) {
            return;
        }
        self.told = Some(connection.clone());
        if self.fence.is_some() {
            self.hint_connection(connection.clone());
        }
        self.outputs.push_back(Output::Notice(Notice::Connection(connection)));
    }

    fn hint_connection(&mut self, Connection { state, reason, retry_at, user, kept }: Connection) {
        let state = LINK_STATES.iter().position(|known| *known == state).unwrap_or(0) as u8;
        let kept = kept.map(Into::into);
        self.hint(&Hint::Connection(ConnectionHint { state, reason, retry_at, user, kept }));
    }

    /// Tells the other tabs again how everything stands: what was told before may have been lost.
    pub(super) fn tell_all(&mut self) {
        let connection = self.connection();
        self.hint_connection(connection);
        let names: Vec<_> = self.slots.keys().cloned().collect();
        names.iter().for_each(|name| self.tell_status(name));
    }

    /// Tells the other tabs where a log stands otherwise than they were told.
    pub(super) fn tell_statuses(&mut self) {
        if self.fence.is_none() {
            return;
        }
        self.slots.join_turn();
        let news = self
            .slots
            .turn()
            .filter(|(_, slot)| slot.told != Some((slot.replica.log_state().status, self.is_blocked(slot))));
        let names: Vec<_> = news.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.tell_status(name));
    }

    /// Tells the other tabs how a log stands.
    pub(super) fn tell_status(&mut self, name: &LogName) {
        let blocked = self.slots.get(name).is_some_and(|slot| self.is_blocked(slot));
        let Some(slot) = self.slots.get_mut(name) else { return };
        let state = slot.replica.log_state();
        slot.told = Some((state.status, blocked));
        let status = LogStatus::ALL.iter().position(|status| *status == state.status).unwrap_or(0) as u8;
        let hint = LogHint { log: name.clone(), status, reason: state.reason, retry_at: state.retry_at, blocked };
        self.hint(&Hint::Log(hint));
    }
}
