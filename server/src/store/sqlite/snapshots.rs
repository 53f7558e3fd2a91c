//! The rows of snapshots: the two newest of each log.

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::entry::Digest;
use driftlog_core::id::Offset;
use driftlog_core::snapshot;
use rusqlite::params;
use rusqlite::types::ValueRef;

use super::read::{Reads, blob, signed, unsigned};
use super::sum;
use super::write::{Writes, integer, number_value};
use crate::store::{LogKey, Snapshot, SnapshotRow, StoreError, StoredSnapshot, deflated};

/// How many columns of a row the sum covers.
pub(super) const SNAPSHOT_SUMMED: usize = 6;

impl Reads<'_> {
    /// The stored snapshots of a log, the newest first, and whether a row of them is damaged: it can be made again.
    pub(crate) fn snapshots(self, log: LogKey) -> Result<(Vec<SnapshotRow>, bool), StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT log, number, next, chain, size, rests, sum FROM snapshots WHERE log = ?1 ORDER BY number DESC",
        )?;
        let (mut rows, mut snapshots, mut damaged) = (statement.query([log.0])?, Vec::new(), false);
        while let Some(row) = rows.next()? {
            match sum::check("snapshots", row, SNAPSHOT_SUMMED) {
                Ok(()) => snapshots.push(SnapshotRow {
                    log,
                    number: unsigned(row, 1)?,
                    end: Offset(unsigned(row, 2)?),
                    rests_at: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
                }),
                Err(_) => damaged = true,
            }
        }
        Ok((snapshots, damaged))
    }

    /// How many bytes of the file a snapshot takes.
    pub(crate) fn snapshot_bytes(self, snapshot: SnapshotRow) -> Result<u64, StoreError> {
        let mut statement =
            self.0.prepare_cached("SELECT length(bytes) FROM snapshots WHERE log = ?1 AND number = ?2")?;
        Ok(statement.query_row(params![snapshot.log.0, signed(snapshot.number)], |row| unsigned(row, 0))?)
    }

    /// A stored snapshot, whole and as it was encoded.
    ///
    /// # Errors
    /// [`StoreError::CorruptRow`]: do with an older one, and make it again.
    pub(crate) fn snapshot(self, snapshot: SnapshotRow) -> Result<Snapshot, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT log, number, next, chain, size, rests, sum, bytes FROM snapshots WHERE log = ?1 AND number = ?2",
        )?;
        let mut rows = statement.query(params![snapshot.log.0, signed(snapshot.number)])?;
        let Some(row) = rows.next()? else { return Err(StoreError::corrupt("snapshots", "a snapshot is gone")) };
        sum::check("snapshots", row, SNAPSHOT_SUMMED)?;
        let cursor = Cursor { next: Offset(unsigned(row, 2)?), chain: Chain(Digest(blob(row, 3)?)) };
        let stored = row.get_ref(SNAPSHOT_SUMMED + 1)?.as_blob().map_err(rusqlite::Error::from)?;
        let bytes = deflated::plain(stored, unsigned(row, 4)?);
        match bytes.filter(|bytes| snapshot::is_whole(bytes)) {
            Some(bytes) => Ok(Snapshot { cursor, bytes }),
            None => Err(StoreError::corrupt("snapshots", "the digest does not match")),
        }
    }
}

