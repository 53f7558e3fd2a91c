//! Rows: records as the schema shows them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::query::Column;
use super::schema::{CollectionSchema, FieldSchema, Schema, Strategy};
use crate::codec;
use crate::id::{Name, RecordId};
use crate::overlay::Visible;
use crate::state::{FieldKey, Record, RecordKey, Stamp};
use crate::value::Value;

/// A row in msgpack: a map of `id`, the fields, and `$` with what is known about the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Arc<[u8]>);

impl Row {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads records by a schema, and encodes each row at most once.
pub(super) struct Rows<'a> {
    schema: &'a Schema,
    visible: Visible<'a>,
    encoded: BTreeMap<RecordKey, Row>,
}

/// One record as the schema shows it.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    schema: &'a CollectionSchema,
    visible: Visible<'a>,
    collection: &'a Name,
    id: &'a RecordId,
    /// None for a `single` that nobody has written.
    record: Option<&'a Record>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(schema: &'a Schema, visible: Visible<'a>) -> Self {
        Self { schema, visible, encoded: BTreeMap::new() }
    }

    /// The record, if it is shown.
    pub(super) fn shown<'b>(&'b self, collection: &'b Name, id: &'b RecordId) -> Option<Shown<'b>> {
        let schema = self.schema.collections.get(collection)?;
        let record = self.visible.record(collection, id);
        if record.is_none() && !(schema.single && id.as_str().is_empty()) {
            return None;
        }
        Some(Shown { schema, visible: self.visible, collection, id, record })
    }

    /// Calls `visit` for each shown record of a collection.
    pub(super) fn each(&self, collection: &Name, mut visit: impl FnMut(Shown<'_>)) {
        let single = RecordId::single();
        if self.schema.collections.get(collection).is_some_and(|schema| schema.single) {
            self.shown(collection, &single).into_iter().for_each(visit);
            return;
        }
        let Some(schema) = self.schema.collections.get(collection) else { return };
        for (id, record) in self.visible.collection(collection) {
            visit(Shown { schema, visible: self.visible, collection, id, record: Some(record) });
        }
    }

    /// The row, if the record is shown.
    pub(super) fn row(&mut self, collection: &Name, id: &RecordId) -> Option<Row> {
        let key = RecordKey { collection: collection.clone(), record: id.clone() };
        if let Some(row) = self.encoded.get(&key) {
            return Some(row.clone());
        }
        let row = Row(codec::to_bytes(&self.shown(collection, id)?).into());
        self.encoded.insert(key, row.clone());
        Some(row)
    }
}

impl<'a> Shown<'a> {
    pub(super) fn id(&self) -> &'a RecordId {
        self.id
    }

    /// What a query compares and sorts by.
    pub(super) fn column(&self, column: &Column) -> Option<Cow<'a, Value>> {
        match column {
            Column::Id => Some(Cow::Owned(Value::text(self.id.as_str()))),
            Column::Field(name) => self.field(name, self.schema.fields.get(name)?),
        }
    }

    fn field(&self, name: &Name, schema: &'a FieldSchema) -> Option<Cow<'a, Value>> {
        let field = self.record.and_then(|record| record.field(name));
        match schema.strategy {
            Strategy::Register => {
                let shown = field.and_then(|field| field.shown()).map(|living| &living.value);
                shown.or(schema.default.as_ref()).map(Cow::Borrowed)
            }
            Strategy::Counter => Some(Cow::Owned(Value::Int(field.and_then(|field| field.counter()).unwrap_or(0)))),
            Strategy::Set => {
                let elements = field.and_then(|field| field.set()).into_iter().flatten();
                Some(Cow::Owned(Value::Array(elements.cloned().collect())))
            }
            Strategy::Text if field.is_none_or(|field| !field.is_text()) => Some(Cow::Owned(Value::text(""))),
            Strategy::Text => {
                let key = RecordKey { collection: self.collection.clone(), record: self.id.clone() };
                // Damaged content stops the log where it is folded or loaded; a row still has to show something.
                let text = self.visible.text(&FieldKey { key, field: name.clone() }).unwrap_or_default();
                Some(Cow::Owned(Value::Text(text)))
            }
        }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.schema.fields.iter().filter_map(|(name, schema)| Some((name, self.field(name, schema)?)));
        let fields: Vec<_> = fields.collect();
        let mut map = serializer.serialize_map(Some(fields.len() + 2))?;
        map.serialize_entry("id", self.id)?;
        fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.serialize_entry("$", &About(self))?;
        map.end()
    }
}

/// What is known about a record beside its fields.
struct About<'a>(&'a Shown<'a>);

impl Serialize for About<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Shown { visible, collection, id, record, .. } = *self.0;
        let ms = |stamp: Option<&Stamp>| stamp.map_or(0, |stamp| stamp.time().ms());
        let created = record.map(Record::created);
        let user = created.and_then(|created| visible.user(created)).map_or("", |user| user.as_str());
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("status", visible.status(collection, id).as_str())?;
        map.serialize_entry("createdBy", user)?;
        map.serialize_entry("createdAt", &ms(created))?;
        map.serialize_entry("updatedAt", &ms(record.map(Record::updated)))?;
        map.end()
    }
}
