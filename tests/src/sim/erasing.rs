//! Operators that erase, servers that purge, and the question who still holds what is gone.

use std::collections::BTreeMap;

use driftlog_core::id::{LogName, UserId};
use driftlog_core::random::Random;
use driftlog_server::Erased;

use super::board;
use super::story::{Person, Story};
use super::trace::note;
use super::world::{Event, World};

/// Looks that a server has at what is to be purged before it must be done, in a story.
const PURGES_MAX: usize = 50;

impl World {
    /// The server looks at what is over, as a running one does from time to time.
    pub fn purge(&mut self) {
        let Some(server) = &self.host.server else { return };
        server.purge();
        self.host_look();
    }

    /// An operator erases; whether the server knew what was meant. What was ordered outlives the disk.
    pub fn erase(&mut self, erased: Erased) -> bool {
        let Some(server) = &self.host.server else { return false };
        note!(self, "server: an operator erases {erased:?}");
        match server.erase(erased.clone()) {
            Ok(order) => {
                self.host.orders.push(order);
                self.checker.erased(&erased);
                self.host_look();
                true
            }
            Err(error) => {
                note!(self, "server: nothing is erased: {error}");
                false
            }
        }
    }

    /// Whether the server has carried out every erase.
    pub fn has_erased(&self) -> bool {
        self.host.server.as_ref().is_some_and(|server| server.has_erased().unwrap_or(false))
    }
}

/// Of so many drawn worlds one has operators that erase, and events that expire.
const WORLDS: u64 = 5;
/// Milliseconds between two things of the kind, at most.
const ERASING_MS: u64 = 30_000;
/// Looks at a quiet world before everything that has to be gone must be.
const LOOKS_MAX: u64 = 30;

impl World {
    /// Whether this world has operators that erase. What they do is drawn apart, so that the others stay as they are.
    pub fn draw_erasing(&mut self, seed: u64) {
        if seed % WORLDS == WORLDS - 1 {
            let mut bytes = *b"driftlog simulated erasing______";
            bytes[24..].copy_from_slice(&seed.to_be_bytes());
            self.erasing = Some(Random::new(bytes));
            self.schedule(1_000, Event::Erasing);
        }
    }

    /// Something is erased, purged, or said that is over soon.
    pub(super) fn erase_at_random(&mut self) {
        let Some(mut random) = self.erasing.take() else { return };
        if self.lively {
            self.schedule(1 + random.below(ERASING_MS), Event::Erasing);
            let log = board::log(1 + random.below(2));
            match random.below(20) {
                0..8 => self.purge(),
                8..15 => {
                    let device = random.below(self.devices.len() as u64) as usize;
                    let draft = board::event("ring", 1 + random.below(2 * ERASING_MS));
                    if let (Some(tab), true) =
                        (self.devices[device].awake().first().copied(), self.devices[device].logs.contains(&log))
                    {
                        // A log that is not open yet hears nothing.
                        let _ = self.act(device, tab, &log, draft);
                    }
                }
                15..18 => {
                    let record = board::id(&format!("r{}", random.below(8)));
                    self.erase(Erased::Record(log, board::name("todos"), record));
                }
                18 => drop(self.erase(Erased::Log(log))),
                _ => {
                    let user = format!("user{}", random.below(3));
                    if let Ok(user) = UserId::new(&user) {
                        self.erase(Erased::Author(user));
                    }
                }
            }
        }
        self.erasing = Some(random);
    }

    /// In a quiet world, what was erased or has expired leaves the server's files and every device that is there.
    pub fn run_until_gone(&mut self) {
        if self.erasing.is_none() {
            return;
        }
        for look in 0..LOOKS_MAX {
            self.purge();
            self.run_for(ERASING_MS);
            self.run_until_quiet();
            if !self.checker.is_well() {
                return;
            }
            let left = self.left_of_what_is_gone();
            match left {
                None if self.has_erased() => return,
                Some(left) if look + 1 == LOOKS_MAX => return self.checker.violated("not-gone", left),
                _ if look + 1 == LOOKS_MAX => {
                    return self
                        .checker
                        .violated("not-gone", "the server does not come to an end with erasing".to_owned());
                }
                _ => {}
            }
        }
    }

