//! What the server asks of the system it runs on: the time, and random bytes. Nothing else here reads a clock or draws
//! entropy, so a server can also be run on a time and a seed that are given ([`crate::stepped`]).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use driftlog_core::time::WallMs;

/// The time, and random bytes.
pub(crate) trait Environment: Send + Sync {
    /// Wall-clock milliseconds since 1970, for the log; they may jump.
    fn now(&self) -> WallMs;

    /// Milliseconds since 1970 that never step back, for deadlines.
    fn steady(&self) -> WallMs;

    /// Random bytes that nobody can guess.
    fn random(&self) -> [u8; 32];
}

/// Random bytes of any length up to 32.
pub(crate) fn entropy<const N: usize>(environment: &dyn Environment) -> [u8; N] {
    const { assert!(N <= 32) };
    let mut bytes = [0; N];
    bytes.copy_from_slice(&environment.random()[..N]);
    bytes
}

/// The operating system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System {
    started: Instant,
    started_ms: WallMs,
}

impl System {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), started_ms: wall() }
    }
}

impl Environment for System {
    fn now(&self) -> WallMs {
        wall()
    }

    /// The wall clock at the start and the time since.
    fn steady(&self) -> WallMs {
        self.started_ms + self.started.elapsed().as_millis() as u64
    }

    fn random(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // Without entropy there are no ids: nothing sensible can be done but to end.
        getrandom::fill(&mut bytes).expect("the system gives random bytes");
        bytes
    }
}

fn wall() -> WallMs {
    // A clock before 1970 reads as 1970: accepted time never decreases anyway.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
