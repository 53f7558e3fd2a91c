//! The writer's work on dead letters: keeping within bounds, redriving, discarding.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use driftlog_core::entry;
use driftlog_core::id::{ActorId, EntryId, LogName, Offset, Seq};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Redrive, RedriveError};
use tokio::sync::oneshot;

use super::{Effect, LogWriter};
use crate::store::{LetterId, LetterTotals, LogKey, LogRow, Placed, RefusedEntry, StoreError, Writes};

/// Work on one dead letter.
pub(crate) enum LetterRequest {
    Redrive(LetterId, oneshot::Sender<Result<Redriven, LetterError>>),
    Discard(LetterId, oneshot::Sender<Result<(), LetterError>>),
}

/// A redrive that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redriven {
    /// Where the replacement stands.
    pub(crate) offset: Offset,
    /// Whether it stood there already.
    pub(crate) before: bool,
}

/// A dead letter stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// It was discarded, or never there.
    #[error("there is no dead letter {0}")]
    Missing(u64),
    /// Bytes that were no frame can be exported or discarded.
    #[error("dead letter {0} holds no entry that could be redriven")]
    NoEntry(u64),
    /// The log does not take it.
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    /// The server is ending, or its store failed.
    #[error("the server does not answer")]
    NoAnswer,
}

