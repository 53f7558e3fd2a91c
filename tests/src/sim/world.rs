//! The world: virtual time, a queue of what will happen, and everything that it happens to.

use std::collections::BTreeMap;

use driftlog_core::engine::Input;
use driftlog_core::random::Random;
use driftlog_server::stepped::MadeSnapshot;

use super::checker::{Checker, Report};
use super::device::{Device, DeviceNumber, Network, TabNumber};
use super::host::Host;
use super::network::{End, SocketNumber, Sockets};
use super::rot::Rot;
use super::trace::Trace;
use super::user::{Mishap, Temper};
use super::weather::Weather;
use crate::database::Database;
use crate::disk::Backup;

/// When every run begins: 2023-11-14.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// How often a run that waits for quiet looks for it, in milliseconds.
const LOOK_MS: u64 = 500;
/// Once nothing breaks any more, everything must have settled within so many milliseconds: some back-offs of 30 s and
/// a scan of the leader's, and then some.
const QUIET_MS_MAX: u64 = 10 * 60_000;
/// Events at one time, at the most: whatever makes more of them goes round in a circle.
const AT_ONCE_MAX: u64 = 200_000;

/// What will happen at its time.
pub enum Event {
    /// A database carries out its next request.
    Database(DeviceNumber),
    /// A tab is given something.
    Give(DeviceNumber, TabNumber, Box<Input>),
    /// A tab's timer runs down, if it is still the same timer.
    Timer(DeviceNumber, TabNumber, u64),
    /// The app has a token.
    Token(DeviceNumber, TabNumber),
    /// The lock looks for a holder.
    Elect(DeviceNumber),
    /// The user loads a page again that does not work.
    Reload(DeviceNumber, TabNumber),
    /// A socket's first packet reaches the server.
    Reaches(SocketNumber),
    /// A page hears that its socket is open.
    Opened(SocketNumber),
    /// A frame arrives at the server.
    Up(SocketNumber),
    /// A frame arrives at the page.
    Down(SocketNumber),
    /// An end hears that the socket is over.
    Gone(SocketNumber, End),
    /// The server commits what waits.
    Commit(u64),
    /// The server reads what sessions wait for.
    Read(u64),
    /// A snapshot is ready to be stored.
    Snapshot(u64, Box<MadeSnapshot>),
    /// A deadline of the server.
    Deadline(u64),
    /// The server starts, if it is down.
    Start,
    /// A user does the next thing.
    User(DeviceNumber),
    /// Something breaks.
    Strike,
    /// Something that broke is mended.
    Mend(Mishap),
    /// An operator erases, the server purges, or somebody says what is over soon.
    Erasing,
    /// Somebody's connection is downgraded.
    Downgrading,
    /// Bits of the server's disk flip, or the operator notices.
    Rot,
}

/// The world of one run.
pub struct World {
    /// For everything random.
    pub random: Random,
    /// What happened.
    pub trace: Trace,
    /// How things go.
    pub weather: Weather,
    /// What may befall it.
    pub temper: Temper,
    /// The server's machine.
    pub host: Host,
    /// The protocol versions that clients say they speak, if not those that they do.
    pub clients_speak: Option<(u32, u32)>,
    /// Every device.
    pub devices: Vec<Device>,
    /// Whoever looks whether all is well.
    pub checker: Checker,
    /// The newest backup of the server's disk.
    pub backup: Option<Backup>,
    /// For what is erased and what expires; none: nothing does.
    pub erasing: Option<Random>,
    /// What operators that downgrade draw from, if there are any.
    pub downgrading: Option<Random>,
    /// How the server's disk rots, if it does.
    pub rot: Option<Rot>,
    pub(super) sockets: Sockets,
    pub(super) tab_last: TabNumber,
    pub(super) began: u64,
    /// Whether users act and things break by themselves.
    pub(super) lively: bool,
    now: u64,
    order: u64,
    events: u64,
    /// How many of them at the time that it is.
    at_once: u64,
    queue: BTreeMap<(u64, u64), Event>,
}

