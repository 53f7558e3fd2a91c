//! The server's machine: the real server over a disk that breaks, its clock, its crashes, restarts and backups.

use std::collections::BTreeMap;
use std::time::Duration;

use driftlog_core::protocol::Frame;
use driftlog_core::protocol::frame::Hello;
use driftlog_core::random::Random;
use driftlog_server::stepped::{MadeSnapshot, Moment, Order, Server, SessionNumber};
use driftlog_server::{Access, Claims, Config, LogClaim, Right, Secret, StoreError, token};

use super::network::{Cut, SocketNumber};
use super::trace::note;
use super::weather::{between, chance};
use super::world::{Event, World};
use crate::disk::{Backup, Disk, Loss, VFS};

/// How long a server is down after a crash, in milliseconds.
const DOWN_MS: (u64, u64) = (50, 5_000);
/// Milliseconds between a call of the server and its next look at what waits.
const READ_AGAIN_MS: u64 = 1;

/// The server's machine.
pub struct Host {
    /// The server, while it runs.
    pub server: Option<Server>,
    /// Its disk.
    pub disk: Disk,
    /// Milliseconds that its wall clock is ahead of the true time.
    pub clock_ms: i64,
    /// A server that says of a commit that it is durable, and forgets it with the next crash.
    pub forgetful: bool,
    /// Counts starts, so that what was meant for an earlier one is not taken for this one's.
    start: u64,
    /// What operators ordered to be erased: it is kept beside the disk.
    pub(super) orders: Vec<Order>,
    now: u64,
    config: Config,
    secret: Secret,
    random: Random,
    sessions: BTreeMap<SessionNumber, SocketNumber>,
    commit_due: bool,
    read_due: bool,
    timer_at: Option<u64>,
    forgotten: Option<Backup>,
}

impl Host {
    /// A machine with an empty disk, and the server not started.
    ///
    /// # Panics
    /// Never: the secret is long enough.
    pub fn new(mut random: Random, now: u64) -> Self {
        let disk = Disk::new(random.below(u64::MAX));
        let secret = Secret::new([7; 32]).expect("32 bytes");
        let mut config = Config::new(disk.folder(), Access::Tokens(secret.clone()));
        config.vfs = Some(VFS.to_owned());
        config.idle = Duration::from_secs(60);
        // Small, so that snapshots, cold logs and reads of the store are everyday things.
        (config.snapshot_entries, config.snapshot_bytes) = (40, 16 * 1024);
        (config.hot_logs, config.tail_bytes) = (2, 2 * 1024);
        Self {
            server: None,
            disk,
            clock_ms: 0,
            forgetful: false,
            start: 0,
            orders: Vec::new(),
            now,
            config,
            secret,
            random,
            sessions: BTreeMap::new(),
            commit_due: false,
            read_due: false,
            timer_at: None,
            forgotten: None,
        }
    }

    /// What the operator decided; changes count from the next start on.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Which start of the server this is, from 1.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// A token for a user, good for so long by the server's clock.
    pub fn token(&self, user: &str, good_ms: u64) -> String {
        let logs = vec![LogClaim { pattern: "*".to_owned(), rights: vec![Right::Read, Right::Append] }];
        let exp = (self.wall() + good_ms) / 1_000;
        token(&self.secret, &Claims { sub: user.to_owned(), logs, exp })
    }

    fn wall(&self) -> u64 {
        self.now.saturating_add_signed(self.clock_ms)
    }

