//! The client's database in memory, for engines that run without a browser.

use std::collections::BTreeMap;

use driftlog_core::engine::CommitFailure;
use driftlog_core::entry::Entry;
use driftlog_core::storage::commit::{Commit, Committed};
use driftlog_core::storage::{Direction, KeyRange, Row, Write, row};

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

/// All rows of one client.
#[derive(Clone, Default)]
pub struct Database {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether the quota is used up.
    pub full: bool,
    /// What fits while it is not.
    pub room: Room,
    /// The next append's answer is lost; whether it was written.
    pub lose_next_answer: Option<bool>,
}

impl Database {
    /// Runs a commit as the shell's store does: all or nothing.
    ///
    /// # Errors
    /// As the store would answer.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, CommitFailure> {
        let reads: Vec<_> = commit.reads().iter().map(|key| self.rows.get(key).cloned()).collect();
        let (writes, committed) = commit.decide(&reads).map_err(CommitFailure::Aborted)?;
        if self.full || !self.room.has_place_for(commit) {
            return Err(CommitFailure::Full("quota".into()));
        }
        let lost = if matches!(commit, Commit::Append(_)) { self.lose_next_answer.take() } else { None };
        if lost == Some(false) {
            return Err(CommitFailure::Unknown("lost".into()));
        }
        for write in writes {
            match write {
                Write::Add(key, value) => assert!(self.rows.insert(key, value).is_none(), "added twice"),
                Write::Put(key, value) => drop(self.rows.insert(key, value)),
                Write::Delete(key) => drop(self.rows.remove(&key)),
                Write::DeleteRange(from, to) => self.rows.retain(|key, _| *key < from || *key >= to),
            }
        }
        if lost == Some(true) { Err(CommitFailure::Unknown("lost".into())) } else { Ok(committed) }
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
        rows
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
    pub fn own_entries(&self) -> Vec<Entry> {
        let own = self.rows.iter().filter(|(key, _)| key[0] == 0x11);
        own.flat_map(|(_, bytes)| row::decode_group(bytes).expect("rows in memory are whole")).collect()
    }

    /// The seqs of every own entry, in key order.
    pub fn own_seqs(&self) -> Vec<u64> {
        self.own_entries().iter().map(|entry| entry.header.seq.0).collect()
    }
}
