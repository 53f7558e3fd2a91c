//! The writer's part in rounds: what time alone makes due, some logs with each purge.
//!
//! Pushes to a log have it looked after: snapshots, new roots of its texts, and what retention lets go follow from them.
//! A log that nobody writes to any more is met here. Its texts wait for a quiet moment to begin anew, their old roots come
//! out of their grace, its entries out of the age to which they are kept, and who was being sent a snapshot may be gone.

use driftlog_core::time::WallMs;

use super::LogWriter;
use crate::retention::Keep;
use crate::snapshot::Job;
use crate::store::{LogKey, LogRow, Reads, SnapshotRow, StoreError};

/// Logs looked at with one purge: with one every ten seconds, a million in somewhat more than a day.
const STEP_LOGS: usize = 100;

impl LogWriter {
    /// Looks at the next logs, and asks the maker of snapshots for what is due in them.
    pub(super) fn go_round(&mut self, reads: Reads<'_>) -> Result<(), StoreError> {
        let now = self.environment.now();
        let keys = reads.logs_after(self.round, STEP_LOGS)?;
        let is_done = keys.len() < STEP_LOGS;
        for key in keys {
            match self.due(reads, key, now) {
                Ok(Some(job)) => {
                    if !self.jobs.request(job) {
                        // The maker has too much to do: the next purge goes on here.
                        return Ok(());
                    }
                }
                Ok(None) => {}
                // Whoever needs the log is told.
                Err(error) if error.is_corruption() => {}
                Err(error) => return Err(error),
            }
            self.round = key;
        }
        if is_done {
            self.round = LogKey(0);
        }
        Ok(())
    }

    /// What is to be done about a log, if nobody has written to it for a while.
    fn due(&self, reads: Reads<'_>, key: LogKey, now: WallMs) -> Result<Option<Job>, StoreError> {
        let log = reads.log_of_key(key)?;
        let quiet_ms = self.config.rerooting.quiet.as_millis() as u64;
        if reads.end(&log)?.1.ms().saturating_add(quiet_ms) > now {
            return Ok(None);
        }
        let (snapshots, _) = reads.snapshots(key)?;
        // Both of them: the older one holds no less than the newest.
        if snapshots.iter().any(|snapshot| snapshot.rests_at.is_some_and(|at| at <= now)) {
            return Ok(Some(Job::Snapshot(log)));
        }
        Ok(self.keeps_too_much(reads, &log, &snapshots, now)?.then_some(Job::Truncate(log)))
    }

    /// Whether more is kept than the log's policy wants, and two snapshots cover it: it may have been kept for a reader of
    /// a snapshot who never came, or has only now become too old.
    fn keeps_too_much(
        &self,
        reads: Reads<'_>,
        log: &LogRow,
        snapshots: &[SnapshotRow],
        now: WallMs,
    ) -> Result<bool, StoreError> {
        let ([_, covered], kept) = (snapshots, reads.kept(log)?) else { return Ok(false) };
        if covered.end <= kept.first.next {
            return Ok(false);
        }
        Ok(match self.config.retention.of(&log.name) {
            Keep::All => false,
            Keep::Size(max) => kept.bytes > max,
            Keep::Last(count) => reads.end(log)?.0.next.0 - kept.first.next.0 > count,
            Keep::Age(age) => {
                let oldest = reads.oldest(log, 1)?;
                oldest.first().is_some_and(|entry| entry.accepted.ms().saturating_add(age.as_millis() as u64) < now)
            }
        })
    }
}
