//! What is asked of the log writer, and how it gets there.

use std::collections::BTreeMap;
use std::sync::mpsc;

use driftlog_core::id::{ActorId, LogName, Offset, Seq, UserId};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Hello, Nonce};
use driftlog_core::sequencer::Grown;
use driftlog_core::session::server::{Append, Open};
use tokio::sync::oneshot;

use super::{LetterRequest, Mailbox, Ordered};
use crate::ledger::Order;
use crate::room::Claim;
use crate::store::{ConnectionNote, LogRow, StoredSnapshot};

/// Work for the writer.
pub(crate) enum Request {
    Bind {
        hello: Box<Hello>,
        user: UserId,
        nonce: Nonce,
        reply: Mailbox,
    },
    Open {
        open: Open,
        reply: Mailbox,
    },
    Append {
        append: Append,
        /// What the gate found in the entries with rich changes.
        read: BTreeMap<Seq, Result<usize, String>>,
        reply: Mailbox,
    },
    Settle {
        name: LogName,
        actor: ActorId,
        through: Seq,
    },
    Keep {
        bytes: Vec<u8>,
        source: String,
        code: Code,
        reason: String,
    },
    Snapshot {
        log: LogRow,
        snapshot: StoredSnapshot,
        /// Texts that have grown far beyond their content.
        grown: Vec<Grown>,
    },
    /// Let the entries of a log before an offset go, or the first of them.
    Truncate {
        log: LogRow,
        below: Offset,
    },
    /// Take out what is over, carry erases on, and look at some logs that nobody writes to; answers whether there is more
    /// to take out.
    Purge(oneshot::Sender<bool>),
    /// An operator wants something erased; it is in the ledger.
    Erase(Order, oneshot::Sender<Ordered>),
    Letter(LetterRequest),
    /// How connections stand.
    Connections(Vec<ConnectionNote>),
    /// Commit what waits before this, and end.
    Stop,
}

/// A request with what it holds of the room; the server's own hold none, and each kind of them is few.
pub(crate) struct Work(pub(super) Request, pub(super) Option<Claim>);

impl From<Request> for Work {
    fn from(request: Request) -> Self {
        Self(request, None)
    }
}

/// Sends work to the writer. The queue itself has no bound: what sessions put into it has one in [`crate::room`].
#[derive(Clone)]
pub(crate) struct WriterHandle(mpsc::Sender<Work>);

impl WriterHandle {
    /// A handle, and where the work it hands over arrives.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Work>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Hands work over. Whether it was taken: when the writer has ended, the server is ending too.
    pub(crate) fn send(&self, request: Request) -> bool {
        self.0.send(request.into()).is_ok()
    }

    /// Hands a session's work over.
    pub(crate) fn send_claimed(&self, request: Request, claim: Claim) -> bool {
        self.0.send(Work(request, Some(claim))).is_ok()
    }
}
