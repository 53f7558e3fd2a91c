//! Writes, all inside the writer's transaction.

use std::fs::File;

use driftlog_core::chain::Cursor;
use driftlog_core::codec;
use driftlog_core::entry::Digest;
use driftlog_core::id::{ActorId, EntryId, EpochId, LogId, LogName, Offset};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{AuthorRow, Binding, Refused, Wanted};
use driftlog_core::time::{Time, WallMs};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row};

use super::letters::LetterId;
use super::read::{LETTER_COLUMNS, LETTER_SUMMED, LOG_SUMMED, LogEnd, Reads, signed};
use super::sum;
use crate::store::{AuthorKey, LogKey, LogRow, Placed, Retained, StoreError};

/// The one connection that writes.
pub(crate) struct Writer {
    pub(super) connection: Connection,
    damaged: Damaged,
    /// Held as long as this writes; a VFS has none.
    _lock: Option<File>,
}

const PUT_LETTER: &str =
    "INSERT INTO dead_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";

/// An open transaction of the writer.
#[derive(Clone, Copy)]
pub(crate) struct Writes<'c>(pub(super) &'c Connection, Damaged);

/// Tables of which a row was damaged when the store was opened: what is not found there may be that row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damaged {
    logs: bool,
    bindings: bool,
    replacements: bool,
}

impl Writer {
    pub(super) fn new(connection: Connection, lock: Option<File>) -> Result<Self, StoreError> {
        let damaged = Damaged::find(&connection)?;
        Ok(Self { connection, _lock: lock, damaged })
    }

    /// Runs writes in one transaction; when this returns, they are durable.
    pub(crate) fn commit<T>(
        &mut self,
        writes: impl FnOnce(Writes<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.transaction()?;
        let answer = writes(Writes(&transaction, self.damaged))?;
        transaction.commit()?;
        Ok(answer)
    }
}

impl Writer {
    /// Brings everything into the main file before the end, so that no log of the database's own stays beside it. If
    /// that does not work out, the next start reads that log.
    pub(crate) fn tidy_up(&self) {
        let checkpoint = |row: &Row<'_>| row.get::<_, i64>(0);
        match self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], checkpoint) {
            Ok(0) => {}
            Ok(_) => tracing::info!("somebody reads the store; its log stays beside it"),
            Err(error) => tracing::warn!(%error, "the store's log stays beside it"),
        }
    }
}

impl Damaged {
    pub(super) fn find(connection: &Connection) -> Result<Self, StoreError> {
        let mut damaged = Self::default();
        for (table, what) in Reads(connection).damaged_rows_of(|table| super::FOUND_BY_NAME.contains(&table))? {
            tracing::error!(table, what, "a row is damaged");
            match table {
                "logs" => damaged.logs = true,
                "bindings" => damaged.bindings = true,
                "replacements" => damaged.replacements = true,
                // How many a log has is known.
                _ => {}
            }
        }
        Ok(damaged)
    }
}

/// Nothing is made anew that may only be damaged.
fn missing_or(damaged: bool, table: &'static str) -> Result<(), StoreError> {
    match damaged {
        true => Err(StoreError::corrupt(table, "a row is damaged, and this may be the one")),
        false => Ok(()),
    }
}

impl<'c> Writes<'c> {
    /// The same as after a start on what stands in the file now, for tests that damage it.
    #[cfg(test)]
    pub(crate) fn restarted(self) -> Result<Self, StoreError> {
        Ok(Self(self.0, Damaged::find(self.0)?))
    }

    /// Fails if an actor that is not found may be bound.
    pub(crate) fn check_bindings(self) -> Result<(), StoreError> {
        missing_or(self.1.bindings, "bindings")
    }

    /// Fails if what an entry replaces may have been replaced without its being known.
    pub(crate) fn check_replacements(self, wanted: &Wanted) -> Result<(), StoreError> {
        missing_or(self.1.replacements && !wanted.replaces.is_empty(), "replacements")
    }

