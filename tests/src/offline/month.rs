//! What somebody does in thirty days without a network while somebody else writes to the same log, and what must come
//! of both: each kind of action is made at every age.

use std::collections::BTreeMap;

use driftlog_core::draft::Draft;
use driftlog_core::engine::Engine;
use driftlog_core::id::LogName;
use driftlog_core::view::Query;
use serde_json::{Value as Json, json};

use crate::sim::board;

/// Todos that both have from the beginning.
const SHARED: u64 = 50;
/// One of them, which the other removes while this one goes on with it.
const LOST: u64 = 7;
/// One of them, which this one removes at the end while the other went on with it.
const REMOVED: u64 = 8;
/// The actions repeat in this order.
const ROUND: u64 = 10;

/// Times at which there is something to do: ten a day.
const SITTINGS: u64 = 300;

/// The actions of one month.
#[derive(Clone, Copy, Debug)]
pub(super) struct Month {
    /// How many there are.
    pub(super) actions: u64,
}

/// What an action does, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Makes a todo of this number.
    Add(u64),
    /// Removes one that was made.
    Remove(u64),
    /// Sets the title of a shared one.
    Rename(u64),
    /// Adds to the counter of a shared one.
    Vote(u64),
    /// Types behind the note of a shared one.
    Write(u64),
    /// Takes a tag away from a shared one that had it at the beginning.
    Untag(u64),
    /// Removes a shared one.
    RemoveShared,
}

impl Month {
    /// As few as do each deed to each todo.
    pub(super) const ACTIONS_MIN: u64 = 20 * SHARED;

    /// How long it is, in milliseconds.
    pub(super) const MS: u64 = 30 * 24 * 60 * 60 * 1_000;

    /// When an action is made, in milliseconds from the beginning: so many a second in each sitting.
    pub(super) fn time(self, at: u64) -> u64 {
        let sitting = at * SITTINGS / self.actions;
        Self::MS / SITTINGS * sitting + 100 * (at - (sitting * self.actions).div_ceil(SITTINGS)) + 100
    }

    /// What both have from the beginning.
    pub(super) fn beginning() -> impl Iterator<Item = Draft> {
        (0..SHARED).flat_map(|at| {
            let record = shared(at);
            [board::add_with_note(&record, "as it was", "note:"), board::tag(&record, "old")]
        })
    }

    /// What the other does in the middle of the month.
    pub(super) fn middle() -> impl Iterator<Item = Draft> {
        (0..SHARED).flat_map(|at| {
            let record = shared(at);
            let mut drafts = vec![
                board::rename(&record, "of the other"),
                board::vote(&record, 1),
                board::tag(&record, "old"),
                board::tag(&record, "new"),
                board::splice(&record, 0, 0, "the other's "),
            ];
            if at == LOST {
                drafts.push(board::delete(&record));
            }
            drafts
        })
    }

    fn deed(self, at: u64) -> Deed {
        let left = self.actions - at;
        let (round, target) = (at / ROUND * ROUND, at / ROUND % SHARED);
        match at % ROUND {
            _ if left == 1 => Deed::RemoveShared,
            _ if left <= 1 + SHARED => Deed::Untag(left - 2),
            0 | 1 => Deed::Add(at),
            // Half of the shared ones are not renamed any more when the other has done it.
            2..=4 if target % 2 == 0 && at >= self.actions / 2 => Deed::Vote(target),
            2..=4 => Deed::Rename(target),
            5 | 6 => Deed::Vote(target),
            7 | 8 => Deed::Write(target),
            _ => Deed::Remove(round),
        }
    }

    /// An action by its number, as it is made on what the engine shows.
    pub(super) fn draft(self, at: u64, engine: &mut Engine, log: &LogName) -> Draft {
        match self.deed(at) {
            Deed::Add(number) => board::add_with_note(&made(number), &format!("made {number}"), "a"),
            Deed::Remove(number) => board::delete(&made(number)),
            Deed::Rename(target) => board::rename(&shared(target), &format!("renamed {at}")),
            Deed::Vote(target) => board::vote(&shared(target), 1),
            Deed::Write(target) => {
                let end = note_length(engine, log, &shared(target));
                board::splice(&shared(target), end, 0, &word(at))
            }
            Deed::Untag(target) => board::untag(&shared(target), "old"),
            Deed::RemoveShared => board::delete(&shared(REMOVED)),
        }
    }

    /// What everybody must see of the log when everything has arrived, by id.
    pub(super) fn outcome(self) -> BTreeMap<String, Json> {
        let row = |id: &str, title: &str, note: &str| json!({ "id": id, "title": title, "votes": 0, "tags": [], "note": note });
        let mut rows: BTreeMap<String, Json> = BTreeMap::new();
        for at in 0..SHARED {
            let mut shared_row = row(&shared(at), "of the other", "the other's note:");
            shared_row["votes"] = json!(1);
            shared_row["tags"] = json!(["new", "old"]);
            rows.insert(shared(at), shared_row);
        }
        for at in 0..self.actions {
            match self.deed(at) {
                Deed::Add(number) => {
                    rows.insert(made(number), row(&made(number), &format!("made {number}"), "a"));
                }
                Deed::Remove(number) => drop(rows.remove(&made(number))),
                // What the other did in the middle is later than what was done before.
                Deed::Rename(target) if at >= self.actions / 2 => {
                    rows.get_mut(&shared(target)).expect("a shared one")["title"] = json!(format!("renamed {at}"));
                }
                Deed::Vote(target) => {
                    let votes = &mut rows.get_mut(&shared(target)).expect("a shared one")["votes"];
                    *votes = json!(votes.as_i64().expect("a number") + 1);
                }
                Deed::Write(target) => {
                    let note = &mut rows.get_mut(&shared(target)).expect("a shared one")["note"];
                    *note = json!(format!("{}{}", note.as_str().expect("a text"), word(at)));
                }
                Deed::Rename(_) | Deed::Untag(_) | Deed::RemoveShared => {}
            }
        }
        rows.remove(&shared(LOST));
        rows.remove(&shared(REMOVED));
        rows
    }
}

/// What an engine shows of the log, by id.
///
/// # Panics
/// If it does not show it.
pub(super) fn shown(engine: &mut Engine, log: &LogName) -> BTreeMap<String, Json> {
    let (view, visible) = engine.replica(log).expect("an open log").view_mut().expect("a log that is shown");
    let rows = view.select(visible, Query::all(board::name("todos"))).expect("a query");
    rows.iter()
        .map(|row| {
            let mut row: Json = driftlog_core::codec::from_bytes(row.as_bytes()).expect("a row");
            row.as_object_mut().expect("a map").remove("$");
            (row["id"].as_str().expect("an id").to_owned(), row)
        })
        .collect()
}

fn note_length(engine: &mut Engine, log: &LogName, record: &str) -> usize {
    let key = driftlog_core::state::RecordKey { collection: board::name("todos"), record: board::id(record) };
    let field = driftlog_core::state::FieldKey { key, field: board::name("note") };
    let (_, visible) = engine.replica(log).expect("an open log").view_mut().expect("a log that is shown");
    visible.text_len_utf16(&field).expect("a text that reads")
}

fn shared(at: u64) -> String {
    format!("shared{at}")
}

fn made(at: u64) -> String {
    format!("made{at}")
}

fn word(at: u64) -> String {
    format!(" {at}")
}
