//! What the user sees: confirmed state with the overlay on top.

use std::collections::btree_map;
use std::iter::Peekable;

use super::Overlay;
use super::kept::{Kept, KeptRecord, Refusal};
use super::laid::Laid;
use crate::id::{ActorId, Name, RecordId, UserId};
use crate::rich::Splice;
use crate::state::{FieldKey, Record, RecordKey, Stamp, State, TextError};
use crate::time::Time;
use crate::value::Value;

/// How far the work on a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// An action on it is not durable on this device yet.
    Pending,
    /// All actions on it are durable here, some are not in the server's log.
    Stored,
    /// All of it is in the server's log.
    Accepted,
    /// An action on it was refused, and is kept in view.
    Refused,
}

impl Status {
    /// The word that rows carry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Stored => "stored",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        }
    }
}

/// One of several concurrent values of a register.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The value.
    pub value: Value,
    /// Who wrote it.
    pub actor: ActorId,
    /// The writer's user, as far as it is known.
    pub user: Option<UserId>,
    /// When it counts.
    pub time: Time,
    /// Whether it is the one that `register` shows.
    pub shown: bool,
}

/// The sum of confirmed state and overlay, as of the last settled batch.
#[derive(Debug, Clone, Copy)]
pub struct Visible<'a> {
    state: &'a State,
    overlay: &'a Overlay,
    /// Refused entries, for those who want to see them.
    kept: Option<&'a Kept>,
    keeping: bool,
}

impl<'a> Visible<'a> {
    /// What these two show.
    pub fn new(state: &'a State, overlay: &'a Overlay) -> Self {
        Self { state, overlay, kept: None, keeping: false }
    }

    /// The same, with refused entries at hand for [`Visible::keeping`].
    #[must_use]
    pub fn beside(self, kept: &'a Kept) -> Self {
        Self { kept: Some(kept), ..self }
    }

    /// The same, with or without the refused entries on top.
    #[must_use]
    pub fn keeping(self, keeping: bool) -> Self {
        Self { keeping: keeping && self.kept.is_some(), ..self }
    }

    /// Whether refused entries are on top.
    pub fn is_keeping(&self) -> bool {
        self.keeping
    }

