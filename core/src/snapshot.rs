//! Snapshots: the bytes of a confirmed state, and back.
//!
//! One msgpack array, format version first, and behind it the SHA-256 of it all (docs/log-format.md, "Snapshot").
//! Actors, runs and names stand in tables; stamps, which most of a state consists of, once each in columns of
//! differences, ordered by offset. `encode(decode(bytes))` gives the same bytes. Damaged bytes are a typed error, and
//! decoding them needs no more memory than a small multiple of their length.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chain::Cursor;
use crate::codec::{self, DecodeError, Format};
use crate::entry::Digest;
use crate::id::{ActorId, EntryId, EpochId, LogId, Name, Offset, RecordId, RunId, Seq, UserId, WriteId};
use crate::limits;
use crate::op::{Edit, Erase};
use crate::state::text::OldRoot;
use crate::state::{
    Collection, Elements, Erasure, Field, Folded, Living, Record, RecordKey, Stamp, State, Text, Tombstone,
};
use crate::time::Time;
use crate::value::Value;

const DIGEST_BYTES: usize = 32;

/// The bytes are not a snapshot that this build reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A bit is wrong, or the end is missing: fetch it again.
    #[error("the digest of {bytes} bytes does not match")]
    Damaged {
        /// Bytes given.
        bytes: usize,
    },
    /// Written by something else, or by a later version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// An index points behind its table.
    #[error("index {index} points behind a table of {length}")]
    Index {
        /// The index found.
        index: u32,
        /// Length of the table.
        length: usize,
    },
    /// The columns of the stamps have unlike lengths, or a difference leads out of its range.
    #[error("stamp {0} does not follow from the one before")]
    Stamp(usize),
    /// Keys do not ascend, or a bound of the state is broken.
    #[error("{0} out of order or out of bounds")]
    Order(&'static str),
}

/// Whether bytes are as they were encoded, by the digest at their end; much cheaper than to decode them.
pub fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<DIGEST_BYTES>().is_some_and(|(content, digest)| Digest::of(&[content]).0 == *digest)
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    format: Format<1>,
    log: LogId,
    cursor: Cursor,
    epochs: Vec<(EpochId, Offset)>,
    accepted_last: Time,
    effective_max: Time,
    actors: Vec<(ActorId, UserId, Seq)>,
    runs: Vec<RunId>,
    names: Vec<Name>,
    stamps: Columns,
    collections: Vec<(u32, Vec<StoredRecord<'a>>)>,
    erased: Vec<(Offset, Cow<'a, Erase>)>,
    tombstones: Vec<StoredTombstone<'a>>,
}

/// Stamps by offset. `seq` and `n` are differences to the stamp before of the same actor or run.
#[derive(Default, Serialize, Deserialize)]
struct Columns {
    offset: Vec<u64>,
    actor: Vec<u32>,
    seq: Vec<i64>,
    run: Vec<u32>,
    n: Vec<i64>,
    ms: Vec<i64>,
    counter: Vec<u16>,
}

#[derive(Serialize, Deserialize)]
struct StoredRecord<'a> {
    id: RecordId,
    inserts: Vec<u32>,
    created: u32,
    edits: Vec<u32>,
    fields: Vec<StoredField<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredTombstone<'a> {
    collection: u32,
    record: StoredRecord<'a>,
    deletes: Vec<u32>,
    until: Time,
}

