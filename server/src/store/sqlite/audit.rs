//! Reads for a scrub: every row of every table, and what must hold between tables.

use driftlog_core::codec;
use driftlog_core::entry::Digest;
use driftlog_core::id::{ActorId, LogName, Offset, Seq};
use driftlog_core::sequencer::{AuthorRow, Binding};
use rusqlite::Row;

use super::erase::ERASURE_SUMMED;
use super::read::{LETTER_SUMMED, LOG_SUMMED, Reads, blob, unsigned};
use super::snapshots::SNAPSHOT_SUMMED;
use super::{FORMAT, Reader, Store, sum};
use crate::store::{AuthorKey, LogKey, StoreError};

/// Complaints of SQLite told at most.
const COMPLAINTS_MAX: u32 = 100;

/// Tables whose rows are read here, and how many columns their sum covers. Entries are read with their logs.
const SUMMED: [(&str, &str, usize); 10] = [
    (
        "logs",
        "SELECT log, name, log_id, epochs, next, chain, accepted, first, first_chain, kept_bytes, folds,
         sum FROM logs",
        LOG_SUMMED,
    ),
    ("epochs", "SELECT log, number, epoch, first, sum FROM epochs", 4),
    ("bindings", "SELECT author, actor, user, binding, sum FROM bindings", 4),
    ("actors", "SELECT log, author, row, sum FROM actors", 3),
    ("replacements", "SELECT log, actor, seq, digest, offset, sum FROM replacements", 5),
    ("snapshots", "SELECT log, number, next, chain, size, rests, sum FROM snapshots", SNAPSHOT_SUMMED),
    (
        "dead_letters",
        "SELECT letter, log, author, seq, digest, source, code, reason, attempts, first_ms, last_ms,
         line_actor, line_seq, line_digest, sum, bytes FROM dead_letters",
        LETTER_SUMMED,
    ),
    (
        "connections",
        "SELECT connection, user, client, actor, device, inactive, since_ms, first_ms, seen_ms, sum FROM connections",
        9,
    ),
    ("erasures", "SELECT log, offset, request, what, at_ms, reached, done_ms, sum FROM erasures", ERASURE_SUMMED),
    ("cursors", "SELECT connection, log, next, sum FROM cursors", 3),
];

/// Tables whose rows belong to a log.
const OF_LOGS: [&str; 8] =
    ["epochs", "entries", "actors", "replacements", "snapshots", "dead_letters", "erasures", "cursors"];
/// … and to an author.
const OF_AUTHORS: [&str; 3] = ["entries", "actors", "dead_letters"];
/// … and to a connection.
const OF_CONNECTIONS: [&str; 1] = ["cursors"];

/// A connection that scrubs.
pub(crate) struct Audit(Reader);

/// A replacement as it is stored.
pub(crate) struct ReplacementRow {
    pub(crate) actor: ActorId,
    pub(crate) seq: Seq,
    pub(crate) digest: Digest,
    pub(crate) offset: Offset,
}

impl Store {
    /// Opens the store for a scrub.
    pub(crate) fn audit(&self) -> Result<Audit, StoreError> {
        let reader = self.reader()?;
        let got: i64 = reader.0.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if got == FORMAT { Ok(Audit(reader)) } else { Err(StoreError::Format { got, max: FORMAT }) }
    }
}

