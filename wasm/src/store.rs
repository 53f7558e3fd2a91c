//! The local database: an ordered key-value store with byte keys, byte values and atomic commits.
//!
//! It promises: a read sees one moment of the database; a commit is all or nothing, sees no other commit between its
//! reads and its writes, and resolves only when the database says it is complete; every failure is typed, and
//! *nothing was written* is told apart from *the outcome is unknown*.
//!
//! It leaves to others: what the keys and values mean (core), and what to do about an unknown outcome (the caller
//! reads before it decides).
//!
//! **Invariant:** nothing foreign is awaited inside a transaction. A commit's function is synchronous; IndexedDB
//! closes a transaction as soon as control returns to the event loop with no request waiting.
//!
//! Two implementations, [`indexeddb`] and [`memory`], pass one suite, [`conformance`].

mod chromium;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod conformance;
pub(crate) mod indexeddb;
pub(crate) mod memory;

pub(crate) use driftlog_core::storage::{Direction, Durability, Key, KeyRange, Row, Write};
use indexeddb::IndexedDbStore;
use memory::MemoryStore;

/// What the browser said, kept for the report: the name of the exception and its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {text}")]
pub(crate) struct Fault {
    /// The exception's name, such as `UnknownError`.
    pub(crate) name: String,
    /// The exception's text; differs between browsers.
    pub(crate) text: String,
}

impl Fault {
    /// A fault that this crate found itself.
    pub(crate) fn new(name: &str, text: impl Into<String>) -> Self {
        Fault { name: name.to_owned(), text: text.into() }
    }
}

/// Why a database cannot be opened or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// The environment has no such store, or denies it; fall back to memory and say so.
    #[error("local storage is not available: {0}")]
    Unavailable(Fault),
    /// The origin's quota is used up.
    #[error("the storage quota is used up: {0}")]
    Quota(Fault),
    /// The connection was lost and could not be opened again in the time allowed; try later.
    #[error("the connection to local storage is lost: {0}")]
    Lost(Fault),
    /// Closed by the caller, or for good because the database was deleted or is being changed by newer code.
    #[error("local storage is closed")]
    Closed,
    /// A row does not hold bytes: foreign or damaged.
    #[error("local storage holds a row that is not bytes")]
    Corrupt,
    /// The browser refused for another reason; nothing was read.
    #[error("local storage failed: {0}")]
    Refused(Fault),
}

/// Why a commit did not succeed. Except for [`CommitError::Unknown`], nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitError<A> {
    /// The commit's own function decided against it.
    #[error("the commit was given up by its author")]
    Aborted(A),
    /// A [`Write::Add`] met a row with its key.
    #[error("a row that the commit adds exists already")]
    Conflict,
    /// The store could not be opened, read or written.
    #[error(transparent)]
    Store(StoreError),
    /// The connection broke after the writes were issued: they may be in the database or not. Read before deciding.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(Fault),
}

impl<A> From<StoreError> for CommitError<A> {
    fn from(error: StoreError) -> Self {
        CommitError::Store(error)
    }
}

/// Whether no key can be inside: what some stores take for a mistake.
fn is_empty(range: &KeyRange) -> bool {
    range.limit == Some(0) || range.end.as_ref().is_some_and(|end| *end <= range.start)
}

/// An ordered key-value store with atomic commits. Handles are cheap to clone and share one database.
pub(crate) trait Store: Clone + 'static {
    /// Reads all ranges at one moment of the database, one list of rows for each range.
    ///
    /// # Errors
    /// Any [`StoreError`]. A lost connection was already opened again and the read repeated before `Lost` is told.
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Vec<Row>>, StoreError>;

    /// Reads the values of `reads` (in their order), runs `decide` on them and applies the writes it returns, in one
    /// transaction. Resolves when the transaction is complete, at the durability asked for.
    ///
    /// # Errors
    /// Any [`CommitError`]; `decide` was called at most once, and not at all when [`CommitError::Store`] says `Lost`.
    async fn commit<T, A, F>(&self, durability: Durability, reads: &[Key], decide: F) -> Result<T, CommitError<A>>
    where
        F: FnOnce(&[Option<Vec<u8>>]) -> Result<(Vec<Write>, T), A>;

    /// Closes this handle; calls on it and on its clones answer [`StoreError::Closed`].
    fn close(&self);
}

/// The store of one client, chosen when it starts.
#[derive(Clone)]
pub(crate) enum LocalStore {
    /// Kept by the browser.
    IndexedDb(IndexedDbStore),
    /// Gone with the page.
    Memory(MemoryStore),
}

impl Store for LocalStore {
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Vec<Row>>, StoreError> {
        match self {
            LocalStore::IndexedDb(store) => store.read(ranges).await,
            LocalStore::Memory(store) => store.read(ranges).await,
        }
    }

    async fn commit<T, A, F>(&self, durability: Durability, reads: &[Key], decide: F) -> Result<T, CommitError<A>>
    where
        F: FnOnce(&[Option<Vec<u8>>]) -> Result<(Vec<Write>, T), A>,
    {
        match self {
            LocalStore::IndexedDb(store) => store.commit(durability, reads, decide).await,
            LocalStore::Memory(store) => store.commit(durability, reads, decide).await,
        }
    }

    fn close(&self) {
        match self {
            LocalStore::IndexedDb(store) => store.close(),
            LocalStore::Memory(store) => store.close(),
        }
    }
}
