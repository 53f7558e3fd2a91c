//! Entries: an action as recorded, and its bytes.
//!
//! An entry is a header and a body. The body (what the user did) is encoded before the append transaction opens; the
//! header (where it stands) is written inside it, where the seq is known. Both are canonical msgpack arrays, version
//! first (docs/log-format.md, "Entry"), so every machine computes the same digest.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codec::{self, DecodeError, Format};
use crate::id::{ActorId, Base, EntryId, Name, Offset, RunId, Seq, UserId};
use crate::limits;
use crate::op::Op;
use crate::time::{self, Time, WallMs};
use crate::value::Value;

/// SHA-256 of an entry's bytes. The body's salt is under it, so an erased body cannot be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…")
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::deserialize(deserializer).map(Self)
    }
}

impl Digest {
    /// The digest of these parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(part));
        Self(hasher.finalize().into())
    }
}

/// What the user did, and what that does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Body<N = Name> {
    format: Format<1>,
    /// The action's name: a claim of the client, for people and folds.
    pub name: N,
    /// The action's arguments, unless the app switched them off.
    pub args: Option<Value>,
    /// The effect. Empty for an event.
    pub ops: Vec<Op<N>>,
    /// For events: how long after its effective time it is still worth delivering, in milliseconds.
    pub lifetime_ms: Option<u64>,
    /// Random bytes that go with the content when it is erased.
    pub salt: Salt,
}

/// Random bytes under an entry's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Salt(pub [u8; 8]);

impl Serialize for Salt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::deserialize(deserializer).map(Self)
    }
}

impl<N> Body<N> {
    /// A body of the current format.
    pub fn new(name: N, args: Option<Value>, ops: Vec<Op<N>>, lifetime_ms: Option<u64>, salt: Salt) -> Self {
        Self { format: Format, name, args, ops, lifetime_ms, salt }
    }

    /// The same body with every name replaced, in the order they stand in the bytes.
    ///
    /// # Errors
    /// Whatever `rename` gives.
    pub fn try_rename<'a, M, E>(&'a self, mut rename: impl FnMut(&'a N) -> Result<M, E>) -> Result<Body<M>, E> {
        let name = rename(&self.name)?;
        let ops = self.ops.iter().map(|op| op.try_rename(&mut rename)).collect::<Result<_, E>>()?;
        Ok(Body::new(name, self.args.clone(), ops, self.lifetime_ms, self.salt))
    }
}

/// Where an entry stands: who, when, and what its author had seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    format: Format<1>,
    /// The tab's start that made it.
    pub run: RunId,
    /// Its number within the run, from 1; never decreasing in seq order of one run.
    pub n: u64,
    /// The author's number of it.
    pub seq: Seq,
    /// End of the confirmed prefix that the author's view had applied when the mutator ran. It never changes.
    pub base: Base,
    /// Through which seq the view had applied the entries of the client's other tabs; none: everything before it.
    pub own: Option<Seq>,
    /// The author's clock.
    pub time: Time,
    /// Own entries, undecided when this one was made, that it builds on; ascending.
    pub needs: Vec<Seq>,
    /// The entry that this one re-issues; at most one replacement is ever accepted.
    pub replaces: Option<Replaced>,
}

/// Names an entry and its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Replaced {
    /// Which entry.
    pub id: EntryId,
    /// What it said.
    pub digest: Digest,
}

impl Header {
    /// A header of the current format that needs and replaces nothing.
    pub fn new(run: RunId, n: u64, seq: Seq, base: Base, time: Time) -> Self {
        Self { format: Format, run, n, seq, base, own: None, time, needs: Vec::new(), replaces: None }
    }

    /// The highest seq of another tab's entry that its author had seen.
    pub fn own_seen(&self) -> Seq {
        self.own.unwrap_or(Seq(self.seq.0.saturating_sub(1)))
    }
}

/// Header and body with their digest, parsed and bounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it stands.
    pub header: Header,
    /// What it says.
    pub body: Arc<Body>,
    digest: Digest,
    /// The digest of what its author pushed, where the gate translated some of it.
    pushed: Option<Digest>,
    size: u32,
    gone: Option<Gone>,
}

/// Why the body of an entry that is in its log is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its lifetime was over.
    Expired,
    /// It was erased.
    Erased,
}

impl Gone {
    /// Its number, as it is stored and sent (docs/protocol.md, "Packed entries").
    pub fn number(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::Erased => 2,
        }
    }

    /// What a number stands for.
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::Expired, Self::Erased].into_iter().find(|gone| gone.number() == number)
    }
}

