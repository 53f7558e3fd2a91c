//! Live documents: rich fields with pending edits, confirmed and pending changes together.
//!
//! Changes of a rich field commute, so remote ones are applied beside own pending ones and nothing is laid again. Only
//! when a pending edit leaves unaccepted, or the record becomes another one, is the document built anew, and the field
//! gets a new incarnation: bytes once made are never made again under the same author. When the log gives a text a new
//! root, pending edits of the old one are translated here as the gate will translate them: in the view, never in their
//! bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Overlay;
use crate::entry::{Body, Digest};
use crate::id::{ActorId, Name, RunId, WriteId};
use crate::op::{Edit, FieldOp, Op, RichChange};
use crate::rich::{Document, EditError, RichActor, Splice, Translation};
use crate::state::text::OldRoot;
use crate::state::{Effect, FieldKey, Record, RecordKey, State, Text, TextError, text};

/// Why no change was made for a local edit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// The splices do not fit the text.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The text itself cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// Which record this is, among those that had its id one after the other.
type Identity = (ActorId, WriteId);

pub(super) fn identity(record: &Record) -> Identity {
    (record.created().actor(), record.created().write())
}

#[derive(Debug, Clone)]
struct Live {
    document: Document,
    /// The root it stands on.
    root: u64,
    /// The root before, and how its changes are translated, once there was one.
    old: Option<(Arc<OldRoot>, Option<Box<Translation>>)>,
    /// First contents that do nothing when they are given again.
    initials: BTreeSet<Digest>,
    /// The record it belongs to; none if it was not there yet when the document was opened.
    identity: Option<Identity>,
    /// Confirmed edits it has: the next one's number.
    through: u64,
    /// Pending edits that do not fit: they build on one that was refused and will be refused too, or on confirmed work
    /// that another tab has read before this one.
    misfits: BTreeSet<WriteId>,
}

impl Live {
    /// A document with the confirmed content of its field.
    fn of(content: Option<&Text>, document: Document) -> Self {
        Self {
            document,
            root: content.map_or(0, Text::root),
            old: content.and_then(Text::old_root).map(|old| (old.clone(), None)),
            initials: content.map(|content| content.initials.clone()).unwrap_or_default(),
            identity: None,
            through: content.map_or(0, Text::end),
            misfits: BTreeSet::new(),
        }
    }

    fn take(&mut self, write: WriteId, edit: &Edit) {
        if self.lay(edit).is_err() {
            self.misfits.insert(write);
        }
    }

    /// Lays a pending edit; one of the root before as what it is on this one.
    fn lay(&mut self, edit: &Edit) -> Result<(), Unfit> {
        let moved = match edit {
            Edit::InitialText(content) if self.initials.contains(&text::initial_digest(content)) => return Ok(()),
            Edit::Change(change) if change.root != self.root => {
                let translation = self.translation(change.root)?.ok_or(Unfit)?;
                text::translate(translation, edit, None)?
            }
            _ => {
                // What follows may build on it.
                if let (Edit::InitialText(_), Some(old)) = (edit, self.old.as_ref().map(|(old, _)| old.root)) {
                    self.translation(old)?.map(|translation| text::translate(translation, edit, None)).transpose()?;
                }
                text::apply(&mut self.document, [edit].into_iter())?;
                return Ok(());
            }
        };
        match moved {
            Some(bytes) => self.document.apply(&[&bytes]).map(drop).map_err(|_| Unfit),
            None => Ok(()),
        }
    }

    /// The translation of an old root; none if it is not the one before.
    fn translation(&mut self, root: u64) -> Result<Option<&mut Translation>, TextError> {
        let Some((old, translation)) = self.old.as_mut().filter(|(old, _)| old.root == root) else { return Ok(None) };
        if translation.is_none() {
            *translation = Some(Box::new(old.translation()?));
        }
        Ok(translation.as_deref_mut())
    }
}

/// A pending edit does not fit its document.
struct Unfit;

