//! Records: what one id of a collection holds, and how an op is laid on it.
//!
//! The same functions fold the log into confirmed state and lay pending entries on top of it.

use std::sync::Arc;

use super::field::Field;
use super::stamp::{Author, Stamp};
use crate::id::{Name, RecordId};
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
    pub(crate) updated: Arc<Stamp>,
    /// Sorted by name: records have few fields, and there are many records.
    pub(crate) fields: Vec<(Name, Field)>,
}

/// What became of one op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It counts.
    Applied,
    /// Its record is gone, so it is void.
    Gone,
}

impl Record {
    /// The entry that inserted it first.
    pub fn created(&self) -> &Stamp {
        &self.created
    }

    /// The latest entry that changed it.
    pub fn updated(&self) -> &Stamp {
        &self.updated
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
        self.inserts.iter().chain([&self.created, &self.updated]).chain(fields)
    }

    /// A copy that shares nothing that confirmed state grows: what pending entries are laid on.
    pub(crate) fn without_rich_content(&self) -> Self {
        let fields = self.fields.iter().map(|(name, field)| (name.clone(), field.without_rich_content())).collect();
        Self { inserts: self.inserts.clone(), created: self.created.clone(), updated: self.updated.clone(), fields }
    }

    fn new(author: &Author) -> Self {
        let stamp = &author.stamp;
        Self { inserts: vec![stamp.clone()], created: stamp.clone(), updated: stamp.clone(), fields: Vec::new() }
    }

    /// Whether the author knew this record, and not only an earlier one of the same id.
    pub(crate) fn is_known_to(&self, author: &Author) -> bool {
        self.inserts.iter().any(|insert| author.saw(insert))
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
        if author.stamp.cmp_by_time(&self.updated).is_gt() {
            self.updated = author.stamp.clone();
        }
    }

    /// Lays an insert or an update.
    pub(crate) fn lay(&mut self, author: &Author, op: &Op) -> Effect {
        match op {
            Op::Insert(op) => {
                self.merge(author, &op.fields);
                Effect::Applied
            }
            Op::Update(op) => self.update(author, &op.field, &op.op),
            Op::Delete(_) | Op::Erase(_) | Op::Unknown(..) => Effect::Gone,
        }
    }

    fn merge(&mut self, author: &Author, fields: &[(Name, FieldOp)]) {
        if !self.is_known_to(author) {
            self.inserts.push(author.stamp.clone());
        }
        self.touch(author);
        fields.iter().for_each(|(field, op)| self.field_mut(field).lay(author, op));
    }

    fn update(&mut self, author: &Author, field: &Name, op: &FieldOp) -> Effect {
        if !self.is_known_to(author) {
            return Effect::Gone;
        }
        // A new root says the same as before: nobody has updated anything.
        if !matches!(op, FieldOp::Edit(Edit::Root(_))) {
            self.touch(author);
        }
        self.field_mut(field).lay(author, op);
        Effect::Applied
    }
}

/// Lays one op on the place of its record.
pub(crate) fn lay(slot: &mut Option<Record>, author: &Author, op: &Op) -> Effect {
    match (op, slot.as_mut()) {
        (Op::Insert(_), _) => slot.get_or_insert_with(|| Record::new(author)).lay(author, op),
        (Op::Delete(_), Some(record)) if record.is_known_to(author) => {
            *slot = None;
            Effect::Applied
        }
        (_, Some(record)) => record.lay(author, op),
        (_, None) => Effect::Gone,
    }
}