#[derive(Serialize, Deserialize)]
struct StoredField<'a> {
    name: u32,
    register: Vec<(Cow<'a, Value>, u32)>,
    counter: Option<i64>,
    set: Option<Vec<(Cow<'a, Value>, Vec<u32>)>>,
    text: Option<StoredText<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredText<'a> {
    root: u64,
    begun: u64,
    base: Option<Cow<'a, serde_bytes::Bytes>>,
    folded: u64,
    edits: Vec<Cow<'a, Edit>>,
    shown: Option<Cow<'a, str>>,
    initials: Vec<Digest>,
    old: Vec<StoredRoot<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredRoot<'a> {
    root: u64,
    next: u64,
    base: Option<Cow<'a, serde_bytes::Bytes>>,
    edits: Vec<Cow<'a, Edit>>,
    until: Time,
    late: Vec<Cow<'a, Edit>>,
}

/// The bytes of a state. Texts with many edits are compacted first, which changes nothing that the state says.
pub fn encode(state: &mut State) -> Vec<u8> {
    // A text that does not open stays as it is; whoever reads it is told.
    let _ = state.compact();
    let state = &*state;
    let mut tables = Tables::of(state);
    let collections = state.collections.iter().map(|(name, records)| {
        let name = tables.name(name);
        (name, records.iter().map(|(id, record)| tables.record(id, record)).collect())
    });
    let collections = collections.collect();
    let tombstones = state.tombstones.iter().map(|(key, tombstone)| tables.tombstone(key, tombstone)).collect();
    let stored = Stored {
        format: Format,
        log: state.log,
        cursor: state.cursor,
        epochs: state.epochs.clone(),
        accepted_last: state.accepted_last,
        effective_max: state.effective_max,
        actors: state.actors.iter().map(|(actor, folded)| (*actor, folded.user.clone(), folded.seq)).collect(),
        runs: tables.runs,
        names: tables.names,
        stamps: tables.columns,
        collections,
        erased: state.erasures.iter().map(|erasure| (erasure.offset, Cow::Borrowed(&erasure.what))).collect(),
        tombstones,
    };
    let mut bytes = codec::to_bytes(&stored);
    let digest = Digest::of(&[&bytes]);
    bytes.extend_from_slice(&digest.0);
    bytes
}

/// The state whose bytes these are.
///
/// # Errors
/// [`SnapshotError`]: fetch it again, or fold the log.
pub fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let damaged = SnapshotError::Damaged { bytes: bytes.len() };
    let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(damaged.clone())?;
    if Digest::of(&[content]).0 != *digest {
        return Err(damaged);
    }
    let stored: Stored<'_> = codec::from_bytes(content)?;
    let mut state = State::new(stored.log);
    state.cursor = stored.cursor;
    state.epochs = stored.epochs;
    state.accepted_last = stored.accepted_last;
    state.effective_max = stored.effective_max;
    let actors: Vec<ActorId> = stored.actors.iter().map(|(actor, ..)| *actor).collect();
    ascending(actors.iter(), "actors")?;
    let stamps = stored.stamps.read(&actors, &stored.runs, stored.cursor.next)?;
    let reader = Reader { names: &stored.names, stamps: &stamps };
    for (name, records) in stored.collections {
        ascending(records.iter().map(|record| &record.id), "records")?;
        let records = records.into_iter().map(|record| reader.record(record));
        let records = records.collect::<Result<Collection, _>>()?;
        let name = entry_of(reader.names, name)?.clone();
        if records.is_empty() || state.collections.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(SnapshotError::Order("collections"));
        }
        state.collections.insert(name, records);
    }
    for stored in stored.tombstones {
        let (key, tombstone) = reader.tombstone(stored)?;
        let last = state.tombstones.iter().next_back().is_some_and(|(last, _)| *last >= key);
        if last || state.record(&key.collection, &key.record).is_some() {
            return Err(SnapshotError::Order("tombstones"));
        }
        state.tombstones.put(key, tombstone);
    }
    let erasures = stored.erased.into_iter().map(|(offset, what)| Erasure { offset, what: what.into_owned() });
    state.erasures = erasures.collect();
    ascending(state.erasures.iter().map(|erasure| &erasure.offset), "erasures")?;
    state.actors = stored.actors.into_iter().map(|(actor, user, seq)| (actor, Folded { seq, user })).collect();
    Ok(state)
}

/// What encoding writes once and refers to by index.
struct Tables {
    runs: Vec<RunId>,
    names: Vec<Name>,
    names_known: BTreeMap<Name, u32>,
    stamps: BTreeMap<Offset, u32>,
    columns: Columns,
}

impl Tables {
    fn of(state: &State) -> Self {
        let records = state.collections.values().flat_map(BTreeMap::values).flat_map(Record::stamps);
        let deleted = state.tombstones.iter().flat_map(|(_, tombstone)| tombstone.stamps());
        let stamps: BTreeMap<Offset, &Stamp> =
            records.chain(deleted).filter_map(|stamp| Some((stamp.offset()?, &**stamp))).collect();
        let actors: BTreeMap<ActorId, u32> = state.actors.keys().copied().zip(0..).collect();
        let mut runs: BTreeMap<RunId, u32> = BTreeMap::new();
        let mut tables = Self {
            runs: Vec::new(),
            names: Vec::new(),
            names_known: BTreeMap::new(),
            stamps: stamps.keys().copied().zip(0..).collect(),
            columns: Columns::default(),
        };
        let mut memory = Memory::default();
        for (offset, stamp) in stamps {
            let run = *runs.entry(stamp.write().run).or_insert_with(|| {
                tables.runs.push(stamp.write().run);
                tables.runs.len() as u32 - 1
            });
            // Every stamp is of a folded entry, whose actor is therefore known.
            let actor = actors.get(&stamp.actor()).copied().unwrap_or_default();
            tables.columns.push(&mut memory, offset, stamp, actor, run);
        }
        tables
    }

