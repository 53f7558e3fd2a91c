//! The scrub of one log: its entries in order, and everything that must follow from them.

use std::collections::BTreeMap;

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::entry::{Digest, Logged};
use driftlog_core::id::{ActorId, LogName, Offset, Seq};
use driftlog_core::sequencer::AuthorRow;
use driftlog_core::snapshot::decode;
use driftlog_core::state::State;
use driftlog_core::time::Time;

use super::{PROGRESS_ENTRIES, Report};
use crate::store::{LogRow, Placed, Reads, Snapshot, StoreError};

/// Entries read at once.
const READ_ENTRIES: usize = 500;
const READ_BYTES: usize = 4 * 1024 * 1024;

/// What is known of the entries before the next one.
struct Walk<'r> {
    report: &'r mut Report,
    log: LogRow,
    /// The log chain there, unless the entry before is damaged.
    chain: Option<Chain>,
    accepted: Time,
    /// Everything folded, as long as it folds.
    state: Option<State>,
    /// Those that the walk has not come to yet, the newest first.
    snapshots: Vec<Snapshot>,
    /// The first entry that is there.
    first: Offset,
    /// Behind the last entry that was read.
    next: Cursor,
    /// An entry is damaged, or does not fold: from there on nothing is known of the state.
    broken: bool,
    /// Digests of each actor's entries.
    logged: BTreeMap<ActorId, BTreeMap<Seq, Digest>>,
    /// Offsets of entries that re-issue another: actor, seq and digest of that.
    replacing: BTreeMap<Offset, (ActorId, Seq, Digest)>,
}

/// Scrubs a log. `tell` hears how many of its entries were read.
pub(super) fn check(
    reads: Reads<'_>,
    name: &LogName,
    report: &mut Report,
    tell: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    report.logs += 1;
    let Some(log) = reads.log(name)? else { return Err(StoreError::corrupt("logs", "its name leads nowhere")) };
    let ((end, accepted), first, folds) = (reads.end(&log)?, reads.kept(&log)?.first, reads.folds_from(&log)?);
    let mut state = State::new(log.log_id);
    match reads.epochs(&log) {
        Ok(epochs) => {
            check_epochs(&epochs, end.next, name, report);
            state.set_epochs(epochs);
        }
        Err(error) => report.find_error(Some(name), error)?,
    }
    let mut snapshots = Vec::new();
    for snapshot in reads.snapshots(log.key)?.0 {
        match reads.snapshot(snapshot) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => report.find_error(Some(name), error)?,
        }
    }
    if folds > Offset(0) && snapshots.iter().all(|snapshot| snapshot.cursor.next < folds) {
        report.find(Some(name), "snapshots", "none covers the entries that are not kept");
    }
    let mut walk = Walk {
        report,
        chain: Some(first.chain),
        // What the entries before said is only known from a snapshot.
        state: (folds == Offset(0)).then_some(state),
        log,
        accepted: Time::MIN,
        snapshots,
        first: first.next,
        next: first,
        broken: false,
        logged: BTreeMap::new(),
        replacing: BTreeMap::new(),
    };
    walk.entries(reads, end.next, tell)?;
    walk.ends_at(reads, end, accepted)?;
    walk.replacements(reads)?;
    walk.actors(reads)
}

fn check_epochs(epochs: &[(driftlog_core::id::EpochId, Offset)], end: Offset, name: &LogName, report: &mut Report) {
    let ascend = epochs.is_sorted_by_key(|(_, first)| *first);
    if !ascend || epochs.last().is_some_and(|(_, first)| *first > end) {
        report.find(Some(name), "epochs", "epochs do not follow one another up to the end of the log");
    }
}

