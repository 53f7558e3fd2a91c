//! What became of an entry that comes again under another id: because a copy of its author's database pushed it, or an
//! actor that took over after a copy was found re-issues it.
//!
//! An action keeps its run and number, whoever pushes it: so what stands in the log already is known for the same, and
//! counts once. A re-issue under the successor has the seq of the original, and names it.

use driftlog_core::entry::{Entry, Replaced};
use driftlog_core::id::{ActorId, EntryId, Offset, Seq, WriteId};
use driftlog_core::packed::Pushed;
use driftlog_core::protocol::frame::MarkedStatus;
use driftlog_core::sequencer::{AuthorRow, Before, Binding, Known, Place, PushItems};
use rusqlite::params;

use super::letters::Letter;
use super::read::{Reads, signed};
use crate::store::{AuthorKey, LogKey, LogRow, StoreError};

impl Reads<'_> {
    /// Adds to `known` what became before of the entries of a push that are not decided under their own id.
    pub(crate) fn reissued(
        self,
        log: &LogRow,
        (actor, binding): (ActorId, &Binding),
        row: &AuthorRow,
        push: &PushItems,
        known: &mut Known,
    ) -> Result<(), StoreError> {
        let succeeded = self.is_succeeded(log.key, actor)?;
        let kin = self.kin(actor, binding)?;
        for item in &push.items {
            let Pushed::Entry(entry) = item else { continue };
            let seq = entry.header.seq;
            if seq <= row.seq || (kin.is_empty() && !succeeded && entry.header.replaces.is_none()) {
                continue;
            }
            let own = Replaced { id: EntryId { actor, seq }, digest: entry.digest() };
            let found = match &entry.header.replaces {
                Some(line) => self.line_at(log.key, line)?.map(|at| (at, line.clone())),
                None => None,
            };
            let found = match found {
                None if succeeded => self.replacement(log.key, &own)?.map(|at| (at, own)),
                found => found,
            };
            if let Some((at, line)) = found {
                // What replaced it and is not kept any more may be this very action, where others push the same.
                let kept = at >= self.kept(log)?.first.next;
                match self.same_action(log, at, entry)? {
                    Some(place) => drop(known.before.insert(seq, Before::Logged(place))),
                    None if !kept && (succeeded || line.id.actor != actor) => {
                        known.before.insert(seq, Before::Unknown);
                    }
                    None => drop(known.replaced.insert(line)),
                }
            } else if let Some(refused) = self.refused_before(log.key, &kin, entry)? {
                known.before.insert(seq, refused);
            } else if let Some(line) = entry.reissued(actor)
                && let Some(before) = self.before(log.key, binding, line)?
            {
                known.before.insert(seq, before);
            }
        }
        Ok(())
    }

    /// Whether entries of an actor were re-issued in a log.
    fn is_succeeded(self, log: LogKey, actor: ActorId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM replacements WHERE log = ?1 AND actor = ?2)";
        Ok(self.0.prepare_cached(sql)?.query_row(params![log.0, &actor.0[..]], |row| row.get(0))?)
    }

    /// The other actors of an actor's origin: those before it, those after it, and those of copies.
    fn kin(self, actor: ActorId, binding: &Binding) -> Result<Vec<AuthorKey>, StoreError> {
        let (first, last) = (actor.origin(), actor.successor(ActorId([u8::MAX; 16])));
        let sql = "SELECT author FROM bindings WHERE actor BETWEEN ?1 AND ?2 AND actor != ?3 AND user = ?4";
        let mut statement = self.0.prepare_cached(sql)?;
        let of_origin = params![&first.0[..], &last.0[..], &actor.0[..], binding.user.as_str()];
        let kin = statement.query_map(of_origin, |row| row.get(0).map(AuthorKey))?;
        Ok(kin.collect::<Result<_, _>>()?)
    }

    /// What a kin was told of the same action, if it was refused.
    fn refused_before(self, log: LogKey, kin: &[AuthorKey], entry: &Entry) -> Result<Option<Before>, StoreError> {
        for author in kin {
            let refused = self.letter_at(log, *author, entry.header.seq)?;
            let same = |letter: &Letter| letter.entry().is_some_and(|other| write_of(&other) == write_of(entry));
            if let Some(letter) = refused.filter(same) {
                return Ok(Some(Before::Refused(letter.code, letter.reason)));
            }
        }
        Ok(None)
    }

    /// Where an entry of a line stands.
    fn line_at(self, log: LogKey, line: &Replaced) -> Result<Option<Offset>, StoreError> {
        match self.replacement(log, line)? {
            None => self.logged_at(log, line),
            found => Ok(found),
        }
    }

    /// The place of the entry at an offset, if it is the same action as this one.
    fn same_action(self, log: &LogRow, at: Offset, entry: &Entry) -> Result<Option<Place>, StoreError> {
        if at < self.kept(log)?.first.next {
            return Ok(None);
        }
        let found = self.entries(log, at, 1, 1)?;
        let same = found.first().map(|(logged, _)| logged).filter(|logged| write_of(&logged.entry) == write_of(entry));
        Ok(same.map(|logged| Place { offset: at, accepted: logged.accepted, digest: logged.entry.pushed_digest() }))
    }

    /// What the actor before was told of an entry that is not in the log with these bytes; none: it is as new.
    fn before(self, log: LogKey, binding: &Binding, line: &Replaced) -> Result<Option<Before>, StoreError> {
        let Some((author, before)) = self.binding(line.id.actor)? else { return Ok(None) };
        if before.user != binding.user {
            return Ok(None);
        }
        let Some(row) = self.author_row(log, author)?.filter(|row| row.seq >= line.id.seq) else { return Ok(None) };
        if self.letter_at(log, author, line.id.seq)?.is_some() {
            // Other bytes were refused: those of another copy.
            return Ok(None);
        }
        Ok(match row.marked(line.id.seq) {
            // Given up by the other copy, whose bytes of it were damaged.
            Some(MarkedStatus::Void) => None,
            Some(status) if !status.is_accepted() => Some(Before::Unknown),
            _ if self.is_logged(log, author.0, line.id.seq)? => None,
            _ => Some(Before::Unknown),
        })
    }

    fn is_logged(self, log: LogKey, author: i64, seq: Seq) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM entries WHERE log = ?1 AND author = ?2 AND seq = ?3)";
        Ok(self.0.prepare_cached(sql)?.query_row(params![log.0, author, signed(seq.0)], |row| row.get(0))?)
    }
}

fn write_of(entry: &Entry) -> WriteId {
    WriteId { run: entry.header.run, n: entry.header.n }
}
