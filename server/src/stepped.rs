//! The server one step at a time: the same decisions, without sockets, threads, a clock or entropy.
//!
//! Sessions are numbers, frames are bytes in and bytes out, time and seed are given, and each thing that a running
//! server does by itself (a group commit, a read of the store, a snapshot, a deadline) is a call. The same calls give
//! the same bytes. Simulations run it, and whoever embeds the server into a shell of their own.
//!
//! ```text
//!   connect ─► receive ─► commit ─► answer ─► poll_frame
//! ```
//!
//! **Invariant:** what [`Server::commit`] wrote is durable before [`Server::answer`] lets anybody hear of it. Dropping
//! the server between any two calls is a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use driftlog_core::chain::Cursor;
use driftlog_core::connection::ConnectionId;
use driftlog_core::entry::Logged;
use driftlog_core::id::{ClientId, EpochId, LogId, LogName, Offset, UserId};
use driftlog_core::protocol::Code;
use driftlog_core::random::Random;
use driftlog_core::time::WallMs;
use tokio::sync::oneshot;

use crate::Shared;
use crate::config::Config;
use crate::connections::Connections;
use crate::conversation::{Conversation, Inbox, Sessions, StoreRead};
use crate::environment::Environment;
use crate::erasing::{self, EraseError, Erased};
use crate::fanout::Feeds;
use crate::gate::{Gate, Stage};
use crate::ledger::{self, Target};
use crate::presence::Presences;
use crate::retention::Pins;
use crate::room::Room;
use crate::snapshot::{self, Job, Maker};
use crate::store::{ReadPool, Store, StoreError, Writer};
use crate::writer::{Committed, LetterRequest, LogWriter, Request, Work, WriterHandle};

/// Entries read from the store at once by [`Server::entries`].
const READ_BYTES: usize = 1024 * 1024;

/// A session's number, never given twice by one server.
pub type SessionNumber = u64;

/// The time that a server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// What the wall clock shows, in milliseconds since 1970; it may jump.
    pub wall: WallMs,
    /// The time for deadlines, in milliseconds since 1970; it never steps back.
    pub steady: WallMs,
}

/// A server that moves only when it is called.
pub struct Server {
    shared: Arc<Shared>,
    environment: Arc<Given>,
    requests: mpsc::Receiver<Work>,
    writer: LogWriter,
    store: Writer,
    jobs: mpsc::Receiver<Job>,
    maker: Maker,
    sessions: BTreeMap<SessionNumber, Session>,
    session_last: SessionNumber,
    untold: Vec<Committed>,
}

struct Session {
    conversation: Conversation,
    inbox: Inbox,
    reading: Option<StoreRead>,
}

/// A snapshot that is made and not stored yet, or entries that may go and are still there.
pub struct MadeSnapshot(Option<Request>);

/// What an operator ordered to be erased.
#[derive(Debug, Clone)]
pub struct Order(ledger::Order);

/// Who a log is.
#[derive(Debug, Clone, PartialEq)]
pub struct LogIdentity {
    /// Its id.
    pub log_id: LogId,
    /// Every epoch of its history, with the first offset of each.
    pub epochs: Vec<(EpochId, Offset)>,
}

impl Server {
    /// Opens the store of a configuration and starts.
    ///
    /// # Errors
    /// [`StoreError`]: it does not start.
    pub fn open(config: Config, now: Moment, seed: [u8; 32]) -> Result<Self, StoreError> {
        let store = Store::open(&config.directory, config.vfs.as_deref())?;
        let writer_store = store.writer()?;
        let environment = Arc::new(Given {
            wall: AtomicU64::new(now.wall),
            steady: AtomicU64::new(now.steady),
            random: Mutex::new(Random::new(seed)),
        });
        let (jobs, waiting) = snapshot::jobs();
        let (handle, requests) = WriterHandle::new();
        let writer = LogWriter::new(&config, Arc::clone(&environment) as Arc<dyn Environment>, jobs);
        let (pool, pins) = (Arc::new(ReadPool::new(store)), Arc::<Pins>::default());
        let active = pool.read(|reads| reads.active_connections())?;
        let given = Arc::clone(&environment) as Arc<dyn Environment>;
        let connections = Connections::new(&config.connections, given, handle.clone(), active);
        let maker = Maker {
            rerooting: config.rerooting,
            pool: Arc::clone(&pool),
            environment: Arc::clone(&environment) as Arc<dyn Environment>,
            retention: config.retention.clone(),
            pins: Arc::clone(&pins),
        };
        let shared = Arc::new(Shared {
            environment: Arc::clone(&environment) as Arc<dyn Environment>,
            // Nothing runs by itself here, so no other process can be waited for either.
            gate: Stage::new(&Gate::InProcess, handle.clone()),
            writer: handle,
            room: Room::new(config.room_bytes),
            feeds: Arc::new(Feeds::new(config.tail_bytes, config.tails_bytes)),
            pool,
            pins,
            sessions: Sessions::default(),
            connections: Arc::new(connections),
            presences: Presences::default(),
            letters_dropped: writer.letters_dropped(),
            ledger: None,
            config,
        });
        Ok(Self {
            shared,
            environment,
            requests,
            writer,
            store: writer_store,
            jobs: waiting,
            maker,
            sessions: BTreeMap::new(),
            session_last: 0,
            untold: Vec::new(),
        })
    }

