//! The durable store: one SQLite file under the data directory.
//!
//! One connection writes (owned by the writer thread), any number read. What stands in the tables is specified in
//! docs/log-format.md, "Server tables".

mod deflated;
mod sqlite;

use driftlog_core::chain::Cursor;
use driftlog_core::entry::{InvalidEntry, Logged};
use driftlog_core::id::{LogId, LogName, Offset};
use driftlog_core::time::WallMs;

pub(crate) use sqlite::connections::{ConnectionNote, ConnectionRow, CursorRow, Kept};
pub(crate) use sqlite::erase::ErasureRow;
pub(crate) use sqlite::letters::{Letter, LetterId, LetterTotals, RefusedEntry};
pub(crate) use sqlite::read::Reads;
pub(crate) use sqlite::sweep::Sweep;
pub(crate) use sqlite::{ReadPool, Store, Writer, Writes};

/// A log's number within the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogKey(pub(crate) i64);

/// A bound actor's number within the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AuthorKey(pub(crate) i64);

/// A log as the store names it.
#[derive(Clone, Debug)]
pub(crate) struct LogRow {
    pub(crate) key: LogKey,
    pub(crate) name: LogName,
    pub(crate) log_id: LogId,
}

/// Which entries of a log are there: those before are covered by a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retained {
    /// Where the first of them stands, and the log chain before it.
    pub(crate) first: Cursor,
    /// How many bytes of entries they are together.
    pub(crate) bytes: u64,
}

/// An entry and the cursor behind it.
pub(crate) type Placed = (Logged, Cursor);

/// One of the stored snapshots of a log, without its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotRow {
    pub(crate) log: LogKey,
    /// Counts the snapshots of the log that were ever made.
    pub(crate) number: u64,
    /// Where it ends.
    pub(crate) end: Offset,
    /// When one that is made then takes less room, though nobody writes to the log.
    pub(crate) rests_at: Option<WallMs>,
}

/// A snapshot, as it was encoded.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) cursor: Cursor,
    pub(crate) bytes: Vec<u8>,
}

/// A snapshot as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredSnapshot {
    pub(crate) cursor: Cursor,
    /// How many bytes it has as it was encoded.
    pub(crate) size: u64,
    /// See [`SnapshotRow::rests_at`].
    pub(crate) rests_at: Option<WallMs>,
    /// What stands in the store for them.
    pub(crate) bytes: Vec<u8>,
}

impl StoredSnapshot {
    /// Puts a snapshot into the form in which it is stored: work for whoever makes it, not for the writer.
    pub(crate) fn of(snapshot: Snapshot, rests_at: Option<WallMs>) -> Self {
        let Snapshot { cursor, bytes } = snapshot;
        let size = bytes.len() as u64;
        Self { cursor, size, rests_at, bytes: deflated::deflated(&bytes).unwrap_or(bytes) }
    }
}

/// The store cannot be used; the server ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed: disk full, I/O error, or a lock held by another process.
    #[error("the database failed: {0}")]
    Sqlite(rusqlite::Error),
    /// The database finds its own file damaged, or something else in a column than belongs there.
    #[error("the database file is damaged: {0}")]
    CorruptFile(rusqlite::Error),
    /// The data directory cannot be made or opened.
    #[error("the data directory {path}: {error}")]
    Directory {
        /// Which directory.
        path: std::path::PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Stop the other server, or give this one a directory of its own.
    #[error("another server works in the data directory {path}")]
    InUse {
        /// Which directory.
        path: std::path::PathBuf,
    },
    /// The disk failed while the file was made, or cannot share memory between connections.
    #[error("the database keeps no write-ahead log")]
    NoLog,
    /// SQLite was compiled without its table of pages, so what was erased could not leave the file.
    #[error(
        "this server's SQLite has no table of pages: build it at the top of the repository, or with \
         LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB"
    )]
    NoPages,
    /// The file was written by a newer server.
    #[error("the database has format {got}; this server reads {max}")]
    Format {
        /// Found.
        got: i64,
        /// Known.
        max: i64,
    },
    /// Damage was found when a decision was made already: the server ends, and what it decided was told to nobody.
    #[error("while a decision was written: {0}")]
    Midway(Box<StoreError>),
    /// A stored entry does not read.
    #[error("the entry at offset {offset} does not read: {error}")]
    CorruptEntry {
        /// Where.
        offset: Offset,
        /// What is wrong.
        error: InvalidEntry,
    },
    /// A stored row does not read.
    #[error("a row of {table} does not read: {reason}")]
    CorruptRow {
        /// Which table.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl StoreError {
    /// Whether stored bytes are at fault, and not the disk or the database: then only their log has to stop.
    pub(crate) fn is_corruption(&self) -> bool {
        matches!(self, Self::CorruptEntry { .. } | Self::CorruptRow { .. } | Self::CorruptFile(_))
    }

    /// Damage that stops more than its log.
    pub(crate) fn midway(self) -> Self {
        if self.is_corruption() { Self::Midway(Box::new(self)) } else { self }
    }

    pub(crate) fn corrupt(table: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::CorruptRow { table, reason: reason.to_string() }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::CorruptFile(error),
            None if matches!(
                error,
                FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..)
            ) =>
            {
                Self::CorruptFile(error)
            }
            _ => Self::Sqlite(error),
        }
    }
}
