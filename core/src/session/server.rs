//! The server's end of a session.
//!
//! Commands and events go in by `handle_*`; requests to the shell come out of [`ServerSession::poll_output`], frames
//! for the socket out of [`ServerSession::poll_frame`], the next deadline out of [`ServerSession::timeout`]. After
//! every `handle_*` drain the outputs; ask for a frame whenever the socket takes one. A request carries a number, and
//! its answer carries it back; answers to requests of a log that was given up meanwhile are ignored.
//!
//! ```text
//!  awaiting hello ── hello ──► authenticating ── admitted ──► live ── error, go-away, deadline ──► closed
//! ```
//!
//! Where each reader stands is told to whoever keeps connections ([`ServerSession::take_moved`]).
//!
//! **Invariant:** what waits here is bounded. Pushes are bounded by the credit given; at most one read is under way,
//! and only while less than one frame's worth of entries waits for the socket; a peer that does not read the answers
//! it asks for is asked no more ([`ServerSession::is_congested`]), and closed in the end.

mod connection;
mod credit;
mod entries;
mod grants;
mod presence;
mod request;
mod subscription;
mod subscriptions;
mod waiting;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::codec::DecodeError;
use crate::connection::ConnectionState;
use crate::id::{ActorId, Offset, Seq};
use crate::limits;
use crate::protocol::frame::{self, Credit, Frame, GoAway, Hello, LogNumber, Ping, Push, SubscribeLog, Welcome};
use crate::protocol::{Code, VERSION, versions};
use crate::sequencer::{Held, PushError, PushItems, Verdicts};
use crate::time::WallMs;

pub use entries::{EntriesFrame, entries_frame};
pub use grants::{Grant, Grants};
pub use request::{
    Admission, Append, EntriesRead, LogFacts, Open, Output, PushOutcome, Read, ReadFrom, Refusal, RequestId,
    SnapshotRead,
};

use credit::PushCredit;
use subscription::Subscription;
use subscriptions::Subscriptions;
use waiting::{Queue, Requests};

/// Bytes of answers that may wait for a peer that does not read, and that no more should be asked for.
const URGENT_BYTES_MAX: usize = 4 * 1024 * 1024;
const URGENT_BYTES_CONGESTED: usize = URGENT_BYTES_MAX / 4;

/// How long a peer may take to say hello, in milliseconds: until then nobody knows who takes the place.
const GREETING_MS_MAX: u64 = 30_000;

/// The server's end of one session.
pub struct ServerSession {
    idle_ms: u64,
    phase: Phase,
    subscriptions: Subscriptions,
    outputs: VecDeque<Output>,
    urgent: Queue,
    bulk: Queue,
    requests: Requests,
    pongs: VecDeque<(Ping, RequestId)>,
    push: PushCredit,
    /// Logs whose reader stands elsewhere than was told.
    moved: BTreeSet<LogNumber>,
    /// Bytes of entries and snapshot frames sent, and what the client takes in total.
    sent: u64,
    credit: u64,
    heard: WallMs,
    pinged: bool,
}

enum Phase {
    AwaitingHello,
    Authenticating { actor: ActorId },
    Live { actor: ActorId, admission: Admission },
    Closed,
}

impl ServerSession {
    /// A session on a socket that has just opened. `idle_ms` is the silence after which it is given up.
    pub fn new(now: WallMs, idle_ms: u64) -> Self {
        Self {
            idle_ms,
            phase: Phase::AwaitingHello,
            subscriptions: Subscriptions::default(),
            outputs: VecDeque::new(),
            urgent: Queue::default(),
            bulk: Queue::default(),
            requests: Requests::default(),
            pongs: VecDeque::new(),
            push: PushCredit::new(),
            moved: BTreeSet::new(),
            sent: 0,
            credit: limits::CREDIT_BYTES,
            heard: now,
            pinged: false,
        }
    }

    /// One binary message arrived.
    pub fn handle_bytes(&mut self, now: WallMs, bytes: &[u8]) {
        if self.is_closed() {
            return;
        }
        (self.heard, self.pinged) = (now, false);
        match Frame::decode(bytes) {
            Ok(frame) => self.handle_frame(frame, bytes),
            Err(error) => self.reject_bytes(bytes, &error),
        }
    }

    /// The socket broke the rules below frames, such as a message beyond the cap.
    pub fn handle_violation(&mut self, code: Code, reason: &str) {
        self.fail(code, reason);
    }

