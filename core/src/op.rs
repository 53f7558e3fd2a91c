//! Ops: what an action does to records, each naming its merge.
//!
//! Because the op names the merge, servers and old apps fold it without the app's schema. Kinds are numbered once and
//! for ever (docs/log-format.md, "Ops"). The generic `N` is a name as text ([`Name`]) in canonical bytes, and an index
//! into a frame's table of names when packed.

use std::fmt;

use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{Opaque, tagged};
use crate::id::{ActorId, Name, RecordId};
use crate::limits;
use crate::time::Time;
use crate::value::Value;

/// One effect of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<N = Name> {
    /// Creates a record; on one that exists it merges field by field.
    Insert(Insert<N>),
    /// Changes one field of a record.
    Update(Update<N>),
    /// Removes a record.
    Delete(Delete<N>),
    /// Erases content for good. Only the log itself writes it.
    Erase(Erase<N>),
    /// A kind from a newer version, by its number, with its content as it came. A reader stops its log here
    /// (`update-needed`); servers refuse it.
    Unknown(u8, Opaque),
}

tagged!(Op<N> {
    Insert(Insert<N>) = 0, Update(Update<N>) = 1, Delete(Delete<N>) = 2, Erase(Erase<N>) = 3,
} unknown Unknown);

/// Creates a record, or merges into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Insert<N = Name> {
    /// The collection.
    pub collection: N,
    /// The record's id.
    pub record: RecordId,
    /// First values, in the order the app gave them.
    pub fields: Vec<(N, FieldOp)>,
}

/// Changes one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update<N = Name> {
    /// The collection.
    pub collection: N,
    /// The record's id.
    pub record: RecordId,
    /// The field.
    pub field: N,
    /// What happens to it.
    pub op: FieldOp,
}

/// Removes a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delete<N = Name> {
    /// The collection.
    pub collection: N,
    /// The record's id.
    pub record: RecordId,
    /// What happens to edits the author had not seen.
    pub policy: DeletePolicy,
}

/// What is erased of a log.
#[derive(Clone, Debug, PartialEq)]
pub enum Erase<N = Name> {
    /// A record: collection and id.
    Record((N, RecordId)),
    /// Everything in it.
    Log(()),
    /// What these authors did.
    Authors(Vec<ActorId>),
    /// What came since of what was erased before, from who had not heard of it: void already, it goes as well.
    Late(()),
    /// A kind from a newer version, by its number, with its content as it came.
    Unknown(u8, Opaque),
}

tagged!(Erase<N> { Record((N, RecordId)) = 0, Log(()) = 1, Authors(Vec<ActorId>) = 2, Late(()) = 3 } unknown Unknown);

/// What a delete does to edits its author had not seen.
#[derive(Clone, Debug, PartialEq)]
pub enum DeletePolicy {
    /// The record goes; unseen edits are void and reported (`record-gone`).
    Wins,
    /// The record stays if there are such edits, and one that comes later brings it back as it was.
    UpdateWins {
        /// For how long the deleted record is kept for that, in milliseconds of accepted time.
        grace_ms: u64,
    },
    /// A policy of a newer version, by its number, with its content as it came.
    Unknown(u8, Opaque),
}

impl DeletePolicy {
    /// Updates win, with the grace that clients give.
    pub const UPDATE_WINS: Self = Self::UpdateWins { grace_ms: limits::DELETE_GRACE_MS };
}

/// The number of [`DeletePolicy::Wins`], which stands alone; the others are `[number, content]`.
const WINS: u8 = 0;
/// The number of [`DeletePolicy::UpdateWins`].
const UPDATE_WINS: u8 = 1;

impl Serialize for DeletePolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Wins => serializer.serialize_u8(WINS),
            Self::UpdateWins { grace_ms } => (UPDATE_WINS, grace_ms).serialize(serializer),
            Self::Unknown(policy, content) => (policy, content).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DeletePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PolicyVisitor)
    }
}

