//! What of a log has to leave this device: events whose lifetime is over, and what was erased.
//!
//! Received rows go behind the next snapshot; own rows are written again without it, and dead letters of it go. The engine does it
//! (`engine/purge.rs`); here is known when it is due, and what goes.

use crate::entry::{Entry, Gone, Logged};
use crate::id::{ActorId, EntryId, Offset, Seq};
use crate::op::Erase;
use crate::packed::Gap;
use crate::protocol::Code;
use crate::protocol::frame::MarkedStatus;
use crate::state::Erasure;
use crate::storage::row::DeadLetter;
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

    /// When the first event is over, of those that are not yet, whose dead letter leaves with it: it is listed for as long
    /// as it is worth something.
    pub fn letters_end(&self, now: WallMs) -> Option<WallMs> {
        let letters = self.dead_letters.values().filter(|letter| may_be_logged(letter));
        let ends = letters.filter_map(|letter| letter_ends(letter, &Entry::from_bytes(&letter.entry).ok()?, now));
        ends.filter(|end| *end >= now).min()
    }

    /// Dead letters of what was erased, as far as they are decided, and of events that are over and may have been in the
    /// log.
    pub fn letters_over(&mut self, now: WallMs) -> Vec<EntryId> {
        let letters = self.dead_letters.iter().filter(|(id, letter)| {
            // What does not read may be of it.
            let entry = Entry::from_bytes(&letter.entry);
            let is_of = |entry: &Entry| self.holds_erased(**id, entry);
            let ends = |entry: &Entry| letter_ends(letter, entry, now).filter(|_| may_be_logged(letter));
            let is_over = |entry: &Entry| ends(entry).is_some_and(|end| end < now);
            entry.as_ref().map_or(!self.state.erasures().is_empty(), |entry| is_of(entry) || is_over(entry))
        });
        let letters: Vec<_> = letters.map(|(id, _)| *id).collect();
        let (closed, open): (Vec<_>, Vec<_>) = letters.into_iter().partition(|id| self.is_closed(*id));
        self.erased_open |= !open.is_empty();
        closed
    }

    /// A gap stands where events were: those of this device are still in its rows.
    pub(super) fn pass(&mut self, gap: &Gap) -> Result<(), crate::state::FoldError> {
        let told = self.covered();
        let outlived = self.state.skip(gap)?;
        self.overlay.outlived(&outlived);
        let folded = self.covered();
        if folded > told {
            self.tell_covered(told, folded);
            let expired = gap.reason == Gone::Expired.number();
            self.leaves_by(expired.then_some(gap.effective.ms()));
        }
        Ok(())
    }

    /// Whether an own entry is decided and either in confirmed state or in nobody's: its bytes serve nobody but the
    /// user. Rows of an actor before this one, behind its last seq, stand in rows of this one too.
    pub fn is_closed(&self, EntryId { actor, seq }: EntryId) -> bool {
        let verdicts = self.outbox.verdicts();
        let mark = verdicts.mark(seq);
        let absent = mark.is_some_and(|mark| !mark.is_accepted());
        // What counts under another id is never covered under this one.
        let elsewhere = mark == Some(MarkedStatus::Elsewhere) && self.elsewhere.is_empty();
        let decided = seq <= verdicts.through && (absent || elsewhere || seq <= self.covered());
        decided || actor != self.outbox.author_of(seq)
    }

    /// Whether an own entry has content that was erased, be it under the id of a copy or of an actor before: the erase of
    /// an author names those of its actors that are in the log, and an action that is there under one of them is not there
    /// under another. Whoever issues it again keeps its seq.
    fn holds_erased(&self, id: EntryId, entry: &Entry) -> bool {
        if self.state.has_erased(id.actor, self.state.effective_base(entry.header.base), entry) {
            return true;
        }
        let is_told = self.outbox.verdicts().mark(id.seq) == Some(MarkedStatus::Elsewhere);
        let elsewhere = is_told || entry.reissued(id.actor).is_some() && self.state.folded(id.actor) < id.seq;
        let has_it = |actor: &ActorId| actor.origin() == id.actor.origin() && self.state.folded(*actor) >= id.seq;
        let is_of = |erasure: &Erasure| matches!(&erasure.what, Erase::Authors(authors) if authors.iter().any(has_it));
        elsewhere && self.state.erasures().iter().any(is_of)
    }

    /// When an own entry of a row has to leave; `covered`: through which own seq the stored snapshot has everything.
    /// Received rows behind that name own entries without their bytes, which a start takes from here.
    pub fn leaves(&mut self, actor: ActorId, entry: &Entry, now: WallMs, covered: Seq) -> Leaves {
        let id = EntryId { actor, seq: entry.header.seq };
        let closed = self.is_closed(id);
        let named = id.seq > covered && id.seq <= self.covered();
        // Due as it is, with the next snapshot.
        let over = if named { Leaves::At(now) } else { Leaves::Now };
        if self.holds_erased(id, entry) {
            self.erased_open |= !closed;
            return if closed { over } else { Leaves::Never };
        }
        let Some(lifetime) = entry.body.lifetime_ms.filter(|_| closed) else { return Leaves::Never };
        let time = entry.header.time.ms();
        // It was accepted before now: what its clock says beyond that does not count.
        let at = time.saturating_add(lifetime);
        if at < now || time > now { over } else { Leaves::At(at) }
    }

    /// Whether something that was erased has to stay for now, since it is undecided. It leaves with its verdict.
    pub fn is_erased_open(&self) -> bool {
        self.erased_open
    }

    /// More is decided, or covered, than before: what was erased and had to stay may leave.
    pub(super) fn note_closed(&mut self) {
        if std::mem::take(&mut self.erased_open) {
            // Due, but not before the pause between two purges is over: much may be decided one by one.
            self.leaves_by(Some(1));
        }
    }
}

