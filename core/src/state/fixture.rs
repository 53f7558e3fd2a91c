//! What the tests of this crate build logs from: authors that act, and the smallest server that gives offsets.

use std::sync::Arc;

use super::{Fold, FoldError, RecordKey, State};
use crate::entry::{Body, Entry, Header, Logged, Salt};
use crate::id::{ActorId, Base, EpochId, LogId, Name, Offset, RecordId, RunId, Seq, UserId};
use crate::op::{Delete, DeletePolicy, FieldOp, Insert, Op, Update};
use crate::time::{self, Time};
use crate::value::Value;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) fn id(text: &str) -> RecordId {
    RecordId::new(text).expect("an id")
}

pub(crate) fn key(record: &str) -> RecordKey {
    RecordKey { collection: name("todos"), record: id(record) }
}

pub(crate) fn insert(record: &str, fields: Vec<(&str, FieldOp)>) -> Op {
    let fields = fields.into_iter().map(|(field, op)| (name(field), op)).collect();
    Op::Insert(Insert { collection: name("todos"), record: id(record), fields })
}

pub(crate) fn update(record: &str, field: &str, op: FieldOp) -> Op {
    Op::Update(Update { collection: name("todos"), record: id(record), field: name(field), op })
}

pub(crate) fn delete(record: &str) -> Op {
    Op::Delete(Delete { collection: name("todos"), record: id(record), policy: DeletePolicy::Wins })
}

/// A delete that lets updates win, with a grace of so many milliseconds.
pub(crate) fn delete_unless_changed(record: &str, grace_ms: u64) -> Op {
    let policy = DeletePolicy::UpdateWins { grace_ms };
    Op::Delete(Delete { collection: name("todos"), record: id(record), policy })
}

pub(crate) fn set(value: &str) -> FieldOp {
    FieldOp::Set(Value::from(value))
}

pub(crate) fn add(elements: &[&str]) -> FieldOp {
    FieldOp::Add(elements.iter().map(|element| Value::from(*element)).collect())
}

pub(crate) fn remove(elements: &[&str]) -> FieldOp {
    FieldOp::Remove(elements.iter().map(|element| Value::from(*element)).collect())
}

/// One tab of one client.
#[derive(Clone)]
pub(crate) struct Tab {
    pub(crate) actor: ActorId,
    pub(crate) run: RunId,
    pub(crate) n: u64,
    pub(crate) seq: u64,
}

impl Tab {
    pub(crate) fn new(actor: u8) -> Self {
        Self { actor: ActorId([actor; 16]), run: RunId([actor; 8]), n: 0, seq: 0 }
    }

    /// An entry made at `ms` by a view that had applied `base` entries.
    pub(crate) fn act(&mut self, base: u64, ms: u64, ops: Vec<Op>) -> Entry {
        self.n += 1;
        self.seq += 1;
        let base = Base { epoch: EpochId::NONE, end: Offset(base) };
        let header = Header::new(self.run, self.n, Seq(self.seq), base, Time::from_ms(ms));
        Entry::new(header, Arc::new(Body::new(name("act"), None, ops, None, Salt::default()))).expect("valid")
    }
}

/// A server's log and the state it folds.
pub(crate) struct Log {
    pub(crate) state: State,
    pub(crate) entries: Vec<Logged>,
    pub(crate) now_ms: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { state: State::new(LogId([7; 16])), entries: Vec::new(), now_ms: 1_000_000 }
    }

    pub(crate) fn accept(&mut self, tab: &Tab, entry: Entry) -> Logged {
        let accepted = time::accepted(self.now_ms, self.state.accepted_last());
        let offset = self.state.cursor().next;
        let base = entry.header.base.end.min(offset);
        let user = UserId::new(&format!("user{}", tab.actor.0[0])).expect("a user");
        Logged { offset, actor: tab.actor, user, accepted, base, entry }
    }

    pub(crate) fn push(&mut self, tab: &Tab, entry: Entry) -> Result<Fold, FoldError> {
        let logged = self.accept(tab, entry);
        let fold = self.state.fold(&logged)?;
        self.entries.push(logged);
        Ok(fold)
    }

    /// Acts and pushes at once, at the server's time, having seen `base` entries.
    pub(crate) fn act(&mut self, tab: &mut Tab, base: u64, ops: Vec<Op>) -> Fold {
        self.now_ms += 1;
        let entry = tab.act(base, self.now_ms, ops);
        self.push(tab, entry).expect("folds")
    }

    pub(crate) fn register(&self, record: &str, field: &str) -> Option<Value> {
        let field = self.state.record(&name("todos"), &id(record))?.field(&name(field))?;
        field.shown().map(|living| living.value.clone())
    }

    pub(crate) fn set(&self, record: &str, field: &str) -> Vec<String> {
        self.set_of(record, field).unwrap_or_default()
    }

    /// None if it was never used.
    pub(crate) fn set_of(&self, record: &str, field: &str) -> Option<Vec<String>> {
        let record = self.state.record(&name("todos"), &id(record)).expect("the record");
        let elements = record.field(&name(field)).and_then(|field| field.set())?;
        Some(
            elements
                .map(|element| if let Value::Text(text) = element { text.clone() } else { String::new() })
                .collect(),
        )
    }
}
