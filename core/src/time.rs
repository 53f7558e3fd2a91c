//! Time as the log knows it: a hybrid logical clock in one integer.
//!
//! `Time` is milliseconds since 1970 in the upper 48 bits and a counter in the lower 16. Nothing here reads a clock:
//! `now` is always an argument. A clock that is wrong by d misorders offline writes against unseen ones by at most d.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Wall-clock milliseconds since 1970, as a shell read them.
pub type WallMs = u64;

/// A point of hybrid logical time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Before everything.
    pub const MIN: Self = Self(0);
    /// After everything.
    pub const MAX: Self = Self(u64::MAX);

    /// The first instant of a wall-clock millisecond.
    pub const fn from_ms(ms: WallMs) -> Self {
        const MS_MAX: u64 = u64::MAX >> 16;
        Self((if ms > MS_MAX { MS_MAX } else { ms }) << 16)
    }

    /// Builds from both parts.
    pub const fn from_parts(ms: WallMs, counter: u16) -> Self {
        Self(Self::from_ms(ms).0 | counter as u64)
    }

    /// Milliseconds since 1970.
    pub const fn ms(self) -> WallMs {
        self.0 >> 16
    }

    /// The counter within the millisecond.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.counter())
    }
}

/// The clock of one author: each tick is later than all it has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Time,
}

impl Clock {
    /// A clock that starts after `last`.
    pub const fn after(last: Time) -> Self {
        Self { last }
    }

    /// The time of a new entry: now, or just after the latest seen if the wall clock is behind it.
    pub fn tick(&mut self, now: WallMs) -> Time {
        self.last = Time::from_ms(now).max(Time(self.last.0.saturating_add(1)));
        self.last
    }

    /// Takes note of an effective time. Never call it with an entry's own time: a clock a year ahead would spread.
    pub fn observe(&mut self, effective: Time) {
        self.last = self.last.max(effective);
    }

    /// The latest time given or seen.
    pub const fn last(&self) -> Time {
        self.last
    }
}

/// Accepted time: the server's clock, but never before the last accepted in that log.
pub fn accepted(now: WallMs, last: Time) -> Time {
    Time::from_ms(now).max(last)
}

/// Effective time: an entry counts from when its author says, but not from the future.
pub fn effective(entry: Time, accepted: Time) -> Time {
    entry.min(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_what_was_seen_even_if_the_wall_clock_steps_back() {
        let mut clock = Clock::default();
        let first = clock.tick(1_000);
        clock.observe(Time::from_ms(5_000));
        let second = clock.tick(900);
        assert!(second > Time::from_ms(5_000) && second > first);
        assert_eq!(clock.tick(9_000), Time::from_ms(9_000));
    }

    #[test]
    fn a_future_clock_wins_only_up_to_now() {
        let now = accepted(1_000, Time::MIN);
        assert_eq!(effective(Time::from_ms(31_536_001_000), now), now);
        assert_eq!(accepted(500, now), now, "accepted time never decreases");
    }
}
