//! One change of a text: automerge's change chunk, read strictly and written canonically.
//!
//! A change here is what a text field may hold and nothing else: characters inserted behind an element, and elements
//! deleted. [`decode`] takes the bytes apart without automerge, within bounds, recomputes the checksum and writes the
//! result again; bytes that are not exactly what [`encode`] makes of them are refused, because automerge rebuilds
//! changes from its own columns when it saves, and a change that is rebuilt differently has another hash and leaves a
//! document that cannot be opened. Whether the change fits a document is the document's question.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::limits;

use super::RichActor;
use super::column::{
    Reader, read_booleans, read_deltas, read_runs, write_booleans, write_deltas, write_runs, write_signed,
    write_unsigned,
};

/// Largest change in bytes that is read at all. A client's change is smaller ([`limits::RICH_CHANGE_BYTES_MAX`]); this
/// one leaves room for the change that stands for the initial content of a whole entry.
pub(super) const CHANGE_BYTES_MAX: usize = 4 * limits::ENTRY_BYTES_MAX;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
const HEADER_BYTES_MIN: usize = 10;

const ACTION_PUT: u64 = 1;
const ACTION_DELETE: u64 = 3;
const VALUE_STRING: u64 = 6;

/// Column specifications of automerge's change chunk that a text change uses, in their order.
mod spec {
    pub(super) const OBJECT_ACTOR: u64 = 0x01;
    pub(super) const OBJECT_COUNTER: u64 = 0x02;
    pub(super) const KEY_ACTOR: u64 = 0x11;
    pub(super) const KEY_COUNTER: u64 = 0x13;
    pub(super) const INSERT: u64 = 0x34;
    pub(super) const ACTION: u64 = 0x42;
    pub(super) const VALUE_META: u64 = 0x56;
    pub(super) const VALUE: u64 = 0x57;
    pub(super) const PREDECESSOR_COUNT: u64 = 0x70;
    pub(super) const PREDECESSOR_ACTOR: u64 = 0x71;
    pub(super) const PREDECESSOR_COUNTER: u64 = 0x73;
}

/// The name of a change: SHA-256 of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeHash(pub [u8; 32]);

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of one character ever inserted: its op's number and author. Later ops of a line of work are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ElementId {
    pub(super) counter: u32,
    pub(super) actor: RichActor,
}

/// One op of a text change; its id is the change's `start_op` plus its place, with the change's actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextOp {
    /// A character behind an element, or at the front.
    Insert { after: Option<ElementId>, character: char },
    /// An element goes.
    Delete { element: ElementId },
}

/// A change of a text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextChange {
    pub(super) actor: RichActor,
    pub(super) seq: u64,
    pub(super) start_op: u32,
    /// In ascending order.
    pub(super) dependencies: Vec<ChangeHash>,
    pub(super) ops: Vec<TextOp>,
}

impl TextChange {
    /// The number of its last op.
    pub(super) fn max_op(&self) -> u32 {
        self.start_op + self.ops.len() as u32 - 1
    }

    /// The id of the op at `place`.
    pub(super) fn id(&self, place: usize) -> ElementId {
        ElementId { counter: self.start_op + place as u32, actor: self.actor }
    }
}

