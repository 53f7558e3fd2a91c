//! Connections as an operator sees them: from the store, and where a server runs, with what it knows besides.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::Connections;
use crate::store::{ConnectionRow, ReadPool, Reads, Store, StoreError};

/// Connections on one page.
const PAGE: usize = 500;

/// The connections that a data directory knows behind one, as JSON; also while a server works in it. Whether they have
/// a socket, and the bytes that they are behind, only the server knows (docs/protocol.md, "HTTP").
///
/// # Errors
/// [`StoreError`].
pub fn connections(directory: &Path, after: u64) -> Result<Json, StoreError> {
    ReadPool::new(Store::existing(directory, None)).read(|reads| page(reads, None, after, false))
}

/// One page, ascending; `with_logs`: each with where it stands in every log.
pub(crate) fn page(
    reads: Reads<'_>,
    server: Option<&Connections>,
    after: u64,
    with_logs: bool,
) -> Result<Json, StoreError> {
    let rows = reads.connections_after(after, PAGE)?;
    let next = if rows.len() == PAGE { rows.last().map(|row| row.key) } else { None };
    let all = rows.iter().map(|row| connection(reads, server, row, with_logs)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "connections": all, "next": next }))
}

fn connection(
    reads: Reads<'_>,
    server: Option<&Connections>,
    row: &ConnectionRow,
    with_logs: bool,
) -> Result<Json, StoreError> {
    let cursors = reads.cursors_of(row.key)?;
    let mut oldest = None;
    for cursor in cursors.iter().filter(|cursor| cursor.next < cursor.end) {
        let accepted = reads.accepted_from(cursor.log, cursor.next)?;
        oldest = oldest.into_iter().chain(accepted).min();
    }
    let seen = server.and_then(|server| Some((server, server.seen(&row.id)?)));
    let lag: u64 = cursors.iter().map(|cursor| cursor.end.0 - cursor.next.0).sum();
    // Of one that is not active nobody knows where it stands.
    let active = row.inactive.is_none();
    let mut json = json!({
        "connection": row.key,
        "user": row.id.user.as_str(),
        "client": row.id.client.to_string(),
        "actor": row.actor.to_string(),
        "device": row.device,
        "state": if active { "active" } else { "inactive" },
        "reason": row.inactive.map(|reason| reason.name()),
        "live": server.map(|_| seen.is_some_and(|(_, seen)| seen.live)),
        "since_ms": row.since,
        "first_ms": row.first,
        "seen_ms": seen.map_or(row.seen, |(server, seen)| row.seen.max(server.wall(seen.seen))),
        "logs": active.then_some(cursors.len()),
        "lag_entries": active.then_some(lag),
        "lag_bytes": seen.map(|(_, seen)| seen.lag.bytes),
        "oldest_unsent_ms": oldest,
    });
    if with_logs {
        let place = |cursor: &crate::store::CursorRow| json!({ "log": cursor.name.as_str(), "next": cursor.next, "end": cursor.end });
        json["cursors"] = cursors.iter().map(place).collect();
    }
    Ok(json)
}
