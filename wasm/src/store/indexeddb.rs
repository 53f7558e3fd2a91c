//! The store in IndexedDB: one database, one object store `rows`, `Uint8Array` keys and values, schema version 1 for
//! ever. What changes with time is versioned inside the rows, so that no tab ever waits for another one's upgrade.
//!
//! It promises what [`Store`] promises. A commit prepares nothing inside its transaction, issues all writes without
//! awaiting them, commits explicitly and resolves on `complete`.
//!
//! ```text
//!   no handle ──open──► open ──`close` event, InvalidStateError, UnknownError…──► no handle
//!       │                └───`versionchange` (deleted, or newer code), close()──► closed for good
//!       └──it is not there any more─────────────────────────────────────────────► closed for good
//! ```
//!
//! A lost connection is normal in WebKit (its storage process ends when the page sleeps) and leaves a handle on which
//! every retry fails; so the handle is dropped and the database opened again, with a backoff. What happened before the
//! commit's function ran is repeated here; what happened after it is the caller's, as [`CommitError::Unknown`].

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::rc::{Rc, Weak};

use indexed_db_futures::KeyRange as IdbKeyRange;
use indexed_db_futures::cursor::CursorDirection;
use indexed_db_futures::database::Database;
use indexed_db_futures::error::{Error, OpenDbError, SimpleValueError};
use indexed_db_futures::internals::SystemRepr;
use indexed_db_futures::object_store::ObjectStore;
use indexed_db_futures::prelude::*;
use indexed_db_futures::transaction::{TransactionDurability, TransactionMode, TransactionOptions};
use indexed_db_futures::typed_array::{Uint8Array, Uint8ArraySlice};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::IdbDatabase;

use super::{
    CommitError, Direction, Durability, Fault, Key, KeyRange, Row, Store, StoreError, Write, chromium, is_empty,
};
use crate::timer;
use crate::witness::Held;

/// The object store that holds everything.
const ROWS: &str = "rows";

/// The schema version. It never changes: see the module's description.
const SCHEMA_VERSION: u8 = 1;

/// Pauses before each attempt to open the database; after the last one the caller is told.
const OPEN_PAUSES_MS: [u32; 5] = [0, 50, 200, 800, 2_000];

/// How often the browser's log is rolled behind an opening. LevelDB leaves a roll out when its turn comes together with a
/// write's, about once in a hundred starts of a busy machine; a second one, later, seldom meets such a moment as well.
const ROLLS: u32 = 2;

/// Pauses between rolls; four times longer after each that fails, on a full disk as a rule.
const ROLL_PAUSES_MS: RangeInclusive<u32> = 1_000..=64_000;

/// How often a read, or a commit whose function has not run, starts again on a new connection.
const RESTARTS_MAX: u32 = 3;

/// A handle on one database of the browser. Clones share the connection.
#[derive(Clone)]
pub(crate) struct IndexedDbStore {
    shared: Rc<Shared>,
}

struct Shared {
    name: String,
    link: RefCell<Link>,
    /// Whether it was open before: then it exists, or was deleted.
    exists: Cell<bool>,
    /// What the browser said, where it has deleted the database as a damaged one.
    lost: RefCell<Option<String>>,
}

enum Link {
    Absent,
    Open(Connection),
    Closed,
}

/// An open database with the listeners that watch it.
struct Connection {
    database: Database,
    _held: Held,
    _on_close: Closure<dyn FnMut()>,
    _on_version_change: Closure<dyn FnMut()>,
}

impl IndexedDbStore {
    /// Opens the database, and creates it when it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the environment has no IndexedDB or denies it, [`StoreError::Lost`] when all
    /// attempts failed.
    pub(crate) async fn open(name: &str) -> Result<Self, StoreError> {
        let shared = Shared {
            name: name.to_owned(),
            link: RefCell::new(Link::Absent),
            exists: Cell::new(false),
            lost: RefCell::default(),
        };
        let store = IndexedDbStore { shared: Rc::new(shared) };
        store.connect().await?;
        Ok(store)
    }

