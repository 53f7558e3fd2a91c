//! Room for pushes: how much of what sessions sent may wait for the log writer, of all sessions together.
//!
//! ```text
//!  socket ──► claim ──► gate ──► writer ──► committed: the claim ends, and who waits for credit is woken
//!    ▲                                                       │
//!    └────────── window: how much a session may have here ◄──┘
//! ```
//!
//! The first bound is credit: each session's window is an equal share of what is free, so it narrows as the room fills
//! and writers slow down. Who has nothing in here may always send one push, until the room is full; then those who ask
//! wait in order. The second bound is the socket: credit that was given while there was room may be spent when there is
//! none, so a session that has something at the writer is not read while the room is full, nor while it has too many
//! requests there. It is read again when its own is done, which needs nothing but the writer; so nothing is stuck, and
//! who only reads, or sends what needs no credit, is always read.
//!
//! **Invariant:** what waits here is at most the bound and one push of each session. What waits for a worker of the gate
//! counts in the windows for half of the room at most, so that the others go on while there is no worker.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use driftlog_core::limits::{CREDIT_BYTES, FRAME_BYTES_TARGET};
use tokio::sync::Notify;

/// Requests that one session may have at the writer before it is not read any more.
const REQUESTS_MAX: usize = 1_024;
/// What a session may send that has nothing in the room: one frame.
const FLOOR_BYTES: u64 = FRAME_BYTES_TARGET as u64;
/// What a session may send at first. More comes with the first answer, so that who never pushes holds little.
const FIRST_BYTES: u64 = CREDIT_BYTES / 4;

/// The room of one server.
pub(crate) struct Room {
    bytes_max: u64,
    shares: AtomicU64,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: Held,
    /// The most there ever was.
    bytes_peak: u64,
    /// What each session has here; those that have nothing are not in it.
    sessions: BTreeMap<u64, Held>,
    /// Sessions without credit that have nothing here, in the order in which they began to wait.
    waiting: VecDeque<Weak<Share>>,
}

#[derive(Clone, Copy, Default)]
struct Held {
    gate: u64,
    writer: u64,
    requests: usize,
}

/// Where what is claimed waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// For a worker of the gate.
    Gate,
    /// For the log writer.
    Writer,
}

/// One session's part in the room.
pub(crate) struct Share {
    room: Arc<Room>,
    number: u64,
    /// It is in `waiting`.
    waits: AtomicBool,
    /// It is not read.
    unread: AtomicBool,
    changed: Notify,
}

/// Something in the room. It is out when this is dropped.
pub(crate) struct Claim {
    share: Arc<Share>,
    bytes: u64,
    place: Place,
}

/// How full the room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    pub(crate) bytes_peak: u64,
    pub(crate) requests: usize,
    /// Sessions that wait for credit.
    pub(crate) waiting: usize,
}

impl Room {
    /// A room for so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, shares: AtomicU64::default(), inside: Mutex::default() })
    }

    /// A part in it for one more session.
    pub(crate) fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share {
            room: Arc::clone(self),
            number: self.shares.fetch_add(1, Ordering::Relaxed),
            waits: AtomicBool::default(),
            unread: AtomicBool::default(),
            changed: Notify::new(),
        })
    }

    /// How full it is.
    pub(crate) fn load(&self) -> Load {
        let inside = self.inside();
        let Held { gate, writer, requests } = inside.all;
        let (bytes_max, bytes_peak) = (self.bytes_max, inside.bytes_peak);
        let waiting = inside.waiting.iter().filter(|share| share.strong_count() > 0).count();
        Load { bytes: gate + writer, bytes_max, bytes_peak, requests, waiting }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, inside: &Inside) -> bool {
        inside.all.writer >= self.bytes_max
    }

    /// An equal share of half of what is free: when all take theirs there is still room for who comes next.
    fn window(&self, inside: &Inside, number: u64) -> u64 {
        let Held { gate, writer, .. } = inside.all;
        let free = self.bytes_max.saturating_sub(writer + gate.min(self.bytes_max / 2));
        let own = inside.sessions.get(&number).copied().unwrap_or_default();
        let others = inside.sessions.len() as u64 - u64::from(inside.sessions.contains_key(&number));
        let window = (free / 2 / (others + 1)).min(CREDIT_BYTES);
        match own.gate + own.writer == 0 && !self.is_full(inside) {
            true => window.max(FLOOR_BYTES),
            false => window,
        }
    }
}

