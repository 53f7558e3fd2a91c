//! The log writer: it decides, commits in groups, and only then answers. In a server it is one thread.
//!
//! Everything that waits when a commit returns goes into the next transaction, across all logs and authors; under load
//! one flush covers many pushes. Sequencers of hot logs live here; cold ones are loaded from snapshot and tail.
//!
//! **Invariant:** an answer leaves after the commit that it tells of. A failed commit ends the server: decided state
//! in memory is then ahead of the disk, and nothing of it was said.

mod bind;
mod erase;
mod hot;
mod letters;
mod purge;
mod request;
mod reroot;
mod rounds;
mod truncate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use driftlog_core::chain::Cursor;
use driftlog_core::connection::Downgrade;
use driftlog_core::entry::Logged;
use driftlog_core::id::{ActorId, LogId, LogName, Seq};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::Nonce;
use driftlog_core::random::Random;
use driftlog_core::sequencer::{Author, AuthorRow, BindError, Decided, PushError, Sequencer};
use driftlog_core::session::server::{Append, LogFacts, Open, PushOutcome, Refusal, RequestId};
use driftlog_core::time::WallMs;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::config::Config;
use crate::environment::{Environment, entropy};
use crate::fanout::Feeds;
use crate::ledger::Order;
use crate::room::Claim;
use crate::snapshot::{Job, SnapshotJobs};
use crate::store::{AuthorKey, LogKey, LogRow, Reads, StoreError, Sweep, Writer, Writes};

pub(crate) use erase::Ordered;
use hot::HotLogs;
pub use letters::LetterError;
use letters::Letters;
pub(crate) use letters::{LetterRequest, Redriven};
pub(crate) use request::{Request, Work, WriterHandle};

/// Requests that go into one transaction at most.
const GROUP_MAX: usize = 2_048;
/// Places of accepted entries repeated when a log is opened. A client that awaits more learns that the others are
/// accepted, and where from the log itself.
const REPEATED_PLACES_MAX: u64 = 64 * 1024;

/// Where answers of one session go.
pub(crate) type Mailbox = tokio_mpsc::UnboundedSender<Answer>;

/// An answer to a session. As many wait at most as a session may have requests at the writer ([`crate::room`]).
#[derive(Debug)]
pub(crate) enum Answer {
    Bound(Result<Greeted, BindError>),
    Opened(RequestId, Result<LogFacts, Refusal>),
    Committed(RequestId, LogName, Result<PushOutcome, PushError>),
}

/// A client that was bound: the time its connection was inactive until now, if it was.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) was: Option<(Downgrade, WallMs)>,
    /// For the welcome.
    pub(crate) nonce: Nonce,
}

/// What happens once the transaction is durable.
type Effect = Box<dyn FnOnce(&Feeds)>;

/// What a durable group has to tell, to whom it concerns.
pub(crate) struct Committed {
    effects: Vec<Effect>,
    claims: Vec<Claim>,
    stopped: bool,
}

impl Committed {
    /// Answers the sessions and wakes followers.
    pub(crate) fn tell(self, feeds: &Feeds) {
        // First, so that who hears its answer finds the room as it is then.
        drop(self.claims);
        self.effects.into_iter().for_each(|effect| effect(feeds));
    }
}

/// Decides what is asked, over the logs it holds in memory.
pub(crate) struct LogWriter {
    hot: HotLogs,
    environment: Arc<dyn Environment>,
    random: Random,
    jobs: SnapshotJobs,
    letters: Letters,
    config: Config,
    /// Where pages may still hold what is out of the tables.
    sweep: Sweep,
    /// Something is out of the tables, and the store's own log may still hold it.
    uncut: bool,
    /// What the ledger says.
    orders: Vec<Order>,
    /// The log that the present round came to last.
    round: LogKey,
}

/// Starts the writer's thread. `failed` is told once, if it ends because of its store.
pub(crate) fn start(
    mut writer: LogWriter,
    mut store: Writer,
    requests: mpsc::Receiver<Work>,
    feeds: Arc<Feeds>,
    failed: oneshot::Sender<StoreError>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
        match writer.run(&mut store, &requests, &feeds) {
            Ok(()) => store.tidy_up(),
            Err(error) => {
                tracing::error!(%error, "the store failed; the server ends");
                let _ = failed.send(error);
            }
        }
    })
}

