//! The weather of a run: how slow things are and how often each kind of thing breaks by itself.

use driftlog_core::random::Random;

/// How things go in one run. Rates are per thousand.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Milliseconds of one way of a frame, least and most.
    pub latency: (u64, u64),
    /// Milliseconds of one request to a client's database.
    pub storage: (u64, u64),
    /// Milliseconds of one group commit of the server.
    pub flush: (u64, u64),
    /// Milliseconds of one read of the server's store.
    pub read: (u64, u64),
    /// Milliseconds between a snapshot's making and its storing.
    pub snapshot: (u64, u64),
    /// Commits of a client that fail, and are known to.
    pub commits_failed: u64,
    /// Commits of a client whose outcome nobody tells.
    pub commits_unknown: u64,
    /// Reads of a client's database that fail.
    pub reads_failed: u64,
    /// Hints between tabs that get lost.
    pub hints_lost: u64,
    /// Tokens that are over when they are shown.
    pub tokens_stale: u64,
    /// Commits of the server after which it dies before it has said anything.
    pub answers_lost: u64,
    /// Sockets that break while they open.
    pub opens_lost: u64,
}

impl Weather {
    /// Nothing breaks by itself.
    pub fn calm() -> Self {
        Self {
            latency: (5, 20),
            storage: (1, 3),
            flush: (1, 5),
            read: (1, 2),
            snapshot: (5, 50),
            commits_failed: 0,
            commits_unknown: 0,
            reads_failed: 0,
            hints_lost: 0,
            tokens_stale: 0,
            answers_lost: 0,
            opens_lost: 0,
        }
    }

    /// A weather drawn from a seed: each kind of trouble is there or not, so that rare ones also come alone.
    pub fn drawn(random: &mut Random) -> Self {
        let mut range = |most: u64| {
            let least = random.below(most / 4 + 1);
            (least, least + 1 + random.below(most))
        };
        let (latency, storage, flush, read, snapshot) = (range(200), range(40), range(30), range(20), range(5_000));
        let mut rate = |most: u64| if random.below(2) == 0 { 0 } else { 1 + random.below(most) };
        Self {
            latency,
            storage,
            flush,
            read,
            snapshot,
            commits_failed: rate(30),
            commits_unknown: rate(30),
            reads_failed: rate(20),
            hints_lost: rate(300),
            tokens_stale: rate(300),
            answers_lost: rate(5),
            opens_lost: rate(100),
        }
    }

    /// The same speeds, and nothing breaks by itself any more.
    #[must_use]
    pub fn cleared(&self) -> Self {
        let (latency, storage, flush, read, snapshot) =
            (self.latency, self.storage, self.flush, self.read, self.snapshot);
        Self { latency, storage, flush, read, snapshot, ..Self::calm() }
    }
}

/// A number between two, both included.
pub fn between(random: &mut Random, (least, most): (u64, u64)) -> u64 {
    least + random.below(most.saturating_sub(least) + 1)
}

/// Whether something that happens so many times in a thousand happens now.
pub fn chance(random: &mut Random, per_thousand: u64) -> bool {
    per_thousand > 0 && random.below(1_000) < per_thousand
}