impl From<TextError> for Unfit {
    fn from(_: TextError) -> Self {
        Self
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Documents {
    live: RefCell<BTreeMap<RecordKey, BTreeMap<Name, Live>>>,
    incarnations: BTreeMap<FieldKey, u32>,
}

impl Documents {
    /// Follows a pending op that was laid on top.
    pub(super) fn follow(
        &mut self,
        key: &RecordKey,
        op: &Op,
        effect: Effect,
        visible: Option<Identity>,
        write: WriteId,
    ) {
        let Some(fields) = self.live.get_mut().get_mut(key) else { return };
        match (op, effect) {
            (_, Effect::Gone) => {}
            (Op::Delete(_), _) => self.restart_fields(key, BTreeSet::new()),
            // What is open is of nothing that was there.
            (_, Effect::Revived) => self.forget(key),
            _ => {
                fields.values_mut().for_each(|live| live.identity = live.identity.or(visible));
                for (field, op) in op.field_ops() {
                    if let (FieldOp::Edit(edit), Some(live)) = (op, fields.get_mut(field)) {
                        live.take(write, edit);
                    }
                }
            }
        }
    }

    /// Closes the documents of a record; they are built again when they are needed.
    pub(super) fn forget(&mut self, key: &RecordKey) {
        self.live.get_mut().remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.live.get_mut().clear();
    }

    /// Begins new incarnations of the fields that a leaving entry edited.
    pub(super) fn restart(&mut self, key: &RecordKey, body: &Body, write: WriteId) {
        let ops = body.ops.iter().filter(|op| RecordKey::of(op).as_ref() == Some(key));
        let edits = ops.flat_map(Op::field_ops).filter(|(_, op)| matches!(op, FieldOp::Edit(_)));
        for (field, _) in edits {
            if !self.is_misfit(key, field, write) {
                self.restart_field(key, field);
            }
        }
        if body.ops.iter().any(|op| matches!(op, Op::Delete(_)) && RecordKey::of(op).as_ref() == Some(key)) {
            self.forget(key);
        }
    }

    /// Begins new incarnations of these fields and of all that are open: other pending edits count now than before.
    pub(super) fn restart_fields(&mut self, key: &RecordKey, mut fields: BTreeSet<Name>) {
        fields.extend(self.live.get_mut().get(key).into_iter().flat_map(BTreeMap::keys).cloned());
        fields.iter().for_each(|field| self.restart_field(key, field));
    }

    /// Whether a pending edit is no part of its document.
    pub(super) fn is_misfit(&self, key: &RecordKey, field: &Name, write: WriteId) -> bool {
        let live = self.live.borrow();
        live.get(key).and_then(|fields| fields.get(field)).is_some_and(|live| live.misfits.contains(&write))
    }

    pub(super) fn restart_field(&mut self, key: &RecordKey, field: &Name) {
        if let Some(fields) = self.live.get_mut().get_mut(key) {
            fields.remove(field);
        }
        *self.incarnations.entry(FieldKey { key: key.clone(), field: field.clone() }).or_default() += 1;
    }

    /// Applies what the log brought since, in one batch a field.
    pub(super) fn catch_up(&mut self, state: &State, key: &RecordKey, visible: Option<Identity>) {
        let Some(fields) = self.live.get_mut().get_mut(key) else { return };
        let confirmed = state.record(&key.collection, &key.record);
        let same = confirmed.map(identity).is_some_and(|confirmed| Some(confirmed) == visible);
        let (mut restarted, mut forgotten) = (Vec::new(), Vec::new());
        for (name, live) in fields.iter_mut() {
            live.identity = live.identity.or(visible);
            if live.identity != visible {
                restarted.push(name.clone());
                continue;
            }
            // While the confirmed record is another one than the one shown, its edits are not in the document.
            let content =
                confirmed.filter(|_| same).and_then(|record| record.field(name)).and_then(|f| f.text.as_ref());
            let Some(content) = content else { continue };
            match content.since(live.through) {
                _ if content.root() != live.root => forgotten.push(name.clone()),
                Some([]) => {}
                // What did not fit may fit now.
                Some(_) if !live.misfits.is_empty() => forgotten.push(name.clone()),
                Some(edits) if text::apply(&mut live.document, edits.iter().map(|edit| &**edit)).is_ok() => {
                    live.through = content.end();
                }
                _ => forgotten.push(name.clone()),
            }
        }
        forgotten.iter().for_each(|field| drop(fields.remove(field)));
        restarted.iter().for_each(|field| self.restart_field(key, field));
    }

    /// Gives the documents of a record without pending ops back to confirmed state.
    pub(super) fn close(&mut self, state: &State, key: &RecordKey) {
        let confirmed = state.record(&key.collection, &key.record).map(identity);
        self.catch_up(state, key, confirmed);
        for (field, live) in self.live.get_mut().remove(key).into_iter().flatten() {
            let field = FieldKey { key: key.clone(), field };
            if state.content(&field).is_some_and(|content| content.end() == live.through) {
                state.put_document(&field, live.document);
            }
        }
    }
}

impl Overlay {
    /// Makes the change for a local edit and applies it to the field's live document. `earlier` are the ops that come
    /// before it in the same action. The change must then be pushed with its entry, or given up with
    /// [`Overlay::abandon`].
    ///
    /// # Errors
    /// [`DraftError`]; the document is then as before.
    pub fn edit_text(
        &mut self,
        state: &State,
        field: &FieldKey,
        splices: &[Splice],
        (actor, run): (ActorId, RunId),
        earlier: &[Op],
    ) -> Result<RichChange, DraftError> {
        let incarnation = self.documents.incarnations.get(field).copied().unwrap_or(0);
        let (collection, record) = (field.key.collection.as_str(), field.key.record.as_str());
        let actor = RichActor::derive(&actor.origin().0, &run.0, collection, record, field.field.as_str(), incarnation);
        let of_record: Vec<_> = earlier.iter().filter(|op| RecordKey::of(op).as_ref() == Some(&field.key)).collect();
        let deleted = of_record.iter().rposition(|op| matches!(op, Op::Delete(_)));
        let edits = of_record.iter().skip(deleted.map_or(0, |at| at + 1)).flat_map(|op| edits_of(op, &field.field));
        let (root, bytes) = if deleted.is_some() {
            let mut document = Document::genesis();
            text::apply(&mut document, edits)?;
            (0, document.edit(actor, splices)?)
        } else {
            self.open(state, field)?;
            let live = self.documents.live.get_mut().get_mut(&field.key).and_then(|live| live.get_mut(&field.field));
            let Some(live) = live else { return Err(EditError::Empty.into()) };
            let initials = &live.initials;
            let known = |edit: &&Edit| matches!(edit, Edit::InitialText(content) if initials.contains(&text::initial_digest(content)));
            text::apply(&mut live.document, edits.filter(|edit| !known(edit)))?;
            (live.root, live.document.edit(actor, splices)?)
        };
        Ok(RichChange { root, incarnation, bytes })
    }

    /// Forgets a change that [`Overlay::edit_text`] made and that was not pushed.
    pub fn abandon(&mut self, field: &FieldKey) {
        self.documents.restart_field(&field.key, &field.field);
    }

    /// The text of a field as it is shown.
    pub(super) fn text(&self, state: &State, field: &FieldKey) -> Result<String, TextError> {
        let read = |live: &Live| live.document.text();
        let live = self.documents.live.borrow().get(&field.key).and_then(|fields| fields.get(&field.field)).map(read);
        if let Some(text) = live {
            return Ok(text);
        }
        if self.shows_confirmed(state, field) {
            return state.text(field);
        }
        if let Some(plain) = self.plain(state, field) {
            return Ok(plain);
        }
        self.open(state, field)?;
        let live = self.documents.live.borrow();
        Ok(live.get(&field.key).and_then(|fields| fields.get(&field.field)).map(read).unwrap_or_default())
    }

    /// The open document that makes the text of a field as it is shown, if one does: to ask it, or to watch it.
    pub(super) fn observe<T>(
        &self,
        state: &State,
        field: &FieldKey,
        observe: impl FnOnce(&mut Document) -> T,
    ) -> Option<T> {
        if let Some(fields) = self.documents.live.borrow_mut().get_mut(&field.key)
            && let Some(live) = fields.get_mut(&field.field)
        {
            return Some(observe(&mut live.document));
        }
        self.shows_confirmed(state, field).then(|| state.documents.observe(field, observe)).flatten()
    }

    /// What happened to the shown text since the last call, if that is known and short.
    pub(super) fn text_changes(&self, state: &State, field: &FieldKey) -> Option<Vec<Splice>> {
        let confirmed = self.shows_confirmed(state, field) && !self.is_live(field);
        if !confirmed {
            // It does not make what is shown: should it later, nobody was told what happened until then.
            state.documents.observe(field, Document::unwatch);
        }
        let changes = self.observe(state, field, |document| {
            let changes = document.changes().map(<[Splice]>::to_vec);
            document.watch();
            changes
        });
        changes.flatten()
    }

    fn is_live(&self, field: &FieldKey) -> bool {
        self.documents.live.borrow().get(&field.key).is_some_and(|fields| fields.contains_key(&field.field))
    }

    /// Whether what is shown of a field is the confirmed text, unless a live document says otherwise.
    fn shows_confirmed(&self, state: &State, field: &FieldKey) -> bool {
        let Some(laid) = self.laid(&field.key) else { return true };
        let confirmed = state.record(&field.key.collection, &field.key.record);
        laid.visible().map(identity) == confirmed.map(identity) && !laid.edits(&field.field)
    }

    /// The text, if only initial contents make it.
    fn plain(&self, state: &State, field: &FieldKey) -> Option<String> {
        let laid = self.laid(&field.key)?;
        let content = state.content(field);
        let confirmed = content.map_or(Some(""), |content| content.plain())?;
        let (mut known, mut rooted) =
            (content.map(|content| &content.initials), content.is_some_and(|it| it.root() > 0));
        let mut edits = vec![Edit::InitialText(confirmed.to_owned())];
        let mut slot = state.slot(&field.key);
        let mut changed = false;
        laid.each_op(&self.entries, |author, op| {
            let effect = slot.lay(author, op);
            if effect == Effect::Begun {
                edits.clear();
                (changed, rooted, known) = (false, false, None);
            }
            if effect.counts() {
                edits_of(op, &field.field).for_each(|edit| match edit {
                    Edit::InitialText(text) if known.is_some_and(|all| all.contains(&text::initial_digest(text))) => {}
                    Edit::InitialText(_) if !rooted => edits.push(edit.clone()),
                    _ => changed = true,
                });
            }
        });
        if slot.record().is_none() {
            return Some(String::new());
        }
        if changed {
            return None;
        }
        text::plain(edits.iter()).map(str::to_owned)
    }

    /// Opens the live document of a field: the confirmed one, and the pending edits in their order.
    fn open(&self, state: &State, field: &FieldKey) -> Result<(), TextError> {
        if self.is_live(field) {
            return Ok(());
        }
        let mut slot = state.slot(&field.key);
        let mut live = Live::of(state.content(field), state.take_document(field)?);
        if let Some(laid) = self.laid(&field.key) {
            laid.each_op(&self.entries, |author, op| {
                let effect = slot.lay(author, op);
                if effect == Effect::Begun {
                    live = Live::of(None, Document::genesis());
                }
                if effect.counts() {
                    self.marker.own(author.stamp.write());
                    edits_of(op, &field.field).for_each(|edit| live.take(author.stamp.write(), edit));
                }
            });
            self.marker.done();
        }
        if slot.record().is_none() {
            live = Live::of(None, Document::genesis());
        }
        live.identity = slot.record().map(identity);
        let mut all = self.documents.live.borrow_mut();
        all.entry(field.key.clone()).or_default().insert(field.field.clone(), live);
        Ok(())
    }
}

fn edits_of<'a>(op: &'a Op, field: &'a Name) -> impl Iterator<Item = &'a Edit> {
    op.field_ops().filter_map(move |(name, op)| match op {
        FieldOp::Edit(edit) if name == field => Some(edit),
        _ => None,
    })
}
