//! Fan-out: how followers learn that a log grew, and the newest entries that they all want.
//!
//! The writer pushes committed entries into a log's feed and wakes its followers; each then reads at its own pace,
//! from the feed as long as it is near the end, else from the store. A frame is encoded once for every follower at the
//! same position. **Invariant:** nothing here waits for a follower; a follower costs a flag and a wake-up. What is kept
//! in memory has a bound for each log and one for all together; beyond it readers go to the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use driftlog_core::chain::Cursor;
use driftlog_core::entry::Logged;
use driftlog_core::id::{ActorId, LogName, Offset, Seq};
use driftlog_core::limits;
use driftlog_core::protocol::frame::LogNumber;
use driftlog_core::session::server::{EntriesFrame, entries_frame};
use driftlog_core::time::WallMs;
use tokio::sync::Notify;

/// Encoded frames kept for followers at the same position.
const FRAMES_KEPT: usize = 8;

/// The feeds of all logs that somebody follows.
#[derive(Default)]
pub(crate) struct Feeds {
    feeds: Mutex<BTreeMap<LogName, Weak<Feed>>>,
    tail_bytes: usize,
    tails_bytes: usize,
    kept: Arc<AtomicUsize>,
}

/// The newest entries of one log and its followers.
pub(crate) struct Feed {
    name: LogName,
    tail: Mutex<Tail>,
    followers: Mutex<Vec<Follower>>,
    /// The snapshot that readers are being sent, for as long as one of them is.
    snapshot: Mutex<Option<(Cursor, Weak<[u8]>)>>,
}

struct Tail {
    entries: VecDeque<(Arc<Logged>, Cursor, usize)>,
    bytes: usize,
    bytes_max: usize,
    frames: VecDeque<SharedFrame>,
    /// Of entries before this the bodies may be gone: nothing of them is kept.
    below: Offset,
    /// Bytes of entries and frames of all logs, and how many there may be.
    kept: Arc<AtomicUsize>,
    kept_max: usize,
}

struct SharedFrame {
    number: LogNumber,
    from: Offset,
    authors: Vec<ActorId>,
    frame: EntriesFrame,
}

struct Follower {
    session: Weak<Waker>,
    number: LogNumber,
}

/// What a session is woken by: which of its logs grew, and to where.
#[derive(Default)]
pub(crate) struct Waker {
    grown: Mutex<BTreeMap<LogNumber, Offset>>,
    /// Logs in which somebody else says something new of itself.
    present: Mutex<BTreeSet<LogNumber>>,
    notify: Notify,
}

/// A reader's position, and what it holds of its own.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    pub(crate) number: LogNumber,
    pub(crate) from: Cursor,
    pub(crate) actor: ActorId,
    pub(crate) held: Seq,
}

impl Feeds {
    /// Feeds that keep so many bytes of a log, and so many of all logs together.
    pub(crate) fn new(tail_bytes: usize, tails_bytes: usize) -> Self {
        Self { feeds: Mutex::default(), tail_bytes, tails_bytes, kept: Arc::default() }
    }

