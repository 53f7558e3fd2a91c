//! Appending: own entries become durable in groups, one of a log at a time.

use crate::entry::Entry;
use crate::id::LogName;
use crate::notice::AppendFailure;
use crate::storage::commit::{Commit, CommitAbort};

use super::{CommitFailure, Engine, Hint, Phase, Request};

impl Engine {
    pub(super) fn append_groups(&mut self) {
        let (actor, mut groups) = (self.actor(), Vec::new());
        self.slots.turn_mut(|name, slot| {
            if slot.phase == Phase::Ready
                && slot.replica.actor() == actor
                && !slot.appends_unknown
                && let Some(append) = slot.replica.outbox_mut().next_group(name)
            {
                groups.push((name.clone(), append));
            }
        });
        for (name, append) in groups {
            self.commit(Request::Append(name), Commit::Append(append));
        }
    }

    pub(super) fn appended(&mut self, name: &LogName, entries: &[Entry]) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.pressure.storage_full = false;
        if slot.replica.appended(entries) {
            self.refresh(name);
        }
        self.hint(&Hint::Grew(name.clone()));
    }

    pub(super) fn append_failed(&mut self, name: &LogName, failure: CommitFailure) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        match failure {
            CommitFailure::Full(reason) => {
                slot.pressure.storage_full = true;
                slot.replica.append_failed(AppendFailure::StorageFull, &reason);
            }
            CommitFailure::Aborted(CommitAbort::ActorChanged) => {
                slot.replica.outbox_mut().append_again();
                self.identify();
            }
            CommitFailure::Failed(reason) => slot.replica.append_failed(AppendFailure::StorageFailed, &reason),
            CommitFailure::Aborted(abort) => {
                slot.replica.append_failed(AppendFailure::StorageFailed, &abort.to_string());
            }
            // The action stays in view until the rows have been read.
            CommitFailure::Unknown(_) => {
                slot.appends_unknown = true;
                self.look_for_append(name);
            }
        }
    }
}
