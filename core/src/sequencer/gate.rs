//! The gate in front of the log for rich changes: only what every replica can apply gets an offset.
//!
//! Changes go into the open document of confirmed state before their entry is folded; folding then finds them there.
//! An entry is let through whole or not at all: after a refusal the documents it touched are opened anew when they are
//! needed next. An edit of a record that is gone is void and never reaches a document. A change of the root before is
//! translated to the root of its text, once: the log says what it is there, and keeps what was pushed beside it.
//!
//! The gate has two parts. What reads foreign bytes needs no state ([`rich_changes`] gives them, with the author that
//! each must have, to [`rich::inspect`](crate::rich::inspect)): a server does it in a process that it can kill, and
//! entries that did not survive it come here as refused. The rest, in `admit`, takes steps that the sizes bound.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::entry::{Entry, Header, Logged};
use crate::id::{ActorId, Name};
use crate::limits;
use crate::op::{Edit, FieldOp, Moved, Op, RichChange};
use crate::protocol::Code;
use crate::rich::{Candidate, ChangeRefusal, RichActor, inspect};
use crate::state::{Author, Effect, FieldKey, RecordKey, Slot, State, TextError, text};

/// Why an entry is refused.
pub type Refusal = (Code, String);

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

/// Lets the entry's rich changes into their documents, or none of them. Gives the entry as the log is to have it.
///
/// # Errors
/// Why it is refused, as a number and for people.
pub fn admit(state: &mut State, mut logged: Logged) -> Result<Logged, Refusal> {
    let Some(ops) = admit_edits(state, &logged)? else { return Ok(logged) };
    match logged.entry.translated(ops) {
        Ok(entry) => logged.entry = entry,
        // Its author makes it again on the new root, where it needs no translation beside it.
        Err(error) => {
            forget(state, &logged);
            return Err((Code::OldRoot, format!("what it is on the new root does not fit beside it: {error}")));
        }
    }
    Ok(logged)
}

/// Lets the edits in; gives the ops as the log is to have them, where that is otherwise than they were pushed.
fn admit_edits(state: &mut State, logged: &Logged) -> Result<Option<Vec<Op>>, Refusal> {
    let edits = edits(state, logged);
    if edits.is_empty() {
        return Ok(None);
    }
    let (mut admitted, mut ops, mut moved) = (0, 0, BTreeMap::new());
    let all = AssertUnwindSafe(|| {
        edits.iter().try_for_each(|found| {
            let laid = lay(state, logged, found)?;
            ops += laid.ops;
            admitted += 1;
            moved.extend(laid.moved.map(|edit| (found.place, edit)));
            within_bounds(ops)
        })
    });
    // The bytes come from anybody: a panic in the kernel is one entry's trouble, not the server's.
    let (outcome, touched) = match catch_unwind(all) {
        Ok(outcome) => (outcome, admitted),
        Err(_) => (Err((Code::RichChange, "the change brings the merge kernel down".to_owned())), edits.len()),
    };
    if outcome.is_err() {
        // A refused change leaves no trace by itself; those let in before it must go, and what was translated of it.
        edits[..edits.len().min(touched + 1)].iter().for_each(|found| state.forget_document(&found.at));
    }
    outcome?;
    Ok((!moved.is_empty()).then(|| with_moved(&logged.entry.body.ops, moved)))
}

/// Forgets what was let in: the entry does not come to the log after all.
fn forget(state: &mut State, logged: &Logged) {
    let keys = logged.entry.body.ops.iter().filter_map(|op| Some((RecordKey::of(op)?, op)));
    for (key, op) in keys {
        for (field, _) in op.field_ops().filter(|(_, op)| matches!(op, FieldOp::Edit(_))) {
            state.forget_document(&FieldKey { key: key.clone(), field: field.clone() });
        }
    }
}

/// Where an edit stands in an entry: its op, and its field within the op.
type EditPlace = (usize, usize);

/// The ops with the changes that were translated in their places.
fn with_moved(ops: &[Op], mut moved: BTreeMap<EditPlace, Edit>) -> Vec<Op> {
    let mut ops = ops.to_vec();
    for (at, op) in ops.iter_mut().enumerate() {
        let fields: Vec<&mut FieldOp> = match op {
            Op::Insert(op) => op.fields.iter_mut().map(|(_, op)| op).collect(),
            Op::Update(op) => vec![&mut op.op],
            Op::Delete(_) | Op::Erase(_) | Op::Unknown(..) => Vec::new(),
        };
        for (place, op) in fields.into_iter().enumerate() {
            if let Some(moved) = moved.remove(&(at, place)) {
                *op = FieldOp::Edit(moved);
            }
        }
    }
    ops
}

