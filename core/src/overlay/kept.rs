//! Refused own entries that stay in view, for queries that ask for them: laid on top of what is visible, as if they were
//! pending still.
//!
//! Only the records that they touch are made anew, so what nobody refused costs nothing. What was to be deleted stays,
//! marked; what was typed into a text that is there is not shown in it, since a change of a text is bound to the line of
//! changes that the refusal ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Touched, Visible};
use crate::entry::Entry;
use crate::id::{EntryId, Name, RecordId, WriteId};
use crate::op::{Edit, FieldOp, Op};
use crate::protocol::Code;
use crate::state::{Author, FieldKey, Record, RecordKey, Slot, Stamp};
use crate::time::Time;

/// Why an entry that is kept in view was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As a number.
    pub code: Option<Code>,
    /// For people.
    pub reason: String,
}

#[derive(Debug, Clone)]
struct Held {
    id: EntryId,
    author: Author,
    entry: Entry,
    refusal: Arc<Refusal>,
}

/// A record as it is with the refused entries on top.
#[derive(Debug, Clone)]
pub(super) struct KeptRecord {
    pub(super) visible: Slot,
    /// Of the last entry on it.
    pub(super) refusal: Arc<Refusal>,
    /// Texts of a record that only refused entries made.
    pub(super) texts: BTreeMap<Name, String>,
}

/// Refused entries, and what they make of the records they touch.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// What was to be taken last: entries whose bytes do not tell what they did are not among the others.
    ids: Vec<EntryId>,
    entries: Vec<Held>,
    pub(super) records: BTreeMap<Name, BTreeMap<RecordId, KeptRecord>>,
}

impl Kept {
    /// The ids of what was taken, ascending.
    pub fn ids(&self) -> &[EntryId] {
        &self.ids
    }

    /// Takes these entries, ascending and each as it was pushed, in place of those before; [`Kept::lay`] follows.
    pub fn take<'a>(&mut self, letters: impl IntoIterator<Item = (EntryId, &'a [u8], Refusal)>) {
        // Those that stay are not read again: letters may come one by one, and be many.
        let mut before: BTreeMap<_, _> = self.entries.drain(..).map(|held| (held.id, held)).collect();
        self.ids.clear();
        let held = |(id, bytes, refusal): (EntryId, &[u8], Refusal)| {
            self.ids.push(id);
            let refusal = Arc::new(refusal);
            if let Some(held) = before.remove(&id) {
                return Some(Held { refusal, ..held });
            }
            let entry = Entry::from_bytes(bytes).ok()?;
            let header = &entry.header;
            let write = WriteId { run: header.run, n: header.n };
            let stamp = Arc::new(Stamp::pending(id.actor, write, Some(id.seq), header.time, 0));
            let (base, own) = (header.base.end, header.own_seen());
            let author = Author { stamp, base, own, accepted: Time::MAX };
            Some(Held { id, author, entry, refusal })
        };
        self.entries = letters.into_iter().filter_map(held).collect();
    }

    /// Makes every record anew on what is visible without them.
    pub fn lay(&mut self, below: Visible<'_>) {
        self.records.clear();
        for held in &self.entries {
            for op in &held.entry.body.ops {
                let Some(key) = RecordKey::of(op) else { continue };
                let shown = below.record(&key.collection, &key.record);
                let records = self.records.entry(key.collection).or_default();
                let record = records.entry(key.record).or_insert_with(|| KeptRecord {
                    visible: shown.map(Record::without_rich_content).into(),
                    refusal: held.refusal.clone(),
                    texts: BTreeMap::new(),
                });
                record.refusal = held.refusal.clone();
                if matches!(op, Op::Delete(_)) {
                    continue;
                }
                record.visible.lay(&held.author, op);
                if shown.is_none() {
                    record.texts.extend(op.field_ops().filter_map(|(field, op)| match op {
                        FieldOp::Edit(Edit::InitialText(text)) => Some((field.clone(), text.clone())),
                        _ => None,
                    }));
                }
            }
        }
    }

    /// The records that refused entries touch.
    pub fn keys(&self) -> Touched {
        let key =
            |collection: &Name, record: &RecordId| RecordKey { collection: collection.clone(), record: record.clone() };
        let records = self.records.iter();
        records.flat_map(|(collection, records)| records.keys().map(move |record| key(collection, record))).collect()
    }

    /// Whether one of these records is touched by refused entries.
    pub fn touches(&self, touched: &Touched) -> bool {
        !self.records.is_empty() && touched.iter().any(|key| self.record(&key.collection, &key.record).is_some())
    }

    pub(super) fn record(&self, collection: &Name, id: &RecordId) -> Option<&KeptRecord> {
        self.records.get(collection)?.get(id)
    }

    pub(super) fn text(&self, field: &FieldKey) -> Option<&String> {
        self.record(&field.key.collection, &field.key.record)?.texts.get(&field.field)
    }
}
