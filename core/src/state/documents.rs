//! Open documents of confirmed rich content.
//!
//! They are derived from [`Text`](super::Text) and never part of what a state says: opening, taking or forgetting one
//! changes no digest and no snapshot.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::text::{self, TextError};
use super::{FieldKey, RecordKey, State, Text};
use crate::id::Name;
use crate::op::{Edit, FieldOp, Op};
use crate::rich::Document;

#[derive(Debug, Clone, Default)]
pub(crate) struct Documents {
    open: RefCell<BTreeMap<RecordKey, BTreeMap<Name, Open>>>,
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
        let told = applied.known == 0 || first || matches!(edit, Edit::Change(_));
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
        if self.documents.open.get_mut().is_empty() {
            return;
        }
        let Some(key) = RecordKey::of(op) else { return };
        if let Op::Delete(_) = op {
            self.documents.open.get_mut().remove(&key);
            return;
        }
        for (field, op) in op.field_ops() {
            let FieldOp::Edit(edit) = op else { continue };
            let field = FieldKey { key: key.clone(), field: field.clone() };
            let first = self.content(&field).is_some_and(|content| content.end() == 1);
            let Some(fields) = self.documents.open.get_mut().get_mut(&key) else { return };
            // One that does not fit closes the document; opening it again says why.
            if fields.get_mut(&field.field).is_some_and(|open| open.follow(edit, first).is_err()) {
                fields.remove(&field.field);
            }
        }
    }

    /// The confirmed rich content of a field, if it has any.
    pub fn content(&self, field: &FieldKey) -> Option<&Text> {
        let record = self.record(&field.key.collection, &field.key.record)?;
        record.field(&field.field)?.text.as_deref()
    }

    /// The confirmed text of a field; empty if it has none. Keeps its document open.
    ///
    /// # Errors
    /// [`TextError`] if the content is damaged.
    pub fn text(&self, field: &FieldKey) -> Result<String, TextError> {
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

    /// Closes the document of a field: what was applied to it and not folded is gone.
    pub fn forget_document(&mut self, field: &FieldKey) {
        self.documents.take(field);
    }

    /// Closes every document; they open again when they are needed.
    pub fn forget_documents(&mut self) {
        self.documents.open.get_mut().clear();
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
