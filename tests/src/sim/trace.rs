//! The trace of one run: the newest lines to read, and one number that stands for all of them.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// Notes something in a world's trace.
macro_rules! note {
    ($world:expr, $($what:tt)+) => {{
        let what = format!($($what)+);
        let at = $world.elapsed();
        $world.trace.note(at, &what);
    }};
}
pub(crate) use note;

/// Lines kept to be read.
const LINES_KEPT: usize = 4_000;

/// What happened, in order.
#[derive(Default)]
pub struct Trace {
    lines: VecDeque<String>,
    count: u64,
    hash: u64,
}

impl Trace {
    /// Notes one thing that happened at a time, in milliseconds since the run began.
    pub fn note(&mut self, at: u64, what: &str) {
        let mut line =
            if self.lines.len() == LINES_KEPT { self.lines.pop_front().unwrap_or_default() } else { String::new() };
        line.clear();
        // Writing to a string does not fail.
        let _ = write!(line, "{:>10}.{:03} {what}", at / 1_000, at % 1_000);
        // FNV-1a: fast, and any difference shows.
        let mut hash = self.hash ^ 0xcbf2_9ce4_8422_2325;
        for byte in line.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash = hash;
        self.count += 1;
        self.lines.push_back(line);
    }

    /// Stands for every line there was: two runs with the same number went the same way.
    pub fn fingerprint(&self) -> (u64, u64) {
        (self.count, self.hash)
    }

    /// The newest lines, oldest first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).map(String::as_str)
    }
}
