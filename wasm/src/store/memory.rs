//! The store in memory: for tests, for Node, and for pages that may not store anything. Gone with the page, and it
//! says so; otherwise it keeps every promise of [`Store`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::{CommitError, Direction, Durability, Key, KeyRange, Row, Store, StoreError, Write, is_empty};

type Rows = BTreeMap<Key, Vec<u8>>;

/// A handle on rows in memory. Clones close together; [`MemoryStore::sibling`] is a second handle on the same rows.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    rows: Rc<RefCell<Rows>>,
    closed: Rc<Cell<bool>>,
}

impl MemoryStore {
    /// A second handle on the same rows, as another tab would have. For the conformance suite.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn sibling(&self) -> Self {
        MemoryStore { rows: Rc::clone(&self.rows), closed: Rc::default() }
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.closed.get() {
            return Err(StoreError::Closed);
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Vec<Row>>, StoreError> {
        self.open()?;
        let rows = self.rows.borrow();
        Ok(ranges.iter().map(|range| select(&rows, range)).collect())
    }

    async fn commit<T, A, F>(&self, _durability: Durability, reads: &[Key], decide: F) -> Result<T, CommitError<A>>
    where
        F: FnOnce(&[Option<Vec<u8>>]) -> Result<(Vec<Write>, T), A>,
    {
        self.open()?;
        let values: Vec<_> = {
            let rows = self.rows.borrow();
            reads.iter().map(|key| rows.get(key).cloned()).collect()
        };
        let (writes, outcome) = decide(&values).map_err(CommitError::Aborted)?;
        let mut rows = self.rows.borrow_mut();
        refuse_conflicts(&rows, &writes)?;
        apply(&mut rows, writes);
        Ok(outcome)
    }

    fn close(&self) {
        self.closed.set(true);
    }
}

fn select(rows: &Rows, range: &KeyRange) -> Vec<Row> {
    if is_empty(range) {
        return Vec::new();
    }
    let end = match &range.end {
        Some(end) => Bound::Excluded(end.clone()),
        None => Bound::Unbounded,
    };
    let inside = rows.range((Bound::Included(range.start.clone()), end));
    let limit = range.limit.map_or(usize::MAX, |limit| limit as usize);
    let copy = |(key, value): (&Key, &Vec<u8>)| (key.clone(), value.clone());
    match range.direction {
        Direction::Forward => inside.take(limit).map(copy).collect(),
        Direction::Backward => inside.rev().take(limit).map(copy).collect(),
    }
}

/// Plays the writes on the keys alone, so that a conflict is known before anything is changed.
fn refuse_conflicts<A>(rows: &Rows, writes: &[Write]) -> Result<(), CommitError<A>> {
    let mut changed: BTreeMap<&[u8], bool> = BTreeMap::new();
    let mut cleared: Vec<(&[u8], &[u8])> = Vec::new();
    for write in writes {
        match write {
            Write::Add(key, _) => {
                let exists = changed.get(key.as_slice()).copied().unwrap_or_else(|| {
                    let key = key.as_slice();
                    rows.contains_key(key) && !cleared.iter().any(|(start, end)| *start <= key && key < *end)
                });
                if exists {
                    return Err(CommitError::Conflict);
                }
                changed.insert(key, true);
            }
            Write::Put(key, _) => drop(changed.insert(key, true)),
            Write::Delete(key) => drop(changed.insert(key, false)),
            Write::DeleteRange(start, end) => {
                changed.retain(|key, _| *key < start.as_slice() || end.as_slice() <= *key);
                cleared.push((start, end));
            }
        }
    }
    Ok(())
}

fn apply(rows: &mut Rows, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Add(key, value) | Write::Put(key, value) => drop(rows.insert(key, value)),
            Write::Delete(key) => drop(rows.remove(&key)),
            Write::DeleteRange(start, end) => rows.retain(|key, _| *key < start || end <= *key),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Nothing in the memory store waits, so one poll must finish.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the memory store waited"),
        }
    }

    #[test]
    fn memory_store_conforms() {
        let checks = now(async {
            let first = MemoryStore::default();
            super::super::conformance::run(async |_fresh| Ok(first.sibling())).await
        });
        assert_eq!(checks.unwrap(), super::super::conformance::CHECKS);
    }
}