    pub(super) fn set_time(&mut self, now: u64) {
        self.now = now;
        let moment = self.moment();
        if let Some(server) = &mut self.server {
            server.set_time(moment);
        }
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.wall(), steady: self.now }
    }

    pub(super) fn connect(&mut self, socket: SocketNumber) -> Option<(u64, SessionNumber)> {
        let session = self.server.as_mut()?.connect();
        self.sessions.insert(session, socket);
        Some((self.start, session))
    }

    pub(super) fn disconnect(&mut self, (start, session): (u64, SessionNumber)) {
        if let (true, Some(server)) = (start == self.start, &mut self.server) {
            server.disconnect(session);
            self.sessions.remove(&session);
        }
    }

    pub(super) fn poll_frame(&mut self, (start, session): (u64, SessionNumber)) -> Option<std::sync::Arc<[u8]>> {
        if start == self.start { self.server.as_mut()?.poll_frame(session) } else { None }
    }

    pub(super) fn is_closed(&self, (start, session): (u64, SessionNumber)) -> bool {
        start != self.start || self.server.as_ref().is_none_or(|server| server.is_closed(session))
    }

    /// The files as they are now.
    pub fn backup(&self) -> Backup {
        self.disk.backup()
    }

    fn open(&mut self) -> Result<(), StoreError> {
        let seed = self.random.bytes();
        let moment = self.moment();
        let server = Server::open(self.config.clone(), moment, seed)?;
        self.start += 1;
        self.orders.iter().for_each(|order| server.order(order));
        (self.commit_due, self.read_due, self.timer_at) = (false, false, None);
        self.server = Some(server);
        if self.forgetful {
            self.forgotten = Some(self.backup());
        }
        Ok(())
    }
}

impl World {
    /// Starts the server, if it is down.
    pub fn start_server(&mut self) {
        if self.host.server.is_some() {
            return;
        }
        match self.host.open() {
            Ok(()) => {
                note!(self, "server: start {}", self.host.start());
                if !self.host.orders.is_empty() {
                    self.host_look();
                }
                self.checker.server_started(self.host.server.as_ref());
            }
            Err(error) => {
                note!(self, "server: does not start: {error}");
                // The power may have gone while it started: without this the disk would stay off for ever.
                self.host.disk.crash(Loss::Unsynced);
                self.schedule(1_000, Event::Start);
            }
        }
    }

    /// The server's process or machine dies.
    pub fn crash_server(&mut self, loss: Loss) {
        if self.host.server.is_none() {
            return;
        }
        note!(self, "server: crash, losing {loss:?}");
        // The disk first: what the dying process still does must not reach it.
        self.host.disk.crash(loss);
        self.host.server = None;
        if let Some(before) = self.host.forgotten.take() {
            self.host.disk.restore(&before);
        }
        self.host.sessions.clear();
        let how = if loss == Loss::Nothing { Cut::Told } else { Cut::Silent };
        self.cut_all(how);
    }

    /// The server's process dies and is started again after a while.
    pub fn crash_and_restart_server(&mut self, loss: Loss) {
        self.crash_server(loss);
        let down = between(&mut self.random, DOWN_MS);
        self.schedule(down, Event::Start);
    }

    /// The server ends in good order: it commits, answers and says go-away.
    pub fn stop_server(&mut self) {
        note!(self, "server: ends in good order");
        self.host_commit_now(false);
        if let Some(server) = &mut self.host.server {
            server.end();
        }
        self.pump_all();
        self.host.server = None;
        self.host.sessions.clear();
        self.cut_all(Cut::Told);
    }

    /// The server's disk is put back to a backup. The server must be down.
    ///
    /// # Panics
    /// If the server runs.
    pub fn restore_server(&mut self, backup: &Backup) {
        assert!(self.host.server.is_none(), "stop the server first");
        note!(self, "server: restored from a backup");
        self.host.disk.restore(backup);
        self.no_longer_rotten();
        self.checker.server_restored();
    }

    /// The server's wall clock jumps.
    pub fn set_server_clock(&mut self, ahead_ms: i64) {
        self.host.clock_ms = ahead_ms;
        note!(self, "server: clock {ahead_ms} ms ahead");
        self.host.set_time(self.now());
    }

    pub(super) fn host_receive(&mut self, (start, session): (u64, SessionNumber), bytes: &[u8]) {
        if start != self.host.start {
            return;
        }
        let Some(server) = &mut self.host.server else { return };
        let said = self.clients_speak.and_then(|versions| speaking(bytes, versions));
        server.receive(session, said.as_deref().unwrap_or(bytes));
        // Nobody else hears of it before a commit or a read.
        let socket = self.host.sessions.get(&session).copied();
        self.host_work_soon();
        if let Some(socket) = socket {
            self.pump(socket);
        }
        self.host_timer();
    }

    /// After anything that the server did: what waits is scheduled, what it says is sent.
    pub(super) fn host_look(&mut self) {
        self.host_work_soon();
        self.pump_all();
        self.host_timer();
    }

