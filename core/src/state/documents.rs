//! Open documents of confirmed rich content.
//!
//! They are derived from [`Text`](super::Text) and never part of what a state says: opening, taking or forgetting one
//! changes no digest and no snapshot.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::text::{self, TextError};
use super::{FieldKey, RecordKey, State, Text, Tombstone};
use crate::id::Name;
use crate::op::{Edit, FieldOp, Op, RichChange};
use crate::rich::{Document, RichActor, Translation};
use crate::time::Time;

#[derive(Debug, Clone, Default)]
pub(crate) struct Documents {
    open: RefCell<BTreeMap<RecordKey, BTreeMap<Name, Open>>>,
    /// What the gate translates late changes with, of fields that some came for.
    translations: BTreeMap<FieldKey, Translation>,
}

#[derive(Debug, Clone)]
struct Open {
    document: Document,
    /// How many of its changes are folded, as far as that is known. A gate puts more there.
    folded: Option<usize>,
}

impl Open {
    /// A document that has exactly the confirmed changes.
    fn exact(document: Document) -> Self {
        Self { folded: Some(document.change_count()), document }
    }

    fn is_exact(&self) -> bool {
        self.folded == Some(self.document.change_count())
    }

    /// Takes a folded edit, which a gate may have applied already. `first`: it is the text's first one.
    fn follow(&mut self, edit: &Edit, first: bool) -> Result<(), TextError> {
        let applied = text::apply(&mut self.document, [edit].into_iter())?;
        // A known initial content may be a gate's work, or a repetition.
        let told = applied.known == 0 || first || !matches!(edit, Edit::InitialText(_));
        self.folded = self.folded.filter(|_| told).map(|folded| folded + applied.added + applied.known);
        Ok(())
    }
}

impl Documents {
    fn take(&self, field: &FieldKey) -> Option<Open> {
        let mut all = self.open.borrow_mut();
        let fields = all.get_mut(&field.key)?;
        let open = fields.remove(&field.field);
        if fields.is_empty() {
            all.remove(&field.key);
        }
        open
    }

    /// Closes the documents of a record that is gone.
    pub(super) fn close(&mut self, record: &RecordKey) {
        self.open.get_mut().remove(record);
        if !self.translations.is_empty() {
            self.translations.retain(|field, _| field.key != *record);
        }
    }

    fn read<T>(&self, field: &FieldKey, read: impl FnOnce(&Document) -> T) -> Option<T> {
        Some(read(&self.open.borrow().get(&field.key)?.get(&field.field)?.document))
    }

    /// Like `read`, for what changes no text: who watches it.
    pub(crate) fn observe<T>(&self, field: &FieldKey, observe: impl FnOnce(&mut Document) -> T) -> Option<T> {
        let mut open = self.open.borrow_mut();
        Some(observe(&mut open.get_mut(&field.key)?.get_mut(&field.field)?.document))
    }
}

impl State {
    /// Open documents follow an op that was laid on confirmed state.
    pub(super) fn follow(&mut self, op: &Op) {
        if self.documents.open.get_mut().is_empty() && self.documents.translations.is_empty() {
            return;
        }
        let Some(key) = RecordKey::of(op) else { return };
        if let Op::Delete(_) = op {
            self.documents.close(&key);
            return;
        }
        for (field, op) in op.field_ops() {
            let FieldOp::Edit(edit) = op else { continue };
            let field = FieldKey { key: key.clone(), field: field.clone() };
            let Some(content) = self.content(&field) else { continue };
            let first = content.end() == 1;
            match edit {
                Edit::Root(_) => {
                    self.forget_document(&field);
                    continue;
                }
                Edit::InitialText(text) if content.knows_initial(text) => continue,
                // It is taken from the content when it is needed next.
                Edit::InitialText(_) => drop(self.documents.translations.remove(&field)),
                _ => {}
            }
            let Some(fields) = self.documents.open.get_mut().get_mut(&key) else { return };
            // One that does not fit closes the document; opening it again says why.
            if fields.get_mut(&field.field).is_some_and(|open| open.follow(edit, first).is_err()) {
                fields.remove(&field.field);
            }
        }
    }

    /// The confirmed rich content of a field, if it has any; of a record that was deleted and may come back, too.
    pub fn content(&self, field: &FieldKey) -> Option<&Text> {
        let record = self.record(&field.key.collection, &field.key.record);
        let record = record.or_else(|| self.tombstones.get(&field.key).map(Tombstone::record))?;
        record.field(&field.field)?.text.as_deref()
    }