    /// The feed of a log, made if nobody follows it yet.
    pub(crate) fn follow(&self, name: &LogName, session: &Arc<Waker>, number: LogNumber) -> Arc<Feed> {
        let feed = {
            let mut feeds = lock(&self.feeds);
            let known = feeds.get(name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let feed = Arc::new(Feed::new(name.clone(), self));
                feeds.insert(name.clone(), Arc::downgrade(&feed));
                feed
            })
        };
        lock(&feed.followers).push(Follower { session: Arc::downgrade(session), number });
        feed
    }

    /// Ends a session's interest in a log.
    pub(crate) fn leave(&self, feed: Arc<Feed>, session: &Arc<Waker>, number: LogNumber) {
        lock(&feed.followers).retain(|follower| {
            follower.number != number || !std::ptr::eq(follower.session.as_ptr(), Arc::as_ptr(session))
        });
        let mut feeds = lock(&self.feeds);
        if Arc::strong_count(&feed) == 1
            && feeds.get(&feed.name).is_some_and(|known| known.as_ptr() == Arc::as_ptr(&feed))
        {
            feeds.remove(&feed.name);
        }
    }

    /// Forgets what is in memory of a log's entries: bodies of some before an offset are gone from the store.
    pub(crate) fn forget(&self, name: &LogName, below: Offset) {
        let feed = lock(&self.feeds).get(name).and_then(Weak::upgrade);
        if let Some(feed) = feed {
            let mut tail = lock(&feed.tail);
            tail.below = tail.below.max(below);
            tail.clear();
        }
    }

    /// Wakes whoever follows a log, for what is said in it beside the entries.
    pub(crate) fn present(&self, name: &LogName) {
        let feed = lock(&self.feeds).get(name).and_then(Weak::upgrade);
        if let Some(feed) = feed {
            feed.present();
        }
    }

    /// Takes committed entries of a log and wakes whoever follows it.
    pub(crate) fn committed(&self, name: &LogName, entries: Vec<(Logged, Cursor, usize)>) {
        let feed = lock(&self.feeds).get(name).and_then(Weak::upgrade);
        if let Some(feed) = feed {
            feed.extend(entries);
        }
        if self.kept.load(Ordering::Relaxed) > self.tails_bytes {
            // All begin anew: the busy ones are full again soon, the others hold nothing for nobody.
            let feeds: Vec<_> = lock(&self.feeds).values().filter_map(Weak::upgrade).collect();
            feeds.iter().for_each(|feed| lock(&feed.tail).clear());
        }
    }
}

impl Feed {
    fn new(name: LogName, feeds: &Feeds) -> Self {
        let tail = Tail {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max: feeds.tail_bytes,
            frames: VecDeque::new(),
            below: Offset(0),
            kept: Arc::clone(&feeds.kept),
            kept_max: feeds.tails_bytes,
        };
        Self { name, tail: Mutex::new(tail), followers: Mutex::default(), snapshot: Mutex::default() }
    }

    /// The snapshot that ends at an offset, if some reader is being sent it.
    pub(crate) fn snapshot_at(&self, end: Offset) -> Option<(Cursor, Arc<[u8]>)> {
        let snapshot = lock(&self.snapshot);
        let (cursor, bytes) = snapshot.as_ref().filter(|(cursor, _)| cursor.next == end)?;
        Some((*cursor, bytes.upgrade()?))
    }

    /// A snapshot that was read: the same bytes for everybody who is sent it meanwhile.
    pub(crate) fn share_snapshot(&self, cursor: Cursor, bytes: Vec<u8>) -> Arc<[u8]> {
        if let Some((_, bytes)) = self.snapshot_at(cursor.next) {
            return bytes;
        }
        let bytes: Arc<[u8]> = bytes.into();
        *lock(&self.snapshot) = Some((cursor, Arc::downgrade(&bytes)));
        bytes
    }

    /// Wakes everybody who follows the log, for what is said in it beside the entries.
    pub(crate) fn present(&self) {
        for follower in lock(&self.followers).iter() {
            if let Some(session) = follower.session.upgrade() {
                session.present(follower.number);
            }
        }
    }

    fn extend(&self, entries: Vec<(Logged, Cursor, usize)>) {
        let Some(end) = entries.last().map(|(_, cursor, _)| cursor.next) else { return };
        let mut tail = lock(&self.tail);
        for (logged, cursor, bytes) in entries {
            tail.push((Arc::new(logged), cursor, bytes));
        }
        drop(tail);
        lock(&self.followers).retain(|follower| match follower.session.upgrade() {
            Some(session) => {
                session.grew(follower.number, end);
                true
            }
            None => false,
        });
    }

    /// The next frame for a reader; none if its position is not in memory.
    pub(crate) fn frame(&self, now: WallMs, at: Position) -> Option<EntriesFrame> {
        let (entries, end) = {
            let tail = lock(&self.tail);
            if let Some(frame) = tail.shared(now, at) {
                return Some(frame);
            }
            let first = tail.entries.front()?.0.offset;
            let last = tail.entries.back()?.1.next;
            if at.from.next < first || at.from.next >= last {
                return None;
            }
            let mut bytes = 0;
            let skip = (at.from.next.0 - first.0) as usize;
            let entries: Vec<_> = tail
                .entries
                .iter()
                .skip(skip)
                .take_while(|(_, _, size)| {
                    let fits = bytes < limits::FRAME_BYTES_TARGET;
                    bytes += size;
                    fits
                })
                .map(|(logged, cursor, _)| (Arc::clone(logged), *cursor))
                .collect();
            (entries, last)
        };
        self.encode(now, at, end, entries.iter().map(|(logged, cursor)| (&**logged, *cursor)))
    }

