//! Tombstones: what a delete that lets updates win leaves of a record, until its grace is over.
//!
//! It holds the record as it was, since an edit that comes late brings all of it back. The grace stands in the delete and
//! runs in accepted time: for an entry that is accepted later than `until` there is no tombstone. Confirmed state takes
//! it away just before it folds the first such entry, so every replica has the same ones at the same cursor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::{Record, RecordKey};
use super::stamp::{Author, Stamp};
use crate::time::Time;

/// What is left of a deleted record.
#[derive(Debug, Clone)]
pub struct Tombstone {
    pub(crate) record: Record,
    /// The deletes; of several, none had seen another.
    pub(crate) deletes: Vec<Arc<Stamp>>,
    pub(crate) until: Time,
}

impl Tombstone {
    /// What a delete leaves.
    pub(super) fn new(record: Record, author: &Author, grace_ms: u64) -> Self {
        let mut tombstone = Self { record, deletes: Vec::new(), until: Time::MIN };
        tombstone.delete(author, grace_ms);
        tombstone
    }

    /// The same with another form of the record.
    pub(super) fn with(&self, record: Record) -> Self {
        Self { record, deletes: self.deletes.clone(), until: self.until }
    }

    /// Notes a delete; the last grace counts.
    pub(super) fn delete(&mut self, author: &Author, grace_ms: u64) {
        let accepted = author.accepted;
        let until = Time::from_parts(accepted.ms().saturating_add(grace_ms), accepted.counter());
        self.until = self.until.max(until);
        self.deletes.push(author.stamp.clone());
    }

    /// Whether the author knew that the record was deleted.
    pub(super) fn was_seen_by(&self, author: &Author) -> bool {
        self.deletes.iter().any(|delete| author.saw(delete))
    }

    /// The record as it was.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The entries that deleted it.
    pub fn deletes(&self) -> &[Arc<Stamp>] {
        &self.deletes
    }

    /// The end of the grace: an entry that is accepted later does not bring the record back.
    pub fn until(&self) -> Time {
        self.until
    }

    /// Every stamp it keeps.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = &Arc<Stamp>> {
        self.record.stamps().chain(&self.deletes)
    }
}

/// The tombstones of a log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tombstones {
    all: BTreeMap<RecordKey, Tombstone>,
    /// The same by the ends of their graces.
    ends: BTreeSet<(Time, RecordKey)>,
}

impl Tombstones {
    pub(crate) fn put(&mut self, key: RecordKey, tombstone: Tombstone) {
        self.ends.insert((tombstone.until, key.clone()));
        self.all.insert(key, tombstone);
    }

    pub(crate) fn take(&mut self, key: &RecordKey) -> Option<Tombstone> {
        let tombstone = self.all.remove(key)?;
        self.ends.remove(&(tombstone.until, key.clone()));
        Some(tombstone)
    }

    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Tombstone> {
        self.all.get(key)
    }

    /// All of them by their records.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&RecordKey, &Tombstone)> + DoubleEndedIterator {
        self.all.iter()
    }

    /// Their records with their keys, to be changed in place.
    pub(super) fn records_mut(&mut self) -> impl Iterator<Item = (&RecordKey, &mut Record)> {
        self.all.iter_mut().map(|(key, tombstone)| (key, &mut tombstone.record))
    }

    /// Takes away those whose grace is over for an entry that is accepted now; their records.
    pub(super) fn pass(&mut self, accepted: Time) -> Vec<RecordKey> {
        let mut passed = Vec::new();
        while self.ends.first().is_some_and(|(until, _)| *until < accepted) {
            let Some((_, key)) = self.ends.pop_first() else { break };
            self.all.remove(&key);
            passed.push(key);
        }
        passed
    }
}
