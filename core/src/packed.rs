//! Packing: many entries in one array, with actors, runs, epochs and names written once and numbers as differences.
//!
//! Used by push and entries frames, and by the rows in which clients and tests keep received entries
//! (docs/protocol.md, "Packed entries"). Unpacking rebuilds each entry's canonical bytes, so digests and chains are
//! checked over exactly what its author wrote.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Cursor};
use crate::codec::tagged;
use crate::entry::{Body, Entry, Gone, Header, InvalidEntry, Logged, Replaced};
use crate::id::{ActorId, Base, EntryId, EpochId, Name, Offset, RunId, Seq, UserId};
use crate::limits;
use crate::time::Time;

/// Entries with their tables.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Packed {
    actors: Vec<(ActorId, Option<UserId>)>,
    runs: Vec<RunId>,
    epochs: Vec<EpochId>,
    names: Vec<Name>,
    items: Vec<PackedItem>,
}

// Nearly every item is an entry: boxing it would cost an allocation each to save bytes in the rare others.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
enum PackedItem {
    Entry(PackedEntry),
    Stub(PackedStub),
    Gap(PackedGap),
    Void(Void),
}

tagged!(PackedItem { Entry(PackedEntry) = 0, Stub(PackedStub) = 1, Gap(PackedGap) = 2, Void(Void) = 3 });

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PackedEntry {
    actor: u32,
    run: u32,
    n: i64,
    seq: i64,
    epoch: u32,
    base: i64,
    own: Option<u64>,
    time: TimeStep,
    needs: Vec<u64>,
    replaces: Option<Replaced>,
    stamp: Option<PackedStamp>,
    body: Body<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PackedStub {
    actor: u32,
    seq: i64,
    stamp: PackedStamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PackedStamp {
    accepted: TimeStep,
    /// Effective base as an offset; none when it equals the header's base.
    base: Option<Offset>,
}

/// A difference of times: milliseconds, and the counter as it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct TimeStep(i64, u16);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PackedGap {
    end: Offset,
    reason: u8,
    chain: Chain,
    accepted: Time,
    effective: Time,
    authors: Vec<(u32, Seq)>,
}

/// A stretch of offsets whose entries are not delivered, with what folding them would have left behind: so who passes
/// over it comes to the same state as who folded them while they were there.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// First offset after it.
    pub end: Offset,
    /// Why, as a number: 1 expired, 2 erased.
    pub reason: u8,
    /// The log chain at `end`.
    pub chain: Chain,
    /// When the server took the last of them.
    pub accepted: Time,
    /// The largest of their effective times.
    pub effective: Time,
    /// Their authors, each with the last of its seqs.
    pub authors: Vec<(ActorId, UserId, Seq)>,
}

impl Gap {
    /// A gap that passes over nothing yet.
    pub fn new(gone: Gone, at: Cursor) -> Self {
        let (end, chain, reason) = (at.next, at.chain, gone.number());
        Self { end, reason, chain, accepted: Time::MIN, effective: Time::MIN, authors: Vec::new() }
    }

    /// Passes over one more entry, with the cursor behind it.
    pub fn pass(&mut self, logged: &Logged, after: Cursor) {
        (self.end, self.chain) = (after.next, after.chain);
        self.accepted = self.accepted.max(logged.accepted);
        self.effective = self.effective.max(logged.effective());
        let EntryId { actor, seq } = logged.id();
        match self.authors.iter_mut().find(|(author, ..)| *author == actor) {
            Some((_, _, last)) => *last = seq.max(*last),
            None => self.authors.push((actor, logged.user.clone(), seq)),
        }
    }
}

/// A stretch of own seqs that holds nothing: damaged, lost, or given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Void {
    /// First seq.
    pub from: Seq,
    /// Last seq, inclusive.
    pub through: Seq,
    /// Why, for people.
    pub reason: String,
}

/// One unpacked item of a log, as a reader receives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A whole entry.
    Entry(Logged),
    /// An entry of the reader's own whose body it still holds.
    Stub(Stub),
    /// Offsets without delivery.
    Gap(Gap),
}

