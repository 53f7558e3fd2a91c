//! Replaying a trace on `core` alone, with exact causality: each transaction is typed on a replica that has merged
//! exactly its parents.
//!
//! Typists, their outboxes, the sequencer and the readers are the real ones; only sockets and disks are missing.

use std::sync::Arc;

use driftlog_core::chain::Cursor;
use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::entry::{Entry, Logged};
use driftlog_core::id::{ActorId, EpochId, LogId, LogName, Name, Offset, RecordId, RunId, Seq, UserId};
use driftlog_core::limits;
use driftlog_core::overlay::Visible;
use driftlog_core::packed::{Packer, Pushed};
use driftlog_core::protocol::Frame;
use driftlog_core::protocol::frame;
use driftlog_core::random::Random;
use driftlog_core::replica::{Replica, Storable};
use driftlog_core::rich::{Document, RichActor};
use driftlog_core::sequencer::{Author, AuthorRow, Known, PushItems, Sequencer};
use driftlog_core::state::{FieldKey, RecordKey, State};
use driftlog_core::storage::commit::{Commit, Committed};
use driftlog_core::storage::row::{self, Identity};
use driftlog_core::time::Clock;

use crate::trace::{Trace, Transaction, splices};

/// What came of a replay.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Entries typed.
    pub entries: usize,
    /// Entries accepted.
    pub accepted: usize,
    /// Entries refused.
    pub refused: usize,
    /// Every replica's text, typists first, then a reader that only reads.
    pub texts: Vec<String>,
    /// The text in the server's confirmed state.
    pub server: String,
    /// Bytes of push frames.
    pub bytes_up: usize,
    /// Bytes of entries frames.
    pub bytes_down: usize,
}

/// Own entries of a lone typist that pile up before it reads them back.
const READ_BACK: usize = 64;

fn name(text: &str) -> Name {
    Name::new(text).expect("a short name")
}

fn log_name() -> LogName {
    LogName::new("trace").expect("a short name")
}

fn field() -> FieldKey {
    let record = RecordId::new("text").expect("a short id");
    FieldKey { key: RecordKey { collection: name("notes"), record }, field: name("body") }
}

fn insert(start: &str) -> DraftOp {
    let FieldKey { key, field } = field();
    DraftOp::Insert(key.collection, key.record, vec![(field, DraftFieldOp::InitialText(start.to_owned()))])
}

/// The log and everything that is in it.
struct Log {
    sequencer: Sequencer,
    user: UserId,
    entries: Vec<(Logged, Cursor)>,
    now: u64,
}

struct Typist {
    replica: Replica,
    actor: ActorId,
    clock: Clock,
    random: Random,
    acts: u64,
    /// The log has been read up to here.
    read: usize,
    row: AuthorRow,
    identity: Vec<u8>,
}

impl Typist {
    fn new(number: u8, log: &Log) -> Self {
        let (actor, run) = (ActorId([number; 16]), RunId([number; 8]));
        let mut replica = Replica::new(log_name(), actor, run);
        let epochs = log.sequencer.state().epochs().to_vec();
        replica.meet(log.sequencer.state().log(), epochs).expect("the same log");
        Self {
            replica,
            actor,
            clock: Clock::default(),
            random: Random::new([number; 32]),
            acts: 0,
            read: 0,
            row: AuthorRow::new(actor, &log_name()),
            identity: row::encode_twice(&Identity::new(driftlog_core::id::ClientId([number; 16]), actor)),
        }
    }

    fn text(&self) -> String {
        let visible = Visible::new(self.replica.state(), self.replica.overlay());
        visible.text(&field()).expect("the text can be read")
    }

    /// Types, appends durably and pushes one action.
    fn act(&mut self, log: &mut Log, action: &str, op: DraftOp, replayed: &mut Replayed) {
        self.acts += 1;
        let draft = Draft { name: name(action), args: None, ops: vec![op], lifetime_ms: None };
        let acted = self.replica.act(draft, self.acts, log.now, &mut self.clock, &mut self.random);
        acted.expect("the action fits");
        let append = self.replica.outbox_mut().next_group(&log_name()).expect("one group");
        let next = row::encode_twice(&Seq(self.acts));
        let Ok((_, Committed::Appended(entries))) =
            Commit::Append(append).decide(&[Some(self.identity.clone()), Some(next)])
        else {
            panic!("an append in memory succeeds")
        };
        self.replica.appended(&entries);
        entries.into_iter().for_each(|entry| self.push(log, entry, replayed));
    }