/// What the writer remembers of dead letters.
#[derive(Default)]
pub(super) struct Letters {
    /// How much there is of each log's, as far as it was looked at since the start.
    totals: BTreeMap<Option<LogKey>, LetterTotals>,
    /// How many went beyond their log's bound since the start.
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Dead letters that went beyond the bound of their log since the start.
    pub(crate) fn letters_dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.letters.dropped)
    }

    /// Keeps a log's dead letters within their bounds, after `bytes` more were kept.
    pub(super) fn bound_letters(
        &mut self,
        writes: Writes<'_>,
        log: Option<LogKey>,
        kept: &[usize],
    ) -> Result<(), StoreError> {
        let totals = match self.letters.totals.entry(log) {
            Entry::Occupied(known) => {
                let totals = known.into_mut();
                totals.count += kept.len() as u64;
                totals.bytes += kept.iter().sum::<usize>() as u64;
                totals
            }
            // They are counted already.
            Entry::Vacant(vacant) => vacant.insert(writes.reads().letter_totals(log)?),
        };
        let bounds = self.config.dead_letters;
        let max = LetterTotals { count: bounds.count_max, bytes: bounds.bytes_max };
        let dropped = writes.drop_letters(log, totals, max)?;
        if dropped > 0 {
            tracing::warn!(dropped, "dead letters beyond the bound of their log were dropped, the oldest first");
            self.letters.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn letter(&mut self, writes: Writes<'_>, request: LetterRequest) -> Result<Effect, StoreError> {
        match request {
            LetterRequest::Redrive(id, reply) => self.redrive(writes, id, reply),
            LetterRequest::Discard(id, reply) => {
                let letter = writes.reads().letter(id)?;
                let answer = match letter {
                    Some(letter) => {
                        writes.discard_letter(id)?;
                        // Read anew when it is needed next.
                        self.letters.totals.remove(&letter.refused.map(|refused| refused.log.key));
                        Ok(())
                    }
                    None => Err(LetterError::Missing(id)),
                };
                Ok(Box::new(move |_| drop(reply.send(answer))))
            }
        }
    }

    fn redrive(
        &mut self,
        writes: Writes<'_>,
        id: LetterId,
        reply: oneshot::Sender<Result<Redriven, LetterError>>,
    ) -> Result<Effect, StoreError> {
        let refuse = |reply: oneshot::Sender<_>, error| -> Result<Effect, StoreError> {
            Ok(Box::new(move |_| drop(reply.send(Err(error)))))
        };
        let Some(letter) = writes.reads().letter(id)? else { return refuse(reply, LetterError::Missing(id)) };
        let (Some(refused), Some(entry)) = (&letter.refused, letter.entry()) else {
            return refuse(reply, LetterError::NoEntry(id));
        };
        if let Some(offset) = refused.replaced {
            return Ok(Box::new(move |_| drop(reply.send(Ok(Redriven { offset, before: true })))));
        }
        let missing = missing_need(writes, refused, &entry)?;
        let RefusedEntry { log, user, target, .. } = refused;
        let line = entry.line(target.id);
        let was_logged = line.id != target.id && writes.reads().was_logged(log.key, &line)?;
        self.begin_epoch(writes, log)?;
        let now = self.environment.now();
        let hot = self.hot.load(writes.reads(), log)?;
        let redrive = Redrive { id: target.id, user, entry: &entry, replaced: was_logged, missing };
        let redriven = match hot.sequencer.redrive(now, redrive, &mut self.random) {
            Ok(redriven) => redriven,
            Err(error) => {
                if let RedriveError::Refused { code, reason } = &error {
                    writes.letter_failed(now, id, *code, reason)?;
                }
                return refuse(reply, error.into());
            }
        };
        // From here on the log in memory is ahead of the disk.
        let sizes = write_own(writes, log, &redriven.appended).map_err(StoreError::midway)?;
        sizes.iter().for_each(|bytes| hot.grew(*bytes as u64));
        let appended: Vec<_> =
            redriven.appended.into_iter().zip(sizes).map(|((logged, cursor), bytes)| (logged, cursor, bytes)).collect();
        let (name, offset) = (log.name.clone(), appended.first().map_or(Offset(0), |(logged, ..)| logged.offset));
        Ok(Box::new(move |feeds| {
            let _ = reply.send(Ok(Redriven { offset, before: false }));
            feeds.committed(&name, appended);
        }))
    }
}

/// Writes entries of the log itself; gives the bytes of each.
pub(super) fn write_own(writes: Writes<'_>, log: &LogRow, own: &[Placed]) -> Result<Vec<usize>, StoreError> {
    let author = writes.log_author()?;
    let sizes = own.iter().map(|placed| writes.append(log.key, author, placed));
    let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
    if let Some((logged, end)) = own.last() {
        writes.set_end(log, *end, logged.accepted, sizes.iter().map(|bytes| *bytes as u64).sum())?;
    }
    Ok(sizes)
}

/// The client has recorded its verdicts: codes and reasons go.
pub(super) fn settle(writes: Writes<'_>, name: &LogName, actor: ActorId, through: Seq) -> Result<(), StoreError> {
    let reads = writes.reads();
    let (Some(log), Some((author, _))) = (reads.log(name)?, reads.binding(actor)?) else { return Ok(()) };
    if let Some(mut row) = reads.author_row(log.key, author)?
        && row.settled < through
    {
        row.settle(through);
        writes.put_author_row(log.key, author, &row)?;
    }
    Ok(())
}

/// An entry that this one builds on and that is neither in the log nor re-issued.
fn missing_need(writes: Writes<'_>, refused: &RefusedEntry, entry: &entry::Entry) -> Result<Option<Seq>, StoreError> {
    let reads = writes.reads();
    let Some(row) = reads.author_row(refused.log.key, refused.author)? else { return Ok(None) };
    for need in &entry.header.needs {
        let id = EntryId { actor: refused.target.id.actor, seq: *need };
        if row.is_absent(*need) && !reads.is_reissued(refused.log.key, id)? {
            return Ok(Some(*need));
        }
    }
    Ok(None)
}

impl LetterError {
    /// Its number on the wire.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing(_) | Self::NoEntry(_) => Code::MalformedEntry,
            Self::Redrive(RedriveError::Refused { code, .. }) => *code,
            Self::Redrive(_) => Code::Overloaded,
            Self::NoAnswer => Code::ShuttingDown,
        }
    }
}