    /// Why the browser deleted the database that was here, if it found it damaged and says so.
    pub(crate) fn lost(&self) -> Option<String> {
        self.shared.lost.borrow().clone()
    }

    /// Closes the browser's handle behind the store's back, as a lost connection does.
    #[cfg(feature = "testing")]
    pub(crate) fn sever(&self) {
        if let Link::Open(connection) = &*self.shared.link.borrow() {
            connection.database.clone().close();
        }
    }

    /// The open database; opens it again when the connection was lost.
    async fn connect(&self) -> Result<Database, StoreError> {
        let mut last = Fault::new("NotOpened", "no attempt was made");
        for pause_ms in OPEN_PAUSES_MS {
            if let Some(database) = self.shared.current()? {
                return Ok(database);
            }
            if pause_ms > 0 {
                timer::sleep(pause_ms).await;
            }
            match open_database(&self.shared).await {
                Ok((database, true)) if self.shared.exists.get() => {
                    database.close();
                    self.close();
                }
                Ok((database, _)) => return Shared::adopt(&self.shared, database),
                Err(OpenDbError::UnsupportedEnvironment | OpenDbError::NullFactory) => {
                    let fault = Fault::new("NoIndexedDB", "the environment has no IndexedDB");
                    return Err(StoreError::Unavailable(fault));
                }
                // The library calls every exception of `open` itself so; a denied origin throws there.
                Err(OpenDbError::VersionZero) => {
                    let fault = Fault::new("OpenThrew", "the environment denies IndexedDB");
                    return Err(StoreError::Unavailable(fault));
                }
                Err(OpenDbError::Base(error)) => match classify(&error) {
                    Class::Lost(fault) => last = fault,
                    Class::Quota(fault) => return Err(StoreError::Quota(fault)),
                    Class::Conflict(fault) | Class::Refused(fault) => {
                        return Err(StoreError::Unavailable(fault));
                    }
                    Class::Corrupt => return Err(StoreError::Corrupt),
                },
            }
        }
        Err(StoreError::Lost(last))
    }
}

impl Store for IndexedDbStore {
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut restarts = 0;
        loop {
            let database = self.connect().await?;
            let error = match read_once(&database, ranges).await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            match classify(&error) {
                Class::Lost(fault) => {
                    self.shared.forget(&database);
                    restarts += 1;
                    if restarts > RESTARTS_MAX {
                        return Err(StoreError::Lost(fault));
                    }
                }
                class => return Err(class.into()),
            }
        }
    }

    async fn commit<T, A, F>(&self, durability: Durability, reads: &[Key], decide: F) -> Result<T, CommitError<A>>
    where
        F: FnOnce(&[Option<Vec<u8>>]) -> Result<(Vec<Write>, T), A>,
    {
        let mut decide = Some(decide);
        let mut restarts = 0;
        loop {
            let database = self.connect().await?;
            let error = match commit_once(&database, durability, reads, &mut decide).await {
                Ok(outcome) => return Ok(outcome),
                Err(Failure::Aborted(reason)) => return Err(CommitError::Aborted(reason)),
                Err(Failure::Browser(error)) => error,
            };
            match classify(&error) {
                Class::Lost(fault) => {
                    self.shared.forget(&database);
                    if decide.is_none() {
                        return Err(CommitError::Unknown(fault));
                    }
                    restarts += 1;
                    if restarts > RESTARTS_MAX {
                        return Err(StoreError::Lost(fault).into());
                    }
                }
                Class::Conflict(_) => return Err(CommitError::Conflict),
                class => return Err(StoreError::from(class).into()),
            }
        }
    }

    fn close(&self) {
        self.shared.link.replace(Link::Closed);
    }
}

impl Shared {
    fn current(&self) -> Result<Option<Database>, StoreError> {
        match &*self.link.borrow() {
            Link::Closed => Err(StoreError::Closed),
            Link::Absent => Ok(None),
            Link::Open(connection) => Ok(Some(connection.database.clone())),
        }
    }