    fn push(&mut self, log: &mut Log, entry: Entry, replayed: &mut Replayed) {
        let mut packer = Packer::default();
        packer.push(self.actor, &entry);
        let (first, chain) = (entry.header.seq, self.row.chain.with_pushed(entry.header.seq, entry.digest()));
        let push = frame::Push { log: 0, first, chain, entries: packer.finish() };
        replayed.bytes_up += Frame::Push(push).encode().len();
        replayed.entries += 1;
        let verdicts =
            log.decide(self.actor, &mut self.row, PushItems { first, chain, items: vec![Pushed::Entry(entry)] });
        replayed.refused += verdicts.marked.iter().filter(|mark| !mark.status.is_accepted()).count();
        replayed.accepted += verdicts.accepted.iter().map(|range| range.count as usize).sum::<usize>();
        let ack =
            frame::Ack { log: 0, through: verdicts.through, accepted: verdicts.accepted, marked: verdicts.marked };
        self.replica.ack(&ack, log.now);
        self.work_off();
    }

    /// Reads the log up to an offset, in frames.
    fn read(&mut self, log: &Log, end: usize, replayed: &mut Replayed) {
        while self.read < end {
            let from = Offset(self.read as u64);
            let mut packer = Packer::default();
            let mut after = self.replica.state().cursor();
            while self.read < end
                && packer.bytes() < limits::FRAME_BYTES_TARGET
                && packer.len() < limits::FRAME_ENTRIES_MAX
            {
                let (logged, cursor) = &log.entries[self.read];
                if logged.actor == self.actor {
                    packer.stub(logged)
                } else {
                    packer.logged(logged)
                }
                after = *cursor;
                self.read += 1;
            }
            let end = Offset(log.entries.len() as u64);
            let entries = frame::Entries { log: 0, from, after, end, entries: packer.finish() };
            replayed.bytes_down += Frame::Entries(entries.clone()).encode().len();
            self.replica.arrive(Some(&log.user), entries, (0, 0)).expect("what the log holds arrives");
            self.work_off();
        }
    }

    /// Stores and applies what arrived, as a leading tab does.
    fn work_off(&mut self) {
        if self.replica.arrivals_mut().next_batch(Storable::Everything).is_none() {
            return;
        }
        let batch = self.replica.arrivals_mut().stored().expect("a batch is being stored");
        self.replica.apply(batch.items);
        if let Some(verdicts) = batch.verdicts {
            self.replica.decide(verdicts, &batch.places, batch.letters);
        }
        drop(self.replica.take_notices());
    }
}

impl Log {
    fn new() -> Self {
        let mut sequencer = Sequencer::resume(State::new(LogId([7; 16])), Vec::new());
        sequencer.begin_epoch(EpochId([7; 8]));
        let user = UserId::new("typist").expect("a short name");
        Self { sequencer, user, entries: Vec::new(), now: 1_700_000_000_000 }
    }

    fn decide(&mut self, actor: ActorId, row: &mut AuthorRow, push: PushItems) -> driftlog_core::sequencer::Verdicts {
        self.now += 1;
        let author = Author { actor, user: &self.user };
        let mut random = Random::new([0; 32]);
        let decided = self.sequencer.decide(self.now, author, row, push, &Known::default(), &mut random);
        let decided = decided.expect("the push starts where it should");
        self.entries.extend(decided.appended);
        decided.verdicts
    }
}

fn edit(text: &str, transaction: &Transaction) -> DraftOp {
    let FieldKey { key, field } = field();
    DraftOp::Update(key.collection, key.record, field, DraftFieldOp::Splice(splices(text, &transaction.patches)))
}

