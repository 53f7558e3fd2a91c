//! A device: one database, the tabs that share it, a clock of its own, and the user's tokens.
//!
//! A tab is the real engine; this is its shell, as the browser's is: requests to the database run in order and take
//! time, one tab holds the lock and leads, tabs hint to each other, a frozen tab hears nothing until it thaws.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use driftlog_core::engine::{Config, Engine, Input, OnlineWish, Output, RequestId};
use driftlog_core::id::{ActorId, ClientId, EntryId, LogName, RunId, WriteId};
use driftlog_core::notice::{Connection, Notice, WriteStatus};
use driftlog_core::outbox::BacklogBound;
use driftlog_core::session::client::Priority;
use driftlog_core::session::link::LinkState;
use driftlog_core::storage::KeyRange;
use driftlog_core::storage::commit::{Commit, Committed};

use super::board;
use super::network::SocketNumber;
use super::trace::note;
use super::weather::{between, chance};
use super::world::{Event, World};
use crate::database::{Database, Fault};

/// Names a device within one run.
pub type DeviceNumber = usize;
/// Names a tab; never given twice.
pub type TabNumber = u64;

/// A leader that is silent for so long is replaced, in milliseconds.
const SILENCE_MS_MAX: u64 = 15_000;
/// How long an app takes to come back with a token, in milliseconds.
const TOKEN_MS: (u64, u64) = (5, 200);

/// Whether a device reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It does.
    On,
    /// It knows that it does not: sockets fail at once.
    Off,
    /// Nothing arrives and nobody says so.
    BlackHole,
}

/// One device.
pub struct Device {
    /// For the trace.
    pub name: String,
    /// Who signs in.
    pub user: String,
    /// Its disk.
    pub database: Database,
    /// Its logs: every tab opens them.
    pub logs: Vec<LogName>,
    /// Milliseconds that its clock is ahead of the true time.
    pub clock_ms: i64,
    /// Whether it reaches the server.
    pub network: Network,
    /// Up to so many milliseconds more for each frame.
    pub clogged_ms: u64,
    /// Whether the app wants a connection.
    pub wish: OnlineWish,
    /// How long its tokens are good for, in milliseconds.
    pub token_ms: u64,
    /// Another copy of its profile is about.
    pub copied: bool,
    pub(super) tabs: BTreeMap<TabNumber, Tab>,
    pub(super) held: Vec<Event>,
    /// Rows of which a bit has flipped.
    pub(super) flipped: BTreeSet<Vec<u8>>,
    leader: Option<TabNumber>,
    requests: VecDeque<(TabNumber, Request)>,
    free_at: u64,
}

enum Request {
    Commit(RequestId, Box<Commit>),
    Read(RequestId, Vec<KeyRange>),
}

/// One tab.
pub struct Tab {
    pub(super) engine: Engine,
    pub(super) opened: BTreeSet<LogName>,
    /// Actions of this tab in each log: how many, and how many of them are told the end of.
    pub(super) writes: BTreeMap<(LogName, WriteId), bool>,
    frozen: bool,
    /// What it has read for a log that it opens may be old.
    was_frozen: bool,
    inbox: VecDeque<Input>,
    inbox_bytes: usize,
    socket: Option<SocketNumber>,
    timer: u64,
}

impl Device {
    pub(super) fn new(name: &str, user: &str, database: Database) -> Self {
        Self {
            name: name.to_owned(),
            user: user.to_owned(),
            database,
            logs: Vec::new(),
            clock_ms: 0,
            network: Network::On,
            clogged_ms: 0,
            wish: OnlineWish::Connected,
            token_ms: 60 * 60_000,
            copied: false,
            tabs: BTreeMap::new(),
            held: Vec::new(),
            flipped: BTreeSet::new(),
            leader: None,
            requests: VecDeque::new(),
            free_at: 0,
        }
    }

    /// Its tabs, oldest first.
    pub fn tabs(&self) -> Vec<TabNumber> {
        self.tabs.keys().copied().collect()
    }

    /// Its tabs that are awake, oldest first.
    pub fn awake(&self) -> Vec<TabNumber> {
        self.tabs.iter().filter(|(_, tab)| !tab.frozen).map(|(number, _)| *number).collect()
    }

    /// Whether a tab is frozen.
    pub fn is_frozen(&self, tab: TabNumber) -> bool {
        self.tabs.get(&tab).is_some_and(|tab| tab.frozen)
    }

    /// The tab that leads, as the lock says.
    pub fn leader(&self) -> Option<TabNumber> {
        self.leader
    }

    /// A tab's engine.
    ///
    /// # Panics
    /// If there is no such tab.
    pub fn engine(&mut self, tab: TabNumber) -> &mut Engine {
        &mut self.tabs.get_mut(&tab).expect("an open tab").engine
    }
}

