//! Chains: running hashes that make two histories comparable by one value.
//!
//! The log chain runs over what the log holds, the actor chain over what an author pushed, refused entries included.
//! Both run over digests, never over bodies, so refusal, expiry, erase and pruning leave them as they are
//! (docs/log-format.md, "Chains").

use serde::{Deserialize, Serialize};

use crate::entry::{Digest, Logged};
use crate::id::{ActorId, LogId, LogName, Offset, Seq};
use crate::packed::Pushed;
use crate::time::Time;

/// The value of a chain after some number of links.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chain(pub Digest);

impl Chain {
    /// The log chain before its first entry.
    pub fn log_start(log: LogId) -> Self {
        Self(Digest::of(&[b"driftlog log chain 1", &log.0]))
    }

    /// The actor chain before its first entry in this log.
    pub fn actor_start(actor: ActorId, log: &LogName) -> Self {
        Self(Digest::of(&[b"driftlog actor chain 1", &actor.0, log.as_str().as_bytes()]))
    }

    /// The log chain after an entry.
    #[must_use]
    pub fn with_logged(self, logged: &Logged) -> Self {
        let id = logged.id();
        self.with_link(id.actor, id.seq, logged.accepted, logged.base, logged.entry.digest())
    }

    /// The log chain after an entry of which only the digest is left.
    #[must_use]
    pub fn with_link(self, actor: ActorId, seq: Seq, accepted: Time, base: Offset, digest: Digest) -> Self {
        let [seq, accepted, base] = [seq.0, accepted.0, base.0].map(u64::to_be_bytes);
        Self(Digest::of(&[&self.0.0, &actor.0, &seq, &accepted, &base, &digest.0]))
    }

    /// The actor chain after a pushed entry.
    #[must_use]
    pub fn with_pushed(self, seq: Seq, digest: Digest) -> Self {
        Self(Digest::of(&[&self.0.0, &seq.0.to_be_bytes(), &digest.0]))
    }

    /// The actor chain after an item of a push.
    #[must_use]
    pub fn with_item(self, item: &Pushed) -> Self {
        match item {
            Pushed::Entry(entry) => self.with_pushed(entry.header.seq, entry.digest()),
            Pushed::Void(void) => self.with_void(void.through, &void.reason),
        }
    }

    /// The actor chain after a void that consumes every seq through `through`.
    #[must_use]
    pub fn with_void(self, through: Seq, reason: &str) -> Self {
        self.with_pushed(through, Digest::of(&[b"driftlog void 1", reason.as_bytes()]))
    }
}

/// A reader's saved position: the next offset, and the log chain before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// The next offset to read.
    pub next: Offset,
    /// The log chain over everything before it.
    pub chain: Chain,
}

impl Cursor {
    /// The beginning of a log.
    pub fn start(log: LogId) -> Self {
        Self { next: Offset(0), chain: Chain::log_start(log) }
    }

    /// The position after an entry, which must stand at `next`.
    #[must_use]
    pub fn after(self, logged: &Logged) -> Self {
        debug_assert_eq!(logged.offset, self.next);
        Self { next: self.next.next(), chain: self.chain.with_logged(logged) }
    }
}
