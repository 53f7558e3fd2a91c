//! The engine of one tab: many logs, one identity, and, while the tab leads, the client's one session.
//!
//! Contract: commands (`open`, `act`, `query` …) are what the app does; [`Engine::handle`] takes what happens outside;
//! after either, drain [`Engine::poll`] until it is empty and carry each [`Output`] out. Storage requests carry an id;
//! the answer carries it back. Nothing here waits: an output that takes time is answered by an input.
//!
//! ```text
//!   app ──commands──► Engine ──Output──► store, socket, other tabs, timer, app
//!                       ▲                        │
//!                       └────────Input───────────┘
//! ```

mod act;
mod append;
mod config;
mod folds;
mod identity;
mod load;
mod lookup;
mod parking;
mod presence;
mod pressure;
mod priority;
mod prune;
mod purge;
mod rewind;
mod rights;
mod settling;
mod slots;
mod snapshots;
mod sync;
mod tabs;
mod timers;
mod traps;
mod unstored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::connection::ConnectionState;
use crate::fold::FoldId;
use crate::id::{ActorId, EntryId, LogName, Offset, Seq, WriteId};
use crate::notice::{Connection, LogStatus, Notice, Pressure};
use crate::protocol::frame::Opened;
use crate::random::Random;
use crate::replica::Replica;
use crate::session::client::{ClientSession, Parts, Priority};
use crate::session::link::Link;
use crate::storage::commit::{Commit, CommitAbort, Committed};
use crate::storage::row::{Identity, Verdicts};
use crate::storage::{self, Key, KeyRange, Row};
use crate::time::{Clock, WallMs};
use crate::view::{Schema, View};
use settling::Settling;
use slots::Slots;
use unstored::Unstored;

pub use act::CallError;
pub use config::{Config, OWN_KEPT_BYTES, Resume, Trap};
pub use lookup::{Own, OwnEntry, OwnStatus};
pub use presence::{PresenceTooLarge, Present};
pub use pressure::BacklogFull;
pub use tabs::Hint;

/// Names one request to the store.
pub type RequestId = u64;

/// What happened outside.
#[derive(Debug)]
pub enum Input {
    /// A commit ended.
    Committed(RequestId, Result<Committed, CommitFailure>),
    /// A read ended: one list of rows for each range; or it failed, with the reason.
    Rows(RequestId, Result<Vec<Vec<Row>>, String>),
    /// The socket is open.
    SocketOpened,
    /// A frame came.
    SocketFrame(Vec<u8>),
    /// The socket is closed, by whomever.
    SocketClosed(String),
    /// So many bytes wait in the socket.
    SocketBuffered(usize),
    /// The answer to [`Notice::TokenWanted`]; none: there is no token now.
    Token(Option<String>),
    /// This tab was elected to lead.
    Elected,
    /// This tab no longer leads.
    Unseated,
    /// Another tab said something.
    Hint(Vec<u8>),
    /// The page or the network came back.
    Woken,
    /// The app wants the connection, or wants it off.
    Online(OnlineWish),
    /// The time of the last [`Output::Timeout`] has come.
    Timeout,
    /// The client closes.
    Close,
}

impl Input {
    /// Whether it concerns the logs alone that it names.
    fn is_of_few(&self) -> bool {
        use Input::{Committed, Hint, Rows, SocketBuffered, SocketFrame};
        matches!(self, Committed(..) | Rows(..) | SocketFrame(_) | SocketBuffered(_) | Hint(_))
    }
}

/// Whether the app wants a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnlineWish {
    /// Connect, and stay connected.
    Connected,
    /// Close the socket and stay offline.
    Disconnected,
}

/// Why a commit did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// It decided against itself; nothing was written.
    Aborted(CommitAbort),
    /// No space; nothing was written.
    Full(String),
    /// The store failed; nothing was written.
    Failed(String),
    /// It may be written or not.
    Unknown(String),
}