impl World {
    /// Opens a tab, which opens the device's logs.
    pub fn open_tab(&mut self, device: DeviceNumber) -> TabNumber {
        self.tab_last += 1;
        let number = self.tab_last;
        let config = Config {
            run: RunId(self.random.bytes()),
            client: ClientId(self.random.bytes()),
            actor: ActorId(self.random.bytes()),
            seed: self.random.bytes(),
            device: self.devices[device].name.clone(),
            connect: self.devices[device].wish == OnlineWish::Connected,
            token: true,
            backlog: BacklogBound::default(),
            // Little, so that own entries go as soon as they may.
            own_kept_bytes: 256,
        };
        let now = self.device_now(device);
        let tab = Tab {
            engine: Engine::new(config, now),
            opened: BTreeSet::new(),
            writes: BTreeMap::new(),
            frozen: false,
            was_frozen: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            socket: None,
            timer: 0,
        };
        self.devices[device].tabs.insert(number, tab);
        note!(self, "{} opens tab {number}", self.devices[device].name);
        for log in self.devices[device].logs.clone() {
            self.devices[device].engine(number).open(&log, board::schema(), now);
        }
        self.drain_tab(device, number);
        self.schedule(1, Event::Elect(device));
        number
    }

    /// Ends a tab without a good-bye. What it asked of the database may still happen.
    pub fn kill_tab(&mut self, device: DeviceNumber, tab: TabNumber) {
        let Some(ended) = self.devices[device].tabs.remove(&tab) else { return };
        note!(self, "{} loses tab {tab}", self.devices[device].name);
        if let Some(socket) = ended.socket {
            self.socket_close(socket);
        }
        if self.random.below(2) == 0 {
            self.devices[device].requests.retain(|(of, _)| *of != tab);
        }
        if self.devices[device].leader == Some(tab) {
            self.devices[device].leader = None;
            self.schedule(5, Event::Elect(device));
        }
    }

    /// The device's power goes: tabs are gone, and of what was not flushed a beginning stays.
    pub fn lose_power(&mut self, device: DeviceNumber) {
        for tab in self.devices[device].tabs() {
            self.kill_tab(device, tab);
        }
        self.devices[device].requests.clear();
        let unflushed = self.devices[device].database.unflushed();
        let kept = self.random.below(unflushed as u64 + 1) as usize;
        self.devices[device].database.lose_power(kept);
        note!(self, "{} loses power; {kept} of {unflushed} late commits stay", self.devices[device].name);
    }

    /// A tab hears nothing until it thaws.
    pub fn freeze(&mut self, device: DeviceNumber, tab: TabNumber) {
        let Some(frozen) = self.devices[device].tabs.get_mut(&tab) else { return };
        (frozen.frozen, frozen.was_frozen) = (true, true);
        note!(self, "{} freezes tab {tab}", self.devices[device].name);
        self.schedule(SILENCE_MS_MAX, Event::Elect(device));
    }

    /// A frozen tab hears all that happened meanwhile.
    pub fn thaw(&mut self, device: DeviceNumber, tab: TabNumber) {
        let leader = self.devices[device].leader;
        let Some(thawed) = self.devices[device].tabs.get_mut(&tab) else { return };
        if !std::mem::take(&mut thawed.frozen) {
            return;
        }
        thawed.inbox_bytes = 0;
        let mut inbox = std::mem::take(&mut thawed.inbox);
        // The lock was taken from it meanwhile.
        if leader != Some(tab) {
            inbox.push_front(Input::Unseated);
        }
        inbox.push_back(Input::Woken);
        note!(self, "{} thaws tab {tab}", self.devices[device].name);
        for input in inbox {
            self.give_tab(device, tab, input);
        }
        self.schedule(1, Event::Elect(device));
    }

    /// The lock is given to the first tab that waits for it, if it is free or its holder was silent for too long.
    pub(super) fn elect(&mut self, device: DeviceNumber) {
        let state = &self.devices[device];
        let held = state.leader.and_then(|leader| state.tabs.get(&leader));
        if held.is_some_and(|tab| !tab.frozen) {
            return;
        }
        let next = state.awake().first().copied();
        // Nobody wants the lock of a frozen tab.
        let Some(next) = next else { return };
        self.devices[device].leader = Some(next);
        note!(self, "{} elects tab {next}", self.devices[device].name);
        self.give_tab(device, next, Input::Elected);
    }

    /// The app wants the connection on or off.
    pub fn wish(&mut self, device: DeviceNumber, wish: OnlineWish) {
        self.devices[device].wish = wish;
        note!(self, "{} wants to be {wish:?}", self.devices[device].name);
        if let Some(tab) = self.devices[device].awake().first().copied() {
            self.give_tab(device, tab, Input::Online(wish));
        }
    }

