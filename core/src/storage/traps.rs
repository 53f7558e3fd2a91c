//! What the engine did not come back from: counted in the local database, over restarts of engine, tab and browser.
//!
//! One row a log, written only when the engine was begun again after a trap, before anything of that log is read. So a
//! count is at most too low: if the tab ends before it is written, the same work traps again and is counted then.
//!
//! A count belongs to one build of the engine. Another build may come back from what this one does not, and tries.

use serde::{Deserialize, Serialize};

use crate::codec::Format;
use crate::id::{Offset, WriteId};
use crate::limits;
use crate::time::WallMs;
use crate::witness::Work;

/// Traps of one piece of work after which it is not tried again.
pub const TRAPS_MAX: u32 = 3;

/// Pieces of work that one row remembers; the one that trapped longest ago goes first.
const TRAPPED_MAX: usize = 64;

/// The row of one log.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Traps {
    format: Format<1>,
    /// Which build of the engine trapped.
    pub build: String,
    /// The work that trapped, the last one last.
    pub trapped: Vec<Trapped>,
}

/// A piece of work that trapped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trapped {
    /// What was worked on.
    pub work: Work,
    /// How often it trapped.
    pub traps: u32,
    /// What was said of it the last time, for people.
    pub reason: String,
    /// When it trapped last.
    pub at: WallMs,
}

impl Traps {
    /// Counts a trap. What another build counted is forgotten.
    pub fn count(&mut self, build: &str, work: Work, reason: &str, at: WallMs) {
        if self.build != build {
            *self = Self { build: build.to_owned(), ..Self::default() };
        }
        let known = self.trapped.iter().position(|trapped| trapped.work == work);
        let before = known.map_or(0, |known| self.trapped.remove(known).traps);
        let reason = reason.chars().take(limits::REASON_CHARS_MAX).collect();
        self.trapped.push(Trapped { work, traps: before + 1, reason, at });
        if self.trapped.len() > TRAPPED_MAX {
            self.trapped.remove(0);
        }
    }

    /// What this build has given up.
    fn given_up(&self) -> impl Iterator<Item = &Trapped> {
        self.trapped.iter().filter(|trapped| trapped.traps >= TRAPS_MAX)
    }

    /// Own entries that are given up, with the reason.
    pub fn own(&self) -> impl Iterator<Item = (WriteId, &str)> {
        self.given_up().filter_map(|trapped| match trapped.work {
            Work::Own(write) => Some((write, trapped.reason.as_str())),
            _ => None,
        })
    }

    /// The first confirmed entry, at or behind a cursor, that is given up.
    pub fn confirmed(&self, next: Offset) -> Option<(Offset, &str)> {
        let confirmed = self.given_up().filter_map(|trapped| match trapped.work {
            Work::Confirmed(offset) => Some((offset, trapped.reason.as_str())),
            _ => None,
        });
        confirmed.filter(|(offset, _)| *offset >= next).min()
    }

    /// Whether the snapshot of the local database is given up.
    pub fn snapshot(&self) -> bool {
        self.given_up().any(|trapped| trapped.work == Work::Snapshot(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;
    use crate::storage::row;

    const OWN: WriteId = WriteId { run: RunId([1; 8]), n: 7 };

    #[test]
    fn work_is_given_up_at_its_third_trap_and_tried_again_by_another_build() {
        let mut traps = Traps::default();
        for at in 0..2 {
            traps.count("1", Work::Own(OWN), "unreachable", at);
            traps.count("1", Work::Confirmed(Offset(9)), "unreachable", at);
        }
        assert_eq!((traps.own().next(), traps.confirmed(Offset(0))), (None, None));
        traps.count("1", Work::Own(OWN), "stack overflow", 2);
        traps.count("1", Work::Confirmed(Offset(9)), "unreachable", 2);
        let traps: Traps = row::decode(&row::encode(&traps)).expect("whole");
        assert_eq!(traps.own().next(), Some((OWN, "stack overflow")));
        assert_eq!(traps.confirmed(Offset(9)), Some((Offset(9), "unreachable")));
        assert_eq!(traps.confirmed(Offset(10)), None, "a snapshot covers it");
        assert!(!traps.snapshot());
        let mut newer = traps.clone();
        newer.count("2", Work::Snapshot(()), "unreachable", 3);
        assert_eq!((newer.own().next(), newer.trapped.len()), (None, 1));
    }

    #[test]
    fn the_row_is_bounded() {
        let mut traps = Traps::default();
        (0..1_000).for_each(|offset| traps.count("1", Work::Confirmed(Offset(offset)), "unreachable", 0));
        assert_eq!(traps.trapped.len(), TRAPPED_MAX);
    }
}
