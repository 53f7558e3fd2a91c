//! Which entry is being worked on: told to the shell, so that it is known when the engine does not come back from it.
//!
//! In the browser a fault of the engine ends its instance: nothing of it runs any more, and it can tell nothing. So the
//! shell is told before each piece of work what it is, and remembers the last one. What follows from a fault is
//! decided by the next engine ([`crate::engine::Resume`]).
//!
//! Laying own entries, folding and unpacking confirmed ones, and reading snapshots are marked; the rest of the engine's
//! work is nobody's.

use std::fmt::Debug;
use std::sync::Arc;

use crate::codec::tagged;
use crate::id::{LogName, Offset, WriteId};

/// A piece of work that belongs to one entry, or to the bytes that stand for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// An own entry: laid on confirmed state, or packed for the server.
    Own(WriteId),
    /// The confirmed entries from this offset on: unpacked or folded. Of a snapshot of the server: the offset behind it.
    Confirmed(Offset),
    /// The snapshot in the local database.
    Snapshot(()),
}

tagged!(Work {
    Own(WriteId) = 0,
    Confirmed(Offset) = 1,
    Snapshot(()) = 2,
});

/// Who remembers what is worked on. Called often: it must cost next to nothing.
pub trait Witness: Debug + Send + Sync {
    /// From now on this is worked on; none: nothing that belongs to an entry.
    fn works_on(&self, log: &LogName, work: Option<Work>);
}

/// Tells a witness about the work on one log. Without a witness it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Marker(Option<(Arc<dyn Witness>, LogName)>);

impl Marker {
    /// Tells this witness of work on this log.
    pub fn new(witness: Option<Arc<dyn Witness>>, log: &LogName) -> Self {
        Self(witness.map(|witness| (witness, log.clone())))
    }

    /// Work begins on an own entry.
    pub fn own(&self, write: WriteId) {
        self.tell(Some(Work::Own(write)));
    }

    /// Work begins on the confirmed entries from an offset on.
    pub fn confirmed(&self, from: Offset) {
        self.tell(Some(Work::Confirmed(from)));
    }

    /// Work begins on the snapshot of the local database.
    pub fn snapshot(&self) {
        self.tell(Some(Work::Snapshot(())));
    }

    /// What was worked on is done.
    pub fn done(&self) {
        self.tell(None);
    }

    fn tell(&self, work: Option<Work>) {
        if let Some((witness, log)) = &self.0 {
            witness.works_on(log, work);
        }
    }
}
