//! Retention: which entries of a log are kept behind its snapshots.
//!
//! Catching up is a snapshot and what follows it, and an entry of any age merges, so nothing that anybody did needs the
//! entries before a snapshot. They are kept for who replays history (folds, audit), as long as the policy of their log
//! says. Source: docs/log-format.md, "Retention".
//!
//! **Invariant:** an entry goes only when two snapshots that are stored and whole cover it, and not while a snapshot
//! that ends before it is being sent.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftlog_core::id::{ActorId, LogName, Offset};
use driftlog_core::session::server::{Grant, Grants};
use driftlog_core::time::WallMs;

use crate::store::{LogRow, Reads, StoreError};

/// Entries looked at, and let go, in one step.
pub(crate) const STEP_ENTRIES: u64 = 1_000;
/// What is kept where no policy says otherwise.
const KEEP_DEFAULT: Keep = Keep::Age(Duration::from_secs(90 * 24 * 60 * 60));
/// The shortest tail that makes a snapshot due where storage is to follow what lives.
pub(crate) const TIGHT_BYTES: u64 = 32 * 1024;
/// For how long the tail after a snapshot is kept that is being sent, at first.
const PIN_MS: WallMs = 30_000;
/// … and at most: it doubles at each restart.
const PIN_MS_MAX: WallMs = 24 * 60 * 60 * 1_000;
/// Pins at once. Beyond it who comes new has none, and is sent another snapshot if it needs one.
const PINS_MAX: usize = 10_000;

/// How much of a log's history is kept behind its snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Every entry there ever was.
    All,
    /// Entries accepted within this time.
    Age(Duration),
    /// The newest entries of so many bytes together.
    Size(u64),
    /// So many of the newest entries.
    Last(u64),
}

/// The policy of each log: the first pattern that fits a log's name counts. Where none does, 90 days are kept.
#[derive(Debug, Clone, Default)]
pub struct Retention(Vec<(Grants, Keep)>);

/// Write it as `PATTERN=all`, `PATTERN=age:90d`, `PATTERN=size:BYTES` or `PATTERN=last:COUNT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no retention: PATTERN=all, PATTERN=age:90d, PATTERN=size:BYTES or PATTERN=last:COUNT")]
pub struct RetentionError(String);

impl Retention {
    /// Adds a policy for the logs that a pattern names and no pattern before it; `*` stands for any characters.
    #[must_use]
    pub fn with(mut self, pattern: &str, keep: Keep) -> Self {
        let grant = Grant { pattern: pattern.to_owned(), read: true, append: false };
        self.0.push((Grants(vec![grant]), keep));
        self
    }

    /// What is kept of a log.
    pub fn of(&self, log: &LogName) -> Keep {
        let found = self.0.iter().find(|(logs, _)| logs.rights(log).0);
        found.map_or(KEEP_DEFAULT, |(_, keep)| *keep)
    }
}

/// One policy in its written form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRule {
    /// Which logs.
    pub pattern: String,
    /// What is kept.
    pub keep: Keep,
}

impl FromStr for RetentionRule {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let wrong = || RetentionError(text.to_owned());
        let (pattern, policy) = text.rsplit_once('=').ok_or_else(wrong)?;
        let keep = match policy.split_once(':') {
            None if policy == "all" => Keep::All,
            Some(("age", age)) => Keep::Age(crate::config::duration(age).map_err(|_| wrong())?),
            Some(("size", bytes)) => Keep::Size(bytes.parse().map_err(|_| wrong())?),
            Some(("last", count)) => Keep::Last(count.parse().map_err(|_| wrong())?),
            _ => return Err(wrong()),
        };
        match pattern.is_empty() {
            true => Err(wrong()),
            false => Ok(Self { pattern: pattern.to_owned(), keep }),
        }
    }
}

impl Keep {
    /// Whether storage is to stay within a constant factor of what lives: then snapshots follow each other closely.
    pub(crate) fn is_tight(self) -> bool {
        matches!(self, Self::Size(_) | Self::Last(_))
    }
}

/// What retention wants of a log next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// The entries before this may go, or only pages be given back.
    Truncate(Offset),
    /// Much more could go if another snapshot covered it.
    Snapshot,
}

/// What to do next about a log.
pub(crate) fn next(
    reads: Reads<'_>,
    log: &LogRow,
    keep: Keep,
    pins: &Pins,
    (wall, steady): (WallMs, WallMs),
) -> Result<Step, StoreError> {
    let (snapshots, _) = reads.snapshots(log.key)?;
    let [newest, covered] = snapshots.as_slice() else { return Ok(Step::Nothing) };
    let (kept, (end, _)) = (reads.kept(log)?, reads.end(log)?);
    let limit = covered.end.0.min(pins.first(&log.name, steady).map_or(u64::MAX, |first| first.0));
    let (mut below, mut bytes) = (kept.first.next, kept.bytes);
    for oldest in reads.oldest(log, STEP_ENTRIES)? {
        let goes = match keep {
            Keep::All => false,
            Keep::Age(age) => oldest.accepted.ms().saturating_add(age.as_millis() as u64) < wall,
            Keep::Size(max) => bytes > max,
            Keep::Last(count) => oldest.offset.0.saturating_add(count) < end.next.0,
        };
        if !goes || oldest.offset.0 >= limit {
            break;
        }
        (below, bytes) = (oldest.offset.next(), bytes.saturating_sub(oldest.bytes));
    }
    if below > kept.first.next {
        // Both are read whole: what is about to go can be had from nowhere else.
        crate::snapshot::decoded(reads, log, *newest)?;
        crate::snapshot::decoded(reads, log, *covered)?;
        return Ok(Step::Truncate(below));
    }
    if reads.free_pages()? > 0 {
        // Nothing goes, and with that the next pages that are free are given back.
        return Ok(Step::Truncate(below));
    }
    // What came while the newest was made is covered by it alone; when nobody writes any more, nobody asks for the next.
    let excess = match keep {
        Keep::Size(max) => bytes.saturating_sub(max),
        Keep::Last(count) => {
            let entries = end.next.0 - below.0;
            bytes / entries.max(1) * entries.saturating_sub(count)
        }
        Keep::All | Keep::Age(_) => 0,
    };
    let wanted = newest.end > covered.end && covered.end == below;
    if wanted && excess > TIGHT_BYTES.max(reads.snapshot_bytes(*newest)? / 2) {
        return Ok(Step::Snapshot);
    }
    Ok(Step::Nothing)
}