/// What the shell shall do.
#[derive(Debug)]
pub enum Output {
    /// Commit, and answer with [`Input::Committed`].
    Commit(RequestId, Commit),
    /// Read all ranges at one moment, and answer with [`Input::Rows`].
    Read(RequestId, Vec<KeyRange>),
    /// Open a socket to the server.
    SocketOpen,
    /// Send these bytes as one binary message.
    SocketSend(Vec<u8>),
    /// Close the socket; no more of its events are wanted.
    SocketClose,
    /// Tell with [`Input::SocketBuffered`] when little waits in the socket.
    SocketWatch,
    /// Tell the other tabs.
    Hint(Vec<u8>),
    /// Tell the app.
    Notice(Notice),
    /// A log that the app opened is ready, or cannot be opened for this reason.
    Opened(LogName, Result<(), String>),
    /// The answer to [`Engine::own_entries`] or [`Engine::own_entry`], or why the store did not give it.
    OwnEntries(RequestId, Result<Vec<OwnEntry>, String>),
    /// The engine cannot go on: the store is unusable.
    Broken(String),
    /// Call with [`Input::Timeout`] at this time; it replaces the one before.
    Timeout(WallMs),
}

#[derive(Debug)]
enum Request {
    Trapped,
    Identity,
    Kin,
    Succeed,
    Heritage(LogName),
    RewindRead(LogName),
    Rewind(LogName, Verdicts, bool),
    Lead,
    Greeted,
    Append(LogName),
    AppendOutcome(LogName),
    Receive(LogName),
    /// Through which own seq it has everything.
    Snapshot(LogName, Seq),
    LoadSnapshot(LogName),
    ReloadSnapshot(LogName),
    LoadTail(LogName),
    Refresh(LogName),
    Scan,
    OwnEntries(LogName),
    OwnRun(LogName, WriteId),
    OwnGroup(LogName, WriteId),
    Park(LogName),
    Settle(LogName),
    Discard(LogName, EntryId),
    FoldRead(LogName, FoldId, folds::Reading),
    Fold,
    History(LogName, u64),
    PruneBound(LogName),
    PruneRows(LogName, Key),
    Prune(LogName, Option<Key>),
    PurgeRows(LogName),
    Purge(LogName, purge::Purging),
}

/// Where a log's replica stands in its loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Ready,
}

#[derive(Debug)]
struct Slot {
    replica: Replica,
    phase: Phase,
    /// The schema of an `open` that waits for the loading.
    opening: Option<Schema>,
    refreshing: bool,
    /// The last refresh could not be read.
    refresh_failed: bool,
    /// Something grew while a refresh was under way.
    refresh_again: bool,
    snapshotting: bool,
    /// This tab began to lead: what the last leader stored must be read before anything is asked for.
    catching_up: bool,
    /// Rows behind the cursor do not fit; the next ones received replace them.
    rows_left: bool,
    /// The commit under way replaces them.
    clearing: bool,
    /// What arrived does not fit for now.
    unstored: Option<Unstored>,
    settling: Settling,
    /// Rows of the log are damaged here, and what was in them is not here again yet.
    rows_damaged: bool,
    /// Where the snapshot row that was read last ends.
    snapshot_end: Offset,
    /// Own seqs are being given up.
    parking: bool,
    /// What the server said of a log with own entries that were not read here yet.
    opened: Option<Opened>,
    rewinding: Option<rewind::Rewinding>,
    opened_last: Option<(Opened, Option<Offset>)>,
    /// An unknown outcome is being looked up.
    appends_unknown: bool,
    /// The token of this session gives no right to read the log.
    unreadable: bool,
    /// What the other tabs were told of the status.
    told: Option<(LogStatus, bool)>,
    pressure: pressure::Pressed,
    folds: BTreeMap<FoldId, folds::OpenFold>,
    holes: folds::Holes,
    traps: traps::Known,
    pruned: prune::Pruned,
    purges: purge::Purges,
}

