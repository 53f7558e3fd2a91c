//! Reads, for readers and inside the writer's transaction alike.
//!
//! **Invariant:** what is read is what was written, or an error. Each row is checked against its sum, each entry
//! against its digest, and a row that should be there and is not is an error too: the end of a log and the number of
//! its epochs stand in `logs`, and an actor without a row has no entries.

use std::collections::BTreeMap;

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::codec;
use driftlog_core::entry::InvalidEntry;
use driftlog_core::entry::{Digest, Entry, Gone, Header, Logged, Replaced};
use driftlog_core::id::{ActorId, EpochId, LogId, LogName, Offset, Seq, UserId};
use driftlog_core::packed::Pushed;
use driftlog_core::sequencer::{AuthorRow, Binding, Known, Place, PushItems, Wanted};
use driftlog_core::time::Time;
use rusqlite::{Connection, Row, params};

use super::sum;
use crate::store::{AuthorKey, LogKey, LogRow, Placed, Retained, StoreError};

/// Reads over one connection.
#[derive(Clone, Copy)]
pub(crate) struct Reads<'c>(pub(crate) &'c Connection);

/// What stands in a log's row and changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogEnd {
    pub(super) epochs: u64,
    pub(super) end: Cursor,
    pub(super) accepted: Time,
    pub(super) kept: Retained,
    /// From where on entries fold; those before may lack their body.
    pub(super) folds: Offset,
}

/// Everything of an entry but its bytes.
struct EntryRow {
    offset: Offset,
    author: AuthorKey,
    seq: Seq,
    accepted: Time,
    base: Offset,
    digest: Digest,
    chain: Chain,
    gone: Option<Gone>,
}

/// The columns of an [`EntryRow`], their sum last.
const ENTRY_COLUMNS: &str = "log, offset, author, seq, accepted, base, digest, chain, expires, gone, sum";
/// How many of them the sum covers.
pub(super) const ENTRY_SUMMED: usize = 10;
const LOG_COLUMNS: &str =
    "log, name, log_id, epochs, next, chain, accepted, first, first_chain, kept_bytes, folds, sum";
/// How many of them the sum covers.
pub(super) const LOG_SUMMED: usize = 11;
/// The columns of a dead letter but its bytes, their sum last.
pub(super) const LETTER_COLUMNS: &str = "letter, log, author, seq, digest, source, code, reason, attempts, first_ms, last_ms, line_actor, line_seq, line_digest, sum";
/// How many of them the sum covers.
pub(super) const LETTER_SUMMED: usize = 14;
const BINDING_COLUMNS: &str = "author, actor, user, binding, sum";