    fn name(&mut self, name: &Name) -> u32 {
        if let Some(index) = self.names_known.get(name) {
            return *index;
        }
        let index = self.names.len() as u32;
        self.names.push(name.clone());
        self.names_known.insert(name.clone(), index);
        index
    }

    fn stamp(&self, stamp: &Stamp) -> u32 {
        stamp.offset().and_then(|offset| self.stamps.get(&offset).copied()).unwrap_or_default()
    }

    fn stamps(&self, stamps: &[Arc<Stamp>]) -> Vec<u32> {
        stamps.iter().map(|stamp| self.stamp(stamp)).collect()
    }

    fn record<'a>(&mut self, id: &RecordId, record: &'a Record) -> StoredRecord<'a> {
        StoredRecord {
            id: id.clone(),
            inserts: self.stamps(&record.inserts),
            created: self.stamp(&record.created),
            edits: self.stamps(&record.edits),
            fields: record.fields.iter().map(|(name, field)| self.field(name, field)).collect(),
        }
    }

    fn tombstone<'a>(&mut self, key: &RecordKey, tombstone: &'a Tombstone) -> StoredTombstone<'a> {
        StoredTombstone {
            collection: self.name(&key.collection),
            record: self.record(&key.record, &tombstone.record),
            deletes: self.stamps(&tombstone.deletes),
            until: tombstone.until,
        }
    }

    fn field<'a>(&mut self, name: &Name, field: &'a Field) -> StoredField<'a> {
        let name = self.name(name);
        let elements = |set: &'a Elements| {
            let elements = set.iter().map(|(element, adds)| (Cow::Borrowed(element), self.stamps(adds)));
            elements.collect()
        };
        StoredField {
            name,
            register: field.register.iter().map(|it| (Cow::Borrowed(&it.value), self.stamp(&it.stamp))).collect(),
            counter: field.counter,
            set: field.set.as_deref().map(elements),
            text: field.text.as_deref().map(stored_text),
        }
    }
}

fn stored_text(text: &Text) -> StoredText<'_> {
    StoredText {
        root: text.root,
        begun: text.begun,
        base: stored_base(&text.base),
        folded: text.folded,
        edits: stored_edits(&text.edits),
        shown: text.shown.as_deref().map(Cow::Borrowed),
        initials: text.initials.iter().copied().collect(),
        old: text.old.iter().map(|old| stored_root(old)).collect(),
    }
}

fn stored_root(old: &OldRoot) -> StoredRoot<'_> {
    let OldRoot { root, next, until, .. } = *old;
    StoredRoot {
        root,
        next,
        base: stored_base(&old.base),
        edits: stored_edits(&old.edits),
        until,
        late: stored_edits(&old.late),
    }
}

fn stored_base(base: &Option<Arc<[u8]>>) -> Option<Cow<'_, serde_bytes::Bytes>> {
    base.as_deref().map(|base| Cow::Borrowed(serde_bytes::Bytes::new(base)))
}

fn stored_edits(edits: &[Arc<Edit>]) -> Vec<Cow<'_, Edit>> {
    edits.iter().map(|edit| Cow::Borrowed(&**edit)).collect()
}

fn text(stored: StoredText<'_>) -> Result<Box<Text>, SnapshotError> {
    ascending(stored.initials.iter(), "first contents")?;
    let base = |base: Option<Cow<'_, serde_bytes::Bytes>>| base.map(|base| Arc::from(&base[..]));
    let edits = |edits: Vec<Cow<'_, Edit>>| edits.into_iter().map(|edit| Arc::new(edit.into_owned())).collect();
    let old = stored.old.into_iter().map(|old| {
        let StoredRoot { root, next, until, .. } = old;
        Arc::new(OldRoot { root, next, base: base(old.base), edits: edits(old.edits), until, late: edits(old.late) })
    });
    Ok(Box::new(Text {
        root: stored.root,
        begun: stored.begun,
        base: base(stored.base),
        edits: edits(stored.edits),
        folded: stored.folded,
        shown: stored.shown.map(|shown| shown.into()),
        initials: stored.initials.into_iter().collect(),
        old: old.collect(),
    }))
}