    /// Keeps a database that was just opened, unless the store was closed meanwhile or somebody else was faster.
    fn adopt(shared: &Rc<Self>, database: Database) -> Result<Database, StoreError> {
        match shared.current() {
            Ok(None) => {
                let connection = Connection::new(database.clone(), Rc::downgrade(shared));
                shared.link.replace(Link::Open(connection));
                shared.exists.set(true);
                if chromium::is_here() {
                    spawn_local(roll_log(Rc::downgrade(shared), database.clone()));
                }
                Ok(database)
            }
            Ok(Some(earlier)) => {
                database.close();
                Ok(earlier)
            }
            Err(error) => {
                database.close();
                Err(error)
            }
        }
    }

    /// Drops the connection, if it still is this one.
    fn forget(&self, database: &Database) {
        if self.is_current(database) {
            self.link.replace(Link::Absent);
        }
    }

    fn is_current(&self, database: &Database) -> bool {
        match &*self.link.borrow() {
            Link::Open(connection) => connection.database.as_sys() == database.as_sys(),
            Link::Absent | Link::Closed => false,
        }
    }
}

impl Connection {
    fn new(database: Database, shared: Weak<Shared>) -> Self {
        let raw: &IdbDatabase = database.as_sys();
        let on_close = Closure::<dyn FnMut()>::new({
            let (shared, database) = (shared.clone(), database.clone());
            move || {
                if let Some(shared) = shared.upgrade() {
                    shared.forget(&database);
                }
            }
        });
        let on_version_change = Closure::<dyn FnMut()>::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.link.replace(Link::Closed);
            }
        });
        raw.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        raw.set_onversionchange(Some(on_version_change.as_ref().unchecked_ref()));
        let held = Held::of(raw, "close");
        Connection { database, _held: held, _on_close: on_close, _on_version_change: on_version_change }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let raw: &IdbDatabase = self.database.as_sys();
        raw.set_onclose(None);
        raw.set_onversionchange(None);
        raw.close();
    }
}

/// The database, and whether it was made now.
async fn open_database(shared: &Rc<Shared>) -> Result<(Database, bool), OpenDbError> {
    let made = Rc::new(Cell::new(false));
    let (told, is_made) = (Rc::clone(shared), Rc::clone(&made));
    let open = Database::open(shared.name.as_str()).with_version(SCHEMA_VERSION);
    let open = open.with_on_upgrade_needed(move |_event, database| {
        is_made.set(true);
        if let Some(reason) = chromium::data_loss() {
            told.lost.replace(Some(reason));
        }
        database.create_object_store(ROWS).build()?;
        Ok(())
    });
    Ok((open.await?, made.get()))
}

/// Rolls the browser's log, for as long as the connection is open. Nobody waits for it.
async fn roll_log(shared: Weak<Shared>, database: Database) {
    let (mut rolled, mut pause_ms) = (0, *ROLL_PAUSES_MS.start());
    loop {
        match chromium::roll_log().await {
            Ok(()) if rolled + 1 == ROLLS => return,
            Ok(()) => rolled += 1,
            Err(_) => pause_ms = (4 * pause_ms).min(*ROLL_PAUSES_MS.end()),
        }
        timer::sleep(pause_ms).await;
        if !shared.upgrade().is_some_and(|shared| shared.is_current(&database)) {
            return;
        }
    }
}