struct PolicyVisitor;

impl<'de> Visitor<'de> for PolicyVisitor {
    type Value = DeletePolicy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0 or [policy, content]")
    }

    fn visit_u64<E: de::Error>(self, policy: u64) -> Result<DeletePolicy, E> {
        let wins = (policy == u64::from(WINS)).then_some(DeletePolicy::Wins);
        wins.ok_or_else(|| E::custom(format!("policy {policy} without its content")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<DeletePolicy, A::Error> {
        let missing = |at| <A::Error as de::Error>::invalid_length(at, &self);
        let policy = match seq.next_element::<u8>()?.ok_or_else(|| missing(0))? {
            WINS => return Err(de::Error::custom("policy 0 has no content")),
            UPDATE_WINS => DeletePolicy::UpdateWins { grace_ms: seq.next_element()?.ok_or_else(|| missing(1))? },
            policy => DeletePolicy::Unknown(policy, seq.next_element()?.ok_or_else(|| missing(1))?),
        };
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(policy),
            Some(_) => Err(de::Error::custom("more than a policy and its content")),
        }
    }
}

/// What happens to one field. Each kind has state of its own, so two kinds on one field never disturb each other.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldOp {
    /// Register family: this value takes the place of those its author had seen.
    Set(Value),
    /// Counter: adds an integer, which may be negative.
    Increment(i64),
    /// Set: adds elements.
    Add(Vec<Value>),
    /// Set: removes the adds its author had seen.
    Remove(Vec<Value>),
    /// Rich field: first content or a change.
    Edit(Edit),
    /// A kind from a newer version, by its number, with its content as it came.
    Unknown(u8, Opaque),
}

tagged!(FieldOp {
    Set(Value) = 0, Increment(i64) = 1, Add(Vec<Value>) = 2, Remove(Vec<Value>) = 3, Edit(Edit) = 4,
} unknown Unknown);

/// What happens to a rich field.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// First content of a text field. Every replica derives the same change from it, so the same content given by two
    /// devices stands there once.
    InitialText(String),
    /// One change, as the merge kernel encodes it.
    Change(RichChange),
    /// A new root, as the log itself gives one to a text whose history has grown far beyond its content.
    Root(Root),
    /// A change that was made on the root before and that the gate has translated. Only the gate makes it.
    Moved(Moved),
    /// A kind from a newer version, by its number, with its content as it came.
    Unknown(u8, Opaque),
}

tagged!(Edit { InitialText(String) = 0, Change(RichChange) = 1, Root(Root) = 2, Moved(Moved) = 3 } unknown Unknown);

/// One change of a rich field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RichChange {
    /// The root it builds on: 0 is the fixed genesis; later ones are named by the offset of their re-rooting.
    pub root: u64,
    /// Counts this tab's new starts on this document; part of the change's derived actor.
    pub incarnation: u32,
    /// One raw automerge change chunk, never deflated.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// A new root of a rich field: its content without the history that made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Its name: the offset of the entry that says this.
    pub root: u64,
    /// The text as it is before this entry.
    pub content: String,
    /// The end of the grace: changes of the root before are translated while they are accepted no later than this.
    pub until: Time,
}

