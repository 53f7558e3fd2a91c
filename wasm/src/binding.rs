//! The class that TypeScript holds: `WireEngine` of `ts/boundary.ts`.
//!
//! It parses requests, calls the client, and writes answers. What is thrown is an `Error` with a string `code`.

use std::rc::Rc;

use driftlog_core::engine::{CallError, Engine, Input, OnlineWish, RequestId};
use driftlog_core::id::{EntryId, LogName, Name, Offset, RecordId, WriteId};
use driftlog_core::overlay::Visible;
use driftlog_core::replica::{ActError, RedriveError, Replica};
use driftlog_core::state::{FieldKey, RecordKey};
use driftlog_core::view::Query;
use wasm_bindgen::prelude::*;

use crate::boundary::answer::{self, Entry, LogState, Storage};
use crate::boundary::request::{self, EntryFilter, Open, Options, PriorityChoice, StorageChoice};
use crate::boundary::{self, BadRequest};
use crate::client::{Client, ClientError};
use crate::clock;
use crate::store::indexeddb::IndexedDbStore;
use crate::store::memory::MemoryStore;
use crate::store::{LocalStore, StoreError};
use crate::tabs::Mode;
use crate::witness::{self, Witness};

/// One client's engine.
#[wasm_bindgen(js_name = Engine)]
pub struct Binding {
    pub(crate) client: Rc<Client>,
    storage: Storage,
}

/// Opens a client's local database and starts its engine. The listener gets arrays of notices; the witness learns what
/// is worked on and held, in case this instance traps.
///
/// # Errors
/// `engine-failed` for malformed options, `storage-failed` when the storage asked for cannot be had.
#[wasm_bindgen]
pub async fn open_client(options: Vec<u8>, listener: js_sys::Function, witness: Witness) -> Result<Binding, JsValue> {
    console_error_panic_hook::set_once();
    witness::install(witness);
    let options: Options = boundary::decode(&options)?;
    let (name, storage) = (options.name.clone(), options.storage);
    let (store, reason) = open_store(&name, storage).await?;
    let listener = Box::new(move |notices: Vec<answer::Notice>| {
        let bytes = js_sys::Uint8Array::from(answer::notices(&notices).as_slice());
        // What a listener throws is the app's; the engine's work goes on.
        let _ = listener.call1(&JsValue::UNDEFINED, &bytes);
    });
    let client =
        Client::start(options, store.clone(), listener).map_err(|error| thrown("engine-failed", &error.to_string()))?;
    let mode = client.tabs_mode().unwrap_or(Mode::Alone);
    Ok(Binding { storage: describe(&store, mode, reason), client })
}

#[wasm_bindgen(js_class = Engine)]
impl Binding {
    /// [logName, schema, priority?] → [handle, log state].
    pub async fn open(&self, request: Vec<u8>) -> Result<Vec<u8>, JsValue> {
        let Open(name, schema, priority) = boundary::decode(&request)?;
        let client = Rc::clone(&self.client);
        if let Some(priority) = priority {
            client.call(|engine| engine.prioritize(&name, priority.into(), clock::now_ms()))?;
        }
        let handle = client.open(name.clone(), schema).await?;
        let state = client.call(|engine| engine.replica(&name).map(|replica| replica.log_state()))?;
        let state = LogState::from(state.map_err(ClientError::from)?);
        Ok(boundary::encode(&(handle, state)))
    }

    /// How much of the way a log gets from now on: `high`, `normal` or `low`, encoded.
    pub fn prioritize(&self, handle: u32, priority: &[u8]) -> Result<(), JsValue> {
        let (name, priority) = (self.client.log(handle)?, boundary::decode::<PriorityChoice>(priority)?);
        Ok(self.client.call(|engine| engine.prioritize(&name, priority.into(), clock::now_ms()))?)
    }

    /// Ends the views of a log; its outbox is shipped all the same.
    pub fn shut(&self, handle: u32) {
        self.client.shut(handle);
    }

