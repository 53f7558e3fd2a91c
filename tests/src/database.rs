//! The client's database in memory, for engines that run without a browser; it breaks when told to.

use std::cell::Cell;
use std::collections::BTreeMap;

use driftlog_core::engine::CommitFailure;
use driftlog_core::entry::Entry;
use driftlog_core::storage::commit::{Commit, Committed};
use driftlog_core::storage::{Direction, Durability, KeyRange, Row, Write, row};

/// What still fits into the quota.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Room {
    /// Everything.
    #[default]
    Plenty,
    /// Everything but what came from the server.
    NoArrivals,
    /// Everything but entries that came from the server.
    NoReceivedEntries,
}

impl Room {
    fn has_place_for(self, commit: &Commit) -> bool {
        match (self, commit) {
            (Self::NoArrivals, Commit::Receive(_)) => false,
            (Self::NoReceivedEntries, Commit::Receive(receive)) => receive.rows.is_empty(),
            _ => true,
        }
    }
}

/// A key with the value it had before, if it had one.
type Before = (Vec<u8>, Option<Vec<u8>>);

/// All rows of one client.
#[derive(Clone, Default)]
pub struct Database {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What each commit since the last flush replaced, oldest commit first.
    unflushed: Vec<Vec<Before>>,
    /// Whether the quota is used up.
    pub full: bool,
    /// What fits while it is not.
    pub room: Room,
    /// The next append's answer is lost; whether it was written.
    pub lose_next_answer: Option<bool>,
    /// A disk that says of strict commits that they are flushed, and does not flush them.
    pub lies: bool,
    work: Cell<Work>,
}

/// What a database did: counts that do not depend on time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Transactions that wrote.
    pub commits: u64,
    /// Rows that were read.
    pub rows_read: u64,
    /// Bytes of their keys and values.
    pub bytes_read: u64,
    /// Rows that were written or deleted.
    pub rows_written: u64,
    /// Bytes of keys and values that were written.
    pub bytes_written: u64,
}

/// What happens to a commit instead of what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and that is known.
    Failed,
    /// The connection to the database is lost in mid-commit.
    Unknown {
        /// Whether it was written.
        written: bool,
    },
}

impl Database {
    /// Runs a commit as the shell's store does: all or nothing.
    ///
    /// # Errors
    /// As the store would answer.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, CommitFailure> {
        let lost = if matches!(commit, Commit::Append(_)) { self.lose_next_answer.take() } else { None };
        self.commit_with(commit, lost.map(|written| Fault::Unknown { written }))
    }

    /// Runs a commit that a fault may befall.
    ///
    /// # Errors
    /// As the store would answer.
    ///
    /// # Panics
    /// If a row is added that is there already: two tabs gave the same seqs.
    pub fn commit_with(&mut self, commit: &Commit, fault: Option<Fault>) -> Result<Committed, CommitFailure> {
        let reads: Vec<_> = commit.reads().iter().map(|key| self.rows.get(key).cloned()).collect();
        let (writes, committed) = commit.decide(&reads).map_err(CommitFailure::Aborted)?;
        if !writes.is_empty() && (self.full || !self.room.has_place_for(commit)) {
            return Err(CommitFailure::Full("quota".into()));
        }
        match fault {
            Some(Fault::Failed) => return Err(CommitFailure::Failed("i/o error".into())),
            Some(Fault::Unknown { written: false }) => return Err(CommitFailure::Unknown("lost".into())),
            Some(Fault::Unknown { written: true }) | None => self.write(writes),
        }
        if commit.durability() == Durability::Strict && !self.lies {
            self.flush();
        }
        if fault.is_some() { Err(CommitFailure::Unknown("lost".into())) } else { Ok(committed) }
    }

    fn write(&mut self, writes: Vec<Write>) {
        let mut before = Vec::new();
        let work = self.work.get_mut();
        work.commits += 1;
        for write in &writes {
            work.rows_written += 1;
            if let Write::Add(key, value) | Write::Put(key, value) = write {
                work.bytes_written += (key.len() + value.len()) as u64;
            }
        }
        for write in writes {
            match write {
                Write::Add(key, value) => {
                    assert!(!self.rows.contains_key(&key), "added twice");
                    self.rows.insert(key.clone(), value);
                    before.push((key, None));
                }
                Write::Put(key, value) => {
                    let old = self.rows.insert(key.clone(), value);
                    before.push((key, old));
                }
                Write::Delete(key) => {
                    let old = self.rows.remove(&key);
                    before.push((key, old));
                }
                Write::DeleteRange(from, to) => {
                    let keys: Vec<_> = self.rows.range(from..to).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        let old = self.rows.remove(&key);
                        before.push((key, old));
                    }
                }
            }
        }
        self.unflushed.push(before);
    }

    /// Everything written up to now survives a power loss.
    pub fn flush(&mut self) {
        self.unflushed.clear();
    }

    /// Commits that a power loss may take.
    pub fn unflushed(&self) -> usize {
        self.unflushed.len()
    }

    /// The power goes: of the commits that are not flushed, the first `kept` survive.
    pub fn lose_power(&mut self, kept: usize) {
        while self.unflushed.len() > kept {
            for (key, old) in self.unflushed.pop().unwrap_or_default().into_iter().rev() {
                match old {
                    Some(value) => self.rows.insert(key, value),
                    None => self.rows.remove(&key),
                };
            }
        }
        self.flush();
    }

    /// The rows of one range.
    pub fn read(&self, range: &KeyRange) -> Vec<Row> {
        let inside = self
            .rows
            .range(range.start.clone()..)
            .take_while(|(key, _)| range.end.as_ref().is_none_or(|end| *key < end));
        let mut rows: Vec<_> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
        if range.direction == Direction::Backward {
            rows.reverse();
        }
        rows.truncate(range.limit.map_or(usize::MAX, |limit| limit as usize));
        let mut work = self.work.get();
        work.rows_read += rows.len() as u64;
        work.bytes_read += rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        self.work.set(work);
        rows
    }

    /// What it did since this was asked last.
    pub fn take_work(&mut self) -> Work {
        self.work.take()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// Every row, in key order.
    pub fn rows(&self) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.rows.iter()
    }

    /// Flips one bit of a row's value.
    ///
    /// # Panics
    /// There is no such row, or no such bit.
    pub fn flip(&mut self, key: &[u8], bit: usize) {
        self.rows.get_mut(key).expect("a row")[bit / 8] ^= 1 << (bit % 8);
    }

    /// Loses a row.
    pub fn lose(&mut self, key: &[u8]) {
        self.rows.remove(key);
    }

    /// Every own entry of every log, in key order.
    ///
    /// # Panics
    /// If a row does not read.
    pub fn own_entries(&self) -> Vec<Entry> {
        let own = self.rows.iter().filter(|(key, _)| key[0] == 0x11);
        own.flat_map(|(_, bytes)| row::decode_group(bytes).expect("rows in memory are whole")).collect()
    }

    /// The seqs of every own entry, in key order.
    pub fn own_seqs(&self) -> Vec<u64> {
        self.own_entries().iter().map(|entry| entry.header.seq.0).collect()
    }
}