/// The entry is well-formed msgpack, but not an entry that this format allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEntry {
    /// The bytes do not parse.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Split the action.
    #[error("the entry has {got} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes found.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Split the action.
    #[error("the action has {got} ops; at most {max} are allowed")]
    TooManyOps {
        /// Ops found.
        got: usize,
        /// Ops allowed.
        max: usize,
    },
    /// Rename the field.
    #[error("a field cannot be named {0:?}: `id` and names that begin with `$` are reserved")]
    FieldName(String),
    /// `needs` must ascend, name earlier seqs and stay within its bound.
    #[error("needs of seq {0} are not earlier seqs in ascending order")]
    Needs(Seq),
    /// Seqs and numbers count from 1; `own` names an earlier seq.
    #[error("seq {seq}, number {n}: both count from 1, and own must be an earlier seq")]
    Numbering {
        /// The seq found.
        seq: Seq,
        /// The number found.
        n: u64,
    },
    /// Only entries without ops may expire.
    #[error("an entry with ops cannot have a lifetime")]
    LifetimeWithOps,
    /// Increments stay within ±(2^53 − 1).
    #[error("the increment {0} is beyond 2^53 - 1")]
    IncrementRange(i64),
    /// Ask for a shorter grace.
    #[error("a delete asks for a grace of {got} ms; at most {max} are given")]
    GraceTooLong {
        /// Milliseconds asked for.
        got: u64,
        /// Milliseconds given at the most.
        max: u64,
    },
    /// Shorten the change.
    #[error("a rich change has {got} bytes; at most {max} are allowed")]
    RichChangeTooLarge {
        /// Bytes found.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl Entry {
    /// Joins header and body, checks every bound of the format and computes the digest.
    ///
    /// # Errors
    /// [`InvalidEntry`] names the rule; the entry cannot be stored or sent as it is.
    pub fn new(header: Header, body: Arc<Body>) -> Result<Self, InvalidEntry> {
        let (head, tail) = (codec::to_bytes(&header), codec::to_bytes(&*body));
        Self::checked(header, body, &head, &tail)
    }

    fn checked(header: Header, body: Arc<Body>, head: &[u8], tail: &[u8]) -> Result<Self, InvalidEntry> {
        let got = head.len() + tail.len();
        if got > limits::ENTRY_BYTES_MAX {
            return Err(InvalidEntry::TooLarge { got, max: limits::ENTRY_BYTES_MAX });
        }
        check_header(&header)?;
        check_body(&body)?;
        let pushed = is_translated(&body).then(|| Digest::of(&[head, &codec::to_bytes(&as_pushed(&body))]));
        Ok(Self { digest: Digest::of(&[head, tail]), pushed, size: got as u32, header, body, gone: None })
    }

    /// What is left of an entry whose body is gone: its header, and the digest of what it was. It has no ops, so it
    /// folds to what an event does; [`Entry::to_bytes`] are not what the digest is of.
    ///
    /// # Errors
    /// [`InvalidEntry`]: the header breaks a rule.
    pub fn without_body(header: Header, digest: Digest, gone: Gone) -> Result<Self, InvalidEntry> {
        check_header(&header)?;
        let body = Arc::new(Body::new(Name::gone(), None, Vec::new(), None, Salt::default()));
        Ok(Self { header, body, digest, pushed: None, size: 0, gone: Some(gone) })
    }

    /// Reads header and body that stand one after the other.
    ///
    /// # Errors
    /// [`InvalidEntry`]: the bytes are damaged, not canonical, or break a bound.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidEntry> {
        let (header, read) = codec::decode_prefix::<Header>(bytes)?;
        let body = codec::from_bytes::<Body>(&bytes[read..])?;
        let (head, tail) = (codec::to_bytes(&header), codec::to_bytes(&body));
        if head != bytes[..read] || tail != bytes[read..] {
            return Err(DecodeError::NotCanonical.into());
        }
        Self::checked(header, Arc::new(body), &head, &tail)
    }

    /// Header and body, one after the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = codec::to_bytes(&self.header);
        bytes.extend_from_slice(&codec::to_bytes(&*self.body));
        bytes
    }

    /// Why its body is not there any more; none if it is.
    pub fn gone(&self) -> Option<Gone> {
        self.gone
    }

    /// How many [`Entry::to_bytes`] are; 0 where the body is gone.
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// SHA-256 of [`Entry::to_bytes`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of what its author pushed. The log may hold other bytes: changes of an old root are translated.
    pub fn pushed_digest(&self) -> Digest {
        self.pushed.unwrap_or(self.digest)
    }

    /// Whether the log holds other bytes than were pushed, so that its author needs them too.
    pub fn is_translated(&self) -> bool {
        self.pushed.is_some()
    }

    /// The same entry with what the gate made of its ops.
    ///
    /// # Errors
    /// [`InvalidEntry::TooLarge`]: it has no room for both.
    pub(crate) fn translated(&self, ops: Vec<Op>) -> Result<Self, InvalidEntry> {
        let Body { name, args, lifetime_ms, salt, .. } = (*self.body).clone();
        Self::new(self.header.clone(), Arc::new(Body::new(name, args, ops, lifetime_ms, salt)))
    }

    /// The line that an entry with this id belongs to: the first one, which all others replace. Of a line one entry is
    /// accepted at most, whoever re-issues whichever of it.
    pub fn line(&self, id: EntryId) -> Replaced {
        self.header.replaces.clone().unwrap_or(Replaced { id, digest: self.pushed_digest() })
    }

    /// The original of an entry that its author's successor `actor` issues again; none if it is no such entry. A re-issue
    /// has the seq of the original, which a redrive never has.
    pub fn reissued(&self, actor: ActorId) -> Option<&Replaced> {
        let line = self.header.replaces.as_ref()?;
        (line.id.actor != actor && line.id.seq == self.header.seq).then_some(line)
    }
}

