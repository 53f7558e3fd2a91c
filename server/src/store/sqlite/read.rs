//! Reads, for readers and inside the writer's transaction alike.

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::codec;
use driftlog_core::entry::{Digest, Entry, Logged};
use driftlog_core::id::{ActorId, EpochId, LogId, LogName, Offset, Seq, UserId};
use driftlog_core::sequencer::{AuthorRow, Binding, Known, Place, Wanted};
use driftlog_core::time::Time;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::{AuthorKey, LogKey, LogRow, Placed, StoreError, StoredSnapshot};

/// Reads over one connection.
#[derive(Clone, Copy)]
pub(crate) struct Reads<'c>(pub(crate) &'c Connection);

impl Reads<'_> {
    /// A log by its name.
    pub(crate) fn log(self, name: &LogName) -> Result<Option<LogRow>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT log, log_id FROM logs WHERE name = ?1")?;
        let row = statement.query_row([name.as_str()], |row| Ok((row.get(0)?, blob(row, 1)?))).optional()?;
        Ok(row.map(|(key, log_id)| LogRow { key: LogKey(key), name: name.clone(), log_id: LogId(log_id) }))
    }

    /// The end of a log and its last accepted time.
    pub(crate) fn end(self, log: &LogRow) -> Result<(Cursor, Time), StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT offset, chain, accepted FROM entries WHERE log = ?1 ORDER BY offset DESC LIMIT 1",
        )?;
        let last = statement
            .query_row([log.key.0], |row| {
                let next = Offset(unsigned(row, 0)? + 1);
                Ok((Cursor { next, chain: Chain(Digest(blob(row, 1)?)) }, Time(unsigned(row, 2)?)))
            })
            .optional()?;
        Ok(last.unwrap_or((Cursor::start(log.log_id), Time::MIN)))
    }

    /// The log chain before an offset; none when the log does not reach there.
    pub(crate) fn chain_at(self, log: &LogRow, next: Offset) -> Result<Option<Chain>, StoreError> {
        let Some(last) = next.0.checked_sub(1) else { return Ok(Some(Chain::log_start(log.log_id))) };
        let mut statement = self.0.prepare_cached("SELECT chain FROM entries WHERE log = ?1 AND offset = ?2")?;
        let Ok(last) = i64::try_from(last) else { return Ok(None) };
        let chain = statement.query_row(params![log.key.0, last], |row| blob(row, 0)).optional()?;
        Ok(chain.map(|chain| Chain(Digest(chain))))
    }

    /// Every epoch of a log in the order they began.
    pub(crate) fn epochs(self, log: LogKey) -> Result<Vec<(EpochId, Offset)>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT epoch, first FROM epochs WHERE log = ?1 ORDER BY number")?;
        let rows = statement.query_map([log.0], |row| Ok((EpochId(blob(row, 0)?), Offset(unsigned(row, 1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// An actor's number and binding.
    pub(crate) fn binding(self, actor: ActorId) -> Result<Option<(AuthorKey, Binding)>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT author, binding FROM bindings WHERE actor = ?1")?;
        let row = statement
            .query_row([&actor.0[..]], |row| Ok((AuthorKey(row.get(0)?), row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        row.map(|(key, bytes)| {
            let binding = codec::from_bytes(&bytes).map_err(|error| StoreError::corrupt("bindings", error))?;
            Ok((key, binding))
        })
        .transpose()
    }

    /// An actor's row in a log.
    pub(crate) fn author_row(self, log: LogKey, author: AuthorKey) -> Result<Option<AuthorRow>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT row FROM actors WHERE log = ?1 AND author = ?2")?;
        let bytes: Option<Vec<u8>> = statement.query_row([log.0, author.0], |row| row.get(0)).optional()?;
        bytes.map(|bytes| codec::from_bytes(&bytes).map_err(|error| StoreError::corrupt("actors", error))).transpose()
    }

    /// Places of an author's accepted seqs within a stretch, ascending.
    pub(crate) fn places(
        self,
        log: LogKey,
        author: AuthorKey,
        from: Seq,
        through: Seq,
    ) -> Result<Vec<(Seq, Place)>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT seq, offset, accepted, digest FROM entries
             WHERE log = ?1 AND author = ?2 AND seq BETWEEN ?3 AND ?4 ORDER BY seq",
        )?;
        let rows = statement.query_map(params![log.0, author.0, signed(from.0), signed(through.0)], |row| {
            let place = Place {
                offset: Offset(unsigned(row, 1)?),
                accepted: Time(unsigned(row, 2)?),
                digest: Digest(blob(row, 3)?),
            };
            Ok((Seq(unsigned(row, 0)?), place))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What a decision needs to know of the past.
    pub(crate) fn known(self, log: LogKey, author: AuthorKey, wanted: &Wanted) -> Result<Known, StoreError> {
        let mut known = Known::default();
        if let Some((from, through)) = wanted.decided {
            known.places = self.places(log, author, from, through)?.into_iter().collect();
            let mut statement = self.0.prepare_cached(
                "SELECT seq, digest FROM dead_letters WHERE log = ?1 AND author = ?2 AND seq BETWEEN ?3 AND ?4",
            )?;
            let rows = statement.query_map(params![log.0, author.0, signed(from.0), signed(through.0)], |row| {
                Ok((Seq(unsigned(row, 0)?), Digest(blob(row, 1)?)))
            })?;
            known.refused = rows.collect::<Result<_, _>>()?;
        }
        for target in &wanted.replaces {
            let mut statement = self.0.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM replacements WHERE log = ?1 AND actor = ?2 AND seq = ?3 AND digest = ?4)
                     OR EXISTS (SELECT 1 FROM entries JOIN bindings USING (author)
                                WHERE log = ?1 AND actor = ?2 AND seq = ?3 AND digest = ?4)",
            )?;
            let (actor, digest) = (&target.id.actor.0[..], &target.digest.0[..]);
            if statement.query_row(params![log.0, actor, signed(target.id.seq.0), digest], |row| row.get(0))? {
                known.replaced.insert(target.clone());
            }
        }
        Ok(known)
    }

    /// Entries from an offset on, until `bytes_max` of them are read; at least one if there is one.
    pub(crate) fn entries(
        self,
        log: LogKey,
        from: Offset,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT offset, actor, user, accepted, base, chain, bytes FROM entries JOIN bindings USING (author)
             WHERE log = ?1 AND offset >= ?2 ORDER BY offset LIMIT ?3",
        )?;
        let mut rows = statement.query(params![log.0, signed(from.0), signed(count_max as u64)])?;
        let (mut placed, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(row) = rows.next()?
        {
            let (entry, size) = self.placed(row)?;
            if entry.0.offset.0 != from.0 + placed.len() as u64 {
                return Err(StoreError::corrupt("entries", format!("offset {} follows a hole", entry.0.offset)));
            }
            bytes += size;
            placed.push(entry);
        }
        Ok(placed)
    }

    fn placed(self, row: &Row<'_>) -> Result<(Placed, usize), StoreError> {
        let offset = Offset(unsigned(row, 0)?);
        let bytes = row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?;
        let entry = Entry::from_bytes(bytes).map_err(|error| StoreError::CorruptEntry { offset, error })?;
        let user = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let logged = Logged {
            offset,
            actor: ActorId(blob(row, 1)?),
            user: UserId::new(user).map_err(|error| StoreError::corrupt("bindings", error))?,
            accepted: Time(unsigned(row, 3)?),
            base: Offset(unsigned(row, 4)?),
            entry,
        };
        let cursor = Cursor { next: offset.next(), chain: Chain(Digest(blob(row, 5)?)) };
        Ok(((logged, cursor), bytes.len()))
    }

    /// Where the newest snapshot of a log ends.
    pub(crate) fn snapshot_end(self, log: LogKey) -> Result<Option<Offset>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT next FROM snapshots WHERE log = ?1")?;
        Ok(statement.query_row([log.0], |row| unsigned(row, 0)).optional()?.map(Offset))
    }

    /// The newest snapshot of a log.
    pub(crate) fn snapshot(self, log: LogKey) -> Result<Option<StoredSnapshot>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT next, chain, bytes FROM snapshots WHERE log = ?1")?;
        let snapshot = statement.query_row([log.0], |row| {
            let cursor = Cursor { next: Offset(unsigned(row, 0)?), chain: Chain(Digest(blob(row, 1)?)) };
            Ok(StoredSnapshot { cursor, bytes: row.get(2)? })
        });
        Ok(snapshot.optional()?)
    }

    /// Number of logs, entries kept aside, and age of the oldest, for `/health`.
    pub(crate) fn counts(self) -> Result<(u64, u64), StoreError> {
        let count = |sql: &str| self.0.query_row(sql, [], |row| unsigned(row, 0));
        Ok((count("SELECT count(*) FROM logs")?, count("SELECT count(*) FROM dead_letters")?))
    }
}

/// SQLite's integers are signed; what we store never reaches the sign.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn blob<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    row.get::<_, [u8; N]>(column)
}
