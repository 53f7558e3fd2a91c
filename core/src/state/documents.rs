//! Open documents of confirmed rich content.
//!
//! They are derived from [`Text`](super::Text) and never part of what a state says: opening, taking or forgetting one
//! changes no digest and no snapshot.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::text::{self, TextError};
use super::{FieldKey, RecordKey, State, Text};
use crate::id::Name;
use crate::op::{FieldOp, Op};
use crate::rich::Document;

#[derive(Debug, Clone, Default)]
pub(crate) struct Documents {
    open: RefCell<BTreeMap<RecordKey, BTreeMap<Name, Document>>>,
}

impl Documents {
    /// Follows an op that was laid on confirmed state.
    pub(super) fn follow(&mut self, op: &Op) {
        let open = self.open.get_mut();
        if open.is_empty() {
            return;
        }
        let Some(key) = RecordKey::of(op) else { return };
        if let Op::Delete(_) = op {
            open.remove(&key);
            return;
        }
        let Some(fields) = open.get_mut(&key) else { return };
        for (field, op) in op.field_ops() {
            // A gate may have applied the change already. One that does not fit closes the document; opening it again
            // says why.
            if let FieldOp::Edit(edit) = op
                && let Some(document) = fields.get_mut(field)
                && text::apply(document, [edit].into_iter()).is_err()
            {
                fields.remove(field);
            }
        }
    }

    fn take(&self, field: &FieldKey) -> Option<Document> {
        let mut open = self.open.borrow_mut();
        let fields = open.get_mut(&field.key)?;
        let document = fields.remove(&field.field);
        if fields.is_empty() {
            open.remove(&field.key);
        }
        document
    }

    fn read<T>(&self, field: &FieldKey, read: impl FnOnce(&Document) -> T) -> Option<T> {
        Some(read(self.open.borrow().get(&field.key)?.get(&field.field)?))
    }
}

impl State {
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
        if let Some(plain) = content.plain() {
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
        let open = self.documents.take(field).map_or_else(|| self.open_document(field), Ok)?;
        let fields = self.documents.open.get_mut().entry(field.key.clone()).or_default();
        Ok(fields.entry(field.field.clone()).or_insert(open))
    }

    /// Closes the document of a field: what was applied to it and not folded is gone.
    pub fn forget_document(&mut self, field: &FieldKey) {
        self.documents.take(field);
    }

    /// Closes every document; they open again when they are needed.
    pub fn forget_documents(&mut self) {
        self.documents.open.get_mut().clear();
    }

    /// Saves texts that were edited much since they were last saved, so that a snapshot stays small. What a text costs
    /// to save grows with it; doing it only after edits in proportion keeps the sum within bounds.
    ///
    /// # Errors
    /// [`TextError`] if a text is damaged; the others are done all the same.
    pub fn compact(&mut self) -> Result<(), TextError> {
        let mut trouble = Ok(());
        let fields = self.collections.values_mut().flat_map(BTreeMap::values_mut).flat_map(|record| &mut record.fields);
        for text in fields.filter_map(|(_, field)| field.text.as_deref_mut()).filter(|text| text.is_loose()) {
            // Never from the open document: a gate may have put changes there that are not folded.
            trouble = trouble.and(text.compact());
        }
        trouble
    }

    /// Takes a document out, open or opened for it.
    pub(crate) fn take_document(&self, field: &FieldKey) -> Result<Document, TextError> {
        self.documents.take(field).map_or_else(|| self.open_document(field), Ok)
    }

    /// Gives back a document that has exactly the confirmed changes.
    pub(crate) fn put_document(&self, field: &FieldKey, document: Document) {
        let mut open = self.documents.open.borrow_mut();
        open.entry(field.key.clone()).or_default().insert(field.field.clone(), document);
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
