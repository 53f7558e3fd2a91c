//! Taking the body out of entries: the row is written again with what must stay, its place, its author's number of it,
//! its header and its digest, so that chains and verdicts hold. `secure_delete` sees to the bytes that were there, and a
//! checkpoint to those in the database's own log.

use driftlog_core::codec;
use driftlog_core::entry::{Digest, Gone, Header};
use driftlog_core::id::Offset;
use driftlog_core::time::WallMs;
use rusqlite::params;
use rusqlite::types::ValueRef;

use super::read::{ENTRY_SUMMED, LogEnd, Reads, blob, signed, unsigned};
use super::sum;
use super::write::{Writer, Writes, number_value};
use crate::store::{LogKey, LogRow, Retained, StoreError};

/// Events whose body was taken out.
pub(crate) struct PurgedEvents {
    pub(crate) logs: Vec<LogRow>,
    pub(crate) count: usize,
}

impl Reads<'_> {
    /// Where events stand whose lifetime is over and whose body is still there, at most so many.
    fn expired(self, now: WallMs, count_max: usize) -> Result<Vec<(LogKey, Offset)>, StoreError> {
        let sql = "SELECT log, offset FROM entries WHERE expires < ?1 ORDER BY expires LIMIT ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map(params![signed(now), signed(count_max as u64)], |row| {
            Ok((LogKey(row.get(0)?), Offset(unsigned(row, 1)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Writes<'_> {
    /// Takes the body out of events whose lifetime is over, at most so many. What does not read stays as it is, and is
    /// told.
    pub(crate) fn purge_expired(self, now: WallMs, count_max: usize) -> Result<PurgedEvents, StoreError> {
        let (mut logs, mut count): (Vec<LogRow>, _) = (Vec::new(), 0);
        for (key, offset) in self.reads().expired(now, count_max)? {
            let purge = || -> Result<LogRow, StoreError> {
                let log = self.reads().log_of_key(key)?;
                self.purge(&log, offset, Gone::Expired)?;
                Ok(log)
            };
            match purge() {
                Ok(log) => {
                    count += 1;
                    if logs.iter().all(|known| known.key != log.key) {
                        logs.push(log);
                    }
                }
                Err(error) if error.is_corruption() => tracing::error!(%error, "an expired event stays as it is"),
                Err(error) => return Err(error),
            }
        }
        Ok(PurgedEvents { logs, count })
    }

    /// Takes the body out of one entry; whether it had one.
    pub(super) fn purge(self, log: &LogRow, offset: Offset, gone: Gone) -> Result<bool, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT log, offset, author, seq, accepted, base, digest, chain, expires, gone, sum, bytes FROM entries
             WHERE log = ?1 AND offset = ?2",
        )?;
        let mut rows = statement.query(params![log.key.0, signed(offset.0)])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        sum::check("entries", row, ENTRY_SUMMED)?;
        if row.get_ref(9)? != ValueRef::Null {
            return Ok(false);
        }
        let bytes = row.get_ref(ENTRY_SUMMED + 1)?.as_blob().map_err(rusqlite::Error::from)?;
        if Digest::of(&[bytes]) != Digest(blob(row, 6)?) {
            return Err(StoreError::corrupt("entries", format!("the digest at offset {offset} does not match")));
        }
        let (header, _) =
            codec::decode_prefix::<Header>(bytes).map_err(|error| StoreError::corrupt("entries", error))?;
        let mut values = (0..ENTRY_SUMMED).map(|column| row.get_ref(column)).collect::<rusqlite::Result<Vec<_>>>()?;
        (values[8], values[9]) = (ValueRef::Null, number_value(gone.number().into()));
        let mut left = Vec::new();
        codec::seal(&codec::to_bytes(&header), &mut left);
        let sql = "REPLACE INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        self.put_with_bytes(sql, "entries", &values, &left)?;
        let before = self.reads().log_end(log)?;
        let fewer = (bytes.len() as u64).saturating_sub(left.len() as u64);
        let kept = Retained { bytes: before.kept.bytes.saturating_sub(fewer), ..before.kept };
        self.put_log_end(log, LogEnd { kept, ..before })?;
        Ok(true)
    }
}

impl Writer {
    /// Brings everything that is committed into the main file and cuts the database's own log, so that what was purged
    /// is in neither. Whether that worked out: not while somebody reads.
    ///
    /// # Errors
    /// [`StoreError`]: the disk failed, and the server ends as with a commit.
    pub(crate) fn checkpoint(&self) -> Result<bool, StoreError> {
        // The writer waits for no reader: the next purge tries again.
        self.connection.execute_batch("PRAGMA busy_timeout = 0")?;
        let cut = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        self.connection.execute_batch("PRAGMA busy_timeout = 5000")?;
        match cut {
            Ok(busy) => Ok(busy == 0),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
