//! The vocabulary of hand-written scenarios: a world in calm weather, and people with devices in it.
//!
//! Whatever a story does, the checker looks on: a story that breaks a promise panics with the trace.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use driftlog_core::draft::Draft;
use driftlog_core::engine::OnlineWish;
use driftlog_core::id::{EntryId, LogName, WriteId};
use driftlog_core::notice::{LogStatus, Refused, WriteStatus};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Policy, Ruling};
use driftlog_core::session::link::LinkState;
use driftlog_core::storage;
use driftlog_core::value::Value;
use driftlog_server::{Keep, Retention};

use super::board;
use super::device::{DeviceNumber, Network, TabNumber};
use super::network::Cut;
use super::page::Fields;
use super::weather::Weather;
use super::world::World;
use crate::database::Database;

/// A world that a story is told in.
#[derive(Clone)]
pub struct Story(Rc<RefCell<World>>);

/// Somebody with a device; what is done is done in the tab that was opened last.
#[derive(Clone)]
pub struct Person {
    story: Story,
    device: DeviceNumber,
}

impl Story {
    /// A story in calm weather.
    pub fn begin() -> Self {
        let mut world = World::new(1, Weather::calm());
        world.checker.watch(&board::log(1));
        Self(Rc::new(RefCell::new(world)))
    }

    /// The world itself, for what has no word of its own.
    pub fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    /// Restarts the server with this policy.
    pub fn set_policy(&self, policy: impl Policy + 'static) {
        let mut world = self.world();
        world.host.config_mut().policy = Arc::new(policy);
        world.stop_server();
        world.start_server();
    }

    /// Restarts the server, which makes a snapshot every five entries and keeps none that two of them cover.
    pub fn keep_no_history(&self) {
        let mut world = self.world();
        let config = world.host.config_mut();
        (config.snapshot_entries, config.retention) = (5, Retention::default().with("*", Keep::Last(0)));
        world.stop_server();
        world.start_server();
    }

    /// Restarts the server, which refuses every action of a name from then on, and nothing else.
    pub fn refuse(&self, action: &'static str) {
        self.set_policy(move |case: &Case<'_>| match case.name().as_str() == action {
            true => Ruling::Refuse { code: Code::EntryForbidden, reason: "no".to_owned() },
            false => Ruling::Allow,
        });
    }

    /// Somebody with a new device and one open tab, connected.
    pub fn person(&self, name: &str) -> Person {
        let person = self.newcomer(name);
        person.open_tab();
        self.run_for(1_000);
        person
    }

    /// Somebody with a new device that was never used.
    pub fn newcomer(&self, name: &str) -> Person {
        let mut world = self.world();
        let device = world.add_device(name, name, Database::default());
        world.devices[device].logs = vec![board::log(1)];
        Person { story: self.clone(), device }
    }

    /// Lets so many milliseconds pass.
    pub fn run_for(&self, milliseconds: u64) {
        self.world().run_for(milliseconds);
        self.check();
    }

    /// Runs until everybody has everything, and checks the whole.
    pub fn run_until_quiet(&self) {
        self.world().run_until_quiet();
        self.check();
    }

    fn check(&self) {
        let world = self.world();
        if let Some((kind, what)) = &world.report().violation {
            let trace: Vec<_> = world.trace.newest(200).collect();
            panic!("{}\n{kind}: {what}", trace.join("\n"));
        }
    }

    /// Entries that the server has.
    pub fn entries(&self) -> u64 {
        self.world().server_end(&board::log(1)).0
    }

    /// Lets so many milliseconds pass without anybody doing anything; the server looks after its logs now and then.
    pub fn leave_alone_for(&self, milliseconds: u64) {
        self.run_for(milliseconds);
        for _ in 0..4 {
            self.world().purge();
            self.run_for(20_000);
        }
    }

    /// Bytes that the server's snapshots of the log take, and the first entry that it keeps.
    ///
    /// # Panics
    /// If the server is down, or its disk fails.
    pub fn kept(&self) -> (u64, u64) {
        let world = self.world();
        let server = world.host.server.as_ref().expect("a running server");
        let first = server.first_kept(&board::log(1)).expect("reads").map_or(0, |first| first.next.0);
        (server.snapshot_bytes(&board::log(1)).expect("reads"), first)
    }
}

