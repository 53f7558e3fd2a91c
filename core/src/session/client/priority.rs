//! How much of the way a log gets among the others of its client.
//!
//! A priority is a weight: while several logs have something to send, each gets its share of the bytes, and none waits for
//! all of another. What is small goes at once under any priority.

/// The priority of a log; each step is about eight times the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// What may come last: archives, what is read ahead.
    Low,
    /// What nobody said anything of.
    #[default]
    Normal,
    /// What the user waits for.
    High,
}

impl Priority {
    /// The number on the wire; the weight is one more.
    pub const fn number(self) -> u8 {
        match self {
            Self::Low => 3,
            Self::Normal => 31,
            Self::High => 255,
        }
    }

    /// The priority with such a number, or the next lower one.
    pub const fn from_number(number: u8) -> Self {
        match number {
            255 => Self::High,
            31..=254 => Self::Normal,
            0..=30 => Self::Low,
        }
    }
}
