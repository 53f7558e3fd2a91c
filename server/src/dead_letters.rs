//! Dead letters for operators: list, look at, redrive, discard, export; of a running server or of its directory.
//!
//! Everything is answered as JSON, the same over HTTP (`router/dead_letters.rs`) and on the command line. Reading needs
//! nobody's leave: it sees what is committed. Redriving and discarding are the log writer's.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftlog_core::id::LogName;
use driftlog_core::op::{DeletePolicy, Edit, FieldOp, Op};
use driftlog_core::sequencer::RedriveError;
use serde_json::{Map, Value as Json, json};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::environment::{Environment, System};
use crate::fanout::Feeds;
use crate::materialize::value_json;
use crate::snapshot;
use crate::store::{Letter, ReadPool, Store, StoreError};
use crate::writer::{self, LetterRequest, LogWriter, Redriven, Request, WriterHandle};

pub use crate::writer::LetterError;

/// Letters in one answer.
const LISTED_MAX: usize = 500;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Of one log; none: of all, and bytes that were no frame.
    pub log: Option<LogName>,
    /// Behind this letter.
    pub after: u64,
    /// Those that were re-issued too.
    pub done: Include,
    /// With what they hold.
    pub content: Include,
}

/// Whether something is part of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Include {
    /// It is left out.
    #[default]
    No,
    /// It is in.
    Yes,
}

/// The dead letters of one server.
pub struct DeadLetters {
    pool: Arc<ReadPool>,
    writer: Option<WriterHandle>,
}

impl DeadLetters {
    pub(crate) fn new(pool: Arc<ReadPool>, writer: WriterHandle) -> Self {
        Self { pool, writer: Some(writer) }
    }

    /// Those of a directory, for reading; a server may be at work there.
    ///
    /// # Errors
    /// [`StoreError`]: there is no store.
    pub fn read(directory: &Path) -> Result<Self, StoreError> {
        let store = existing(directory)?;
        Ok(Self { pool: Arc::new(ReadPool::new(store)), writer: None })
    }

    /// Runs one piece of work on those of a stopped server, as that server would with this configuration.
    ///
    /// # Errors
    /// [`StoreError`]: there is no store, a server is at work there ([`StoreError::InUse`]), or it failed.
    pub fn work<T>(config: &Config, work: impl FnOnce(&Self) -> T) -> Result<T, StoreError> {
        let store = existing(&config.directory)?;
        let writer_store = store.writer()?;
        let (jobs, _) = snapshot::jobs();
        let environment: Arc<dyn Environment> = Arc::new(System::new());
        let (handle, requests) = WriterHandle::new();
        let feeds = Arc::new(Feeds::new(config.tail_bytes, config.tails_bytes));
        let (failed, mut failure) = oneshot::channel();
        let log_writer = LogWriter::new(config, environment, jobs);
        let thread = writer::start(log_writer, writer_store, requests, feeds, failed)
            .map_err(|error| StoreError::Directory { path: config.directory.clone(), error })?;
        let letters = Self { pool: Arc::new(ReadPool::new(store)), writer: Some(handle.clone()) };
        let answer = work(&letters);
        handle.send(Request::Stop);
        let _ = thread.join();
        failure.try_recv().map_or(Ok(answer), Err)
    }

    /// Letters as JSON: `{letters, next}`, where `next` is to be given as `after` for more.
    ///
    /// # Errors
    /// [`StoreError`]: the store does not read.
    pub fn list(&self, listing: &Listing) -> Result<Json, StoreError> {
        let found = self.pool.read(|reads| reads.letters_after(listing.log.as_ref(), listing.after, LISTED_MAX))?;
        let next = (found.len() == LISTED_MAX).then(|| found.last().map(|letter| letter.id)).flatten();
        let shown = found.iter().filter(|letter| listing.done == Include::Yes || !is_done(letter));
        let letters: Vec<_> = shown.map(|letter| letter_json(letter, listing.content)).collect();
        Ok(json!({ "letters": letters, "next": next }))
    }

    /// One letter whole, as JSON.
    ///
    /// # Errors
    /// [`StoreError`]: the store does not read.
    pub fn show(&self, id: u64) -> Result<Option<Json>, StoreError> {
        let letter = self.pool.read(|reads| reads.letter(id))?;
        Ok(letter.map(|letter| letter_json(&letter, Include::Yes)))
    }

    /// Lets the entry in again as one of the log itself, once: `{offset, before}`, where `before` says that it stood
    /// there already, from whichever side it was re-issued.
    ///
    /// # Errors
    /// [`LetterError`]: nothing has changed but the count of attempts.
    pub async fn redrive(&self, id: u64) -> Result<Json, LetterError> {
        let Redriven { offset, before } = self.ask(|reply| LetterRequest::Redrive(id, reply)).await?;
        Ok(json!({ "letter": id, "offset": offset.0, "before": before }))
    }

