//! Connections: which are active, who of them has a socket, and who has to go.
//!
//! ```text
//!  conversation ─ enter ──► active, live ─ dropped ──► active, away
//!       │ stands here           │                          │
//!       ▼                       ▼                          ▼
//!    Standpoint ◄────────── sweep: what moved goes to the writer, in small pieces; whom the policy of core names
//!                           becomes inactive and, if it has a socket, is told so
//! ```
//!
//! In memory there is what is active; the store has a row for each ([`crate::store`]). A row is written when its client
//! comes, with the binding, and then by the sweep: never for a frame, and never more than [`NOTES_MAX`] in one piece of
//! the writer's work. So what stands there of cursors is a little old, and too low; a client says itself where it is.

pub(crate) mod listing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftlog_core::connection::{self, Admission, ConnectionId, Downgrade, Lag, Limits, Standing};
use driftlog_core::id::{LogName, Offset, UserId};
use driftlog_core::protocol::frame::LogNumber;
use driftlog_core::session::acceptor::{Acceptor, ComeAgain};
use driftlog_core::time::WallMs;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::ConnectionBounds;
use crate::conversation::Ending;
use crate::environment::Environment;
use crate::store::{ConnectionNote, ConnectionRow, Kept, LogKey, ReadPool, Reads, StoreError};
use crate::writer::{Request, WriterHandle};

/// Rows written in one piece of the writer's work.
const NOTES_MAX: usize = 64;
/// Entries whose bytes one sweep counts; what is left, later ones count.
const COUNTED_MAX: usize = 100_000;

/// Every active connection.
pub(crate) struct Connections {
    known: Mutex<Known>,
    limits: Limits,
    environment: Arc<dyn Environment>,
    writer: WriterHandle,
    acceptor: Mutex<Acceptor>,
    sockets: Arc<AtomicUsize>,
    sockets_max: usize,
}

#[derive(Default)]
struct Known {
    active: BTreeMap<ConnectionId, Active>,
    of_users: BTreeMap<UserId, usize>,
    live: usize,
    last: u64,
    downgraded: BTreeMap<Downgrade, u64>,
}

/// An active connection. Times are steady ones.
struct Active {
    live: Option<Live>,
    seen: WallMs,
    acted: WallMs,
    moved: WallMs,
    lag: Lag,
    /// What was counted of the bytes it is behind: from where, up to where, and how many.
    counted: BTreeMap<LogKey, (Offset, Offset, u64)>,
}

struct Live {
    number: u64,
    ended: mpsc::Sender<Ending>,
    standpoint: Arc<Standpoint>,
    written: BTreeMap<LogName, Offset>,
}

/// Where one session stands, told by its conversation and read by the sweep.
#[derive(Default)]
pub(crate) struct Standpoint {
    seen: AtomicU64,
    acted: AtomicU64,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    places: BTreeMap<LogNumber, (LogName, Offset)>,
    moved: WallMs,
}

/// An open socket's place.
pub(crate) struct Opened(Arc<AtomicUsize>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session's place among the live ones; it is given up when this is dropped.
pub(crate) struct Entered {
    connections: Arc<Connections>,
    id: ConnectionId,
    number: u64,
}

/// How a connection in memory stands, for a listing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) live: bool,
    pub(crate) seen: WallMs,
    pub(crate) lag: Lag,
}

/// How many there are, for the health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) active: usize,
    pub(crate) live: usize,
    /// Downgraded since the start, by reason.
    pub(crate) downgraded: BTreeMap<Downgrade, u64>,
}

impl Standpoint {
    /// Something was heard from the peer.
    pub(crate) fn heard(&self, now: WallMs) {
        self.seen.store(now, Ordering::Relaxed);
    }

    /// The peer did something.
    pub(crate) fn acted(&self, now: WallMs) {
        self.acted.store(now, Ordering::Relaxed);
    }

    /// The reader of a log stands here now; none: it reads it no more.
    pub(crate) fn stands(&self, now: WallMs, number: LogNumber, at: Option<(&LogName, Offset)>) {
        let mut places = lock(&self.places);
        places.moved = now;
        match at {
            None => drop(places.places.remove(&number)),
            Some((name, at)) => match places.places.get_mut(&number) {
                Some((known, place)) if known == name => *place = at,
                _ => drop(places.places.insert(number, (name.clone(), at))),
            },
        }
    }