/// What the log added to an entry that its reader holds already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stub {
    /// Its position.
    pub offset: Offset,
    /// Which entry.
    pub id: EntryId,
    /// When the server took it.
    pub accepted: Time,
    /// Effective base; none when it equals the entry's own.
    pub base: Option<Offset>,
}

/// One unpacked item of a push.
#[derive(Clone, Debug, PartialEq)]
pub enum Pushed {
    /// An entry.
    Entry(Entry),
    /// Seqs given up.
    Void(Void),
}

/// The items do not unpack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// An index points behind its table: the sender is broken, or the bytes are damaged.
    #[error("index {index} points behind a table of {length}")]
    Index {
        /// The index found.
        index: u32,
        /// Length of the table.
        length: usize,
    },
    /// A difference leads out of the range.
    #[error("a difference leads out of the range of its number")]
    Range,
    /// This kind of item has no place here.
    #[error("item {0} has no place here")]
    Misplaced(usize),
    /// More items than a frame may hold.
    #[error("{got} items; at most {max} are allowed")]
    TooMany {
        /// Items found.
        got: usize,
        /// Items allowed.
        max: usize,
    },
    /// An entry breaks the format.
    #[error("entry {at}: {error}")]
    Entry {
        /// Which item.
        at: usize,
        /// Its trouble.
        error: InvalidEntry,
    },
}

/// Differences run against the previous entry of the same run or actor, so both ends keep the same memory.
#[derive(Default)]
struct Memory {
    n: BTreeMap<u32, u64>,
    seq: BTreeMap<u32, u64>,
    base: u64,
    time: u64,
    accepted: u64,
}

impl TimeStep {
    fn between(previous: &mut u64, time: Time) -> Self {
        let step = Self(time.ms() as i64 - *previous as i64, time.counter());
        *previous = time.ms();
        step
    }

    fn after(self, previous: &mut u64) -> Result<Time, UnpackError> {
        let ms = previous.checked_add_signed(self.0).filter(|ms| *ms < 1 << 48).ok_or(UnpackError::Range)?;
        *previous = ms;
        Ok(Time::from_parts(ms, self.1))
    }
}

fn step(previous: &mut u64, value: u64) -> i64 {
    let step = value.wrapping_sub(*previous) as i64;
    *previous = value;
    step
}

fn stepped(previous: &mut u64, step: i64) -> u64 {
    *previous = previous.wrapping_add_signed(step);
    *previous
}

fn entry_of<T>(table: &[T], index: u32) -> Result<&T, UnpackError> {
    table.get(index as usize).ok_or(UnpackError::Index { index, length: table.len() })
}

/// Builds a [`Packed`], item by item.
#[derive(Default)]
pub struct Packer {
    packed: Packed,
    memory: Memory,
    names: BTreeMap<Name, u32>,
    bytes: usize,
}

impl Packer {
    /// Items so far.
    pub fn len(&self) -> usize {
        self.packed.items.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.packed.items.is_empty()
    }

    /// An upper estimate of the bytes so far, for closing a frame in time.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry as its author pushes it.
    pub fn push(&mut self, actor: ActorId, entry: &Entry) {
        let packed = self.entry(actor, None, entry, None);
        self.packed.items.push(PackedItem::Entry(packed));
    }

    /// Adds seqs that hold nothing.
    pub fn push_void(&mut self, void: Void) {
        self.bytes += void.reason.len() + 24;
        self.packed.items.push(PackedItem::Void(void));
    }

    /// Adds an entry as the log holds it.
    pub fn logged(&mut self, logged: &Logged) {
        let base = (logged.base != logged.entry.header.base.end).then_some(logged.base);
        let user = Some(&logged.user);
        let packed = self.entry(logged.actor, user, &logged.entry, Some((logged.accepted, base)));
        self.packed.items.push(PackedItem::Entry(packed));
    }

    /// Adds a stub instead of an entry that the reader holds.
    pub fn stub(&mut self, logged: &Logged) {
        let base = (logged.base != logged.entry.header.base.end).then_some(logged.base);
        let actor = self.actor(logged.actor, Some(&logged.user));
        let seq = step(self.memory.seq.entry(actor).or_default(), logged.entry.header.seq.0);
        let accepted = TimeStep::between(&mut self.memory.accepted, logged.accepted);
        self.bytes += 24;
        self.packed.items.push(PackedItem::Stub(PackedStub { actor, seq, stamp: PackedStamp { accepted, base } }));
    }

