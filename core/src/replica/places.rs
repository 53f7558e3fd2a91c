//! Where own accepted entries stand in the log, as far as it was told since the last snapshot.

use std::collections::BTreeMap;

use crate::id::{Offset, Seq};
use crate::protocol::frame::AckRange;
use crate::time::{Time, WallMs};

/// Stretches of consecutive seqs at consecutive offsets that the server took at one time, by first seq.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<Seq, Stretch>);

#[derive(Debug, Clone, Copy)]
struct Stretch {
    count: u64,
    offset: Offset,
    accepted: Time,
}

impl Places {
    /// Notes one stretch. What is known of its seqs stays as it is: a place never changes.
    pub(super) fn note(&mut self, range: &AckRange) {
        for at in 0..u64::from(range.count) {
            self.note_one(Seq(range.seq.0 + at), Offset(range.offset.0 + at), range.accepted);
        }
    }

    pub(super) fn note_one(&mut self, seq: Seq, offset: Offset, accepted: Time) {
        if let Some((first, stretch)) = self.0.range_mut(..=seq).next_back() {
            let at = seq.0 - first.0;
            if at < stretch.count {
                return;
            }
            if at == stretch.count && stretch.offset.0 + at == offset.0 && stretch.accepted == accepted {
                stretch.count += 1;
                return;
            }
        }
        self.0.insert(seq, Stretch { count: 1, offset, accepted });
    }

    /// The offset of an entry, and when the server took it.
    pub(super) fn of(&self, seq: Seq) -> Option<(Offset, WallMs)> {
        let (first, stretch) = self.0.range(..=seq).next_back()?;
        let at = seq.0 - first.0;
        (at < stretch.count).then(|| (Offset(stretch.offset.0 + at), stretch.accepted.ms()))
    }

    /// Forgets what a snapshot covers: the rows that say it go too.
    pub(super) fn forget_before(&mut self, end: Offset) {
        self.0.retain(|_, stretch| stretch.offset.0 + stretch.count > end.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_stretch_and_every_place_is_found() {
        let mut places = Places::default();
        let time = Time::from_ms(7);
        places.note(&AckRange { seq: Seq(3), offset: Offset(10), count: 1_000, accepted: time });
        places.note_one(Seq(4), Offset(99), time);
        places.note_one(Seq(1_003), Offset(1_010), time);
        places.note_one(Seq(1_004), Offset(2_000), time);
        assert_eq!(places.0.len(), 2);
        let found = [2, 3, 4, 1_003, 1_004, 1_005].map(|seq| places.of(Seq(seq)).map(|(offset, _)| offset.0));
        assert_eq!(found, [None, Some(10), Some(11), Some(1_010), Some(2_000), None]);
        places.forget_before(Offset(1_500));
        assert_eq!((places.of(Seq(3)), places.of(Seq(1_004))), (None, Some((Offset(2_000), 7))));
    }
}
