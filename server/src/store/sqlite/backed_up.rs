//! What a backup has, by what the operator says of its age.

use driftlog_core::id::{Offset, Seq};
use driftlog_core::sequencer::AuthorRow;
use driftlog_core::time::WallMs;
use rusqlite::params;

use super::read::{Reads, signed, unsigned};
use crate::store::{AuthorKey, LogRow, StoreError};

impl Reads<'_> {
    /// Through which seq every entry of an author was accepted before a time; of what is not kept any more, all was.
    pub(crate) fn backed_up(
        self,
        log: &LogRow,
        author: AuthorKey,
        row: &AuthorRow,
        before: WallMs,
    ) -> Result<Seq, StoreError> {
        let end = self.accepted_before(log, before)?;
        // Entries of one author ascend: the first behind the end is the first that no backup has.
        let sql = "SELECT seq FROM entries WHERE log = ?1 AND author = ?2 AND offset < ?3 ORDER BY seq DESC LIMIT 1";
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(params![log.key.0, author.0, signed(end.0)])?;
        let last = rows.next()?.map(|found| unsigned(found, 0)).transpose()?;
        let first = self.kept(log)?.first.next;
        let truncated = if end >= first { row.truncated } else { Seq(0) };
        Ok(truncated.max(Seq(last.unwrap_or(0))))
    }

    /// The first offset of a log whose entry was accepted at a time or later. Accepted times never decrease.
    fn accepted_before(self, log: &LogRow, time: WallMs) -> Result<Offset, StoreError> {
        let (end, _) = self.end(log)?;
        let (mut low, mut high) = (self.kept(log)?.first.next.0, end.next.0);
        let sql = "SELECT accepted FROM entries WHERE log = ?1 AND offset = ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        while low < high {
            let middle = low + (high - low) / 2;
            let accepted = statement.query_row(params![log.key.0, signed(middle)], |row| unsigned(row, 0))?;
            if driftlog_core::time::Time(accepted).ms() < time { low = middle + 1 } else { high = middle }
        }
        Ok(Offset(low))
    }
}
