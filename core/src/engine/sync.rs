//! The leader's work: the link, the session, pushing outboxes, storing and applying what arrives.

use crate::connection::ConnectionState;
use crate::id::{EntryId, LogName, Offset, Seq, WriteId};
use crate::limits;
use crate::notice::{LogStatus, Notice};
use crate::outbox::Heritage;
use crate::packed::Pushed;
use crate::protocol::frame::SubscribeLog;
use crate::protocol::{Code, frame, versions};
use crate::replica::{ArrivalError, Hold};
use crate::session::client::{ClientSession, SessionEvent, subscription};
use crate::session::link::{LinkAct, LinkState};
use crate::snapshot;
use crate::storage::commit::{Commit, Receive};
use crate::storage::row::Received;
use crate::time::WallMs;

use super::unstored::Unstored;
use super::{Engine, Hint, OnlineWish, Output, Phase, Request, Slot};

impl Engine {
    pub(super) fn link_act(&mut self, act: Option<LinkAct>) {
        match act {
            Some(LinkAct::Open) => self.open_socket(),
            Some(LinkAct::Close) => self.end_session(),
            Some(LinkAct::Ping) => {
                if let Some(session) = &mut self.session {
                    session.ping();
                }
            }
            None => {}
        }
    }

    pub(super) fn open_socket(&mut self) {
        self.end_session();
        if self.succeeding.is_some() {
            // It opens when the fresh actor has taken over.
            return;
        }
        if self.config.token && self.token.is_none() {
            self.token_awaited = true;
            let reason = self.link.reason().to_owned();
            self.outputs.push_back(Output::Notice(Notice::TokenWanted(reason)));
        } else {
            self.outputs.push_back(Output::SocketOpen);
        }
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.parts = session.end();
        }
        self.socket_open = false;
        (self.socket_buffered, self.socket_watched) = (0, false);
        self.token_awaited = false;
        self.outputs.push_back(Output::SocketClose);
        self.stop_fetching();
        self.presence_over();
        for slot in self.slots.values_mut() {
            slot.replica.arrivals_mut().reset();
            // The next session pushes everything that is undecided, at once.
            slot.replica.set_hold(None);
            slot.unstored = None;
            // What this session's server has is asked for anew.
            (slot.opened, slot.opened_last) = (None, None);
        }
        if self.fence.is_some() {
            self.set_status_all(LogStatus::Local);
            let names: Vec<_> = self.slots.keys().cloned().collect();
            names.iter().for_each(|name| self.tell_status(name));
        }
    }

    pub(super) fn token_given(&mut self, token: Option<String>) {
        let Some(token) = token else {
            if self.token_awaited {
                let act =
                    self.link.refused(Code::Unauthenticated, "the app has no token now", self.now, &mut self.random);
                self.link_act(act);
            }
            return;
        };
        if let Some(session) = &mut self.session {
            session.token(token.clone());
            self.ask_for_rights();
        }
        self.token = Some(token);
        if std::mem::take(&mut self.token_awaited) {
            self.outputs.push_back(Output::SocketOpen);
        } else {
            let act = self.link.authorize(self.now);
            self.link_act(act);
        }
    }

    pub(super) fn socket_opened(&mut self) {
        let Some(identity) = &self.identity else { return };
        if self.link.state() != LinkState::Connecting {
            return;
        }
        self.socket_open = true;
        // A token is good for one hello; the next one is asked for anew, so that it is never stale.
        let token = self.token.take();
        let mut session = ClientSession::hello(identity, &self.config.device, token, self.now);
        session.go_on(std::mem::take(&mut self.parts));
        self.session = Some(session);
    }

    pub(super) fn socket_closed(&mut self, reason: &str) {
        let act = self.link.lost(reason, self.now, &mut self.random);
        self.link_act(act);
    }

    pub(super) fn woken(&mut self) {
        let act = self.link.wake(self.now);
        self.link_act(act);
        self.retry_unstored();
        let names: Vec<_> = self.slots.keys().cloned().collect();
        names.iter().for_each(|name| self.refresh(name));
    }

    pub(super) fn socket_frame(&mut self, bytes: &[u8]) {
        let Some(session) = &mut self.session else { return };
        self.link.heard(self.now);
        match session.handle(bytes) {
            Ok((None, _)) => {}
            Ok((Some(event), cost)) => self.session_event(event, cost, bytes.len()),
            Err(error) => {
                let act = self.link.lost(&error.to_string(), self.now, &mut self.random);
                self.link_act(act);
            }
        }
    }

    fn session_event(&mut self, event: SessionEvent, cost: u64, tail: usize) {
        match event {
            SessionEvent::Welcomed(welcome) => self.welcomed(welcome),
            SessionEvent::Opened(name, opened) => self.log_opened(&name, opened),
            SessionEvent::Acked(name, ack) => {
                let now = self.now;
                if let Some(slot) = self.slots.get_mut(&name) {
                    slot.replica.ack(&ack, now);
                }
            }
            SessionEvent::Held(name, held) => self.log_held(&name, held),
            SessionEvent::Entries(name, entries) => self.entries(&name, entries, (cost, tail)),
            SessionEvent::Snapshot(name, cursor, bytes) => self.snapshot_arrived(&name, cursor, bytes, cost),
            SessionEvent::History(name, entries) => self.history_arrived(&name, entries, cost),
            SessionEvent::HistoryRefused(name, error) => self.history_refused(&name, &error),
            SessionEvent::LogRefused(name, error) => self.log_refused(&name, error),
            SessionEvent::Refused(error) if self.actor_refused(error.code, &error.reason) => {}
            SessionEvent::Refused(error) => {
                let act = self.link.refused(error.code, &error.reason, self.now, &mut self.random);
                self.link_act(act);
            }
            SessionEvent::Presence(name, presence) => self.presence_arrived(&name, presence),
            SessionEvent::Connection(state) => self.kept = Some(state),
            SessionEvent::SentAway(away) => {
                let bounds = (away.retry_ms_min, away.retry_ms_max);
                let act = self.link.sent_away(&away.code.to_string(), self.now, bounds, &mut self.random);
                self.link_act(act);
            }
        }
    }

    fn welcomed(&mut self, welcome: frame::Welcome) {
        if let Err(reason) = versions::follow(welcome.protocol) {
            let act = self.link.refused(Code::ProtocolVersion, &reason, self.now, &mut self.random);
            return self.link_act(act);
        }
        let known = self.identity.as_ref().and_then(|identity| identity.user.as_ref());
        if known.is_some_and(|user| *user != welcome.user) {
            let reason = format!("this device holds the work of {known:?}, and the token is of {}", welcome.user);
            let act = self.link.refused(Code::UserChanged, &reason, self.now, &mut self.random);
            return self.link_act(act);
        }
        self.link.welcomed(self.now);
        self.slots.touch_all();
        // Whoever was away hears of it right behind this.
        self.kept = Some(ConnectionState::Active { was: None });
        self.server_is_at(welcome.now);
        if let Some(fence) = self.fence {
            let greeted = Commit::Greeted { fence, user: welcome.user, nonce: welcome.nonce };
            self.commit(Request::Greeted, greeted);
        }
        for name in &self.names_by_priority() {
            if let Some(slot) = self.slots.get_mut(name) {
                slot.unreadable = false;
                if !slot.traps.ask_again() {
                    slot.replica.try_again();
                }
            }
            self.subscribe(name);
        }
    }

    /// Asks the server for a log, if there is a session and the log is loaded.
    pub(super) fn subscribe(&mut self, name: &LogName) {
        if self.fence.is_none() || self.link.state() != LinkState::Live {
            return;
        }
        let priority = self.priority(name).number();
        let (Some(session), Some(slot)) = (&mut self.session, self.slots.get_mut(name)) else { return };
        let stopped = slot.replica.status().is_stopped() && !slot.traps.asks();
        let waits = slot.catching_up || slot.parking || slot.rewinding.is_some();
        if slot.phase != Phase::Ready || waits || stopped {
            return;
        }
        let replica = &mut slot.replica;
        let position = (replica.met() && !slot.traps.wants_snapshot()).then(|| {
            let state = replica.state();
            let epoch = state.epochs().last().copied().unwrap_or_default();
            (state.log(), replica.arrivals().next(state.cursor()), epoch)
        });
        let held = replica.held();
        let read = !slot.unreadable && (!slot.traps.asks() || slot.traps.wants_snapshot());
        let with = |number| SubscribeLog { priority, ..subscription(number, name, position, held, read) };
        session.subscribe(name, with);
    }

    fn log_opened(&mut self, name: &LogName, opened: frame::Opened) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if opened.seq > slot.replica.outbox().highest() {
            // Another tab may have stored what the server knows and this tab does not: read first, then decide.
            slot.opened = Some(opened);
            return self.refresh(name);
        }
        self.log_met(name, opened);
    }

    /// The server's record of this log and this actor is compared with ours; then work goes on behind it.
    pub(super) fn log_met(&mut self, name: &LogName, opened: frame::Opened) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let replica = &mut slot.replica;
        let parts_at = replica.parts_at(&opened);
        slot.opened_last = Some((opened.clone(), parts_at));
        if replica.met() && replica.state().log() != opened.log_id {
            return self.parted(name, opened, parts_at);
        }
        if let Err(reason) = replica.meet(opened.log_id, opened.epochs.clone()) {
            replica.stop(LogStatus::Degraded, &reason);
            return self.give_up(name);
        }
        if !replica.agree(&opened, !slot.unreadable) {
            if opened.seq < replica.outbox().verdicts().through {
                return self.parted(name, opened, parts_at);
            }
            return self.fork(Heritage::Reissued, &copied(name));
        }
        slot.pruned.backed_up = Some(opened.backed_up);
        let push_after = replica.outbox().push_after(opened.seq);
        replica.follow(opened.end, !slot.unreadable, opened.append);
        if opened.append
            && let Some(session) = &mut self.session
        {
            session.start_pushing(name, push_after, opened.chain);
        }
        self.tell_settled(name);
        self.tell_status(name);
    }

    fn entries(&mut self, name: &LogName, entries: frame::Entries, (cost, tail): (u64, usize)) {
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.traps.asks() {
            return self.not_covered(name, cost);
        }
        let replica = &mut slot.replica;
        let arrived = replica.arrive(user.as_ref(), entries, (cost, tail));
        replica.settle_doubt(self.now);
        if arrived == Err(ArrivalError::Copied) {
            return self.fork(Heritage::Reissued, &copied(name));
        }
        if let Err(error) = arrived {
            // Nothing of it was used. The session begins again from the applied cursor.
            if let ArrivalError::UnknownKind(kind) = error {
                let reason = format!("the log holds ops of kind {kind}, which this version cannot read: update");
                replica.stop(LogStatus::UpdateNeeded, &reason);
                return self.give_up(name);
            }
            let act = self.link.lost(&format!("{name}: {error}"), self.now, &mut self.random);
            self.link_act(act);
        }
    }

    fn snapshot_arrived(&mut self, name: &LogName, cursor: crate::chain::Cursor, bytes: Vec<u8>, cost: u64) {
        let Some(fence) = self.fence else { return };
        // The parts before the last were worked off when they came.
        if let Some(session) = &mut self.session {
            session.worked_off(name, cost);
        }
        let Some(slot) = self.slots.get_mut(name) else { return };
        if !slot.traps.is_covered_by(cursor.next) {
            return self.not_covered(name, 0);
        }
        slot.replica.marker().confirmed(cursor.next);
        let decoded = snapshot::decode(&bytes);
        slot.replica.marker().done();
        match decoded {
            Ok(mut state)
                if state.cursor() == cursor && (!slot.replica.met() || state.log() == slot.replica.state().log()) =>
            {
                let behind = Received::behind(&state);
                let bytes = if slot.replica.carry_old_roots(&mut state) { snapshot::encode(&mut state) } else { bytes };
                slot.replica.restart(state, bytes.len());
                slot.replica.arrivals_mut().restart();
                slot.replica.settle_doubt(self.now);
                if slot.pass_trap() {
                    slot.rows_left = true;
                    slot.replica.go_on();
                }
                slot.replica.catch_up();
                let keep = slot.folds_keep(behind.from);
                let covered = slot.replica.covered();
                let (log, bytes, purged) = (name.clone(), bytes.into(), slot.purged_row());
                let commit = Commit::Snapshot { fence, log, bytes, behind, keep, purged };
                slot.snapshotting = true;
                self.commit(Request::Snapshot(name.clone(), covered), commit);
                self.tell_status(name);
            }
            Ok(_) => {
                let act = self.link.lost("a snapshot of another log or place", self.now, &mut self.random);
                self.link_act(act);
            }
            Err(error) => {
                let act = self.link.lost(&error.to_string(), self.now, &mut self.random);
                self.link_act(act);
            }
        }
    }

    fn log_refused(&mut self, name: &LogName, error: frame::Error) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let reason = format!("{}: {}", error.code, error.reason);
        match error.code {
            Code::Forbidden => return self.log_forbidden(name, &reason),
            // Pushed behind a held entry; it is pushed again after that one.
            Code::ExpectedSeq if slot.replica.hold().is_some() => return,
            Code::ExpectedSeq => {
                // The server is behind what was sent: a lost frame, or a restart. Ask anew where it stands.
                if let Some(session) = &mut self.session {
                    session.unsubscribe(name);
                }
                return self.subscribe(name);
            }
            Code::LogForked => {
                let opened = slot.opened_last.take().filter(|_| slot.rewinding.is_none());
                let Some((opened, parts_at)) = opened else { return };
                // Where the epochs do not tell it, nothing of what is confirmed here is taken for common.
                return self.parted(name, opened, parts_at.or(Some(Offset(0))));
            }
            Code::BytesDiffer | Code::ChainMismatch => return self.fork(Heritage::Reissued, &reason),
            _ => slot.replica.stop(LogStatus::Degraded, &reason),
        }
        self.give_up(name);
    }

    /// The server would see own entries later: none is pushed to this log until then.
    fn log_held(&mut self, name: &LogName, held: frame::Held) {
        let (Some(session), Some(slot)) = (&mut self.session, self.slots.get_mut(name)) else { return };
        session.stop_pushing(name);
        let retry_at = Some(self.now.saturating_add(held.retry_ms));
        slot.replica.set_hold(Some(Hold { seq: held.seq, reason: held.reason, retry_at }));
        self.tell_status(name);
    }

    /// When a held log is to be pushed again.
    pub(super) fn held_until(&self, slot: &Slot) -> Option<WallMs> {
        slot.replica.hold()?.retry_at.filter(|_| self.fence.is_some())
    }

    /// Pushes again what is held and due. It stays held in view until its verdict comes.
    pub(super) fn push_held(&mut self) {
        let due = |hold: &Hold| hold.retry_at.is_some_and(|at| at <= self.now);
        let held = self.slots.iter().filter_map(|(name, slot)| Some((name.clone(), slot.replica.hold()?.clone())));
        let held: Vec<_> = held.filter(|(_, hold)| due(hold)).collect();
        for (name, hold) in held {
            let (Some(session), Some(slot)) = (&mut self.session, self.slots.get_mut(&name)) else { continue };
            let through = Seq(hold.seq.0.saturating_sub(1));
            match slot.replica.outbox().chain_at(through) {
                Some(chain) => session.start_pushing(&name, through, chain),
                // Another tab recorded verdicts that are not read here yet: ask where the server stands.
                None => session.unsubscribe(&name),
            }
            slot.replica.set_hold(Some(Hold { retry_at: None, ..hold }));
            self.subscribe(&name);
            self.tell_status(&name);
        }
    }

    pub(super) fn give_up(&mut self, name: &LogName) {
        if let Some(session) = &mut self.session {
            session.unsubscribe(name);
        }
        self.tell_status(name);
    }

    /// Stores what arrived, one commit at a time for each log; what comes meanwhile is the next one.
    pub(super) fn store_arrivals(&mut self) {
        let Some(fence) = self.fence else { return };
        let mut commits = Vec::new();
        let now = self.now;
        self.slots.turn_mut(|name, slot| {
            let left = slot.rows_left;
            let Some(storable) = Unstored::storable(slot.unstored.as_ref(), now) else { return };
            if let Some(batch) = slot.replica.arrivals_mut().next_batch(storable) {
                let clear = left && !batch.rows.is_empty();
                let (rows, verdicts) = (batch.rows.clone(), batch.verdicts.clone());
                let (dead_letters, revived) = (batch.letters.clone(), batch.revived.clone());
                (slot.rows_left, slot.clearing) = (left && !clear, clear);
                let (log, redeemed) = (name.clone(), slot.replica.redeemed());
                let receive = Receive { fence, log, clear, rows, verdicts, dead_letters, redeemed, revived };
                commits.push((name.clone(), receive));
            }
        });
        for (name, receive) in commits {
            self.commit(Request::Receive(name), Commit::Receive(receive));
        }
    }

    pub(super) fn received(&mut self, name: &LogName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let status_before = slot.replica.status();
        let redeemed = slot.replica.redeemed();
        let Some(batch) = slot.replica.arrivals_mut().stored() else { return };
        slot.clearing = false;
        if !batch.rows.is_empty() || slot.replica.arrivals().is_idle() {
            slot.unstored = None;
        }
        slot.replica.count_tail(batch.tail);
        let accepted = slot.replica.state().accepted_last().ms();
        slot.replica.apply(batch.items);
        let later = Some(slot.replica.state().accepted_last().ms()).filter(|last| *last > accepted);
        let live = status_before == LogStatus::Synced;
        if let Some(verdicts) = batch.verdicts {
            let actor = slot.replica.actor();
            let revived: Vec<_> = batch.revived.iter().map(|seq| EntryId { actor, seq: *seq }).collect();
            slot.replica.redeem_letters(&revived);
            slot.replica.decide(verdicts, &batch.places, batch.letters);
        }
        slot.replica.redeem_letters(&redeemed);
        if slot.unstored.is_none() {
            slot.replica.catch_up();
        }
        let status_changed = slot.replica.status() != status_before;
        if let Some(at) = later.filter(|_| live) {
            self.server_was_at(at);
        }
        if let Some(session) = &mut self.session {
            session.worked_off(name, batch.cost);
        }
        if status_changed {
            self.tell_status(name);
        }
        self.remake_moved(name);
        self.hint(&Hint::Grew(name.clone()));
        self.make_snapshot(name);
    }

    /// Pushes stored entries while the server gives credit and the socket is not full.
    pub(super) fn push_outboxes(&mut self) {
        if self.link.state() != LinkState::Live || !self.socket_open || self.fence.is_none() {
            return;
        }
        let Some(session) = &mut self.session else { return };
        let mut waiting = true;
        while waiting && session.may_push() {
            waiting = false;
            let (last, mut sent, mut pushing) = (session.pushed_last(), Vec::new(), Vec::new());
            for (name, slot) in self.slots.unsent(last.as_ref()) {
                if self.socket_buffered >= limits::SOCKET_BUFFERED_BYTES_MAX || !session.may_push() {
                    break;
                }
                let from = session.push_from(name).filter(|from| slot.replica.outbox().has_to_push(*from));
                let Some(from) = from else {
                    sent.push(name.clone());
                    continue;
                };
                if !session.may_push_to(name) {
                    continue;
                }
                let marker = slot.replica.marker();
                let items = slot.replica.outbox().to_push(from).inspect(|item| {
                    if let Pushed::Entry(entry) = item {
                        marker.own(WriteId { run: entry.header.run, n: entry.header.n });
                    }
                });
                let pushed = session.push(name, items);
                marker.done();
                if let Some((bytes, _)) = pushed {
                    self.socket_buffered += bytes.len();
                    self.outputs.push_back(Output::SocketSend(bytes));
                    pushing.push(name.clone());
                    waiting = true;
                }
            }
            self.slots.sent(&sent);
            self.slots.pushed(pushing);
            if self.socket_buffered >= limits::SOCKET_BUFFERED_BYTES_MAX {
                if !std::mem::replace(&mut self.socket_watched, true) {
                    self.outputs.push_back(Output::SocketWatch);
                }
                return;
            }
        }
    }

    /// Control frames go before bulk; they are few and small.
    pub(super) fn flush_control(&mut self) {
        let Some(session) = &mut self.session else { return };
        let mut control = Vec::new();
        while let Some(bytes) = session.poll() {
            control.push(Output::SocketSend(bytes));
        }
        self.outputs.extend(control);
    }

    /// Whether this tab holds the client's connection, or would like to.
    pub fn wants_connection(&self) -> bool {
        self.wish == OnlineWish::Connected && self.fence.is_some()
    }
}

/// Why this database goes on under a fresh actor.
fn copied(name: &LogName) -> String {
    format!("{name}: another copy of this database has written under its actor")
}