/// Why a change is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeRefusal {
    /// Larger than [`limits::RICH_CHANGE_BYTES_MAX`].
    #[error("the change has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More ops than [`limits::RICH_CHANGE_OPS_MAX`].
    #[error("the change has more than {max} ops")]
    TooManyOps {
        /// The limit.
        max: usize,
    },
    /// Not a chunk of automerge's at all, or with more or fewer bytes than its header says.
    #[error("not one whole change chunk ({bytes} bytes)")]
    NotAChunk {
        /// Bytes given.
        bytes: usize,
    },
    /// A document, deflated or bundle chunk, which a field never takes from a client.
    #[error("chunk of kind {kind}, only uncompressed changes (kind 1) are taken")]
    ChunkKind {
        /// 0 document, 2 deflated change, 3 bundle.
        kind: u8,
    },
    /// The content is not the one that was sent.
    #[error("checksum {got:08x}, the content has {expected:08x}")]
    Checksum {
        /// Computed from the content.
        expected: u32,
        /// Found in the header.
        got: u32,
    },
    /// The content ends early or holds a value that cannot be.
    #[error("malformed at byte {at}")]
    Malformed {
        /// Where reading stopped, in the part that was being read.
        at: usize,
    },
    /// Well-formed, but not the bytes that the same change has when it is written by this crate.
    #[error("not in canonical form ({bytes} bytes)")]
    NotCanonical {
        /// Bytes given.
        bytes: usize,
    },
    /// An op that a text field does not have, or on another object than the text.
    #[error("op {place} (action {action}) is not an op of a text")]
    NotATextOp {
        /// Its place in the change.
        place: usize,
        /// automerge's number of the action.
        action: u64,
    },
    /// Made by another actor than the one the entry's author has for this field.
    #[error("made by actor {got}, expected {expected}")]
    Actor {
        /// Derived from the entry.
        expected: RichActor,
        /// In the change.
        got: RichActor,
    },
    /// Not the next change of its actor in this document.
    #[error("seq {got} of actor {actor}, expected {expected}")]
    Seq {
        /// The change's actor.
        actor: RichActor,
        /// One more than the last.
        expected: u64,
        /// In the change.
        got: u64,
    },
    /// Builds on a change that is neither in the document nor in the taken part of the batch.
    #[error("depends on the unknown change {hash}")]
    UnknownDependency {
        /// The unknown change.
        hash: ChangeHash,
    },
    /// Its ops are not numbered from the first number after its dependencies.
    #[error("first op {got}, expected {expected}")]
    StartOp {
        /// One more than the largest number of the dependencies.
        expected: u32,
        /// In the change.
        got: u32,
    },
    /// Refers to a character that the document does not have, or that is newer than the op itself.
    #[error("op {place} refers to the unknown element {counter} of {actor}")]
    UnknownElement {
        /// The op's place in the change.
        place: usize,
        /// Number of the element.
        counter: u32,
        /// Author of the element.
        actor: RichActor,
    },
    /// A character deleted twice, which nobody who types does: a few bytes can claim it a hundred thousand times.
    #[error("op {place} deletes what an op before it has deleted")]
    DeletedTwice {
        /// The op's place in the change.
        place: usize,
    },
    /// Fine by every rule of this crate, but automerge does not read it, or reads something else.
    #[error("automerge reads it otherwise: {reason}")]
    Kernel {
        /// What it says.
        reason: String,
    },
}

/// Takes the bytes of a change from a log or a client apart.
///
/// # Errors
/// Everything that can be known without the document.
pub(super) fn decode(bytes: &[u8]) -> Result<(TextChange, ChangeHash), ChangeRefusal> {
    let (change, hash) = decode_written(bytes)?;
    let (canonical, _) = encode(&change);
    if canonical != bytes {
        return Err(ChangeRefusal::NotCanonical { bytes: bytes.len() });
    }
    check_deletions(&change.ops)?;
    Ok((change, hash))
}

/// Whether every character is deleted at most once.
fn check_deletions(ops: &[TextOp]) -> Result<(), ChangeRefusal> {
    let deletions = ops.iter().enumerate().filter_map(|(place, op)| match op {
        TextOp::Delete { element } => Some((*element, place)),
        TextOp::Insert { .. } => None,
    });
    let mut deletions: Vec<(ElementId, usize)> = deletions.collect();
    deletions.sort_unstable();
    match deletions.windows(2).find(|two| two[0].0 == two[1].0) {
        Some(two) => Err(ChangeRefusal::DeletedTwice { place: two[1].1 }),
        None => Ok(()),
    }
}

/// Takes the bytes of a change apart that automerge has written itself, canonically therefore.
pub(super) fn decode_written(bytes: &[u8]) -> Result<(TextChange, ChangeHash), ChangeRefusal> {
    let (hash, content) = open_chunk(bytes)?;
    Ok((decode_content(content)?, hash))
}

/// The only bytes of a change, and its name.
pub(super) fn encode(change: &TextChange) -> (Vec<u8>, ChangeHash) {
    let content = encode_content(change);
    let hash = hash_content(&content);
    let mut bytes = Vec::with_capacity(content.len() + HEADER_BYTES_MIN + 3);
    bytes.extend(MAGIC);
    bytes.extend(&hash.0[..4]);
    bytes.push(CHUNK_CHANGE);
    write_unsigned(&mut bytes, content.len() as u64);
    bytes.extend(content);
    (bytes, hash)
}

