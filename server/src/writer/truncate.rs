//! The writer's part in retention: what the maker of snapshots found is written, in steps between pushes.

use driftlog_core::id::Offset;

use super::{LogWriter, damage};
use crate::retention::{Keep, STEP_ENTRIES};
use crate::snapshot::Job;
use crate::store::{LogRow, StoreError, StoredSnapshot, Writes};

impl LogWriter {
    /// Stores a snapshot; what it covers may go now.
    pub(super) fn snapshot_made(
        &mut self,
        writes: Writes<'_>,
        log: &LogRow,
        snapshot: &StoredSnapshot,
    ) -> Result<(), StoreError> {
        if !writes.put_snapshot(log.key, snapshot)? {
            return Ok(());
        }
        self.hot.snapshot_stored(log.key, snapshot.cursor.next, snapshot.size);
        self.want_truncated(log.clone());
        Ok(())
    }

    /// Lets the first of the entries before an offset go, and has it looked up what is left.
    pub(super) fn truncate(&mut self, writes: Writes<'_>, log: LogRow, below: Offset) -> Result<(), StoreError> {
        match writes.truncate(&log, below, STEP_ENTRIES).and_then(|()| writes.vacuum()) {
            Ok(()) => {
                // An event may go with this before its time is over, and then that must be true of its bytes.
                self.took_out();
                self.want_truncated(log);
            }
            Err(error) => drop(damage(&log.name, error)?),
        }
        Ok(())
    }

    /// Has it looked up whether something of a log may go. If the maker has too much to do, the next snapshot asks again.
    fn want_truncated(&self, log: LogRow) {
        if self.config.retention.of(&log.name) != Keep::All {
            self.jobs.request(Job::Truncate(log));
        }
    }
}
