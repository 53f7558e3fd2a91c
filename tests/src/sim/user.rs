//! Who lives in a drawn world, and what befalls it: users that act at random, and mishaps that strike and are mended.

use driftlog_core::draft::Draft;
use driftlog_core::engine::{Input, OnlineWish};
use driftlog_core::id::LogName;

use super::board;
use super::device::{DeviceNumber, Network, TabNumber};
use super::network::Cut;
use super::trace::note;
use super::weather::{between, chance};
use super::world::{Event, World};
use crate::disk::Loss;

/// Records that users quarrel about.
const RECORDS: u64 = 6;
/// Tabs of one device at most.
const TABS_MAX: usize = 3;
/// Actions of one burst.
const BURST: u64 = 40;
/// A year, in milliseconds.
const YEAR_MS: i64 = 365 * 24 * 60 * 60_000;

/// Something that breaks and is mended later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// A page is frozen.
    Frozen(DeviceNumber, TabNumber),
    /// A device knows that it has no network.
    Offline(DeviceNumber),
    /// A device's packets vanish.
    BlackHole(DeviceNumber),
    /// A device's network is slow.
    Clogged(DeviceNumber),
    /// A device's quota is used up.
    Full(DeviceNumber),
}

/// What can befall a world; each kind is there in a run or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A socket breaks.
    Cut,
    /// See [`Mishap::Frozen`].
    Freeze,
    /// See [`Mishap::Offline`].
    Offline,
    /// See [`Mishap::BlackHole`].
    BlackHole,
    /// See [`Mishap::Clogged`].
    Clog,
    /// See [`Mishap::Full`].
    Full,
    /// A device loses power.
    PowerLoss,
    /// A bit flips on a device's disk.
    FlippedBit,
    /// A device's clock jumps.
    ClientClock,
    /// The server's process or machine dies.
    ServerCrash,
    /// The server is restarted in good order.
    ServerRestart,
    /// The server's clock steps back, or jumps a year and back.
    ServerClock,
    /// The server's disk fails or is full for a moment.
    ServerDisk,
    /// A profile is copied, and both copies are used.
    Copy,
    /// The server's disk is put back to a backup.
    Restore,
}

impl Kind {
    /// Every kind that leaves all devices able to go on.
    pub const HARMLESS: [Self; 13] = [
        Self::Cut,
        Self::Freeze,
        Self::Offline,
        Self::BlackHole,
        Self::Clog,
        Self::Full,
        Self::PowerLoss,
        Self::FlippedBit,
        Self::ClientClock,
        Self::ServerCrash,
        Self::ServerRestart,
        Self::ServerClock,
        Self::ServerDisk,
    ];
}

/// What a drawn world is like.
#[derive(Clone, Debug, Default)]
pub struct Temper {
    /// What may befall it.
    pub kinds: Vec<Kind>,
    /// Milliseconds between two mishaps, at most.
    pub strikes_ms: u64,
    /// Milliseconds between two things that one user does, at most.
    pub acts_ms: u64,
    /// Where deletes of every other record let updates win: how long they are remembered.
    pub grace_ms: Option<u64>,
}

impl World {
    /// From now on users act and things break.
    pub fn liven(&mut self) {
        self.lively = true;
        for device in 0..self.devices.len() {
            self.user_soon(device);
        }
        self.strike_soon();
    }

    /// From now on users rest, nothing breaks, and what is broken is mended.
    pub fn calm_down(&mut self) {
        self.lively = false;
        self.weather = self.weather.cleared();
        note!(self, "all is calm");
        self.host.disk.reset_counters();
        self.host.disk.set_capacity(None);
        self.replace_rotten_disk();
        self.start_server();
        for device in 0..self.devices.len() {
            self.devices[device].clogged_ms = 0;
            self.devices[device].database.full = false;
            self.set_network(device, Network::On);
            for tab in self.devices[device].tabs() {
                self.thaw(device, tab);
            }
            if self.devices[device].tabs.is_empty() {
                self.open_tab(device);
            }
            self.wish(device, OnlineWish::Connected);
        }
    }

    /// Everybody closes everything and comes back after so many milliseconds.
    pub fn go_away(&mut self, milliseconds: u64) {
        note!(self, "everybody goes away for {milliseconds} ms");
        let lively = std::mem::take(&mut self.lively);
        for device in 0..self.devices.len() {
            for tab in self.devices[device].tabs() {
                self.kill_tab(device, tab);
            }
        }
        self.run_for(milliseconds);
        if lively {
            self.liven();
        }
    }

    fn user_soon(&mut self, device: DeviceNumber) {
        let delay = 1 + self.random.below(self.temper.acts_ms.max(1));
        self.schedule(delay, Event::User(device));
    }