    fn kept(&self) -> Option<&'a Kept> {
        self.kept.filter(|_| self.keeping)
    }

    /// Why the last action on a record was refused, if refused ones are on top and it was.
    pub fn refusal(&self, collection: &Name, id: &RecordId) -> Option<&'a Refusal> {
        self.kept()?.record(collection, id).map(|kept| &*kept.refusal)
    }

    /// A record, if it is there.
    pub fn record(&self, collection: &Name, id: &RecordId) -> Option<&'a Record> {
        if let Some(kept) = self.kept().and_then(|kept| kept.record(collection, id)) {
            return kept.visible.record();
        }
        match self.overlay.records.get(collection).and_then(|records| records.get(id)) {
            Some(laid) => laid.visible(),
            None => self.state.record(collection, id),
        }
    }

    /// The records of a collection by id.
    pub fn collection(&self, name: &Name) -> impl Iterator<Item = (&'a RecordId, &'a Record)> + use<'a> {
        let confirmed = self.state.collection(name).map(|records| records.iter()).unwrap_or_default();
        let laid = self.overlay.records.get(name).map(|records| records.iter()).unwrap_or_default();
        let kept =
            self.kept().and_then(|kept| kept.records.get(name)).map(|records| records.iter()).unwrap_or_default();
        Over {
            below: Merged { confirmed: confirmed.peekable(), laid: laid.peekable() }.peekable(),
            kept: kept.peekable(),
        }
    }

    /// How far the work on a record has come.
    pub fn status(&self, collection: &Name, id: &RecordId) -> Status {
        if self.refusal(collection, id).is_some() {
            return Status::Refused;
        }
        let laid = self.overlay.records.get(collection).and_then(|records| records.get(id));
        laid.map_or(Status::Accepted, Laid::status)
    }

    /// The text of a rich field; empty if it has none.
    ///
    /// # Errors
    /// [`TextError`] if the confirmed content is damaged.
    pub fn text(&self, field: &FieldKey) -> Result<String, TextError> {
        match self.kept().and_then(|kept| kept.text(field)) {
            Some(text) => Ok(text.clone()),
            None => self.overlay.text(self.state, field),
        }
    }

    /// UTF-16 code units of the text of a rich field.
    ///
    /// # Errors
    /// As [`Visible::text`].
    pub fn text_len_utf16(&self, field: &FieldKey) -> Result<usize, TextError> {
        match self.overlay.observe(self.state, field, |document| document.len_utf16()) {
            Some(len) => Ok(len),
            None => self.text(field).map(|text| text.encode_utf16().count()),
        }
    }

    /// Whether a position in the text of a rich field lies between the two halves of a character.
    ///
    /// # Errors
    /// As [`Visible::text`].
    pub fn splits_character(&self, field: &FieldKey, at: usize) -> Result<bool, TextError> {
        match self.overlay.observe(self.state, field, |document| document.splits_character(at)) {
            Some(splits) => Ok(splits),
            None => self.text(field).map(|text| {
                let mut units = text.encode_utf16().skip(at);
                units.next().is_some_and(|unit| (0xdc00..0xe000).contains(&unit))
            }),
        }
    }

    /// What happened to the text of a rich field since the last call, if that is known and short; and from here on it
    /// is watched again.
    ///
    /// None: read the text as a whole. There is one watcher: who shows the text.
    pub fn text_changes(&self, field: &FieldKey) -> Option<Vec<Splice>> {
        self.overlay.text_changes(self.state, field)
    }

    /// The user who wrote something, as far as it is known.
    pub fn user(&self, stamp: &Stamp) -> Option<&'a UserId> {
        // By where it stands, so that what is known of it changes only when the record is touched.
        match stamp.offset() {
            Some(_) => self.state.user(stamp.actor()),
            None => self.overlay.user.as_ref(),
        }
    }

    /// All concurrent values of a register, if there are several; the one shown stands first.
    pub fn conflicts(&self, key: &RecordKey, field: &Name) -> Vec<Conflict> {
        let field = self.record(&key.collection, &key.record).and_then(|record| record.field(field));
        let Some(field) = field.filter(|field| field.living().len() > 1) else { return Vec::new() };
        let mut living: Vec<_> = field.living().iter().collect();
        living.sort_by(|a, b| b.stamp.cmp_by_time(&a.stamp));
        let conflicts = living.into_iter().enumerate().map(|(at, living)| Conflict {
            value: living.value.clone(),
            actor: living.stamp.actor(),
            user: self.user(&living.stamp).cloned(),
            time: living.stamp.time(),
            shown: at == 0,
        });
        conflicts.collect()
    }
}

/// Two ordered walks in one; where both have an id, the overlay's record counts.
struct Merged<'a> {
    confirmed: Peekable<btree_map::Iter<'a, RecordId, Record>>,
    laid: Peekable<btree_map::Iter<'a, RecordId, Laid>>,
}

impl<'a> Iterator for Merged<'a> {
    type Item = (&'a RecordId, &'a Record);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next_laid = self.laid.peek().map(|(id, _)| *id);
            let Some((id, record)) = self.confirmed.next_if(|(id, _)| next_laid.is_none_or(|laid| *id < laid)) else {
                let (id, laid) = self.laid.next()?;
                self.confirmed.next_if(|(confirmed, _)| *confirmed == id);
                match laid.visible() {
                    Some(record) => return Some((id, record)),
                    None => continue,
                }
            };
            return Some((id, record));
        }
    }
}

/// The same with the refused entries on top: what they made of a record counts.
struct Over<'a> {
    below: Peekable<Merged<'a>>,
    kept: Peekable<btree_map::Iter<'a, RecordId, KeptRecord>>,
}

impl<'a> Iterator for Over<'a> {
    type Item = (&'a RecordId, &'a Record);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next_kept = self.kept.peek().map(|(id, _)| *id);
            if let Some(below) = self.below.next_if(|(id, _)| next_kept.is_none_or(|kept| *id < kept)) {
                return Some(below);
            }
            let (id, kept) = self.kept.next()?;
            self.below.next_if(|(below, _)| *below == id);
            if let Some(record) = kept.visible.record() {
                return Some((id, record));
            }
        }
    }
}
