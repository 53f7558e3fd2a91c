//! The client's local database: its keys, its rows, and every commit as a pure function.
//!
//! The database is an ordered key-value store with byte keys; shells bring it (IndexedDB, memory). A commit names the
//! keys it must read, is given their values *inside* the transaction, and answers with writes. So all that decides
//! (seqs, fences, cursors) is here, and a shell only moves bytes (docs/log-format.md, "Client database").
//!
//! **Invariant:** rows of entries are added, never rewritten but to take out what must not stay (`purge`). What is accepted or covered is known from small rows.

pub mod commit;
pub mod fold;
pub mod own;
pub mod prune;
pub mod purge;
pub mod rewind;
pub mod row;
pub mod succession;
pub mod traps;

use crate::id::{ActorId, LogName, Name, Offset, RunId, Seq};

/// A key; keys are ordered by their bytes.
pub type Key = Vec<u8>;

/// A key and its value.
pub type Row = (Key, Vec<u8>);

/// Which end of a range is read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// What one part of a read asks for: the rows from `start` (inclusive) to `end` (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key inside.
    pub start: Key,
    /// The first key outside; none: no upper bound.
    pub end: Option<Key>,
    /// At most so many rows.
    pub limit: Option<u32>,
    /// Which rows come first, and which the limit keeps.
    pub direction: Direction,
}

impl KeyRange {
    /// All rows from `start` (inclusive) to `end` (exclusive), ascending.
    pub fn between(start: Key, end: Key) -> Self {
        Self { start, end: Some(end), limit: None, direction: Direction::Forward }
    }

    /// The one row with this key.
    pub fn only(key: Key) -> Self {
        let mut end = key.clone();
        end.push(0);
        Self::between(key, end)
    }

    /// Every row whose key begins so.
    pub fn prefix(prefix: Key) -> Self {
        let end = after_prefix(&prefix);
        Self { start: prefix, end, limit: None, direction: Direction::Forward }
    }

    /// The last row before `end` among those that begin with `prefix`.
    pub fn last_before(prefix: Key, end: Key) -> Self {
        Self { start: prefix, end: Some(end), limit: Some(1), direction: Direction::Backward }
    }
}

fn after_prefix(prefix: &[u8]) -> Option<Key> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Writes a new row; if the key exists, the whole commit fails.
    Add(Key, Vec<u8>),
    /// Writes a row, new or not.
    Put(Key, Vec<u8>),
    /// Deletes a row if it exists.
    Delete(Key),
    /// Deletes all rows from the first key (inclusive) to the second (exclusive).
    DeleteRange(Key, Key),
}

/// How far a commit must have got before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed to the disk, as far as the browser keeps that word: for what cannot be had again.
    Strict,
    /// Handed to the operating system: for what the server has too.
    Relaxed,
}

/// The tables, as the first byte of a key. Numbers are part of the format.
mod table {
    pub(super) const IDENTITY: u8 = 0x01;
    pub(super) const LEADER: u8 = 0x02;
    pub(super) const LEASE: u8 = 0x03;
    pub(super) const NEXT: u8 = 0x10;
    pub(super) const OWN: u8 = 0x11;
    pub(super) const RECEIVED: u8 = 0x12;
    pub(super) const VERDICTS: u8 = 0x13;
    pub(super) const SNAPSHOT: u8 = 0x14;
    pub(super) const DEAD_LETTER: u8 = 0x15;
    pub(super) const RUN: u8 = 0x16;
    pub(super) const VOIDS: u8 = 0x17;
    pub(super) const FOLD: u8 = 0x18;
    pub(super) const FOLD_LETTER: u8 = 0x19;
    pub(super) const TRAPS: u8 = 0x1a;
    pub(super) const PURGED: u8 = 0x1b;
}

/// Key of the identity row.
pub fn identity_key() -> Key {
    vec![table::IDENTITY]
}

/// Key of the leader's epoch.
pub fn leader_key() -> Key {
    vec![table::LEADER]
}

/// Key of the row by which tabs elect their leader where the shell has no locks. Only the shell knows its bytes; what
/// fences a leader is its epoch.
pub fn lease_key() -> Key {
    vec![table::LEASE]
}