    /// WireAct → [writeId, notices…].
    pub fn act(&self, handle: u32, request: &[u8]) -> Result<Vec<u8>, JsValue> {
        let name = self.client.log(handle)?;
        let draft = request::draft(request)?;
        let write = self.client.call(|engine| engine.act(&name, draft, clock::now_ms()))?;
        let write = write.map_err(ClientError::from)?;
        Ok(answer::acted(write, &self.client.take_notices()))
    }

    /// A WireAct that the engine before had in its view, but not stored: its number, and the end of the confirmed prefix
    /// that its author had seen → [writeId, notices…].
    #[wasm_bindgen(js_name = actAgain)]
    pub fn act_again(&self, handle: u32, request: &[u8], number: f64, seen: f64) -> Result<Vec<u8>, JsValue> {
        let name = self.client.log(handle)?;
        let draft = request::draft(request)?;
        let (number, seen) = (number as u64, Offset(seen as u64));
        let write = self.client.call(|engine| engine.act_again(&name, draft, (number, seen), clock::now_ms()))?;
        let write = write.map_err(ClientError::from)?;
        Ok(answer::acted(write, &self.client.take_notices()))
    }

    /// The row without its texts, if the view shows the record.
    pub fn read(&self, handle: u32, collection: &str, record: &str) -> Result<Option<Vec<u8>>, JsValue> {
        let (Ok(collection), Ok(record)) = (Name::new(collection), RecordId::new(record)) else {
            return Ok(None);
        };
        self.look(handle, |replica| {
            let (view, visible) = replica.view_mut()?;
            Some(view.row_for_draft(visible, &collection, &record)?.as_bytes().to_vec())
        })
    }

    /// WireQuery → rows without their texts, once.
    pub fn select(&self, handle: u32, query: &[u8]) -> Result<Vec<u8>, JsValue> {
        let query: Query = boundary::decode(query)?;
        let rows = self.look(handle, |replica| {
            let (view, visible) = replica.view_for(&query)?;
            Some(view.select_for_draft(visible, query))
        })?;
        let rows = rows.ok_or(ClientError::NoSuchHandle(handle))?;
        Ok(answer::selected(&rows.map_err(|error| thrown("bad-query", &error.to_string()))?))
    }

    /// A text, whole.
    pub fn text(&self, handle: u32, collection: &str, record: &str, field: &str) -> Result<String, JsValue> {
        // What is damaged stops the log where it is folded or loaded; a draft has to read something.
        self.text_of(handle, collection, record, field, |visible, field| visible.text(field).unwrap_or_default())
    }

    /// UTF-16 code units of a text.
    #[wasm_bindgen(js_name = textLength)]
    pub fn text_length(&self, handle: u32, collection: &str, record: &str, field: &str) -> Result<u32, JsValue> {
        let length = |visible: Visible<'_>, field: &FieldKey| visible.text_len_utf16(field).unwrap_or_default();
        Ok(self.text_of(handle, collection, record, field, length)? as u32)
    }

    /// Whether a position in a text lies between the two halves of a character.
    #[wasm_bindgen(js_name = splitsCharacter)]
    pub fn splits_character(
        &self,
        handle: u32,
        collection: &str,
        record: &str,
        field: &str,
        at: u32,
    ) -> Result<bool, JsValue> {
        self.text_of(handle, collection, record, field, |visible, field| {
            visible.splits_character(field, at as usize).unwrap_or_default()
        })
    }

    /// WireQuery → [queryId, rows]; patches follow until `unquery`.
    pub fn query(&self, handle: u32, query: &[u8]) -> Result<Vec<u8>, JsValue> {
        let query: Query = boundary::decode(query)?;
        let found = self.look(handle, |replica| {
            let (view, visible) = replica.view_for(&query)?;
            Some(view.query(visible, query))
        })?;
        let found = found.ok_or(ClientError::NoSuchHandle(handle))?;
        let (id, rows) = found.map_err(|error| thrown("bad-query", &error.to_string()))?;
        Ok(answer::queried(id.0, &rows))
    }

    /// Ends one use of a query.
    pub fn unquery(&self, handle: u32, query: u32) {
        // A log that was shut has no queries any more.
        let _ = self.look(handle, |replica| {
            if let Some((view, _)) = replica.view_mut() {
                view.unquery(driftlog_core::view::QueryId(query));
            }
        });
    }