    fn strike_soon(&mut self) {
        let delay = 1 + self.random.below(self.temper.strikes_ms.max(1));
        self.schedule(delay, Event::Strike);
    }

    /// A user does the next thing.
    pub(super) fn user_acts(&mut self, device: DeviceNumber) {
        if !self.lively {
            return;
        }
        self.user_soon(device);
        let tabs = self.devices[device].tabs();
        let Some(tab) = self.pick(&tabs) else {
            self.open_tab(device);
            return;
        };
        match self.random.below(100) {
            0..82 => self.act_at_random(device, tab),
            82..84 => self.letter_at_random(device, tab),
            84..86 => (0..BURST).for_each(|_| self.act_at_random(device, tab)),
            86..89 if tabs.len() < TABS_MAX => {
                self.open_tab(device);
            }
            89..91 => self.kill_tab(device, tab),
            91..94 => self.reload_tab(device, tab),
            94..96 => self.wish(device, OnlineWish::Disconnected),
            96..99 => self.wish(device, OnlineWish::Connected),
            _ => self.give_tab(device, tab, Input::Woken),
        }
    }

    fn act_at_random(&mut self, device: DeviceNumber, tab: TabNumber) {
        if self.devices[device].is_frozen(tab) {
            return;
        }
        let opened: Vec<_> = self.devices[device].tabs[&tab].opened.iter().cloned().collect();
        let Some(log) = self.pick(&opened) else { return };
        let draft = self.draft(device, tab, &log);
        // What the app does wrong throws at the call: a splice of a text that is not there.
        let _ = self.act(device, tab, &log, draft);
    }

    /// A random action on what the tab shows.
    pub(super) fn draft(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName) -> Draft {
        let record = format!("r{}", self.random.below(RECORDS));
        let word = format!("w{}", self.random.below(1_000));
        match self.random.below(100) {
            0..20 => board::add(&record, &word),
            20..30 => board::add_with_note(&record, &word, "once "),
            30..45 => board::rename(&record, &word),
            45..60 => board::vote(&record, self.random.below(9) as i64 - 3),
            60..68 => board::tag(&record, &format!("t{}", self.random.below(4))),
            68..72 => board::untag(&record, &format!("t{}", self.random.below(4))),
            72..88 => {
                let length = self.note_length(device, tab, log, &record);
                let at = self.random.below(length as u64 + 1) as usize;
                let cut = self.random.below(4).min((length - at) as u64) as usize;
                board::splice(&record, at, cut, &word)
            }
            88..92 => match self.temper.grace_ms.filter(|_| record.ends_with(['1', '3', '5'])) {
                Some(grace_ms) => board::delete_unless_changed(&record, grace_ms),
                None => board::delete(&record),
            },
            92..93 => board::nothing(),
            // A name that only a newer version of the app knows.
            93..94 => board::named(&word, &record, &word),
            94..96 => board::named("forbidden", &record, &word),
            96..98 => board::named("moody", &record, &word),
            98..99 => board::named("later", &record, &word),
            _ => board::named("lucky", &record, &word),
        }
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.random.below(from.len() as u64) as usize;
        from.get(at).cloned()
    }

    /// Something breaks.
    pub(super) fn strike(&mut self) {
        if !self.lively {
            return;
        }
        self.strike_soon();
        let kinds = self.temper.kinds.clone();
        let Some(kind) = self.pick(&kinds) else { return };
        let device = self.random.below(self.devices.len() as u64) as usize;
        let while_ms = 1 + self.random.below(60_000);
        match kind {
            Kind::Cut => {
                let open = self.sockets.open();
                let how = if self.random.below(3) == 0 { Cut::Silent } else { Cut::Told };
                if let Some(socket) = self.pick(&open) {
                    self.cut(socket, how);
                }
            }
            Kind::Freeze => {
                let tabs = self.devices[device].awake();
                if let Some(tab) = self.pick(&tabs) {
                    self.freeze(device, tab);
                    self.schedule(while_ms, Event::Mend(Mishap::Frozen(device, tab)));
                }
            }
            Kind::Offline => self.befall(Mishap::Offline(device), while_ms),
            Kind::BlackHole => self.befall(Mishap::BlackHole(device), while_ms),
            Kind::Clog => self.befall(Mishap::Clogged(device), while_ms),
            Kind::Full => self.befall(Mishap::Full(device), while_ms),
            Kind::PowerLoss => self.lose_power(device),
            Kind::FlippedBit => self.flip_at_random(device),
            Kind::ClientClock => self.client_clock(device),
            Kind::ServerCrash => {
                let loss = self.pick(&Loss::ALL).unwrap_or(Loss::Nothing);
                self.crash_and_restart_server(loss);
            }
            Kind::ServerRestart => {
                self.stop_server();
                self.schedule(200, Event::Start);
            }
            Kind::ServerClock => self.server_clock(),
            Kind::ServerDisk => self.server_disk(),
            Kind::Copy => self.copy_at_random(device),
            Kind::Restore => self.restore_at_random(),
        }
    }

