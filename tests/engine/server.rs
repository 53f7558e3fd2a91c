//! The other end of the socket, as small as it can be: one log, verdicts by a rule on titles, everything in memory.
//!
//! What it accepts it appends, keeps the chains and tells every session's reader. At most one replacement of an entry
//! is accepted, as the real server has it.

use std::collections::{BTreeMap, BTreeSet};

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::entry::{Entry, Logged, Replaced};
use driftlog_core::id::{ActorId, EpochId, LogId, Offset, Seq, UserId};
use driftlog_core::op::{FieldOp, Op};
use driftlog_core::packed::{Packer, Pushed};
use driftlog_core::protocol::frame::{
    Ack, AckRange, Entries, Frame, LogNumber, Marked, MarkedStatus, Nonce, Opened, Push, SubscribeLog, Welcome,
};
use driftlog_core::protocol::{Code, VERSION};
use driftlog_core::time::Time;
use driftlog_core::value::Value;

use crate::device;

const LOG: LogId = LogId([0x10; 16]);
const EPOCH: EpochId = EpochId([0xe0; 8]);

/// Titles that begin so are refused.
pub(crate) const BAD: &str = "bad";

pub(crate) struct Server {
    entries: Vec<Logged>,
    cursors: Vec<Cursor>,
    authors: BTreeMap<ActorId, Author>,
    replaced: BTreeSet<Replaced>,
}

struct Author {
    seq: Seq,
    chain: Chain,
    marks: Vec<Marked>,
    places: Vec<AckRange>,
}