    /// Reads that see what this transaction has written.
    pub(crate) fn reads(self) -> Reads<'c> {
        Reads(self.0)
    }

    /// The transaction itself, for tests that damage it.
    #[cfg(test)]
    pub(crate) fn connection(self) -> &'c Connection {
        self.0
    }

    pub(crate) fn create_log(self, name: &LogName, log_id: LogId) -> Result<LogRow, StoreError> {
        missing_or(self.1.logs, "logs")?;
        let log = LogRow { key: LogKey(self.next_key("logs", "log")?), name: name.clone(), log_id };
        let start = Cursor::start(log_id);
        let kept = Retained { first: start, bytes: 0 };
        let end = LogEnd { epochs: 0, end: start, accepted: Time::MIN, kept, folds: Offset(0) };
        let sql = "INSERT INTO logs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        self.put(sql, "logs", &log_values(&log, &end))?;
        Ok(log)
    }

    /// Moves the end of a log, behind its new entries, which take so many bytes.
    pub(crate) fn set_end(self, log: &LogRow, end: Cursor, accepted: Time, bytes: u64) -> Result<(), StoreError> {
        let before = self.reads().log_end(log)?;
        let kept = Retained { bytes: before.kept.bytes + bytes, ..before.kept };
        self.put_log_end(log, LogEnd { end, accepted, kept, ..before })
    }

    pub(super) fn put_log_end(self, log: &LogRow, end: LogEnd) -> Result<(), StoreError> {
        let sql = "UPDATE logs SET epochs = ?4, next = ?5, chain = ?6, accepted = ?7, first = ?8, first_chain = ?9,
                   kept_bytes = ?10, folds = ?11, sum = ?12 WHERE log = ?1 AND name = ?2 AND log_id = ?3";
        match self.put(sql, "logs", &log_values(log, &end))? {
            1 => Ok(()),
            _ => Err(StoreError::corrupt("logs", "an open log is gone")),
        }
    }

    /// Begins an epoch at the end of a log.
    pub(crate) fn add_epoch(self, log: &LogRow, epoch: EpochId) -> Result<(), StoreError> {
        // Every epoch before is there and whole, or none is added.
        self.reads().epochs(log)?;
        let before = self.reads().log_end(log)?;
        let (number, first) = (before.epochs, before.end.next);
        let values = [integer(log.key.0), number_value(number), ValueRef::Blob(&epoch.0), number_value(first.0)];
        self.put("INSERT INTO epochs VALUES (?1, ?2, ?3, ?4, ?5)", "epochs", &values)?;
        self.put_log_end(log, LogEnd { epochs: number + 1, ..before })
    }

    pub(crate) fn put_binding(self, actor: ActorId, binding: &Binding) -> Result<AuthorKey, StoreError> {
        let author = match self.reads().binding(actor)? {
            Some((author, _)) => author.0,
            None => {
                missing_or(self.1.bindings, "bindings")?;
                self.next_key("bindings", "author")?
            }
        };
        let (user, bytes) = (binding.user.as_str().as_bytes(), codec::to_bytes(binding));
        let values = [integer(author), ValueRef::Blob(&actor.0), ValueRef::Text(user), ValueRef::Blob(&bytes)];
        self.put("INSERT OR REPLACE INTO bindings VALUES (?1, ?2, ?3, ?4, ?5)", "bindings", &values)?;
        Ok(AuthorKey(author))
    }

    /// The log itself as an author, the same number in every log.
    pub(crate) fn log_author(self) -> Result<AuthorKey, StoreError> {
        match self.reads().binding(ActorId::LOG)? {
            Some((author, _)) => Ok(author),
            None => self.put_binding(ActorId::LOG, &Binding::of_the_log()),
        }
    }

    pub(crate) fn put_author_row(self, log: LogKey, author: AuthorKey, row: &AuthorRow) -> Result<(), StoreError> {
        let bytes = codec::to_bytes(row);
        let values = [integer(log.0), integer(author.0), ValueRef::Blob(&bytes)];
        self.put("INSERT OR REPLACE INTO actors VALUES (?1, ?2, ?3, ?4)", "actors", &values)?;
        Ok(())
    }

    /// Runs a statement with the values of a row and, behind them, their sum; how many rows it changed.
    pub(super) fn put(self, sql: &str, table: &str, values: &[ValueRef<'_>]) -> Result<usize, StoreError> {
        let sum = ValueRef::Integer(sum::of(table, values));
        let values = values.iter().chain([&sum]).map(|value| ToSqlOutput::Borrowed(*value));
        Ok(self.0.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))?)
    }

    /// The same with bytes behind the sum: they carry a digest, which costs less to check than to check twice.
    pub(super) fn put_with_bytes(
        self,
        sql: &str,
        table: &str,
        values: &[ValueRef<'_>],
        bytes: &[u8],
    ) -> Result<usize, StoreError> {
        let behind = [ValueRef::Integer(sum::of(table, values)), ValueRef::Blob(bytes)];
        let values = values.iter().chain(&behind).map(|value| ToSqlOutput::Borrowed(*value));
        Ok(self.0.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))?)
    }

    /// A row's number must be known before its sum is made.
    pub(super) fn next_key(self, table: &str, column: &str) -> Result<i64, StoreError> {
        let sql = format!("SELECT coalesce(max({column}), 0) + 1 FROM {table}");
        Ok(self.0.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
    }

    /// Appends an entry; returns the bytes it takes.
    pub(crate) fn append(self, log: LogKey, author: AuthorKey, placed: &Placed) -> Result<usize, StoreError> {
        let (logged, after) = placed;
        let (entry, digest) = (&logged.entry, logged.entry.digest());
        let bytes = entry.to_bytes();
        let values = [
            integer(log.0),
            number_value(logged.offset.0),
            integer(author.0),
            number_value(entry.header.seq.0),
            number_value(logged.accepted.0),
            number_value(logged.base.0),
            ValueRef::Blob(&digest.0),
            ValueRef::Blob(&after.chain.0.0),
            logged.expires().map_or(ValueRef::Null, number_value),
            ValueRef::Null,
        ];
        let sql = "INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        self.put_with_bytes(sql, "entries", &values, &bytes)?;
        if let Some(target) = &entry.header.replaces {
            let values = [
                integer(log.0),
                ValueRef::Blob(&target.id.actor.0),
                number_value(target.id.seq.0),
                ValueRef::Blob(&target.digest.0),
                number_value(logged.offset.0),
            ];
            self.put("INSERT OR IGNORE INTO replacements VALUES (?1, ?2, ?3, ?4, ?5, ?6)", "replacements", &values)?;
        }
        Ok(bytes.len())
    }

    /// Keeps a refused entry whole.
    pub(crate) fn keep_refused(
        self,
        now: WallMs,
        log: LogKey,
        (author, actor): (AuthorKey, ActorId),
        refused: &Refused,
    ) -> Result<(), StoreError> {
        let (entry, now) = (&refused.entry, number_value(now));
        let line = entry.line(EntryId { actor, seq: entry.header.seq });
        let values = [
            integer(self.next_key("dead_letters", "letter")?),
            integer(log.0),
            integer(author.0),
            number_value(entry.header.seq.0),
            ValueRef::Blob(&entry.digest().0),
            ValueRef::Text(b"push"),
            integer(refused.code.number().into()),
            ValueRef::Text(refused.reason.as_bytes()),
            integer(1),
            now,
            now,
            ValueRef::Blob(&line.id.actor.0),
            number_value(line.id.seq.0),
            ValueRef::Blob(&line.digest.0),
        ];
        self.put_with_bytes(PUT_LETTER, "dead_letters", &values, &entry.to_bytes())?;
        Ok(())
    }

    /// Keeps bytes that were no frame, or counts another attempt with the same bytes; whether they were new.
    pub(crate) fn keep_bytes(
        self,
        now: WallMs,
        source: &str,
        code: Code,
        reason: &str,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let digest = Digest::of(&[bytes]);
        if self.count_attempt(now, digest)? {
            return Ok(false);
        }
        let now = number_value(now);
        let values = [
            integer(self.next_key("dead_letters", "letter")?),
            ValueRef::Null,
            ValueRef::Null,
            ValueRef::Null,
            ValueRef::Blob(&digest.0),
            ValueRef::Text(source.as_bytes()),
            integer(code.number().into()),
            ValueRef::Text(reason.as_bytes()),
            // The first time is known only in memory: by now it is the second.
            integer(2),
            now,
            now,
            ValueRef::Null,
            ValueRef::Null,
            ValueRef::Null,
        ];
        self.put_with_bytes(PUT_LETTER, "dead_letters", &values, bytes)?;
        Ok(true)
    }

    /// Counts another attempt with bytes that are kept already; whether they are.
    fn count_attempt(self, now: WallMs, digest: Digest) -> Result<bool, StoreError> {
        let sql = format!("SELECT {LETTER_COLUMNS} FROM dead_letters WHERE digest = ?1 AND log IS NULL");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([&digest.0[..]])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        if sum::check("dead_letters", row, LETTER_SUMMED).is_err() {
            return Ok(false);
        }
        self.attempted(row, now, None)?;
        Ok(true)
    }

    /// Counts an attempt with a dead letter that failed again, perhaps for another reason.
    pub(crate) fn letter_failed(self, now: WallMs, id: LetterId, code: Code, reason: &str) -> Result<(), StoreError> {
        let mut statement =
            self.0.prepare_cached(&format!("SELECT {LETTER_COLUMNS} FROM dead_letters WHERE letter = ?1"))?;
        let mut rows = statement.query([signed(id)])?;
        let Some(row) = rows.next()? else { return Ok(()) };
        sum::check("dead_letters", row, LETTER_SUMMED)?;
        self.attempted(row, now, Some((code, reason)))
    }

    fn attempted(self, row: &Row<'_>, now: WallMs, failure: Option<(Code, &str)>) -> Result<(), StoreError> {
        let mut values = (0..LETTER_SUMMED).map(|column| row.get_ref(column)).collect::<rusqlite::Result<Vec<_>>>()?;
        if let Some((code, reason)) = failure {
            (values[6], values[7]) = (integer(code.number().into()), ValueRef::Text(reason.as_bytes()));
        }
        (values[8], values[10]) = (integer(row.get::<_, i64>(8)? + 1), number_value(now));
        let sum = ValueRef::Integer(sum::of("dead_letters", &values));
        let changed = [values[6], values[7], values[8], values[10], sum, values[0]];
        let sql =
            "UPDATE dead_letters SET code = ?1, reason = ?2, attempts = ?3, last_ms = ?4, sum = ?5 WHERE letter = ?6";
        self.0.prepare_cached(sql)?.execute(rusqlite::params_from_iter(changed.map(ToSqlOutput::Borrowed)))?;
        Ok(())
    }
}

pub(super) fn integer(key: i64) -> ValueRef<'static> {
    ValueRef::Integer(key)
}

pub(super) fn number_value(number: u64) -> ValueRef<'static> {
    ValueRef::Integer(signed(number))
}

fn log_values<'a>(log: &'a LogRow, end: &'a LogEnd) -> [ValueRef<'a>; LOG_SUMMED] {
    [
        integer(log.key.0),
        ValueRef::Text(log.name.as_str().as_bytes()),
        ValueRef::Blob(&log.log_id.0),
        number_value(end.epochs),
        number_value(end.end.next.0),
        ValueRef::Blob(&end.end.chain.0.0),
        number_value(end.accepted.0),
        number_value(end.kept.first.next.0),
        ValueRef::Blob(&end.kept.first.chain.0.0),
        number_value(end.kept.bytes),
        number_value(end.folds.0),
    ]
}
