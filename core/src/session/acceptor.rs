//! How fast a server takes newcomers in, and when those are told to come again that come too fast.
//!
//! Each newcomer costs a commit, and then whatever it missed. When everybody comes at once (the server was away, a
//! city is back online) the server takes in as many a second as it is set to, and gives each of the others a moment of
//! its own: those come evenly, and nobody has to be told twice as long as nobody else comes in between.
//!
//! ```text
//!  10,000 at once ─► a burst is taken in │ the next at +0.0022 s, the next at +0.0044 s … the last at +20 s
//! ```

use crate::time::WallMs;

/// Promised moments are a little further apart than places come free, so that a late one finds its place.
const PROMISED_PERCENT: u64 = 90;

/// Takes newcomers in at a bounded rate. It needs a few bytes, however many wait.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// What one newcomer takes of the time, in microseconds.
    place_us: u64,
    /// How far ahead places may be taken, in microseconds: the burst.
    ahead_us: u64,
    /// Until when places are taken.
    taken_us: u64,
    /// Until when moments are promised.
    promised_us: u64,
}

/// Come again after at least so many milliseconds, and at most so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComeAgain {
    /// At least.
    pub ms_min: u64,
    /// At most.
    pub ms_max: u64,
}

impl Acceptor {
    /// Takes in so many a second, and up to `burst` at once after a quiet time. Neither can be less than one.
    pub fn new(per_second: u64, burst: u64) -> Self {
        let place_us = (1_000_000 / per_second.max(1)).max(1);
        Self { place_us, ahead_us: place_us.saturating_mul(burst.max(1)), taken_us: 0, promised_us: 0 }
    }

    /// Somebody comes; `now` never steps back.
    ///
    /// # Errors
    /// [`ComeAgain`]: there is no place now; one is kept for the time given.
    pub fn accept(&mut self, now: WallMs) -> Result<(), ComeAgain> {
        let now_us = now.saturating_mul(1_000);
        let taken = self.taken_us.max(now_us);
        if taken + self.place_us <= now_us + self.ahead_us {
            self.taken_us = taken + self.place_us;
            return Ok(());
        }
        self.promised_us = self.promised_us.max(taken) + self.place_us * 100 / PROMISED_PERCENT;
        let ms_min = (self.promised_us - now_us).div_ceil(1_000);
        // A burst's worth of time is what places can be ahead, so that is how inexact a moment may be.
        Err(ComeAgain { ms_min, ms_max: ms_min + (self.ahead_us / 2_000).clamp(1, 1_000) })
    }

    /// How long it takes until so many newcomers are in, in milliseconds: over that many a server that ends spreads them.
    pub fn spread_ms(&self, newcomers: u64) -> u64 {
        newcomers.saturating_mul(self.place_us) / (1_000 * PROMISED_PERCENT / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_in_and_then_one_for_each_place_that_comes_free() {
        let mut acceptor = Acceptor::new(100, 3);
        let taken = |acceptor: &mut Acceptor, now| (0..10).filter(|_| acceptor.accept(now).is_ok()).count();
        assert_eq!(taken(&mut acceptor, 50_000), 3);
        assert_eq!(taken(&mut acceptor, 50_009), 0);
        assert_eq!(taken(&mut acceptor, 50_010), 1);
        assert_eq!(taken(&mut acceptor, 50_030), 2);
        assert_eq!(taken(&mut acceptor, 90_000), 3, "no more than a burst, however long it was quiet");
    }

    #[test]
    fn those_who_come_too_fast_are_given_moments_of_their_own() {
        let mut acceptor = Acceptor::new(100, 1);
        assert_eq!(acceptor.accept(1_000), Ok(()));
        let hints: Vec<_> = (0..1_000).map(|_| acceptor.accept(1_000).expect_err("one at a time")).collect();
        assert!(hints.windows(2).all(|pair| pair[0].ms_min + 11 <= pair[1].ms_min && pair[0].ms_min < pair[0].ms_max));
        assert_eq!(hints[999].ms_min, 11_121, "one place of 10 ms, and 1,000 moments 11.111 ms apart");
        assert!(acceptor.spread_ms(1_000) >= 10_000);
    }
}