fn is_translated(body: &Body) -> bool {
    use crate::op::{Edit, FieldOp};
    body.ops.iter().flat_map(Op::field_ops).any(|(_, op)| matches!(op, FieldOp::Edit(Edit::Moved(_))))
}

fn as_pushed(body: &Body) -> Body {
    Body { ops: body.ops.iter().map(Op::as_pushed).collect(), ..body.clone() }
}

fn check_header(header: &Header) -> Result<(), InvalidEntry> {
    let Header { seq, n, .. } = *header;
    if seq.0 == 0 || n == 0 || header.own.is_some_and(|own| own >= seq) {
        return Err(InvalidEntry::Numbering { seq, n });
    }
    let ascending = header.needs.windows(2).all(|pair| pair[0] < pair[1]);
    let earlier = header.needs.iter().all(|need| need.0 > 0 && *need < seq);
    if !ascending || !earlier || header.needs.len() > limits::ENTRY_NEEDS_MAX {
        return Err(InvalidEntry::Needs(seq));
    }
    Ok(())
}

/// Checks what a body must keep, whoever made it.
///
/// # Errors
/// [`InvalidEntry`] names the rule.
pub fn check_body(body: &Body) -> Result<(), InvalidEntry> {
    if body.ops.len() > limits::ENTRY_OPS_MAX {
        return Err(InvalidEntry::TooManyOps { got: body.ops.len(), max: limits::ENTRY_OPS_MAX });
    }
    if body.lifetime_ms.is_some() && !body.ops.is_empty() {
        return Err(InvalidEntry::LifetimeWithOps);
    }
    body.ops.iter().try_for_each(check_grace)?;
    for (field, op) in body.ops.iter().flat_map(Op::field_ops) {
        if field.as_str() == "id" || field.as_str().starts_with('$') {
            return Err(InvalidEntry::FieldName(field.as_str().to_owned()));
        }
        check_field_op(op)?;
    }
    Ok(())
}

fn check_grace(op: &Op) -> Result<(), InvalidEntry> {
    use crate::op::{Delete, DeletePolicy};
    match op {
        Op::Delete(Delete { policy: DeletePolicy::UpdateWins { grace_ms }, .. })
            if *grace_ms > limits::DELETE_GRACE_MS_MAX =>
        {
            Err(InvalidEntry::GraceTooLong { got: *grace_ms, max: limits::DELETE_GRACE_MS_MAX })
        }
        _ => Ok(()),
    }
}

