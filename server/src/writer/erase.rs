//! The writer's part in erasing: the entry that says it, and then, between pushes, the content that goes.
//!
//! What is to be erased was written to the ledger before ([`crate::ledger`]); here each word of it is taken once in each
//! log. A log that is made anew takes at once what the ledger knows of its name: its content may come again from clients
//! that were away.

use driftlog_core::chain::Cursor;
use driftlog_core::entry::Logged;
use driftlog_core::id::{ActorId, LogName, Offset};
use driftlog_core::op::{Erase, Op};
use tokio::sync::oneshot;

use super::{Effect, LogWriter, damage};
use crate::ledger::{Order, Target};
use crate::snapshot::Job;
use crate::store::{ErasureRow, LogRow, StoreError, Writes};

/// Entries looked at in one transaction.
const STEP_ENTRIES: usize = 1_000;

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ordered {
    /// In how many logs an entry says it.
    pub(crate) logs: u64,
}

/// An erase that was appended, for the followers of its log.
type Appended = (LogName, (Logged, Cursor, usize));

impl LogWriter {
    /// Takes an order in, and answers when that is durable.
    pub(super) fn ordered(
        &mut self,
        writes: Writes<'_>,
        order: Order,
        reply: oneshot::Sender<Ordered>,
    ) -> Result<Option<Effect>, StoreError> {
        let mut appended = Vec::new();
        match &order.target {
            Target::Log(name) => self.order_in(writes, name, &order, Erase::Log(()), &mut appended)?,
            Target::Record(name, collection, record) => {
                let what = Erase::Record((collection.clone(), record.clone()));
                self.order_in(writes, name, &order, what, &mut appended)?
            }
            Target::Authors(actors) => self.erase_authors(writes, actors, &order, &mut appended)?,
        }
        if !self.orders.iter().any(|known| known.request == order.request) {
            self.orders.push(order);
        }
        let ordered = Ordered { logs: appended.len() as u64 };
        Ok(Some(Box::new(move |feeds| {
            appended.into_iter().for_each(|(name, entry)| feeds.committed(&name, vec![entry]));
            let _ = reply.send(ordered);
        })))
    }

    fn order_in(
        &mut self,
        writes: Writes<'_>,
        name: &LogName,
        order: &Order,
        what: Erase,
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        let Some(log) = writes.reads().log(name)? else { return Ok(()) };
        match self.erase(writes, &log, order, what) {
            Ok(entry) => appended.extend(entry.map(|entry| (name.clone(), entry))),
            Err(error) => drop(damage(name, error)?),
        }
        Ok(())
    }

    /// A log was made: what the ledger knows of its name counts from its beginning.
    pub(super) fn order_in_new(&mut self, writes: Writes<'_>, log: &LogRow) -> Result<(), StoreError> {
        let orders: Vec<_> =
            self.orders.iter().filter(|order| order.target.log() == Some(&log.name)).cloned().collect();
        for order in orders {
            let what = match &order.target {
                Target::Record(_, collection, record) => Erase::Record((collection.clone(), record.clone())),
                _ => Erase::Log(()),
            };
            self.erase(writes, log, &order, what)?;
        }
        Ok(())
    }

    /// Appends an erase, unless this order was taken in that log before.
    fn erase(
        &mut self,
        writes: Writes<'_>,
        log: &LogRow,
        order: &Order,
        what: Erase,
    ) -> Result<Option<(Logged, Cursor, usize)>, StoreError> {
        if writes.reads().has_erasure(log.key, order.request)? {
            return Ok(None);
        }
        self.begin_epoch(writes, log)?;
        let now = self.environment.now();
        let hot = self.hot.load(writes.reads(), log)?;
        let placed = hot.sequencer.erase(now, what.clone(), &mut self.random);
        let write = || -> Result<usize, StoreError> {
            let author = writes.log_author()?;
            let bytes = writes.append(log.key, author, &placed)?;
            writes.set_end(log, placed.1, placed.0.accepted, bytes as u64)?;
            let (offset, at, request) = (placed.0.offset, order.at, Some(order.request));
            let row = ErasureRow { log: log.key, offset, request, what, at, reached: Offset(0), done: None };
            writes.put_erasure(&row)?;
            Ok(bytes)
        };
        let bytes = write().map_err(StoreError::midway)?;
        hot.grew(bytes as u64);
        self.jobs.request(Job::Snapshot(log.clone()));
        Ok(Some((placed.0, placed.1, bytes)))
    }

    /// Notes an erase that a push brought with it: what came late, or what a policy said.
    pub(super) fn erased_by_push(writes: Writes<'_>, log: &LogRow, logged: &Logged) -> Result<(), StoreError> {
        if logged.actor != ActorId::LOG {
            return Ok(());
        }
        for op in &logged.entry.body.ops {
            let Op::Erase(what) = op else { continue };
            // What came late came behind the last erase.
            let reached = match what {
                Erase::Late(()) => writes.reads().erasures_last(log.key)?.unwrap_or(Offset(0)),
                _ => Offset(0),
            };
            let (log, offset, at) = (log.key, logged.offset, logged.accepted.ms());
            let row = ErasureRow { log, offset, request: None, what: what.clone(), at, reached, done: None };
            writes.put_erasure(&row)?;
        }
        Ok(())
    }

    /// Carries erases on by one step each; whose entries were touched, through where, and whether there is more to do.
    pub(super) fn erase_on(&mut self, writes: Writes<'_>) -> Result<(Vec<(LogName, Offset)>, bool), StoreError> {
        let (mut touched, mut more) = (Vec::new(), false);
        let undone = match writes.reads().erasures(true) {
            Ok(undone) => undone,
            Err(error) if error.is_corruption() => {
                tracing::error!(%error, "erases are not carried out");
                return Ok((touched, false));
            }
            Err(error) => return Err(error),
        };
        for erasure in undone {
            let mut step = || -> Result<(), StoreError> {
                let log = writes.reads().log_of_key(erasure.log)?;
                let end = erasure.offset.next();
                let (snapshots, _) = writes.reads().snapshots(log.key)?;
                if snapshots.iter().filter(|snapshot| snapshot.end >= end).count() < 2 {
                    self.jobs.request(Job::Snapshot(log));
                    return Ok(());
                }
                let now = self.environment.now();
                let sequencer = &self.hot.load(writes.reads(), &log)?.sequencer;
                let has_erased = |actor, entry: &_| sequencer.has_erased(actor, entry);
                let left = writes.erase_step(&log, erasure.clone(), now, STEP_ENTRIES, &has_erased)?;
                more |= left.done.is_none();
                touched.push((log.name, end));
                Ok(())
            };
            match step() {
                Err(error) if error.is_corruption() => {
                    tracing::error!(%error, offset = %erasure.offset, "an erase is not carried out");
                }
                stepped => stepped?,
            }
        }
        Ok((touched, more))
    }

    fn erase_authors(
        &mut self,
        writes: Writes<'_>,
        actors: &[ActorId],
        order: &Order,
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        for (log, authors) in writes.reads().logs_of(actors)? {
            let what = Erase::Authors(authors);
            match self.erase(writes, &log, order, what) {
                Ok(entry) => appended.extend(entry.map(|entry| (log.name.clone(), entry))),
                Err(error) => drop(damage(&log.name, error)?),
            }
        }
        if writes.forget_actors(actors)? {
            self.took_out();
        }
        Ok(())
    }
}