    /// The app says in a tab how much of the way a log gets.
    pub fn prioritize(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName, priority: Priority) {
        let now = self.device_now(device);
        self.devices[device].engine(tab).prioritize(log, priority, now);
        self.drain_tab(device, tab);
    }

    /// Changes how the device reaches the server.
    pub fn set_network(&mut self, device: DeviceNumber, network: Network) {
        self.devices[device].network = network;
        note!(self, "{}: network {network:?}", self.devices[device].name);
        if network != Network::BlackHole {
            for event in std::mem::take(&mut self.devices[device].held) {
                self.schedule(1, event);
            }
        }
        match network {
            Network::Off => {
                for socket in self.sockets.of_device(device) {
                    self.cut(socket, super::network::Cut::Told);
                }
            }
            Network::On => {
                for tab in self.devices[device].awake() {
                    self.give_tab(device, tab, Input::Woken);
                }
            }
            Network::BlackHole => {}
        }
    }

    /// Something happened to a tab.
    pub(super) fn give_tab(&mut self, device: DeviceNumber, tab: TabNumber, input: Input) {
        let now = self.device_now(device);
        let Some(receiver) = self.devices[device].tabs.get_mut(&tab) else { return };
        if receiver.frozen {
            if let Input::SocketFrame(bytes) = &input {
                receiver.inbox_bytes += bytes.len();
                let waiting = receiver.inbox_bytes;
                self.checker.page_holds(&self.devices[device].name, waiting);
            }
            let receiver = self.devices[device].tabs.get_mut(&tab).expect("looked up above");
            receiver.inbox.push_back(input);
            return;
        }
        receiver.engine.handle(input, now);
        self.drain_tab(device, tab);
    }

    /// A timer of a tab has run down.
    pub(super) fn tab_timer(&mut self, device: DeviceNumber, tab: TabNumber, timer: u64) {
        if self.devices[device].tabs.get(&tab).is_some_and(|tab| tab.timer == timer) {
            self.give_tab(device, tab, Input::Timeout);
        }
    }

    /// The browser tells a tab that its socket is over.
    pub(super) fn tab_lost_socket(&mut self, device: DeviceNumber, tab: TabNumber, socket: SocketNumber) {
        let Some(loser) = self.devices[device].tabs.get_mut(&tab) else { return };
        if loser.socket == Some(socket) {
            loser.socket = None;
            self.give_tab(device, tab, Input::SocketClosed("the socket closed".into()));
        }
    }

    /// Carries out what a tab's engine wants.
    pub(super) fn drain_tab(&mut self, device: DeviceNumber, tab: TabNumber) {
        while let Some(output) = self.devices[device].tabs.get_mut(&tab).and_then(|tab| tab.engine.poll()) {
            self.carry_out(device, tab, output);
        }
    }

    fn carry_out(&mut self, device: DeviceNumber, tab: TabNumber, output: Output) {
        match output {
            Output::Commit(id, commit) => self.ask_database(device, tab, Request::Commit(id, Box::new(commit))),
            Output::Read(id, ranges) => self.ask_database(device, tab, Request::Read(id, ranges)),
            Output::SocketOpen => {
                let socket = self.socket_open(device, tab);
                self.tab_mut(device, tab).socket = Some(socket);
            }
            Output::SocketSend(bytes) => {
                if let Some(socket) = self.tab_mut(device, tab).socket {
                    self.socket_send(socket, bytes);
                }
            }
            Output::SocketClose => {
                if let Some(socket) = self.tab_mut(device, tab).socket.take() {
                    self.socket_close(socket);
                }
            }
            Output::SocketWatch => {
                if let Some(socket) = self.tab_mut(device, tab).socket {
                    self.socket_watch(socket);
                }
            }
            Output::Hint(bytes) => self.hint(device, tab, &bytes),
            Output::Notice(notice) => self.noticed(device, tab, notice),
            Output::Opened(log, Ok(())) => {
                let old = self.tab_mut(device, tab).was_frozen;
                if let Some(replica) = self.devices[device].engine(tab).replica(&log).ok().filter(|_| !old) {
                    self.checker.opened(device, &log, replica);
                }
                self.tab_mut(device, tab).opened.insert(log);
            }
            Output::Opened(log, Err(reason)) => self.open_failed(device, tab, &log, &reason),
            Output::Timeout(due) => {
                let delay = due.saturating_sub(self.device_now(device));
                let tab_state = self.tab_mut(device, tab);
                tab_state.timer += 1;
                let timer = tab_state.timer;
                self.schedule(delay, Event::Timer(device, tab, timer));
            }
            Output::Broken(reason) => {
                note!(self, "{}: tab {tab} is broken: {reason}", self.devices[device].name);
                self.schedule(1_000, Event::Reload(device, tab));
            }
            Output::OwnEntries(..) => {}
        }
    }