/// What differences run against; both ends keep the same.
#[derive(Default)]
struct Memory {
    offset: u64,
    seq: BTreeMap<u32, u64>,
    n: BTreeMap<u32, u64>,
    ms: u64,
}

impl Columns {
    fn push(&mut self, memory: &mut Memory, offset: Offset, stamp: &Stamp, actor: u32, run: u32) {
        let step = |before: &mut u64, now: u64| (now.wrapping_sub(std::mem::replace(before, now))) as i64;
        self.offset.push(offset.0 - std::mem::replace(&mut memory.offset, offset.0));
        self.actor.push(actor);
        self.seq.push(step(memory.seq.entry(actor).or_default(), stamp.seq().map_or(0, |seq| seq.0)));
        self.run.push(run);
        self.n.push(step(memory.n.entry(run).or_default(), stamp.write().n));
        self.ms.push(step(&mut memory.ms, stamp.time().ms()));
        self.counter.push(stamp.time().counter());
    }

    fn read(&self, actors: &[ActorId], runs: &[RunId], end: Offset) -> Result<Vec<Arc<Stamp>>, SnapshotError> {
        let count = self.offset.len();
        let lengths =
            [self.actor.len(), self.seq.len(), self.run.len(), self.n.len(), self.ms.len(), self.counter.len()];
        if lengths.iter().any(|length| *length != count) {
            return Err(SnapshotError::Stamp(count));
        }
        let mut memory = Memory::default();
        let mut stamps = Vec::with_capacity(count);
        for at in 0..count {
            let wrong = || SnapshotError::Stamp(at);
            let step = |before: &mut u64, by: i64| {
                *before = before.wrapping_add_signed(by);
                *before
            };
            if at > 0 && self.offset[at] == 0 {
                return Err(wrong());
            }
            memory.offset = memory.offset.checked_add(self.offset[at]).filter(|at| *at < end.0).ok_or_else(wrong)?;
            let actor = *entry_of(actors, self.actor[at])?;
            let run = *entry_of(runs, self.run[at])?;
            let seq = Seq(step(memory.seq.entry(self.actor[at]).or_default(), self.seq[at]));
            let n = step(memory.n.entry(self.run[at]).or_default(), self.n[at]);
            let ms = step(&mut memory.ms, self.ms[at]);
            if ms >= 1 << 48 {
                return Err(wrong());
            }
            let time = Time::from_parts(ms, self.counter[at]);
            let id = EntryId { actor, seq };
            stamps.push(Arc::new(Stamp::confirmed(id, WriteId { run, n }, time, Offset(memory.offset))));
        }
        Ok(stamps)
    }
}

struct Reader<'a> {
    names: &'a [Name],
    stamps: &'a [Arc<Stamp>],
}

impl Reader<'_> {
    fn stamp(&self, index: u32) -> Result<Arc<Stamp>, SnapshotError> {
        entry_of(self.stamps, index).cloned()
    }

    fn stamps(&self, indexes: Vec<u32>) -> Result<Vec<Arc<Stamp>>, SnapshotError> {
        indexes.into_iter().map(|index| self.stamp(index)).collect()
    }

    fn record(&self, stored: StoredRecord<'_>) -> Result<(RecordId, Record), SnapshotError> {
        let fields = stored.fields.into_iter().map(|field| self.field(field));
        let fields = fields.collect::<Result<Vec<_>, _>>()?;
        ascending(fields.iter().map(|(name, _)| name), "fields")?;
        let record = Record {
            inserts: self.stamps(stored.inserts)?,
            created: self.stamp(stored.created)?,
            edits: self.stamps(stored.edits)?,
            fields,
        };
        if record.edits.is_empty() || record.edits.len() > limits::RECORD_EDITS_MAX {
            return Err(SnapshotError::Order("edits"));
        }
        Ok((stored.id, record))
    }

    fn tombstone(&self, stored: StoredTombstone<'_>) -> Result<(RecordKey, Tombstone), SnapshotError> {
        let collection = entry_of(self.names, stored.collection)?.clone();
        let (id, record) = self.record(stored.record)?;
        let tombstone = Tombstone { record, deletes: self.stamps(stored.deletes)?, until: stored.until };
        Ok((RecordKey { collection, record: id }, tombstone))
    }

    fn field(&self, stored: StoredField<'_>) -> Result<(Name, Field), SnapshotError> {
        let living = |(value, stamp): (Cow<'_, Value>, u32)| {
            Ok::<_, SnapshotError>(Living { value: value.into_owned(), stamp: self.stamp(stamp)? })
        };
        let register = stored.register.into_iter().map(living).collect::<Result<Vec<_>, _>>()?;
        if register.len() > limits::REGISTER_VALUES_MAX {
            return Err(SnapshotError::Order("living values"));
        }
        let elements = |stored: Vec<(Cow<'_, Value>, Vec<u32>)>| {
            ascending(stored.iter().map(|(element, _)| &**element), "elements")?;
            let elements = stored.into_iter().map(|(element, adds)| Ok((element.into_owned(), self.stamps(adds)?)));
            elements.collect::<Result<Elements, SnapshotError>>().map(Box::new)
        };
        let field = Field {
            register,
            counter: stored.counter,
            set: stored.set.map(elements).transpose()?,
            text: stored.text.map(text).transpose()?,
        };
        Ok((entry_of(self.names, stored.name)?.clone(), field))
    }
}

