//! The server of one log in memory, as it decides in earnest: the real session and sequencer.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::entry::{Body, Digest, Entry, Header, Logged, Salt};
use driftlog_core::id::{ActorId, Base, EpochId, LogId, Name, Offset, RecordId, RunId, Seq, UserId};
use driftlog_core::op::{FieldOp, Insert, Op};
use driftlog_core::packed::Pushed;
use driftlog_core::protocol::frame::Nonce;
use driftlog_core::protocol::{Code, Frame};
use driftlog_core::random::Random;
use driftlog_core::sequencer::{Author, AuthorRow, Case, Known, Place, PushError, PushItems, Ruling, Sequencer};
use driftlog_core::session::server::{
    Admission, Append, EntriesRead, Grants, LogFacts, Open, Output, PushOutcome, Read, ReadFrom, ServerSession,
    SnapshotRead, entries_frame,
};
use driftlog_core::snapshot;
use driftlog_core::state::State;
use driftlog_core::time::Time;

use driftlog_tests::peer::Peer;

use crate::device::log;
use crate::server::{BAD, title};

const LOG: LogId = LogId([0x10; 16]);
const EPOCH: EpochId = EpochId([0xe1; 8]);
const OTHER: ActorId = ActorId([0xbb; 16]);

/// Everything durable of the server, and the one session there may be.
#[derive(Default)]
pub(crate) struct Authority {
    log: Vec<(Logged, Cursor)>,
    authors: BTreeMap<ActorId, AuthorRow>,
    refused: BTreeMap<(ActorId, Seq), Digest>,
    session: Option<ServerSession>,
    /// Whether readers without a position get a snapshot instead of the entries.
    pub(crate) snapshots: bool,
    /// So many parts of snapshots that it sends are damaged before they get their checksum.
    pub(crate) damaged_parts: u32,
    /// What the server says of its backups.
    pub(crate) backed_up: Option<Seq>,
    /// What is pushed is decided, and nobody hears of it.
    pub(crate) lose_answers: bool,
    /// The log holds what only a newer server can fold.
    newer: bool,
    /// The voids that were pushed, each time.
    pub(crate) voids: Vec<(u64, u64, String)>,
}

impl Authority {
    /// A server with the same durable contents.
    pub(crate) fn copy(&self) -> Self {
        let (log, authors, refused) = (self.log.clone(), self.authors.clone(), self.refused.clone());
        Self { log, authors, refused, snapshots: self.snapshots, backed_up: self.backed_up, ..Self::default() }
    }

    pub(crate) fn connect(&mut self, now: u64) {
        self.session = Some(ServerSession::new(now, 60_000));
    }

    pub(crate) fn disconnect(&mut self) {
        self.session = None;
    }

    /// Takes one frame; gives the answers.
    pub(crate) fn take(&mut self, now: u64, bytes: &[u8]) -> Vec<Vec<u8>> {
        if let Ok(Frame::Push(push)) = Frame::decode(bytes) {
            let voids = self.authors.keys().find_map(|actor| push.entries.unpack_pushed(*actor).ok());
            for void in voids.into_iter().flatten() {
                if let Pushed::Void(void) = void {
                    self.voids.push((void.from.0, void.through.0, void.reason));
                }
            }
        }
        let Some(mut session) = self.session.take() else { return Vec::new() };
        let mut frames = Vec::new();
        session.handle_bytes(now, bytes);
        while let Some(output) = session.poll_output() {
            self.answer(&mut session, now, output);
        }
        while let Some(frame) = session.poll_frame() {
            let lost = self.lose_answers && matches!(Frame::decode(&frame), Ok(Frame::Ack(_) | Frame::Entries(_)));
            if !lost {
                frames.push(self.damaged(&frame).unwrap_or_else(|| frame.to_vec()));
            }
            while let Some(output) = session.poll_output() {
                self.answer(&mut session, now, output);
            }
        }
        self.session = Some(session);
        frames
    }

