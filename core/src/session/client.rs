//! The client's end of one session: frames in and out, log numbers, and credit.
//!
//! It lives as long as one socket. What the frames mean for a log is the replica's to decide; when to connect is the
//! [`super::link`]'s. One log may hold only a share of the push credit, so that one whose pushes wait for their answers
//! stops no other. Commands are `hello`, `subscribe`, `push` …, each of which queues frames; `poll` hands out the
//! bytes to send, control frames first. Of what the server sends, one log may hold only a share likewise.

mod asked;
mod credit;
mod parts;
mod priority;

use std::collections::{BTreeMap, VecDeque};

use serde_bytes::ByteBuf;

use crate::chain::{Chain, Cursor};
use crate::codec::DecodeError;
use crate::connection::ConnectionState;
use crate::id::{ActorId, LogId, LogName, Offset, Seq};
use crate::limits;
use crate::packed::{Packer, Pushed};
use crate::protocol::frame::{self, Frame, Hello, LogNumber, Push, SubscribeLog};
use crate::storage::row::Identity;
use crate::time::WallMs;

use asked::Asked;
use credit::Credit;

pub use asked::subscription;
pub use parts::Parts;
pub use priority::Priority;

/// What the peer said, with the log's name instead of its number.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// The session stands; subscribe now.
    Welcomed(frame::Welcome),
    /// A log is open.
    Opened(LogName, frame::Opened),
    /// Durable verdicts.
    Acked(LogName, frame::Ack),
    /// Own entries from one on stay undecided for now; push them again later.
    Held(LogName, frame::Held),
    /// Entries to check, store and apply.
    Entries(LogName, frame::Entries),
    /// A whole snapshot.
    Snapshot(LogName, Cursor, Vec<u8>),
    /// Entries that were fetched, to be stored.
    History(LogName, frame::Entries),
    /// What was asked for cannot be fetched.
    HistoryRefused(LogName, frame::Error),
    /// One log has trouble; the session goes on.
    LogRefused(LogName, frame::Error),
    /// The session is over.
    Refused(frame::Error),
    /// Somebody else says something of itself in a log.
    Presence(LogName, frame::Presence),
    /// How the server keeps this client's connection.
    Connection(ConnectionState),
    /// The session is over for a while.
    SentAway(frame::GoAway),
}

/// The peer broke the protocol; close the socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The bytes are no frame.
    #[error("the server sent bytes that are no frame: {0}")]
    Decode(#[from] DecodeError),
    /// A frame that a server never sends, or not in this state.
    #[error("the server sent a frame that has no place here")]
    Unexpected,
}

/// How far a log's own entries were sent in this session.
#[derive(Clone, Copy, Debug)]
struct Sent {
    through: Seq,
    chain: Chain,
}

#[derive(Debug)]
struct SessionLog {
    name: LogName,
    sent: Option<Sent>,
    /// Pushes without an answer: the last seq of each, and its bytes.
    unanswered: VecDeque<(Seq, u64)>,
    credit: Credit,
}

/// A stretch of a log that is being fetched.
#[derive(Debug)]
struct History {
    name: LogName,
    credit: Credit,
}

impl SessionLog {
    /// The server has answered every push through a seq.
    fn answered(&mut self, through: Seq) {
        while self.unanswered.front().is_some_and(|(last, _)| *last <= through) {
            self.unanswered.pop_front();
        }
    }