    /// Who still holds the bytes of an entry that has to be gone. The salt in it stands nowhere else.
    fn left_of_what_is_gone(&mut self) -> Option<String> {
        let now = self.now().saturating_add_signed(self.host.clock_ms).saturating_sub(ERASING_MS);
        let names: Vec<_> = self.checker.logs.keys().cloned().collect();
        let mut gone = BTreeMap::new();
        for log in names {
            let state = self.fold(&log).ok().flatten()?;
            let entries = self.checker.logs.get(&log).into_iter().flat_map(|record| &record.entries);
            // Of what was purged in the commit that took it nobody has seen the body, nor its salt.
            for logged in entries.filter(|logged| logged.entry.gone().is_none()) {
                let is_erased = state.has_erased(logged.actor, logged.base, &logged.entry);
                if is_erased || logged.gone(now).is_some() {
                    gone.insert(logged.entry.body.salt.0, (log.clone(), logged.id(), logged.offset));
                }
            }
        }
        let found = |bytes: &[u8]| {
            let salts = bytes.windows(8).filter_map(|part| part.try_into().ok());
            salts.filter_map(|salt: [u8; 8]| gone.get(&salt)).next().cloned()
        };
        for (name, _) in self.host.disk.files() {
            if let Some((log, id, offset)) = self.host.disk.read(&name).as_deref().and_then(found) {
                return Some(format!("the server holds {log} {id} at offset {offset} in {name}"));
            }
        }
        for device in self.devices.iter().filter(|device| device.is_online()) {
            let rows = device.database.rows().filter(|(_, value)| value.len() >= 8);
            for (key, (log, id, offset)) in rows.filter_map(|(key, value)| Some((key, found(value)?))) {
                if device.logs.contains(&log) {
                    let name = &device.name;
                    return Some(format!("{name} holds {log} {id} at offset {offset} in its row {key:02x?}"));
                }
            }
        }
        None
    }
}

impl Story {
    /// An operator erases a todo.
    pub fn erase(&self, record: &str) {
        self.erase_what(Erased::Record(board::log(1), board::name("todos"), board::id(record)));
    }

    /// An operator erases the whole board.
    pub fn erase_board(&self) {
        self.erase_what(Erased::Log(board::log(1)));
    }

    /// An operator erases somebody.
    ///
    /// # Panics
    /// Never: a name of a story is a user.
    pub fn erase_author(&self, name: &str) {
        self.erase_what(Erased::Author(UserId::new(name).expect("a user")));
    }

    fn erase_what(&self, erased: Erased) {
        assert!(self.world().erase(erased), "the server knows what to erase");
        self.run_for(1_000);
    }

    /// Runs until the server has carried out what was erased, and purged what has expired.
    ///
    /// # Panics
    /// If it does not come to an end.
    pub fn run_until_purged(&self) {
        for _ in 0..PURGES_MAX {
            self.world().purge();
            self.run_for(1_000);
            if self.world().has_erased() {
                self.world().purge();
                return self.run_for(1_000);
            }
        }
        panic!("the server does not come to an end with erasing");
    }

    /// Whether these bytes stand anywhere in the server's files.
    pub fn server_holds(&self, text: &str) -> bool {
        let world = self.world();
        let files = world.host.disk.files();
        let mut files = files.iter().filter_map(|(name, _)| world.host.disk.read(name));
        files.any(|bytes| contains(&bytes, text.as_bytes()))
    }
}

impl Person {
    /// Whether these bytes stand anywhere in the device's database.
    pub fn holds(&self, text: &str) -> bool {
        self.database().rows().any(|(key, value)| contains(key, text.as_bytes()) || contains(value, text.as_bytes()))
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The log that an erase is about; none: every one.
pub(super) fn log_of(erased: &Erased) -> Option<&LogName> {
    match erased {
        Erased::Log(log) | Erased::Record(log, ..) => Some(log),
        _ => None,
    }
}