impl LogWriter {
    pub(crate) fn new(config: &Config, environment: Arc<dyn Environment>, jobs: SnapshotJobs) -> Self {
        let hot = HotLogs::new(config);
        let random = Random::new(entropy(&*environment));
        Self {
            hot,
            environment,
            random,
            jobs,
            letters: Letters::default(),
            config: config.clone(),
            sweep: Sweep::new(),
            // A server before may have ended between the two.
            uncut: true,
            orders: Vec::new(),
            round: LogKey(0),
        }
    }

    /// Works until it is told to stop, or the store fails.
    fn run(&mut self, store: &mut Writer, requests: &mpsc::Receiver<Work>, feeds: &Feeds) -> Result<(), StoreError> {
        let mut stopped = false;
        while !stopped && let Ok(first) = requests.recv() {
            let committed = self.commit(store, std::iter::once(first).chain(requests.try_iter()))?;
            stopped = committed.stopped;
            committed.tell(feeds);
        }
        Ok(())
    }

    /// Decides a group of requests, at most [`GROUP_MAX`], in one transaction. When this returns they are durable, and
    /// nobody has heard of them yet.
    ///
    /// # Errors
    /// [`StoreError`]: the writer must not be used any more.
    pub(crate) fn commit(
        &mut self,
        store: &mut Writer,
        requests: impl Iterator<Item = Work>,
    ) -> Result<Committed, StoreError> {
        let mut purged = false;
        let committed = store.commit(|writes| {
            let mut committed = Committed { effects: Vec::new(), claims: Vec::new(), stopped: false };
            for Work(request, claim) in requests.take(GROUP_MAX) {
                committed.stopped |= matches!(request, Request::Stop);
                purged |= matches!(request, Request::Purge(_));
                committed.claims.extend(claim);
                committed.effects.extend(self.handle(writes, request)?);
            }
            Ok(committed)
        })?;
        if purged && self.uncut {
            self.uncut = !store.checkpoint()?;
        }
        self.hot.evict();
        Ok(committed)
    }

    fn handle(&mut self, writes: Writes<'_>, request: Request) -> Result<Option<Effect>, StoreError> {
        Ok(match request {
            Request::Stop => None,
            Request::Bind { hello, user, nonce, reply } => {
                let bound = bind::bind(writes, self.environment.now(), &hello, &user, nonce)?;
                Some(Box::new(move |_| drop(reply.send(Answer::Bound(bound)))))
            }
            Request::Open { open, reply } => {
                let facts = match self.open(writes, &open) {
                    Ok(facts) => Ok(facts),
                    Err(error) => Err(Refusal { code: Code::StorageFailed, reason: damage(&open.name, error)? }),
                };
                Some(Box::new(move |_| drop(reply.send(Answer::Opened(open.request, facts)))))
            }
            Request::Append { append, read, reply } => {
                let (request, name) = (append.request, append.name.clone());
                match self.append(writes, append, read, reply.clone()) {
                    Ok(effect) => Some(effect),
                    Err(error) => {
                        let error = PushError::LogDamaged { reason: damage(&name, error)? };
                        Some(Box::new(move |_| drop(reply.send(Answer::Committed(request, name, Err(error))))))
                    }
                }
            }
            Request::Settle { name, actor, through } => {
                if let Err(error) = letters::settle(writes, &name, actor, through) {
                    // What is not let go is kept: nothing is lost.
                    damage(&name, error)?;
                }
                None
            }
            Request::Keep { bytes, source, code, reason } => {
                if writes.keep_bytes(self.environment.now(), &source, code, &reason, &bytes)? {
                    self.bound_letters(writes, None, &[bytes.len()])?;
                }
                None
            }
            Request::Snapshot { log, snapshot, grown } => Some(self.snapshot_stored(writes, log, &snapshot, &grown)?),
            Request::Truncate { log, below } => {
                self.truncate(writes, log, below)?;
                None
            }
            Request::Connections(notes) => {
                notes.iter().try_for_each(|note| bind::note_connection(writes, note))?;
                None
            }
            Request::Purge(reply) => Some(self.purge(writes, reply)?),
            Request::Erase(order, reply) => self.ordered(writes, order, reply)?,
            Request::Letter(request) => self.letter_or_damage(writes, request)?,
        })
    }