/// An edit that will not be void.
struct Found<'a> {
    at: FieldKey,
    place: EditPlace,
    edit: &'a Edit,
    begins: Begins,
}

/// Whether the record of an edit begins with the entry: then nothing that is there counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// It was there before.
    No,
    /// It does, and this is the first edit of the field since.
    Here,
    /// It does, and the field was edited since.
    Before,
}

/// The edits that will not be void, in their order.
fn edits<'a>(state: &State, logged: &'a Logged) -> Vec<Found<'a>> {
    let ops = &logged.entry.body.ops;
    let is_edit = |(_, op): (_, &FieldOp)| matches!(op, FieldOp::Edit(_));
    if !ops.iter().any(|op| op.field_ops().any(is_edit)) {
        return Vec::new();
    }
    let author = Author::of(logged);
    // What earlier ops of the same entry made of a record, and which of its fields they edited if it begins with them.
    let mut slots: BTreeMap<RecordKey, (Slot, Option<BTreeSet<&Name>>)> = BTreeMap::new();
    let mut edits = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        let Some(key) = RecordKey::of(op).filter(|_| !state.is_erased(&author, op)) else { continue };
        let (slot, begun) = slots.entry(key.clone()).or_insert_with(|| (state.outline(&key, logged.accepted), None));
        match slot.stand(&author, op) {
            Effect::Gone => continue,
            Effect::Begun => *begun = Some(BTreeSet::new()),
            Effect::Applied | Effect::Revived => {}
        }
        for (place, (field, op)) in op.field_ops().enumerate() {
            let FieldOp::Edit(edit) = op else { continue };
            let begins = match begun.as_mut().map(|edited| edited.insert(field)) {
                None => Begins::No,
                Some(true) => Begins::Here,
                Some(false) => Begins::Before,
            };
            edits.push(Found {
                at: FieldKey { key: key.clone(), field: field.clone() },
                place: (at, place),
                edit,
                begins,
            });
        }
    }
    edits
}

/// What laying one edit did.
#[derive(Default)]
struct LaidEdit {
    /// How many ops it has.
    ops: usize,
    /// What the log is to have in its place.
    moved: Option<Edit>,
}

/// Lays one edit.
fn lay(state: &mut State, logged: &Logged, found: &Found<'_>) -> Result<LaidEdit, Refusal> {
    let (at, edit, begins) = (&found.at, found.edit, found.begins);
    if begins == Begins::Here {
        state.begin_document(at);
    }
    let content = state.content(at).filter(|_| begins == Begins::No);
    let change = match edit {
        Edit::Change(change) => change,
        Edit::InitialText(text) if content.is_some_and(|content| content.knows_initial(text)) => {
            return Ok(LaidEdit::default());
        }
        edit => {
            if begins == Begins::No {
                state.translate_initial(at, edit, logged.accepted).map_err(unfit)?;
            }
            let document = state.document_mut(at).map_err(unfit)?;
            return text::apply(document, [edit].into_iter()).map(|_| LaidEdit::default()).map_err(unfit);
        }
    };
    let root = content.map_or(0, |content| content.root());
    let candidate = candidate(logged.actor, &logged.entry.header, at, change);
    if change.root != root && begins == Begins::No {
        return lay_moved(state, logged, at, (change, candidate.actor), root);
    }
    if change.root != root {
        return Err((Code::OldRoot, format!("the text begins here; it has no root {}", change.root)));
    }
    let verdicts = state.document_mut(at).map_err(unfit)?.gate(&[candidate]);
    let ops = verdicts.into_iter().map(|verdict| verdict.map(|admitted| admitted.ops).map_err(refused));
    Ok(LaidEdit { ops: ops.sum::<Result<_, _>>()?, moved: None })
}

/// Translates a change of an old root and lays what it is now.
fn lay_moved(
    state: &mut State,
    logged: &Logged,
    at: &FieldKey,
    (change, author): (&RichChange, RichActor),
    root: u64,
) -> Result<LaidEdit, Refusal> {
    let Some(bytes) = state.translate(at, (change, author), logged.accepted).map_err(unfit)? else {
        return Err((
            Code::OldRoot,
            format!("the text has the root {root}; root {} is not kept any more", change.root),
        ));
    };
    let ops = inspect(&Candidate { bytes: &change.bytes, actor: author }).map_err(refused)?;
    let moved = Edit::Moved(Moved { original: change.clone(), root, bytes });
    text::apply(state.document_mut(at).map_err(unfit)?, [&moved].into_iter()).map_err(unfit)?;
    Ok(LaidEdit { ops, moved: Some(moved) })
}