    /// Adds a gap.
    pub fn gap(&mut self, gap: Gap) {
        let Gap { end, reason, chain, accepted, effective, authors } = gap;
        self.bytes += 72 + 8 * authors.len();
        let authors = authors.into_iter().map(|(actor, user, seq)| (self.actor(actor, Some(&user)), seq)).collect();
        self.packed.items.push(PackedItem::Gap(PackedGap { end, reason, chain, accepted, effective, authors }));
    }

    /// The finished array.
    pub fn finish(self) -> Packed {
        self.packed
    }

    fn entry(
        &mut self,
        actor: ActorId,
        user: Option<&UserId>,
        entry: &Entry,
        stamp: Option<(Time, Option<Offset>)>,
    ) -> PackedEntry {
        let header = &entry.header;
        self.bytes += 48 + crate::codec::to_bytes(&*entry.body).len();
        let actor = self.actor(actor, user);
        let run = intern(&mut self.packed.runs, &header.run, |known, run| known == run, Clone::clone);
        let epoch = intern(&mut self.packed.epochs, &header.base.epoch, |known, epoch| known == epoch, Clone::clone);
        let (names, table) = (&mut self.names, &mut self.packed.names);
        let body = entry.body.try_rename(|name: &Name| {
            Ok::<_, std::convert::Infallible>(*names.entry(name.clone()).or_insert_with(|| {
                table.push(name.clone());
                table.len() as u32 - 1
            }))
        });
        let Ok(body) = body;
        PackedEntry {
            actor,
            run,
            n: step(self.memory.n.entry(run).or_default(), header.n),
            seq: step(self.memory.seq.entry(actor).or_default(), header.seq.0),
            epoch,
            base: step(&mut self.memory.base, header.base.end.0),
            own: header.own.map(|own| header.seq.0 - own.0),
            time: TimeStep::between(&mut self.memory.time, header.time),
            needs: header.needs.iter().map(|need| header.seq.0 - need.0).collect(),
            replaces: header.replaces.clone(),
            stamp: stamp.map(|(accepted, base)| PackedStamp {
                accepted: TimeStep::between(&mut self.memory.accepted, accepted),
                base,
            }),
            body,
        }
    }

    fn actor(&mut self, actor: ActorId, user: Option<&UserId>) -> u32 {
        self.bytes += if self.packed.actors.is_empty() { 64 } else { 0 };
        intern(
            &mut self.packed.actors,
            &(actor, user),
            |known, (actor, user)| known.0 == *actor && known.1.as_ref() == *user,
            |(actor, user)| (*actor, user.cloned()),
        )
    }
}

fn intern<T, K>(table: &mut Vec<T>, key: &K, same: impl Fn(&T, &K) -> bool, make: impl Fn(&K) -> T) -> u32 {
    // Searched from the end: neighbours mostly share the author. A frame's tables stay small.
    if let Some(at) = table.iter().rposition(|known| same(known, key)) {
        return at as u32;
    }
    table.push(make(key));
    table.len() as u32 - 1
}

impl Packed {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Unpacks what a reader receives, from offset `from`.
    ///
    /// # Errors
    /// [`UnpackError`]: refetch; nothing of it may be used.
    pub fn unpack(&self, from: Offset) -> Result<Vec<Item>, UnpackError> {
        self.check_length()?;
        let mut memory = Memory::default();
        let mut offset = from;
        let mut items = Vec::with_capacity(self.items.len());
        for (at, item) in self.items.iter().enumerate() {
            let item = match item {
                PackedItem::Entry(packed) => Item::Entry(self.unpack_logged(packed, offset, at, &mut memory)?),
                PackedItem::Stub(packed) => Item::Stub(self.unpack_stub(packed, offset, &mut memory)?),
                PackedItem::Gap(packed) if packed.end > offset => Item::Gap(self.unpack_gap(packed, at)?),
                PackedItem::Gap(_) | PackedItem::Void(_) => return Err(UnpackError::Misplaced(at)),
            };
            offset = match &item {
                Item::Gap(gap) => gap.end,
                _ => offset.next(),
            };
            items.push(item);
        }
        Ok(items)
    }