impl Reads<'_> {
    /// A log by its name.
    pub(crate) fn log(self, name: &LogName) -> Result<Option<LogRow>, StoreError> {
        let sql = format!("SELECT {LOG_COLUMNS} FROM logs WHERE name = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([name.as_str()])?;
        rows.next()?.map(|row| log_row(row).map(|(log, _)| log)).transpose()
    }

    /// A log by its number.
    pub(crate) fn log_of_key(self, key: LogKey) -> Result<LogRow, StoreError> {
        let mut statement = self.0.prepare_cached(&format!("SELECT {LOG_COLUMNS} FROM logs WHERE log = ?1"))?;
        let mut rows = statement.query([key.0])?;
        let Some(row) = rows.next()? else { return Err(StoreError::corrupt("logs", "a log is gone")) };
        Ok(log_row(row)?.0)
    }

    /// The numbers of the logs behind this one, at most so many.
    pub(crate) fn logs_after(self, key: LogKey, count_max: usize) -> Result<Vec<LogKey>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT log FROM logs WHERE log > ?1 ORDER BY log LIMIT ?2")?;
        let rows = statement.query_map(params![key.0, signed(count_max as u64)], |row| row.get(0).map(LogKey))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The end of a log and its last accepted time.
    pub(crate) fn end(self, log: &LogRow) -> Result<(Cursor, Time), StoreError> {
        self.log_end(log).map(|found| (found.end, found.accepted))
    }

    /// Which entries of a log are there.
    pub(crate) fn kept(self, log: &LogRow) -> Result<Retained, StoreError> {
        self.log_end(log).map(|found| found.kept)
    }

    /// A log's row as it stands.
    pub(super) fn log_end(self, log: &LogRow) -> Result<LogEnd, StoreError> {
        let mut statement = self.0.prepare_cached(&format!("SELECT {LOG_COLUMNS} FROM logs WHERE log = ?1"))?;
        let mut rows = statement.query([log.key.0])?;
        let Some(row) = rows.next()? else { return Err(StoreError::corrupt("logs", "an open log is gone")) };
        Ok(log_row(row)?.1)
    }

    /// The log chain before an offset; none when the log does not reach there, or not back there any more.
    pub(crate) fn chain_at(self, log: &LogRow, next: Offset) -> Result<Option<Chain>, StoreError> {
        let Some(last) = next.0.checked_sub(1) else { return Ok(Some(Chain::log_start(log.log_id))) };
        let LogEnd { end, kept: Retained { first, .. }, .. } = self.log_end(log)?;
        if next >= end.next {
            return Ok((next == end.next).then_some(end.chain));
        }
        if next <= first.next {
            return Ok((next == first.next).then_some(first.chain));
        }
        let sql = format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE log = ?1 AND offset = ?2");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params![log.key.0, signed(last)])?;
        let Some(row) = rows.next()? else { return Err(missing(Offset(last))) };
        Ok(Some(entry_row(row)?.chain))
    }

    /// Every epoch of a log in the order they began.
    pub(crate) fn epochs(self, log: &LogRow) -> Result<Vec<(EpochId, Offset)>, StoreError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT log, number, epoch, first, sum FROM epochs WHERE log = ?1 ORDER BY number")?;
        let (mut rows, mut epochs) = (statement.query([log.key.0])?, Vec::new());
        while let Some(row) = rows.next()? {
            sum::check("epochs", row, 4)?;
            epochs.push((EpochId(blob(row, 2)?), Offset(unsigned(row, 3)?)));
        }
        let expected = self.log_end(log)?.epochs;
        if epochs.len() as u64 == expected {
            return Ok(epochs);
        }
        Err(StoreError::corrupt("epochs", format!("{} of {expected} epochs of a log are there", epochs.len())))
    }

    /// An actor's number and binding.
    pub(crate) fn binding(self, actor: ActorId) -> Result<Option<(AuthorKey, Binding)>, StoreError> {
        let sql = format!("SELECT {BINDING_COLUMNS} FROM bindings WHERE actor = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([&actor.0[..]])?;
        let found = rows.next()?.map(binding_row).transpose()?;
        Ok(found.map(|(author, _, binding)| (author, binding)))
    }

    /// Who an author is.
    pub(crate) fn author(self, author: AuthorKey) -> Result<(ActorId, UserId), StoreError> {
        let sql = format!("SELECT {BINDING_COLUMNS} FROM bindings WHERE author = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([author.0])?;
        let Some(row) = rows.next()? else {
            return Err(StoreError::corrupt("bindings", format!("author {} of an entry is missing", author.0)));
        };
        let (_, actor, binding) = binding_row(row)?;
        Ok((actor, binding.user))
    }

    /// An actor's row in a log.
    pub(crate) fn author_row(self, log: LogKey, author: AuthorKey) -> Result<Option<AuthorRow>, StoreError> {
        let mut statement =
            self.0.prepare_cached("SELECT log, author, row, sum FROM actors WHERE log = ?1 AND author = ?2")?;
        let mut rows = statement.query([log.0, author.0])?;
        if let Some(row) = rows.next()? {
            sum::check("actors", row, 3)?;
            let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            return codec::from_bytes(bytes).map(Some).map_err(|error| StoreError::corrupt("actors", error));
        }
        let mut statement = self.0.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM entries WHERE log = ?1 AND author = ?2)
                 OR EXISTS (SELECT 1 FROM dead_letters WHERE log = ?1 AND author = ?2)",
        )?;
        match statement.query_row([log.0, author.0], |row| row.get(0))? {
            true => Err(StoreError::corrupt("actors", format!("author {} has entries and no row", author.0))),
            false => Ok(None),
        }
    }

    /// Places of an author's accepted seqs within a stretch, ascending; each that `row` has as accepted and kept is
    /// there.
    pub(crate) fn places(
        self,
        log: LogKey,
        author: AuthorKey,
        row: &AuthorRow,
        (from, through): (Seq, Seq),
    ) -> Result<Vec<(Seq, Place)>, StoreError> {
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {ENTRY_COLUMNS} FROM entries WHERE log = ?1 AND author = ?2 AND seq BETWEEN ?3 AND ?4 ORDER BY seq"
        ))?;
        let mut rows = statement.query(params![log.0, author.0, signed(from.0), signed(through.0)])?;
        let mut places = Vec::new();
        while let Some(row) = rows.next()? {
            let EntryRow { offset, seq, accepted, digest, .. } = entry_row(row)?;
            places.push((seq, Place { offset, accepted, digest }));
        }
        let expected = row.accepted_between(from.max(row.truncated.next()), through);
        if places.len() as u64 == expected {
            return Ok(places);
        }
        let reason = format!("{} of {expected} entries of an actor from seq {from} to {through}", places.len());
        Err(StoreError::corrupt("entries", reason))
    }

    /// What a decision needs to know of the past.
    pub(crate) fn known(
        self,
        log: LogKey,
        author: AuthorKey,
        row: &AuthorRow,
        wanted: &Wanted,
    ) -> Result<Known, StoreError> {
        let mut known = Known::default();
        if let Some((from, through)) = wanted.decided {
            known.places = self.places(log, author, row, (from, through))?.into_iter().collect();
            known.refused = self.letters(log, author, (from, through))?;
        }
        for target in &wanted.replaces {
            if self.replacement(log, target)?.is_some()
                || self.logged_at(log, target)?.is_some()
                || self.was_logged(log, target)?
            {
                known.replaced.insert(target.clone());
            }
        }
        Ok(known)
    }

    /// Digests of an author's refused entries within a stretch, as far as they are kept.
    pub(crate) fn letters(
        self,
        log: LogKey,
        author: AuthorKey,
        (from, through): (Seq, Seq),
    ) -> Result<BTreeMap<Seq, Digest>, StoreError> {
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {LETTER_COLUMNS} FROM dead_letters WHERE log = ?1 AND author = ?2 AND seq BETWEEN ?3 AND ?4"
        ))?;
        let mut rows = statement.query(params![log.0, author.0, signed(from.0), signed(through.0)])?;
        let mut letters = BTreeMap::new();
        while let Some(row) = rows.next()? {
            sum::check("dead_letters", row, LETTER_SUMMED)?;
            letters.insert(Seq(unsigned(row, 3)?), Digest(blob(row, 4)?));
        }
        Ok(letters)
    }

    /// Where what re-issues an entry stands.
    pub(super) fn replacement(self, log: LogKey, target: &Replaced) -> Result<Option<Offset>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT log, actor, seq, digest, offset, sum FROM replacements
             WHERE log = ?1 AND actor = ?2 AND seq = ?3 AND digest = ?4",
        )?;
        let (actor, digest) = (&target.id.actor.0[..], &target.digest.0[..]);
        let mut rows = statement.query(params![log.0, actor, signed(target.id.seq.0), digest])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        sum::check("replacements", row, 5)?;
        Ok(Some(Offset(unsigned(row, 4)?)))
    }

    /// Where an entry is in the log with these bytes.
    pub(super) fn logged_at(self, log: LogKey, target: &Replaced) -> Result<Option<Offset>, StoreError> {
        let Some((author, _)) = self.binding(target.id.actor)? else { return Ok(None) };
        let sql = format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE log = ?1 AND author = ?2 AND seq = ?3");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params![log.0, author.0, signed(target.id.seq.0)])?;
        let Some(found) = rows.next()?.map(entry_row).transpose()? else { return Ok(None) };
        let same = found.digest == target.digest || self.was_pushed(log, found.offset, target.digest)?;
        Ok(same.then_some(found.offset))
    }

    /// Whether the entry at an offset was pushed with this digest and stands there otherwise, because it was translated.
    /// Of one whose body was erased that is not known any more, and believed.
    fn was_pushed(self, log: LogKey, offset: Offset, pushed: Digest) -> Result<bool, StoreError> {
        let sql = format!("SELECT {ENTRY_COLUMNS}, bytes FROM entries WHERE log = ?1 AND offset = ?2");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params![log.0, signed(offset.0)])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        if entry_row(row)?.gone.is_some() {
            return Ok(true);
        }
        let bytes = row.get_ref(ENTRY_SUMMED + 1)?.as_blob().map_err(rusqlite::Error::from)?;
        let entry = Entry::from_bytes(bytes).map_err(|error| StoreError::CorruptEntry { offset, error })?;
        Ok(entry.is_translated() && entry.pushed_digest() == pushed)
    }

    /// Where decided entries of a push stand in the log with other bytes, those that were pushed are looked up.
    pub(crate) fn pushed_digests(self, log: &LogRow, push: &PushItems, known: &mut Known) -> Result<(), StoreError> {
        for item in &push.items {
            let Pushed::Entry(entry) = item else { continue };
            if let Some(place) = known.places.get_mut(&entry.header.seq)
                && place.digest != entry.digest()
                && self.was_pushed(log.key, place.offset, entry.digest())?
            {
                place.digest = entry.digest();
            }
        }
        Ok(())
    }

    /// Whether an entry with this id was in the log and is not kept: what it said is not known any more, so it may be
    /// the one. Taking it in again could double it; refusing it keeps it whole, as a dead letter.
    pub(crate) fn was_logged(self, log: LogKey, target: &Replaced) -> Result<bool, StoreError> {
        let Some((author, _)) = self.binding(target.id.actor)? else { return Ok(false) };
        let row = self.author_row(log, author)?;
        Ok(row.is_some_and(|row| target.id.seq <= row.truncated && !row.is_absent(target.id.seq)))
    }

    /// Entries from an offset on, until `bytes_max` of them are read; at least one if there is one.
    pub(crate) fn entries(
        self,
        log: &LogRow,
        from: Offset,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let end = self.log_end(log)?.end;
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {ENTRY_COLUMNS}, bytes FROM entries WHERE log = ?1 AND offset >= ?2 ORDER BY offset LIMIT ?3"
        ))?;
        let mut rows = statement.query(params![log.key.0, signed(from.0), signed(count_max as u64)])?;
        let (mut placed, mut bytes, mut next) = (Vec::new(), 0, from);
        let mut authors = BTreeMap::new();
        while bytes < bytes_max && placed.len() < count_max && next < end.next {
            let Some(row) = rows.next()? else { return Err(missing(next)) };
            let (entry, size) = self.placed(row, &mut authors)?;
            if entry.0.offset != next {
                return Err(missing(next));
            }
            (bytes, next) = (bytes + size, next.next());
            placed.push(entry);
        }
        Ok(placed)
    }

    fn placed(
        self,
        row: &Row<'_>,
        authors: &mut BTreeMap<AuthorKey, (ActorId, UserId)>,
    ) -> Result<(Placed, usize), StoreError> {
        let EntryRow { offset, author, seq, accepted, base, digest, chain, gone } = entry_row(row)?;
        let bytes = row.get_ref(ENTRY_SUMMED + 1)?.as_blob().map_err(rusqlite::Error::from)?;
        let entry = match gone {
            Some(gone) => remains(bytes, digest, gone),
            None if Digest::of(&[bytes]) != digest => {
                return Err(StoreError::corrupt("entries", format!("the digest at offset {offset} does not match")));
            }
            None => Entry::from_bytes(bytes),
        };
        let entry = entry.map_err(|error| StoreError::CorruptEntry { offset, error })?;
        if entry.header.seq != seq {
            return Err(StoreError::corrupt("entries", format!("offset {offset} has another seq")));
        }
        let (actor, user) = match authors.get(&author) {
            Some(known) => known.clone(),
            None => authors.entry(author).insert_entry(self.author(author)?).get().clone(),
        };
        let logged = Logged { offset, actor, user, accepted, base, entry };
        Ok(((logged, Cursor { next: offset.next(), chain }), bytes.len()))
    }

    /// Number of logs and of dead letters.
    pub(crate) fn counts(self) -> Result<(u64, u64), StoreError> {
        let count = |sql: &str| self.0.query_row(sql, [], |row| unsigned(row, 0));
        Ok((count("SELECT count(*) FROM logs")?, count("SELECT count(*) FROM dead_letters")?))
    }
}