fn check_field_op(op: &crate::op::FieldOp) -> Result<(), InvalidEntry> {
    use crate::op::{Edit, FieldOp};
    match op {
        FieldOp::Increment(by) if by.unsigned_abs() > crate::value::INT_MAX as u64 => {
            Err(InvalidEntry::IncrementRange(*by))
        }
        FieldOp::Edit(Edit::Change(change) | Edit::Moved(crate::op::Moved { original: change, .. }))
            if change.bytes.len() > limits::RICH_CHANGE_BYTES_MAX =>
        {
            Err(InvalidEntry::RichChangeTooLarge { got: change.bytes.len(), max: limits::RICH_CHANGE_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

/// An entry in its log: the author's entry and what the server's log writer added.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Its position.
    pub offset: Offset,
    /// Who wrote it.
    pub actor: ActorId,
    /// The user that the actor is bound to.
    pub user: UserId,
    /// When the server took it; never decreasing in offset.
    pub accepted: Time,
    /// `base.end`, brought down to what its author can really have seen: min(base, fork of its epoch, own offset).
    pub base: Offset,
    /// The entry as pushed, but that changes of an old root are translated.
    pub entry: Entry,
}

impl Logged {
    /// When it counts: the author's time, but not later than the server took it.
    pub fn effective(&self) -> Time {
        time::effective(self.entry.header.time, self.accepted)
    }

    /// The last millisecond in which it is worth delivering; none: it is for ever.
    pub fn expires(&self) -> Option<WallMs> {
        self.entry.body.lifetime_ms.map(|lifetime| self.effective().ms().saturating_add(lifetime))
    }

    /// Why it is not delivered at `now`; none if it is.
    pub fn gone(&self, now: WallMs) -> Option<Gone> {
        self.entry.gone.or_else(|| self.expires().filter(|last| *last < now).map(|_| Gone::Expired))
    }

    /// Its id.
    pub fn id(&self) -> EntryId {
        EntryId { actor: self.actor, seq: self.entry.header.seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EpochId, RecordId};
    use crate::op::{FieldOp, Insert, Update};

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn entry(ops: Vec<Op>) -> Result<Entry, InvalidEntry> {
        let base = Base { epoch: EpochId::NONE, end: Offset(0) };
        let header = Header::new(RunId([1; 8]), 1, Seq(1), base, Time::from_ms(1_000));
        let args = Some(Value::Map([("id".to_owned(), Value::from("x"))].into()));
        Entry::new(header, Arc::new(Body::new(name("addTodo"), args, ops, None, Salt([9; 8]))))
    }

    fn set(field: &str) -> Op {
        let record = RecordId::new("x").expect("an id");
        let op = FieldOp::Set(Value::from("milk"));
        Op::Update(Update { collection: name("todos"), record, field: name(field), op })
    }

    #[test]
    fn bytes_round_trip_and_keep_the_digest() {
        let entry = entry(vec![set("title")]).expect("valid");
        let again = Entry::from_bytes(&entry.to_bytes()).expect("parses");
        assert_eq!(again, entry);
        assert_eq!(again.digest(), Digest::of(&[&entry.to_bytes()]));
    }

    #[test]
    fn reserved_field_names_are_refused() {
        assert_eq!(entry(vec![set("id")]), Err(InvalidEntry::FieldName("id".into())));
        assert_eq!(entry(vec![set("$")]), Err(InvalidEntry::FieldName("$".into())));
        let record = RecordId::new("x").expect("an id");
        let fields = vec![(name("$x"), FieldOp::Increment(1))];
        let insert = Op::Insert(Insert { collection: name("todos"), record, fields });
        assert_eq!(entry(vec![insert]), Err(InvalidEntry::FieldName("$x".into())));
    }

    #[test]
    fn an_op_of_an_unknown_kind_keeps_its_content_and_the_entry_its_digest() {
        let kinds = [(77u8, ("todos", "x", [1, 2])), (200, ("head", "", [3, 4]))];
        let (header, mut body) =
            (entry(vec![]).expect("valid").header, codec::to_bytes(&*entry(vec![]).expect("valid").body));
        // The empty array of ops, in front of the lifetime and the salt.
        let ops = body.len() - 1 - codec::to_bytes(&Salt([9; 8])).len() - 1;
        body.splice(ops..=ops, codec::to_bytes(&kinds));
        let bytes = [codec::to_bytes(&header), body].concat();
        let read = Entry::from_bytes(&bytes).expect("canonical, though nobody here knows what it does");
        assert_eq!(read.body.ops.iter().filter_map(Op::unknown_kind).collect::<Vec<_>>(), [77, 200]);
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.digest(), Digest::of(&[&bytes]));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_an_error_or_another_digest() {
        let entry = entry(vec![set("title")]).expect("valid");
        let bytes = entry.to_bytes();
        for at in 0..bytes.len() {
            assert!(Entry::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(other) = Entry::from_bytes(&damaged) {
                    assert_ne!(other.digest(), entry.digest(), "byte {at} bit {bit}");
                }
            }
        }
    }
}