    fn places(&self) -> (BTreeMap<LogName, Offset>, WallMs) {
        let places = lock(&self.places);
        (places.places.values().cloned().collect(), places.moved)
    }
}

impl Connections {
    /// The connections that the store holds as active, all of them away.
    pub(crate) fn new(
        bounds: &ConnectionBounds,
        environment: Arc<dyn Environment>,
        writer: WriterHandle,
        active: Vec<ConnectionRow>,
    ) -> Self {
        let (limits, burst) = (bounds.limits(), bounds.welcomes_burst.max(1));
        let (mut known, now, steady) = (Known::default(), environment.now(), environment.steady());
        for row in active {
            let seen = steady.saturating_sub(now.saturating_sub(row.seen));
            known.count(&row.id.user);
            known.active.insert(row.id, Active::away(seen));
        }
        Self {
            known: Mutex::new(known),
            limits,
            environment,
            writer,
            acceptor: Mutex::new(Acceptor::new(bounds.welcomes_per_second, burst)),
            sockets: Arc::default(),
            // Those that are not welcomed yet, and those that hear that they come too fast.
            sockets_max: limits.live_max.saturating_add(burst.saturating_mul(4) as usize),
        }
    }

    /// Whether one more socket may be opened: beyond that nobody is even told when to come again.
    pub(crate) fn may_open(&self) -> bool {
        self.sockets.load(Ordering::Relaxed) < self.sockets_max
    }