/// The engine of one tab.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    resume: Resume,
    random: Random,
    clock: Clock,
    /// The server's clock minus ours, in milliseconds; none: no server was heard yet.
    clock_offset: Option<i64>,
    now: WallMs,
    acts: u64,
    fold_last: u32,
    identity: Option<Identity>,
    slots: Slots,
    requests: BTreeMap<RequestId, Request>,
    request_last: RequestId,
    /// The leader's epoch, while this tab leads.
    fence: Option<u64>,
    elected: bool,
    /// Logs that any tab wants, as far as the leader heard.
    wanted: BTreeSet<LogName>,
    priorities: BTreeMap<LogName, Priority>,
    wish: OnlineWish,
    link: Link,
    session: Option<ClientSession>,
    /// What the last session left of snapshots.
    parts: BTreeMap<LogName, Parts>,
    socket_open: bool,
    socket_buffered: usize,
    socket_watched: bool,
    /// The token is asked for before the socket opens.
    token_awaited: bool,
    token: Option<String>,
    /// When the leader looks for work by itself.
    scan_at: WallMs,
    /// When what the database failed to do is tried again.
    database_retry_at: WallMs,
    /// The lead could not be taken.
    lead_failed: bool,
    succeeding: Option<identity::Succeeding>,
    connection: Option<Connection>,
    /// How the server keeps this client's connection.
    kept: Option<ConnectionState>,
    presences: presence::Presences,
    told: Option<Connection>,
    pressure_told: Option<Pressure>,
    outputs: VecDeque<Output>,
    timeout: Option<WallMs>,
}

impl Engine {
    /// An engine that has not looked at its database yet.
    pub fn new(config: Config, now: WallMs) -> Self {
        Self::resumed(config, Resume::default(), now)
    }

    /// An engine that takes the place of one that trapped.
    pub fn resumed(config: Config, resume: Resume, now: WallMs) -> Self {
        let wish = if config.connect { OnlineWish::Connected } else { OnlineWish::Disconnected };
        let mut engine = Self {
            random: Random::new(config.seed),
            clock: Clock::default(),
            clock_offset: None,
            now,
            acts: resume.acts,
            fold_last: 0,
            identity: None,
            slots: Slots::default(),
            requests: BTreeMap::new(),
            request_last: 0,
            fence: None,
            elected: false,
            wanted: BTreeSet::new(),
            priorities: BTreeMap::new(),
            wish,
            link: Link::default(),
            session: None,
            parts: BTreeMap::new(),
            socket_open: false,
            socket_buffered: 0,
            socket_watched: false,
            token_awaited: false,
            token: None,
            scan_at: WallMs::MAX,
            database_retry_at: WallMs::MAX,
            lead_failed: false,
            succeeding: None,
            connection: None,
            kept: None,
            presences: presence::Presences::default(),
            told: None,
            pressure_told: None,
            outputs: VecDeque::new(),
            timeout: None,
            config,
            resume,
        };
        engine.begin();
        engine
    }

    /// Opens a log for the app; [`Output::Opened`] tells when it can be used.
    pub fn open(&mut self, name: &LogName, schema: Schema, now: WallMs) {
        self.set_now(now);
        self.slot(name);
        let Some(slot) = self.slots.get_mut(name) else { return };
        match slot.phase {
            Phase::Ready => self.opened(name, schema),
            Phase::Loading => slot.opening = Some(schema),
        }
        self.want(name);
        self.settle();
    }

