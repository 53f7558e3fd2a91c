//! What the app records: actions, and dead letters issued again.

use crate::draft::Draft;
use crate::id::{EntryId, LogName, WriteId};
use crate::replica::{ActError, RedriveError};
use crate::time::WallMs;

use super::pressure::BacklogFull;
use super::{Engine, Phase};

/// The call cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Open the log first, and wait for it.
    #[error("the log {0} is not open")]
    NotOpen(LogName),
    /// Too much waits for the server: call again when it has answered some of it.
    #[error(transparent)]
    BacklogFull(#[from] BacklogFull),
    /// The action cannot be taken.
    #[error(transparent)]
    Act(#[from] ActError),
    /// The dead letter cannot be redriven.
    #[error(transparent)]
    Redrive(#[from] RedriveError),
}

impl Engine {
    /// Records an action. When this returns it is in the view; the patches are among the outputs.
    ///
    /// # Errors
    /// [`CallError`]; nothing was recorded.
    pub fn act(&mut self, name: &LogName, draft: Draft, now: WallMs) -> Result<WriteId, CallError> {
        self.set_now(now);
        let clock_now = self.server_now();
        let slot = self.slots.get_mut(name).filter(|slot| slot.phase == Phase::Ready);
        let Some(slot) = slot else { return Err(CallError::NotOpen(name.clone())) };
        slot.has_room(name, self.config.backlog)?;
        let n = self.acts + 1;
        let write = slot.replica.act(draft.merged(), n, clock_now, &mut self.clock, &mut self.random)?;
        self.acts = n;
        self.settle();
        Ok(write)
    }

    /// Makes entries again that were refused for their old root; only one tab does.
    pub(super) fn remake_moved(&mut self, name: &LogName) {
        if self.fence.is_none() {
            return;
        }
        let (now, clock_now) = (self.acts + 1, self.server_now());
        let Some(slot) = self.slots.get_mut(name).filter(|slot| slot.phase == Phase::Ready) else { return };
        self.acts += slot.replica.remake_moved(now, clock_now, &mut self.clock, &mut self.random);
    }

    /// Issues a dead letter again, with a new draft or as it was: it is in the view when this returns.
    ///
    /// # Errors
    /// [`CallError`]; nothing was recorded.
    pub fn redrive(
        &mut self,
        name: &LogName,
        id: EntryId,
        draft: Option<Draft>,
        now: WallMs,
    ) -> Result<WriteId, CallError> {
        self.set_now(now);
        let clock_now = self.server_now();
        let slot = self.slots.get_mut(name).filter(|slot| slot.phase == Phase::Ready);
        let Some(slot) = slot else { return Err(CallError::NotOpen(name.clone())) };
        slot.has_room(name, self.config.backlog)?;
        let (n, draft) = (self.acts + 1, draft.map(Draft::merged));
        let write = slot.replica.redrive(id, draft, n, clock_now, &mut self.clock, &mut self.random)?;
        self.acts = n;
        self.settle();
        Ok(write)
    }
}