    fn befall(&mut self, mishap: Mishap, while_ms: u64) {
        match mishap {
            Mishap::Frozen(device, tab) => self.freeze(device, tab),
            Mishap::Offline(device) => self.set_network(device, Network::Off),
            Mishap::BlackHole(device) => self.set_network(device, Network::BlackHole),
            Mishap::Clogged(device) => self.devices[device].clogged_ms = 8_000,
            Mishap::Full(device) => self.devices[device].database.full = true,
        }
        note!(self, "{mishap:?} for {while_ms} ms");
        self.schedule(while_ms, Event::Mend(mishap));
    }

    /// Something that broke is mended.
    pub(super) fn mend(&mut self, mishap: Mishap) {
        note!(self, "{mishap:?} is over");
        match mishap {
            Mishap::Frozen(device, tab) => self.thaw(device, tab),
            Mishap::Offline(device) | Mishap::BlackHole(device) => self.set_network(device, Network::On),
            Mishap::Clogged(device) => self.devices[device].clogged_ms = 0,
            Mishap::Full(device) => self.devices[device].database.full = false,
        }
    }

    fn client_clock(&mut self, device: DeviceNumber) {
        let jump = match self.random.below(5) {
            0 => YEAR_MS,
            1 => -YEAR_MS,
            2 => 0,
            3 => -(self.random.below(5_000) as i64),
            _ => self.random.below(3_600_000) as i64,
        };
        self.devices[device].clock_ms = jump;
        note!(self, "{}: clock {jump} ms ahead", self.devices[device].name);
    }

    fn server_clock(&mut self) {
        let jump = match self.random.below(4) {
            0 => YEAR_MS,
            1 => 0,
            _ => self.host.clock_ms - 2_000,
        };
        self.set_server_clock(jump);
    }

    fn server_disk(&mut self) {
        use crate::disk::{Fault, Moment};
        let fault = self.pick(&[Fault::Io, Fault::Full, Fault::PowerOff]).unwrap_or(Fault::Io);
        let at = self.host.disk.changes() + 1 + self.random.below(30);
        note!(self, "server: {fault:?} at change {at}");
        self.host.disk.fail(Moment::Change(at), fault);
    }

    /// A profile is copied to a new device, which is used from then on.
    fn copy_at_random(&mut self, device: DeviceNumber) {
        if self.devices.iter().any(|device| device.copied) {
            return;
        }
        let copy = self.copy_device(device);
        self.open_tab(copy);
        self.user_soon(copy);
    }

    /// Copies a device's profile to a new device.
    pub fn copy_device(&mut self, device: DeviceNumber) -> DeviceNumber {
        let original = &mut self.devices[device];
        original.copied = true;
        let (name, user, logs) = (format!("copy of {}", original.name), original.user.clone(), original.logs.clone());
        let (database, flipped) = (original.database.clone(), original.flipped.clone());
        note!(self, "{name} is made");
        let copy = self.add_device(&name, &user, database);
        (self.devices[copy].logs, self.devices[copy].copied, self.devices[copy].flipped) = (logs, true, flipped);
        copy
    }

    /// A backup is taken, or the server is put back to it.
    fn restore_at_random(&mut self) {
        match self.backup.take() {
            None if self.host.server.is_some() && !self.is_rotten() => self.backup = Some(self.host.backup()),
            Some(backup) if !self.checker.was_restored() => {
                self.crash_server(Loss::Nothing);
                self.restore_server(&backup);
                let down = between(&mut self.random, (10, 3_000));
                self.schedule(down, Event::Start);
            }
            _ => {}
        }
    }

    /// A temper drawn from the world's seed.
    pub fn draw_temper(&mut self) {
        let random = &mut self.random;
        let mut kinds: Vec<_> = Kind::HARMLESS.into_iter().filter(|_| random.below(2) == 0).collect();
        if chance(random, 400) {
            kinds.push(Kind::Copy);
        }
        if chance(random, 300) {
            kinds.push(Kind::Restore);
        }
        let strikes_ms = 2_000 + random.below(60_000);
        let acts_ms = 500 + random.below(30_000);
        self.temper = Temper { kinds, strikes_ms, acts_ms, grace_ms: None };
        let temper = format!("{:?}", self.temper);
        note!(self, "{temper}");
        let weather = format!("{:?}", self.weather);
        note!(self, "{weather}");
    }
}
