//! What a fold keeps in the local database: its checkpoint and its dead letters (docs/log-format.md, "Client database").

use serde::{Deserialize, Serialize};

use crate::chain::Cursor;
use crate::codec::Format;
use crate::consumer::Suspect;
use crate::id::{LogId, Name, Offset, UserId, WriteId};
use crate::time::WallMs;
use crate::value::Value;

use super::Act;

/// A fold's accumulator, and which stretch of which log it is of. Nothing in it is tentative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    format: Format<1>,
    /// The log's identity.
    pub log: LogId,
    /// The version of the app's handlers.
    pub version: u64,
    /// How often it began anew because the user redrove an entry: a tab that has not heard of it must not write.
    pub revision: u64,
    /// Before the first entry that it covers.
    pub from: Cursor,
    /// Behind the last one.
    pub done: Cursor,
    /// Behind the last erase that it knows of: what was erased since may be in it.
    pub erased: Offset,
    /// What the handlers made of them.
    pub accumulator: Value,
}

impl Checkpoint {
    /// A checkpoint of the current format.
    pub fn new(
        log: LogId,
        (version, revision): (u64, u64),
        (from, done): (Cursor, Cursor),
        erased: Offset,
        accumulator: Value,
    ) -> Self {
        Self { format: Format, log, version, revision, from, done, erased, accumulator }
    }
}

/// An entry that a fold's handler cannot take, kept whole: it is left out of that fold, and of nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    format: Format<1>,
    /// The id that the app knows.
    pub write: WriteId,
    /// Who did it.
    pub author: Option<UserId>,
    /// Its effective time.
    pub time: WallMs,
    /// The action.
    pub action: Name,
    /// Its arguments.
    pub args: Option<Value>,
    /// Why it failed the last time, for people.
    pub reason: String,
    /// How often it failed.
    pub attempts: u32,
    /// When it failed first.
    pub first: WallMs,
    /// When it failed last.
    pub last: WallMs,
    /// The user does not want to hear of it any more; it stays left out.
    pub discarded: bool,
}

impl Letter {
    /// Keeps an action with what became of it.
    pub(super) fn new(act: &Act, suspect: Suspect<Offset>) -> Self {
        Self {
            format: Format,
            write: act.write,
            author: act.author.clone(),
            time: act.time,
            action: act.body.name.clone(),
            args: act.body.args.clone(),
            reason: suspect.reason,
            attempts: suspect.attempts,
            first: suspect.first,
            last: suspect.last,
            discarded: false,
        }
    }
}