    /// A socket opened. Whether it is taken in now, and the socket's place for as long as it is held.
    pub(crate) fn opened(&self) -> (Result<(), ComeAgain>, Opened) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
        let taken = lock(&self.acceptor).accept(self.environment.steady());
        (taken, Opened(Arc::clone(&self.sockets)))
    }

    /// Over how long those who are here should come back when the server ends, in milliseconds.
    pub(crate) fn spread_ms(&self) -> u64 {
        let live = lock(&self.known).live as u64;
        lock(&self.acceptor).spread_ms(live)
    }

    /// Whether this connection may come now. Whoever has to make room for it is downgraded.
    pub(crate) fn admit(&self, id: &ConnectionId) -> bool {
        let (mut known, limits) = (lock(&self.known), &self.limits);
        let here = known.active.get(id);
        let live = known.live - usize::from(here.is_some_and(|here| here.live.is_some()));
        let of_user = known.of_users.get(&id.user).copied().unwrap_or(0) - usize::from(here.is_some());
        let active = known.active.len() - usize::from(here.is_some());
        if live < limits.live_max && of_user < limits.active_of_user_max && active < limits.active_max {
            return true;
        }
        match connection::admit(self.environment.steady(), id, &known.standings(), limits) {
            Admission::Later => false,
            Admission::Welcome(gone) => {
                let gone = gone.into_iter().map(|id| (id, Downgrade::Pressure));
                self.downgrade(&mut known, gone, None);
                true
            }
        }
    }

    /// A session of this connection stands from now on.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: ConnectionId,
        ended: mpsc::Sender<Ending>,
        standpoint: Arc<Standpoint>,
    ) -> Entered {
        let now = self.environment.steady();
        standpoint.heard(now);
        standpoint.acted(now);
        lock(&standpoint.places).moved = now;
        let mut known = lock(&self.known);
        known.last += 1;
        let number = known.last;
        let live = Live { number, ended, standpoint, written: BTreeMap::new() };
        match known.active.get_mut(&id) {
            Some(active) => {
                let added = usize::from(active.live.replace(live).is_none());
                known.live += added;
            }
            None => {
                known.count(&id.user);
                known.live += 1;
                known.active.insert(id.clone(), Active { live: Some(live), ..Active::away(now) });
            }
        }
        Entered { connections: Arc::clone(self), id, number }
    }

    /// An operator downgrades one; whether it was active. It comes back no sooner than after `away_ms`, if that is given.
    pub(crate) fn ask_to_go(&self, id: &ConnectionId, away_ms: Option<u64>) -> bool {
        let mut known = lock(&self.known);
        let active = known.active.contains_key(id);
        self.downgrade(&mut known, [(id.clone(), Downgrade::Asked)], away_ms);
        active
    }

    /// How a connection stands in memory; none if it is not active.
    pub(crate) fn seen(&self, id: &ConnectionId) -> Option<Seen> {
        let known = lock(&self.known);
        let active = known.active.get(id)?;
        let seen = active.live.as_ref().map_or(active.seen, |live| live.standpoint.seen.load(Ordering::Relaxed));
        Some(Seen { live: active.live.is_some(), seen, lag: active.lag })
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> Counts {
        let known = lock(&self.known);
        Counts { active: known.active.len(), live: known.live, downgraded: known.downgraded.clone() }
    }

    /// Looks how far everybody is behind, downgrades whom the policy names, and has written what moved. It blocks.
    pub(crate) fn sweep(&self, pool: &ReadPool) -> Result<(), StoreError> {
        let mut behind = self.behind();
        pool.read(|reads| measure(reads, &mut behind))?;
        let now = self.environment.steady();
        let mut known = lock(&self.known);
        for (id, found) in behind {
            let Some(active) = known.active.get_mut(&id) else { continue };
            if active.live.as_ref().map(|live| live.number) != found.session {
                continue;
            }
            (active.lag, active.counted) = (found.lag, found.counted);
            if let Some(live) = active.live.as_ref().filter(|_| found.lag.entries == 0) {
                lock(&live.standpoint.places).moved = now;
            }
        }
        let gone = connection::downgrades(now, &known.standings(), &self.limits);
        self.downgrade(&mut known, gone, None);
        self.write(&mut known);
        Ok(())
    }

    fn behind(&self) -> BTreeMap<ConnectionId, Behind> {
        let mut known = lock(&self.known);
        let of = |active: &mut Active| Behind {
            session: active.live.as_ref().map(|live| live.number),
            places: active.live.as_ref().map(|live| live.standpoint.places().0),
            counted: std::mem::take(&mut active.counted),
            lag: Lag::default(),
        };
        known.active.iter_mut().map(|(id, active)| (id.clone(), of(active))).collect()
    }

    /// Makes connections inactive, in memory at once and in the store with the next commit. The writer is told while
    /// this is locked, so that it hears of a client's return behind it.
    fn downgrade(
        &self,
        known: &mut Known,
        gone: impl IntoIterator<Item = (ConnectionId, Downgrade)>,
        away_ms: Option<u64>,
    ) {
        let now = self.environment.now();
        let mut notes = Vec::new();
        for (id, reason) in gone {
            let Some(active) = known.remove(&id) else { continue };
            tracing::info!(user = %id.user, client = %id.client, reason = reason.name(), "a connection is inactive");
            *known.downgraded.entry(reason).or_default() += 1;
            let mut seen = active.seen;
            if let Some(live) = active.live {
                seen = live.standpoint.seen.load(Ordering::Relaxed);
                // It has one place for this; if that is taken, it is ending already.
                let _ = live.ended.try_send(Ending::Downgraded { reason, since: now, away_ms });
            }
            notes.push(ConnectionNote { id, seen: self.wall(seen), kept: Kept::Nothing(reason, now) });
        }
        self.send(notes);
    }

    fn write(&self, known: &mut Known) {
        let mut notes = Vec::new();
        for (id, active) in &mut known.active {
            let Some(live) = &mut active.live else { continue };
            let (places, _) = live.standpoint.places();
            let moved =
                |(name, at): (&LogName, &Offset)| (live.written.get(name) != Some(at)).then(|| (name.clone(), *at));
            let moved: Vec<_> = places.iter().filter_map(moved).collect();
            let seen = live.standpoint.seen.load(Ordering::Relaxed);
            if !moved.is_empty() {
                live.written = places;
                notes.push(ConnectionNote { id: id.clone(), seen: self.wall(seen), kept: Kept::Moved(moved) });
            }
        }
        self.send(notes);
    }

    fn left(&self, id: &ConnectionId, number: u64) {
        let mut known = lock(&self.known);
        let Some(active) = known.active.get_mut(id) else { return };
        let Some(live) = active.live.take_if(|live| live.number == number) else { return };
        let active_seen = live.standpoint.seen.load(Ordering::Relaxed);
        active.seen = active_seen;
        active.acted = live.standpoint.acted.load(Ordering::Relaxed);
        known.live -= 1;
        // What it does not follow any more is nothing that it could be behind in.
        let (places, _) = live.standpoint.places();
        let seen = self.wall(active_seen);
        let note = ConnectionNote { id: id.clone(), seen, kept: Kept::All(places.into_iter().collect()) };
        self.send(vec![note]);
    }

    /// A steady time as the wall clock showed it, or would have.
    pub(crate) fn wall(&self, then: WallMs) -> WallMs {
        self.environment.now().saturating_sub(self.environment.steady().saturating_sub(then))
    }

    fn send(&self, notes: Vec<ConnectionNote>) {
        let mut notes = notes.into_iter().peekable();
        while notes.peek().is_some() {
            self.writer.send(Request::Connections(notes.by_ref().take(NOTES_MAX).collect()));
        }
    }
}

