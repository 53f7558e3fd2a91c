//! SQLite: connections and their settings.
//!
//! WAL with `synchronous=FULL`: a commit returns after the log file is flushed. Checkpoints are large, so that the
//! main file is written rarely; readers never wait for the writer.

mod audit;
mod backed_up;
pub(super) mod connections;
pub(super) mod erase;
pub(super) mod letters;
mod purge;
pub(super) mod read;
mod reissued;
mod snapshots;
mod sum;
pub(super) mod sweep;
mod truncate;
mod write;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

pub(crate) use write::{Writer, Writes};

/// The format that this server writes, as `PRAGMA user_version`.
const FORMAT: i64 = 1;
/// Statements kept prepared per connection: all that there are.
const STATEMENTS: usize = 64;
/// Tables in which a row that is not found is made.
const FOUND_BY_NAME: [&str; 4] = ["logs", "epochs", "bindings", "replacements"];
/// Read connections kept open between uses.
const READERS_KEPT: usize = 8;

/// The file of one server.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    path: PathBuf,
    /// Whose files these are, if not the system's.
    vfs: Option<String>,
}

impl Store {
    /// Opens or creates the store in a directory: of the system, or of a VFS.
    pub(crate) fn open(directory: &Path, vfs: Option<&str>) -> Result<Self, StoreError> {
        let store = Self::existing(directory, vfs);
        if vfs.is_none() {
            std::fs::create_dir_all(directory)
                .map_err(|error| StoreError::Directory { path: directory.to_owned(), error })?;
        }
        Ok(store)
    }

    /// The store that should be in a directory.
    pub(crate) fn existing(directory: &Path, vfs: Option<&str>) -> Self {
        Self { path: directory.join("driftlog.sqlite"), vfs: vfs.map(str::to_owned) }
    }

    /// The one connection that writes, in this and every other process; brings the tables up to this server's format.
    pub(crate) fn writer(&self) -> Result<Writer, StoreError> {
        let lock = if self.vfs.is_none() { Some(self.lock()?) } else { None };
        let connection = self.connect(OpenFlags::default())?;
        // Only before there is anything in the file: so what retention lets go is given back without a rewrite.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
        // A switch that fails is no error of the statement that asks for it, nor does the mode tell: only a checkpoint
        // knows whether there is a log. Without it a crash right behind a commit may take that back.
        connection.execute_batch("PRAGMA journal_mode = WAL")?;
        let pages: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
        if pages < 0 {
            return Err(StoreError::NoLog);
        }
        let modules = "SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_dbpage'";
        if connection.query_row(modules, [], |row| row.get::<_, i64>(0))? == 0 {
            return Err(StoreError::NoPages);
        }
        connection.execute_batch(
            "PRAGMA synchronous = FULL;
             PRAGMA fullfsync = ON;
             PRAGMA secure_delete = ON;
             PRAGMA wal_autocheckpoint = 8192;
             PRAGMA journal_size_limit = 67108864;
             PRAGMA temp_store = MEMORY;
             PRAGMA locking_mode = NORMAL;
             PRAGMA busy_timeout = 5000;",
        )?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let got: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match got {
            0 => connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {} PRAGMA user_version = {FORMAT}; COMMIT;",
                include_str!("sqlite/schema.sql")
            ))?,
            FORMAT => {}
            got => return Err(StoreError::Format { got, max: FORMAT }),
        }
        mend_indexes(&connection)?;
        Writer::new(connection, lock)
    }

    /// Two writers would give the same offsets. The system gives the lock back however its holder ends.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.path.with_extension("lock");
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(|error| StoreError::Directory { path: path.clone(), error })?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: self.directory().to_owned() }),
            Err(TryLockError::Error(error)) => Err(StoreError::Directory { path, error }),
        }
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match &self.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(&self.path, flags, vfs.as_str()),
            None => Connection::open_with_flags(&self.path, flags),
        }
    }

    /// Its database file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// A connection that only reads.
    fn reader(&self) -> Result<Reader, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = self.connect(flags)?;
        connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA cache_size = -2048;")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Reader(connection))
    }
}

/// Sees to it that what is found by name is found: a row that a damaged index does not lead to would be made anew. The
/// indexes are derived, so they are made again; the tables are small beside the entries.
fn mend_indexes(connection: &Connection) -> Result<(), StoreError> {
    for table in FOUND_BY_NAME {
        let sound = |connection: &Connection| -> rusqlite::Result<Option<String>> {
            let sql = format!("PRAGMA integrity_check({table})");
            let complaint: String = connection.query_row(&sql, [], |row| row.get(0))?;
            Ok((complaint != "ok").then_some(complaint))
        };
        let Some(complaint) = sound(connection)? else { continue };
        tracing::error!(table, complaint, "the database is damaged; its indexes are made again");
        connection.execute_batch(&format!("REINDEX {table}"))?;
        if let Some(complaint) = sound(connection)? {
            return Err(StoreError::corrupt(table, complaint));
        }
    }
    Ok(())
}

/// A connection that only reads.
struct Reader(Connection);

impl Reader {
    /// Runs reads in one transaction, so that they see one moment.
    fn read<T>(&mut self, reads: impl FnOnce(read::Reads<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let transaction = self.0.transaction()?;
        reads(read::Reads(&transaction))
    }
}

/// Read connections that are lent out.
pub(crate) struct ReadPool {
    store: Store,
    idle: Mutex<Vec<Reader>>,
}

impl ReadPool {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, idle: Mutex::default() }
    }

    /// Runs reads on a connection of the pool. It blocks: call it where blocking is allowed.
    pub(crate) fn read<T>(
        &self,
        reads: impl FnOnce(read::Reads<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.lock().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => self.store.reader()?,
        };
        let answer = reader.read(reads)?;
        let mut idle = self.lock();
        if idle.len() < READERS_KEPT {
            idle.push(reader);
        }
        Ok(answer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
