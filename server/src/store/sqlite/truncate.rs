//! Letting the oldest entries of a log go, in bounded steps, and giving their pages back to the file system.
//!
//! What is left of an entry that went: its author's row says through which seq entries are not kept, the log's row
//! where the first kept one stands and the chain before it. Both are written in the transaction that deletes, so no
//! reader ever sees a gap: it compares with the first kept offset in the transaction that it reads in.

use driftlog_core::chain::Cursor;
use driftlog_core::id::{Offset, Seq};
use driftlog_core::sequencer::AuthorRow;
use driftlog_core::time::Time;
use rusqlite::{Row, params};

use super::read::{LogEnd, Reads, signed, unsigned};
use super::write::Writes;
use crate::store::{AuthorKey, LogRow, Retained, StoreError};

/// Pages that may be free, besides one of eight: what is written next takes them.
const FREE_PAGES: u64 = 8;
/// Pages given back in one transaction.
const VACUUM_PAGES: u64 = 512;

/// What retention goes by, of one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oldest {
    pub(crate) offset: Offset,
    pub(crate) accepted: Time,
    pub(crate) bytes: u64,
}

impl Reads<'_> {
    /// The oldest kept entries of a log, ascending, at most so many.
    pub(crate) fn oldest(self, log: &LogRow, count_max: u64) -> Result<Vec<Oldest>, StoreError> {
        let first = self.kept(log)?.first.next;
        let mut statement = self.0.prepare_cached(
            "SELECT offset, accepted, length(bytes) FROM entries WHERE log = ?1 AND offset >= ?2
             ORDER BY offset LIMIT ?3",
        )?;
        let oldest = |row: &Row<'_>| -> rusqlite::Result<_> {
            let (offset, accepted) = (Offset(unsigned(row, 0)?), Time(unsigned(row, 1)?));
            Ok(Oldest { offset, accepted, bytes: unsigned(row, 2)? })
        };
        let rows = statement.query_map(params![log.key.0, signed(first.0), signed(count_max)], oldest)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Reads<'_> {
    /// Pages of the file that are free and more than should be.
    pub(crate) fn free_pages(self) -> Result<u64, StoreError> {
        let pragma = |name: &str| self.0.query_row(&format!("PRAGMA {name}"), [], |row| unsigned(row, 0));
        let (free, pages) = (pragma("freelist_count")?, pragma("page_count")?);
        Ok(free.saturating_sub(FREE_PAGES + pages / 8))
    }
}

impl Writes<'_> {
    /// Lets the entries before an offset go, the oldest first and at most so many. Who calls this has seen to it that
    /// two snapshots that are stored and whole cover them.
    pub(crate) fn truncate(self, log: &LogRow, below: Offset, count_max: u64) -> Result<(), StoreError> {
        let before = self.reads().log_end(log)?;
        let from = before.kept.first.next;
        let below = below.min(Offset(from.0 + count_max));
        let (snapshots, _) = self.reads().snapshots(log.key)?;
        if below <= from || snapshots.len() < 2 || snapshots.iter().any(|snapshot| snapshot.end < below) {
            return Ok(());
        }
        let Some(chain) = self.reads().chain_at(log, below)? else { return Ok(()) };
        // Everything is read before anything is written: what does not read leaves the log as it is.
        let rows = self.rows_truncated(log, from, below)?;
        let range = params![log.key.0, signed(from.0), signed(below.0)];
        let mut sizes = self.0.prepare_cached(
            "SELECT total(length(bytes)) FROM entries WHERE log = ?1 AND offset >= ?2 AND offset < ?3",
        )?;
        let bytes = sizes.query_row(range, |row| row.get::<_, f64>(0))? as u64;
        for (author, row) in rows {
            self.put_author_row(log.key, author, &row)?;
        }
        let mut delete =
            self.0.prepare_cached("DELETE FROM entries WHERE log = ?1 AND offset >= ?2 AND offset < ?3")?;
        delete.execute(params![log.key.0, signed(from.0), signed(below.0)])?;
        let first = Cursor { next: below, chain };
        let kept = Retained { first, bytes: before.kept.bytes.saturating_sub(bytes) };
        self.put_log_end(log, LogEnd { kept, ..before })
    }

    /// The rows of those who have entries in a stretch, as they are when it is gone.
    fn rows_truncated(
        self,
        log: &LogRow,
        from: Offset,
        end: Offset,
    ) -> Result<Vec<(AuthorKey, AuthorRow)>, StoreError> {
        // The log itself has no row.
        let itself = self.log_author()?;
        let authors = self.authors_between(log, from, end)?;
        let rows = authors.into_iter().filter(|(author, _)| *author != itself).map(|(author, through)| {
            let row = self.reads().author_row(log.key, author)?;
            Ok(row.map(|mut row| {
                row.truncated = row.truncated.max(through);
                (author, row)
            }))
        });
        rows.filter_map(Result::transpose).collect()
    }

    /// Authors of entries in a stretch, with the last seq of each.
    fn authors_between(self, log: &LogRow, from: Offset, end: Offset) -> Result<Vec<(AuthorKey, Seq)>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT author, max(seq) FROM entries WHERE log = ?1 AND offset >= ?2 AND offset < ?3 GROUP BY author",
        )?;
        let rows = statement.query_map(params![log.key.0, signed(from.0), signed(end.0)], |row| {
            Ok((AuthorKey(row.get(0)?), Seq(unsigned(row, 1)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Gives free pages back, a bounded number of them; some stay, for what is written next.
    pub(crate) fn vacuum(self) -> Result<(), StoreError> {
        let excess = self.reads().free_pages()?.min(VACUUM_PAGES);
        if excess > 0 {
            let mut statement = self.0.prepare(&format!("PRAGMA incremental_vacuum({excess})"))?;
            let mut rows = statement.query([])?;
            // Each page is a step of its own.
            while rows.next()?.is_some() {}
        }
        Ok(())
    }
}
