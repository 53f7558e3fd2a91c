//! What a server session asks of its shell, and the answers.

use std::sync::Arc;

use crate::chain::{Chain, Cursor};
use crate::connection::Downgrade;
use crate::id::{ActorId, EpochId, LogId, LogName, Offset, Seq, UserId};
use crate::limits;
use crate::protocol::Code;
use crate::protocol::frame::{Hello, LogNumber, Nonce, SnapshotBegun};
use crate::sequencer::{Held, PushItems, Verdicts};
use crate::session::server::{EntriesFrame, Grants};
use crate::time::{Time, WallMs};

/// Names a request; the answer carries it back. They count up within a session.
pub type RequestId = u64;

/// A request to the shell.
#[derive(Debug)]
pub enum Output {
    /// The peer says something of itself in a log that it reads, or takes it back.
    Present {
        /// Which log.
        name: LogName,
        /// What, in bytes of the app.
        value: Option<Vec<u8>>,
    },
    /// Check the token and bind the actor durably; answer with `handle_admitted`.
    Authenticate(Box<Hello>),
    /// Check a fresh token of the same user; answer with `handle_refreshed`.
    Refresh(String),
    /// Open a log and, if it is read, report from now on when it grows; answer with `handle_opened`.
    Open(Open),
    /// Decide and commit a push; answer with `handle_committed`.
    Append(Append),
    /// The client has recorded every verdict through this seq. No answer.
    Settle {
        /// The log.
        name: LogName,
        /// Last seq, inclusive.
        through: Seq,
    },
    /// Read a log; answer with `handle_entries` or `handle_snapshot`.
    Read(Read),
    /// The log is no longer wanted. No answer.
    Forget {
        /// Its number in this session.
        log: LogNumber,
        /// Its name.
        name: LogName,
    },
    /// Keep these bytes as a dead letter once they come again. No answer.
    Keep {
        /// What was received.
        bytes: Vec<u8>,
        /// What was wrong.
        code: Code,
        /// For people.
        reason: String,
    },
    /// Send the frames that are left, then close the socket.
    Close,
}

/// Who the peer is, and what it may do.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The user.
    pub user: UserId,
    /// Rights to logs.
    pub grants: Grants,
    /// When the token's time is over, by the clock of [`ServerSession::handle_timeout`](super::ServerSession::handle_timeout).
    pub expires: Option<WallMs>,
    /// The nonce that was stored with the binding.
    pub nonce: Nonce,
    /// The time its connection was inactive until now, if it was: why, and since when.
    pub was: Option<(Downgrade, WallMs)>,
}

/// The answer is no.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Why, as a number.
    pub code: Code,
    /// Why, for people.
    pub reason: String,
}

/// Open a log.
#[derive(Debug)]
pub struct Open {
    /// This request.
    pub request: RequestId,
    /// The log's number in this session.
    pub log: LogNumber,
    /// Its name.
    pub name: LogName,
    /// Who opens it.
    pub actor: ActorId,
    /// Whether the actor may append; then the log's epoch must stand.
    pub append: bool,
    /// Whether the session wants to know when it grows.
    pub read: bool,
    /// Last own seq whose verdict is known there: those behind it are wanted.
    pub decided: Seq,
    /// The client's position; the chain there is wanted.
    pub cursor: Option<Cursor>,
}

/// What an open log looks like.
#[derive(Clone, Debug)]
pub struct LogFacts {
    /// Its identity.
    pub log_id: LogId,
    /// Every epoch with its first offset.
    pub epochs: Vec<(EpochId, Offset)>,
    /// Its end.
    pub end: Offset,
    /// Last accepted time.
    pub accepted: Time,
    /// First offset that is still there as an entry.
    pub first_retained: Offset,
    /// Through which seq the actor's entries are in a backup, if anybody says.
    pub backed_up: Option<Seq>,
    /// Where the newest snapshot ends.
    pub snapshot: Option<Offset>,
    /// The log chain at the client's cursor, if the log reaches there.
    pub chain_at_cursor: Option<Chain>,
    /// The actor's highest decided seq.
    pub seq: Seq,
    /// The actor chain there.
    pub chain: Chain,
    /// Older points of the actor chain, descending.
    pub checkpoints: Vec<(Seq, Chain)>,
    /// Verdicts of the seqs that the client still holds.
    pub verdicts: Option<Verdicts>,
}

/// Decide a push.
#[derive(Debug)]
pub struct Append {
    /// This request.
    pub request: RequestId,
    /// The log.
    pub name: LogName,
    /// The author.
    pub actor: ActorId,
    /// What is pushed.
    pub push: PushItems,
    /// Bytes of the frame that brought it.
    pub bytes: u64,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PushOutcome {
    /// The durable verdicts.
    pub verdicts: Verdicts,
    /// The entry from which on nothing was decided, if the policy would see it later.
    pub held: Option<Held>,
}

/// Read a log.
#[derive(Debug)]
pub struct Read {
    /// This request.
    pub request: RequestId,
    /// The log's number in this session.
    pub log: LogNumber,
    /// Its name.
    pub name: LogName,
    /// Who reads.
    pub actor: ActorId,
    /// From this own seq on the reader holds its bodies.
    pub held: Seq,
    /// Where to begin.
    pub from: ReadFrom,
    /// Where to stop (exclusive), if it is a stretch of history that is wanted.
    pub until: Option<Offset>,
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReadFrom {
    /// At the snapshot that the reader has the beginning of, if it is still to be had and entries follow it, else at
    /// the newest.
    Snapshot(Option<SnapshotBegun>),
    /// At a position in the log.
    Cursor(Cursor),
}

/// What a read of entries found.
#[derive(Debug)]
pub enum EntriesRead {
    /// A frame that may be shared with other sessions.
    Frame(EntriesFrame),
    /// Nothing: the log ends here.
    End(Offset),
    /// The entries are no longer there.
    SnapshotNeeded,
}

/// A snapshot to be sent in parts.
#[derive(Clone, Debug)]
pub struct SnapshotRead {
    /// What it covers.
    pub cursor: Cursor,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// From which byte on it is sent: the reader has those before it.
    at: usize,
}

impl SnapshotRead {
    /// A snapshot for a reader who may have begun with it. Digests what it has: call it where that may take time.
    pub fn new(cursor: Cursor, bytes: Arc<[u8]>, begun: Option<SnapshotBegun>) -> Self {
        let at = begun.and_then(|begun| begun.goes_on_at(cursor, &bytes)).unwrap_or(0);
        Self { cursor, bytes, at }
    }

    /// Cuts off the next part; none at the end.
    pub(super) fn next_part(&mut self) -> Option<(usize, &[u8])> {
        let at = self.at;
        self.at = self.bytes.len().min(at + limits::SNAPSHOT_PART_BYTES);
        (at < self.at).then(|| (at, &self.bytes[at..self.at]))
    }

    /// Whether every part was cut off.
    pub(super) fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }
}