async fn read_once(database: &Database, ranges: &[KeyRange]) -> Result<Vec<Vec<Row>>, Error> {
    let transaction = database.transaction(ROWS).with_mode(TransactionMode::Readonly).build()?;
    let store = transaction.object_store(ROWS)?;
    // Ascending ranges are asked all at once; the transaction stays open while their answers are awaited.
    let mut asked = Vec::with_capacity(ranges.len());
    for range in ranges {
        asked.push(match range.direction {
            Direction::Forward if !is_empty(range) => Some(ask(&store, range)?),
            Direction::Forward | Direction::Backward => None,
        });
    }
    let mut answers = Vec::with_capacity(ranges.len());
    for request in asked {
        answers.push(match request {
            None => Vec::new(),
            Some((keys, values)) => pair(keys.await?, values.await?)?,
        });
    }
    for (range, answer) in ranges.iter().zip(&mut answers) {
        if range.direction == Direction::Backward && !is_empty(range) {
            *answer = read_backward(&store, range).await?;
        }
    }
    Ok(answers)
}

type KeysRequest = indexed_db_futures::future::GetAllPrimitiveRequest<JsValue>;
type ValuesRequest = indexed_db_futures::future::GetAllPrimitiveRequest<Uint8Array>;

fn ask(store: &ObjectStore<'_>, range: &KeyRange) -> Result<(KeysRequest, ValuesRequest), Error> {
    let limit = range.limit.unwrap_or(u32::MAX);
    let keys = store
        .get_all_keys::<JsValue>()
        .with_query::<Uint8ArraySlice<'_>, _>(bounds(range))
        .with_limit(limit)
        .primitive()?;
    let values = store
        .get_all::<Uint8Array>()
        .with_query::<Uint8ArraySlice<'_>, _>(bounds(range))
        .with_limit(limit)
        .primitive()?;
    Ok((keys, values))
}

fn pair(
    keys: impl Iterator<Item = Result<JsValue, Error>>,
    values: impl Iterator<Item = Result<Uint8Array, Error>>,
) -> Result<Vec<Row>, Error> {
    keys.zip(values).map(|(key, value)| Ok((key_bytes(&key?), value?.into()))).collect()
}

async fn read_backward(store: &ObjectStore<'_>, range: &KeyRange) -> Result<Vec<Row>, Error> {
    let limit = range.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut rows = Vec::new();
    let cursor = store
        .open_cursor()
        .with_query::<Uint8ArraySlice<'_>, _>(bounds(range))
        .with_direction(CursorDirection::Prev)
        .primitive()?
        .await?;
    let Some(mut cursor) = cursor else {
        return Ok(rows);
    };
    while rows.len() < limit {
        let Some(value) = cursor.next_record::<Uint8Array>().await? else {
            break;
        };
        let key = cursor.primary_key::<JsValue>()?.unwrap_or(JsValue::NULL);
        rows.push((key_bytes(&key), value.into()));
    }
    Ok(rows)
}

/// IndexedDB gives binary keys back as `ArrayBuffer`, whatever they were written as.
fn key_bytes(key: &JsValue) -> Key {
    js_sys::Uint8Array::new(key).to_vec()
}

fn bounds(range: &KeyRange) -> IdbKeyRange<Uint8ArraySlice<'_>> {
    let start = Uint8ArraySlice::new(&range.start);
    match &range.end {
        Some(end) => IdbKeyRange::Bound(start, false, Uint8ArraySlice::new(end), true),
        None => IdbKeyRange::LowerBound(start, false),
    }
}

enum Failure<A> {
    Aborted(A),
    Browser(Error),
}

impl<A, E: Into<Error>> From<E> for Failure<A> {
    fn from(error: E) -> Self {
        Failure::Browser(error.into())
    }
}