/// Whether the entry of a dead letter may be in the log all the same, or was: the server lost it, or nobody knows. If it
/// is an event, its content is gone everywhere when it is over, and so it is here. What was refused stays for its user.
pub(super) fn may_be_logged(letter: &DeadLetter) -> bool {
    matches!(letter.code, Some(Code::LostByServer | Code::OutcomeUnknown))
}

/// When to look at dead letters that were not looked at: what is in them may be over.
pub(super) fn look_at<'a>(mut letters: impl Iterator<Item = &'a DeadLetter>) -> Option<WallMs> {
    let is_event =
        |letter: &DeadLetter| Entry::from_bytes(&letter.entry).is_ok_and(|entry| event_ends(&entry).is_some());
    letters.any(|letter| may_be_logged(letter) && is_event(letter)).then_some(1)
}

/// When the event of a dead letter is over, which was accepted before now, if it was. A clock that was ahead by more than
/// the event lives counts for nothing, neither that of its author nor that of who recorded its end: so nothing stays for
/// longer than it lives twice.
fn letter_ends(letter: &DeadLetter, entry: &Entry, now: WallMs) -> Option<WallMs> {
    let lifetime = entry.body.lifetime_ms?;
    let counts = |time: &WallMs| *time <= now.saturating_add(lifetime);
    let time = [entry.header.time.ms(), letter.at].into_iter().find(counts);
    Some(time.map_or(0, |time| time.saturating_add(lifetime)))
}

/// When an event is over, by the clock of its author.
pub(super) fn event_ends(entry: &Entry) -> Option<WallMs> {
    entry.body.lifetime_ms.map(|lifetime| entry.header.time.ms().saturating_add(lifetime))
}

/// When an own entry leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// It has to.
    Now,
    /// It has to behind this time, by the server's clock.
    At(WallMs),
    /// Not by itself, as far as is known now.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Replaced;
    use crate::op::Op;
    use crate::state::fixture::*;

    #[test]
    fn what_an_erased_author_wrote_leaves_the_rows_of_who_issued_it_again_and_is_not_in_the_log() {
        let (mut log, mut alice) = (Log::new(), Tab::new(1));
        let fresh = |rest| alice.actor.successor(ActorId([rest; 16]));
        let (second, third) = (fresh(2), fresh(3));
        let original = alice.act(0, 1, vec![insert("a", vec![("title", set("a secret"))])]);
        let line = original.line(EntryId { actor: alice.actor, seq: original.header.seq });
        log.push(&alice, original.clone()).expect("folds");
        let mut itself = Tab { actor: ActorId::LOG, ..Tab::new(0) };
        log.act(&mut itself, 1, vec![Op::Erase(Erase::Authors(vec![alice.actor]))]);
        let mut replica = Replica::new(crate::id::LogName::new("l").expect("a name"), third, alice.run);
        replica.restart(log.state, 0);

        let again = |seq: u64| {
            let id = EntryId { actor: alice.actor, seq: Seq(seq) };
            let mut header = original.header.clone();
            (header.seq, header.replaces) = (Seq(seq), Some(Replaced { id, ..line.clone() }));
            Entry::new(header, original.body.clone()).expect("valid")
        };
        assert_eq!(replica.leaves(alice.actor, &original, 9, Seq(9)), Leaves::Now);
        assert_eq!(replica.leaves(second, &again(1), 9, Seq(9)), Leaves::Now);
        // The log did not come so far with the erased author: it never had this one.
        assert_eq!(replica.leaves(second, &again(2), 9, Seq(9)), Leaves::Never);
    }
}