    /// Unpacks a push. All entries must be of `actor`.
    ///
    /// # Errors
    /// [`UnpackError`]: the push is refused as a whole.
    pub fn unpack_pushed(&self, actor: ActorId) -> Result<Vec<Pushed>, UnpackError> {
        self.check_length()?;
        let mut memory = Memory::default();
        let mut items = Vec::with_capacity(self.items.len());
        for (at, item) in self.items.iter().enumerate() {
            items.push(match item {
                PackedItem::Entry(packed) if entry_of(&self.actors, packed.actor)?.0 == actor => {
                    Pushed::Entry(self.unpack_entry(packed, at, &mut memory)?)
                }
                PackedItem::Void(void) if void.from.0 > 0 && void.from <= void.through => Pushed::Void(void.clone()),
                _ => return Err(UnpackError::Misplaced(at)),
            });
        }
        Ok(items)
    }

    fn check_length(&self) -> Result<(), UnpackError> {
        let (got, max) = (self.items.len(), limits::FRAME_ENTRIES_MAX);
        if got > max { Err(UnpackError::TooMany { got, max }) } else { Ok(()) }
    }

    fn unpack_logged(
        &self,
        packed: &PackedEntry,
        offset: Offset,
        at: usize,
        memory: &mut Memory,
    ) -> Result<Logged, UnpackError> {
        let entry = self.unpack_entry(packed, at, memory)?;
        let (actor, user) = entry_of(&self.actors, packed.actor)?;
        let (Some(user), Some(stamp)) = (user, &packed.stamp) else { return Err(UnpackError::Misplaced(at)) };
        let accepted = stamp.accepted.after(&mut memory.accepted)?;
        let base = stamp.base.unwrap_or(entry.header.base.end);
        Ok(Logged { offset, actor: *actor, user: user.clone(), accepted, base, entry })
    }

    fn unpack_stub(&self, packed: &PackedStub, offset: Offset, memory: &mut Memory) -> Result<Stub, UnpackError> {
        let actor = entry_of(&self.actors, packed.actor)?.0;
        let seq = Seq(stepped(memory.seq.entry(packed.actor).or_default(), packed.seq));
        let accepted = packed.stamp.accepted.after(&mut memory.accepted)?;
        Ok(Stub { offset, id: EntryId { actor, seq }, accepted, base: packed.stamp.base })
    }

    fn unpack_gap(&self, packed: &PackedGap, at: usize) -> Result<Gap, UnpackError> {
        let PackedGap { end, reason, chain, accepted, effective, ref authors } = *packed;
        let authors = authors.iter().map(|(actor, seq)| match entry_of(&self.actors, *actor)? {
            (actor, Some(user)) => Ok((*actor, user.clone(), *seq)),
            (_, None) => Err(UnpackError::Misplaced(at)),
        });
        Ok(Gap { end, reason, chain, accepted, effective, authors: authors.collect::<Result<_, _>>()? })
    }