    /// The answer to [`Output::Authenticate`].
    pub fn handle_admitted(&mut self, now: WallMs, answer: Result<Admission, Refusal>) {
        let Phase::Authenticating { actor } = self.phase else { return };
        match answer {
            Ok(admission) => {
                let credit = self.push.begin();
                self.send(&Frame::Welcome(Welcome {
                    protocol: VERSION,
                    user: admission.user.clone(),
                    nonce: admission.nonce,
                    now,
                    idle_ms: self.idle_ms,
                    credit,
                }));
                if admission.was.is_some() {
                    self.send(&Frame::Connection(ConnectionState::Active { was: admission.was }.into()));
                }
                self.phase = Phase::Live { actor, admission };
            }
            Err(refusal) => self.fail(refusal.code, &refusal.reason),
        }
    }

    /// The answer to [`Output::Refresh`].
    pub fn handle_refreshed(&mut self, answer: Result<(Grants, Option<WallMs>), Refusal>) {
        let Phase::Live { admission, .. } = &mut self.phase else { return };
        match answer {
            Ok((grants, expires)) => (admission.grants, admission.expires) = (grants, expires),
            Err(refusal) => self.fail(refusal.code, &refusal.reason),
        }
    }

    /// The answer to [`Output::Open`].
    pub fn handle_opened(&mut self, request: RequestId, answer: Result<LogFacts, Refusal>) {
        let asked = self.requests.open.remove(&request);
        let stands = |number: &LogNumber| self.subscriptions.get(*number).is_some_and(|found| found.request == request);
        let Some(number) = asked.filter(stands) else { return self.release_pongs() };
        match answer {
            Ok(facts) => {
                let opened = self.subscriptions.change(number, |subscription| {
                    let fork = subscription.open(&facts);
                    (subscription.opened(number, &facts), fork, subscription.is_gone(&facts))
                });
                let Some((opened, fork, gone)) = opened else { return };
                self.moved.insert(number);
                self.send(&Frame::Opened(opened));
                if let Some(reason) = fork {
                    self.complain(number, Code::LogForked, &reason, None);
                } else if gone {
                    self.complain(number, Code::HistoryGone, "the entries asked for are not kept any more", None);
                }
                for verdicts in facts.verdicts.into_iter().flat_map(Verdicts::split) {
                    self.send(&ack(number, verdicts));
                }
            }
            Err(refusal) => {
                self.subscriptions.remove(number);
                self.complain(number, refusal.code, &refusal.reason, None);
            }
        }
        self.release_pongs();
        self.pump();
    }

    /// The answer to [`Output::Append`]: the verdicts are durable, or the push as a whole was not taken.
    ///
    /// The credit of a push comes back whatever became of it, so that a held log never starves the others.
    pub fn handle_committed(&mut self, request: RequestId, answer: Result<PushOutcome, PushError>) {
        self.requests.open.remove(&request);
        let Some(number) = self.push.answer(request) else { return };
        match answer {
            Ok(PushOutcome { verdicts, held }) => {
                verdicts.split().into_iter().for_each(|part| self.send(&ack(number, part)));
                self.hold(number, held);
            }
            // It was under way behind a held entry: the client pushes it again after that one.
            Err(PushError::ExpectedSeq { expected, .. }) if self.is_held_at(number, expected) => {}
            Err(error) => self.complain(number, error.code(), &error.to_string(), error.expected()),
        }
        self.grant();
        self.release_pongs();
    }

    /// How many bytes of this session's pushes may be under way at once from now on, by what waits in the whole server.
    /// Say it before `handle_admitted` and `handle_committed`, and while [`ServerSession::wants_credit`].
    pub fn handle_room(&mut self, bytes: u64) {
        self.push.set_window(bytes);
        if matches!(self.phase, Phase::Live { .. }) {
            self.grant();
        }
    }

    /// Whether the client can push nothing until [`ServerSession::handle_room`] has said that there is room.
    pub fn wants_credit(&self) -> bool {
        matches!(self.phase, Phase::Live { .. }) && self.push.is_used_up()
    }

    /// Whether so many answers wait for the peer that nothing more should be taken from its socket.
    pub fn is_congested(&self) -> bool {
        self.urgent.bytes > URGENT_BYTES_CONGESTED
    }

    /// The shell did not take what the socket has, for its own reasons: nobody knows how long the peer is silent.
    pub fn handle_unheard(&mut self, now: WallMs) {
        self.heard = self.heard.max(now);
    }

    /// The log reaches at least to `end`.
    pub fn handle_grew(&mut self, number: LogNumber, end: Offset) {
        self.subscriptions.change(number, |subscription| subscription.end = subscription.end.max(end));
        self.pump();
    }