impl Known {
    fn count(&mut self, user: &UserId) {
        *self.of_users.entry(user.clone()).or_default() += 1;
    }

    fn remove(&mut self, id: &ConnectionId) -> Option<Active> {
        let active = self.active.remove(id)?;
        self.live -= usize::from(active.live.is_some());
        if let Some(count) = self.of_users.get_mut(&id.user) {
            *count -= 1;
            if *count == 0 {
                self.of_users.remove(&id.user);
            }
        }
        Some(active)
    }

    fn standings(&self) -> Vec<Standing> {
        self.active.iter().map(|(id, active)| active.standing(id)).collect()
    }
}

impl Active {
    fn away(seen: WallMs) -> Self {
        let (live, lag, counted) = (None, Lag::default(), BTreeMap::new());
        Self { live, seen, acted: seen, moved: seen, lag, counted }
    }

    fn standing(&self, id: &ConnectionId) -> Standing {
        let Self { live, lag, .. } = self;
        let of = |live: &Live| {
            let (seen, acted) = (&live.standpoint.seen, &live.standpoint.acted);
            let moved = lock(&live.standpoint.places).moved;
            (seen.load(Ordering::Relaxed), acted.load(Ordering::Relaxed), moved)
        };
        let (seen, acted, moved) = live.as_ref().map_or((self.seen, self.acted, self.moved), of);
        Standing { id: id.clone(), live: live.is_some(), seen, acted, moved, lag: *lag }
    }
}

impl Entered {
    /// The session's number, never given twice.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connections.left(&self.id, self.number);
    }
}

/// Sweeps from time to time, until it is aborted.
pub(crate) fn start(connections: Arc<Connections>, pool: Arc<ReadPool>, every: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let (connections, pool) = (Arc::clone(&connections), Arc::clone(&pool));
            match tokio::task::spawn_blocking(move || connections.sweep(&pool)).await {
                Ok(Ok(())) => {}
                // The next one finds what this did not.
                Ok(Err(error)) => tracing::error!(%error, "connections could not be looked at"),
                Err(_) => return,
            }
        }
    })
}

/// What a sweep finds out about one connection.
struct Behind {
    session: Option<u64>,
    /// Where a live one stands; where the others do is in the store.
    places: Option<BTreeMap<LogName, Offset>>,
    counted: BTreeMap<LogKey, (Offset, Offset, u64)>,
    lag: Lag,
}

/// Counts how far everybody is behind: a live one by where its session stands, the others by the store.
fn measure(reads: Reads<'_>, behind: &mut BTreeMap<ConnectionId, Behind>) -> Result<(), StoreError> {
    let mut places = Vec::new();
    for (id, found) in behind.iter() {
        for (name, at) in found.places.iter().flatten() {
            let Some(log) = reads.log(name)? else { continue };
            let end = reads.end(&log)?.0.next;
            if *at < end {
                places.push((id.clone(), log.key, *at, end));
            }
        }
    }
    places.extend(
        reads
            .cursors_behind()?
            .into_iter()
            .filter(|(id, ..)| behind.get(id).is_some_and(|found| found.places.is_none())),
    );
    let mut left = COUNTED_MAX;
    for (id, log, at, end) in places {
        let Some(found) = behind.get_mut(&id) else { continue };
        // What was counted of the same stretch is not counted again.
        let (_, before, bytes) =
            found.counted.get(&log).copied().filter(|(from, ..)| *from == at).unwrap_or((at, at, 0));
        let (more, through) = if left > 0 { reads.entry_bytes(log, (before, end), left)? } else { (0, before) };
        left = left.saturating_sub((through.0 - before.0) as usize);
        found.counted.insert(log, (at, through, bytes + more));
        found.lag.entries += end.0 - at.0;
        found.lag.bytes += bytes + more;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
