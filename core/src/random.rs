//! Randomness from a seed that the shell draws: the engine itself asks no one.
//!
//! A hash in counter mode: unguessable if the seed is, and the same seed gives the same numbers in a test.

use crate::entry::{Digest, Salt};

/// A stream of random bytes.
#[derive(Clone, Debug)]
pub struct Random {
    seed: [u8; 32],
    drawn: u64,
}

impl Random {
    /// A stream from 32 random bytes.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next bytes, at most 32.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        self.drawn += 1;
        let block = Digest::of(&[b"driftlog random 1", &self.seed, &self.drawn.to_be_bytes()]).0;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&block[..N]);
        bytes
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(u64::from_be_bytes(self.bytes())) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// The salt of a new entry.
    pub fn salt(&mut self) -> Salt {
        Salt(self.bytes())
    }
}