    /// A part of a snapshot with one bit wrong, while such are to be sent.
    fn damaged(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let Ok(Frame::SnapshotPart(mut part)) = Frame::decode(frame) else { return None };
        self.damaged_parts = self.damaged_parts.checked_sub(1)?;
        *part.bytes.last_mut()? ^= 1;
        Some(Frame::SnapshotPart(part).encode())
    }

    /// Another client's entry.
    pub(crate) fn insert(&mut self, now: u64, title: &str) {
        let fields = vec![(name("title"), FieldOp::Set(title.into()))];
        let insert = Insert { collection: name("todos"), record: RecordId::new(title).unwrap(), fields };
        let body = Body::new(name("addTodo"), None, vec![Op::Insert(insert)], None, Salt([9; 8]));
        let row = self.authors.entry(OTHER).or_insert_with(|| AuthorRow::new(OTHER, &log()));
        let (seq, chain) = (row.seq.next(), row.chain);
        let base = Base { epoch: EPOCH, end: Offset(self.log.len() as u64) };
        let header = Header::new(RunId([0xbb; 8]), seq.0, seq, base, Time::from_ms(now));
        let entry = Entry::new(header, body.into()).unwrap();
        let chain = chain.with_pushed(seq, entry.digest());
        self.decide(now, OTHER, PushItems { first: seq, chain, items: vec![Pushed::Entry(entry)] }).unwrap();
    }

    /// Another client's entry with an op that this build does not know, as a newer server would take it.
    pub(crate) fn insert_newer(&mut self, now: u64) {
        let body = Body::new(name("later"), None, Peer::unknown(), None, Salt([9; 8]));
        let (offset, seq) = (Offset(self.log.len() as u64), Seq(1_000));
        let header = Header::new(RunId([0xbb; 8]), seq.0, seq, Base { epoch: EPOCH, end: offset }, Time::from_ms(now));
        let entry = Entry::new(header, body.into()).unwrap();
        let accepted = Time::from_ms(now);
        let logged = Logged { offset, actor: OTHER, user: user(), accepted, base: offset, entry };
        let start = Cursor { next: Offset(0), chain: Chain::log_start(LOG) };
        let after = self.log.last().map_or(start, |(_, cursor)| *cursor).after(&logged);
        self.log.push((logged, after));
        self.newer = true;
    }

    /// The state that everybody must come to.
    pub(crate) fn digest(&self) -> Digest {
        self.state().digest()
    }

    /// The verdicts on an actor's seqs: those in the log, and the marked ones.
    pub(crate) fn accepted(&self, actor: ActorId) -> Vec<u64> {
        let own = self.log.iter().filter(|(logged, _)| logged.actor == actor);
        own.map(|(logged, _)| logged.entry.header.seq.0).collect()
    }

    pub(crate) fn decided(&self, actor: ActorId) -> u64 {
        self.authors.get(&actor).map_or(0, |row| row.seq.0)
    }

    fn state(&self) -> State {
        let mut state = State::new(LOG);
        for (logged, _) in &self.log {
            state.fold(logged).unwrap();
        }
        state.set_epochs(vec![(EPOCH, Offset(0))]);
        state
    }

    fn decide(&mut self, now: u64, actor: ActorId, push: PushItems) -> Result<PushOutcome, PushError> {
        let sequencer = Sequencer::resume(self.state(), vec![(EPOCH, Offset(0))]);
        let mut sequencer = sequencer.governed_by(log(), Arc::new(nothing_bad));
        let row = self.authors.entry(actor).or_insert_with(|| AuthorRow::new(actor, &log()));
        let own = self.log.iter().filter(|(logged, _)| logged.actor == actor);
        let place = |(logged, _): &(Logged, Cursor)| {
            let place =
                Place { offset: logged.offset, accepted: logged.accepted, digest: logged.entry.pushed_digest() };
            (logged.entry.header.seq, place)
        };
        let refused = self.refused.iter().filter(|((author, _), _)| *author == actor);
        let refused = refused.map(|((_, seq), digest)| (*seq, *digest)).collect();
        let known = Known { places: own.map(place).collect(), refused, ..Known::default() };
        let user = user();
        let decided =
            sequencer.decide(now, Author { actor, user: &user }, row, push, &known, &mut Random::new([7; 32]))?;
        self.log.extend(decided.appended);
        let refused = decided.refused.into_iter();
        self.refused.extend(refused.map(|refused| ((actor, refused.entry.header.seq), refused.entry.digest())));
        Ok(PushOutcome { verdicts: decided.verdicts, held: decided.held })
    }