    fn tab_mut(&mut self, device: DeviceNumber, tab: TabNumber) -> &mut Tab {
        self.devices[device].tabs.get_mut(&tab).expect("its engine was just asked")
    }

    /// The app tries again a little later, as a user would.
    fn open_failed(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName, reason: &str) {
        note!(self, "{}: tab {tab} cannot open {log}: {reason}", self.devices[device].name);
        self.schedule(1_000, Event::Reload(device, tab));
    }

    fn hint(&mut self, device: DeviceNumber, from: TabNumber, bytes: &[u8]) {
        for tab in self.devices[device].tabs() {
            if tab != from && !chance(&mut self.random, self.weather.hints_lost) {
                self.schedule(1, Event::Give(device, tab, Box::new(Input::Hint(bytes.to_vec()))));
            }
        }
    }

    fn noticed(&mut self, device: DeviceNumber, tab: TabNumber, notice: Notice) {
        match notice {
            Notice::TokenWanted(_) => {
                let delay = between(&mut self.random, TOKEN_MS);
                self.schedule(delay, Event::Token(device, tab));
            }
            Notice::Connection(Connection { state: LinkState::NeedsAuth, reason, .. }) => {
                note!(self, "{}: tab {tab} needs a token: {reason}", self.devices[device].name);
                let leads = self.devices[device].leader == Some(tab);
                if leads {
                    self.schedule(1_000, Event::Token(device, tab));
                }
            }
            Notice::Write(log, write, status) => {
                note!(self, "{}: {log} {write} {status:?}", self.devices[device].name);
                if let WriteStatus::Stored(id) = &status {
                    let replica = self.devices[device].engine(tab).replica(&log).ok();
                    let line = replica.and_then(|replica| Some(replica.outbox().stored(id.seq)?.line(*id)));
                    line.into_iter().for_each(|line| self.checker.stored_in_line(&log, write, line));
                }
                self.checker.told(device, tab, &log, write, &status);
                if !matches!(status, WriteStatus::Stored(_)) {
                    self.tab_mut(device, tab).writes.insert((log, write), true);
                }
            }
            Notice::Connection(connection) => {
                let Connection { state, reason, .. } = connection;
                note!(self, "{}: tab {tab} is {state:?} {reason}", self.devices[device].name);
            }
            _ => {}
        }
    }

    /// The app has a token now, good or stale.
    pub(super) fn give_token(&mut self, device: DeviceNumber, tab: TabNumber) {
        let stale = chance(&mut self.random, self.weather.tokens_stale);
        let user = self.devices[device].user.clone();
        let token = self.host.token(&user, if stale { 0 } else { self.devices[device].token_ms });
        self.give_tab(device, tab, Input::Token(Some(token)));
    }

    fn ask_database(&mut self, device: DeviceNumber, tab: TabNumber, request: Request) {
        let delay = between(&mut self.random, self.weather.storage);
        let now = self.now();
        let state = &mut self.devices[device];
        state.free_at = state.free_at.max(now) + delay;
        state.requests.push_back((tab, request));
        let at = state.free_at;
        self.schedule_at(at, Event::Database(device));
    }

    /// The database carries out its next request; its answer takes another moment, in which the tab may die.
    pub(super) fn run_database(&mut self, device: DeviceNumber) {
        let Some((tab, request)) = self.devices[device].requests.pop_front() else { return };
        let input = match request {
            Request::Commit(id, commit) => {
                let fault = self.commit_fault();
                let result = self.devices[device].database.commit_with(&commit, fault);
                if let Err(failure) = &result {
                    note!(self, "{}: tab {tab} commit {id}: {failure:?} ({fault:?})", self.devices[device].name);
                }
                if let (Commit::Append(append), Ok(Committed::Appended(entries))) = (&*commit, &result) {
                    for entry in entries {
                        let id = EntryId { actor: append.actor, seq: entry.header.seq };
                        let write = WriteId { run: append.run, n: entry.header.n };
                        self.checker.stored_in_line(&append.log, write, entry.line(id));
                    }
                }
                Input::Committed(id, result)
            }
            Request::Read(id, _) if chance(&mut self.random, self.weather.reads_failed) => {
                Input::Rows(id, Err("i/o error".into()))
            }
            Request::Read(id, ranges) => {
                let rows = ranges.iter().map(|range| self.devices[device].database.read(range)).collect();
                Input::Rows(id, Ok(rows))
            }
        };
        self.schedule(0, Event::Give(device, tab, Box::new(input)));
    }

    fn commit_fault(&mut self) -> Option<Fault> {
        if chance(&mut self.random, self.weather.commits_unknown) {
            return Some(Fault::Unknown { written: self.random.below(2) == 0 });
        }
        chance(&mut self.random, self.weather.commits_failed).then_some(Fault::Failed)
    }
}
