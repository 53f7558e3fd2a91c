//! Operators that erase, servers that purge, and the question who still holds what is gone.

use driftlog_core::id::{LogName, UserId};
use driftlog_server::Erased;

use super::board;
use super::story::{Person, Story};
use super::trace::note;
use super::world::World;

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
        files.any(|bytes| contains(&bytes, text))
    }
}

impl Person {
    /// Whether these bytes stand anywhere in the device's database.
    pub fn holds(&self, text: &str) -> bool {
        self.database().rows().any(|(key, value)| contains(key, text) || contains(value, text))
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The log that an erase is about; none: every one.
pub(super) fn log_of(erased: &Erased) -> Option<&LogName> {
    match erased {
        Erased::Log(log) | Erased::Record(log, ..) => Some(log),
        _ => None,
    }
}
