//! Drafts: what a mutator recorded, before rich edits are changes.
//!
//! The app's side records splices of texts; the change that carries them can only be made where the document is.

use std::collections::BTreeMap;

use crate::id::{Name, RecordId};
use crate::op::DeletePolicy;
use crate::rich::Splice;
use crate::value::Value;

/// An action as the mutator left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The action's name.
    pub name: Name,
    /// Its arguments, unless switched off.
    pub args: Option<Value>,
    /// What it does, in order.
    pub ops: Vec<DraftOp>,
    /// For events: how long it is worth delivering, in milliseconds.
    pub lifetime_ms: Option<u64>,
}

/// One op of a draft.
#[derive(Clone, Debug, PartialEq)]
pub enum DraftOp {
    /// Creates a record or merges into it.
    Insert(Name, RecordId, Vec<(Name, DraftFieldOp)>),
    /// Changes one field.
    Update(Name, RecordId, Name, DraftFieldOp),
    /// Removes a record.
    Delete(Name, RecordId, DeletePolicy),
}

/// One field op of a draft.
#[derive(Clone, Debug, PartialEq)]
pub enum DraftFieldOp {
    /// Register family.
    Set(Value),
    /// Counter.
    Increment(i64),
    /// Set.
    Add(Vec<Value>),
    /// Set.
    Remove(Vec<Value>),
    /// First content of a text.
    InitialText(String),
    /// Splices of a text, each on what the ones before it left; positions in UTF-16 code units.
    Splice(Vec<Splice>),
}

impl Draft {
    /// The same draft with all splices of one field in one place, so that one action makes one change of a document.
    #[must_use]
    pub fn merged(mut self) -> Self {
        let mut first: BTreeMap<(Name, RecordId, Name), usize> = BTreeMap::new();
        let mut ops: Vec<DraftOp> = Vec::with_capacity(self.ops.len());
        for op in self.ops.drain(..) {
            if let DraftOp::Update(collection, record, field, DraftFieldOp::Splice(splices)) = &op {
                let key = (collection.clone(), record.clone(), field.clone());
                if let Some(at) = first.get(&key)
                    && let Some(DraftOp::Update(_, _, _, DraftFieldOp::Splice(before))) = ops.get_mut(*at)
                {
                    before.extend(splices.iter().cloned());
                    continue;
                }
                first.insert(key, ops.len());
            }
            if let DraftOp::Delete(collection, record, _) = &op {
                first.retain(|(of, id, _), _| (of, id) != (collection, record));
            }
            ops.push(op);
        }
        self.ops = ops;
        self
    }
}
