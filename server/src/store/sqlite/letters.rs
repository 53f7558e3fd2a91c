//! Dead letters: what was taken off the main path, kept whole until somebody redrives or discards it.
//!
//! A refused entry stays here after its author has recorded the verdict too. What bounds a log's dead letters is the
//! operator's: beyond it the oldest go, first those whose author has recorded the verdict and so keeps the entry
//! itself. A letter whose entry was re-issued is done; it is kept as long as there is room.

use driftlog_core::entry::{Digest, Entry, Replaced};
use driftlog_core::id::{ActorId, EntryId, LogName, Offset, Seq, UserId};
use driftlog_core::protocol::Code;
use driftlog_core::time::WallMs;
use rusqlite::{Row, params};

use super::read::{LETTER_COLUMNS, LETTER_SUMMED, Reads, blob, signed, unsigned};
use super::sum;
use super::write::Writes;
use crate::store::{AuthorKey, LogKey, LogRow, StoreError};

/// How far the search for a letter that its author keeps too goes, before the oldest goes anyway.
const SEARCHED_MAX: usize = 256;

/// Names a dead letter of this server.
pub(crate) type LetterId = u64;

/// A dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) id: LetterId,
    /// None: bytes that were no frame.
    pub(crate) refused: Option<RefusedEntry>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) source: String,
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) attempts: u64,
    pub(crate) first: WallMs,
    pub(crate) last: WallMs,
}

/// Where a refused entry belongs.
#[derive(Clone, Debug)]
pub(crate) struct RefusedEntry {
    pub(crate) log: LogRow,
    pub(crate) author: AuthorKey,
    pub(crate) user: UserId,
    pub(crate) target: Replaced,
    /// Where what re-issues it, or another one of its line, stands.
    pub(crate) replaced: Option<Offset>,
}

/// How much there is of dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LetterTotals {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl Letter {
    /// The refused entry, if its bytes read.
    pub(crate) fn entry(&self) -> Option<Entry> {
        self.refused.as_ref().and_then(|_| Entry::from_bytes(&self.bytes).ok())
    }
}