impl Walk<'_> {
    fn find(&mut self, table: &'static str, what: impl std::fmt::Display) {
        self.report.find(Some(&self.log.name), table, what);
    }

    /// Every entry; a damaged one is told, and the next read for itself.
    fn entries(&mut self, reads: Reads<'_>, end: Offset, tell: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let (mut next, mut told) = (self.first, self.first.0);
        self.compare_snapshots();
        while next < end {
            match reads.entries(&self.log, next, READ_ENTRIES, READ_BYTES) {
                Ok(placed) => {
                    for entry in placed {
                        next = next.next();
                        self.entry(&entry);
                    }
                }
                Err(error) if error.is_corruption() => {
                    next = self.entries_one_by_one(reads, next, end)?;
                }
                Err(error) => return Err(error),
            }
            if next.0 - told >= PROGRESS_ENTRIES || next == end {
                told = next.0;
                tell(told - self.first.0);
            }
        }
        Ok(())
    }

    /// A stretch in which something is damaged; returns its end.
    fn entries_one_by_one(&mut self, reads: Reads<'_>, from: Offset, end: Offset) -> Result<Offset, StoreError> {
        let through = end.min(Offset(from.0 + READ_ENTRIES as u64));
        for offset in from.0..through.0 {
            match reads.entries(&self.log, Offset(offset), 1, READ_BYTES) {
                Ok(placed) => placed.iter().for_each(|entry| self.entry(entry)),
                Err(error) => {
                    self.report.find_error(Some(&self.log.name.clone()), error)?;
                    (self.chain, self.state, self.broken) = (None, None, true);
                }
            }
        }
        Ok(through)
    }

    fn entry(&mut self, (logged, after): &Placed) {
        self.report.entries += 1;
        let Logged { offset, actor, accepted, base, entry, .. } = logged;
        if self.chain.is_some_and(|chain| chain.with_logged(logged) != after.chain) {
            self.find("entries", format!("the chain breaks at offset {offset}"));
        }
        self.chain = Some(after.chain);
        if *accepted < self.accepted {
            self.find("entries", format!("accepted time steps back at offset {offset}"));
        }
        self.accepted = *accepted;
        if base > offset {
            self.find("entries", format!("the base at offset {offset} lies behind it"));
        }
        if self.logged.entry(*actor).or_default().insert(entry.header.seq, entry.pushed_digest()).is_some() {
            self.find("entries", format!("offset {offset} has an entry for the second time"));
        }
        if let Some(target) = &entry.header.replaces {
            self.replacing.insert(*offset, (target.id.actor, target.id.seq, target.digest));
        }
        if let Some(state) = &mut self.state
            && let Err(error) = state.fold(logged)
        {
            self.find("entries", format!("offset {offset} does not fold: {error}"));
            (self.state, self.broken) = (None, true);
        }
        self.next = *after;
        self.compare_snapshots();
    }

    /// Compares the snapshots that end here with the fold. Where entries before are not kept, the fold begins with one.
    fn compare_snapshots(&mut self) {
        while let Some(snapshot) = self.snapshots.pop_if(|snapshot| snapshot.cursor.next == self.next.next) {
            self.compare_snapshot(&snapshot);
        }
    }

    fn compare_snapshot(&mut self, snapshot: &Snapshot) {
        let (decoded, known) = (decode(&snapshot.bytes), self.next);
        let wrong = match (&decoded, &self.state) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(decoded), _) if snapshot.cursor != known || decoded.cursor() != known => {
                Some("its cursor is not that of the log".to_owned())
            }
            (Ok(decoded), Some(state)) if decoded.digest() != state.digest() => {
                Some("it says something else than the entries before it".to_owned())
            }
            _ => None,
        };
        self.report.snapshots += 1;
        match (wrong, decoded) {
            (Some(wrong), _) => self.find("snapshots", wrong),
            (None, Ok(decoded)) if self.state.is_none() && !self.broken => self.state = Some(decoded),
            _ => {}
        }
    }

    /// Compares what was read with what the log's row says of its end.
    fn ends_at(&mut self, reads: Reads<'_>, end: Cursor, accepted: Time) -> Result<(), StoreError> {
        let count = reads.entries_of(self.log.key)?;
        if count != end.next.0 - self.first.0 {
            self.find("entries", format!("{count} entries from {} on; the log ends at {}", self.first, end.next));
        }
        if self.chain.is_some_and(|chain| chain != end.chain) || self.accepted > accepted {
            self.find("logs", "the end of the log is not that of its last entry");
        }
        if let Some(snapshot) = self.snapshots.first().filter(|snapshot| snapshot.cursor.next > end.next) {
            let next = snapshot.cursor.next;
            self.find("snapshots", format!("it ends at {next}, behind the end of the log"));
        }
        Ok(())
    }

    fn replacements(&mut self, reads: Reads<'_>) -> Result<(), StoreError> {
        let mut replacing = std::mem::take(&mut self.replacing);
        for (offset, (actor, seq, digest)) in &replacing {
            if self.logged.get(actor).and_then(|logged| logged.get(seq)) == Some(digest) {
                self.find("entries", format!("offset {offset} replaces an entry that is in the log too"));
            }
        }
        for row in reads.replacements_of(self.log.key)? {
            // What stood before the first kept entry is known from this row alone.
            if row.offset >= self.first && replacing.remove(&row.offset) != Some((row.actor, row.seq, row.digest)) {
                self.find("replacements", format!("offset {} replaces something else", row.offset));
            }
        }
        for offset in replacing.into_keys() {
            self.find("replacements", format!("the replacement at offset {offset} is not noted"));
        }
        Ok(())
    }

    fn actors(&mut self, reads: Reads<'_>) -> Result<(), StoreError> {
        for author in reads.authors_of(self.log.key)? {
            self.report.actors += 1;
            let read = reads.author(author).and_then(|(actor, _)| {
                let row = reads.author_row(self.log.key, author)?;
                Ok((actor, row, reads.letters(self.log.key, author, (Seq(1), Seq(u64::MAX)))?))
            });
            match read {
                Ok((actor, Some(row), letters)) => self.actor(actor, &row, &letters),
                Ok(_) => {}
                Err(error) => self.report.find_error(Some(&self.log.name.clone()), error)?,
            }
        }
        let left = std::mem::take(&mut self.logged);
        for actor in left.into_keys().filter(|actor| *actor != ActorId::LOG) {
            self.find("actors", format!("actor {actor} has entries and no row"));
        }
        Ok(())
    }

    /// Compares an actor's row with its entries: each seq has one fate, and the chain runs over them.
    fn actor(&mut self, actor: ActorId, row: &AuthorRow, letters: &BTreeMap<Seq, Digest>) {
        let logged = self.logged.remove(&actor).unwrap_or_default();
        let both = row.absent().find_map(|(from, through)| logged.range(from..=through).next());
        let expected = row.accepted_between(row.truncated.next(), row.seq);
        // Where entries are damaged, some of an actor's are missing here, and that is told already.
        if let Some((seq, _)) = both {
            self.find("actors", format!("seq {seq} of actor {actor} is in the log and refused"));
        } else if !self.broken && logged.len() as u64 != expected {
            self.find("actors", format!("{} of {expected} entries of actor {actor} are in the log", logged.len()));
        }
        if let Some((seq, _)) = logged.last_key_value().filter(|(seq, _)| **seq > row.seq) {
            self.find("actors", format!("seq {seq} of actor {actor} is in the log and undecided"));
        }
        if let Some(seq) = letters.keys().find(|seq| !row.is_absent(**seq)) {
            self.find("dead_letters", format!("seq {seq} of actor {actor} is a dead letter and was not refused"));
        }
        let points = row.checkpoints().iter().rev().copied().chain([(row.seq, row.chain)]);
        let (mut at, mut chain) = (Seq(0), Chain::actor_start(actor, &self.log.name));
        for (seq, expected) in points {
            // Of what was refused and let go, and of voids, the digest is not known any more.
            let digests = (at.0 + 1..=seq.0).map(|seq| logged.get(&Seq(seq)).or_else(|| letters.get(&Seq(seq))));
            let run = digests
                .zip(at.0 + 1..)
                .try_fold(chain, |chain, (digest, seq)| digest.map(|digest| chain.with_pushed(Seq(seq), *digest)));
            if run.is_some_and(|run| run != expected) {
                self.find("actors", format!("the chain of actor {actor} breaks before seq {seq}"));
            }
            (at, chain) = (seq, expected);
        }
    }
}