    /// Every rich content there is, but of deleted records.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (FieldKey, &Text)> {
        let records = self.collections.iter().flat_map(|(name, records)| records.iter().map(move |it| (name, it)));
        records.flat_map(|(collection, (id, record))| {
            record.fields().filter_map(move |(name, field)| {
                let text = field.text.as_deref()?;
                let key = RecordKey { collection: collection.clone(), record: id.clone() };
                Some((FieldKey { key, field: name.clone() }, text))
            })
        })
    }

    /// The confirmed text of a field; empty if it has none, or no record. Keeps its document open.
    ///
    /// # Errors
    /// [`TextError`] if the content is damaged.
    pub fn text(&self, field: &FieldKey) -> Result<String, TextError> {
        if self.record(&field.key.collection, &field.key.record).is_none() {
            return Ok(String::new());
        }
        if let Some(text) = self.documents.read(field, Document::text) {
            return Ok(text);
        }
        let Some(content) = self.content(field) else { return Ok(String::new()) };
        if let Some(plain) = content.shown.as_deref().or_else(|| content.plain()) {
            return Ok(plain.to_owned());
        }
        let document = content.open()?;
        let text = document.text();
        self.put_document(field, document);
        Ok(text)
    }

    /// The open document of a field; of one without content, the genesis. For the server's gate, which may apply
    /// changes before they are folded; [`State::forget_document`] takes them back.
    ///
    /// # Errors
    /// [`TextError`] if the content is damaged.
    pub fn document_mut(&mut self, field: &FieldKey) -> Result<&mut Document, TextError> {
        let open = match self.documents.take(field) {
            Some(open) => open,
            None => Open::exact(self.open_document(field)?),
        };
        let fields = self.documents.open.get_mut().entry(field.key.clone()).or_default();
        Ok(&mut fields.entry(field.field.clone()).or_insert(open).document)
    }

    /// Opens the document of a field that begins with its record: what there was before does not count.
    pub(crate) fn begin_document(&mut self, field: &FieldKey) {
        self.forget_document(field);
        self.put_document(field, Document::genesis());
    }

    /// Closes the document of a field: what was applied to it and not folded is gone.
    pub fn forget_document(&mut self, field: &FieldKey) {
        self.documents.take(field);
        self.documents.translations.remove(field);
    }

    /// Closes every document; they open again when they are needed.
    pub fn forget_documents(&mut self) {
        self.documents.open.get_mut().clear();
        self.documents.translations.clear();
    }

    /// What a change of the root before is on the root of a field; empty if nothing is left of it. None if the field has
    /// no such root before, or not any more. For the server's gate, like [`State::document_mut`].
    ///
    /// # Errors
    /// [`TextError`]: the change does not fit, or the content is damaged.
    pub(crate) fn translate(
        &mut self,
        field: &FieldKey,
        (change, author): (&RichChange, RichActor),
        accepted: Time,
    ) -> Result<Option<Vec<u8>>, TextError> {
        let Some(translation) = self.translation(field, Some(change.root), accepted)? else { return Ok(None) };
        let edit = Edit::Change(change.clone());
        Ok(Some(text::translate(translation, &edit, Some(author))?.unwrap_or_default()))
    }

    /// Notes a first content that changes of the root before may build on, like [`State::translate`].
    ///
    /// # Errors
    /// [`TextError`]: it does not fit, or the content is damaged.
    pub(crate) fn translate_initial(
        &mut self,
        field: &FieldKey,
        initial: &Edit,
        accepted: Time,
    ) -> Result<(), TextError> {
        match self.translation(field, None, accepted)? {
            Some(translation) => text::translate(translation, initial, None).map(drop),
            None => Ok(()),
        }
    }

    /// The translation from the root before, if that is `root` and within its grace.
    fn translation(
        &mut self,
        field: &FieldKey,
        root: Option<u64>,
        accepted: Time,
    ) -> Result<Option<&mut Translation>, TextError> {
        let Some(content) = self.content(field) else { return Ok(None) };
        let old = content.old_root().filter(|old| root.is_none_or(|root| root == old.root) && accepted <= old.until);
        let Some(old) = old else { return Ok(None) };
        if !self.documents.translations.contains_key(field) {
            let translation = old.translation()?;
            self.documents.translations.insert(field.clone(), translation);
        }
        Ok(self.documents.translations.get_mut(field))
    }

    /// Whether any text has old roots.
    pub(crate) fn has_old_roots(&self) -> bool {
        self.contents().any(|(_, content)| !content.old.is_empty())
    }

    /// Takes over an old root of a text that another state of this log has and this one has not; whether it did.
    pub(crate) fn carry_old_root(&mut self, from: &State, field: &FieldKey, root: u64) -> bool {
        let Some(content) = from.content(field) else { return false };
        let is_same = |state: &State| {
            let record = state.record(&field.key.collection, &field.key.record);
            record.map(|record| (record.created().actor(), record.created().write()))
        };
        let same = is_same(self) == is_same(from);
        let records = self.collections.get_mut(&field.key.collection);
        let text = records
            .and_then(|records| records.get_mut(&field.key.record))
            .and_then(|record| record.fields.iter_mut().find(|(name, _)| *name == field.field))
            .and_then(|(_, field)| field.text.as_deref_mut());
        let Some(text) = text.filter(|text| same && !text.has_root(root)) else { return false };
        let Some(old) = content.as_old_root(root) else { return false };
        text.old.insert(0, old);
        true
    }

    /// When the first of the old roots that are kept comes out of its grace, of those that are in it at this time.
    pub(crate) fn first_grace_end(&self, accepted: Time) -> Option<Time> {
        let ends = self.contents().flat_map(|(_, content)| content.old.iter().map(|old| old.until));
        ends.filter(|until| accepted <= *until).min()
    }

    /// Lets old roots go whose grace is over at this accepted time, but those that `keep` names.
    pub fn forget_old_roots(&mut self, accepted: Time, keep: impl Fn(&FieldKey, u64) -> bool) {
        for (collection, records) in &mut self.collections {
            for (id, record) in records {
                for (name, field) in &mut record.fields {
                    let Some(text) = field.text.as_deref_mut().filter(|text| !text.old.is_empty()) else { continue };
                    let key = RecordKey { collection: collection.clone(), record: id.clone() };
                    let at = FieldKey { key, field: name.clone() };
                    text.forget_old(|old| accepted <= old.until || keep(&at, old.root));
                }
            }
        }
    }

    /// Saves texts that were edited much since they were last saved, so that a snapshot stays small, and leaves the
    /// text of open documents, so that whoever starts from the snapshot need not open them to show it. What a text costs
    /// to save grows with it; doing it only after edits in proportion keeps the sum within bounds.
    ///
    /// # Errors
    /// [`TextError`] if a text is damaged; the others are done all the same.
    pub fn compact(&mut self) -> Result<(), TextError> {
        let mut trouble = Ok(());
        let Self { collections, documents, .. } = self;
        let open = documents.open.get_mut();
        for (collection, records) in collections {
            for (id, record) in records {
                for (name, field) in &mut record.fields {
                    let Some(text) = field.text.as_deref_mut() else { continue };
                    let key = RecordKey { collection: collection.clone(), record: id.clone() };
                    let open =
                        open.get_mut(&key).and_then(|fields| fields.get_mut(name)).filter(|open| open.is_exact());
                    if let Some(open) = &open {
                        text.show(&open.document);
                    }
                    let compacted = match open {
                        Some(open) if text.is_loose() => text.compact(&mut open.document),
                        // Opening it costs more than saving it.
                        None if text.is_very_loose() => text.open().and_then(|mut fresh| text.compact(&mut fresh)),
                        _ => Ok(()),
                    };
                    trouble = trouble.and(compacted);
                }
            }
        }
        trouble
    }

    /// Takes a document out, open or opened for it.
    pub(crate) fn take_document(&self, field: &FieldKey) -> Result<Document, TextError> {
        self.documents.take(field).map_or_else(|| self.open_document(field), |open| Ok(open.document))
    }

    /// Gives back a document that has exactly the confirmed changes.
    pub(crate) fn put_document(&self, field: &FieldKey, document: Document) {
        let mut open = self.documents.open.borrow_mut();
        open.entry(field.key.clone()).or_default().insert(field.field.clone(), Open::exact(document));
    }

    /// SHA-256 of a text's content, without keeping it open.
    pub(crate) fn text_digest(&self, key: &RecordKey, field: &Name, content: &Text) -> Result<[u8; 32], TextError> {
        let field = FieldKey { key: key.clone(), field: field.clone() };
        match self.documents.read(&field, Document::digest) {
            Some(digest) => Ok(digest),
            None => content.open().map(|document| document.digest()),
        }
    }

    fn open_document(&self, field: &FieldKey) -> Result<Document, TextError> {
        self.content(field).map_or_else(|| Ok(Document::genesis()), Text::open)
    }
}