impl Inside {
    fn change(&mut self, number: u64, change: impl Fn(&mut Held)) {
        change(&mut self.all);
        let held = self.sessions.entry(number).or_default();
        change(held);
        if held.requests == 0 {
            self.sessions.remove(&number);
        }
        self.bytes_peak = self.bytes_peak.max(self.all.gate + self.all.writer);
    }
}

impl Held {
    fn at(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Gate => &mut self.gate,
            Place::Writer => &mut self.writer,
        }
    }
}

impl Share {
    /// Something of this session comes in, as so many bytes came from its socket.
    pub(crate) fn claim(self: &Arc<Self>, place: Place, bytes: u64) -> Claim {
        self.room.inside().change(self.number, |held| {
            *held.at(place) += bytes;
            held.requests += 1;
        });
        Claim { share: Arc::clone(self), bytes, place }
    }

    /// How much of this session may be here at once.
    pub(crate) fn window(&self) -> u64 {
        self.room.window(&self.room.inside(), self.number)
    }

    /// How much it may send at first.
    pub(crate) fn first_window(&self) -> u64 {
        self.window().min(FIRST_BYTES)
    }

    /// The window of a session without credit. If there is none, [`Share::changed`] tells when to ask again.
    pub(crate) fn window_or_wait(self: &Arc<Self>) -> u64 {
        let mut inside = self.room.inside();
        let window = self.room.window(&inside, self.number);
        if window == 0 && !self.waits.swap(true, Ordering::Relaxed) {
            inside.waiting.push_back(Arc::downgrade(self));
        }
        window
    }

    /// Whether the session's socket may be read. If not, [`Share::changed`] tells when to ask again.
    pub(crate) fn may_be_read(&self) -> bool {
        let inside = self.room.inside();
        let held = inside.sessions.get(&self.number).copied().unwrap_or_default();
        let may = held.requests < REQUESTS_MAX && (held.writer == 0 || !self.room.is_full(&inside));
        self.unread.store(!may, Ordering::Relaxed);
        may
    }

