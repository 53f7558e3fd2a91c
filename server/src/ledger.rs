//! The ledger of erases: what operators ordered, in a file of its own that no backup of the data has and that is read at
//! each start, so that a server that is put back to a backup erases again.
//!
//! One line of JSON for each order, appended and flushed before anything of it happens in the store. A last line that is
//! cut short was never carried out, and never answered: it is cut off. Who keeps backups keeps this file elsewhere, and
//! puts it back with them (docs/reliability.md, "Erase").

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use driftlog_core::id::{ActorId, LogName, Name, RecordId};
use driftlog_core::time::WallMs;
use serde_json::{Value as Json, json};

/// What an operator wants erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Everything in a log.
    Log(LogName),
    /// A record of a log: its collection and id.
    Record(LogName, Name, RecordId),
    /// Authors: what they wrote, and who they were. They are named as the log does, so the ledger names nobody.
    Authors(Vec<ActorId>),
}

/// An operator's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Names it, so that it is taken once.
    pub(crate) request: [u8; 16],
    /// What is to go.
    pub(crate) target: Target,
    /// When it was given.
    pub(crate) at: WallMs,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

impl Target {
    /// The one log that it is about.
    pub(crate) fn log(&self) -> Option<&LogName> {
        match self {
            Self::Log(log) | Self::Record(log, ..) => Some(log),
            Self::Authors(_) => None,
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Log(log) => json!({ "log": log.as_str() }),
            Self::Record(log, collection, record) => {
                json!({ "log": log.as_str(), "collection": collection.as_str(), "record": record.as_str() })
            }
            Self::Authors(actors) => {
                json!({ "authors": actors.iter().map(ActorId::to_string).collect::<Vec<_>>() })
            }
        }
    }

    /// What a JSON object says: `log`, with `collection` and `record` for one record of it, or `authors`.
    fn of_json(json: &Json) -> Result<Self, String> {
        let text = |key: &str| json[key].as_str();
        let wrong = |error: driftlog_core::id::InvalidName| error.to_string();
        match (text("log"), text("collection"), text("record"), json["authors"].as_array()) {
            (Some(log), None, None, None) => Ok(Self::Log(LogName::new(log).map_err(wrong)?)),
            (Some(log), Some(collection), Some(record), None) => {
                let (collection, record) =
                    (Name::new(collection).map_err(wrong)?, RecordId::new(record).map_err(wrong)?);
                Ok(Self::Record(LogName::new(log).map_err(wrong)?, collection, record))
            }
            (None, None, None, Some(actors)) => {
                let actors = actors.iter().map(|actor| actor.as_str().and_then(ActorId::from_hex));
                actors.collect::<Option<_>>().map(Self::Authors).ok_or_else(|| "an author is no actor".to_owned())
            }
            _ => Err("it names no log, no record and no authors".to_owned()),
        }
    }
}

impl Order {
    fn line(&self) -> String {
        let mut line = self.target.json();
        line["request"] = self.request.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        line["at_ms"] = self.at.into();
        format!("{line}\n")
    }

    fn of_line(line: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let request = json["request"].as_str().and_then(hex).ok_or("it names no request")?;
        let at = json["at_ms"].as_u64().ok_or("it says no time")?;
        Ok(Self { request, target: Target::of_json(&json)?, at })
    }
}

fn hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = digits.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(number.to_be_bytes())
}

impl Ledger {
    /// Opens the file, made if it is missing, and reads what it says.
    ///
    /// # Errors
    /// The file cannot be read or made, or a line of it says nothing: then nobody knows what must not come back.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Order>)> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
            file.sync_all()?;
        }
        let orders = text[..whole].lines().enumerate().map(|(at, line)| {
            Order::of_line(line).map_err(|error| {
                let at = at + 1;
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: line {at}: {error}", path.display()))
            })
        });
        let orders = orders.collect::<io::Result<_>>()?;
        Ok((Self { path: path.to_owned(), file: Mutex::new(file) }, orders))
    }

    /// Writes an order; when this returns, it is durable.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write(&self, order: &Order) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let end = file.metadata()?.len();
        let written = file.write_all(order.line().as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a line would make the next one unreadable.
            file.set_len(end)?;
            tracing::error!(path = %self.path.display(), "the ledger of erases cannot be written");
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(request: u8, target: Target) -> Order {
        Order { request: [request; 16], target, at: 1_700_000_000_000 + u64::from(request) }
    }

    fn orders() -> Vec<Order> {
        let log = LogName::new("board/\"4\"\n".trim()).expect("a name");
        let collection = Name::new("todos").expect("a name");
        vec![
            order(1, Target::Log(log.clone())),
            order(0xab, Target::Record(log, collection, RecordId::new("x/1").expect("an id"))),
            order(3, Target::Authors(vec![ActorId([7; 16]), ActorId([8; 16])])),
        ]
    }

    #[test]
    fn what_was_written_is_read_at_the_next_start_and_a_line_that_was_cut_is_cut_off() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("erased.jsonl");
        let (ledger, before) = Ledger::open(&path).expect("opens");
        assert_eq!(before, []);
        orders().iter().for_each(|order| ledger.write(order).expect("writes"));
        assert_eq!(Ledger::open(&path).expect("opens").1, orders());
        let whole = std::fs::read(&path).expect("reads");
        for cut in 1..60 {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("writes");
            let (ledger, read) = Ledger::open(&path).expect("opens");
            assert_eq!(read, orders()[..2], "cut by {cut}");
            ledger.write(&orders()[2]).expect("writes");
            assert_eq!(std::fs::read(&path).expect("reads"), whole);
        }
    }

    #[test]
    fn a_line_that_says_nothing_is_an_error() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("erased.jsonl");
        for line in ["{}", "not json", r#"{"request":"00","at_ms":1,"log":"a"}"#, r#"{"at_ms":1,"log":"a"}"#] {
            std::fs::write(&path, format!("{line}\n")).expect("writes");
            assert!(Ledger::open(&path).is_err(), "{line}");
        }
    }
}