/// Checks the frame of a chunk and returns the name and content of a change.
fn open_chunk(bytes: &[u8]) -> Result<(ChangeHash, &[u8]), ChangeRefusal> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(ChangeRefusal::TooLong { bytes: bytes.len(), max: CHANGE_BYTES_MAX });
    }
    let not_a_chunk = ChangeRefusal::NotAChunk { bytes: bytes.len() };
    if bytes.len() < HEADER_BYTES_MIN || bytes[..4] != MAGIC {
        return Err(not_a_chunk);
    }
    let got = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let kind = bytes[8];
    if kind != CHUNK_CHANGE {
        return Err(ChangeRefusal::ChunkKind { kind });
    }
    let mut reader = Reader::new(&bytes[9..]);
    let length = reader.unsigned()?;
    let content = &bytes[9 + reader.at()..];
    if content.len() as u64 != length {
        return Err(not_a_chunk);
    }
    let hash = hash_content(content);
    let expected = u32::from_be_bytes([hash.0[0], hash.0[1], hash.0[2], hash.0[3]]);
    if expected != got {
        return Err(ChangeRefusal::Checksum { expected, got });
    }
    Ok((hash, content))
}

fn hash_content(content: &[u8]) -> ChangeHash {
    let mut head = vec![CHUNK_CHANGE];
    write_unsigned(&mut head, content.len() as u64);
    ChangeHash(Sha256::new().chain_update(head).chain_update(content).finalize().into())
}

fn decode_content(content: &[u8]) -> Result<TextChange, ChangeRefusal> {
    let mut reader = Reader::new(content);
    let count = reader.count(limits::RICH_CHANGE_DEPENDENCIES_MAX)?;
    let hashes = (0..count).map(|_| reader.array().map(ChangeHash));
    let dependencies = hashes.collect::<Result<Vec<_>, _>>()?;
    if dependencies.is_empty() || !dependencies.is_sorted_by(|one, next| one < next) {
        return Err(reader.malformed());
    }
    let mut actors = vec![read_actor(&mut reader)?];
    let seq = reader.unsigned()?;
    let start_op = u32::try_from(reader.unsigned()?).map_err(|_| reader.malformed())?;
    let time = reader.signed()?;
    let text_length = reader.unsigned()?;
    if time != 0 || text_length != 0 || start_op == 0 {
        return Err(reader.malformed());
    }
    for _ in 0..reader.count(limits::RICH_CHANGE_ACTORS_MAX)? {
        actors.push(read_actor(&mut reader)?);
    }
    let mut specs = Vec::new();
    for _ in 0..reader.count(32)? {
        specs.push((reader.unsigned()?, reader.count(CHANGE_BYTES_MAX)?));
    }
    let mut columns = Columns::default();
    for (spec, length) in specs {
        let column = reader.take(length)?;
        *columns.slot(spec).ok_or_else(|| reader.malformed())? = column;
    }
    if !reader.is_empty() {
        return Err(reader.malformed());
    }
    let ops = columns.read_ops(&actors)?;
    start_op.checked_add(ops.len() as u32).ok_or_else(|| reader.malformed())?;
    Ok(TextChange { actor: actors[0], seq, start_op, dependencies, ops })
}

fn read_actor(reader: &mut Reader<'_>) -> Result<RichActor, ChangeRefusal> {
    if reader.unsigned()? != 16 {
        return Err(reader.malformed());
    }
    reader.array().map(RichActor)
}

/// The columns of a text change, as found.
#[derive(Debug, Default)]
struct Columns<'a> {
    object_actor: &'a [u8],
    object_counter: &'a [u8],
    key_actor: &'a [u8],
    key_counter: &'a [u8],
    insert: &'a [u8],
    action: &'a [u8],
    value_meta: &'a [u8],
    value: &'a [u8],
    predecessor_count: &'a [u8],
    predecessor_actor: &'a [u8],
    predecessor_counter: &'a [u8],
}

