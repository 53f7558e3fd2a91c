//! Records: what one id of a collection holds, and how an op is laid on it.
//!
//! The same functions fold the log into confirmed state and lay pending entries on top of it. Whether there is a record
//! at all is decided in `slot`.

use std::sync::Arc;

use super::field::Field;
use super::stamp::{Author, Stamp};
use crate::id::{Name, RecordId};
use crate::limits;
use crate::op::{Edit, FieldOp, Op};

/// Names a record within a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey {
    /// The collection.
    pub collection: Name,
    /// The record's id.
    pub record: RecordId,
}

impl RecordKey {
    /// The record that an op touches; none for a kind this build does not know.
    pub fn of(op: &Op) -> Option<Self> {
        op.target().map(|(collection, record)| Self { collection: collection.clone(), record: record.clone() })
    }
}

/// Names a field within a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldKey {
    /// The record.
    pub key: RecordKey,
    /// The field.
    pub field: Name,
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record {
    /// Inserts that no later insert has seen; an op counts only if its author had seen one of them.
    pub(crate) inserts: Vec<Arc<Stamp>>,
    pub(crate) created: Arc<Stamp>,
    /// Inserts and edits that no later one has seen, in the order they were laid; never empty, and bounded. Whoever has
    /// seen these has seen every edit.
    pub(crate) edits: Vec<Arc<Stamp>>,
    /// Sorted by name: records have few fields, and there are many records.
    pub(crate) fields: Vec<(Name, Field)>,
}

/// What became of one op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It counts.
    Applied,
    /// It counts, and the record begins with it.
    Begun,
    /// It counts, and brings back the record that was deleted.
    Revived,
    /// Its record is gone, so it is void.
    Gone,
}

impl Effect {
    /// Whether the op counts.
    pub(crate) fn counts(self) -> bool {
        self != Self::Gone
    }
}

impl Record {
    /// The entry that inserted it first.
    pub fn created(&self) -> &Stamp {
        &self.created
    }

    /// The latest entry, by time, among those that changed it and that no later one has seen.
    pub fn updated(&self) -> &Stamp {
        self.edits.iter().max_by(|a, b| a.cmp_by_time(b)).unwrap_or(&self.created)
    }

    /// A field, if it was ever written.
    pub fn field(&self, name: &Name) -> Option<&Field> {
        self.place(name).ok().map(|at| &self.fields[at].1)
    }

    /// Its written fields by name.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&Name, &Field)> {
        self.fields.iter().map(|(name, field)| (name, field))
    }

    /// Inserts that no later insert has seen.
    pub fn inserts(&self) -> &[Arc<Stamp>] {
        &self.inserts
    }

    /// Every stamp the record keeps.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = &Arc<Stamp>> {
        let fields = self.fields.iter().flat_map(|(_, field)| field.stamps());
        self.inserts.iter().chain([&self.created]).chain(&self.edits).chain(fields)
    }

    /// A copy that shares nothing that confirmed state grows: what pending entries are laid on.
    pub(crate) fn without_rich_content(&self) -> Self {
        let fields = self.fields.iter().map(|(name, field)| (name.clone(), field.without_rich_content())).collect();
        Self { fields, ..self.outline() }
    }

    /// A copy without its fields: enough to tell what an op does to the record.
    pub(crate) fn outline(&self) -> Self {
        Self {
            inserts: self.inserts.clone(),
            created: self.created.clone(),
            edits: self.edits.clone(),
            fields: Vec::new(),
        }
    }

    pub(super) fn new(author: &Author) -> Self {
        let stamp = &author.stamp;
        Self { inserts: vec![stamp.clone()], created: stamp.clone(), edits: vec![stamp.clone()], fields: Vec::new() }
    }

    /// Whether the author knew this record, and not only an earlier one of the same id.
    pub(crate) fn is_known_to(&self, author: &Author) -> bool {
        self.inserts.iter().any(|insert| author.saw(insert))
    }

    /// Whether there is an edit that the author had not seen.
    pub(super) fn has_news_for(&self, author: &Author) -> bool {
        self.edits.iter().any(|edit| !author.saw(edit))
    }

    fn place(&self, name: &Name) -> Result<usize, usize> {
        self.fields.binary_search_by(|(known, _)| known.cmp(name))
    }

    fn field_mut(&mut self, name: &Name) -> &mut Field {
        let at = self.place(name).unwrap_or_else(|at| {
            self.fields.insert(at, (name.clone(), Field::default()));
            at
        });
        &mut self.fields[at].1
    }

    fn touch(&mut self, author: &Author) {
        self.edits.retain(|edit| !author.saw(edit));
        if self.edits.len() >= limits::RECORD_EDITS_MAX {
            self.edits.remove(0);
        }
        self.edits.push(author.stamp.clone());
    }

    /// Lays an insert or an update.
    pub(super) fn lay(&mut self, author: &Author, op: &Op) -> Effect {
        let effect = self.stand(author, op);
        if effect.counts() {
            self.lay_fields(author, op);
        }
        effect
    }

    /// Decides what an insert or an update does to the record, and notes that it was changed; its fields stay.
    pub(super) fn stand(&mut self, author: &Author, op: &Op) -> Effect {
        match op {
            Op::Insert(_) if !self.is_known_to(author) => self.inserts.push(author.stamp.clone()),
            Op::Insert(_) => {}
            Op::Update(_) if self.is_known_to(author) => {}
            _ => return Effect::Gone,
        }
        if is_edit(op) {
            self.touch(author);
        }
        Effect::Applied
    }

    /// Lays what an op that counts does to the fields.
    pub(super) fn lay_fields(&mut self, author: &Author, op: &Op) {
        op.field_ops().for_each(|(field, op)| self.field_mut(field).lay(author, op));
    }
}

/// Whether an op changes what the record says. A new root says the same as before: nobody has updated anything.
pub(super) fn is_edit(op: &Op) -> bool {
    !matches!(op, Op::Update(op) if matches!(op.op, FieldOp::Edit(Edit::Root(_))))
}
