//! How long to wait before the next attempt: exponential with full jitter, so that clients do not come back in step.
//!
//! Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter needs the fewest calls.

use crate::random::Random;

/// First ceiling of the wait, in milliseconds.
pub const BACKOFF_MS_FIRST: u64 = 500;
/// Highest ceiling of the wait, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 30_000;

/// Counts failures and draws waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure, in milliseconds: anything from 0 to the ceiling, which doubles each time.
    pub fn fail(&mut self, random: &mut Random) -> u64 {
        let ceiling = BACKOFF_MS_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        random.below(ceiling + 1)
    }

    /// Starts anew after a session that stood.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_spread_and_stay_bounded() {
        let mut random = Random::new([7; 32]);
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..200).map(|_| backoff.fail(&mut random)).collect();
        assert!(waits[0] <= BACKOFF_MS_FIRST && waits.iter().all(|wait| *wait <= BACKOFF_MS_MAX));
        assert!(waits[20..].iter().any(|wait| *wait < 5_000), "jitter reaches down");
        assert!(waits[20..].iter().any(|wait| *wait > 25_000), "and up");
        backoff.succeed();
        assert!(backoff.fail(&mut random) <= BACKOFF_MS_FIRST);
    }
}