    /// The answer to [`Output::Read`] of entries.
    pub fn handle_entries(&mut self, request: RequestId, read: EntriesRead) {
        let Some(number) = self.answered(request) else { return self.pump() };
        let mut gone = false;
        self.subscriptions.change(number, |subscription| match read {
            EntriesRead::Frame(frame) => {
                subscription.advance(frame.after, frame.bytes.len());
                self.moved.insert(number);
                self.bulk.push(frame.bytes);
            }
            EntriesRead::End(end) => subscription.end = end,
            EntriesRead::SnapshotNeeded if subscription.read_until().is_some() => {
                subscription.stop();
                gone = true;
            }
            EntriesRead::SnapshotNeeded => subscription.restart(),
        });
        if gone {
            self.complain(number, Code::HistoryGone, "the entries asked for are not kept any more", None);
        }
        self.pump();
    }

    /// The answer to [`Output::Read`] that could not be read: that log stops, the session goes on.
    pub fn handle_read_failed(&mut self, request: RequestId, reason: &str) {
        if let Some(number) = self.answered(request) {
            self.subscriptions.change(number, Subscription::stop);
            self.complain(number, Code::StorageFailed, reason, None);
        }
        self.pump();
    }

    /// The answer to [`Output::Read`] of a snapshot; none: there is none, the log is read from its beginning.
    pub fn handle_snapshot(&mut self, request: RequestId, read: Option<SnapshotRead>) {
        if let Some(number) = self.answered(request) {
            self.subscriptions.change(number, |subscription| subscription.begin_snapshot(read));
        }
        self.pump();
    }

    /// A newer socket of the same actor took over, or the server goes down: say so and end.
    pub fn handle_ending(&mut self, code: Code, retry_ms_min: u64, retry_ms_max: u64) {
        if !self.is_closed() {
            self.send(&Frame::GoAway(GoAway { code, retry_ms_min, retry_ms_max }));
            self.close();
        }
    }

    /// A deadline that [`ServerSession::timeout`] gave has come.
    pub fn handle_timeout(&mut self, now: WallMs) {
        if self.is_closed() {
            return;
        }
        if let Phase::Live { admission, .. } = &self.phase
            && admission.expires.is_some_and(|expires| expires <= now)
        {
            return self.fail(Code::TokenExpired, "the token's time is over");
        }
        let silence = now.saturating_sub(self.heard);
        if silence >= self.patience_ms() {
            self.fail(Code::IdleTimeout, "nothing was heard for too long");
        } else if silence >= self.idle_ms / 2 && !self.pinged && matches!(self.phase, Phase::Live { .. }) {
            self.pinged = true;
            self.send(&Frame::Ping(Ping { nonce: now }));
        }
    }

    /// The next request to the shell.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next frame for the socket: answers first, entries as far as the client's credit goes.
    pub fn poll_frame(&mut self) -> Option<Arc<[u8]>> {
        if let Some(frame) = self.urgent.pop() {
            return Some(frame);
        }
        let bytes = self.bulk.frames.front()?.len() as u64;
        if self.is_closed() || self.sent + bytes > self.credit {
            return None;
        }
        self.sent += bytes;
        let frame = self.bulk.pop();
        self.pump();
        frame
    }

