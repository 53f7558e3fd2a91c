//! Erases that the server carries out: what is still to do, and the steps by which content leaves the tables.
//!
//! An erase is in the log as an entry; a row of `erasures` says how far it is carried out. **Order:** two snapshots are
//! stored that lie behind the erase; then nobody folds from before it any more (`logs.folds`), in the same transaction
//! in which the first body goes; then bodies and dead letters go, some in each transaction; last the row says when it
//! was done. Cut anywhere, it goes on where it was.

use std::collections::BTreeMap;

use driftlog_core::codec;
use driftlog_core::entry::{Entry, Gone};
use driftlog_core::id::{ActorId, Offset, UserId};
use driftlog_core::op::Erase;
use driftlog_core::sequencer::Binding;
use driftlog_core::time::WallMs;
use rusqlite::types::ValueRef;
use rusqlite::{Row, params};

use super::read::{LogEnd, Reads, blob, unsigned};
use super::sum;
use super::write::{Writes, integer, number_value};
use crate::store::{AuthorKey, LogKey, LogRow, StoreError};

/// Bytes of entries read in one step.
const STEP_BYTES: usize = 4 * 1024 * 1024;
const ERASURE_COLUMNS: &str = "log, offset, request, what, at_ms, reached, done_ms, sum";
/// How many of them the sum covers.
pub(super) const ERASURE_SUMMED: usize = 7;

/// An erase of one log.
#[derive(Debug, Clone)]
pub(crate) struct ErasureRow {
    pub(crate) log: LogKey,
    /// Where its entry stands.
    pub(crate) offset: Offset,
    /// Which word of an operator it carries out; none: it stands behind what came late.
    pub(crate) request: Option<[u8; 16]>,
    pub(crate) what: Erase,
    pub(crate) at: WallMs,
    /// Entries before this were looked at.
    pub(crate) reached: Offset,
    /// When everything was gone; none: it is not yet.
    pub(crate) done: Option<WallMs>,
}

impl Reads<'_> {
    /// Every erase, by log and offset; of those only that are not done, if so.
    pub(crate) fn erasures(self, undone: bool) -> Result<Vec<ErasureRow>, StoreError> {
        let only = if undone { " WHERE done_ms IS NULL" } else { "" };
        let sql = format!("SELECT {ERASURE_COLUMNS} FROM erasures{only} ORDER BY log, offset");
        let mut statement = self.0.prepare_cached(&sql)?;
        let (mut rows, mut erasures) = (statement.query([])?, Vec::new());
        while let Some(row) = rows.next()? {
            erasures.push(erasure_row(row)?);
        }
        Ok(erasures)
    }

    /// Where the last erase of a log stands.
    pub(crate) fn erasures_last(self, log: LogKey) -> Result<Option<Offset>, StoreError> {
        let sql = "SELECT max(offset) FROM erasures WHERE log = ?1";
        let last: Option<i64> = self.0.prepare_cached(sql)?.query_row([log.0], |row| row.get(0))?;
        Ok(last.map(|offset| Offset(offset.cast_unsigned())))
    }

    /// Every actor that is bound to a user.
    pub(crate) fn actors_of(self, user: &UserId) -> Result<Vec<ActorId>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT actor FROM bindings WHERE user = ?1 ORDER BY author")?;
        let rows = statement.query_map([user.as_str()], |row| blob(row, 0).map(ActorId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The logs in which some of these actors ever pushed, each with those that did.
    pub(crate) fn logs_of(self, actors: &[ActorId]) -> Result<Vec<(LogRow, Vec<ActorId>)>, StoreError> {
        let mut logs: BTreeMap<LogKey, Vec<ActorId>> = BTreeMap::new();
        for actor in actors {
            let Some((author, _)) = self.binding(*actor)? else { continue };
            let mut statement = self.0.prepare_cached("SELECT log FROM actors WHERE author = ?1")?;
            for log in statement.query_map([author.0], |row| row.get(0).map(LogKey))? {
                logs.entry(log?).or_default().push(*actor);
            }
        }
        logs.into_iter().map(|(log, actors)| Ok((self.log_of_key(log)?, actors))).collect()
    }

    /// Whether an operator's word was taken in a log.
    pub(crate) fn has_erasure(self, log: LogKey, request: [u8; 16]) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM erasures WHERE log = ?1 AND request = ?2)";
        Ok(self.0.prepare_cached(sql)?.query_row(params![log.0, &request[..]], |row| row.get(0))?)
    }

    /// From where on the entries of a log fold: those before are covered by snapshots, and may lack their body.
    pub(crate) fn folds_from(self, log: &LogRow) -> Result<Offset, StoreError> {
        self.log_end(log).map(|found| found.folds.max(found.kept.first.next))
    }

    /// Dead letters of a log whose entry is one of these: their numbers.
    fn letters_with(self, log: &LogRow, has_erased: &dyn Fn(ActorId, &Entry) -> bool) -> Result<Vec<i64>, StoreError> {
        let sql = "SELECT letter, author, bytes FROM dead_letters WHERE log = ?1 AND author IS NOT NULL";
        let mut statement = self.0.prepare_cached(sql)?;
        let (mut rows, mut letters) = (statement.query([log.key.0])?, Vec::new());
        while let Some(row) = rows.next()? {
            let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let (actor, _) = self.author(AuthorKey(row.get(1)?))?;
            // What does not read may be of it.
            if Entry::from_bytes(bytes).ok().is_none_or(|entry| has_erased(actor, &entry)) {
                letters.push(row.get(0)?);
            }
        }
        Ok(letters)
    }
}