impl Person {
    fn world(&self) -> RefMut<'_, World> {
        self.story.world()
    }

    /// Their device.
    pub fn device(&self) -> DeviceNumber {
        self.device
    }

    /// The tab that was opened last.
    ///
    /// # Panics
    /// If none is open.
    pub fn tab(&self) -> TabNumber {
        *self.world().devices[self.device].tabs().last().expect("an open tab")
    }

    /// Opens one more tab and waits until it shows the log.
    pub fn open_tab(&self) -> TabNumber {
        let tab = self.world().open_tab(self.device);
        self.story.run_for(200);
        tab
    }

    /// Takes an action in the newest tab.
    ///
    /// # Panics
    /// If the engine does not take it.
    pub fn act(&self, draft: Draft) -> WriteId {
        self.act_in(self.tab(), draft)
    }

    /// Takes an action in one tab.
    ///
    /// # Panics
    /// If the engine does not take it.
    pub fn act_in(&self, tab: TabNumber, draft: Draft) -> WriteId {
        self.world().act(self.device, tab, &log(), draft).expect("an action that can be taken")
    }

    /// The device knows that it has no network.
    pub fn offline(&self) {
        self.world().set_network(self.device, Network::Off);
        self.story.run_for(500);
    }

    /// Nothing arrives, and nobody says so.
    pub fn vanish(&self) {
        self.world().set_network(self.device, Network::BlackHole);
    }

    /// The network is back.
    pub fn online(&self) {
        self.world().set_network(self.device, Network::On);
    }

    /// The app switches the connection off.
    pub fn disconnect(&self) {
        self.world().wish(self.device, OnlineWish::Disconnected);
    }

    /// The app switches the connection on.
    pub fn connect(&self) {
        self.world().wish(self.device, OnlineWish::Connected);
    }

    /// Makes a dead letter again in the newest tab: as it was, or as this draft says.
    ///
    /// # Panics
    /// If it cannot be made again.
    pub fn redrive(&self, letter: EntryId, draft: Option<Draft>) -> WriteId {
        let tab = self.tab();
        self.world().redrive(self.device, tab, &log(), letter, draft).expect("a dead letter that can be made again")
    }

    /// Discards a dead letter in the newest tab.
    ///
    /// # Panics
    /// If the log is not open there.
    pub fn discard(&self, letter: EntryId) {
        let tab = self.tab();
        self.world().discard(self.device, tab, &log(), letter).expect("an open log");
    }

    /// Gives an own pending entry up in the newest tab, although its bytes are whole.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn park(&self, write: WriteId) {
        let tab = self.tab();
        self.world().park(self.device, tab, &log(), write);
    }

    /// A bit flips in the row on the device's disk that holds an own entry.
    ///
    /// # Panics
    /// If no row holds it.
    pub fn damage(&self, write: WriteId) {
        self.world().flip_own(self.device, &log(), write);
    }

    /// Every socket of the device breaks.
    pub fn cut(&self, how: Cut) {
        let mut world = self.world();
        let sockets: Vec<_> = world.sockets_of(self.device);
        sockets.into_iter().for_each(|socket| world.cut(socket, how));
    }

    /// Closes every tab without a good-bye and opens one.
    pub fn reload(&self) {
        self.close();
        self.open_tab();
    }

    /// Closes every tab without a good-bye.
    pub fn close(&self) {
        let mut world = self.world();
        let tabs = world.devices[self.device].tabs();
        tabs.into_iter().for_each(|tab| world.kill_tab(self.device, tab));
    }

    /// The power goes, and the device is started again.
    pub fn lose_power(&self) {
        self.world().lose_power(self.device);
        self.open_tab();
    }

    /// Copies the whole profile to another device.
    pub fn copy(&self) -> Person {
        let device = self.world().copy_device(self.device);
        Person { story: self.story.clone(), device }
    }

    /// The database, to break it.
    pub fn database(&self) -> RefMut<'_, Database> {
        RefMut::map(self.world(), |world| &mut world.devices[self.device].database)
    }

    /// Bytes of the snapshot that is stored; 0 if none is.
    pub fn snapshot_bytes(&self) -> usize {
        let key = storage::snapshot_key(&log());
        self.database().rows().find(|(stored, _)| **stored == key).map_or(0, |(_, bytes)| bytes.len())
    }

    /// The clock is so many milliseconds ahead.
    pub fn set_clock(&self, ahead_ms: i64) {
        self.world().devices[self.device].clock_ms = ahead_ms;
    }

    /// The rows that the newest tab shows, by id.
    ///
    /// # Panics
    /// If the log is not open there.
    pub fn rows(&self) -> Vec<Fields> {
        let tab = self.tab();
        self.world().rows(self.device, tab, &log()).expect("an open log")
    }

    /// The ids that the newest tab shows.
    pub fn ids(&self) -> Vec<String> {
        self.rows().iter().map(|row| shown(row.get("id"))).collect()
    }

    /// One field of one row, as text; empty if there is none.
    pub fn field(&self, record: &str, field: &str) -> String {
        let rows = self.rows();
        let row = rows.iter().find(|row| shown(row.get("id")) == record);
        row.map_or_else(String::new, |row| shown(row.get(field)))
    }

    /// Own entries without a verdict, as the newest tab knows.
    ///
    /// # Panics
    /// If the log is not open there.
    pub fn outbox(&self) -> usize {
        let tab = self.tab();
        self.world().devices[self.device].engine(tab).replica(&log()).expect("an open log").outbox().len()
    }

    /// How the log stands, as the newest tab knows.
    ///
    /// # Panics
    /// If the log is not open there.
    pub fn status(&self) -> LogStatus {
        let tab = self.tab();
        self.world().devices[self.device].engine(tab).replica(&log()).expect("an open log").log_state().status
    }

    /// The state of the link, as the newest tab knows.
    pub fn link(&self) -> LinkState {
        let tab = self.tab();
        self.world().devices[self.device].engine(tab).connection().state
    }

    /// Dead letters: their ids and codes.
    ///
    /// # Panics
    /// If the log is not open there.
    pub fn dead_letters(&self) -> Vec<(EntryId, Option<Code>)> {
        let tab = self.tab();
        let mut world = self.world();
        let replica = world.devices[self.device].engine(tab).replica(&log()).expect("an open log");
        replica.dead_letters().map(|(id, letter)| (*id, letter.code)).collect()
    }

    /// What the app was told of an action at last.
    pub fn told(&self, write: WriteId) -> Option<WriteStatus> {
        self.world().checker.last_told(&log(), write).cloned()
    }

    /// The refusal of an action.
    ///
    /// # Panics
    /// If it was not refused.
    pub fn refusal(&self, write: WriteId) -> Refused {
        match self.told(write) {
            Some(WriteStatus::Refused(refused)) => refused,
            other => panic!("{write} is {other:?}"),
        }
    }

    /// Whether the app was told that an action is accepted.
    pub fn is_accepted(&self, write: WriteId) -> bool {
        matches!(self.told(write), Some(WriteStatus::Accepted(_)))
    }
}

fn log() -> LogName {
    board::log(1)
}

/// A value as a story writes it.
fn shown(value: Option<&Value>) -> String {
    match value {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Array(values)) => values.iter().map(|value| shown(Some(value))).collect::<Vec<_>>().join(" "),
        Some(Value::Null) | None => String::new(),
        Some(other) => format!("{other:?}"),
    }
}