    /// Gives a letter up for good.
    ///
    /// # Errors
    /// [`LetterError::Missing`], [`LetterError::NoAnswer`].
    pub async fn discard(&self, id: u64) -> Result<(), LetterError> {
        self.ask(|reply| LetterRequest::Discard(id, reply)).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LetterError>>) -> LetterRequest,
    ) -> Result<T, LetterError> {
        let (reply, answer) = oneshot::channel();
        let writer = self.writer.as_ref().ok_or(LetterError::NoAnswer)?;
        writer.send(Request::Letter(request(reply)));
        answer.await.map_err(|_| LetterError::NoAnswer)?
    }
}

/// Nothing is made here: a mistyped directory must not look like an empty server.
fn existing(directory: &Path) -> Result<Store, StoreError> {
    let store = Store::existing(directory, None);
    match std::fs::metadata(store.path()) {
        Ok(_) => Ok(store),
        Err(error) => Err(StoreError::Directory { path: directory.to_owned(), error }),
    }
}

fn is_done(letter: &Letter) -> bool {
    letter.refused.as_ref().is_some_and(|refused| refused.replaced.is_some())
}

fn letter_json(letter: &Letter, content: Include) -> Json {
    let Letter { id, source, code, reason, attempts, first, last, .. } = letter;
    let mut json = json!({
        "letter": id,
        "source": source,
        "code": code.name(),
        "number": code.number(),
        "reason": reason,
        "attempts": attempts,
        "first_ms": first,
        "last_ms": last,
        "bytes": letter.bytes.len(),
    });
    let mut add = |key: &str, value: Json| drop(json.as_object_mut().map(|json| json.insert(key.to_owned(), value)));
    if let Some(refused) = &letter.refused {
        add("log", refused.log.name.as_str().into());
        add("user", refused.user.as_str().into());
        add("entry_id", refused.target.id.to_string().into());
        add("replaced_at", refused.replaced.map(|offset| offset.0).into());
    }
    if let Some(entry) = letter.entry() {
        add("action", entry.body.name.as_str().into());
        if content == Include::Yes {
            add("time_ms", entry.header.time.ms().into());
            add("args", entry.body.args.as_ref().map(value_json).into());
            add("ops", entry.body.ops.iter().map(op_json).collect());
        }
    }
    if content == Include::Yes {
        add("content", STANDARD.encode(&letter.bytes).into());
    }
    json
}

/// An op for people.
fn op_json(op: &Op) -> Json {
    let (kind, fields) = match op {
        Op::Insert(insert) => {
            let fields: Map<_, _> =
                insert.fields.iter().map(|(name, op)| (name.as_str().to_owned(), field_op_json(op))).collect();
            ("insert", json!({ "fields": fields }))
        }
        Op::Update(update) => ("update", json!({ "field": update.field.as_str(), "does": field_op_json(&update.op) })),
        Op::Delete(delete) => ("delete", json!({ "policy": policy_json(&delete.policy) })),
        Op::Erase(_) => ("erase", json!({})),
        Op::Unknown(kind, _) => return json!({ "op": "unknown", "kind": kind }),
    };
    let mut json = fields;
    if let (Some(json), Some((collection, record))) = (json.as_object_mut(), op.target()) {
        json.insert("op".to_owned(), kind.into());
        json.insert("collection".to_owned(), collection.as_str().into());
        json.insert("record".to_owned(), record.as_str().into());
    }
    json
}

fn policy_json(policy: &DeletePolicy) -> Json {
    match policy {
        DeletePolicy::Wins => "delete-wins".into(),
        DeletePolicy::UpdateWins { .. } => "update-wins".into(),
        DeletePolicy::Unknown(policy, _) => (*policy).into(),
    }
}

fn field_op_json(op: &FieldOp) -> Json {
    let values = |values: &[driftlog_core::value::Value]| values.iter().map(value_json).collect::<Json>();
    match op {
        FieldOp::Set(value) => json!({ "set": value_json(value) }),
        FieldOp::Increment(by) => json!({ "increment": by }),
        FieldOp::Add(elements) => json!({ "add": values(elements) }),
        FieldOp::Remove(elements) => json!({ "remove": values(elements) }),
        FieldOp::Edit(Edit::InitialText(text)) => json!({ "text": text }),
        FieldOp::Edit(Edit::Change(change)) => json!({ "edit_bytes": change.bytes.len() }),
        FieldOp::Edit(Edit::Moved(moved)) => json!({ "edit_bytes": moved.bytes.len() }),
        FieldOp::Edit(Edit::Root(root)) => json!({ "root": root.root, "text": root.content }),
        FieldOp::Edit(Edit::Unknown(kind, _)) | FieldOp::Unknown(kind, _) => json!({ "unknown": kind }),
    }
}

impl LetterError {
    /// As JSON, in the form of every refusal over HTTP.
    pub fn json(&self) -> Json {
        let code = self.code();
        let retry_ms = match self {
            Self::Redrive(RedriveError::Held { delay, .. }) => u64::try_from(delay.as_millis()).ok(),
            _ => None,
        };
        json!({ "code": code.name(), "number": code.number(), "reason": self.to_string(), "retry_ms": retry_ms })
    }
}
