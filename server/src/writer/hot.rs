//! Sequencers in memory, at most so many; the least recently used goes first and is loaded again when needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftlog_core::id::Offset;
use driftlog_core::sequencer::{Policy, Sequencer};

use crate::config::Config;
use crate::retention::{Retention, TIGHT_BYTES};
use crate::snapshot;
use crate::store::{LogKey, LogRow, Reads, StoreError};

/// Every sequencer in memory.
pub(super) struct HotLogs {
    logs: BTreeMap<LogKey, HotLog>,
    /// Logs in which this start of the server has its epoch.
    epochs: BTreeSet<LogKey>,
    policy: Arc<dyn Policy>,
    retention: Retention,
    logs_max: usize,
    uses: u64,
}

/// A log in memory.
pub(super) struct HotLog {
    pub(super) sequencer: Sequencer,
    used: u64,
    /// Entries and bytes behind the newest snapshot.
    entries: u64,
    bytes: u64,
    snapshot_end: Offset,
    snapshot_bytes: u64,
    pub(super) snapshot_requested: bool,
    snapshot_damaged: bool,
    tight: bool,
}

impl HotLogs {
    pub(super) fn new(config: &Config) -> Self {
        let (policy, retention) = (Arc::clone(&config.policy), config.retention.clone());
        Self { logs: BTreeMap::new(), epochs: BTreeSet::new(), policy, retention, logs_max: config.hot_logs, uses: 0 }
    }

    pub(super) fn needs_epoch(&self, log: LogKey) -> bool {
        !self.epochs.contains(&log)
    }

    pub(super) fn epoch_begun(&mut self, log: LogKey) {
        self.epochs.insert(log);
    }

    /// The sequencer of a log that is in memory already.
    pub(super) fn loaded(&mut self, log: LogKey) -> Option<&mut Sequencer> {
        self.logs.get_mut(&log).map(|hot| &mut hot.sequencer)
    }

    /// The sequencer of a log, loaded from its snapshot and the entries behind it if it is cold.
    pub(super) fn load(&mut self, reads: Reads<'_>, log: &LogRow) -> Result<&mut HotLog, StoreError> {
        self.uses += 1;
        let used = self.uses;
        let hot = match self.logs.entry(log.key) {
            std::collections::btree_map::Entry::Occupied(hot) => hot.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let tight = self.retention.of(&log.name).is_tight();
                vacant.insert(HotLog::load(reads, log, Arc::clone(&self.policy), tight)?)
            }
        };
        hot.used = used;
        Ok(hot)
    }

    pub(super) fn snapshot_stored(&mut self, log: LogKey, end: Offset, bytes: u64) {
        if let Some(hot) = self.logs.get_mut(&log) {
            let next = hot.sequencer.state().cursor().next;
            hot.bytes = hot.bytes.saturating_mul(next.0 - end.0).checked_div(hot.entries).unwrap_or(0);
            hot.entries = next.0 - end.0;
            (hot.snapshot_end, hot.snapshot_bytes, hot.snapshot_requested) = (end, bytes, false);
            hot.snapshot_damaged = false;
        }
    }

    /// Drops the least recently used beyond the bound.
    pub(super) fn evict(&mut self) {
        while self.logs.len() > self.logs_max {
            let oldest = self.logs.iter().min_by_key(|(_, hot)| hot.used).map(|(log, _)| *log);
            let Some(oldest) = oldest else { return };
            self.logs.remove(&oldest);
        }
    }
}

impl HotLog {
    fn load(reads: Reads<'_>, log: &LogRow, policy: Arc<dyn Policy>, tight: bool) -> Result<Self, StoreError> {
        let folded = snapshot::fold(reads, log)?;
        let cursor = folded.state.cursor();
        let epochs = reads.epochs(log)?;
        Ok(Self {
            sequencer: Sequencer::resume(folded.state, epochs).governed_by(log.name.clone(), policy),
            used: 0,
            entries: cursor.next.0 - folded.snapshot_end.0,
            bytes: folded.tail_bytes,
            snapshot_end: folded.snapshot_end,
            snapshot_bytes: folded.snapshot_bytes,
            snapshot_requested: false,
            snapshot_damaged: folded.snapshot_damaged,
            tight,
        })
    }

    /// Takes note of an appended entry.
    pub(super) fn grew(&mut self, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
    }

    /// Whether a snapshot is due and was not asked for yet: the old one is damaged, or the tail is long. The tail must
    /// also have grown to a part of the last snapshot's size, so that all snapshots of a log together cost a constant
    /// factor of its entries. Where storage is to follow what lives, a tail as large as the snapshot is long.
    pub(super) fn wants_snapshot(&self, config: &Config) -> bool {
        let tight = self.tight && self.bytes >= self.snapshot_bytes.max(TIGHT_BYTES);
        let due = tight || self.entries >= config.snapshot_entries || self.bytes >= config.snapshot_bytes;
        let worth = self.bytes >= self.snapshot_bytes / 4;
        ((due && worth) || self.snapshot_damaged) && !self.snapshot_requested
    }
}