    /// Issues a dead letter again, by a WireAct or as it was → [writeId, notices…].
    pub fn redrive(&self, handle: u32, entry: &str, request: Option<Vec<u8>>) -> Result<Vec<u8>, JsValue> {
        let name = self.client.log(handle)?;
        let id = dead_letter(entry)?;
        let draft = request.map(|request| request::draft(&request)).transpose()?;
        let write = self.client.call(|engine| engine.redrive(&name, id, draft, clock::now_ms()))?;
        let write = write.map_err(ClientError::from)?;
        Ok(answer::acted(write, &self.client.take_notices()))
    }

    /// Discards a dead letter for good; a notice tells when it is gone.
    pub fn discard(&self, handle: u32, entry: &str) -> Result<(), JsValue> {
        let name = self.client.log(handle)?;
        let id = dead_letter(entry)?;
        Ok(self.client.call(|engine| engine.discard(&name, id))?.map_err(ClientError::from)?)
    }

    /// The bytes of a dead letter's entry, header and body.
    pub fn letter(&self, handle: u32, entry: &str) -> Result<Option<Vec<u8>>, JsValue> {
        let id = dead_letter(entry)?;
        self.look(handle, |replica| replica.dead_letter(id).map(|letter| letter.entry.clone()))
    }

    /// WireEntry, if this client authored it.
    pub async fn entry(&self, handle: u32, write: String) -> Result<Option<Vec<u8>>, JsValue> {
        let Some(write) = WriteId::parse(&write) else { return Ok(None) };
        let found = self.look_up(handle, |engine, name| engine.own_entry(name, write)).await?;
        Ok(found.first().map(boundary::encode))
    }

    /// WireEntryFilter → WireEntry[], oldest first.
    pub async fn entries(&self, handle: u32, filter: Vec<u8>) -> Result<Vec<u8>, JsValue> {
        let filter: EntryFilter = boundary::decode(&filter)?;
        let which = filter.which();
        let mut entries = self.look_up(handle, |engine, name| engine.own_entries(name, which)).await?;
        entries.retain(|entry| filter.admits(entry));
        Ok(boundary::encode(&entries))
    }

    /// Says something of this client in a log, or nothing any more.
    pub fn present(&self, handle: u32, value: Option<Vec<u8>>) -> Result<(), JsValue> {
        let name = self.client.log(handle)?;
        let said = self.client.call(|engine| engine.set_presence(&name, value, clock::now_ms()))?;
        said.map_err(|error| thrown("bad-value", &error.to_string()))
    }

    /// → WirePresent[], by connection.
    pub fn presence(&self, handle: u32) -> Result<Vec<u8>, JsValue> {
        let name = self.client.log(handle)?;
        let present = self.client.call(|engine| engine.presence(&name))?.map_err(ClientError::from)?;
        Ok(boundary::encode(&present.into_iter().map(answer::Present::from).collect::<Vec<_>>()))
    }

    /// WireStorage.
    pub fn storage(&self) -> Vec<u8> {
        boundary::encode(&self.storage)
    }

    /// Connects, at once if the client waits for its next attempt.
    pub fn connect(&self) {
        self.client.wish(Input::Online(OnlineWish::Connected));
    }

    /// Closes the socket and stays offline until `connect`.
    pub fn disconnect(&self) {
        self.client.wish(Input::Online(OnlineWish::Disconnected));
    }

    /// The answer to `token-wanted`; `undefined` if there is none.
    #[wasm_bindgen(js_name = setToken)]
    pub fn set_token(&self, token: Option<String>) {
        self.client.wish(Input::Token(token));
    }

    /// Stores what is not stored yet, then ends.
    pub async fn close(&self) {
        let client = Rc::clone(&self.client);
        client.close().await;
    }
}

impl Binding {
    fn look<T>(&self, handle: u32, look: impl FnOnce(&mut Replica) -> T) -> Result<T, JsValue> {
        let name = self.client.log(handle)?;
        let found = self.client.call(|engine| engine.replica(&name).map(look))?;
        Ok(found.map_err(ClientError::from)?)
    }