    /// Tells the time. Deadlines that have come are not handled by this: see [`Server::handle_timeout`].
    pub fn set_time(&mut self, now: Moment) {
        self.environment.wall.store(now.wall, Ordering::Relaxed);
        self.environment.steady.fetch_max(now.steady, Ordering::Relaxed);
    }

    /// A socket opened.
    pub fn connect(&mut self) -> SessionNumber {
        self.session_last += 1;
        let (conversation, inbox) = Conversation::new(Arc::clone(&self.shared));
        self.sessions.insert(self.session_last, Session { conversation, inbox, reading: None });
        self.session_last
    }

    /// One message arrived on a socket. A session that has ended hears nothing any more.
    pub fn receive(&mut self, session: SessionNumber, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.conversation.receive(bytes);
            session.drain();
        }
    }

    /// A socket is closed, by whomever. What it pushed is committed all the same.
    pub fn disconnect(&mut self, session: SessionNumber) {
        self.sessions.remove(&session);
    }

    /// Commits what waits, as one group; none if nothing waits. It is durable when this returns, and not answered.
    ///
    /// # Errors
    /// [`StoreError`]: drop the server, as a process would end; nothing of the group was said to anybody.
    pub fn commit(&mut self) -> Result<Option<()>, StoreError> {
        let Ok(first) = self.requests.try_recv() else { return Ok(None) };
        let committed = self.writer.commit(&mut self.store, std::iter::once(first).chain(self.requests.try_iter()))?;
        self.untold.push(committed);
        Ok(Some(()))
    }

    /// Lets sessions hear of what was committed.
    pub fn answer(&mut self) {
        for committed in self.untold.drain(..) {
            committed.tell(&self.shared.feeds);
        }
        self.sessions.values_mut().for_each(Session::hear);
        // What one session heard may end another.
        self.sessions.values_mut().for_each(Session::hear);
    }

    /// Answers every read of the store that a session waits for; how many there were.
    pub fn read(&mut self) -> usize {
        let mut count = 0;
        for session in self.sessions.values_mut() {
            while let Some(read) = session.reading.take() {
                count += 1;
                let found = self.shared.pool.read(|reads| read.run(reads));
                session.conversation.found(read.request(), found);
                session.drain();
            }
        }
        count
    }

    /// The next frame for a session's socket; ask whenever the socket takes one.
    pub fn poll_frame(&mut self, session: SessionNumber) -> Option<Arc<[u8]>> {
        let session = self.sessions.get_mut(&session)?;
        let frame = session.conversation.poll_frame();
        session.drain();
        frame
    }

    /// Whether a session has ended: send what [`Server::poll_frame`] still gives and close the socket.
    pub fn is_closed(&self, session: SessionNumber) -> bool {
        self.sessions.get(&session).is_none_or(|session| session.conversation.is_closed())
    }

    /// When [`Server::handle_timeout`] wants to be called, in steady time.
    pub fn timeout(&self) -> Option<WallMs> {
        let live = self.sessions.values().filter(|session| !session.conversation.is_closed());
        live.map(|session| session.conversation.timeout()).min()
    }

    /// Handles every deadline that has come.
    pub fn handle_timeout(&mut self) {
        let now = self.environment.steady();
        for session in self.sessions.values_mut() {
            if session.conversation.timeout() <= now {
                session.conversation.handle_timeout();
                session.drain();
            }
        }
    }

    /// Looks how far every connection is behind, downgrades whom the policy names, and hands what is to be written of
    /// them to the next commit. A running server does it from time to time.
    ///
    /// # Errors
    /// [`StoreError`]: the next one finds what this did not.
    pub fn sweep(&mut self) -> Result<(), StoreError> {
        self.shared.connections.sweep(&self.shared.pool)?;
        self.sessions.values_mut().for_each(Session::hear);
        Ok(())
    }

    /// An operator downgrades a client's connection; whether it was active.
    pub fn downgrade(&mut self, user: UserId, client: ClientId, away_ms: Option<u64>) -> bool {
        let was_active = self.shared.connections.ask_to_go(&ConnectionId { user, client }, away_ms);
        self.sessions.values_mut().for_each(Session::hear);
        was_active
    }

    /// Has what is over taken out, with the next commit. A running server does it from time to time.
    pub fn purge(&self) {
        self.shared.writer.send(Request::Purge(oneshot::channel().0));
    }

    /// An operator erases. What comes back is the order: it is for the caller to keep, outside what it backs up, and to
    /// give to [`Server::order`] with every start, as a running server does with its ledger.
    ///
    /// # Errors
    /// [`EraseError`]: nothing was erased.
    pub fn erase(&self, erased: Erased) -> Result<Order, EraseError> {
        let mut ordered = Err(EraseError::Unknown);
        self.shared.pool.read(|reads| {
            ordered = erasing::order(reads, &*self.environment, None, erased);
            Ok(())
        })?;
        let order = Order(ordered?);
        self.order(&order);
        if let Target::Authors(actors) = &order.0.target {
            self.shared.sessions.end_all(actors);
        }
        Ok(order)
    }

    /// Takes an order in with the next commit, unless it was before.
    pub fn order(&self, order: &Order) {
        self.shared.writer.send(Request::Erase(order.0.clone(), oneshot::channel().0));
    }

    /// Whether every erase that was ordered is carried out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_erased(&self) -> Result<bool, StoreError> {
        self.shared.pool.read(|reads| Ok(reads.erasures(true)?.is_empty()))
    }

    /// Says go-away to every session, as a server does that ends in good order: commit and answer first.
    pub fn end(&mut self) {
        for session in self.sessions.values_mut() {
            session.conversation.go_away(Code::ShuttingDown);
            session.drain();
        }
    }

    /// Makes the next snapshot that was asked for, or looks up what may be truncated, from what the store holds now;
    /// none if nothing was asked for.
    ///
    /// # Errors
    /// [`StoreError`]: that is not done; the server goes on.
    pub fn make_snapshot(&mut self) -> Result<Option<MadeSnapshot>, StoreError> {
        let Ok(job) = self.jobs.try_recv() else { return Ok(None) };
        self.maker.carry_out(job).map(|request| Some(MadeSnapshot(request)))
    }

    /// Hands a snapshot, or what may be truncated, to the next commit.
    pub fn store_snapshot(&mut self, made: MadeSnapshot) {
        if let Some(request) = made.0 {
            self.shared.writer.send(request);
        }
    }

    /// The dead letters of a log that nobody has dealt with, ascending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn letters(&self, name: &LogName) -> Result<Vec<u64>, StoreError> {
        let letters = self.shared.pool.read(|reads| reads.letters_after(Some(name), 0, usize::MAX >> 1))?;
        let open = letters.iter().filter(|letter| letter.refused.as_ref().is_none_or(|entry| entry.replaced.is_none()));
        Ok(open.map(|letter| letter.id).collect())
    }

    /// An operator lets a dead letter in again, with the next commit. What came of it shows in the log and the letters.
    pub fn redrive(&self, letter: u64) {
        self.shared.writer.send(Request::Letter(LetterRequest::Redrive(letter, oneshot::channel().0)));
    }

    /// Who a log is; none if nobody has opened it yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn log(&self, name: &LogName) -> Result<Option<LogIdentity>, StoreError> {
        self.shared.pool.read(|reads| {
            let Some(log) = reads.log(name)? else { return Ok(None) };
            Ok(Some(LogIdentity { log_id: log.log_id, epochs: reads.epochs(&log)? }))
        })
    }

    /// Before the first entry of a log that is kept; none if nobody has opened it yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn first_kept(&self, name: &LogName) -> Result<Option<Cursor>, StoreError> {
        self.shared.pool.read(|reads| match reads.log(name)? {
            Some(log) => Ok(Some(reads.kept(&log)?.first)),
            None => Ok(None),
        })
    }

    /// How many bytes the stored snapshots of a log take.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn snapshot_bytes(&self, name: &LogName) -> Result<u64, StoreError> {
        self.shared.pool.read(|reads| {
            let Some(log) = reads.log(name)? else { return Ok(0) };
            let (snapshots, _) = reads.snapshots(log.key)?;
            snapshots.into_iter().map(|snapshot| reads.snapshot_bytes(snapshot)).sum()
        })
    }

    /// Durable entries of a log from an offset on, each with the cursor behind it; a part of them if they are many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn entries(&self, name: &LogName, from: Offset) -> Result<Vec<(Logged, Cursor)>, StoreError> {
        self.shared.pool.read(|reads| {
            let Some(log) = reads.log(name)? else { return Ok(Vec::new()) };
            reads.entries(&log, from, usize::MAX >> 1, READ_BYTES)
        })
    }
}