/// One socket's end.
pub(crate) struct Session {
    actor: Option<ActorId>,
    log: Option<(LogNumber, Offset)>,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { actor: None, log: None }
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        let (authors, replaced) = (BTreeMap::new(), BTreeSet::new());
        Self { entries: Vec::new(), cursors: vec![Cursor::start(LOG)], authors, replaced }
    }

    /// Titles in the log, in its order.
    pub(crate) fn titles(&self) -> Vec<String> {
        self.entries.iter().filter_map(|logged| title(&logged.entry)).collect()
    }

    /// Takes one frame of a session; gives the answers.
    pub(crate) fn take(&mut self, session: &mut Session, bytes: &[u8]) -> Vec<Vec<u8>> {
        let frames = match Frame::decode(bytes).unwrap() {
            Frame::Hello(hello) => {
                session.actor = Some(hello.actor);
                let (user, nonce) = (UserId::new("alice").unwrap(), Nonce([7; 16]));
                let credit = 1 << 20;
                vec![Frame::Welcome(Welcome { protocol: VERSION, user, nonce, now: 0, idle_ms: 60_000, credit })]
            }
            Frame::Subscribe(subscribe) => subscribe.logs.iter().flat_map(|log| self.subscribe(session, log)).collect(),
            Frame::Push(push) => self.push(session, &push),
            Frame::Settled(settled) => {
                let marks = &mut self.author(session.actor.unwrap()).marks;
                // Of these it keeps that they were refused, and not why.
                marks.iter_mut().filter(|mark| mark.seq <= settled.through).for_each(|mark| {
                    (mark.code, mark.reason) = (None, String::new());
                });
                Vec::new()
            }
            Frame::Ping(ping) => vec![Frame::Pong(ping)],
            _ => Vec::new(),
        };
        frames.iter().map(Frame::encode).collect()
    }

    /// What the log has beyond what the session was sent.
    pub(crate) fn grown(&self, session: &mut Session) -> Option<Vec<u8>> {
        let (log, from) = session.log?;
        let end = Offset(self.entries.len() as u64);
        if from == end {
            return None;
        }
        session.log = Some((log, end));
        let mut packer = Packer::default();
        self.entries[from.0 as usize..].iter().for_each(|logged| packer.logged(logged));
        let after = self.cursors[end.0 as usize];
        Some(Frame::Entries(Entries { log, from, after, end, entries: packer.finish() }).encode())
    }

    fn subscribe(&mut self, session: &mut Session, subscribe: &SubscribeLog) -> Vec<Frame> {
        let from = subscribe.cursor.map_or(Offset(0), |cursor| cursor.next);
        session.log = Some((subscribe.log, from));
        let author = self.author(session.actor.unwrap());
        let (seq, chain) = (author.seq, author.chain);
        let since = |seq: Seq| seq > subscribe.decided;
        let ack = Ack {
            log: subscribe.log,
            through: seq,
            accepted: author.places.iter().filter(|range| since(range.seq)).copied().collect(),
            marked: author.marks.iter().filter(|mark| since(mark.seq)).cloned().collect(),
        };
        let opened = Opened {
            log: subscribe.log,
            log_id: LOG,
            epochs: vec![(EPOCH, Offset(0))],
            end: Offset(self.entries.len() as u64),
            accepted: Time::from_ms(0),
            seq,
            chain,
            checkpoints: Vec::new(),
            append: true,
            backed_up: None,
        };
        vec![Frame::Opened(opened), Frame::Ack(ack)]
    }

    fn push(&mut self, session: &Session, push: &Push) -> Vec<Frame> {
        let actor = session.actor.unwrap();
        let (mut accepted, mut marked) = (Vec::new(), Vec::new());
        for item in push.entries.unpack_pushed(actor).unwrap() {
            let Pushed::Entry(entry) = item else { panic!("no voids here") };
            let seq = entry.header.seq;
            assert_eq!(seq, self.author(actor).seq.next(), "each once, in order");
            let author = self.author(actor);
            (author.seq, author.chain) = (seq, author.chain.with_pushed(seq, entry.digest()));
            match self.judge(&entry) {
                Some((code, reason)) => {
                    let mark =
                        Marked { seq, status: MarkedStatus::Refused, code: Some(code), reason: reason.to_owned() };
                    marked.push(mark.clone());
                    self.author(actor).marks.push(mark);
                }
                None => {
                    let offset = Offset(self.entries.len() as u64);
                    let place = AckRange { seq, offset, count: 1, accepted: self.append(actor, entry) };
                    accepted.push(place);
                    self.author(actor).places.push(place);
                }
            }
        }
        assert_eq!(self.author(actor).chain, push.chain);
        vec![Frame::Ack(Ack { log: push.log, through: self.author(actor).seq, accepted, marked })]
    }

    fn judge(&self, entry: &Entry) -> Option<(Code, &'static str)> {
        if title(entry).is_some_and(|title| title.starts_with(BAD)) {
            return Some((Code::EntryForbidden, "that is bad"));
        }
        let replaces = entry.header.replaces.as_ref()?;
        self.replaced.contains(replaces).then_some((Code::AlreadyReplaced, "it was replaced before"))
    }

    fn append(&mut self, actor: ActorId, entry: Entry) -> Time {
        self.replaced.extend(entry.header.replaces.clone());
        let offset = Offset(self.entries.len() as u64);
        let accepted = Time::from_ms(1_700_000_000_000 + offset.0);
        let user = UserId::new("alice").unwrap();
        let base = entry.header.base.end.min(offset);
        let logged = Logged { offset, actor, user, accepted, base, entry };
        let cursor = *self.cursors.last().unwrap();
        self.cursors.push(cursor.after(&logged));
        self.entries.push(logged);
        accepted
    }

    fn author(&mut self, actor: ActorId) -> &mut Author {
        self.authors.entry(actor).or_insert_with(|| Author {
            seq: Seq(0),
            chain: Chain::actor_start(actor, &device::log()),
            marks: Vec::new(),
            places: Vec::new(),
        })
    }
}

pub(crate) fn title(entry: &Entry) -> Option<String> {
    entry.body.ops.iter().flat_map(Op::field_ops).find_map(|(_, op)| match op {
        FieldOp::Set(Value::Text(title)) => Some(title.clone()),
        _ => None,
    })
}
