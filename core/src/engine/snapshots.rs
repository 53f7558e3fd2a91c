//! Snapshots of confirmed state, made by the leader: a start reads one and the tail behind it.
//!
//! ```text
//! the tail is long · another tab reads damaged rows · something leaves · a grace is over
//!            └──────────────┴─────────┬─────────┴─────────────┘
//!                                 snapshot ──► received rows behind it go ──► own rows: pruned
//! ```

use crate::id::{LogName, Offset, Seq};
use crate::snapshot;
use crate::storage::commit::Commit;
use crate::storage::row::Received;
use crate::time::WallMs;

use super::{Engine, Hint, Phase, Request, Slot};

impl Slot {
    /// Whether nothing of this log is under way that a snapshot would have to wait for; what is ends with an event.
    pub(super) fn is_free(&self) -> bool {
        let busy = self.snapshotting || self.refreshing || self.rewinding.is_some() || self.replica.has_taken();
        self.phase == Phase::Ready && self.replica.met() && !busy && self.replica.arrivals().is_idle()
    }
}

impl Engine {
    /// Another tab reads damaged rows behind an offset: a snapshot of what this tab has takes their place.
    pub(super) fn mend(&mut self, name: &LogName, at: Offset) {
        if self.slots.get(name).is_some_and(|slot| slot.replica.met() && slot.replica.state().cursor().next >= at) {
            self.write_snapshot(name);
        }
    }

    /// A snapshot, if it is worth its bytes.
    pub(super) fn make_snapshot(&mut self, name: &LogName) {
        if self.slots.get(name).is_some_and(|slot| slot.replica.wants_snapshot()) {
            self.write_snapshot(name);
        }
    }

    pub(super) fn write_snapshot(&mut self, name: &LogName) {
        let now = self.server_time();
        let (Some(fence), Some(slot)) = (self.fence, self.slots.get_mut(name)) else { return };
        if slot.snapshotting || !slot.replica.arrivals_mut().is_idle() || slot.replica.has_taken() {
            return;
        }
        slot.replica.forget_old_roots(now);
        let bytes = snapshot::encode(slot.replica.state_mut());
        let behind = Received::behind(slot.replica.state());
        slot.replica.snapshot_made(bytes.len());
        slot.snapshotting = true;
        let keep = if slot.purges.takes_all() { behind.from } else { slot.folds_keep(behind.from) };
        let covered = slot.replica.covered();
        let (log, bytes, purged) = (name.clone(), bytes.into(), slot.purged_row());
        let commit = Commit::Snapshot { fence, log, bytes, behind, keep, purged };
        self.commit(Request::Snapshot(name.clone(), covered), commit);
    }

    /// A snapshot is stored that has everything through an own seq; none: it is not.
    pub(super) fn snapshot_stored(&mut self, name: &LogName, covered: Option<Seq>) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.snapshotting = false;
            slot.pruned.covered = covered.unwrap_or(slot.pruned.covered);
        }
        let stored = covered.is_some();
        if stored {
            self.hint(&Hint::Grew(name.clone()));
            self.prune(name);
        }
        self.purge_behind_snapshot(name, stored);
    }

    /// When a snapshot of a log takes less room than the stored one though nothing comes: an old root has come out of its
    /// grace.
    pub(super) fn rest_due(&self, slot: &Slot) -> Option<WallMs> {
        let offset = self.clock_offset.filter(|_| self.fence.is_some() && slot.is_free())?;
        Some(slot.replica.rests_at()?.saturating_add_signed(-offset))
    }

    /// After every event: what is due for that is done.
    pub(super) fn settle_rests(&mut self) {
        let is_due = |slot: &Slot| self.rest_due(slot).is_some_and(|at| at <= self.now);
        let due = self.slots.turn().filter(|(_, slot)| is_due(slot)).map(|(name, _)| name.clone());
        due.collect::<Vec<_>>().iter().for_each(|name| self.write_snapshot(name));
    }
}
