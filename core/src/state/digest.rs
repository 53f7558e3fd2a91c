//! The digest of a state: one value by which replicas are compared.
//!
//! It covers everything that folding decides, and nothing that depends on how a replica came there: not the epochs it
//! was told, not which documents it has open, not the bytes they were saved as.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Field, Record, RecordKey, Stamp, State};
use crate::codec;
use crate::entry::Digest;

struct Feed(Sha256);

impl Feed {
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) {
        self.0.update(codec::to_bytes(value));
    }

    fn stamp(&mut self, stamp: &Stamp) {
        self.put(&(stamp.actor(), stamp.write(), stamp.seq(), stamp.time(), stamp.offset()));
    }

    fn record(&mut self, record: &Record) {
        self.put(&record.inserts.len());
        record.inserts.iter().for_each(|insert| self.stamp(insert));
        self.stamp(&record.created);
        self.put(&record.edits.len());
        record.edits.iter().for_each(|edit| self.stamp(edit));
        self.put(&record.fields.len());
    }

    fn field(&mut self, field: &Field) {
        self.put(&field.register.len());
        for living in &field.register {
            self.put(&living.value);
            self.stamp(&living.stamp);
        }
        self.put(&field.counter);
        self.put(&field.set.as_ref().map(|elements| elements.len()));
        for (element, adds) in field.set.iter().flat_map(|elements| elements.iter()) {
            self.put(&(element, adds.len()));
            adds.iter().for_each(|add| self.stamp(add));
        }
    }
}

impl State {
    /// SHA-256 over the canonical form of everything folded. Costs a walk through the whole state.
    pub fn digest(&self) -> Digest {
        let mut feed = Feed(Sha256::new());
        feed.put(&(self.log, self.cursor, self.accepted_last, self.effective_max));
        feed.put(&self.actors.len());
        for (actor, folded) in &self.actors {
            feed.put(&(actor, folded.seq, &folded.user));
        }
        feed.put(&self.erasures.iter().map(|erasure| (erasure.offset, &erasure.what)).collect::<Vec<_>>());
        feed.put(&self.collections.len());
        for (name, records) in &self.collections {
            feed.put(&(name, records.len()));
            for (id, record) in records {
                let key = RecordKey { collection: name.clone(), record: id.clone() };
                self.feed_record(&mut feed, &key, record);
            }
        }
        feed.put(&self.tombstones.iter().len());
        for (key, tombstone) in self.tombstones.iter() {
            feed.put(&(&key.collection, tombstone.until, tombstone.deletes.len()));
            tombstone.deletes.iter().for_each(|delete| feed.stamp(delete));
            self.feed_record(&mut feed, key, &tombstone.record);
        }
        Digest(feed.0.finalize().into())
    }

    fn feed_record(&self, feed: &mut Feed, key: &RecordKey, record: &Record) {
        feed.put(&key.record);
        feed.record(record);
        for (name, field) in &record.fields {
            feed.put(name);
            feed.field(field);
            let text = field.text.as_ref().map(|text| self.text_digest(key, name, text));
            feed.put(&text.map(|digest| digest.map(Digest).map_err(|error| error.to_string())));
        }
    }
}
