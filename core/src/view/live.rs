//! A live query: its matching records in order, and the window that is shown.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::patch::Patch;
use super::query::{Direction, Query};
use super::ranked::Ranked;
use super::row::{Change, Row, Rows, Shown, Texts};
use crate::id::RecordId;
use crate::overlay::Touched;
use crate::state::RecordKey;
use crate::value::Value;

/// What a record is sorted by.
#[derive(Debug, PartialEq, Eq)]
struct SortKey {
    order: Vec<Option<Value>>,
    id: RecordId,
}

#[derive(Debug)]
pub(super) struct LiveQuery {
    query: Query,
    index: Ranked<Arc<SortKey>>,
    keys: BTreeMap<RecordId, Arc<SortKey>>,
    /// Open uses.
    pub(super) users: usize,
}

impl SortKey {
    fn of(query: &Query, shown: &Shown<'_>) -> Self {
        let order = query.order.iter().map(|(column, _)| shown.column(column).map(|value| value.into_owned()));
        Self { order: order.collect(), id: shown.id().clone() }
    }

    fn cmp(&self, other: &Self, order: &[(super::Column, Direction)]) -> Ordering {
        let keys = self.order.iter().zip(&other.order).zip(order);
        let by_keys = keys.map(|((a, b), (_, direction))| match direction {
            Direction::Asc => a.cmp(b),
            Direction::Desc => b.cmp(a),
        });
        by_keys.fold(Ordering::Equal, Ordering::then).then_with(|| self.id.cmp(&other.id))
    }
}

impl LiveQuery {
    pub(super) fn new(query: Query, rows: &Rows<'_>) -> Self {
        let mut sorted = Vec::new();
        rows.each(&query.collection, |shown| {
            if query.matches(&shown) {
                sorted.push(Arc::new(SortKey::of(&query, &shown)));
            }
        });
        // Without an order they come by id already.
        if !query.order.is_empty() {
            sorted.sort_unstable_by(|a, b| a.cmp(b, &query.order));
        }
        let keys = sorted.iter().map(|key| (key.id.clone(), key.clone())).collect();
        Self { query, index: Ranked::from_sorted(sorted), keys, users: 1 }
    }

    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    /// The rows that are shown, for a use that begins.
    pub(super) fn rows(&self, rows: &Rows<'_>) -> Vec<Row> {
        let window = self.window();
        let keys = self.index.iter_from(window.start).take(window.len());
        keys.filter_map(|key| rows.first(&self.query.collection, &key.id)).collect()
    }

    /// The rows that are shown, for somebody who reads them once.
    pub(super) fn rows_once(&self, rows: &Rows<'_>, texts: Texts) -> Vec<Row> {
        let window = self.window();
        let keys = self.index.iter_from(window.start).take(window.len());
        keys.filter_map(|key| rows.once(&self.query.collection, &key.id, texts)).collect()
    }

    /// What the changes of these records do to the shown rows.
    pub(super) fn apply(&mut self, touched: &Touched, rows: &mut Rows<'_>) -> Vec<Patch> {
        let (mut gone, mut new, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for key in of_collection(touched, &self.query) {
            let shown = rows.shown(&key.collection, &key.record).filter(|shown| self.query.matches(shown));
            let now = shown.map(|shown| Arc::new(SortKey::of(&self.query, &shown)));
            match (self.keys.get(&key.record).cloned(), now) {
                (Some(before), Some(now)) if before == now => changed.push(now),
                (before, now) => {
                    gone.extend(before);
                    new.extend(now);
                }
            }
        }
        // From the back: rows that move up into the window are then never ones that go themselves.
        let order = &self.query.order;
        gone.sort_unstable_by(|a, b| b.cmp(a, order));
        new.sort_unstable_by(|a, b| a.cmp(b, order));
        let mut step = Step { patches: Vec::new(), encoded: BTreeSet::new(), rows };
        gone.into_iter().for_each(|key| self.remove(&key, &mut step));
        new.into_iter().for_each(|key| self.insert(key, &mut step));
        changed.into_iter().for_each(|key| self.update(&key, &mut step));
        step.patches
    }

    /// Ranks of the shown rows, if there were enough of them.
    fn window(&self) -> Range<usize> {
        let start = usize::try_from(self.query.offset).unwrap_or(usize::MAX);
        let limit = self.query.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        start..start.saturating_add(limit)
    }

    fn remove(&mut self, key: &Arc<SortKey>, step: &mut Step<'_, '_>) {
        self.keys.remove(&key.id);
        let Some(rank) = self.index.remove(|known| known.cmp(key, &self.query.order)) else { return };
        let window = self.window();
        if window.is_empty() || rank >= window.end || self.index.len() < window.start {
            return;
        }
        step.patches.push(Patch::Remove(rank.saturating_sub(window.start)));
        if self.index.len() >= window.end {
            self.show(window.end - 1, step);
        }
    }

    fn insert(&mut self, key: Arc<SortKey>, step: &mut Step<'_, '_>) {
        self.keys.insert(key.id.clone(), key.clone());
        let order = &self.query.order;
        let rank = self.index.insert(key.clone(), |known| known.cmp(&key, order));
        let window = self.window();
        if window.is_empty() || rank >= window.end || self.index.len() <= window.start {
            return;
        }
        if self.index.len() > window.end {
            step.patches.push(Patch::Remove(window.len() - 1));
        }
        self.show(rank.max(window.start), step);
    }

    fn update(&self, key: &Arc<SortKey>, step: &mut Step<'_, '_>) {
        if step.encoded.contains(&key.id) {
            return;
        }
        let window = self.window();
        let rank = self.index.rank(|known| known.cmp(key, &self.query.order));
        let Some(rank) = rank.ok().filter(|rank| window.contains(rank)) else { return };
        let index = rank - window.start;
        step.patches.extend(step.rows.change(&self.query.collection, &key.id).map(|change| match change {
            Change::Whole(row) => Patch::Update(index, row),
            Change::Edit(edit) => Patch::Edit(index, edit),
        }));
    }

    /// Puts the row of a rank into the window.
    fn show(&self, rank: usize, step: &mut Step<'_, '_>) {
        let Some(key) = self.index.get(rank) else { return };
        if let Some(row) = step.rows.row(&self.query.collection, &key.id) {
            step.encoded.insert(key.id.clone());
            step.patches.push(Patch::Insert(rank - self.window().start, row));
        }
    }
}

/// The patches of one batch while they are made.
struct Step<'a, 'b> {
    patches: Vec<Patch>,
    /// Rows that came in, and need no update any more.
    encoded: BTreeSet<RecordId>,
    rows: &'a mut Rows<'b>,
}

fn of_collection<'a>(touched: &'a Touched, query: &'a Query) -> impl Iterator<Item = &'a RecordKey> {
    let first = RecordKey { collection: query.collection.clone(), record: RecordId::single() };
    touched.range(first..).take_while(|key| key.collection == query.collection)
}