    /// The app no longer looks at the log. What is pending is shipped all the same.
    pub fn hide(&mut self, name: &LogName) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.replica.hide();
            slot.shut_folds();
        }
    }

    /// The replica of an open log, for reading and queries.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn replica(&mut self, name: &LogName) -> Result<&mut Replica, CallError> {
        match self.slots.get_mut(name) {
            Some(slot) if slot.phase == Phase::Ready => Ok(&mut slot.replica),
            _ => Err(CallError::NotOpen(name.clone())),
        }
    }

    /// Discards a dead letter for good; [`Notice::DeadLetters`] tells when it is gone. What already re-issues it goes on.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn discard(&mut self, name: &LogName, id: EntryId) -> Result<(), CallError> {
        self.replica(name)?;
        let key = storage::dead_letter_key(name, id.actor, id.seq);
        self.commit(Request::Discard(name.clone(), id), Commit::Discard { key });
        Ok(())
    }

    /// The database's identity, once it is read.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The client's connection, as this tab knows it.
    pub fn connection(&self) -> Connection {
        if self.elected || self.connection.is_none() {
            self.own_connection()
        } else {
            self.connection.clone().unwrap_or_else(|| self.own_connection())
        }
    }

    /// Takes what happened outside.
    pub fn handle(&mut self, input: Input, now: WallMs) {
        self.set_now(now);
        if !input.is_of_few() {
            self.slots.touch_all();
        }
        match input {
            Input::Committed(id, result) => self.committed(id, result),
            Input::Rows(id, result) => self.rows(id, result),
            Input::SocketOpened => self.socket_opened(),
            Input::SocketFrame(bytes) => self.socket_frame(&bytes),
            Input::SocketClosed(reason) => self.socket_closed(&reason),
            Input::SocketBuffered(bytes) => (self.socket_buffered, self.socket_watched) = (bytes, false),
            Input::Token(token) => self.token_given(token),
            Input::Elected => self.elected(),
            Input::Unseated => self.unseated(),
            Input::Hint(bytes) => self.hinted(&bytes),
            Input::Woken => self.woken(),
            Input::Online(wish) => self.wished(wish),
            Input::Timeout => self.timed_out(),
            Input::Close => self.closed(),
        }
        self.settle();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// After every event: start what can start, tell what is new, set the timer.
    fn settle(&mut self) {
        self.slots.begin_turn();
        self.settle_succession();
        self.append_groups();
        self.store_arrivals();
        self.push_outboxes();
        self.settle_pressure();
        self.settle_folds();
        self.settle_refusals();
        self.settle_purges();
        self.settle_rests();
        self.send_presence();
        self.flush_control();
        self.take_notices();
        self.tell_statuses();
        self.tell_connection();
        self.tell_pressure();
        self.set_timeout();
    }

    fn take_notices(&mut self) {
        let outputs = &mut self.outputs;
        self.slots.turn_mut(|_, slot| outputs.extend(slot.replica.take_notices().into_iter().map(Output::Notice)));
    }

    fn committed(&mut self, id: RequestId, result: Result<Committed, CommitFailure>) {
        let Some(request) = self.requests.remove(&id) else { return };
        match (request, result) {
            // Not counted if it failed; what traps again is counted then.
            (Request::Trapped, _) => self.identify(),
            (Request::Identity | Request::Greeted, Ok(Committed::Identity(identity))) => self.identified(identity),
            (Request::Identity, Err(failure)) => {
                self.outputs.push_back(Output::Broken(format!("the local database cannot be read: {failure:?}")));
            }
            (Request::Lead, Ok(Committed::Lead(epoch, identity))) => {
                self.identified(identity);
                self.leading(epoch);
            }
            (Request::Rewind(name, verdicts, rebuild), result) => self.rewind_ended(&name, verdicts, rebuild, result),
            (Request::Succeed, result) => self.succession_ended(result),
            (Request::Append(name), Ok(Committed::Appended(entries))) => self.appended(&name, &entries),
            (Request::Append(name), Err(failure)) => self.append_failed(&name, failure),
            (Request::Receive(name), Ok(_)) => self.received(&name),
            (Request::Receive(name), Err(failure)) => self.receive_failed(&name, failure),
            (Request::History(name, cost), Ok(_)) => self.history_stored(&name, cost),
            (Request::History(name, _), Err(failure)) => self.history_failed(&name, failure),
            (Request::Snapshot(name, covered), result) => {
                self.snapshot_stored(&name, result.is_ok().then_some(covered))
            }
            (Request::Prune(name, more), result) => self.pruned(&name, more.filter(|_| result.is_ok())),
            (Request::Purge(name, purging), result) => self.purged(&name, purging, result.is_ok()),
            (Request::Park(name), Ok(Committed::Parked(voids, letters))) => self.parked(&name, &voids, letters),
            (Request::Park(name), _) => self.park_failed(&name),
            (Request::Settle(name), result) => self.settled(&name, result),
            (Request::Lead, Err(CommitFailure::Aborted(CommitAbort::Damaged(error)))) => {
                self.outputs.push_back(Output::Broken(format!("the local database is damaged: {error}")));
            }
            (Request::Lead, Err(_)) => {
                self.lead_failed = true;
                self.retry_database();
            }
            (Request::Discard(name, id), Ok(_)) => {
                if let Some(slot) = self.slots.get_mut(&name) {
                    slot.replica.discard_letters(&[id]);
                }
                self.hint(&Hint::Grew(name));
            }
            (_, Err(CommitFailure::Aborted(CommitAbort::Deposed { .. }))) => self.unseated(),
            _ => {}
        }
    }

    fn rows(&mut self, id: RequestId, result: Result<Vec<Vec<Row>>, String>) {
        let Some(request) = self.requests.remove(&id) else { return };
        match (request, result) {
            (Request::LoadSnapshot(name), Ok(rows)) => self.snapshot_loaded(&name, rows),
            (Request::ReloadSnapshot(name), Ok(rows)) => self.snapshot_reloaded(&name, rows),
            (Request::LoadTail(name), Ok(rows)) => self.tail_loaded(&name, rows),
            (Request::Refresh(name), Ok(rows)) => self.refreshed(&name, rows),
            (Request::AppendOutcome(name), Ok(rows)) => self.unknown_resolved(&name, rows),
            (Request::Scan, Ok(rows)) => self.scanned(rows),
            (Request::RewindRead(name), rows) => self.rewind_read(&name, rows),
            (Request::Kin, rows) => self.kin_read(rows.ok().as_deref()),
            (Request::Heritage(name), Ok(rows)) => self.heritage_read(&name, rows),
            (Request::Heritage(name), Err(_)) => self.read_heritage(&name),
            (Request::OwnEntries(name), Ok(rows)) => self.own_entries_read(id, &name, rows),
            (Request::OwnRun(name, write), Ok(rows)) => self.own_run_read(id, name, write, &rows),
            (Request::OwnGroup(name, write), Ok(rows)) => self.own_group_read(id, &name, write, rows),
            (Request::LoadSnapshot(name) | Request::LoadTail(name), Err(reason)) => self.load_failed(&name, reason),
            (Request::Refresh(name), Err(_)) => self.refresh_failed(&name),
            (Request::AppendOutcome(name), Err(_)) => self.look_for_append(&name),
            (Request::OwnEntries(_) | Request::OwnRun(..) | Request::OwnGroup(..), Err(reason)) => {
                self.outputs.push_back(Output::OwnEntries(id, Err(reason)));
            }
            (Request::PruneBound(name), rows) => self.prune_bound_read(&name, rows.unwrap_or_default()),
            (Request::PruneRows(name, bound), rows) => self.prune_rows_read(&name, bound, rows.unwrap_or_default()),
            (Request::PurgeRows(name), rows) => self.purge_rows_read(&name, rows.ok()),
            (Request::FoldRead(name, id, reading), rows) => self.fold_answered((&name, id), reading, rows),
            _ => {}
        }
    }

    fn commit(&mut self, request: Request, commit: Commit) {
        let id = self.request(request);
        self.outputs.push_back(Output::Commit(id, commit));
    }

    fn read(&mut self, request: Request, ranges: Vec<KeyRange>) -> RequestId {
        let id = self.request(request);
        self.outputs.push_back(Output::Read(id, ranges));
        id
    }

    fn request(&mut self, request: Request) -> RequestId {
        self.request_last += 1;
        self.requests.insert(self.request_last, request);
        self.request_last
    }

    fn actor(&self) -> ActorId {
        self.identity.as_ref().map_or(self.config.actor, |identity| identity.actor)
    }

    fn opened(&mut self, name: &LogName, schema: Schema) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if !slot.replica.is_shown() {
            slot.replica.show(View::new(schema));
        }
        self.outputs.push_back(Output::Opened(name.clone(), Ok(())));
    }

    fn closed(&mut self) {
        let act = self.link.close();
        self.link_act(act);
        self.elected = false;
        self.fence = None;
    }

    fn set_status_all(&mut self, status: LogStatus) {
        for slot in self.slots.values_mut() {
            slot.replica.set_status(status, "");
        }
    }
}
