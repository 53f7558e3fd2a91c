//! The gate in front of the log for rich changes: only what every replica can apply gets an offset.
//!
//! Changes go into the open document of confirmed state before their entry is folded; folding then finds them there.
//! An entry is let through whole or not at all: after a refusal the documents it touched are opened anew when they are
//! needed next. An edit of a record that is gone is void and never reaches a document.
//!
//! The gate has two parts. What reads foreign bytes needs no state ([`rich_changes`] gives them, with the author that
//! each must have, to [`rich::inspect`](crate::rich::inspect)): a server does it in a process that it can kill, and
//! entries that did not survive it come here as refused. The rest, in `admit`, takes steps that the sizes bound.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::entry::{Entry, Header, Logged};
use crate::id::ActorId;
use crate::limits;
use crate::op::{Edit, FieldOp, Op, RichChange};
use crate::protocol::Code;
use crate::rich::{Candidate, ChangeRefusal, RichActor};
use crate::state::{Author, FieldKey, RecordKey, State, TextError, text};

/// The only root there is before re-rooting: the fixed genesis.
const GENESIS_ROOT: u64 = 0;

/// Why an entry is refused.
pub(super) type Refusal = (Code, String);

/// The rich changes of an entry, each with the author that it must have been made by.
pub fn rich_changes(actor: ActorId, entry: &Entry) -> impl Iterator<Item = Candidate<'_>> {
    let edits = entry.body.ops.iter().filter_map(|op| Some((RecordKey::of(op)?, op)));
    edits.flat_map(move |(key, op)| {
        op.field_ops().filter_map(move |(field, op)| {
            let FieldOp::Edit(Edit::Change(change)) = op else { return None };
            let at = FieldKey { key: key.clone(), field: field.clone() };
            Some(candidate(actor, &entry.header, &at, change))
        })
    })
}

fn candidate<'a>(actor: ActorId, header: &Header, at: &FieldKey, change: &'a RichChange) -> Candidate<'a> {
    let FieldKey { key: RecordKey { collection, record }, field } = at;
    let (collection, record, field) = (collection.as_str(), record.as_str(), field.as_str());
    let actor = RichActor::derive(&actor.origin().0, &header.run.0, collection, record, field, change.incarnation);
    Candidate { bytes: &change.bytes, actor }
}

/// Lets the entry's rich changes into their documents, or none of them.
pub(super) fn admit(state: &mut State, logged: &Logged) -> Result<(), Refusal> {
    let edits = edits(state, logged);
    if edits.is_empty() {
        return Ok(());
    }
    let (mut admitted, mut ops) = (0, 0);
    let all = AssertUnwindSafe(|| {
        edits.iter().try_for_each(|(at, edit)| {
            ops += lay(state, logged, at, edit)?;
            admitted += 1;
            within_bounds(ops)
        })
    });
    // The bytes come from anybody: a panic in the kernel is one entry's trouble, not the server's.
    let (outcome, touched) = match catch_unwind(all) {
        Ok(outcome) => (outcome, admitted),
        Err(_) => (Err((Code::RichChange, "the change brings the merge kernel down".to_owned())), edits.len()),
    };
    if outcome.is_err() {
        // A refused change leaves no trace by itself; those let in before it must go.
        edits[..touched].iter().for_each(|(field, _)| state.forget_document(field));
    }
    outcome
}

/// The edits that will not be void, in their order.
fn edits<'a>(state: &State, logged: &'a Logged) -> Vec<(FieldKey, &'a Edit)> {
    let ops = &logged.entry.body.ops;
    let is_edit = |(_, op): (_, &FieldOp)| matches!(op, FieldOp::Edit(_));
    if !ops.iter().any(|op| op.field_ops().any(is_edit)) {
        return Vec::new();
    }
    let author = Author::of(logged);
    // What earlier ops of the same entry made of a record.
    let mut living: BTreeMap<RecordKey, bool> = BTreeMap::new();
    let mut edits = Vec::new();
    for op in ops {
        let Some(key) = RecordKey::of(op) else { continue };
        let lives = match op {
            Op::Insert(_) => !state.is_erased(&author, op),
            Op::Delete(_) | Op::Erase(_) => false,
            _ => living.get(&key).copied().unwrap_or_else(|| !state.is_void(&author, op)),
        };
        living.insert(key.clone(), lives);
        if !lives {
            continue;
        }
        for (field, op) in op.field_ops() {
            if let FieldOp::Edit(edit) = op {
                edits.push((FieldKey { key: key.clone(), field: field.clone() }, edit));
            }
        }
    }
    edits
}

/// Lays one edit; gives the number of its ops.
fn lay(state: &mut State, logged: &Logged, at: &FieldKey, edit: &Edit) -> Result<usize, Refusal> {
    let damaged = |error: TextError| (Code::RichChange, error.to_string());
    let document = state.document_mut(at).map_err(damaged)?;
    let Edit::Change(change) = edit else {
        return text::apply(document, [edit].into_iter()).map(|_| 0).map_err(damaged);
    };
    if change.root != GENESIS_ROOT {
        return Err((Code::RichChange, format!("there is no root {}", change.root)));
    }
    let refused = |refusal: ChangeRefusal| {
        let code = match refusal {
            ChangeRefusal::UnknownDependency { .. } => Code::RichDependency,
            _ => Code::RichChange,
        };
        (code, refusal.to_string())
    };
    let verdicts = document.gate(&[candidate(logged.actor, &logged.entry.header, at, change)]);
    verdicts.into_iter().map(|verdict| verdict.map(|admitted| admitted.ops).map_err(refused)).sum()
}

fn within_bounds(ops: usize) -> Result<(), Refusal> {
    const MAX: usize = limits::RICH_ENTRY_OPS_MAX;
    if ops <= MAX {
        return Ok(());
    }
    Err((Code::RichChange, format!("the changes of one entry have more than {MAX} ops")))
}