fn unfit(error: TextError) -> Refusal {
    match error {
        TextError::Apply(error) => refused(error.refusal),
        error => (Code::RichChange, error.to_string()),
    }
}

fn refused(refusal: ChangeRefusal) -> Refusal {
    let code = match refusal {
        ChangeRefusal::UnknownDependency { .. } => Code::RichDependency,
        _ => Code::RichChange,
    };
    (code, refusal.to_string())
}

fn within_bounds(ops: usize) -> Result<(), Refusal> {
    const MAX: usize = limits::RICH_ENTRY_OPS_MAX;
    if ops <= MAX {
        return Ok(());
    }
    Err((Code::RichChange, format!("the changes of one entry have more than {MAX} ops")))
}

#[cfg(all(test, feature = "rich"))]
mod tests {
    use super::*;
    use crate::id::RunId;
    use crate::op::Root;
    use crate::overlay::Overlay;
    use crate::rich::Splice;
    use crate::state::fixture::*;
    use crate::time::Time;

    const GRACE_MS: u64 = 1_000;

    fn note() -> FieldKey {
        FieldKey { key: key("x"), field: name("note") }
    }

    /// A change of the note by a tab, on the state as it is.
    fn typed(state: &State, tab: &Tab, at: usize, text: &str) -> Op {
        let splice = Splice { at, delete: 0, insert: text.to_owned() };
        let author: (ActorId, RunId) = (tab.actor, tab.run);
        let change = Overlay::new().edit_text(state, &note(), &[splice], author, &[]).expect("fits");
        update("x", "note", FieldOp::Edit(Edit::Change(change)))
    }

    /// A record with a note that reads `hello you`.
    fn noted() -> (Log, Tab, Tab) {
        let (mut log, mut alice) = (Log::new(), Tab::new(1));
        let first = FieldOp::Edit(Edit::InitialText("hello".to_owned()));
        log.act(&mut alice, 0, vec![insert("x", vec![("note", first)])]);
        let change = typed(&log.state, &alice, 5, " you");
        log.act(&mut alice, 1, vec![change]);
        (log, alice, Tab::new(2))
    }

    #[test]
    fn a_text_begins_with_its_record_whatever_was_left_of_the_one_before() {
        let (mut log, mut alice, mut bob) = noted();
        let root = Root { root: 2, content: "hello you".to_owned(), until: Time::MAX };
        let mut itself = Tab { actor: ActorId::LOG, ..Tab::new(0) };
        log.act(&mut itself, 2, vec![update("x", "note", FieldOp::Edit(Edit::Root(root)))]);
        log.act(&mut alice, 3, vec![delete_unless_changed("x", GRACE_MS)]);
        let entry = bob.act(4, log.now_ms, vec![insert("x", vec![]), typed(&log.state, &bob, 0, "new")]);
        let logged = log.accept(&bob, entry);
        let logged = admit(&mut log.state, logged).expect("fits the text that begins here");
        assert!(!logged.entry.is_translated());
        log.state.fold(&logged).expect("the next entry");
        assert_eq!(log.state.text(&note()).as_deref(), Ok("new"));
    }

    #[test]
    fn a_change_of_what_is_left_of_a_text_is_let_in_until_the_grace_is_over() {
        for (late_ms, fits) in [(GRACE_MS, true), (GRACE_MS + 1, false)] {
            let (mut log, mut alice, mut bob) = noted();
            // The insert merges into the record before, or begins a new one, which has no such text.
            let ops = vec![insert("x", vec![]), typed(&log.state, &bob, 9, "!")];
            log.act(&mut alice, 2, vec![delete_unless_changed("x", GRACE_MS)]);
            log.now_ms += late_ms;
            let entry = bob.act(2, log.now_ms, ops);
            let logged = log.accept(&bob, entry);
            match admit(&mut log.state, logged) {
                Ok(logged) => {
                    log.state.fold(&logged).expect("the next entry");
                    assert_eq!((log.state.text(&note()).as_deref(), fits), (Ok("hello you!"), true));
                }
                Err((code, _)) => assert_eq!((code, fits), (Code::RichDependency, false)),
            }
        }
    }
}