fn entry_of<T>(table: &[T], index: u32) -> Result<&T, SnapshotError> {
    table.get(index as usize).ok_or(SnapshotError::Index { index, length: table.len() })
}

fn ascending<'a, T: Ord + 'a>(keys: impl Iterator<Item = &'a T>, what: &'static str) -> Result<(), SnapshotError> {
    if keys.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(SnapshotError::Order(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::FieldOp;
    use crate::state::fixture::*;

    fn log() -> Log {
        let mut log = Log::new();
        for actor in 1..5 {
            let mut tab = Tab::new(actor);
            let record = format!("r{actor}");
            log.act(&mut tab, 0, vec![insert(&record, vec![("title", set("a")), ("tags", add(&["x", "y"]))])]);
            log.act(&mut tab, 0, vec![insert("shared", vec![("votes", FieldOp::Increment(actor.into()))])]);
            let note = FieldOp::Edit(Edit::InitialText("note".to_owned()));
            log.act(&mut tab, 0, vec![update("shared", "title", set(&record)), update("shared", "note", note)]);
        }
        log.state.set_epochs(vec![(EpochId([1; 8]), Offset(0)), (EpochId([2; 8]), Offset(7))]);
        log
    }

    #[test]
    fn a_state_comes_back_and_folds_on() {
        let mut log = log();
        let bytes = encode(&mut log.state);
        let mut again = decode(&bytes).expect("decodes");
        assert_eq!(again.digest(), log.state.digest());
        assert_eq!(again.epochs(), log.state.epochs());
        assert_eq!(encode(&mut again), bytes);
        let mut tab = Tab { n: 3, seq: 3, ..Tab::new(2) };
        log.act(&mut tab, 2, vec![update("shared", "title", set("on")), delete("r1")]);
        again.fold(&log.entries[12]).expect("folds");
        assert_eq!(again.digest(), log.state.digest());
    }

    #[test]
    fn records_cost_little_beside_their_values() {
        let (mut log, mut tab) = (Log::new(), Tab::new(1));
        for at in 0..1_000 {
            let fields = vec![("title", set("twenty characters...")), ("done", FieldOp::Set(Value::from(false)))];
            log.act(&mut tab, at, vec![insert(&format!("record-{at:05}"), fields)]);
        }
        let bytes = encode(&mut log.state).len();
        assert!(bytes < 1_000 * 80, "{bytes} bytes for 1,000 records of two fields");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_an_error() {
        let bytes = encode(&mut log().state);
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn damage_under_a_right_digest_is_an_error_or_another_state() {
        let bytes = encode(&mut log().state);
        let content = &bytes[..bytes.len() - DIGEST_BYTES];
        for at in 0..content.len() {
            for to in [0, 0x7f, 0x91, 0xcf, 0xdd, content[at].wrapping_add(1)] {
                let mut damaged = content.to_vec();
                damaged[at] = to;
                damaged.extend_from_slice(&Digest::of(&[&damaged]).0);
                if let Ok(mut state) = decode(&damaged) {
                    let _ = (encode(&mut state), state.plain());
                }
            }
        }
    }
}
