//! The locks that SQLite takes on a file and on the shared index of its write-ahead log, among the handles of one
//! process. Source: sqlite3.h, "File Locking Levels" and "Flags for the xShmLock VFS method".

use std::collections::BTreeMap;

/// An open file, as a lock's holder.
pub(super) type Holder = u64;

/// How many locks the shared index has.
pub(super) const INDEX_LOCKS: usize = 8;

/// What a handle holds of a file, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

/// The locks of one file.
#[derive(Debug, Default)]
pub(super) struct Locks {
    levels: BTreeMap<Holder, Level>,
    /// Of each lock of the index: who shares it, and who has it alone.
    shared: [std::collections::BTreeSet<Holder>; INDEX_LOCKS],
    exclusive: [Option<Holder>; INDEX_LOCKS],
}

impl Locks {
    /// Raises a holder's level; whether it got it.
    pub(super) fn raise(&mut self, holder: Holder, level: Level) -> bool {
        let others = self.levels.iter().filter(|(other, _)| **other != holder).map(|(_, level)| *level);
        let others = others.max().unwrap_or(Level::None);
        let got = match level {
            Level::None => true,
            Level::Shared => others < Level::Pending,
            Level::Reserved | Level::Pending => others < Level::Reserved,
            Level::Exclusive if others == Level::Shared => {
                // It waits for readers to go; no new ones come.
                self.levels.insert(holder, Level::Pending);
                false
            }
            Level::Exclusive => others == Level::None,
        };
        if got && self.level(holder) < level {
            self.levels.insert(holder, level);
        }
        got
    }

    /// Lowers a holder's level.
    pub(super) fn lower(&mut self, holder: Holder, level: Level) {
        if self.level(holder) > level {
            self.levels.insert(holder, level);
        }
    }

    /// Whether somebody is about to write.
    pub(super) fn is_reserved(&self) -> bool {
        self.levels.values().any(|level| *level >= Level::Reserved)
    }

    fn level(&self, holder: Holder) -> Level {
        self.levels.get(&holder).copied().unwrap_or(Level::None)
    }

    /// Shares locks of the index; whether it got them.
    pub(super) fn share_index(&mut self, holder: Holder, locks: std::ops::Range<usize>) -> bool {
        let free = self.exclusive[locks.clone()].iter().all(|other| other.is_none_or(|other| other == holder));
        if free {
            self.shared[locks].iter_mut().for_each(|shared| {
                shared.insert(holder);
            });
        }
        free
    }

    /// Takes locks of the index alone; whether it got them.
    pub(super) fn take_index(&mut self, holder: Holder, locks: std::ops::Range<usize>) -> bool {
        let free = locks.clone().all(|lock| {
            self.exclusive[lock].is_none_or(|other| other == holder)
                && self.shared[lock].iter().all(|other| *other == holder)
        });
        if free {
            self.exclusive[locks].fill(Some(holder));
        }
        free
    }

    /// Gives locks of the index back.
    pub(super) fn release_index(&mut self, holder: Holder, locks: std::ops::Range<usize>) {
        for lock in locks {
            self.shared[lock].remove(&holder);
            if self.exclusive[lock] == Some(holder) {
                self.exclusive[lock] = None;
            }
        }
    }

    /// A handle is closed.
    pub(super) fn forget(&mut self, holder: Holder) {
        self.levels.remove(&holder);
        self.release_index(holder, 0..INDEX_LOCKS);
    }
}