impl Session {
    fn hear(&mut self) {
        while let Ok(answer) = self.inbox.answers.try_recv() {
            self.conversation.answered(answer);
        }
        let grown = self.inbox.waker.take_grown();
        if !grown.is_empty() && !self.conversation.is_closed() {
            self.conversation.grown(grown);
        }
        while let Ok(ending) = self.inbox.ending.try_recv() {
            self.conversation.ended(ending);
        }
        self.drain();
    }

    fn drain(&mut self) {
        if let Some(read) = self.conversation.drain() {
            self.reading = Some(read);
        }
    }
}

/// The time and the randomness that a stepped server is given.
struct Given {
    wall: AtomicU64,
    steady: AtomicU64,
    random: Mutex<Random>,
}

impl Environment for Given {
    fn now(&self) -> WallMs {
        self.wall.load(Ordering::Relaxed)
    }

    fn steady(&self) -> WallMs {
        self.steady.load(Ordering::Relaxed)
    }

    fn random(&self) -> [u8; 32] {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Access;
    use driftlog_core::id::{ActorId, ClientId};
    use driftlog_core::protocol::frame::{Frame, Hello};

    fn hello() -> Vec<u8> {
        Frame::Hello(Hello {
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
        })
        .encode()
    }

    /// What a server says to a hello, before its commit, after it, and once it may answer.
    fn greet(seed: u8) -> [Option<Vec<u8>>; 3] {
        let directory = tempfile::TempDir::new().expect("a directory");
        let config = Config::new(directory.path(), Access::Development);
        let now = Moment { wall: 1_000, steady: 1_000 };
        let mut server = Server::open(config, now, [seed; 32]).expect("opens");
        let session = server.connect();
        server.receive(session, &hello());
        let said = |server: &mut Server| server.poll_frame(session).map(|frame| frame.to_vec());
        let before = said(&mut server);
        server.commit().expect("commits").expect("something waited");
        let durable = said(&mut server);
        server.answer();
        [before, durable, said(&mut server)]
    }

    #[test]
    fn nothing_is_said_before_it_is_durable_and_told() {
        let [before, durable, told] = greet(1);
        assert_eq!((before, durable), (None, None));
        assert!(matches!(Frame::decode(&told.expect("an answer")), Ok(Frame::Welcome(_))));
    }

    #[test]
    fn the_same_seed_says_the_same_and_another_does_not() {
        assert_eq!(greet(1), greet(1));
        assert_ne!(greet(1), greet(2), "the nonce is drawn from the seed");
    }

    #[test]
    fn deadlines_are_handled_when_they_are_called() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let config = Config::new(directory.path(), Access::Development);
        let mut server = Server::open(config, Moment { wall: 0, steady: 0 }, [1; 32]).expect("opens");
        let session = server.connect();
        let due = server.timeout().expect("a silent session has a deadline");
        server.set_time(Moment { wall: 0, steady: due });
        server.handle_timeout();
        assert!(server.poll_frame(session).is_some(), "it asks whether somebody is there");
        server.set_time(Moment { wall: 0, steady: 10 * due });
        server.handle_timeout();
        assert!(server.is_closed(session));
    }
}