/// A change of an old root, translated: what counts, and what its author pushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// What was pushed. Translating what builds on it takes this, and so does telling that it was pushed before.
    pub original: RichChange,
    /// The root that the translation is for.
    pub root: u64,
    /// The change that counts; empty if nothing is left of it, since what it deletes was deleted before.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl<N> Op<N> {
    /// The same op with every name replaced, in the order they stand in the bytes.
    ///
    /// # Errors
    /// Whatever `rename` gives.
    pub fn try_rename<'a, M, E>(&'a self, rename: &mut impl FnMut(&'a N) -> Result<M, E>) -> Result<Op<M>, E> {
        Ok(match self {
            Self::Insert(op) => Op::Insert(Insert {
                collection: rename(&op.collection)?,
                record: op.record.clone(),
                fields: op
                    .fields
                    .iter()
                    .map(|(field, op)| Ok((rename(field)?, op.clone())))
                    .collect::<Result<_, E>>()?,
            }),
            Self::Update(op) => Op::Update(Update {
                collection: rename(&op.collection)?,
                record: op.record.clone(),
                field: rename(&op.field)?,
                op: op.op.clone(),
            }),
            Self::Delete(op) => Op::Delete(Delete {
                collection: rename(&op.collection)?,
                record: op.record.clone(),
                policy: op.policy.clone(),
            }),
            Self::Erase(Erase::Record((collection, record))) => {
                Op::Erase(Erase::Record((rename(collection)?, record.clone())))
            }
            Self::Erase(Erase::Log(())) => Op::Erase(Erase::Log(())),
            Self::Erase(Erase::Authors(authors)) => Op::Erase(Erase::Authors(authors.clone())),
            Self::Erase(Erase::Late(())) => Op::Erase(Erase::Late(())),
            Self::Erase(Erase::Unknown(kind, content)) => Op::Erase(Erase::Unknown(*kind, content.clone())),
            // Its names, if it has any, stand in it as text: only who knows a kind can write them once.
            Self::Unknown(kind, content) => Op::Unknown(*kind, content.clone()),
        })
    }
}

impl Op {
    /// The record it touches; none for what touches more than one, and for a kind this build does not know.
    pub fn target(&self) -> Option<(&Name, &RecordId)> {
        match self {
            Self::Insert(op) => Some((&op.collection, &op.record)),
            Self::Update(op) => Some((&op.collection, &op.record)),
            Self::Delete(op) => Some((&op.collection, &op.record)),
            Self::Erase(Erase::Record((collection, record))) => Some((collection, record)),
            Self::Erase(_) | Self::Unknown(..) => None,
        }
    }

    /// Its field ops with their fields.
    pub fn field_ops(&self) -> impl Iterator<Item = (&Name, &FieldOp)> {
        let (inserted, updated) = match self {
            Self::Insert(op) => (op.fields.as_slice(), None),
            Self::Update(op) => (&[][..], Some((&op.field, &op.op))),
            Self::Delete(_) | Self::Erase(_) | Self::Unknown(..) => (&[][..], None),
        };
        inserted.iter().map(|(field, op)| (field, op)).chain(updated)
    }

    /// The op as its author pushed it: without what the gate made of the changes of old roots.
    pub(crate) fn as_pushed(&self) -> Self {
        let pushed = |op: &FieldOp| match op {
            FieldOp::Edit(Edit::Moved(moved)) => FieldOp::Edit(Edit::Change(moved.original.clone())),
            other => other.clone(),
        };
        match self {
            Self::Insert(op) => {
                let fields = op.fields.iter().map(|(field, op)| (field.clone(), pushed(op))).collect();
                Self::Insert(Insert { fields, ..op.clone() })
            }
            Self::Update(op) => Self::Update(Update { op: pushed(&op.op), ..op.clone() }),
            Self::Delete(_) | Self::Erase(_) | Self::Unknown(..) => self.clone(),
        }
    }

    /// The number of a kind that this build does not know, wherever it stands in the op.
    pub fn unknown_kind(&self) -> Option<u8> {
        match self {
            Self::Unknown(kind, _) | Self::Erase(Erase::Unknown(kind, _)) => Some(*kind),
            Self::Delete(Delete { policy: DeletePolicy::Unknown(policy, _), .. }) => Some(*policy),
            _ => self.field_ops().find_map(|(_, op)| match op {
                FieldOp::Unknown(kind, _) | FieldOp::Edit(Edit::Unknown(kind, _)) => Some(*kind),
                _ => None,
            }),
        }
    }
}
