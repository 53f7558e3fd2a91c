//! Connections: one row for each client of a user, and the cursors of those that are active.
//!
//! Nothing here is the truth about a client: it says itself where it stands when it comes. So a damaged row is no
//! reason to keep anybody out; it is made anew.

use driftlog_core::connection::{ConnectionId, Downgrade};
use driftlog_core::id::{ActorId, ClientId, LogName, Offset, UserId};
use driftlog_core::time::WallMs;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Row, params};

use super::read::{Reads, blob, signed, unsigned};
use super::sum;
use super::write::{Writes, integer, number_value};
use crate::store::{LogKey, StoreError};

/// Columns before the sum, and how many there are.
const COLUMNS: &str = "connection, user, client, actor, device, inactive, since_ms, first_ms, seen_ms, sum";
const SUMMED: usize = 9;

/// A connection's number within the store.
pub(crate) type ConnectionKey = u64;

/// A registered connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionRow {
    pub(crate) key: ConnectionKey,
    pub(crate) id: ConnectionId,
    pub(crate) actor: ActorId,
    pub(crate) device: String,
    /// Why it is not active, if it is not.
    pub(crate) inactive: Option<Downgrade>,
    /// Since when it is as it is.
    pub(crate) since: WallMs,
    /// When it was made, and when it was last heard of.
    pub(crate) first: WallMs,
    pub(crate) seen: WallMs,
}

/// Where an active connection stands in a log, and where that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CursorRow {
    pub(crate) log: LogKey,
    pub(crate) name: LogName,
    pub(crate) next: Offset,
    pub(crate) end: Offset,
}

/// What is to be written of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionNote {
    pub(crate) id: ConnectionId,
    pub(crate) seen: WallMs,
    pub(crate) kept: Kept,
}

/// What is kept of a connection's cursors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// These, beside the others.
    Moved(Vec<(LogName, Offset)>),
    /// These, and no others.
    All(Vec<(LogName, Offset)>),
    /// None: it is not active any more.
    Nothing(Downgrade, WallMs),
}

impl Reads<'_> {
    fn connection(self, id: &ConnectionId) -> Result<Option<ConnectionRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM connections WHERE user = ?1 AND client = ?2");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params![id.user.as_str(), &id.client.0[..]])?;
        Ok(rows.next()?.map(row).transpose()?.flatten())
    }

    /// A connection by its number.
    pub(crate) fn connection_of_key(self, key: ConnectionKey) -> Result<Option<ConnectionRow>, StoreError> {
        let found = self.connections("connection = ?1", key)?;
        Ok(found.into_iter().next())
    }

    /// Connections behind one, ascending. One whose row is damaged is passed over.
    pub(crate) fn connections_after(
        self,
        after: ConnectionKey,
        count_max: usize,
    ) -> Result<Vec<ConnectionRow>, StoreError> {
        self.connections(&format!("connection > ?1 ORDER BY connection LIMIT {count_max}"), after)
    }

    /// Every active connection.
    pub(crate) fn active_connections(self) -> Result<Vec<ConnectionRow>, StoreError> {
        self.connections("inactive IS NULL AND connection > ?1", 0)
    }

    fn connections(self, wanted: &str, after: ConnectionKey) -> Result<Vec<ConnectionRow>, StoreError> {
        let mut statement = self.0.prepare(&format!("SELECT {COLUMNS} FROM connections WHERE {wanted}"))?;
        let (mut rows, mut found) = (statement.query([signed(after)])?, Vec::new());
        while let Some(next) = rows.next()? {
            found.extend(row(next)?);
        }
        Ok(found)
    }

    /// Where a connection stands in each log that it follows.
    pub(crate) fn cursors_of(self, connection: ConnectionKey) -> Result<Vec<CursorRow>, StoreError> {
        let sql = "SELECT cursors.log, logs.name, cursors.next, logs.next FROM cursors JOIN logs USING (log)
                   WHERE connection = ?1 ORDER BY logs.name";
        let mut statement = self.0.prepare_cached(sql)?;
        let (mut rows, mut found) = (statement.query([signed(connection)])?, Vec::new());
        while let Some(row) = rows.next()? {
            let Ok(name) = LogName::new(row.get_ref(1)?.as_str().unwrap_or_default()) else { continue };
            let (next, end) = (Offset(unsigned(row, 2)?), Offset(unsigned(row, 3)?));
            found.push(CursorRow { log: LogKey(row.get(0)?), name, next: next.min(end), end });
        }
        Ok(found)
    }

    /// Every stored cursor that is not at its log's end: whose, in which log, where, and that end.
    pub(crate) fn cursors_behind(self) -> Result<Vec<(ConnectionId, LogKey, Offset, Offset)>, StoreError> {
        let sql = "SELECT user, client, cursors.log, cursors.next, logs.next
                   FROM cursors JOIN logs USING (log) JOIN connections USING (connection)
                   WHERE cursors.next < logs.next";
        let mut statement = self.0.prepare_cached(sql)?;
        let (mut rows, mut found) = (statement.query([])?, Vec::new());
        while let Some(row) = rows.next()? {
            let Ok(user) = UserId::new(row.get_ref(0)?.as_str().unwrap_or_default()) else { continue };
            let id = ConnectionId { user, client: ClientId(blob(row, 1)?) };
            found.push((id, LogKey(row.get(2)?), Offset(unsigned(row, 3)?), Offset(unsigned(row, 4)?)));
        }
        Ok(found)
    }

    /// The bytes of entries from one offset to another (exclusive), counted over at most so many entries; and how far
    /// that went.
    pub(crate) fn entry_bytes(
        self,
        log: LogKey,
        (from, end): (Offset, Offset),
        count_max: usize,
    ) -> Result<(u64, Offset), StoreError> {
        let sql = "SELECT coalesce(sum(length), 0), count(*), coalesce(max(offset), 0) FROM (
                     SELECT offset, length(bytes) AS length FROM entries
                     WHERE log = ?1 AND offset >= ?2 AND offset < ?3 ORDER BY offset LIMIT ?4)";
        let values = params![log.0, signed(from.0), signed(end.0), signed(count_max as u64)];
        let (bytes, count, last) = self
            .0
            .prepare_cached(sql)?
            .query_row(values, |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?)))?;
        Ok((bytes, if count < count_max as u64 { end } else { Offset(last + 1) }))
    }

    /// When the first entry from an offset on was accepted.
    pub(crate) fn accepted_from(self, log: LogKey, from: Offset) -> Result<Option<WallMs>, StoreError> {
        let sql = "SELECT accepted FROM entries WHERE log = ?1 AND offset >= ?2 ORDER BY offset LIMIT 1";
        let values = params![log.0, signed(from.0)];
        let accepted = self.0.prepare_cached(sql)?.query_row(values, |row| unsigned(row, 0)).optional()?;
        Ok(accepted.map(|accepted| driftlog_core::time::Time(accepted).ms()))
    }
}

