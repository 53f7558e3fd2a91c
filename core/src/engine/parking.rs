//! Giving up own seqs for good on this device: because their bytes are damaged, or because the app's side says so.

use crate::id::{LogName, Seq};
use crate::protocol::Code;
use crate::storage::commit::{Commit, Park};
use crate::storage::row::{DeadLetter, Voids};
use crate::time::WallMs;

use super::{CallError, Engine, Hint, Request};

impl Engine {
    /// Gives up an own pending entry for good, although its bytes are whole: for one that cannot be carried on with,
    /// such as one whose fold does not end. It leaves the view and becomes a dead letter with this code and reason, and
    /// its seq goes to the server as a void; what needs it is refused there. If the server has decided it by then, its
    /// verdict holds and the dead letter goes. Tells whether there was such an entry; one that was just made has to be
    /// stored first.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn park(&mut self, name: &LogName, seq: Seq, code: Code, reason: &str, now: WallMs) -> Result<bool, CallError> {
        self.set_now(now);
        let park = self.replica(name)?.park(seq, code, reason, now);
        let found = park.is_some();
        self.commit_park(name, park);
        self.settle();
        Ok(found)
    }

    /// Gives own seqs up, one commit at a time for each log; what is left is found again by the next read.
    pub(super) fn commit_park(&mut self, name: &LogName, park: Option<Park>) {
        let (Some(park), Some(slot)) = (park, self.slots.get_mut(name)) else { return };
        if !std::mem::replace(&mut slot.parking, true) {
            self.commit(Request::Park(name.clone()), Commit::Park(park));
        }
    }

    /// Seqs are given up for good. Nothing is pushed before, so that the server hears of them as voids.
    pub(super) fn parked(&mut self, name: &LogName, voids: &Voids, letters: Vec<(Seq, DeadLetter)>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.parking = false;
        let first = slot.replica.parked(voids, letters);
        self.push_anew(name, first);
        self.subscribe(name);
        self.hint(&Hint::Grew(name.clone()));
    }

    pub(super) fn park_failed(&mut self, name: &LogName) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.parking = false;
        }
        self.subscribe(name);
    }

    /// A seq that this session has pushed is given up since: what became of it is asked for before anything is pushed.
    pub(super) fn push_anew(&mut self, name: &LogName, void: Option<Seq>) {
        let Some(session) = &mut self.session else { return };
        if void.is_some_and(|void| session.push_from(name).is_some_and(|from| from > void)) {
            session.unsubscribe(name);
            self.subscribe(name);
        }
    }
}