/// Snapshots that are being sent: the tail after each is kept until its reader stands behind it, or its time is over.
#[derive(Default)]
pub(crate) struct Pins(Mutex<BTreeMap<(LogName, ActorId), Pin>>);

#[derive(Clone, Copy)]
struct Pin {
    end: Offset,
    until: WallMs,
    granted: WallMs,
}

impl Pins {
    /// A reader is about to be sent the snapshot that ends here. When it needs one again before it stood behind the
    /// last, the time was too short, and it gets twice as much.
    pub(crate) fn set(&self, log: &LogName, reader: ActorId, end: Offset, now: WallMs) {
        let mut pins = self.lock();
        let key = (log.clone(), reader);
        let granted = pins.get(&key).map_or(PIN_MS, |pin| (pin.granted * 2).min(PIN_MS_MAX));
        if pins.len() >= PINS_MAX && !pins.contains_key(&key) {
            pins.retain(|_, pin| pin.until.saturating_add(pin.granted) > now);
            if pins.len() >= PINS_MAX {
                return;
            }
        }
        pins.insert(key, Pin { end, until: now.saturating_add(granted), granted });
    }

    /// A reader is at this offset: what it was sent is behind it.
    pub(crate) fn release(&self, log: &LogName, reader: ActorId, at: Offset) {
        let (mut pins, key) = (self.lock(), (log.clone(), reader));
        if pins.get(&key).is_some_and(|pin| pin.end <= at) {
            pins.remove(&key);
        }
    }

    /// The first offset of a log that is still wanted by a reader of a snapshot.
    fn first(&self, log: &LogName, now: WallMs) -> Option<Offset> {
        let pins = self.lock();
        let of_log = pins.range((log.clone(), ActorId([0; 16]))..=(log.clone(), ActorId([0xff; 16])));
        of_log.filter(|(_, pin)| pin.until > now).map(|(_, pin)| pin.end).min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(LogName, ActorId), Pin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> LogName {
        LogName::new(name).expect("a name")
    }

    #[test]
    fn the_first_pattern_that_fits_counts_and_the_default_is_90_days() {
        let retention = Retention::default().with("board/1", Keep::All).with("board/*", Keep::Last(10));
        assert_eq!(retention.of(&log("board/1")), Keep::All);
        assert_eq!(retention.of(&log("board/2")), Keep::Last(10));
        assert_eq!(retention.of(&log("chat")), Keep::Age(Duration::from_secs(7_776_000)));
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for (text, keep) in [
            ("*=all", Some(Keep::All)),
            ("board/*=age:2h", Some(Keep::Age(Duration::from_secs(7_200)))),
            ("a=b=size:10", Some(Keep::Size(10))),
            ("*=last:0", Some(Keep::Last(0))),
            ("last:0", None),
            ("*=age", None),
            ("=all", None),
            ("*=last:-1", None),
        ] {
            assert_eq!(text.parse::<RetentionRule>().ok().map(|rule| rule.keep), keep, "{text}");
        }
    }

    #[test]
    fn a_pin_ends_when_its_reader_is_behind_it_or_its_time_is_over_and_doubles_at_each_restart() {
        let (pins, name, reader) = (Pins::default(), log("board/1"), ActorId([7; 16]));
        pins.set(&name, reader, Offset(10), 0);
        assert_eq!(pins.first(&name, PIN_MS - 1), Some(Offset(10)));
        assert_eq!(pins.first(&log("board/2"), 0), None);
        assert_eq!(pins.first(&name, PIN_MS), None, "its time is over");
        pins.set(&name, reader, Offset(20), PIN_MS);
        assert_eq!(pins.first(&name, 3 * PIN_MS - 1), Some(Offset(20)), "twice the time");
        pins.set(&name, ActorId([8; 16]), Offset(15), PIN_MS);
        assert_eq!(pins.first(&name, PIN_MS), Some(Offset(15)), "the first of them");
        pins.release(&name, reader, Offset(19));
        pins.release(&name, ActorId([8; 16]), Offset(15));
        assert_eq!(pins.first(&name, PIN_MS), Some(Offset(20)));
        pins.release(&name, reader, Offset(20));
        assert_eq!(pins.first(&name, PIN_MS), None);
    }
}
