//! One record with pending ops: what is shown of it, and which ops make it so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Held, Place, Status};
use crate::id::{Name, RunId};
use crate::op::{FieldOp, Op};
use crate::state::{Author, Effect, Record, RecordKey, Slot, State};
use crate::witness::Marker;

#[derive(Debug, Clone)]
pub(super) struct Laid {
    visible: Slot,
    /// The ops of pending entries on this record, by their place in the entry.
    ops: BTreeMap<Place, Vec<u32>>,
    /// Pending entries that edit a rich field, by run.
    edits: BTreeMap<(Name, RunId), BTreeSet<Place>>,
    /// Ops that are void where they stand, by their place in the entry.
    void: BTreeSet<(Place, u32)>,
    unsequenced: usize,
}

impl Laid {
    /// The record as confirmed.
    pub(super) fn on(state: &State, key: &RecordKey) -> Self {
        Self {
            visible: state.slot(key),
            ops: BTreeMap::new(),
            edits: BTreeMap::new(),
            void: BTreeSet::new(),
            unsequenced: 0,
        }
    }

    /// Notes an op, and says whether it stands above all others.
    pub(super) fn push(&mut self, place: Place, at: usize, op: &Op, run: RunId) -> bool {
        let on_top = self.ops.last_key_value().is_none_or(|(last, _)| *last <= place);
        let ops = self.ops.entry(place).or_default();
        if ops.is_empty() && !place.is_sequenced() {
            self.unsequenced += 1;
        }
        ops.push(at as u32);
        for (field, op) in op.field_ops() {
            if let FieldOp::Edit(_) = op {
                self.edits.entry((field.clone(), run)).or_default().insert(place);
            }
        }
        on_top
    }

    /// Lays an op on what is shown.
    pub(super) fn lay(&mut self, author: &Author, op: &Op, place: Place, at: usize) -> Effect {
        let effect = self.visible.lay(author, op);
        if effect == Effect::Gone {
            self.void.insert((place, at as u32));
        }
        effect
    }

    /// Lays all pending ops on the confirmed record. True if one that was void counts now, or the other way round.
    pub(super) fn lay_again(
        &mut self,
        state: &State,
        key: &RecordKey,
        entries: &BTreeMap<Place, Held>,
        marker: &Marker,
    ) -> bool {
        let mut visible = state.slot(key);
        let mut void = BTreeSet::new();
        for (place, ops) in &self.ops {
            let Some(held) = entries.get(place) else { continue };
            marker.own(held.author.stamp.write());
            for at in ops {
                let op = held.body.ops.get(*at as usize);
                if op.is_some_and(|op| visible.lay(&held.author, op) == Effect::Gone) {
                    void.insert((*place, *at));
                }
            }
        }
        self.visible = visible;
        std::mem::replace(&mut self.void, void) != self.void
    }

    /// Goes through the pending ops in the order in which they are laid.
    pub(super) fn each_op(&self, entries: &BTreeMap<Place, Held>, mut visit: impl FnMut(&Author, &Op)) {
        for (place, ops) in &self.ops {
            let Some(held) = entries.get(place) else { continue };
            ops.iter().filter_map(|at| held.body.ops.get(*at as usize)).for_each(|op| visit(&held.author, op));
        }
    }

    /// Gives an entry its seq; true if that changes the order of laying.
    pub(super) fn rename(&mut self, old: Place, new: Place) -> bool {
        let Some(ops) = self.ops.remove(&old) else { return false };
        self.unsequenced -= 1;
        let between = (Bound::Excluded(new.min(old)), Bound::Excluded(new.max(old)));
        let overtakes = self.ops.range(between).next().is_some();
        for at in &ops {
            if self.void.remove(&(old, *at)) {
                self.void.insert((new, *at));
            }
        }
        self.ops.insert(new, ops);
        for places in self.edits.values_mut() {
            if places.remove(&old) {
                places.insert(new);
            }
        }
        overtakes
    }

    pub(super) fn remove(&mut self, place: Place) {
        let Some(ops) = self.ops.remove(&place) else { return };
        self.unsequenced -= usize::from(!place.is_sequenced());
        for at in ops {
            self.void.remove(&(place, at));
        }
        self.edits.retain(|_, places| {
            places.remove(&place);
            !places.is_empty()
        });
    }

    pub(super) fn holds(&self, place: Place) -> bool {
        self.ops.contains_key(&place)
    }

    pub(super) fn is_first(&self, place: Place) -> bool {
        self.ops.first_key_value().is_some_and(|(first, _)| *first == place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(super) fn visible(&self) -> Option<&Record> {
        self.visible.record()
    }

    /// Whether a pending entry edits a rich field.
    pub(super) fn edits(&self, field: &Name) -> bool {
        self.edits.keys().any(|(edited, _)| edited == field)
    }

    pub(super) fn status(&self) -> Status {
        match (self.unsequenced, self.ops.is_empty()) {
            (0, true) => Status::Accepted,
            (0, false) => Status::Stored,
            _ => Status::Pending,
        }
    }

    /// The pending entry that created the record, if nothing confirmed did.
    pub(super) fn creator(&self) -> Option<Place> {
        let inserts = self.visible.record()?.inserts();
        if inserts.iter().any(|insert| insert.offset().is_some()) {
            return None;
        }
        inserts.first().map(|insert| Place::new(insert.seq(), insert.rank()))
    }

    /// The rich fields that pending entries edit.
    pub(super) fn edited(&self) -> BTreeSet<Name> {
        self.edits.keys().map(|(field, _)| field.clone()).collect()
    }

    /// The pending entries that edited a rich field, run by run.
    pub(super) fn edits_of(&self, field: &Name) -> impl Iterator<Item = &BTreeSet<Place>> {
        self.edits.iter().filter(move |((edited, _), _)| edited == field).map(|(_, places)| places)
    }
}
