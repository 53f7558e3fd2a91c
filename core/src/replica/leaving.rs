//! What of a log has to leave this device: events whose lifetime is over, and what was erased.
//!
//! Received rows go behind the next snapshot; own rows are written again without it, and dead letters of it go. The engine does it
//! (`engine/purge.rs`); here is known when it is due, and what goes.

use crate::entry::{Entry, Gone, Logged};
use crate::id::{ActorId, EntryId, Offset, Seq};
use crate::packed::Gap;
use crate::time::WallMs;

use super::Replica;

impl Replica {
    /// When the next event ends that may still be in a row here, by the server's clock; none: there is none.
    pub fn leaves_at(&self) -> Option<WallMs> {
        self.leaves_at
    }

    /// Something may have to leave at this time.
    pub fn leaves_by(&mut self, at: Option<WallMs>) {
        self.leaves_at = [self.leaves_at, at].into_iter().flatten().min();
    }

    /// What was noted up to now is being looked at: when it was due.
    pub fn take_leaving(&mut self) -> Option<WallMs> {
        self.leaves_at.take()
    }

    /// An event was confirmed with its body.
    pub(super) fn note_expiry(&mut self, logged: &Logged) {
        self.leaves_by(logged.expires());
    }

    /// Confirmed state has come past an erase: what this device holds of it leaves at once.
    pub(super) fn note_erasures(&mut self, before: Offset) {
        let end = self.state.erased_end();
        self.erased |= end > before;
        if end > self.purged.max(before) {
            self.leaves_by(Some(0));
        }
    }

    /// Erases before this offset were carried out on this device.
    pub fn purged_to(&mut self, erased: Offset) {
        self.purged = erased;
    }

    /// Before which offset they were.
    pub fn purged(&self) -> Offset {
        self.purged
    }

    /// Whether confirmed state came past an erase since the last call: folds begin anew, they may have used it.
    pub fn has_erased_news(&mut self) -> bool {
        std::mem::take(&mut self.erased)
    }

    /// Dead letters of what was erased.
    pub fn letters_erased(&self) -> Vec<EntryId> {
        let letters = self.dead_letters.iter().filter(|(id, letter)| {
            // What does not read may be of it.
            let entry = Entry::from_bytes(&letter.entry);
            let is_of = |entry: &Entry| self.state.has_erased(id.actor, entry.header.base.end, entry);
            entry.as_ref().map_or(!self.state.erasures().is_empty(), is_of)
        });
        letters.map(|(id, _)| *id).collect()
    }

    /// A gap stands where events were: those of this device are still in its rows.
    pub(super) fn pass(&mut self, gap: &Gap) -> Result<(), crate::state::FoldError> {
        let told = self.covered();
        self.state.skip(gap)?;
        let folded = self.covered();
        if folded > told {
            self.tell_covered(told, folded);
            let expired = gap.reason == Gone::Expired.number();
            self.leaves_by(expired.then_some(gap.effective.ms()));
        }
        Ok(())
    }

    /// Through which own seq everything is decided and covered, so that its bodies serve nobody but the user.
    pub fn closed_through(&self) -> Seq {
        self.covered().min(self.outbox.verdicts().through)
    }

    /// Whether an own entry of a row has to leave; in what time, if it has to later.
    pub fn leaves(&self, actor: ActorId, entry: &Entry, now: WallMs) -> Result<(), Option<WallMs>> {
        let seq = entry.header.seq;
        // Rows of an actor before this one, behind its last seq, stand in rows of this one too.
        let closed = seq <= self.closed_through() || actor != self.outbox.author_of(seq);
        if closed && self.state.has_erased(actor, entry.header.base.end, entry) {
            return Ok(());
        }
        let Some(lifetime) = entry.body.lifetime_ms.filter(|_| closed) else { return Err(None) };
        let at = entry.header.time.ms().saturating_add(lifetime);
        if at < now { Ok(()) } else { Err(Some(at)) }
    }
}