/// What is left of an entry whose body is gone: its header, in a record of its own, since the digest is that of what it was.
fn remains(bytes: &[u8], digest: Digest, gone: Gone) -> Result<Entry, InvalidEntry> {
    let mut rest = bytes;
    let header: Header = codec::from_bytes(codec::unseal(&mut rest)?)?;
    Entry::without_body(header, digest, gone)
}

fn missing(offset: Offset) -> StoreError {
    StoreError::corrupt("entries", format!("no entry at offset {offset}"))
}

fn log_row(row: &Row<'_>) -> Result<(LogRow, LogEnd), StoreError> {
    sum::check("logs", row, LOG_SUMMED)?;
    let name = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
    let name = LogName::new(name).map_err(|error| StoreError::corrupt("logs", error))?;
    let end = Cursor { next: Offset(unsigned(row, 4)?), chain: Chain(Digest(blob(row, 5)?)) };
    let first = Cursor { next: Offset(unsigned(row, 7)?), chain: Chain(Digest(blob(row, 8)?)) };
    let kept = Retained { first, bytes: unsigned(row, 9)? };
    let (epochs, accepted, folds) = (unsigned(row, 3)?, Time(unsigned(row, 6)?), Offset(unsigned(row, 10)?));
    let end = LogEnd { epochs, end, accepted, kept, folds };
    Ok((LogRow { key: LogKey(row.get(0)?), name, log_id: LogId(blob(row, 2)?) }, end))
}

fn binding_row(row: &Row<'_>) -> Result<(AuthorKey, ActorId, Binding), StoreError> {
    sum::check("bindings", row, 4)?;
    let bytes = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
    let binding = codec::from_bytes(bytes).map_err(|error| StoreError::corrupt("bindings", error))?;
    Ok((AuthorKey(row.get(0)?), ActorId(blob(row, 1)?), binding))
}

fn entry_row(row: &Row<'_>) -> Result<EntryRow, StoreError> {
    sum::check("entries", row, ENTRY_SUMMED)?;
    let gone: Option<u8> = row.get(9)?;
    Ok(EntryRow {
        offset: Offset(unsigned(row, 1)?),
        author: AuthorKey(row.get(2)?),
        seq: Seq(unsigned(row, 3)?),
        accepted: Time(unsigned(row, 4)?),
        base: Offset(unsigned(row, 5)?),
        digest: Digest(blob(row, 6)?),
        chain: Chain(Digest(blob(row, 7)?)),
        gone: match gone {
            None => None,
            Some(number) => {
                let unknown = || StoreError::corrupt("entries", format!("{number} is no reason to be gone"));
                Some(Gone::of_number(number).ok_or_else(unknown)?)
            }
        },
    })
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
