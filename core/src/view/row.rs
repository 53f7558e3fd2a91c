//! Rows: records as the schema shows them, and how their texts changed.
//!
//! A long text is not written again for each keystroke: what is known of a text's changes since it was last shown
//! stands in its place. **Invariant:** every row that a live query shows has the texts of the last time that the record
//! was shown by any of them, because all queries of a view learn of every change together. Queries that keep refused
//! rows do not watch texts, and are always told them as a whole.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::query::Column;
use super::schema::{CollectionSchema, FieldSchema, Schema, Strategy};
use crate::codec;
use crate::id::{Name, RecordId};
use crate::overlay::Visible;
use crate::protocol::Code;
use crate::rich::Splice;
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

/// A changed row whose texts are told by their changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowEdit {
    /// The row without these texts.
    pub(super) row: Row,
    /// The splices of each, in order; of a text that did not change, none.
    pub(super) texts: Arc<BTreeMap<Name, Vec<Splice>>>,
}

impl RowEdit {
    /// What an edit makes of the row that was shown before.
    pub(super) fn on(&self, before: &Row) -> Row {
        let read = |row: &Row| codec::from_bytes::<BTreeMap<String, Value>>(row.as_bytes()).unwrap_or_default();
        let (mut fields, before) = (read(&self.row), read(before));
        for (name, splices) in self.texts.iter() {
            let Some(Value::Text(text)) = before.get(name.as_str()) else { continue };
            let mut units: Vec<u16> = text.encode_utf16().collect();
            for splice in splices {
                units.splice(splice.at..splice.at + splice.delete, splice.insert.encode_utf16());
            }
            fields.insert(name.to_string(), Value::Text(String::from_utf16_lossy(&units)));
        }
        Row(codec::to_bytes(&fields).into())
    }
}

/// What is written of a row.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Whole(Row),
    Edit(RowEdit),
}

/// Reads records by a schema, and encodes each row at most once.
pub(super) struct Rows<'a> {
    schema: &'a Schema,
    visible: Visible<'a>,
    encoded: BTreeMap<RecordKey, Encoded>,
}

/// What was written of one record.
#[derive(Default)]
struct Encoded {
    /// How its texts changed since it was last shown, as far as that is known; asked for once.
    texts: Arc<BTreeMap<Name, Vec<Splice>>>,
    whole: Option<Row>,
    edit: Option<RowEdit>,
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
    pub(super) fn shown<'b>(&self, collection: &'b Name, id: &'b RecordId) -> Option<Shown<'b>>
    where
        'a: 'b,
    {
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

    /// The row of a live query, if the record is shown.
    pub(super) fn row(&mut self, collection: &Name, id: &RecordId) -> Option<Row> {
        let key = RecordKey { collection: collection.clone(), record: id.clone() };
        let shown = self.shown(collection, id)?;
        let encoded = self.encoded.entry(key).or_insert_with(|| Encoded::new(&shown));
        Some(encoded.whole(&shown))
    }

    /// The row of a live query that begins: nothing else is written of the record at this time.
    pub(super) fn first(&self, collection: &Name, id: &RecordId) -> Option<Row> {
        let shown = self.shown(collection, id)?;
        if !shown.visible.is_keeping() {
            shown.texts().for_each(|field| drop(shown.visible.text_changes(&field)));
        }
        Some(Row(codec::to_bytes(&Part { shown: &shown, told: &|_| true }).into()))
    }

    /// The row of a live query that shows the record already, told by what changed.
    pub(super) fn change(&mut self, collection: &Name, id: &RecordId) -> Option<Change> {
        let key = RecordKey { collection: collection.clone(), record: id.clone() };
        let shown = self.shown(collection, id)?;
        let encoded = self.encoded.entry(key).or_insert_with(|| Encoded::new(&shown));
        Some(if encoded.texts.is_empty() {
            Change::Whole(encoded.whole(&shown))
        } else {
            Change::Edit(encoded.edit(&shown))
        })
    }

    /// The row for somebody who reads it once.
    pub(super) fn once(&self, collection: &Name, id: &RecordId, texts: Texts) -> Option<Row> {
        let shown = self.shown(collection, id)?;
        let told = |name: &Name| texts == Texts::Whole || !shown.is_text(name);
        Some(Row(codec::to_bytes(&Part { shown: &shown, told: &told }).into()))
    }
}

/// Whether a row is wanted with its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// Every text as a whole.
    Whole,
    /// None: they are read by themselves, if at all.
    LeftOut,
}

impl Encoded {
    fn new(shown: &Shown<'_>) -> Self {
        if shown.visible.is_keeping() {
            return Self::default();
        }
        let texts = shown.texts().filter_map(|field| {
            let changes = shown.visible.text_changes(&field)?;
            Some((field.field, changes))
        });
        Self { texts: Arc::new(texts.collect()), ..Self::default() }
    }

    fn whole(&mut self, shown: &Shown<'_>) -> Row {
        self.whole.get_or_insert_with(|| Row(codec::to_bytes(&Part { shown, told: &|_| true }).into())).clone()
    }

    fn edit(&mut self, shown: &Shown<'_>) -> RowEdit {
        let Self { texts, edit, .. } = self;
        let made = || {
            let told = |name: &Name| !texts.contains_key(name);
            RowEdit { row: Row(codec::to_bytes(&Part { shown, told: &told }).into()), texts: texts.clone() }
        };
        edit.get_or_insert_with(made).clone()
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

    /// The fields that are read as texts.
    fn texts(&self) -> impl Iterator<Item = FieldKey> {
        self.schema.fields.keys().filter(|name| self.is_text(name)).map(|name| {
            let key = RecordKey { collection: self.collection.clone(), record: self.id.clone() };
            FieldKey { key, field: name.clone() }
        })
    }

    /// Whether a field is read as a text.
    fn is_text(&self, name: &Name) -> bool {
        self.schema.fields.get(name).is_some_and(|field| field.strategy == Strategy::Text)
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

/// A row as it is written, with the fields that are told.
struct Part<'a> {
    shown: &'a Shown<'a>,
    told: &'a dyn Fn(&Name) -> bool,
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.shown.schema.fields.iter().filter(|(name, _)| (self.told)(name));
        let fields = fields.filter_map(|(name, schema)| Some((name, self.shown.field(name, schema)?)));
        let fields: Vec<_> = fields.collect();
        let mut map = serializer.serialize_map(Some(fields.len() + 2))?;
        map.serialize_entry("id", self.shown.id)?;
        fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.serialize_entry("$", &About(self.shown))?;
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
        let refusal = visible.refusal(collection, id);
        let mut map = serializer.serialize_map(Some(if refusal.is_some() { 6 } else { 4 }))?;
        map.serialize_entry("status", visible.status(collection, id).as_str())?;
        map.serialize_entry("createdBy", user)?;
        map.serialize_entry("createdAt", &ms(created))?;
        map.serialize_entry("updatedAt", &ms(record.map(Record::updated)))?;
        if let Some(refusal) = refusal {
            map.serialize_entry("code", refusal.code.map_or("refused", Code::name))?;
            map.serialize_entry("reason", &refusal.reason)?;
        }
        map.end()
    }
}