impl Writes<'_> {
    /// Forgets who these actors are: their bindings name nobody any more, and their connections are gone. Whether there
    /// was anything to forget.
    pub(crate) fn forget_actors(self, actors: &[ActorId]) -> Result<bool, StoreError> {
        let mut found = false;
        for actor in actors {
            if let Some((_, binding)) = self.reads().binding(*actor)?
                && !binding.is_erased()
            {
                self.put_binding(*actor, &Binding::erased())?;
                found = true;
            }
            let connections = "SELECT connection FROM connections WHERE actor = ?1";
            let cursors = format!("DELETE FROM cursors WHERE connection IN ({connections})");
            self.0.prepare_cached(&cursors)?.execute([&actor.0[..]])?;
            self.0.prepare_cached("DELETE FROM connections WHERE actor = ?1")?.execute([&actor.0[..]])?;
        }
        Ok(found)
    }

    /// Notes an erase that was appended; entries before `from` need not be looked at.
    pub(crate) fn put_erasure(self, erasure: &ErasureRow) -> Result<(), StoreError> {
        let what = codec::to_bytes(&erasure.what);
        let values = [
            integer(erasure.log.0),
            number_value(erasure.offset.0),
            erasure.request.as_ref().map_or(ValueRef::Null, |request| ValueRef::Blob(request)),
            ValueRef::Blob(&what),
            number_value(erasure.at),
            number_value(erasure.reached.0),
            erasure.done.map_or(ValueRef::Null, number_value),
        ];
        self.put("REPLACE INTO erasures VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", "erasures", &values)?;
        Ok(())
    }

    /// Carries an erase on, by so many entries; what is left of it to do. Two stored snapshots lie behind it.
    pub(crate) fn erase_step(
        self,
        log: &LogRow,
        mut erasure: ErasureRow,
        now: WallMs,
        count_max: usize,
        has_erased: &dyn Fn(ActorId, &Entry) -> bool,
    ) -> Result<ErasureRow, StoreError> {
        let before = self.reads().log_end(log)?;
        if before.folds <= erasure.offset {
            self.put_log_end(log, LogEnd { folds: erasure.offset.next(), ..before })?;
        }
        let from = erasure.reached.max(before.kept.first.next);
        let count = usize::try_from(erasure.offset.0.saturating_sub(from.0)).unwrap_or(count_max).min(count_max);
        erasure.reached = from;
        for (logged, after) in self.reads().entries(log, from, count, STEP_BYTES)? {
            if has_erased(logged.actor, &logged.entry) {
                self.purge(log, logged.offset, Gone::Erased)?;
            }
            erasure.reached = after.next;
        }
        if erasure.reached >= erasure.offset {
            let mut delete = self.0.prepare_cached("DELETE FROM dead_letters WHERE letter = ?1")?;
            for letter in self.reads().letters_with(log, has_erased)? {
                delete.execute([letter])?;
            }
            erasure.done = Some(now);
        }
        self.put_erasure(&erasure)?;
        Ok(erasure)
    }
}

fn erasure_row(row: &Row<'_>) -> Result<ErasureRow, StoreError> {
    sum::check("erasures", row, ERASURE_SUMMED)?;
    let what = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok(ErasureRow {
        log: LogKey(row.get(0)?),
        offset: Offset(unsigned(row, 1)?),
        request: row.get(2)?,
        what: codec::from_bytes(what).map_err(|error| StoreError::corrupt("erasures", error))?,
        at: unsigned(row, 4)?,
        reached: Offset(unsigned(row, 5)?),
        done: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
    })
}