/// One attempt of a commit. `decide` is taken exactly when it runs.
async fn commit_once<T, A, F>(
    database: &Database,
    durability: Durability,
    reads: &[Key],
    decide: &mut Option<F>,
) -> Result<T, Failure<A>>
where
    F: FnOnce(&[Option<Vec<u8>>]) -> Result<(Vec<Write>, T), A>,
{
    let options = TransactionOptions::new().with_durability(match durability {
        Durability::Strict => TransactionDurability::Strict,
        Durability::Relaxed => TransactionDurability::Relaxed,
    });
    let transaction = database.transaction(ROWS).with_mode(TransactionMode::Readwrite).with_options(options).build()?;
    let store = transaction.object_store(ROWS)?;
    let mut requests = Vec::with_capacity(reads.len());
    for key in reads {
        let key = IdbKeyRange::Only(Uint8ArraySlice::new(key));
        requests.push(store.get::<Uint8Array, Uint8ArraySlice<'_>, _>(key).primitive()?);
    }
    let mut values = Vec::with_capacity(reads.len());
    for request in requests {
        values.push(request.await?.map(Vec::from));
    }
    let decide = decide.take().unwrap_or_else(|| unreachable!("a commit decides once"));
    let (writes, outcome) = decide(&values).map_err(Failure::Aborted)?;
    // Should this instance trap between two writes, none of them may count.
    let held = Held::of(transaction.as_sys(), "abort");
    for write in &writes {
        issue(&store, write)?;
    }
    drop(store);
    // The library reports an abort without its reason; the transaction itself still knows it afterwards.
    let raw = transaction.as_sys().clone();
    let committed = transaction.commit();
    drop(held);
    match committed.await {
        Ok(()) => Ok(outcome),
        Err(reported) => Err(match raw.error() {
            Some(reason) => reason.into(),
            None => reported.into(),
        }),
    }
}

/// Sends one write; its failure arrives with the transaction's.
fn issue(store: &ObjectStore<'_>, write: &Write) -> Result<(), Error> {
    match write {
        Write::Add(key, value) => drop(
            store
                .add(Uint8ArraySlice::new(value))
                .with_key(Uint8ArraySlice::new(key))
                .without_key_type()
                .primitive()?,
        ),
        Write::Put(key, value) => drop(
            store
                .put(Uint8ArraySlice::new(value))
                .with_key(Uint8ArraySlice::new(key))
                .without_key_type()
                .primitive()?,
        ),
        Write::Delete(key) => {
            let key = IdbKeyRange::Only(Uint8ArraySlice::new(key));
            drop(store.delete::<Uint8ArraySlice<'_>, _>(key).primitive()?);
        }
        // IndexedDB takes an empty range for a mistake.
        Write::DeleteRange(start, end) if end <= start => {}
        Write::DeleteRange(start, end) => {
            let (start, end) = (Uint8ArraySlice::new(start), Uint8ArraySlice::new(end));
            let range = IdbKeyRange::Bound(start, false, end, true);
            drop(store.delete::<Uint8ArraySlice<'_>, _>(range).primitive()?);
        }
    }
    Ok(())
}

/// What an error of the library means for the connection.
enum Class {
    Lost(Fault),
    Quota(Fault),
    Conflict(Fault),
    Refused(Fault),
    Corrupt,
}

impl From<Class> for StoreError {
    fn from(class: Class) -> Self {
        match class {
            Class::Lost(fault) => StoreError::Lost(fault),
            Class::Quota(fault) => StoreError::Quota(fault),
            Class::Conflict(fault) | Class::Refused(fault) => StoreError::Refused(fault),
            Class::Corrupt => StoreError::Corrupt,
        }
    }
}

fn classify(error: &Error) -> Class {
    use indexed_db_futures::error::SerialisationError;
    let dom = match error {
        Error::DomException(dom) => dom.as_sys(),
        Error::Serialisation(SerialisationError::SimpleValue(SimpleValueError::DynCast(_))) => {
            return Class::Corrupt;
        }
        // An abort without a reason (`TransactionAborted`), or an exception that is none of the DOM's.
        other => return Class::Lost(Fault::new("Aborted", other.to_string())),
    };
    let fault = Fault { name: dom.name(), text: dom.message() };
    match fault.name.as_str() {
        "QuotaExceededError" => Class::Quota(fault),
        "ConstraintError" => Class::Conflict(fault),
        "InvalidStateError" | "UnknownError" | "AbortError" | "TimeoutError" | "TransactionInactiveError" => {
            Class::Lost(fault)
        }
        _ => Class::Refused(fault),
    }
}
