//! Stamps: what a living value keeps of the entry that wrote it, and the question "had this author seen that?".

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use crate::entry::Logged;
use crate::id::{ActorId, EntryId, Offset, RunId, Seq, WriteId};
use crate::time::Time;

/// Who wrote a value, and where that entry stands. All values of one entry share one stamp.
///
/// A pending entry has no offset yet, and before its append is durable no seq; both are set once, when they are known,
/// so that nothing laid on the state has to be laid again for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    actor: ActorId,
    run: RunId,
    n: u64,
    time: Time,
    rank: u64,
    seq: OnceLock<Seq>,
    offset: OnceLock<Offset>,
}

impl Stamp {
    /// The stamp of an entry in the log.
    pub fn logged(logged: &Logged) -> Self {
        let header = &logged.entry.header;
        let id = EntryId { actor: logged.actor, seq: header.seq };
        Self::confirmed(id, WriteId { run: header.run, n: header.n }, logged.effective(), logged.offset)
    }

    /// The stamp of an entry at `offset`.
    pub fn confirmed(id: EntryId, write: WriteId, effective: Time, offset: Offset) -> Self {
        Self {
            actor: id.actor,
            run: write.run,
            n: write.n,
            time: effective,
            rank: 0,
            seq: OnceLock::from(id.seq),
            offset: OnceLock::from(offset),
        }
    }

    /// The stamp of a pending entry. `rank` orders pending entries that have no seq yet.
    pub fn pending(actor: ActorId, write: WriteId, seq: Option<Seq>, time: Time, rank: u64) -> Self {
        let seq = seq.map(OnceLock::from).unwrap_or_default();
        Self { actor, run: write.run, n: write.n, time, rank, seq, offset: OnceLock::new() }
    }

    /// Notes the seq, once it is known.
    pub(crate) fn assign(&self, seq: Seq) {
        // A second assignment can only repeat the first: seqs are given in one append transaction.
        let _ = self.seq.set(seq);
    }

    /// Notes that the entry stands in the confirmed prefix.
    pub(crate) fn confirm(&self, offset: Offset) {
        let _ = self.offset.set(offset);
    }

    /// Its place among pending entries without a seq.
    pub(crate) fn rank(&self) -> u64 {
        self.rank
    }

    /// The author.
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// The entry's name from the call on.
    pub fn write(&self) -> WriteId {
        WriteId { run: self.run, n: self.n }
    }

    /// Its effective time; of a pending entry its own time.
    pub fn time(&self) -> Time {
        self.time
    }

    /// Its seq; none before the append is durable.
    pub fn seq(&self) -> Option<Seq> {
        self.seq.get().copied()
    }

    /// Its offset; none while it is pending.
    pub fn offset(&self) -> Option<Offset> {
        self.offset.get().copied()
    }

    /// The order of winners: by effective time, then by offset; what has none yet comes after all that have one.
    pub fn cmp_by_time(&self, other: &Self) -> Ordering {
        let key = |stamp: &Self| {
            let offset = stamp.offset().map_or(u64::MAX, |offset| offset.0);
            let seq = stamp.seq().map_or(u64::MAX, |seq| seq.0);
            (stamp.time, offset, if offset == u64::MAX { (seq, stamp.rank) } else { (0, 0) })
        };
        key(self).cmp(&key(other))
    }
}

/// The author of an entry while it is laid: its stamp and its causal context.
#[derive(Debug, Clone)]
pub struct Author {
    /// The entry's stamp.
    pub stamp: Arc<Stamp>,
    /// Effective base: end of the confirmed prefix that the author had seen.
    pub base: Offset,
    /// Through which seq the author had seen the client's other tabs.
    pub own: Seq,
    /// When the log took the entry; [`Time::MAX`] while it is pending.
    pub accepted: Time,
}

impl Author {
    /// The author of a logged entry.
    pub fn of(logged: &Logged) -> Self {
        let own = logged.entry.header.own_seen();
        Self { stamp: Arc::new(Stamp::logged(logged)), base: logged.base, own, accepted: logged.accepted }
    }

    /// Whether the author had seen what this stamp wrote when it acted. An entry sees its own earlier ops.
    pub fn saw(&self, other: &Stamp) -> bool {
        if other.offset().is_some_and(|offset| offset < self.base) {
            return true;
        }
        // What an earlier actor of the same database wrote has the numbers that this one goes on from.
        if other.actor.origin() != self.stamp.actor.origin() {
            return false;
        }
        if other.run == self.stamp.run {
            other.n <= self.stamp.n
        } else {
            other.seq().is_some_and(|seq| seq <= self.own)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(actor: u8, run: u8, n: u64, offset: u64) -> Stamp {
        let id = EntryId { actor: ActorId([actor; 16]), seq: Seq(n) };
        Stamp::confirmed(id, WriteId { run: RunId([run; 8]), n }, Time::from_ms(1), Offset(offset))
    }

    #[test]
    fn an_author_saw_the_prefix_its_run_and_the_named_seqs_of_other_tabs() {
        let stamp_of_it = Arc::new(stamp(1, 1, 5, 9));
        let author = Author { stamp: stamp_of_it, base: Offset(3), own: Seq(2), accepted: Time::MAX };
        assert!(author.saw(&stamp(2, 2, 1, 2)), "below its base");
        assert!(!author.saw(&stamp(2, 2, 1, 3)), "at its base");
        assert!(author.saw(&stamp(1, 1, 4, 8)), "its own run");
        assert!(author.saw(&stamp(1, 1, 5, 9)), "itself");
        assert!(author.saw(&stamp(1, 7, 2, 8)), "another tab, named");
        assert!(!author.saw(&stamp(1, 7, 3, 8)), "another tab, not named");
    }

    #[test]
    fn what_is_pending_wins_ties() {
        let write = WriteId { run: RunId([1; 8]), n: 9 };
        let pending = Stamp::pending(ActorId([1; 16]), write, None, Time::from_ms(1), 0);
        assert_eq!(pending.cmp_by_time(&stamp(2, 2, 1, 1_000)), Ordering::Greater);
        assert_eq!(stamp(2, 2, 1, 4).cmp_by_time(&stamp(1, 1, 1, 3)), Ordering::Greater);
    }
}