impl Writes<'_> {
    /// A client came: its connection is active from now on. Why it was not until now, and since when, if it was not.
    pub(crate) fn greet_connection(
        self,
        now: WallMs,
        id: &ConnectionId,
        actor: ActorId,
        device: &str,
    ) -> Result<Option<(Downgrade, WallMs)>, StoreError> {
        let known = self.reads().connection(id)?;
        let was = known.as_ref().and_then(|row| Some((row.inactive?, row.since)));
        let (key, first, since) = match &known {
            Some(row) => (row.key, row.first, if was.is_some() { now } else { row.since }),
            None => (self.next_key("connections", "connection")?.cast_unsigned(), now, now),
        };
        let (id, device) = (id.clone(), device.to_owned());
        self.put_connection(&ConnectionRow { key, id, actor, device, inactive: None, since, first, seen: now })?;
        Ok(was)
    }

    /// Writes how a connection stands; one that was never greeted, or has been erased, is left alone.
    pub(crate) fn note_connection(self, note: &ConnectionNote) -> Result<(), StoreError> {
        let Some(mut row) = self.reads().connection(&note.id)? else { return Ok(()) };
        row.seen = row.seen.max(note.seen);
        let cursors = match &note.kept {
            Kept::Moved(cursors) => cursors.as_slice(),
            Kept::All(cursors) => {
                self.forget_cursors(row.key)?;
                cursors.as_slice()
            }
            Kept::Nothing(reason, since) => {
                self.forget_cursors(row.key)?;
                (row.inactive, row.since) = (Some(*reason), *since);
                &[]
            }
        };
        for (name, next) in cursors {
            let Some(log) = self.reads().log(name)? else { continue };
            let values = [number_value(row.key), integer(log.key.0), number_value(next.0)];
            self.put("INSERT OR REPLACE INTO cursors VALUES (?1, ?2, ?3, ?4)", "cursors", &values)?;
        }
        self.put_connection(&row)
    }

    fn forget_cursors(self, connection: ConnectionKey) -> Result<(), StoreError> {
        self.0.prepare_cached("DELETE FROM cursors WHERE connection = ?1")?.execute([signed(connection)])?;
        Ok(())
    }

    fn put_connection(self, row: &ConnectionRow) -> Result<(), StoreError> {
        let values = [
            number_value(row.key),
            ValueRef::Text(row.id.user.as_str().as_bytes()),
            ValueRef::Blob(&row.id.client.0),
            ValueRef::Blob(&row.actor.0),
            ValueRef::Text(row.device.as_bytes()),
            row.inactive.map_or(ValueRef::Null, |reason| integer(reason.number().into())),
            number_value(row.since),
            number_value(row.first),
            number_value(row.seen),
        ];
        let sql = "INSERT OR REPLACE INTO connections VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        self.put(sql, "connections", &values)?;
        Ok(())
    }
}

/// A row, if it is as it was written.
fn row(row: &Row<'_>) -> Result<Option<ConnectionRow>, StoreError> {
    match sum::check("connections", row, SUMMED) {
        Err(error) if error.is_corruption() => {
            tracing::error!(%error, "a connection's row is damaged; it is made anew when its client comes");
            return Ok(None);
        }
        checked => checked?,
    }
    let Ok(user) = UserId::new(row.get_ref(1)?.as_str().unwrap_or_default()) else { return Ok(None) };
    Ok(Some(ConnectionRow {
        key: unsigned(row, 0)?,
        id: ConnectionId { user, client: ClientId(blob(row, 2)?) },
        actor: ActorId(blob(row, 3)?),
        device: row.get(4)?,
        inactive: row.get::<_, Option<u8>>(5)?.map(Downgrade::from_number),
        since: unsigned(row, 6)?,
        first: unsigned(row, 7)?,
        seen: unsigned(row, 8)?,
    }))
}