impl Audit {
    /// What SQLite itself says about its pages, its indexes and the order of its rows.
    pub(crate) fn complaints(&self) -> Result<Vec<String>, StoreError> {
        let complaints = || {
            let mut statement = self.0.0.prepare(&format!("PRAGMA integrity_check({COMPLAINTS_MAX})"))?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        match complaints().map_err(StoreError::from) {
            Ok(rows) => Ok(rows.into_iter().filter(|row| row != "ok").collect()),
            Err(StoreError::CorruptFile(error)) => Ok(vec![error.to_string()]),
            Err(error) => Err(error),
        }
    }

    /// Runs reads in one transaction, so that they see one moment.
    pub(crate) fn read<T>(&mut self, reads: impl FnOnce(Reads<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.0.read(reads)
    }
}

impl Reads<'_> {
    /// The name of every log, in the order they were made.
    pub(crate) fn log_names(self) -> Result<Vec<LogName>, StoreError> {
        let mut statement = self.0.prepare("SELECT name FROM logs ORDER BY log")?;
        let (mut rows, mut names) = (statement.query([])?, Vec::new());
        while let Some(row) = rows.next()? {
            // A name that is none is damage, which its row's sum shows.
            names.extend(row.get_ref(0)?.as_str().ok().and_then(|name| LogName::new(name).ok()));
        }
        Ok(names)
    }

    /// How many entries there are.
    pub(crate) fn entry_count(self) -> Result<u64, StoreError> {
        Ok(self.0.query_row("SELECT count(*) FROM entries", [], |row| unsigned(row, 0))?)
    }

    /// Every row that is not as it was written: its table, and what is wrong.
    pub(crate) fn damaged_rows(self) -> Result<Vec<(&'static str, String)>, StoreError> {
        self.damaged_rows_of(|_| true)
    }

    /// The same of some tables.
    pub(crate) fn damaged_rows_of(
        self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(&'static str, String)>, StoreError> {
        let mut damaged = Vec::new();
        for (table, sql, sum_at) in SUMMED.into_iter().filter(|(table, ..)| wanted(table)) {
            let mut statement = self.0.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let reading = sum::check(table, row, sum_at).and_then(|()| match table {
                    "bindings" => decodes::<Binding>(table, row, 3),
                    "actors" => decodes::<AuthorRow>(table, row, 2),
                    "dead_letters" => has_digest(row, LETTER_SUMMED + 1, 4),
                    _ => Ok(()),
                });
                match reading {
                    Err(StoreError::CorruptRow { reason, .. }) => damaged.push((table, reason)),
                    other => other?,
                }
            }
        }
        Ok(damaged)
    }

    /// Rows of logs or authors that are not there.
    pub(crate) fn orphans(self) -> Result<Vec<(&'static str, String)>, StoreError> {
        let of = |table, column, parent| {
            let sql = format!(
                "SELECT count(*) FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT {column} FROM {parent})"
            );
            self.0.query_row(&sql, [], |row| unsigned(row, 0))
        };
        let mut orphans = Vec::new();
        let parents = [
            (&OF_LOGS[..], "log", "logs"),
            (&OF_AUTHORS[..], "author", "bindings"),
            (&OF_CONNECTIONS[..], "connection", "connections"),
        ];
        for (tables, column, parent) in parents {
            for table in tables {
                let count = of(table, column, parent)?;
                if count > 0 {
                    orphans.push((*table, format!("rows of no {column}: {count}")));
                }
            }
        }
        Ok(orphans)
    }

    /// How many rows a log has in `entries`.
    pub(crate) fn entries_of(self, log: LogKey) -> Result<u64, StoreError> {
        Ok(self.0.query_row("SELECT count(*) FROM entries WHERE log = ?1", [log.0], |row| unsigned(row, 0))?)
    }

    /// Every author with a row in a log.
    pub(crate) fn authors_of(self, log: LogKey) -> Result<Vec<AuthorKey>, StoreError> {
        let mut statement = self.0.prepare("SELECT author FROM actors WHERE log = ?1 ORDER BY author")?;
        let rows = statement.query_map([log.0], |row| row.get(0).map(AuthorKey))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The replacement that stands at an offset.
    pub(crate) fn replacements_of(self, log: LogKey) -> Result<Vec<ReplacementRow>, StoreError> {
        let sql = "SELECT actor, seq, digest, offset FROM replacements WHERE log = ?1 ORDER BY offset";
        let mut statement = self.0.prepare(sql)?;
        let rows = statement.query_map([log.0], |row| {
            Ok(ReplacementRow {
                actor: ActorId(blob(row, 0)?),
                seq: Seq(unsigned(row, 1)?),
                digest: Digest(blob(row, 2)?),
                offset: Offset(unsigned(row, 3)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn has_digest(row: &Row<'_>, bytes_at: usize, digest_at: usize) -> Result<(), StoreError> {
    let bytes = row.get_ref(bytes_at)?.as_blob().map_err(rusqlite::Error::from)?;
    match blob::<32>(row, digest_at)? == Digest::of(&[bytes]).0 {
        true => Ok(()),
        false => Err(StoreError::corrupt("dead_letters", "the digest of the bytes does not match")),
    }
}

fn decodes<T: serde::de::DeserializeOwned>(table: &'static str, row: &Row<'_>, at: usize) -> Result<(), StoreError> {
    let bytes = row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from)?;
    codec::from_bytes::<T>(bytes).map(drop).map_err(|error| StoreError::corrupt(table, error))
}