impl World {
    /// A world without devices; its server runs.
    pub fn new(seed: u64, weather: Weather) -> Self {
        let mut bytes = *b"driftlog simulated world________";
        bytes[24..].copy_from_slice(&seed.to_be_bytes());
        let mut random = Random::new(bytes);
        let host = Host::new(Random::new(random.bytes()), BEGIN_MS);
        let mut world = Self {
            random,
            trace: Trace::default(),
            weather,
            clients_speak: None,
            temper: Temper::default(),
            host,
            devices: Vec::new(),
            checker: Checker::default(),
            backup: None,
            erasing: None,
            downgrading: None,
            rot: None,
            sockets: Sockets::default(),
            tab_last: 0,
            began: BEGIN_MS,
            lively: false,
            now: BEGIN_MS,
            order: 0,
            events: 0,
            at_once: 0,
            queue: BTreeMap::new(),
        };
        world.start_server();
        world
    }

    /// Adds a device with this disk.
    pub fn add_device(&mut self, name: &str, user: &str, database: Database) -> DeviceNumber {
        self.devices.push(Device::new(name, user, database));
        self.devices.len() - 1
    }

    /// The true time, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Milliseconds since the run began.
    pub fn elapsed(&self) -> u64 {
        self.now - self.began
    }

    /// How much has happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What a device's clock shows.
    pub fn device_now(&self, device: DeviceNumber) -> u64 {
        self.now.saturating_add_signed(self.devices[device].clock_ms)
    }

    pub(super) fn schedule(&mut self, delay: u64, event: Event) {
        self.schedule_at(self.now + delay, event);
    }

    pub(super) fn schedule_at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), event);
    }

    /// Lets the next thing happen, if it is due by then; whether it was.
    fn step(&mut self, until: u64) -> bool {
        let Some(next) = self.queue.first_entry() else { return false };
        let (at, _) = *next.key();
        if at > until {
            return false;
        }
        let event = next.remove();
        self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
        if self.at_once == AT_ONCE_MAX {
            self.checker.violated("spin", "something is due again and again, and the time does not go on".to_owned());
        }
        self.now = at;
        self.events += 1;
        self.host.set_time(at);
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        if let Some(device) = self.over_network(&event)
            && self.devices[device].network == Network::BlackHole
        {
            return self.devices[device].held.push(event);
        }
        match event {
            Event::Database(device) => self.run_database(device),
            Event::Give(device, tab, input) => self.give_tab(device, tab, *input),
            Event::Timer(device, tab, timer) => self.tab_timer(device, tab, timer),
            Event::Token(device, tab) => self.give_token(device, tab),
            Event::Elect(device) => self.elect(device),
            Event::Reload(device, tab) => self.reload_tab(device, tab),
            Event::Reaches(socket) => self.socket_reaches(socket),
            Event::Opened(socket) => self.socket_opened(socket),
            Event::Up(socket) => self.socket_up(socket),
            Event::Down(socket) => self.socket_down(socket),
            Event::Gone(socket, end) => self.socket_gone(socket, end),
            Event::Commit(start) => self.host_commit(start),
            Event::Read(start) => self.host_read(start),
            Event::Snapshot(start, made) => self.host_snapshot(start, *made),
            Event::Deadline(start) => self.host_deadline(start),
            Event::Start => self.start_server(),
            Event::User(device) => self.user_acts(device),
            Event::Strike => self.strike(),
            Event::Mend(mishap) => self.mend(mishap),
            Event::Erasing => self.erase_at_random(),
            Event::Downgrading => self.downgrade_at_random(),
            Event::Rot => self.rot(),
        }
    }

    /// Loads a page again; whether it was there.
    pub fn reload_tab(&mut self, device: DeviceNumber, tab: TabNumber) {
        if self.devices[device].tabs.contains_key(&tab) {
            self.kill_tab(device, tab);
            self.open_tab(device);
        }
    }

    /// Lets so many milliseconds pass.
    pub fn run_for(&mut self, milliseconds: u64) {
        let until = self.now + milliseconds;
        while self.checker.is_well() && self.step(until) {}
        if self.checker.is_well() {
            self.now = until;
            self.host.set_time(until);
        }
    }

    /// Runs until everybody has everything, and checks the whole; a run that does not settle is at fault.
    pub fn run_until_quiet(&mut self) {
        let limit = self.now + QUIET_MS_MAX;
        while self.checker.is_well() {
            if self.is_quiet() {
                return self.check_quiet();
            }
            if self.now >= limit {
                let restless = self.restless().unwrap_or_default();
                return self.checker.violated("liveness", format!("nothing is in the way, and yet: {restless}"));
            }
            self.run_for(LOOK_MS);
        }
    }

    /// What came of it.
    pub fn report(&self) -> &Report {
        self.checker.report()
    }
}