    /// What waits is committed and read after a while.
    fn host_work_soon(&mut self) {
        let start = self.host.start;
        if !std::mem::replace(&mut self.host.commit_due, true) {
            let delay = between(&mut self.random, self.weather.flush);
            self.schedule(delay, Event::Commit(start));
        }
        if !std::mem::replace(&mut self.host.read_due, true) {
            let delay = between(&mut self.random, self.weather.read);
            self.schedule(delay, Event::Read(start));
        }
    }

    pub(super) fn pump_all(&mut self) {
        let sockets: Vec<_> = self.host.sessions.values().copied().collect();
        for socket in sockets {
            self.pump(socket);
        }
    }

    /// The group commit whose time has come.
    pub(super) fn host_commit(&mut self, start: u64) {
        if start == self.host.start {
            self.host.commit_due = false;
            self.host_commit_now(true);
        }
    }

    fn host_commit_now(&mut self, may_die: bool) {
        loop {
            let Some(server) = &mut self.host.server else { return };
            match server.commit() {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => {
                    note!(self, "server: the store failed: {error}");
                    return self.crash_and_restart_server(Loss::Nothing);
                }
            }
            if let Some(server) = &self.host.server {
                self.checker.committed(server);
            }
            if may_die && chance(&mut self.random, self.weather.answers_lost) {
                note!(self, "server: dies between its commit and the answers");
                return self.crash_and_restart_server(Loss::Unsynced);
            }
            if let Some(server) = &mut self.host.server {
                server.answer();
            }
        }
        self.host_snapshots();
        self.pump_all();
        self.host_timer();
        // What sessions asked for when they heard the answers.
        self.host_read_soon();
    }

    fn host_read_soon(&mut self) {
        if !std::mem::replace(&mut self.host.read_due, true) {
            let start = self.host.start;
            self.schedule(READ_AGAIN_MS, Event::Read(start));
        }
    }

    /// Reads of the store that sessions wait for.
    pub(super) fn host_read(&mut self, start: u64) {
        if start != self.host.start {
            return;
        }
        self.host.read_due = false;
        let Some(server) = &mut self.host.server else { return };
        let read = server.read();
        self.pump_all();
        self.host_timer();
        if read > 0 {
            self.host_read_soon();
        }
    }

    /// Snapshots that the writer asked for are made now, and stored after a while.
    fn host_snapshots(&mut self) {
        let start = self.host.start;
        while let Some(server) = &mut self.host.server {
            match server.make_snapshot() {
                Ok(Some(made)) => {
                    let delay = between(&mut self.random, self.weather.snapshot);
                    self.schedule(delay, Event::Snapshot(start, Box::new(made)));
                }
                Ok(None) => return,
                Err(error) => note!(self, "server: no snapshot was made: {error}"),
            }
        }
    }

    pub(super) fn host_snapshot(&mut self, start: u64, made: MadeSnapshot) {
        if start != self.host.start {
            return;
        }
        let Some(server) = &mut self.host.server else { return };
        server.store_snapshot(made);
        self.host_look();
    }

    /// Sees to it that the server's next deadline is handled.
    pub(super) fn host_timer(&mut self) {
        let Some(due) = self.host.server.as_ref().and_then(Server::timeout) else { return };
        if self.host.timer_at.is_none_or(|at| at > due) {
            self.host.timer_at = Some(due);
            let start = self.host.start;
            self.schedule_at(due.max(self.now()), Event::Deadline(start));
        }
    }

    pub(super) fn host_deadline(&mut self, start: u64) {
        if start != self.host.start {
            return;
        }
        self.host.timer_at = None;
        let Some(server) = &mut self.host.server else { return };
        server.handle_timeout();
        self.pump_all();
        self.host_timer();
    }
}

/// A hello as clients of other protocol versions say it; none if it is no hello.
fn speaking(bytes: &[u8], (min, max): (u32, u32)) -> Option<Vec<u8>> {
    let Ok(Frame::Hello(hello)) = Frame::decode(bytes) else { return None };
    Some(Frame::Hello(Hello { protocol_min: min, protocol_max: max, ..hello }).encode())
}