fn log_key(table: u8, log: &LogName) -> Key {
    let name = log.as_str().as_bytes();
    let mut key = Vec::with_capacity(name.len() + 40);
    key.push(table);
    key.extend_from_slice(&(name.len() as u16).to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// Key of the row that gives a log's next seq.
pub fn next_key(log: &LogName) -> Key {
    log_key(table::NEXT, log)
}

/// Key of the row that holds what is known of verdicts.
pub fn verdicts_key(log: &LogName) -> Key {
    log_key(table::VERDICTS, log)
}

/// Key of the snapshot row.
pub fn snapshot_key(log: &LogName) -> Key {
    log_key(table::SNAPSHOT, log)
}

/// Key of a group of own entries: the seqs in damaged bytes are known from it.
pub fn own_key(log: &LogName, actor: ActorId, first: Seq) -> Key {
    let mut key = own_prefix(log, actor);
    key.extend_from_slice(&first.0.to_be_bytes());
    key
}

/// What all keys of one actor's own entries begin with.
pub fn own_prefix(log: &LogName, actor: ActorId) -> Key {
    let mut key = log_key(table::OWN, log);
    key.extend_from_slice(&actor.0);
    key
}

/// The first key behind one.
pub fn key_after(key: &Key) -> Key {
    let mut after = key.clone();
    after.push(0);
    after
}

/// Key of the row that says in which group a run's entries from number `n` on are.
pub fn run_key(log: &LogName, run: RunId, n: u64) -> Key {
    let mut key = log_key(table::RUN, log);
    key.extend_from_slice(&run.0);
    key.extend_from_slice(&n.to_be_bytes());
    key
}

/// The last run row before number `n`.
pub fn run_before(log: &LogName, run: RunId, n: u64) -> KeyRange {
    KeyRange::last_before(run_key(log, run, 0), run_key(log, run, n))
}

/// Key of received entries that begin at this offset.
pub fn received_key(log: &LogName, from: Offset) -> Key {
    let mut key = received_prefix(log);
    key.extend_from_slice(&from.0.to_be_bytes());
    key
}

/// What all keys of a log's received entries begin with.
pub fn received_prefix(log: &LogName) -> Key {
    log_key(table::RECEIVED, log)
}

/// Key of a dead letter.
pub fn dead_letter_key(log: &LogName, actor: ActorId, seq: Seq) -> Key {
    let mut key = dead_letter_prefix(log);
    key.extend_from_slice(&actor.0);
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

/// What all keys of a log's dead letters begin with.
pub fn dead_letter_prefix(log: &LogName) -> Key {
    log_key(table::DEAD_LETTER, log)
}

/// Key of the row that lists the seqs given up on this device.
pub fn voids_key(log: &LogName, actor: ActorId) -> Key {
    let mut key = log_key(table::VOIDS, log);
    key.extend_from_slice(&actor.0);
    key
}

/// Key of a fold's checkpoint.
pub fn fold_key(log: &LogName, fold: &Name) -> Key {
    let mut key = log_key(table::FOLD, log);
    key.extend_from_slice(fold.as_str().as_bytes());
    key
}

/// Key of a dead letter of a fold: the entry's offset ends it.
pub fn fold_letter_key(log: &LogName, fold: &Name, offset: Offset) -> Key {
    let mut key = fold_letter_prefix(log, fold);
    key.extend_from_slice(&offset.0.to_be_bytes());
    key
}

/// What all keys of a fold's dead letters begin with.
pub fn fold_letter_prefix(log: &LogName, fold: &Name) -> Key {
    let mut key = log_key(table::FOLD_LETTER, log);
    key.extend_from_slice(&(fold.as_str().len() as u16).to_be_bytes());
    key.extend_from_slice(fold.as_str().as_bytes());
    key
}

/// The fold that the key of a checkpoint is of; none for another key.
pub fn fold_of(log: &LogName, key: &[u8]) -> Option<Name> {
    let name = key.strip_prefix(&log_key(table::FOLD, log)[..])?;
    Name::new(std::str::from_utf8(name).ok()?).ok()
}

/// The fold that the key of a fold's dead letter is of; none for another key.
pub fn fold_of_letter(log: &LogName, key: &[u8]) -> Option<Name> {
    let (length, rest) = key.strip_prefix(&log_key(table::FOLD_LETTER, log)[..])?.split_first_chunk::<2>()?;
    let name = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    Name::new(std::str::from_utf8(name).ok()?).ok()
}

/// All rows of a log's folds, as ranges from a key (inclusive) to another (exclusive).
pub fn folds_of(log: &LogName) -> impl Iterator<Item = (Key, Key)> {
    let prefixes = [log_key(table::FOLD, log), log_key(table::FOLD_LETTER, log)];
    prefixes.into_iter().filter_map(|prefix| after_prefix(&prefix).map(|end| (prefix, end)))
}

/// Key of the row that counts what the engine did not come back from.
pub fn traps_key(log: &LogName) -> Key {
    log_key(table::TRAPS, log)
}

/// Key of the row that says how far the log is purged.
pub fn purged_key(log: &LogName) -> Key {
    log_key(table::PURGED, log)
}

/// All next-seq rows, of all logs.
pub fn all_next() -> KeyRange {
    KeyRange::prefix(vec![table::NEXT])
}

/// All verdict rows, of all logs.
pub fn all_verdicts() -> KeyRange {
    KeyRange::prefix(vec![table::VERDICTS])
}

/// All rows of seqs given up, of all logs and actors.
pub fn all_voids() -> KeyRange {
    KeyRange::prefix(vec![table::VOIDS])
}

/// The log that a per-log key belongs to.
pub fn log_of(key: &[u8]) -> Option<LogName> {
    let (head, rest) = key.split_first_chunk::<3>()?;
    let length = u16::from_be_bytes([head[1], head[2]]) as usize;
    LogName::new(std::str::from_utf8(rest.get(..length)?).ok()?).ok()
}

/// The number that ends a key: the first seq or offset of its row.
pub fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Rows of own entries of every actor of one origin.
pub fn own_of_origin(log: &LogName, actor: ActorId) -> KeyRange {
    let mut prefix = own_prefix(log, actor);
    prefix.truncate(prefix.len() - ActorId::BYTES + ActorId::ORIGIN_BYTES);
    KeyRange::prefix(prefix)
}

/// The author in the key of a row of own entries, or of a dead letter.
pub fn actor_of(key: &[u8]) -> Option<ActorId> {
    let actor = key.get(key.len().checked_sub(24)?..key.len() - 8)?;
    actor.try_into().ok().map(ActorId)
}

/// Rows of own entries that may hold seqs from `first` to `last` (inclusive).
pub fn own_between(log: &LogName, actor: ActorId, first: Seq, last: Seq) -> [KeyRange; 2] {
    let [before, _] = own_from(log, actor, first);
    [before, KeyRange::between(own_key(log, actor, first), own_key(log, actor, last.next()))]
}

/// Rows of own entries that may hold seqs from `from` on: the row before it may reach into it.
pub fn own_from(log: &LogName, actor: ActorId, from: Seq) -> [KeyRange; 2] {
    let prefix = own_prefix(log, actor);
    let start = own_key(log, actor, from);
    let end = after_prefix(&prefix);
    [KeyRange::last_before(prefix, start.clone()), KeyRange { start, end, limit: None, direction: Direction::Forward }]
}

/// Rows of received entries that may hold offsets from `from` on.
pub fn received_from(log: &LogName, from: Offset) -> [KeyRange; 2] {
    let prefix = received_prefix(log);
    let start = received_key(log, from);
    let end = after_prefix(&prefix);
    [KeyRange::last_before(prefix, start.clone()), KeyRange { start, end, limit: None, direction: Direction::Forward }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_log_stand_together_in_seq_order() {
        let (a, b) = (LogName::new("board/1").expect("name"), LogName::new("board/10").expect("name"));
        let actor = ActorId([1; 16]);
        let mut keys: Vec<_> = [9, 1, 256].map(|seq| own_key(&a, actor, Seq(seq))).to_vec();
        keys.push(own_key(&b, actor, Seq(2)));
        keys.sort();
        let order: Vec<_> = keys.iter().map(|key| (log_of(key).expect("log"), number_of(key).expect("seq"))).collect();
        assert_eq!(order, [(a.clone(), 1), (a.clone(), 9), (a, 256), (b, 2)]);
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(after_prefix(&[1, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255]), None);
    }
}