    fn answer(&mut self, session: &mut ServerSession, now: u64, output: Output) {
        match output {
            Output::Authenticate(hello) => {
                self.authors.entry(hello.actor).or_insert_with(|| AuthorRow::new(hello.actor, &log()));
                let (grants, nonce) = (Grants::everything(), Nonce([0x0c; 16]));
                session.handle_admitted(now, Ok(Admission { user: user(), grants, expires: None, nonce, was: None }));
            }
            Output::Open(open) => session.handle_opened(open.request, Ok(self.facts(&open))),
            // What is newer than this build is not decided by this build either.
            Output::Append(_) if self.newer => {}
            Output::Append(Append { request, actor, push, .. }) => {
                let decided = self.decide(now, actor, push);
                session.handle_committed(request, decided);
                session.handle_grew(0, Offset(self.log.len() as u64));
            }
            Output::Settle { .. } | Output::Present { .. } => {}
            Output::Read(read) => self.read(session, now, &read),
            Output::Refresh(_) | Output::Forget { .. } | Output::Keep { .. } | Output::Close => {}
        }
    }

    fn read(&self, session: &mut ServerSession, now: u64, read: &Read) {
        match read.from {
            ReadFrom::Cursor(from) => {
                let own = Some((read.actor, read.held));
                let entries = self.log[from.next.0 as usize..].iter().map(|(logged, cursor)| (logged, *cursor));
                let frame = entries_frame(now, read.log, from, Offset(self.log.len() as u64), own, entries);
                let answer = frame.map_or(EntriesRead::End(from.next), EntriesRead::Frame);
                session.handle_entries(read.request, answer);
            }
            ReadFrom::Snapshot(begun) => {
                let mut state = self.state();
                let cursor = state.cursor();
                let bytes = snapshot::encode(&mut state).into();
                session.handle_snapshot(read.request, Some(SnapshotRead::new(cursor, bytes, begun)));
            }
        }
    }

    fn facts(&self, open: &Open) -> LogFacts {
        let row = self.authors[&open.actor].clone();
        let end = Offset(self.log.len() as u64);
        let chain_at = |next: u64| match next.checked_sub(1) {
            None => Some(Chain::log_start(LOG)),
            Some(last) => self.log.get(last as usize).map(|(_, cursor)| cursor.chain),
        };
        let own = self.log.iter().filter(|(logged, _)| logged.actor == open.actor);
        let places = own.map(|(logged, _)| (logged.entry.header.seq, logged.offset, logged.accepted));
        let from = open.decided.next();
        LogFacts {
            log_id: LOG,
            epochs: vec![(EPOCH, Offset(0))],
            end,
            accepted: self.log.last().map_or(Time::MIN, |(logged, _)| logged.accepted),
            backed_up: self.backed_up,
            first_retained: if self.snapshots { end } else { Offset(0) },
            snapshot: self.snapshots.then_some(end),
            chain_at_cursor: open.cursor.and_then(|cursor| chain_at(cursor.next.0)),
            seq: row.seq,
            chain: row.chain,
            checkpoints: row.checkpoints().to_vec(),
            verdicts: (from <= row.seq).then(|| row.verdicts(from, row.seq, places)),
        }
    }
}

/// The rule that it has: what begins with [`BAD`] is not let in.
fn nothing_bad(case: &Case<'_>) -> Ruling {
    match title(case.entry).is_some_and(|title| title.starts_with(BAD)) {
        true => Ruling::Refuse { code: Code::EntryForbidden, reason: "that is bad".into() },
        false => Ruling::Allow,
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn user() -> UserId {
    UserId::new("alice").unwrap()
}