    /// Waits until there may be another answer.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Claim {
    /// It has passed the gate.
    pub(crate) fn hand_on(&mut self) {
        let (from, bytes) = (std::mem::replace(&mut self.place, Place::Writer), self.bytes);
        self.share.room.inside().change(self.share.number, |held| {
            *held.at(from) -= bytes;
            *held.at(Place::Writer) += bytes;
        });
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Self { share, bytes, place } = self;
        let room = &share.room;
        let mut woken = Vec::new();
        {
            let mut inside = room.inside();
            inside.change(share.number, |held| {
                *held.at(*place) -= *bytes;
                held.requests -= 1;
            });
            // As many as may send a frame each; when nothing is left that would wake the others, all of them.
            let mut free = match inside.sessions.is_empty() {
                true => u64::MAX,
                false => room.bytes_max.saturating_sub(inside.all.writer).div_ceil(FLOOR_BYTES),
            };
            while free > 0
                && let Some(next) = inside.waiting.pop_front()
            {
                if let Some(next) = next.upgrade() {
                    next.waits.store(false, Ordering::Relaxed);
                    woken.push(next);
                    free -= 1;
                }
            }
            if share.unread.load(Ordering::Relaxed) {
                woken.push(Arc::clone(share));
            }
        }
        woken.iter().for_each(|share| share.changed.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 16 * CREDIT_BYTES;

    fn was_woken(share: &Share) -> bool {
        std::pin::pin!(share.changed.notified()).as_mut().enable()
    }

    #[test]
    fn a_session_alone_gets_everything_that_one_may_have_and_many_get_equal_shares() {
        let room = Room::new(MAX);
        let alone = room.share();
        assert_eq!((alone.first_window(), alone.window()), (FIRST_BYTES, CREDIT_BYTES));
        let others: Vec<_> = (0..63).map(|_| room.share().claim(Place::Writer, 0)).collect();
        assert_eq!(alone.window(), MAX / 2 / 64);
        drop(others);
        assert_eq!(alone.window(), CREDIT_BYTES);
    }

    #[test]
    fn one_session_cannot_take_it_all() {
        let room = Room::new(CREDIT_BYTES);
        let (huge, other) = (room.share(), room.share());
        let mut claims = Vec::new();
        let mut taken = 0;
        while let window = huge.window()
            && window > taken
        {
            claims.push(huge.claim(Place::Writer, window - taken));
            taken = window;
        }
        assert!(taken <= CREDIT_BYTES / 2);
        assert!(other.window() >= FLOOR_BYTES);
    }

    #[test]
    fn windows_narrow_as_the_room_fills_and_who_has_nothing_in_it_may_send_a_frame() {
        let room = Room::new(MAX);
        let (busy, idle) = (room.share(), room.share());
        let mut claims = Vec::new();
        let mut last = busy.window();
        while !room.is_full(&room.inside()) {
            assert!(idle.window() >= FLOOR_BYTES);
            claims.push(busy.claim(Place::Writer, MAX / 16));
            let window = busy.window();
            assert!(window <= last);
            last = window;
        }
        assert_eq!((busy.window(), idle.window()), (0, 0));
    }

    #[test]
    fn who_waits_for_credit_is_woken_in_order_and_no_more_than_there_is_room_for() {
        let room = Room::new(2 * FLOOR_BYTES);
        let mut claims: Vec<_> = (0..2).map(|_| room.share().claim(Place::Writer, FLOOR_BYTES)).collect();
        let waiting: Vec<_> = (0..4).map(|_| room.share()).collect();
        assert!(waiting.iter().chain(&waiting).all(|share| share.window_or_wait() == 0));
        assert_eq!(room.load().waiting, 4);
        let woken = || waiting.iter().map(|share| was_woken(share)).collect::<Vec<_>>();
        drop(claims.pop());
        assert_eq!(woken(), [true, false, false, false]);
        claims.push(waiting[0].claim(Place::Writer, FLOOR_BYTES));
        drop(claims.remove(0));
        assert_eq!(woken(), [false, true, false, false]);
        // Nothing comes in any more, and nobody is left behind.
        drop(claims);
        assert_eq!(woken(), [false, false, true, true]);
        assert_eq!(room.load().waiting, 0);
    }

    #[test]
    fn a_session_with_something_at_the_writer_is_not_read_while_the_room_is_full() {
        let room = Room::new(100);
        let (one, other) = (room.share(), room.share());
        let (small, large) = (one.claim(Place::Writer, 1), other.claim(Place::Writer, 100));
        assert!(!one.may_be_read() && !other.may_be_read() && room.share().may_be_read());
        drop(small);
        assert!(one.may_be_read(), "its own is done");
        drop(large);
        assert!(other.may_be_read());
    }

    #[test]
    fn requests_without_bytes_are_bounded_too() {
        let room = Room::new(MAX);
        let share = room.share();
        let mut claims: Vec<_> = (0..REQUESTS_MAX).map(|_| share.claim(Place::Writer, 0)).collect();
        assert!(!share.may_be_read());
        claims.pop();
        assert!(share.may_be_read());
    }

    #[test]
    fn what_waits_for_the_gate_leaves_the_others_half_of_the_room_and_stops_no_reading() {
        let room = Room::new(MAX);
        let (stuck, other) = (room.share(), room.share());
        let mut claim = stuck.claim(Place::Gate, 3 * MAX);
        assert_eq!(other.window(), CREDIT_BYTES);
        assert!(stuck.may_be_read());
        claim.hand_on();
        assert_eq!(other.window(), 0);
        drop(claim);
        assert_eq!(room.load(), Load { bytes: 0, bytes_max: MAX, bytes_peak: 3 * MAX, requests: 0, waiting: 0 });
    }
}