    /// When [`ServerSession::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> WallMs {
        match &self.phase {
            Phase::Live { admission, .. } => {
                let idle = self.heard + if self.pinged { self.idle_ms } else { self.idle_ms / 2 };
                admission.expires.map_or(idle, |expires| expires.min(idle))
            }
            _ => self.heard + self.patience_ms(),
        }
    }

    /// Whether the session has ended: send what [`ServerSession::poll_frame`] still gives and close the socket.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether answers to the peer are still under way.
    pub fn is_settled(&self) -> bool {
        self.requests.open.is_empty()
    }

    fn handle_frame(&mut self, frame: Frame, bytes: &[u8]) {
        match (&self.phase, frame) {
            (Phase::AwaitingHello, Frame::Hello(hello)) => self.handle_hello(hello),
            (_, Frame::Ping(ping)) => self.handle_ping(ping),
            (_, Frame::Pong(_)) => {}
            (Phase::Live { .. }, Frame::Token(frame::Token { token })) => {
                self.outputs.push_back(Output::Refresh(token))
            }
            (Phase::Live { .. }, Frame::Subscribe(subscribe)) if subscribe.logs.len() > limits::SUBSCRIBE_LOGS_MAX => {
                self.fail(Code::UnexpectedFrame, "a subscribe names more logs than it may")
            }
            (Phase::Live { .. }, Frame::Subscribe(subscribe)) => {
                subscribe.logs.into_iter().for_each(|log| self.handle_subscribe(log))
            }
            (Phase::Live { .. }, Frame::Unsubscribe(frame::Unsubscribe { log })) => self.forget(log),
            (Phase::Live { .. }, Frame::Push(push)) => self.handle_push(push, bytes),
            (Phase::Live { .. }, Frame::Present(present)) => self.handle_present(present),
            (Phase::Live { .. }, Frame::Priority(frame::Priority { log, priority })) => {
                self.subscriptions.prioritize(log, priority)
            }
            (Phase::Live { .. }, Frame::Settled(settled)) => {
                if let Some(subscription) = self.subscriptions.get(settled.log) {
                    let name = subscription.name.clone();
                    self.outputs.push_back(Output::Settle { name, through: settled.through });
                }
            }
            (_, Frame::Credit(credit)) => {
                self.credit = self.credit.max(credit.bytes);
                if let Some((log, bytes)) = credit.of_log {
                    self.subscriptions.change(log, |subscription| subscription.grant(bytes));
                }
                self.pump();
            }
            // The peer says what it found wrong and closes by itself.
            (_, Frame::Error(_)) => {}
            _ => self.fail(Code::UnexpectedFrame, "this frame has no place here"),
        }
    }

    fn handle_hello(&mut self, hello: Hello) {
        if let Err(reason) = versions::agree(hello.protocol_min, hello.protocol_max) {
            return self.fail(Code::ProtocolVersion, &reason);
        }
        self.phase = Phase::Authenticating { actor: hello.actor };
        self.outputs.push_back(Output::Authenticate(Box::new(hello)));
    }

    fn handle_ping(&mut self, ping: Ping) {
        self.pongs.push_back((ping, self.requests.last));
        self.release_pongs();
        if self.pongs.len() > limits::FRAME_ENTRIES_MAX {
            self.fail(Code::Overloaded, "too many pings wait for an answer");
        }
    }

    fn handle_subscribe(&mut self, subscribe: SubscribeLog) {
        let Phase::Live { actor, admission } = &self.phase else { return };
        let (actor, number) = (*actor, subscribe.log);
        let (read, append) = admission.grants.rights(&subscribe.name);
        // Nothing is pushed under the number of a stretch of history.
        let append = append && subscribe.end.is_none();
        if !read && (subscribe.read || !append) {
            let reason = format!("the token gives no right to {}", subscribe.name);
            return self.complain(number, Code::Forbidden, &reason, None);
        }
        self.forget(number);
        if self.subscriptions.len() >= limits::SESSION_LOGS_MAX {
            return self.complain(number, Code::TooManyLogs, "too many logs in one session", None);
        }
        let request = self.requests.next();
        self.requests.open.insert(request, number);
        let open = Open {
            request,
            log: number,
            name: subscribe.name.clone(),
            actor,
            append,
            read: subscribe.read,
            decided: subscribe.decided,
            cursor: subscribe.cursor,
        };
        self.subscriptions.begin(number, Subscription::new(request, subscribe, append));
        self.outputs.push_back(Output::Open(open));
    }

    fn forget(&mut self, number: LogNumber) {
        if let Some(subscription) = self.subscriptions.remove(number) {
            self.moved.insert(number);
            self.outputs.push_back(Output::Forget { log: number, name: subscription.name });
        }
    }

    fn handle_push(&mut self, push: Push, bytes: &[u8]) {
        let Phase::Live { actor, .. } = &self.phase else { return };
        let cost = bytes.len() as u64;
        if !self.push.receive(cost) {
            return self.fail(Code::CreditExceeded, "more bytes were pushed than credit was given");
        }
        let Some(subscription) = self.subscriptions.get(push.log) else {
            return self.fail(Code::UnexpectedFrame, "a push to a log that is not open");
        };
        if !subscription.append {
            self.push.answer_at_once(cost);
            self.grant();
            return self.complain(push.log, Code::Forbidden, "the token gives no right to append", None);
        }
        let items = match push.entries.unpack_pushed(*actor) {
            Ok(items) => items,
            Err(error) => {
                let reason = error.to_string();
                return self.reject(bytes, Code::MalformedEntry, reason);
            }
        };
        let name = subscription.name.clone();
        let request = self.requests.next();
        self.requests.open.insert(request, push.log);
        self.push.hand_on(request, push.log, cost);
        let push = PushItems { first: push.first, chain: push.chain, items };
        self.outputs.push_back(Output::Append(Append { request, name, actor: *actor, push, bytes: cost }));
    }

    fn grant(&mut self) {
        if let Some(bytes) = self.push.grant() {
            self.send(&Frame::Credit(Credit { bytes, of_log: None }));
        }
    }

    /// Notes where a log is held, or that it no longer is, and says so.
    fn hold(&mut self, number: LogNumber, held: Option<Held>) {
        let seq = held.as_ref().map(|held| held.seq);
        let stands = self.subscriptions.change(number, |subscription| subscription.held_at = seq).is_some();
        if stands && let Some(Held { seq, reason, delay }) = held {
            let retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            self.send(&Frame::Held(frame::Held { log: number, seq, reason, retry_ms }));
        }
    }

    fn is_held_at(&self, number: LogNumber, seq: Seq) -> bool {
        self.subscriptions.get(number).is_some_and(|subscription| subscription.held_at == Some(seq))
    }

    fn patience_ms(&self) -> u64 {
        match self.phase {
            Phase::Live { .. } => self.idle_ms,
            _ => self.idle_ms.min(GREETING_MS_MAX),
        }
    }

    /// Asks for the next read if there is room for its answer.
    fn pump(&mut self) {
        let Phase::Live { actor, .. } = &self.phase else { return };
        while self.requests.reading.is_none() && self.bulk.bytes < limits::FRAME_BYTES_TARGET {
            let Some(number) = self.subscriptions.next() else { return };
            if let Some(part) =
                self.subscriptions.change(number, |subscription| subscription.next_part(number)).flatten()
            {
                self.moved.insert(number);
                self.bulk.push(part);
                continue;
            }
            let Some(subscription) = self.subscriptions.get(number) else { return };
            let request = self.requests.next();
            self.requests.reading = Some((request, number));
            self.outputs.push_back(Output::Read(Read {
                request,
                log: number,
                name: subscription.name.clone(),
                actor: *actor,
                held: subscription.held,
                from: subscription.read_from(),
                until: subscription.read_until(),
            }));
        }
    }

    /// The log that a read's answer is for, if it is still the same subscription.
    fn answered(&mut self, request: RequestId) -> Option<LogNumber> {
        let (_, number) = self.requests.reading.take_if(|(reading, _)| *reading == request)?;
        self.subscriptions.get(number).filter(|subscription| subscription.request < request).map(|_| number)
    }

    fn release_pongs(&mut self) {
        let oldest = self.requests.open.first_key_value().map_or(RequestId::MAX, |(oldest, _)| *oldest);
        while let Some((ping, after)) = self.pongs.front().cloned()
            && after < oldest
        {
            self.pongs.pop_front();
            self.send(&Frame::Pong(ping));
        }
    }

    fn send(&mut self, frame: &Frame) {
        self.urgent.push(frame.encode().into());
        if self.urgent.bytes > URGENT_BYTES_MAX {
            // All of it is told again in the next session.
            self.urgent = Queue::default();
            self.fail(Code::Overloaded, "more answers wait than may, and they are not read");
        }
    }

    /// An error of one log; the session goes on.
    fn complain(&mut self, log: LogNumber, code: Code, reason: &str, expected: Option<Seq>) {
        self.send(&Frame::Error(frame::Error { code, reason: reason.to_owned(), log: Some(log), expected }));
    }

    /// An error of the session, which ends.
    fn fail(&mut self, code: Code, reason: &str) {
        if !self.is_closed() {
            let reason = reason.to_owned();
            self.send(&Frame::Error(frame::Error { code, reason, log: None, expected: None }));
            self.close();
        }
    }

    fn reject_bytes(&mut self, bytes: &[u8], error: &DecodeError) {
        // A client of another version may say hello in a form that only that version reads.
        let hello = versions::of_hello(bytes).filter(|_| matches!(self.phase, Phase::AwaitingHello));
        match hello.map(|(min, max)| versions::agree(min, max)) {
            Some(Err(reason)) => self.fail(Code::ProtocolVersion, &reason),
            _ => self.reject(bytes, error.code(), error.to_string()),
        }
    }

    /// Bytes that should have been a frame: kept if they come again, and the session ends.
    fn reject(&mut self, bytes: &[u8], code: Code, reason: String) {
        self.fail(code, &reason);
        self.outputs.push_back(Output::Keep { bytes: bytes.to_vec(), code, reason });
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.outputs.push_back(Output::Close);
    }
}

fn ack(log: LogNumber, verdicts: Verdicts) -> Frame {
    let Verdicts { through, accepted, marked } = verdicts;
    Frame::Ack(frame::Ack { log, through, accepted, marked })
}

#[cfg(test)]
mod tests;