    /// Encodes a frame of entries and keeps it for others at the same position, if it holds nothing of one's own.
    pub(crate) fn encode<'a>(
        &self,
        now: WallMs,
        at: Position,
        end: Offset,
        entries: impl Iterator<Item = (&'a Logged, Cursor)> + Clone,
    ) -> Option<EntriesFrame> {
        let held = |(logged, _): (&Logged, Cursor)| logged.actor == at.actor && logged.entry.header.seq >= at.held;
        let own = entries.clone().any(held).then_some((at.actor, at.held));
        let frame = entries_frame(now, at.number, at.from, end, own, entries.clone())?;
        if own.is_none() {
            let mut authors: Vec<_> = entries.map(|(logged, _)| logged.actor).collect();
            authors.sort_unstable();
            authors.dedup();
            let shared = SharedFrame { number: at.number, from: at.from.next, authors, frame: frame.clone() };
            lock(&self.tail).share(shared);
        }
        Some(frame)
    }
}

impl Tail {
    fn push(&mut self, entry: (Arc<Logged>, Cursor, usize)) {
        self.bytes += entry.2;
        self.kept.fetch_add(entry.2, Ordering::Relaxed);
        self.entries.push_back(entry);
        while self.bytes > self.bytes_max
            && let Some((_, _, bytes)) = self.entries.pop_front()
        {
            self.bytes -= bytes;
            self.kept.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn share(&mut self, shared: SharedFrame) {
        if shared.from < self.below {
            return;
        }
        if self.frames.len() == FRAMES_KEPT
            && let Some(oldest) = self.frames.pop_front()
        {
            self.kept.fetch_sub(oldest.frame.bytes.len(), Ordering::Relaxed);
        }
        if self.kept.load(Ordering::Relaxed) < self.kept_max {
            self.kept.fetch_add(shared.frame.bytes.len(), Ordering::Relaxed);
            self.frames.push_back(shared);
        }
    }

    fn clear(&mut self) {
        let frames: usize = self.frames.iter().map(|shared| shared.frame.bytes.len()).sum();
        self.kept.fetch_sub(self.bytes + frames, Ordering::Relaxed);
        self.entries.clear();
        self.frames.clear();
        self.bytes = 0;
    }

    fn shared(&self, now: WallMs, at: Position) -> Option<EntriesFrame> {
        let found = self.frames.iter().rev().find(|shared| shared.number == at.number && shared.from == at.from.next);
        let found = found.filter(|shared| shared.frame.expires.is_none_or(|last| now <= last));
        found.filter(|shared| !shared.authors.contains(&at.actor)).map(|shared| shared.frame.clone())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Waker {
    fn grew(&self, number: LogNumber, end: Offset) {
        let mut grown = lock(&self.grown);
        let known = grown.entry(number).or_default();
        *known = end.max(*known);
        drop(grown);
        self.notify.notify_one();
    }

    /// Somebody says something new of itself in a log.
    pub(crate) fn present(&self, number: LogNumber) {
        lock(&self.present).insert(number);
        self.notify.notify_one();
    }

    /// The logs with presences that are new since the last look.
    pub(crate) fn take_present(&self) -> BTreeSet<LogNumber> {
        std::mem::take(&mut *lock(&self.present))
    }

    /// The logs that have grown since the last look.
    pub(crate) fn take_grown(&self) -> BTreeMap<LogNumber, Offset> {
        std::mem::take(&mut *lock(&self.grown))
    }

    /// Waits until some log has grown, or somebody is present anew; gives all that have grown.
    pub(crate) async fn grown(&self) -> BTreeMap<LogNumber, Offset> {
        loop {
            let grown = self.take_grown();
            if !grown.is_empty() || !lock(&self.present).is_empty() {
                return grown;
            }
            self.notify.notified().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftlog_core::entry::{Body, Entry, Header, Salt};
    use driftlog_core::id::{Base, EpochId, LogId, Name, RunId, UserId};
    use driftlog_core::time::Time;

    fn grow(feeds: &Feeds, name: &LogName, at: Cursor, actor: u8, seq: u64) -> Cursor {
        let base = Base { epoch: EpochId::NONE, end: Offset(0) };
        let header = Header::new(RunId([actor; 8]), seq, Seq(seq), base, Time::from_ms(1_000));
        let body = Body::new(Name::new("act").expect("a name"), None, Vec::new(), None, Salt([1; 8]));
        let logged = Logged {
            offset: at.next,
            actor: ActorId([actor; 16]),
            user: UserId::new("alice").expect("a user"),
            accepted: Time::from_ms(1_000),
            base: Offset(0),
            entry: Entry::new(header, Arc::new(body)).expect("valid"),
        };
        let after = at.after(&logged);
        feeds.committed(name, vec![(logged, after, 100)]);
        after
    }

    fn reader(actor: u8, from: Cursor) -> Position {
        Position { number: 1, from, actor: ActorId([actor; 16]), held: Seq(1) }
    }

    #[tokio::test]
    async fn followers_are_woken_and_share_one_frame() {
        let (feeds, name) = (Feeds::new(1_000, 10_000), LogName::new("board/1").expect("a name"));
        let waker = Arc::new(Waker::default());
        let feed = feeds.follow(&name, &waker, 1);
        let start = Cursor::start(LogId([1; 16]));
        let end = grow(&feeds, &name, start, 1, 1);
        assert_eq!(waker.grown().await, BTreeMap::from([(1, Offset(1))]));
        let one = feed.frame(0, reader(2, start)).expect("in memory");
        let two = feed.frame(0, reader(3, start)).expect("in memory");
        assert!(Arc::ptr_eq(&one.bytes, &two.bytes), "encoded once");
        assert_eq!(one.after, end);
        let own = feed.frame(0, reader(1, start)).expect("in memory");
        assert!(own.bytes.len() < one.bytes.len(), "its author gets a stub");
        assert!(feed.frame(0, reader(2, end)).is_none(), "nothing behind the end");
    }

    #[test]
    fn the_tail_is_bounded_and_ends_with_its_last_follower() {
        let (feeds, name) = (Feeds::new(1_000, 10_000), LogName::new("board/1").expect("a name"));
        let waker = Arc::new(Waker::default());
        let feed = feeds.follow(&name, &waker, 1);
        let start = Cursor::start(LogId([1; 16]));
        let mut at = start;
        for seq in 1..=50 {
            at = grow(&feeds, &name, at, 1, seq);
        }
        assert!(feed.frame(0, reader(2, start)).is_none(), "too old: the store has it");
        assert_eq!(lock(&feed.tail).entries.len(), 10);
        feeds.leave(feed, &waker, 1);
        assert!(lock(&feeds.feeds).is_empty());
        assert_eq!(feeds.kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_tails_of_all_logs_together_are_bounded() {
        let feeds = Feeds::new(1_000, 5_000);
        let waker = Arc::new(Waker::default());
        let mut followed = Vec::new();
        for log in 0..100 {
            let name = LogName::new(&format!("board/{log}")).expect("a name");
            let feed = feeds.follow(&name, &waker, log);
            let start = Cursor::start(LogId([1; 16]));
            let mut at = start;
            for seq in 1..=9 {
                at = grow(&feeds, &name, at, 1, seq);
                feed.frame(0, reader(2, start));
                assert!(feeds.kept.load(Ordering::Relaxed) <= 5_000 + 1_000, "one more entry and frame at most");
            }
            followed.push(feed);
        }
    }

    #[test]
    fn readers_of_one_snapshot_share_its_bytes_as_long_as_one_of_them_is_sent_it() {
        let feeds = Feeds::new(1_000, 10_000);
        let name = LogName::new("board/1").expect("a name");
        let feed = feeds.follow(&name, &Arc::new(Waker::default()), 1);
        let cursor = Cursor { next: Offset(5), ..Cursor::start(LogId([1; 16])) };
        let one = feed.share_snapshot(cursor, vec![1; 10]);
        let two = feed.share_snapshot(cursor, vec![1; 10]);
        let (_, three) = feed.snapshot_at(Offset(5)).expect("it is being sent");
        assert!(Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&one, &three));
        assert!(feed.snapshot_at(Offset(6)).is_none(), "a newer one is another");
        drop((one, two, three));
        assert!(feed.snapshot_at(Offset(5)).is_none());
    }
}