    fn unanswered_bytes(&self) -> u64 {
        self.unanswered.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The client's end of a session.
#[derive(Debug)]
pub struct ClientSession {
    actor: ActorId,
    welcomed: bool,
    next_number: LogNumber,
    logs: BTreeMap<LogNumber, SessionLog>,
    numbers: BTreeMap<LogName, LogNumber>,
    /// Logs whose history is being fetched, under a number of its own.
    histories: BTreeMap<LogNumber, History>,
    /// What has arrived of snapshots.
    parts: BTreeMap<LogName, Parts>,
    /// The log that pushed last: the others go before it.
    pushed_last: Option<LogName>,
    control: VecDeque<Vec<u8>>,
    asked: Asked,
    push_credit: u64,
    pushed: u64,
    credit: Credit,
    pings: u64,
}

impl ClientSession {
    /// Begins a session on an open socket by saying hello.
    pub fn hello(identity: &Identity, device: &str, token: Option<String>, now: WallMs) -> Self {
        let hello = Hello {
            protocol_min: crate::protocol::VERSION_FLOOR,
            protocol_max: crate::protocol::VERSION,
            client: identity.client,
            actor: identity.actor,
            predecessor: identity.predecessor,
            user: identity.user.clone(),
            nonces: identity.nonces.clone(),
            device: device.to_owned(),
            token,
            now,
        };
        let mut session = Self {
            actor: identity.actor,
            welcomed: false,
            next_number: 0,
            logs: BTreeMap::new(),
            numbers: BTreeMap::new(),
            histories: BTreeMap::new(),
            parts: BTreeMap::new(),
            pushed_last: None,
            control: VecDeque::new(),
            asked: Asked::default(),
            push_credit: 0,
            pushed: 0,
            credit: Credit::new(limits::CREDIT_BYTES),
            pings: 0,
        };
        session.send(&Frame::Hello(hello));
        session
    }

    /// Goes on with snapshots that the session before was being sent. Say it before any log is subscribed.
    pub fn go_on(&mut self, parts: BTreeMap<LogName, Parts>) {
        self.parts = parts;
    }

    /// The session is over: what it leaves of snapshots, for [`ClientSession::go_on`] of the next.
    pub fn end(self) -> BTreeMap<LogName, Parts> {
        self.parts
    }

    /// Asks for a log. A log that is subscribed already is left as it is.
    pub fn subscribe(&mut self, name: &LogName, with: impl FnOnce(LogNumber) -> SubscribeLog) {
        if self.numbers.contains_key(name) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.numbers.insert(name.clone(), number);
        self.logs.insert(
            number,
            SessionLog {
                name: name.clone(),
                sent: None,
                unanswered: VecDeque::new(),
                credit: Credit::new(limits::CREDIT_BYTES_OF_LOG),
            },
        );
        let asked = with(number);
        let begun = self.parts.get(name).map(Parts::begun);
        let begun = begun.filter(|begun| asked.cursor.is_none_or(|cursor| cursor.next < begun.cursor.next));
        if begun.is_none() {
            self.parts.remove(name);
        }
        self.ask(SubscribeLog { begun, ..asked });
    }

    /// Says that a log gets another share of the way from now on.
    pub fn prioritize(&mut self, name: &LogName, priority: Priority) {
        if let Some(log) = self.numbers.get(name).copied() {
            self.send(&Frame::Priority(frame::Priority { log, priority: priority.number() }));
        }
    }

    /// Gives a log up, to ask for it anew.
    pub fn unsubscribe(&mut self, name: &LogName) {
        if let Some(log) = self.numbers.remove(name) {
            self.logs.remove(&log);
            self.send(&Frame::Unsubscribe(frame::Unsubscribe { log }));
        }
    }

    /// Asks for a stretch of a log that was passed over here: entries from a cursor to an offset (exclusive), no
    /// snapshot instead of them. It comes beside what the log's subscription brings.
    pub fn fetch(&mut self, name: &LogName, log_id: LogId, at: Cursor, end: Offset) {
        let log = self.next_number;
        self.next_number += 1;
        let credit = Credit::new(limits::CREDIT_BYTES_OF_LOG);
        self.histories.insert(log, History { name: name.clone(), credit });
        self.ask(SubscribeLog {
            log,
            name: name.clone(),
            log_id: Some(log_id),
            cursor: Some(at),
            epoch: None,
            read: true,
            decided: Seq(u64::MAX),
            // Every own entry comes whole: its body may not be here any more.
            held: Seq(u64::MAX),
            // What is new goes first.
            priority: Priority::Low.number(),
            end: Some(end),
            begun: None,
        });
    }

    /// Everything that was to be fetched of a log is here.
    pub fn fetched(&mut self, name: &LogName) {
        if let Some(log) = self.history(name) {
            self.histories.remove(&log);
            self.send(&Frame::Unsubscribe(frame::Unsubscribe { log }));
        }
    }

    /// Pushes start behind this seq: what the server has, as `opened` said and the replica confirmed.
    pub fn start_pushing(&mut self, name: &LogName, through: Seq, chain: Chain) {
        if let Some(log) = self.log_mut(name) {
            // What was sent before has its answer, or is sent again.
            log.answered(Seq(u64::MAX));
            log.sent = Some(Sent { through, chain });
        }
    }

    /// Nothing is pushed to this log until [`ClientSession::start_pushing`] says from where.
    pub fn stop_pushing(&mut self, name: &LogName) {
        if let Some(log) = self.log_mut(name) {
            log.sent = None;
        }
    }

    /// The first seq to push next; none if the log does not push.
    pub fn push_from(&self, name: &LogName) -> Option<Seq> {
        let log = self.logs.get(self.numbers.get(name)?)?;
        log.sent.map(|sent| sent.through.next())
    }

    /// The log that pushed last. Logs take turns behind it, so that a small one never waits for all of a large one.
    pub fn pushed_last(&self) -> Option<LogName> {
        self.pushed_last.clone()
    }

    /// Whether the server takes another push frame now: one may reach beyond the credit, the next waits.
    pub fn may_push(&self) -> bool {
        self.welcomed && self.pushed < self.push_credit
    }

    /// Whether this log may push now, within its share: one push may reach beyond it, the next waits.
    pub fn may_push_to(&self, name: &LogName) -> bool {
        let log = self.numbers.get(name).and_then(|number| self.logs.get(number));
        self.may_push() && log.is_some_and(|log| log.unanswered_bytes() < limits::CREDIT_BYTES_OF_LOG)
    }

    /// One push frame of items that begin at [`ClientSession::push_from`]; returns its bytes and last seq.
    pub fn push(&mut self, name: &LogName, items: impl Iterator<Item = Pushed>) -> Option<(Vec<u8>, Seq)> {
        let number = *self.numbers.get(name)?;
        let actor = self.actor;
        let log = self.logs.get_mut(&number)?;
        let mut sent = log.sent?;
        let first = sent.through.next();
        let mut packer = Packer::default();
        for item in items {
            sent.chain = sent.chain.with_item(&item);
            match item {
                Pushed::Entry(entry) => {
                    debug_assert_eq!(entry.header.seq, sent.through.next());
                    packer.push(actor, &entry);
                    sent.through = entry.header.seq;
                }
                Pushed::Void(void) => {
                    sent.through = void.through;
                    packer.push_void(void);
                }
            }
            if packer.bytes() >= limits::FRAME_BYTES_TARGET || packer.len() >= limits::FRAME_ENTRIES_MAX {
                break;
            }
        }
        if packer.is_empty() {
            return None;
        }
        log.sent = Some(sent);
        self.pushed_last = Some(name.clone());
        let push = Push { log: number, first, chain: sent.chain, entries: packer.finish() };
        let bytes = Frame::Push(push).encode();
        log.unanswered.push_back((sent.through, bytes.len() as u64));
        self.pushed += bytes.len() as u64;
        Some((bytes, sent.through))
    }

    /// Says that verdicts are recorded here.
    pub fn settled(&mut self, name: &LogName, through: Seq) {
        if let Some(log) = self.numbers.get(name).copied() {
            self.send(&Frame::Settled(frame::Settled { log, through }));
        }
    }

    /// Says something of this client in a log; whether the log is subscribed.
    pub fn present(&mut self, name: &LogName, value: Option<ByteBuf>) -> bool {
        let log = self.numbers.get(name).copied();
        if let Some(log) = log {
            self.send(&Frame::Present(frame::Present { log, value }));
        }
        log.is_some()
    }

    /// Gives a fresh token to the running session.
    pub fn token(&mut self, token: String) {
        self.send(&Frame::Token(frame::Token { token }));
    }

    /// Asks whether the server is there.
    pub fn ping(&mut self) {
        self.pings += 1;
        self.send(&Frame::Ping(frame::Ping { nonce: self.pings }));
    }

    /// Says that received bytes of a log were worked off, so that the server may send more.
    pub fn worked_off(&mut self, name: &LogName, bytes: u64) {
        self.give_back(self.numbers.get(name).copied(), bytes);
    }

    /// Says that bytes which were fetched of a log were worked off.
    pub fn worked_off_fetched(&mut self, name: &LogName, bytes: u64) {
        self.give_back(self.history(name), bytes);
    }

    /// The next control frame to send.
    pub fn poll(&mut self) -> Option<Vec<u8>> {
        self.say_asked();
        self.control.pop_front()
    }

    /// Takes a frame; returns what it says and how many bytes of credit it cost. One that says nothing is worked off.
    ///
    /// # Errors
    /// [`PeerError`]: close the socket and connect again.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<(Option<SessionEvent>, u64), PeerError> {
        let frame = Frame::decode(bytes)?;
        let log = match &frame {
            Frame::Entries(entries) => Some(entries.log),
            Frame::SnapshotPart(part) => Some(part.log),
            _ => None,
        };
        let cost = if frame.needs_credit() { bytes.len() as u64 } else { 0 };
        let event = self.event(frame)?;
        if event.is_none() && cost > 0 {
            self.give_back(log, cost);
        }
        Ok((event, cost))
    }

    fn event(&mut self, frame: Frame) -> Result<Option<SessionEvent>, PeerError> {
        let event = match frame {
            Frame::Welcome(welcome) if !self.welcomed => {
                self.welcomed = true;
                self.push_credit = welcome.credit;
                Some(SessionEvent::Welcomed(welcome))
            }
            Frame::Opened(opened) => self.name(opened.log).map(|name| SessionEvent::Opened(name, opened)),
            Frame::Ack(ack) => self.answered(ack.log, ack.through).map(|name| SessionEvent::Acked(name, ack)),
            Frame::Held(held) => self.name(held.log).map(|name| SessionEvent::Held(name, held)),
            Frame::Entries(entries) if self.histories.contains_key(&entries.log) => {
                self.histories.get(&entries.log).map(|history| SessionEvent::History(history.name.clone(), entries))
            }
            Frame::Entries(entries) => self.name(entries.log).map(|name| {
                // No snapshot comes before these, and one that comes behind them is another.
                self.parts.remove(&name);
                SessionEvent::Entries(name, entries)
            }),
            Frame::SnapshotPart(part) => self.snapshot_part(part)?,
            Frame::Credit(credit) => {
                self.push_credit = self.push_credit.max(credit.bytes);
                None
            }
            Frame::Ping(ping) => {
                self.send(&Frame::Pong(ping));
                None
            }
            Frame::Pong(_) => None,
            Frame::Presence(presence) => self.name(presence.log).map(|name| SessionEvent::Presence(name, presence)),
            Frame::Connection(connection) => Some(SessionEvent::Connection(connection.state())),
            Frame::GoAway(go_away) => Some(SessionEvent::SentAway(go_away)),
            Frame::Error(error) => match error.log {
                Some(log) => match self.histories.remove(&log) {
                    Some(History { name, .. }) => Some(SessionEvent::HistoryRefused(name, error)),
                    None => self.answered(log, Seq(u64::MAX)).map(|name| SessionEvent::LogRefused(name, error)),
                },
                None => Some(SessionEvent::Refused(error)),
            },
            _ => return Err(PeerError::Unexpected),
        };
        Ok(event)
    }

    /// Collects the parts of a snapshot; a part of a log given up meanwhile is nothing.
    fn snapshot_part(&mut self, part: frame::SnapshotPart) -> Result<Option<SessionEvent>, PeerError> {
        let Some(name) = self.name(part.log) else { return Ok(None) };
        let mut parts = match self.parts.remove(&name) {
            Some(parts) if part.at > 0 => parts,
            _ => Parts::of(part.cursor),
        };
        if !parts.add(&part)? {
            self.parts.insert(name, parts);
            return Ok(None);
        }
        let (cursor, bytes) = parts.finish();
        Ok(Some(SessionEvent::Snapshot(name, cursor, bytes)))
    }

    fn log_mut(&mut self, name: &LogName) -> Option<&mut SessionLog> {
        self.logs.get_mut(self.numbers.get(name)?)
    }

    /// The server has answered pushes of a log through a seq.
    fn answered(&mut self, number: LogNumber, through: Seq) -> Option<LogName> {
        let log = self.logs.get_mut(&number)?;
        log.answered(through);
        Some(log.name.clone())
    }

    fn name(&self, number: LogNumber) -> Option<LogName> {
        self.logs.get(&number).map(|log| log.name.clone())
    }

    fn history(&self, name: &LogName) -> Option<LogNumber> {
        self.histories.iter().find(|(_, history)| history.name == *name).map(|(number, _)| *number)
    }

    /// Bytes under a number, if it still stands for something, were worked off.
    fn give_back(&mut self, number: Option<LogNumber>, bytes: u64) {
        self.credit.worked_off(bytes);
        let of_log = number.and_then(|number| {
            let log = self.logs.get_mut(&number).map(|log| &mut log.credit);
            let credit = log.or(self.histories.get_mut(&number).map(|history| &mut history.credit))?;
            credit.worked_off(bytes);
            credit.is_due().then(|| (number, credit.grant()))
        });
        if of_log.is_some() || self.credit.is_due() {
            let bytes = self.credit.grant();
            self.send(&Frame::Credit(frame::Credit { bytes, of_log }));
        }
    }

    fn ask(&mut self, log: SubscribeLog) {
        if self.asked.add(log) {
            self.say_asked();
        }
    }

    fn say_asked(&mut self) {
        self.control.extend(self.asked.take().map(|frame| frame.encode()));
    }

    /// A frame may concern what was asked for before it.
    fn send(&mut self, frame: &Frame) {
        self.say_asked();
        self.control.push_back(frame.encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Body, Entry, Header, Salt};
    use crate::id::{Base, ClientId, Name, RunId, UserId};
    use crate::protocol::frame::{Ack, Nonce, Welcome};
    use crate::time::Time;
    use crate::value::Value;

    fn entry(seq: u64) -> Pushed {
        let args = Some(Value::text("x".repeat(60_000)));
        let body = Body::new(Name::new("act").expect("a name"), args, vec![], None, Salt([0; 8]));
        let header = Header::new(RunId([2; 8]), seq, Seq(seq), Base::default(), Time::from_ms(seq));
        Pushed::Entry(Entry::new(header, body.into()).expect("valid"))
    }

    /// Pushes as much of a log as it may.
    fn push_all(session: &mut ClientSession, name: &LogName) -> u64 {
        while session.may_push_to(name) {
            let from = session.push_from(name).expect("it pushes");
            session.push(name, (from.0..from.0 + 2).map(entry)).expect("a push");
        }
        session.push_from(name).expect("it pushes").0 - 1
    }

    /// Everything the session gives credit for now: in total, and of which log.
    fn credits(session: &mut ClientSession) -> Vec<(u64, Option<(LogNumber, u64)>)> {
        let frames = std::iter::from_fn(|| session.poll()).map(|bytes| Frame::decode(&bytes).expect("a frame"));
        let credit = |frame| match frame {
            Frame::Credit(credit) => Some((credit.bytes, credit.of_log)),
            _ => None,
        };
        frames.filter_map(credit).collect()
    }

    #[test]
    fn what_is_worked_off_comes_back_to_its_log_by_halves_of_its_share() {
        const SHARE: u64 = limits::CREDIT_BYTES_OF_LOG;
        let identity = Identity::new(ClientId([1; 16]), ActorId([2; 16]));
        let mut session = ClientSession::hello(&identity, "", None, 0);
        let names = ["stuck", "quick"].map(|name| LogName::new(name).expect("a name"));
        for name in &names {
            session.subscribe(name, |number| subscription(number, name, None, (Seq(0), Seq(1)), true));
        }
        session.worked_off(&names[1], SHARE / 2);
        assert_eq!(credits(&mut session), [], "half of it is still there");
        session.worked_off(&names[1], 1);
        let all = limits::CREDIT_BYTES + SHARE / 2 + 1;
        assert_eq!(credits(&mut session), [(all, Some((1, SHARE + SHARE / 2 + 1)))]);
        session.worked_off(&names[0], SHARE / 2);
        session.unsubscribe(&names[0]);
        session.worked_off(&names[0], SHARE);
        let all = all + SHARE / 2 + SHARE;
        assert_eq!(credits(&mut session), [(all, None)], "of a log that was given up only the total comes back");
    }

    #[test]
    fn a_log_whose_pushes_are_not_answered_leaves_room_for_the_others() {
        let identity = Identity::new(ClientId([1; 16]), ActorId([2; 16]));
        let mut session = ClientSession::hello(&identity, "", None, 0);
        let (user, credit) = (UserId::new("alice").expect("a user"), limits::CREDIT_BYTES);
        let welcome = Welcome { protocol: 1, user, nonce: Nonce([0; 16]), now: 0, idle_ms: 60_000, credit };
        session.handle(&Frame::Welcome(welcome).encode()).expect("taken");
        let names = ["slow", "quick"].map(|name| LogName::new(name).expect("a name"));
        for name in &names {
            session.subscribe(name, |number| subscription(number, name, None, (Seq(0), Seq(1)), true));
            session.start_pushing(name, Seq(0), Chain::actor_start(ActorId([2; 16]), name));
        }
        let slow = push_all(&mut session, &names[0]);
        assert!(slow * 60_000 <= limits::CREDIT_BYTES_OF_LOG + limits::FRAME_BYTES_MAX as u64);
        assert!(session.may_push_to(&names[1]), "the other has a share of its own");
        assert!(push_all(&mut session, &names[1]) > 2);
        session
            .handle(&Frame::Credit(frame::Credit { bytes: 4 * limits::CREDIT_BYTES, of_log: None }).encode())
            .expect("taken");
        assert!(!session.may_push_to(&names[0]), "more credit is for those whose pushes are answered");
        let ack = Ack { log: 0, through: Seq(slow), accepted: vec![], marked: vec![] };
        session.handle(&Frame::Ack(ack).encode()).expect("taken");
        assert!(push_all(&mut session, &names[0]) > slow, "answered, it goes on");
    }
}