impl Writes<'_> {
    /// Stores a snapshot. The one before stays, in case this one is damaged; older ones go. Whether it was stored: one
    /// that ends before the newest was overtaken, and entries behind it may be gone already.
    pub(crate) fn put_snapshot(self, log: LogKey, snapshot: &StoredSnapshot) -> Result<bool, StoreError> {
        let StoredSnapshot { cursor, size, rests_at, bytes } = snapshot;
        let newest = self.reads().snapshots(log)?.0.first().copied();
        if newest.is_some_and(|newest| newest.end > cursor.next) {
            return Ok(false);
        }
        let before = newest.map_or(0, |newest| newest.number);
        let values = [
            integer(log.0),
            number_value(before + 1),
            number_value(cursor.next.0),
            ValueRef::Blob(&cursor.chain.0.0),
            number_value(*size),
            rests_at.map_or(ValueRef::Null, number_value),
        ];
        // The number may be that of a damaged row.
        let sql = "INSERT OR REPLACE INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.put_with_bytes(sql, "snapshots", &values, bytes)?;
        let sql = "DELETE FROM snapshots WHERE log = ?1 AND number NOT IN (?2, ?3)";
        self.0.prepare_cached(sql)?.execute([log.0, signed(before), signed(before + 1)])?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use driftlog_core::id::{LogId, LogName};
    use driftlog_core::state::State;

    use super::*;
    use crate::store::{LogRow, Store, Writer};

    /// What every snapshot is padded with here, so that it is deflated.
    const WORDS: u64 = 20_000;

    /// Bytes that pass for a snapshot: its digest is what is checked here.
    fn snapshot(number: u64) -> Snapshot {
        // In no order, so that what is deflated has no two parts alike, nor one like a page that was zeroed.
        let word = |at: u64| (at * WORDS + number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        let words = (0..WORDS).map(|at| format!("{} ", word(at)));
        let mut bytes = words.collect::<String>().into_bytes();
        let digest = Digest::of(&[&bytes]);
        bytes.extend_from_slice(&digest.0);
        let start = State::new(LogId([1; 16])).cursor();
        Snapshot { cursor: Cursor { next: Offset(number), ..start }, bytes }
    }

    fn store(directory: &std::path::Path) -> (Writer, LogRow) {
        let mut writer = Store::open(directory, None).expect("opens").writer().expect("writes");
        let name = LogName::new("log").expect("a name");
        let log = writer.commit(|writes| writes.create_log(&name, LogId([1; 16]))).expect("makes a log");
        (writer, log)
    }

    #[test]
    fn a_deflated_snapshot_is_read_as_it_was_encoded() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, log) = store(directory.path());
        let put = |writes: Writes<'_>| writes.put_snapshot(log.key, &StoredSnapshot::of(snapshot(7), None));
        assert!(writer.commit(put).expect("stores"));
        let read = |writes: Writes<'_>| {
            let row = writes.reads().snapshots(log.key)?.0[0];
            Ok((writes.reads().snapshot_bytes(row)?, writes.reads().snapshot(row)?))
        };
        let (stored, found) = writer.commit(read).expect("reads");
        assert!(stored * 2 < found.bytes.len() as u64, "{stored} of {}", found.bytes.len());
        assert_eq!((found.cursor, found.bytes), (snapshot(7).cursor, snapshot(7).bytes));
    }

    #[test]
    fn a_deflated_snapshot_whose_row_is_damaged_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, log) = store(directory.path());
        let damages = [
            ("size = size + 1", "nothing is inflated by another size"),
            ("bytes = CAST(substr(bytes, 1, length(bytes) - 1) AS BLOB)", "the end is missing"),
            ("bytes = CAST(bytes || x'00' AS BLOB)", "something follows"),
            ("bytes = CAST(substr(bytes, 1, 99) || x'0123' || substr(bytes, 102) AS BLOB)", "it is changed"),
        ];
        for (damage, what) in damages {
            let found = writer.commit(|writes| {
                writes.put_snapshot(log.key, &StoredSnapshot::of(snapshot(7), None))?;
                let row = writes.reads().snapshots(log.key)?.0[0];
                writes.0.execute_batch(&format!("UPDATE snapshots SET {damage} WHERE number = {}", row.number))?;
                Ok(writes.reads().snapshot(row).map(|found| found.cursor))
            });
            assert!(found.expect("writes").is_err_and(|error| error.is_corruption()), "{what}");
        }
    }

    /// The bytes of an erased record can be found in no deflated row, so what is looked for is the row itself.
    #[test]
    fn nothing_of_a_deflated_snapshot_is_in_the_file_behind_the_next_two() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, log) = store(directory.path());
        let first = StoredSnapshot::of(snapshot(1), None);
        assert!(first.bytes.len() as u64 * 2 < first.size, "it is deflated");
        // A page holds a row's bytes in pieces: each of these is within one.
        let pieces: Vec<&[u8]> = first.bytes.chunks_exact(64).collect();
        let left = |writer: &mut Writer| {
            assert!(writer.checkpoint().expect("cuts"));
            let mut file = Vec::new();
            for found in std::fs::read_dir(directory.path()).expect("a directory") {
                file.extend(std::fs::read(found.expect("a file").path()).expect("reads"));
            }
            let windows: std::collections::BTreeSet<&[u8]> = file.windows(64).collect();
            pieces.iter().filter(|piece| windows.contains(*piece)).count()
        };
        let put = |writer: &mut Writer, stored: &StoredSnapshot| {
            assert!(writer.commit(|writes| writes.put_snapshot(log.key, stored)).expect("stores"));
        };
        put(&mut writer, &first);
        assert!(left(&mut writer) * 2 > pieces.len(), "it is there");
        put(&mut writer, &StoredSnapshot::of(snapshot(2), None));
        assert!(left(&mut writer) * 2 > pieces.len(), "the one before stays");
        put(&mut writer, &StoredSnapshot::of(snapshot(3), None));
        assert_eq!(left(&mut writer), 0);
    }
}