    fn letter_or_damage(&mut self, writes: Writes<'_>, request: LetterRequest) -> Result<Option<Effect>, StoreError> {
        match self.letter(writes, request) {
            Ok(effect) => Ok(Some(effect)),
            // Whoever asked hears that there is no answer; the server's log says why.
            Err(error) if error.is_corruption() => {
                tracing::error!(%error, "a dead letter or its log is damaged; others go on");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn open(&mut self, writes: Writes<'_>, open: &Open) -> Result<LogFacts, StoreError> {
        let reads = writes.reads();
        let log = match reads.log(&open.name)? {
            Some(log) => log,
            None => {
                let log = writes.create_log(&open.name, LogId(entropy(&*self.environment)))?;
                self.order_in_new(writes, &log)?;
                log
            }
        };
        if open.append {
            self.begin_epoch(writes, &log)?;
        }
        let (end, accepted) = reads.end(&log)?;
        let Some((author, _)) = reads.binding(open.actor)? else {
            return Err(StoreError::corrupt("bindings", "the actor of an open log is not bound"));
        };
        let stored = reads.author_row(log.key, author)?;
        let row = stored.unwrap_or_else(|| AuthorRow::new(open.actor, &open.name));
        let from = open.decided.next();
        let verdicts = match from <= row.seq {
            true => {
                let placed = from.max(Seq(row.seq.0.saturating_sub(REPEATED_PLACES_MAX)));
                let places = reads.places(log.key, author, &row, (placed, row.seq))?;
                let places = places.into_iter().map(|(seq, place)| (seq, place.offset, place.accepted));
                Some(row.verdicts(from, row.seq, places))
            }
            false => None,
        };
        let chain_at_cursor = match &open.cursor {
            Some(cursor) => reads.chain_at(&log, cursor.next)?,
            None => None,
        };
        Ok(LogFacts {
            log_id: log.log_id,
            epochs: reads.epochs(&log)?,
            end: end.next,
            accepted,
            first_retained: reads.kept(&log)?.first.next,
            backed_up: self.backed_up(reads, &log, author, &row)?,
            snapshot: reads.snapshots(log.key)?.0.first().map(|snapshot| snapshot.end),
            chain_at_cursor,
            seq: row.seq,
            chain: row.chain,
            checkpoints: row.checkpoints().to_vec(),
            verdicts,
        })
    }

    /// Through which seq of an author everything is in a backup, by what the operator says.
    fn backed_up(
        &self,
        reads: Reads<'_>,
        log: &LogRow,
        author: AuthorKey,
        row: &AuthorRow,
    ) -> Result<Option<Seq>, StoreError> {
        let Some(after) = self.config.backed_up_after else { return Ok(None) };
        let before = self.environment.now().saturating_sub(after.as_millis() as u64);
        reads.backed_up(log, author, row, before).map(Some)
    }

    /// Sees to it that this start of the server has an epoch in the log, which is durable before anybody hears of it.
    fn begin_epoch(&mut self, writes: Writes<'_>, log: &LogRow) -> Result<(), StoreError> {
        if !self.hot.needs_epoch(log.key) {
            return Ok(());
        }
        let epoch = driftlog_core::id::EpochId(entropy(&*self.environment));
        writes.add_epoch(log, epoch)?;
        if let Some(sequencer) = self.hot.loaded(log.key) {
            sequencer.begin_epoch(epoch);
        }
        self.hot.epoch_begun(log.key);
        Ok(())
    }

    fn append(
        &mut self,
        writes: Writes<'_>,
        append: Append,
        read: BTreeMap<Seq, Result<usize, String>>,
        reply: Mailbox,
    ) -> Result<Effect, StoreError> {
        let Append { request, name, actor, push, .. } = append;
        let reads = writes.reads();
        let (Some(log), Some((author, binding))) = (reads.log(&name)?, reads.binding(actor)?) else {
            return Err(StoreError::corrupt("bindings", "a push without an open log or a bound actor"));
        };
        if binding.is_erased() {
            let error = PushError::ReservedActor;
            return Ok(Box::new(move |_| drop(reply.send(Answer::Committed(request, name, Err(error))))));
        }
        self.begin_epoch(writes, &log)?;
        let stored = reads.author_row(log.key, author)?;
        let mut row = stored.unwrap_or_else(|| AuthorRow::new(actor, &name));
        let wanted = Sequencer::wanted(&row, &push);
        writes.check_replacements(&wanted)?;
        let mut known = reads.known(log.key, author, &row, &wanted)?;
        reads.reissued(&log, (actor, &binding), &row, &push, &mut known)?;
        reads.pushed_digests(&log, &push, &mut known)?;
        known.read = read;
        let now = self.environment.now();
        let hot = self.hot.load(reads, &log)?;
        let by = Author { actor, user: &binding.user };
        let decided = match hot.sequencer.decide(now, by, &mut row, push, &known, &mut self.random) {
            Ok(decided) => decided,
            Err(error) => return Ok(Box::new(move |_| drop(reply.send(Answer::Committed(request, name, Err(error)))))),
        };
        // From here on the log in memory is ahead of the disk, so no failure is of this log alone.
        let sizes = write_decided(writes, &log, (author, actor), now, &decided, &row).map_err(StoreError::midway)?;
        sizes.iter().for_each(|bytes| hot.grew(*bytes as u64));
        for (logged, _) in &decided.appended {
            Self::erased_by_push(writes, &log, logged).map_err(StoreError::midway)?;
        }
        let appended = decided.appended.into_iter().zip(sizes).map(|((logged, cursor), bytes)| (logged, cursor, bytes));
        let appended: Vec<(Logged, Cursor, usize)> = appended.collect();
        if hot.wants_snapshot(&self.config) {
            hot.snapshot_requested = self.jobs.request(Job::Snapshot(log.clone()));
        }
        if !decided.refused.is_empty() {
            let kept: Vec<_> = decided.refused.iter().map(|refused| refused.entry.to_bytes().len()).collect();
            self.bound_letters(writes, Some(log.key), &kept).map_err(StoreError::midway)?;
        }
        let outcome = PushOutcome { verdicts: decided.verdicts, held: decided.held };
        Ok(Box::new(move |feeds| {
            let _ = reply.send(Answer::Committed(request, name, Ok(outcome)));
            feeds.committed(&log.name, appended);
        }))
    }
}

/// Writes a decision; returns the bytes that each of its entries takes.
fn write_decided(
    writes: Writes<'_>,
    log: &LogRow,
    (author, actor): (AuthorKey, ActorId),
    now: WallMs,
    decided: &Decided,
    row: &AuthorRow,
) -> Result<Vec<usize>, StoreError> {
    let mut sizes = Vec::with_capacity(decided.appended.len());
    for placed in &decided.appended {
        let author = if placed.0.actor == ActorId::LOG { writes.log_author()? } else { author };
        sizes.push(writes.append(log.key, author, placed)?);
    }
    if let Some((logged, cursor)) = decided.appended.last() {
        writes.set_end(log, *cursor, logged.accepted, sizes.iter().map(|bytes| *bytes as u64).sum())?;
    }
    for refused in &decided.refused {
        writes.keep_refused(now, log.key, (author, actor), refused)?;
    }
    if decided.advanced {
        writes.put_author_row(log.key, author, row)?;
    }
    Ok(sizes)
}

/// What stops one log only: stored bytes that do not read, found before anything was decided.
fn damage(log: &LogName, error: StoreError) -> Result<String, StoreError> {
    if !error.is_corruption() {
        return Err(error);
    }
    tracing::error!(%log, %error, "a log is damaged; others go on");
    Ok(error.to_string())
}

#[cfg(test)]
mod flips;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Access;
    use crate::environment::System;
    use crate::store::Store;
    use driftlog_core::id::{ClientId, UserId};
    use driftlog_core::protocol::frame::Hello;

    fn hello() -> Hello {
        Hello {
            protocol_min: 1,
            protocol_max: 1,
            client: ClientId([1; 16]),
            actor: ActorId([2; 16]),
            predecessor: None,
            user: None,
            nonces: Vec::new(),
            device: String::new(),
            token: None,
            now: 0,
        }
    }

    fn open(name: &str) -> Open {
        Open {
            request: 1,
            log: 1,
            name: LogName::new(name).expect("a name"),
            actor: ActorId([2; 16]),
            append: true,
            read: true,
            decided: Seq(0),
            cursor: None,
        }
    }

    fn bind(reply: Mailbox) -> Request {
        let user = UserId::new("alice").expect("a user");
        Request::Bind { hello: Box::new(hello()), user, nonce: Nonce([3; 16]), reply }
    }

    fn started(
        config: &Config,
        store: Writer,
        failed: oneshot::Sender<StoreError>,
    ) -> (WriterHandle, std::thread::JoinHandle<()>) {
        let (jobs, _) = crate::snapshot::jobs();
        let feeds = Arc::new(Feeds::new(config.tail_bytes, config.tails_bytes));
        let (handle, requests) = WriterHandle::new();
        let writer = LogWriter::new(config, Arc::new(System::new()), jobs);
        (handle, start(writer, store, requests, feeds, failed).expect("starts"))
    }

    #[tokio::test]
    async fn a_damaged_log_stops_alone() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let store = Store::open(directory.path(), None).expect("opens");
        let config = Config::new(directory.path(), Access::Development);
        let (failed, _failure) = oneshot::channel();
        let (writer, thread) = started(&config, store.writer().expect("opens"), failed);
        let (mailbox, mut answers) = tokio_mpsc::unbounded_channel();
        writer.send(bind(mailbox.clone()));
        assert!(matches!(answers.recv().await, Some(Answer::Bound(Ok(_)))));
        writer.send(Request::Open { open: open("good"), reply: mailbox.clone() });
        writer.send(Request::Open { open: open("bad"), reply: mailbox.clone() });
        for _ in 0..2 {
            assert!(matches!(answers.recv().await, Some(Answer::Opened(_, Ok(_)))));
        }
        let breaker = rusqlite::Connection::open(directory.path().join("driftlog.sqlite")).expect("opens");
        let log: i64 =
            breaker.query_row("SELECT log FROM logs WHERE name = 'bad'", [], |row| row.get(0)).expect("there");
        let author: i64 = breaker.query_row("SELECT author FROM bindings", [], |row| row.get(0)).expect("there");
        breaker.execute("INSERT INTO actors VALUES (?1, ?2, x'c1', 0)", [log, author]).expect("breaks");
        writer.send(Request::Open { open: open("bad"), reply: mailbox.clone() });
        assert!(matches!(
            answers.recv().await,
            Some(Answer::Opened(_, Err(Refusal { code: Code::StorageFailed, .. })))
        ));
        writer.send(Request::Open { open: open("good"), reply: mailbox });
        assert!(matches!(answers.recv().await, Some(Answer::Opened(_, Ok(_)))));
        writer.send(Request::Stop);
        thread.join().expect("no panic");
    }

    #[tokio::test]
    async fn a_failed_commit_is_answered_to_nobody_and_ends_the_writer() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let store = Store::open(directory.path(), None).expect("opens");
        let config = Config::new(directory.path(), Access::Development);
        let (failed, failure) = oneshot::channel();
        let opened = store.writer().expect("opens");
        let breaker = rusqlite::Connection::open(directory.path().join("driftlog.sqlite")).expect("opens");
        breaker
            .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON bindings BEGIN SELECT RAISE(ABORT, 'disk'); END")
            .expect("breaks");
        let (writer, thread) = started(&config, opened, failed);
        let (mailbox, mut answers) = tokio_mpsc::unbounded_channel();
        writer.send(bind(mailbox));
        assert!(answers.recv().await.is_none(), "no answer");
        assert!(matches!(failure.await, Ok(StoreError::Sqlite(_))));
        thread.join().expect("no panic");
    }
}