impl<'a> Columns<'a> {
    fn slot(&mut self, spec: u64) -> Option<&mut &'a [u8]> {
        Some(match spec {
            spec::OBJECT_ACTOR => &mut self.object_actor,
            spec::OBJECT_COUNTER => &mut self.object_counter,
            spec::KEY_ACTOR => &mut self.key_actor,
            spec::KEY_COUNTER => &mut self.key_counter,
            spec::INSERT => &mut self.insert,
            spec::ACTION => &mut self.action,
            spec::VALUE_META => &mut self.value_meta,
            spec::VALUE => &mut self.value,
            spec::PREDECESSOR_COUNT => &mut self.predecessor_count,
            spec::PREDECESSOR_ACTOR => &mut self.predecessor_actor,
            spec::PREDECESSOR_COUNTER => &mut self.predecessor_counter,
            _ => return None,
        })
    }

    /// The ops in their order; every op must be on the text object of the genesis.
    fn read_ops(&self, actors: &[RichActor]) -> Result<Vec<TextOp>, ChangeRefusal> {
        const MAX: usize = limits::RICH_CHANGE_OPS_MAX;
        let actions = read_runs::<u64>(self.action, MAX)?;
        let object_actors = read_runs::<u64>(self.object_actor, MAX)?;
        let object_counters = read_runs::<u64>(self.object_counter, MAX)?;
        let key_actors = read_runs::<u64>(self.key_actor, MAX)?;
        let key_counters = read_deltas(self.key_counter, MAX)?;
        let inserts = read_booleans(self.insert, MAX)?;
        let metas = read_runs::<u64>(self.value_meta, MAX)?;
        let predecessor_counts = read_runs::<u64>(self.predecessor_count, MAX)?;
        let predecessor_actors = read_runs::<u64>(self.predecessor_actor, MAX)?;
        let predecessor_counters = read_deltas(self.predecessor_counter, MAX)?;
        let malformed = |at: usize| ChangeRefusal::Malformed { at };
        let element = |actor: Option<u64>, counter: i64| {
            let actor = actors.get(usize::try_from(actor?).ok()?)?;
            let counter = u32::try_from(counter).ok().filter(|counter| *counter > 0)?;
            Some(ElementId { counter, actor: *actor })
        };
        let mut values = Reader::new(self.value);
        let mut predecessors = predecessor_actors.iter().zip(&predecessor_counters);
        let mut ops = Vec::with_capacity(actions.len());
        for (place, action) in actions.iter().enumerate() {
            let action = action.ok_or(malformed(place))?;
            let not_a_text_op = ChangeRefusal::NotATextOp { place, action };
            let object = element(
                object_actors.get(place).copied().flatten(),
                object_counters.get(place).copied().flatten().unwrap_or(0) as i64,
            );
            if object != Some(super::TEXT_OBJECT) {
                return Err(not_a_text_op);
            }
            let key_actor = key_actors.get(place).copied().flatten();
            let key_counter = key_counters.get(place).copied().flatten().ok_or(malformed(place))?;
            let key = match (key_actor, key_counter) {
                (None, 0) => None,
                (actor, counter) => Some(element(actor, counter).ok_or(malformed(place))?),
            };
            let insert = *inserts.get(place).ok_or(malformed(place))?;
            let meta = metas.get(place).copied().flatten().ok_or(malformed(place))?;
            let value = values.take((meta >> 4) as usize)?;
            let count = predecessor_counts.get(place).copied().flatten().ok_or(malformed(place))?;
            ops.push(match (action, insert, key, count) {
                (ACTION_PUT, true, after, 0) if meta & 0xf == VALUE_STRING => {
                    TextOp::Insert { after, character: one_character(value).ok_or(malformed(place))? }
                }
                (ACTION_DELETE, false, Some(deleted), 1) if meta == 0 => {
                    let (actor, counter) = predecessors.next().ok_or(malformed(place))?;
                    if element(*actor, counter.ok_or(malformed(place))?) != Some(deleted) {
                        return Err(malformed(place));
                    }
                    TextOp::Delete { element: deleted }
                }
                _ => return Err(not_a_text_op),
            });
        }
        if ops.is_empty() || !values.is_empty() {
            return Err(malformed(0));
        }
        Ok(ops)
    }
}

fn one_character(bytes: &[u8]) -> Option<char> {
    let mut characters = std::str::from_utf8(bytes).ok()?.chars();
    let character = characters.next()?;
    characters.next().is_none().then_some(character)
}