    fn unpack_entry(&self, packed: &PackedEntry, at: usize, memory: &mut Memory) -> Result<Entry, UnpackError> {
        let run = *entry_of(&self.runs, packed.run)?;
        let n = stepped(memory.n.entry(packed.run).or_default(), packed.n);
        let seq = stepped(memory.seq.entry(packed.actor).or_default(), packed.seq);
        let base =
            Base { epoch: *entry_of(&self.epochs, packed.epoch)?, end: Offset(stepped(&mut memory.base, packed.base)) };
        let time = packed.time.after(&mut memory.time)?;
        let earlier = |back: u64| seq.checked_sub(back).map(Seq).ok_or(UnpackError::Range);
        let mut header = Header::new(run, n, Seq(seq), base, time);
        header.own = packed.own.map(earlier).transpose()?;
        header.needs = packed.needs.iter().map(|back| earlier(*back)).collect::<Result<_, _>>()?;
        header.replaces = packed.replaces.clone();
        let body = packed.body.try_rename(|index: &u32| entry_of(&self.names, *index).cloned())?;
        Entry::new(header, Arc::new(body)).map_err(|error| UnpackError::Entry { at, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{from_bytes, to_bytes};
    use crate::entry::Salt;
    use crate::id::RecordId;
    use crate::op::{FieldOp, Op, Update};
    use crate::value::Value;

    fn logged(offset: u64, actor: u8, seq: u64) -> Logged {
        let base = Base { epoch: EpochId([3; 8]), end: Offset(offset / 2) };
        let time = Time::from_parts(1_700_000_000_000 + offset * 7, (offset % 3) as u16);
        let mut header = Header::new(RunId([actor; 8]), seq, Seq(seq), base, time);
        if seq > 1 {
            header.needs = vec![Seq(seq - 1)];
            header.own = Some(Seq(seq - 1));
        }
        let name = |text| Name::new(text).expect("a name");
        let record = RecordId::new("x").expect("an id");
        let op = FieldOp::Set(Value::from("milk"));
        let ops = vec![Op::Update(Update { collection: name("todos"), record, field: name("title"), op })];
        let body = Body::new(name("rename"), None, ops, None, Salt([offset as u8; 8]));
        let entry = Entry::new(header, Arc::new(body)).expect("valid");
        let user = UserId::new("alice").expect("a user");
        let accepted = Time::from_ms(1_700_000_000_100 + offset);
        Logged { offset: Offset(offset), actor: ActorId([actor; 16]), user, accepted, base: Offset(offset / 3), entry }
    }

    #[test]
    fn logged_entries_round_trip_and_share_their_tables() {
        let entries: Vec<_> = (0..50).map(|at| logged(at, 1 + (at % 2) as u8, 1 + at / 2)).collect();
        let mut packer = Packer::default();
        entries.iter().for_each(|entry| packer.logged(entry));
        let packed = packer.finish();
        let bytes = to_bytes(&packed);
        let again: Packed = from_bytes(&bytes).expect("decodes");
        let items = again.unpack(Offset(0)).expect("unpacks");
        assert_eq!(items, entries.iter().cloned().map(Item::Entry).collect::<Vec<_>>());
        assert!(bytes.len() < 50 * 60, "{} bytes for 50 small entries", bytes.len());
    }

    #[test]
    fn pushed_entries_round_trip() {
        let entries: Vec<_> = (0..5).map(|at| logged(at, 1, 1 + at).entry).collect();
        let mut packer = Packer::default();
        entries.iter().for_each(|entry| packer.push(ActorId([1; 16]), entry));
        let void = Void { from: Seq(6), through: Seq(9), reason: "damaged".into() };
        packer.push_void(void.clone());
        let packed = packer.finish();
        let mut expected: Vec<_> = entries.into_iter().map(Pushed::Entry).collect();
        expected.push(Pushed::Void(void));
        assert_eq!(packed.unpack_pushed(ActorId([1; 16])), Ok(expected));
        assert_eq!(packed.unpack_pushed(ActorId([2; 16])), Err(UnpackError::Misplaced(0)), "another's entry");
    }

    #[test]
    fn stubs_and_gaps_keep_offsets_contiguous() {
        let mut gap = Gap::new(Gone::Expired, Cursor::start(crate::id::LogId([1; 16])));
        (11..20).for_each(|at| {
            let passed = logged(at, 1 + (at % 3) as u8, at);
            gap.pass(&passed, Cursor { next: Offset(at + 1), ..Cursor::start(crate::id::LogId([2; 16])) });
        });
        let mut packer = Packer::default();
        packer.stub(&logged(10, 1, 4));
        packer.gap(gap.clone());
        packer.logged(&logged(20, 1, 5));
        let items = packer.finish().unpack(Offset(10)).expect("unpacks");
        assert_eq!(items[1], Item::Gap(gap.clone()));
        let seqs: Vec<_> = gap.authors.iter().map(|(actor, _, seq)| (actor.0[0], seq.0)).collect();
        assert_eq!((seqs, gap.accepted), (vec![(3, 17), (1, 18), (2, 19)], logged(19, 1, 1).accepted));
        let offsets: Vec<_> = items
            .iter()
            .map(|item| match item {
                Item::Entry(logged) => logged.offset.0,
                Item::Stub(stub) => stub.offset.0,
                Item::Gap(gap) => gap.end.0,
            })
            .collect();
        assert_eq!(offsets, [10, 20, 20]);
    }
}
