//! The one place of the server that reads the clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use driftlog_core::time::WallMs;

/// Wall-clock time for the log, and a steady time for deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    started_ms: WallMs,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), started_ms: wall() }
    }

    /// Milliseconds since 1970, as the system says at this moment.
    pub(crate) fn now(&self) -> WallMs {
        wall()
    }

    /// Milliseconds since 1970 that never step back: the wall clock at the start and the time since.
    pub(crate) fn steady(&self) -> WallMs {
        self.started_ms + self.started.elapsed().as_millis() as u64
    }
}

fn wall() -> WallMs {
    // A clock before 1970 reads as 1970: accepted time never decreases anyway.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
