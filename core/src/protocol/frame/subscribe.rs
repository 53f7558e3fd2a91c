//! What a client says of the logs that it wants. Source: docs/protocol.md, "subscribe".

use serde::{Deserialize, Serialize};

use crate::chain::Cursor;
use crate::entry::Digest;
use crate::id::{EpochId, LogId, LogName, Offset, Seq};

use super::{Frame, LogNumber};

/// See [`Frame::Subscribe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The logs, each of which is answered by itself; what is to be opened first comes first.
    pub logs: Vec<SubscribeLog>,
}

/// One log of a [`Subscribe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscribeLog {
    /// The number it has from now on in this session.
    pub log: LogNumber,
    /// Its name.
    pub name: LogName,
    /// The log's identity as the client knows it; none if it never met it.
    pub log_id: Option<LogId>,
    /// Where the client's confirmed prefix ends; none asks for a snapshot or the beginning.
    pub cursor: Option<Cursor>,
    /// The last epoch the client knows, and where it begins.
    pub epoch: Option<(EpochId, Offset)>,
    /// Whether entries shall be sent; without it the client only pushes.
    pub read: bool,
    /// Last own seq whose verdict the client has recorded: those behind it are repeated.
    pub decided: Seq,
    /// First own seq from which on the client holds every body: from here own entries come back as stubs.
    pub held: Seq,
    /// Weight among the session's logs, 0 to 255; higher goes first.
    pub priority: u8,
    /// Fetches a stretch of history instead of following the log: entries from `cursor` to this offset (exclusive), no
    /// snapshot in their place, and nothing behind them. None: follow the log.
    pub end: Option<Offset>,
    /// What the client has of a snapshot whose transfer was cut: the server goes on from there if it still can.
    pub begun: Option<SnapshotBegun>,
}

/// A subscribe that names one log.
impl From<SubscribeLog> for Frame {
    fn from(log: SubscribeLog) -> Self {
        Self::Subscribe(Subscribe { logs: vec![log] })
    }
}

/// The beginning of a snapshot, by what tells it from any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegun {
    /// The cursor the whole snapshot covers.
    pub cursor: Cursor,
    /// How many of its bytes are there, from the first on.
    pub bytes: u64,
    /// Their digest.
    pub digest: Digest,
}

impl SnapshotBegun {
    /// Where a snapshot goes on behind this beginning of it; none if this begins another one, or is all of it.
    pub fn goes_on_at(&self, cursor: Cursor, snapshot: &[u8]) -> Option<usize> {
        let at = usize::try_from(self.bytes).ok().filter(|at| *at < snapshot.len())?;
        (self.cursor == cursor && self.digest == Digest::of(&[&snapshot[..at]])).then_some(at)
    }
}