fn encode_content(change: &TextChange) -> Vec<u8> {
    let actors = referenced_actors(change);
    let index = |actor: &RichActor| {
        if *actor == change.actor {
            return 0;
        }
        actors.binary_search(actor).map_or(0, |place| place as u64 + 1)
    };
    let columns = encode_columns(&change.ops, index);

    let mut out = Vec::new();
    write_unsigned(&mut out, change.dependencies.len() as u64);
    change.dependencies.iter().for_each(|hash| out.extend(hash.0));
    write_actor(&mut out, &change.actor);
    write_unsigned(&mut out, change.seq);
    write_unsigned(&mut out, u64::from(change.start_op));
    write_signed(&mut out, 0);
    write_unsigned(&mut out, 0);
    write_unsigned(&mut out, actors.len() as u64);
    actors.iter().for_each(|actor| write_actor(&mut out, actor));
    write_unsigned(&mut out, columns.iter().filter(|(_, column)| !column.is_empty()).count() as u64);
    for (spec, column) in columns.iter().filter(|(_, column)| !column.is_empty()) {
        write_unsigned(&mut out, *spec);
        write_unsigned(&mut out, column.len() as u64);
    }
    columns.iter().for_each(|(_, column)| out.extend(column));
    out
}

fn write_actor(out: &mut Vec<u8>, actor: &RichActor) {
    write_unsigned(out, actor.0.len() as u64);
    out.extend(actor.0);
}

/// Every other author that the ops name, ascending; the change's own stands before them as number 0.
fn referenced_actors(change: &TextChange) -> Vec<RichActor> {
    let mut actors = vec![super::TEXT_OBJECT.actor];
    for op in &change.ops {
        let named = match op {
            TextOp::Insert { after: None, .. } => continue,
            TextOp::Insert { after: Some(id), .. } | TextOp::Delete { element: id } => id.actor,
        };
        if named != change.actor && actors.last() != Some(&named) {
            actors.push(named);
        }
    }
    actors.sort_unstable();
    actors.dedup();
    actors
}

fn encode_columns(ops: &[TextOp], index: impl Fn(&RichActor) -> u64) -> [(u64, Vec<u8>); 11] {
    let mut columns = [
        spec::OBJECT_ACTOR,
        spec::OBJECT_COUNTER,
        spec::KEY_ACTOR,
        spec::KEY_COUNTER,
        spec::INSERT,
        spec::ACTION,
        spec::VALUE_META,
        spec::VALUE,
        spec::PREDECESSOR_COUNT,
        spec::PREDECESSOR_ACTOR,
        spec::PREDECESSOR_COUNTER,
    ]
    .map(|spec| (spec, Vec::new()));
    let key = |op: &TextOp| match op {
        TextOp::Insert { after, .. } => *after,
        TextOp::Delete { element } => Some(*element),
    };
    let numbers = |of: &dyn Fn(&TextOp) -> Option<u64>| ops.iter().map(of).collect::<Vec<_>>();
    let deleted = |op: &TextOp| match op {
        TextOp::Insert { .. } => None,
        TextOp::Delete { element } => Some(*element),
    };

    write_runs(&mut columns[0].1, &numbers(&|_| Some(index(&super::TEXT_OBJECT.actor))));
    write_runs(&mut columns[1].1, &numbers(&|_| Some(u64::from(super::TEXT_OBJECT.counter))));
    write_runs(&mut columns[2].1, &numbers(&|op| key(op).map(|id| index(&id.actor))));
    let counters = ops.iter().map(|op| Some(key(op).map_or(0, |id| i64::from(id.counter))));
    write_deltas(&mut columns[3].1, counters);
    write_booleans(&mut columns[4].1, ops.iter().map(|op| deleted(op).is_none()));
    let action = |op: &TextOp| {
        if deleted(op).is_none() { ACTION_PUT } else { ACTION_DELETE }
    };
    write_runs(&mut columns[5].1, &numbers(&|op| Some(action(op))));
    let meta = |op: &TextOp| match op {
        TextOp::Insert { character, .. } => (character.len_utf8() as u64) << 4 | VALUE_STRING,
        TextOp::Delete { .. } => 0,
    };
    write_runs(&mut columns[6].1, &numbers(&|op| Some(meta(op))));
    for op in ops {
        if let TextOp::Insert { character, .. } = op {
            columns[7].1.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    write_runs(&mut columns[8].1, &numbers(&|op| Some(u64::from(deleted(op).is_some()))));
    let predecessors: Vec<ElementId> = ops.iter().filter_map(deleted).collect();
    let actors: Vec<Option<u64>> = predecessors.iter().map(|id| Some(index(&id.actor))).collect();
    write_runs(&mut columns[9].1, &actors);
    write_deltas(&mut columns[10].1, predecessors.iter().map(|id| Some(i64::from(id.counter))));
    columns
}
