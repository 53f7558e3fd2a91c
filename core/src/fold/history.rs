//! Reading a stretch of the log from the rows of the local database, beginning anywhere.
//!
//! A reader has a cursor; what it is given continues there and leads along the log chain, or it is told of the hole.

use std::collections::BTreeMap;

use crate::chain::Cursor;
use crate::entry::{Entry, Logged};
use crate::id::{EntryId, Offset, Seq, UserId};
use crate::packed::{Item, Stub};
use crate::storage::row::{self, Received};
use crate::storage::{self, Row, own};

/// An item, where it begins, and the cursor behind it.
pub type Read = (Offset, Item, Cursor);

/// Entries that the rows do not have, from a cursor to an offset (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins.
    pub at: Cursor,
    /// The first offset behind it.
    pub end: Offset,
}

/// The items of received rows from `at` on, as far as they follow each other; and the hole that ends them, if one does.
/// Own entries stand in the rows without their bodies: `body` has them.
pub fn read(
    mut at: Cursor,
    rows: &[Row],
    user: Option<&UserId>,
    body: impl Fn(EntryId) -> Option<Entry>,
) -> (Vec<Read>, Option<Hole>) {
    let mut reads = Vec::new();
    // A damaged row is a hole up to the next one.
    for received in rows.iter().filter_map(|(_, bytes)| row::decode::<Received>(bytes).ok()) {
        if received.after.next <= at.next {
            continue;
        }
        if received.from > at.next {
            return (reads, Some(Hole { at, end: received.from }));
        }
        match items(at, &received, user, &body) {
            Some(items) => reads.extend(items),
            None => return (reads, Some(Hole { at, end: received.after.next })),
        }
        at = received.after;
    }
    (reads, None)
}

/// The items of one row from `at` on; none if a body is missing or the chain is another one.
fn items(
    at: Cursor,
    received: &Received,
    user: Option<&UserId>,
    body: &impl Fn(EntryId) -> Option<Entry>,
) -> Option<Vec<Read>> {
    let (mut cursor, mut position) = (at, received.from);
    let mut reads = Vec::new();
    for item in received.entries.unpack(received.from).ok()? {
        let from = position;
        let item = match item {
            Item::Stub(stub) => Item::Entry(whole(&stub, user?, body(stub.id)?)),
            item => item,
        };
        position = match &item {
            Item::Entry(logged) => logged.offset.next(),
            Item::Gap(gap) => gap.end,
            Item::Stub(_) => return None,
        };
        if position <= cursor.next {
            continue;
        }
        cursor = match &item {
            Item::Entry(logged) => cursor.after(logged),
            Item::Gap(gap) => Cursor { next: gap.end, chain: gap.chain },
            Item::Stub(_) => return None,
        };
        reads.push((from, item, cursor));
    }
    (cursor == received.after).then_some(reads)
}

fn whole(stub: &Stub, user: &UserId, entry: Entry) -> Logged {
    Logged {
        offset: stub.offset,
        actor: stub.id.actor,
        user: user.clone(),
        accepted: stub.accepted,
        base: stub.base.unwrap_or(entry.header.base.end),
        entry,
    }
}

/// Own entries that stand in the rows without a body, by actor: from which seq to which (inclusive).
pub fn stubs(rows: &[Row]) -> BTreeMap<crate::id::ActorId, (Seq, Seq)> {
    let mut wanted = BTreeMap::new();
    for received in rows.iter().filter_map(|(_, bytes)| row::decode::<Received>(bytes).ok()) {
        for item in received.entries.unpack(received.from).unwrap_or_default() {
            let Item::Stub(stub) = item else { continue };
            let seq = stub.id.seq;
            let range = wanted.entry(stub.id.actor).or_insert((seq, seq));
            *range = (range.0.min(seq), range.1.max(seq));
        }
    }
    wanted
}

/// Own entries by their ids, from rows of own entries.
pub fn bodies(rows: Vec<Row>) -> BTreeMap<EntryId, Entry> {
    let mut bodies = BTreeMap::new();
    for (key, bytes) in rows {
        let Some(actor) = storage::actor_of(&key) else { continue };
        // What is damaged is not here; the server has it.
        let Some(first) = storage::number_of(&key) else { continue };
        let own = own::read([(key, bytes)], Seq(first), None).unwrap_or_default();
        for entry in own.entries {
            bodies.insert(EntryId { actor, seq: entry.header.seq }, entry);
        }
    }
    bodies
}