/// Replays a trace through whole replicas, in an offset order that allows exact causality.
///
/// # Panics
/// If anything in it is refused by its own types: then core is broken.
pub fn replay(trace: &Trace, order: &[usize], seen: &[Vec<usize>], mut progress: impl FnMut(usize)) -> Replayed {
    let mut log = Log::new();
    let mut replayed = Replayed::default();
    let mut typists: Vec<_> = (0..trace.agents()).map(|agent| Typist::new(agent as u8 + 1, &log)).collect();
    let mut reader = Typist::new(200, &log);
    typists[0].act(&mut log, "begin", insert(&trace.start), &mut replayed);
    typists.iter_mut().for_each(|typist| typist.read(&log, 1, &mut replayed));
    // Of each agent, the offset behind its n-th transaction.
    let mut behind: Vec<Vec<usize>> = vec![vec![1]; trace.agents()];
    for (done, at) in order.iter().enumerate() {
        let transaction = &trace.transactions[*at];
        let agent = transaction.agent;
        let others = (0..trace.agents()).filter(|other| *other != agent);
        let end = others.map(|other| behind[other][seen[*at][other]]).max();
        let alone = || if log.entries.len() - typists[agent].read >= READ_BACK { log.entries.len() } else { 0 };
        let end = end.unwrap_or_else(alone);
        typists[agent].read(&log, end, &mut replayed);
        let text = if trace.end.is_ascii() { String::new() } else { typists[agent].text() };
        typists[agent].act(&mut log, "type", edit(&text, transaction), &mut replayed);
        behind[agent].push(log.entries.len());
        reader.read(&log, if done.is_multiple_of(READ_BACK) { log.entries.len() } else { 0 }, &mut replayed);
        progress(done + 1);
    }
    let end = log.entries.len();
    for typist in typists.iter_mut().chain([&mut reader]) {
        typist.read(&log, end, &mut replayed);
        replayed.texts.push(typist.text());
    }
    replayed.server = log.sequencer.state().text(&field()).expect("the text can be read");
    replayed
}

/// Replays a trace on rich documents alone, one an agent, where no offset order allows exact causality.
pub fn replay_rich(trace: &Trace, seen: &[Vec<usize>], mut progress: impl FnMut(usize)) -> Replayed {
    let mut documents: Vec<_> = (0..=trace.agents()).map(|_| Document::genesis()).collect();
    let mut merged = vec![vec![0; trace.agents()]; trace.agents()];
    let mut changes: Vec<Vec<Arc<[u8]>>> = vec![Vec::new(); trace.agents()];
    let mut replayed = Replayed { entries: trace.transactions.len(), ..Replayed::default() };
    for (at, transaction) in trace.transactions.iter().enumerate() {
        let agent = transaction.agent;
        for other in (0..trace.agents()).filter(|other| *other != agent) {
            let new = &changes[other][merged[agent][other]..seen[at][other]];
            let new: Vec<&[u8]> = new.iter().map(|change| &**change).collect();
            documents[agent].apply(&new).expect("its dependencies were merged before");
            merged[agent][other] = seen[at][other];
        }
        let text = if trace.end.is_ascii() { String::new() } else { documents[agent].text() };
        let actor = RichActor::derive(&[agent as u8; 16], &[0; 8], "notes", "text", "body", 0);
        let change = documents[agent].edit(actor, &splices(&text, &transaction.patches)).expect("the trace fits");
        documents[trace.agents()].apply(&[&change]).expect("in causal order");
        replayed.bytes_up += change.len();
        changes[agent].push(change.into());
        progress(at + 1);
    }
    for agent in 0..trace.agents() {
        for other in (0..trace.agents()).filter(|other| *other != agent) {
            let rest: Vec<&[u8]> = changes[other][merged[agent][other]..].iter().map(|change| &**change).collect();
            documents[agent].apply(&rest).expect("everything is there");
        }
    }
    replayed.accepted = replayed.entries;
    replayed.texts = documents.iter().map(Document::text).collect();
    replayed.server = replayed.texts[trace.agents()].clone();
    replayed
}
