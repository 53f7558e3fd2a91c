//! The writer's part in re-rooting: texts that the maker of snapshots found grown begin anew, in the log.

use super::{Effect, LogWriter, damage, letters};
use crate::snapshot::Job;
use crate::store::{LogRow, StoreError, StoredSnapshot, Writes};
use driftlog_core::sequencer::Grown;

impl LogWriter {
    /// Stores a snapshot, and does what waited for it.
    pub(super) fn snapshot_stored(
        &mut self,
        writes: Writes<'_>,
        log: LogRow,
        snapshot: &StoredSnapshot,
        grown: &[Grown],
    ) -> Result<Effect, StoreError> {
        self.snapshot_made(writes, &log, snapshot)?;
        let rerooted = self.reroot_or_damage(writes, log, grown)?;
        let erased = self.erase_behind_snapshot(writes)?;
        Ok(Box::new(move |feeds| {
            rerooted.into_iter().for_each(|effect| effect(feeds));
            erased(feeds);
        }))
    }

    /// Gives grown texts a new root. A log that is damaged stays as it is; others go on.
    fn reroot_or_damage(
        &mut self,
        writes: Writes<'_>,
        log: LogRow,
        grown: &[Grown],
    ) -> Result<Option<Effect>, StoreError> {
        if grown.is_empty() {
            return Ok(None);
        }
        match self.reroot(writes, &log, grown) {
            Err(error) => damage(&log.name, error).map(|_| None),
            done => done,
        }
    }

    fn reroot(&mut self, writes: Writes<'_>, log: &LogRow, grown: &[Grown]) -> Result<Option<Effect>, StoreError> {
        self.begin_epoch(writes, log)?;
        let now = self.environment.now();
        let hot = self.hot.load(writes.reads(), log)?;
        let (rerooting, random) = (&self.config.rerooting, &mut self.random);
        let rooted = grown.iter().filter_map(|grown| hot.sequencer.reroot(now, grown, rerooting, random));
        let rooted: Vec<_> = rooted.collect();
        if rooted.is_empty() {
            return Ok(None);
        }
        // From here on the log in memory is ahead of the disk.
        let sizes = letters::write_own(writes, log, &rooted).map_err(StoreError::midway)?;
        sizes.iter().for_each(|bytes| hot.grew(*bytes as u64));
        if hot.wants_snapshot(&self.config) {
            hot.snapshot_requested = self.jobs.request(Job::Snapshot(log.clone()));
        }
        let appended = rooted.into_iter().zip(sizes).map(|((logged, cursor), bytes)| (logged, cursor, bytes)).collect();
        let name = log.name.clone();
        Ok(Some(Box::new(move |feeds| feeds.committed(&name, appended))))
    }
}
