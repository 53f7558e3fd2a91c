//! Every session in this process: one per actor, the newest wins; and frames that were refused, to know them again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use driftlog_core::connection::Downgrade;
use driftlog_core::entry::Digest;
use driftlog_core::id::{ActorId, LogName};
use driftlog_core::time::WallMs;
use tokio::sync::mpsc;

/// Refused frames that are remembered by their digest.
const REFUSED_MAX: usize = 1_024;

/// Why a session is told to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    /// A newer socket of the same actor took over.
    Superseded,
    /// Its author was erased: when it comes back it is somebody new.
    Erased,
    /// Its connection is inactive, for this reason and since then. It may come back after so many milliseconds, or when
    /// the server says to everybody.
    Downgraded { reason: Downgrade, since: WallMs, away_ms: Option<u64> },
}

/// All sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    live: Arc<Mutex<Live>>,
    refused: Mutex<VecDeque<Digest>>,
}

#[derive(Default)]
struct Live {
    last: u64,
    sessions: BTreeMap<ActorId, (u64, mpsc::Sender<Ending>)>,
    /// Logs in which own entries of a session are held, since when in steady time.
    held: BTreeMap<(u64, LogName), WallMs>,
}

/// A session's place among the others; it is given up when this is dropped.
pub(super) struct Registration {
    live: Arc<Mutex<Live>>,
    actor: ActorId,
    number: u64,
}

impl Sessions {
    /// Registers a session and ends an older one of the same actor.
    pub(super) fn register(&self, actor: ActorId, ended: mpsc::Sender<Ending>) -> Registration {
        let mut live = lock(&self.live);
        live.last += 1;
        let number = live.last;
        if let Some((_, older)) = live.sessions.insert(actor, (number, ended)) {
            // It has one place for this; if that is taken, it is ending already.
            let _ = older.try_send(Ending::Superseded);
        }
        Registration { live: Arc::clone(&self.live), actor, number }
    }

    /// Ends the sessions of actors that were erased.
    pub(crate) fn end_all(&self, actors: &[ActorId]) {
        let live = lock(&self.live);
        for (_, ended) in actors.iter().filter_map(|actor| live.sessions.get(actor)) {
            let _ = ended.try_send(Ending::Erased);
        }
    }

    /// How many sessions are live.
    pub(crate) fn len(&self) -> usize {
        lock(&self.live).sessions.len()
    }

    /// In how many logs own entries of sessions are held, and since when the oldest are, in steady time.
    pub(crate) fn held(&self) -> (usize, Option<WallMs>) {
        let live = lock(&self.live);
        (live.held.len(), live.held.values().min().copied())
    }

    /// Whether the same refused bytes came before, as far as that is remembered; from now on they have.
    pub(super) fn seen_before(&self, bytes: &[u8]) -> bool {
        let digest = Digest::of(&[bytes]);
        let mut refused = lock(&self.refused);
        if refused.contains(&digest) {
            return true;
        }
        if refused.len() == REFUSED_MAX {
            refused.pop_front();
        }
        refused.push_back(digest);
        false
    }
}

impl Registration {
    /// What a push to a log came to: held at this time, or no more. What is held already is so since it was first.
    pub(super) fn note_held(&self, log: LogName, since: Option<WallMs>) {
        let mut live = lock(&self.live);
        match since {
            Some(since) => drop(live.held.entry((self.number, log)).or_insert(since)),
            None => drop(live.held.remove(&(self.number, log))),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut live = lock(&self.live);
        live.held.retain(|(number, _), _| *number != self.number);
        if live.sessions.get(&self.actor).is_some_and(|(number, _)| *number == self.number) {
            live.sessions.remove(&self.actor);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
