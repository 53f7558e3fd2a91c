//! Notices: what the engine has to tell the app.

use crate::connection::ConnectionState;
use crate::fold::FoldId;
use crate::id::{EntryId, LogName, Offset, Seq, UserId, WriteId};
use crate::outbox::Backlog;
use crate::protocol::Code;
use crate::protocol::frame::MarkedStatus;
use crate::session::link::LinkState;
use crate::time::WallMs;
use crate::view::{Patch, QueryId};

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The rows of a live query changed.
    Patch(LogName, QueryId, Vec<Patch>),
    /// An own entry came further.
    Write(LogName, WriteId, WriteStatus),
    /// The connection changed.
    Connection(Connection),
    /// A log's state changed.
    Log(LogName, LogState),
    /// How much own work waits, and why.
    Pressure(Pressure),
    /// The dead letters of a log changed; those with a lower seq than this one are as they were.
    DeadLetters(LogName, Seq),
    /// A fold has something to do: ask for its next batch.
    Fold(LogName, FoldId),
    /// Who is present in a log changed.
    Presence(LogName),
    /// The server wants a token; answer with `Input::Token`.
    TokenWanted(String),
}

/// How far an own entry came.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteStatus {
    /// Durable on this device.
    Stored(EntryId),
    /// In the log.
    Accepted(Accepted),
    /// Not in the log; a dead letter here.
    Refused(Refused),
    /// Not recorded at all: it has left the view.
    Failed(AppendFailure, String),
}

/// An accepted entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Its id.
    pub id: EntryId,
    /// Its place; none if it is known only through a snapshot.
    pub offset: Option<Offset>,
    /// When the server took it.
    pub accepted: Option<WallMs>,
    /// Its user.
    pub author: Option<UserId>,
    /// It is in the log, but without effect.
    pub outcome: Option<MarkedStatus>,
}

/// A refused entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Its id.
    pub id: EntryId,
    /// How.
    pub status: MarkedStatus,
    /// Why, as a number.
    pub code: Option<Code>,
    /// Why, for people.
    pub reason: String,
}

/// Why an entry could not be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFailure {
    /// No space: free some, then call again.
    StorageFull,
    /// The database failed.
    StorageFailed,
}

impl AppendFailure {
    /// The code in TypeScript.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StorageFull => "storage-full",
            Self::StorageFailed => "storage-failed",
        }
    }
}

/// The client's connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Its state.
    pub state: LinkState,
    /// Why.
    pub reason: String,
    /// When the next attempt starts.
    pub retry_at: Option<WallMs>,
    /// Who the server says the user is.
    pub user: Option<UserId>,
    /// How the server keeps it, as far as it has said so since this client began.
    pub kept: Option<ConnectionState>,
}

/// One log, as far as the app cares.
#[derive(Clone, Debug, PartialEq)]
pub struct LogState {
    /// How it stands with the server.
    pub status: LogStatus,
    /// Why, for people.
    pub reason: String,
    /// For [`LogStatus::Held`]: when own entries are pushed again; none while that is being tried.
    pub retry_at: Option<WallMs>,
    /// End of the confirmed prefix in view.
    pub end: Offset,
    /// Own entries without a verdict.
    pub outbox: usize,
    /// Their bytes.
    pub outbox_bytes: u64,
    /// Whether they pile up.
    pub pressure: PressureLevel,
    /// Dead letters.
    pub dead_letters: usize,
}

/// Own work of all logs that waits for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// The highest of any log.
    pub level: PressureLevel,
    /// A log that has it, unless there is none.
    pub log: Option<LogName>,
    /// What waits in all logs.
    pub backlog: Backlog,
}

/// How own work of a log piles up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PressureLevel {
    /// It does not: what is recorded is sent as it comes, or there is no connection, which says so itself.
    #[default]
    None,
    /// The server gives no credit: what is recorded waits here, and is sent as the server takes it.
    Waiting,
    /// Three quarters of the backlog's bound are used.
    High,
    /// The backlog has reached its bound: nothing more is recorded until the server has answered some of it.
    Full,
    /// The device stores nothing more. The next action tries it; while it does, no other is recorded.
    StorageFull,
}

impl PressureLevel {
    /// The word used in TypeScript and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waiting => "waiting",
            Self::High => "high",
            Self::Full => "full",
            Self::StorageFull => "storage-full",
        }
    }
}

/// How a log stands with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogStatus {
    /// Local work; the server is not reached.
    Local,
    /// Entries are still coming.
    Behind,
    /// Everything the server had is in view.
    Synced,
    /// The log holds what this build cannot read; local work goes on.
    UpdateNeeded,
    /// The server's history and this one do not fit, or an entry cannot be applied; local work goes on.
    Degraded,
    /// The token gives no right to this log.
    Forbidden,
    /// Everybody's entries arrive; the server would see own ones later.
    Held,
    /// Everything the server had is in view, but the token gives no right to append: own entries wait.
    ReadOnly,
    /// Own entries are sent, but the token gives no right to read: nothing comes back.
    AppendOnly,
}

impl LogStatus {
    /// Every status.
    pub const ALL: [Self; 9] = [
        Self::Local,
        Self::Behind,
        Self::Synced,
        Self::UpdateNeeded,
        Self::Degraded,
        Self::Forbidden,
        Self::Held,
        Self::ReadOnly,
        Self::AppendOnly,
    ];

    /// The word used in TypeScript and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Behind => "behind",
            Self::Synced => "synced",
            Self::UpdateNeeded => "update-needed",
            Self::Degraded => "degraded",
            Self::Forbidden => "forbidden",
            Self::Held => "held",
            Self::ReadOnly => "read-only",
            Self::AppendOnly => "append-only",
        }
    }

    /// Whether the log waits for somebody to act, rather than for time.
    pub const fn is_stopped(self) -> bool {
        matches!(self, Self::UpdateNeeded | Self::Degraded | Self::Forbidden)
    }

    /// Whether another token may give more.
    pub const fn wants_right(self) -> bool {
        matches!(self, Self::Forbidden | Self::ReadOnly | Self::AppendOnly)
    }
}