    /// Reads a text; of what is no text, nothing.
    fn text_of<T: Default>(
        &self,
        handle: u32,
        collection: &str,
        record: &str,
        field: &str,
        read: impl FnOnce(Visible<'_>, &FieldKey) -> T,
    ) -> Result<T, JsValue> {
        let (Ok(collection), Ok(record), Ok(field)) = (Name::new(collection), RecordId::new(record), Name::new(field))
        else {
            return Ok(T::default());
        };
        let field = FieldKey { key: RecordKey { collection, record }, field };
        self.look(handle, |replica| replica.view_mut().map(|(_, visible)| read(visible, &field)).unwrap_or_default())
    }

    async fn look_up(
        &self,
        handle: u32,
        ask: impl FnOnce(&mut Engine, &LogName) -> Result<RequestId, CallError>,
    ) -> Result<Vec<Entry>, JsValue> {
        let client = Rc::clone(&self.client);
        let name: LogName = client.log(handle)?;
        let entries = client.look_up(|engine| ask(engine, &name)).await?;
        let user = client.call(|engine| engine.identity().and_then(|identity| identity.user.clone()))?;
        let user = user.map(|user| user.to_string());
        Ok(entries.into_iter().map(|entry| Entry::new(entry, user.clone())).collect())
    }
}

async fn open_store(name: &str, choice: StorageChoice) -> Result<(LocalStore, Option<String>), JsValue> {
    if choice == StorageChoice::Memory {
        let reason = "the app asked for memory".to_owned();
        return Ok((LocalStore::Memory(MemoryStore::default()), Some(reason)));
    }
    match IndexedDbStore::open(&format!("driftlog:{name}")).await {
        Ok(store) => Ok((LocalStore::IndexedDb(store), None)),
        // A database that exists and cannot be opened now must not look like an empty one.
        Err(error @ (StoreError::Unavailable(_) | StoreError::Quota(_))) if choice == StorageChoice::Auto => {
            Ok((LocalStore::Memory(MemoryStore::default()), Some(error.to_string())))
        }
        Err(error) => Err(thrown("storage-failed", &error.to_string())),
    }
}

fn describe(store: &LocalStore, mode: Mode, reason: Option<String>) -> Storage {
    let (kept, durable, lost) = match store {
        LocalStore::IndexedDb(store) => ("indexeddb", true, store.lost()),
        LocalStore::Memory(_) => ("memory", false, None),
    };
    let (tabs, tabs_reason) = match mode {
        Mode::Locks => ("many", None),
        Mode::Lease => ("many", Some("no Web Locks here: tabs take turns by a lease, which is slower".to_owned())),
        Mode::Alone => ("one", None),
    };
    Storage { mode: kept, durable, tabs, reason: reason.or(tabs_reason), lost }
}

impl From<ClientError> for JsValue {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Closed | ClientError::NoSuchHandle(_) | ClientError::Call(CallError::NotOpen(_)) => "closed",
            ClientError::Storage(_) => "storage-failed",
            ClientError::Call(
                CallError::Act(ActError::Text(_)) | CallError::Redrive(RedriveError::Act(ActError::Text(_))),
            ) => "bad-position",
            ClientError::Call(CallError::Redrive(error)) => match error {
                RedriveError::NotADeadLetter(_) => "no-such-dead-letter",
                RedriveError::UnderWay(_) => "already-redriven",
                RedriveError::NeedsArguments(_) => "needs-arguments",
                RedriveError::Act(_) => "bad-value",
                _ => "engine-failed",
            },
            ClientError::Call(CallError::BacklogFull(_)) => "backlog-full",
            ClientError::Call(_) => "bad-value",
        };
        thrown(code, &error.to_string())
    }
}

impl From<BadRequest> for JsValue {
    fn from(error: BadRequest) -> Self {
        thrown("engine-failed", &error.to_string())
    }
}

fn dead_letter(entry: &str) -> Result<EntryId, JsValue> {
    EntryId::parse(entry).ok_or_else(|| thrown("no-such-dead-letter", entry))
}

/// An `Error` with a `code`.
fn thrown(code: &str, text: &str) -> JsValue {
    let error = js_sys::Error::new(text);
    // Setting a property of a fresh error does not fail.
    let _ = js_sys::Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}