impl Reads<'_> {
    /// A dead letter.
    pub(crate) fn letter(self, id: LetterId) -> Result<Option<Letter>, StoreError> {
        let sql = format!("SELECT {LETTER_COLUMNS}, bytes FROM dead_letters WHERE letter = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([signed(id)])?;
        rows.next()?.map(|row| self.letter_of(row)).transpose()
    }

    /// The dead letter of an author's refused entry.
    pub(super) fn letter_at(self, log: LogKey, author: AuthorKey, seq: Seq) -> Result<Option<Letter>, StoreError> {
        let sql =
            format!("SELECT {LETTER_COLUMNS}, bytes FROM dead_letters WHERE log = ?1 AND author = ?2 AND seq = ?3");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params![log.0, author.0, signed(seq.0)])?;
        rows.next()?.map(|row| self.letter_of(row)).transpose()
    }

    /// Dead letters behind one, ascending, of one log or of all.
    pub(crate) fn letters_after(
        self,
        log: Option<&LogName>,
        after: LetterId,
        count_max: usize,
    ) -> Result<Vec<Letter>, StoreError> {
        let key = match log.map(|name| self.log(name)).transpose()? {
            Some(None) => return Ok(Vec::new()),
            found => found.flatten().map(|log| log.key.0),
        };
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {LETTER_COLUMNS}, bytes FROM dead_letters
             WHERE letter > ?1 AND (?2 IS NULL OR log = ?2) ORDER BY letter LIMIT ?3"
        ))?;
        let mut rows = statement.query(params![signed(after), key, signed(count_max as u64)])?;
        let mut letters = Vec::new();
        while let Some(row) = rows.next()? {
            letters.push(self.letter_of(row)?);
        }
        Ok(letters)
    }

    fn letter_of(self, row: &Row<'_>) -> Result<Letter, StoreError> {
        sum::check("dead_letters", row, LETTER_SUMMED)?;
        let (digest, bytes) = (Digest(blob(row, 4)?), row.get::<_, Vec<u8>>(LETTER_SUMMED + 1)?);
        if Digest::of(&[&bytes]) != digest {
            return Err(StoreError::corrupt("dead_letters", "the digest of the bytes does not match"));
        }
        let refused = match (row.get(1)?, row.get(2)?) {
            (Some(log), Some(author)) => {
                let id = EntryId { actor: ActorId(blob(row, 11)?), seq: Seq(unsigned(row, 12)?) };
                let line = Replaced { id, digest: Digest(blob(row, 13)?) };
                Some(self.refused(LogKey(log), AuthorKey(author), (Seq(unsigned(row, 3)?), digest), &line)?)
            }
            _ => None,
        };
        Ok(Letter {
            id: unsigned(row, 0)?,
            refused,
            bytes,
            source: row.get(5)?,
            code: Code::from_number(row.get(6)?),
            reason: row.get(7)?,
            attempts: unsigned(row, 8)?,
            first: unsigned(row, 9)?,
            last: unsigned(row, 10)?,
        })
    }

    fn refused(
        self,
        log: LogKey,
        author: AuthorKey,
        (seq, digest): (Seq, Digest),
        line: &Replaced,
    ) -> Result<RefusedEntry, StoreError> {
        let (actor, user) = self.author(author)?;
        let target = Replaced { id: EntryId { actor, seq }, digest };
        // A refused replacement is dealt with when its line is.
        let replaced = match line {
            line if *line == target => self.replacement(log, line)?,
            line => self.replacement(log, line)?.or(self.logged_at(log, line)?),
        };
        Ok(RefusedEntry { log: self.log_of_key(log)?, author, user, target, replaced })
    }

    /// Dead letters that nobody has dealt with: how many, and since when the oldest. One is dealt with when something
    /// of its line is in the log: the first entry, or what replaces it.
    pub(crate) fn letters_open(self) -> Result<(u64, Option<WallMs>), StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT count(*), min(first_ms) FROM dead_letters d
             WHERE NOT EXISTS
               (SELECT 1 FROM replacements r WHERE r.log = d.log
                AND r.actor = d.line_actor AND r.seq = d.line_seq AND r.digest = d.line_digest)
             AND NOT EXISTS
               (SELECT 1 FROM bindings b JOIN entries e ON e.author = b.author
                WHERE b.actor = d.line_actor AND e.log = d.log AND e.seq = d.line_seq AND e.digest = d.line_digest)",
        )?;
        Ok(statement
            .query_row([], |row| Ok((unsigned(row, 0)?, row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned))))?)
    }

    /// How much there is of a log's dead letters; of bytes that were no frame without a log.
    pub(crate) fn letter_totals(self, log: Option<LogKey>) -> Result<LetterTotals, StoreError> {
        let mut statement =
            self.0.prepare_cached("SELECT count(*), total(length(bytes)) FROM dead_letters WHERE log IS ?1")?;
        Ok(statement.query_row([log.map(|log| log.0)], |row| {
            Ok(LetterTotals { count: unsigned(row, 0)?, bytes: row.get::<_, f64>(1)? as u64 })
        })?)
    }

    /// Whether an entry was re-issued, whatever it said.
    pub(crate) fn is_reissued(self, log: LogKey, id: EntryId) -> Result<bool, StoreError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM replacements WHERE log = ?1 AND actor = ?2 AND seq = ?3)")?;
        Ok(statement.query_row(params![log.0, &id.actor.0[..], signed(id.seq.0)], |row| row.get(0))?)
    }

    /// The dead letter that goes first, with its size.
    fn letter_to_drop(self, log: Option<LogKey>) -> Result<Option<(i64, u64)>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT letter, length(bytes), author, seq FROM dead_letters WHERE log IS ?1 ORDER BY letter LIMIT ?2",
        )?;
        let mut rows = statement.query(params![log.map(|log| log.0), signed(SEARCHED_MAX as u64)])?;
        let (mut oldest, mut settled) = (None, std::collections::BTreeMap::new());
        while let Some(row) = rows.next()? {
            let found = (row.get(0)?, unsigned(row, 1)?);
            oldest = oldest.or(Some(found));
            let (Some(log), Some(author)) = (log, row.get(2)?) else { break };
            let through = match settled.entry(author) {
                std::collections::btree_map::Entry::Occupied(known) => *known.get(),
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    let through = match self.author_row(log, AuthorKey(author)) {
                        Ok(row) => row.map_or(Seq(0), |row| row.settled),
                        // What is damaged says nothing of this; it is found by whoever needs it.
                        Err(error) if error.is_corruption() => Seq(0),
                        Err(error) => return Err(error),
                    };
                    *vacant.insert(through)
                }
            };
            if Seq(unsigned(row, 3)?) <= through {
                return Ok(Some(found));
            }
        }
        Ok(oldest)
    }
}

impl Writes<'_> {
    /// Lets the dead letters of one log go that are too many or too large together; returns how many went.
    pub(crate) fn drop_letters(
        self,
        log: Option<LogKey>,
        totals: &mut LetterTotals,
        max: LetterTotals,
    ) -> Result<u64, StoreError> {
        let mut dropped = 0;
        while totals.count > max.count || totals.bytes > max.bytes {
            let Some((letter, bytes)) = self.reads().letter_to_drop(log)? else { break };
            self.discard_letter(letter.cast_unsigned())?;
            totals.count = totals.count.saturating_sub(1);
            totals.bytes = totals.bytes.saturating_sub(bytes);
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Gives a dead letter up for good; whether it was there.
    pub(crate) fn discard_letter(self, id: LetterId) -> Result<bool, StoreError> {
        Ok(self.0.prepare_cached("DELETE FROM dead_letters WHERE letter = ?1")?.execute([signed(id)])? > 0)
    }
}
