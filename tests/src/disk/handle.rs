//! Open files and the calls of the file system, without SQLite's types: each answers with SQLite's result code.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};

use rusqlite::ffi;

use super::contents::Inode;
use super::locks::{Holder, INDEX_LOCKS, Level};
use super::{Call, DISKS, Failure, Shared, State, lock};

/// The index of a write-ahead log, which all connections of a process share: memory of the process, lost with it.
#[derive(Default)]
pub(super) struct SharedIndex(Mutex<Vec<Box<[AtomicU64]>>>);

/// An open file.
pub(super) struct Handle {
    shared: Arc<Shared>,
    generation: u64,
    holder: Holder,
    inode: Inode,
    /// A journal that this handle made: its first sync syncs its folder too.
    is_new_journal: bool,
    /// The name to delete when it is closed.
    delete_on_close: Option<String>,
    /// Kept as long as SQLite may hold pointers into it.
    index: Option<Arc<SharedIndex>>,
}

/// The disk and the name in a path like `/disk-7/name`.
fn find(path: &str) -> Option<(Arc<Shared>, &str)> {
    let (number, name) = path.strip_prefix("/disk-")?.split_once('/')?;
    let shared = lock(&DISKS).get(&number.parse().ok()?).and_then(Weak::upgrade)?;
    Some((shared, name))
}

impl Handle {
    /// Opens or makes a file.
    pub(super) fn open(path: &str, flags: i32) -> Result<Self, i32> {
        let (shared, name) = find(path).ok_or(ffi::SQLITE_CANTOPEN)?;
        let mut state = shared.lock();
        let generation = state.generation;
        let found = state.contents.named(name);
        let call = if found.is_none() { Call::Change } else { Call::Read };
        state.admit(call, generation).map_err(|failure| failure.code(ffi::SQLITE_CANTOPEN))?;
        let inode = match found {
            Some(inode) => inode,
            None if flags & ffi::SQLITE_OPEN_CREATE == 0 => return Err(ffi::SQLITE_CANTOPEN),
            None => state.contents.make(name),
        };
        state.handles += 1;
        let holder = state.handles;
        drop(state);
        let journals = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
        Ok(Self {
            shared,
            generation,
            holder,
            inode,
            is_new_journal: found.is_none() && flags & journals != 0,
            delete_on_close: (flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0).then(|| name.to_owned()),
            index: None,
        })
    }

    /// Deletes a file.
    pub(super) fn delete(path: &str, sync_folder: bool) -> i32 {
        let Some((shared, name)) = find(path) else { return ffi::SQLITE_IOERR_DELETE };
        let mut state = shared.lock();
        let generation = state.generation;
        if let Err(failure) = state.admit(Call::Change, generation) {
            return failure.code(ffi::SQLITE_IOERR_DELETE);
        }
        if !state.contents.delete(name) {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        }
        if sync_folder {
            state.contents.sync_names();
        }
        ffi::SQLITE_OK
    }

    /// Whether a file is there; an empty one is not, as on Unix.
    pub(super) fn exists(path: &str) -> Result<bool, i32> {
        let (shared, name) = find(path).ok_or(ffi::SQLITE_IOERR_ACCESS)?;
        let state = shared.lock();
        if state.off {
            return Err(ffi::SQLITE_IOERR_ACCESS);
        }
        Ok(state.contents.named(name).is_some_and(|inode| !state.contents.seen(inode).is_empty()))
    }

    /// Fills `to`, with zeros behind the end of the file.
    pub(super) fn read(&self, to: &mut [u8], at: usize) -> i32 {
        let read = |state: &mut State| {
            let content = state.contents.seen(self.inode);
            let there = content.get(at..).unwrap_or(&[]);
            let length = there.len().min(to.len());
            to[..length].copy_from_slice(&there[..length]);
            to[length..].fill(0);
            if length == to.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
        };
        self.call(Call::Read, ffi::SQLITE_IOERR_READ, read)
    }

    pub(super) fn write(&self, bytes: &[u8], at: usize) -> i32 {
        self.call(Call::Change, ffi::SQLITE_IOERR_WRITE, |state| {
            if !state.has_room(self.inode, at + bytes.len()) {
                return ffi::SQLITE_FULL;
            }
            state.contents.write(self.inode, at, bytes);
            ffi::SQLITE_OK
        })
    }

    pub(super) fn resize(&self, length: usize) -> i32 {
        self.call(Call::Change, ffi::SQLITE_IOERR_TRUNCATE, |state| {
            if !state.has_room(self.inode, length) {
                return ffi::SQLITE_FULL;
            }
            state.contents.resize(self.inode, length);
            ffi::SQLITE_OK
        })
    }

    pub(super) fn sync(&mut self) -> i32 {
        let mut state = self.shared.lock();
        match state.admit(Call::Sync, self.generation) {
            Ok(()) => {
                let State { contents, recorded, lies, .. } = &mut *state;
                if let Some(recorded) = recorded {
                    recorded.push(contents.clone());
                }
                if *lies {
                    return ffi::SQLITE_OK;
                }
                contents.sync(self.inode);
                if std::mem::take(&mut self.is_new_journal) {
                    state.contents.sync_names();
                }
                ffi::SQLITE_OK
            }
            Err(failure) => {
                // With the power goes only what is lost anyway; its pages are still in doubt.
                if !state.off && state.generation == self.generation {
                    state.contents.forget_pending(self.inode);
                }
                failure.code(ffi::SQLITE_IOERR_FSYNC)
            }
        }
    }

    pub(super) fn size(&self) -> Result<usize, i32> {
        let state = self.shared.lock();
        let alive = !state.off && state.generation == self.generation;
        if alive { Ok(state.contents.seen(self.inode).len()) } else { Err(ffi::SQLITE_IOERR_FSTAT) }
    }

    pub(super) fn lock(&self, level: Level) -> i32 {
        self.locks(ffi::SQLITE_IOERR_LOCK, |locks| locks.raise(self.holder, level))
    }

    pub(super) fn unlock(&self, level: Level) -> i32 {
        self.locks(ffi::SQLITE_OK, |locks| {
            locks.lower(self.holder, level);
            true
        })
    }

    pub(super) fn is_reserved(&self) -> bool {
        let state = self.shared.lock();
        state.locks.get(&self.inode).is_some_and(super::Locks::is_reserved)
    }

    /// A region of the shared index; none if it is missing and not to be made.
    pub(super) fn map_index(
        &mut self,
        region: usize,
        bytes: usize,
        make: bool,
    ) -> Result<Option<*const AtomicU64>, i32> {
        let mut state = self.shared.lock();
        if state.off || state.generation != self.generation {
            return Err(ffi::SQLITE_IOERR_SHMMAP);
        }
        let index = match &self.index {
            Some(index) => index,
            None => {
                let known = state.indexes.get(&self.inode).and_then(Weak::upgrade);
                let index = known.unwrap_or_default();
                state.indexes.insert(self.inode, Arc::downgrade(&index));
                self.index.insert(index)
            }
        };
        let mut regions = lock(&index.0);
        if regions.len() <= region && !make {
            return Ok(None);
        }
        while regions.len() <= region {
            regions.push((0..bytes / 8).map(|_| AtomicU64::new(0)).collect());
        }
        Ok(Some(regions[region].as_ptr()))
    }

    /// Takes, shares or gives back locks of the shared index.
    pub(super) fn lock_index(&self, first: usize, count: usize, flags: i32) -> i32 {
        let range = first..(first + count).min(INDEX_LOCKS);
        self.locks(ffi::SQLITE_IOERR_SHMLOCK, |locks| {
            if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
                locks.release_index(self.holder, range);
                true
            } else if flags & ffi::SQLITE_SHM_SHARED != 0 {
                locks.share_index(self.holder, range)
            } else {
                locks.take_index(self.holder, range)
            }
        })
    }

    pub(super) fn unmap_index(&mut self) {
        self.locks(ffi::SQLITE_OK, |locks| {
            locks.release_index(self.holder, 0..INDEX_LOCKS);
            true
        });
        self.index = None;
    }

    fn call(&self, call: Call, code: i32, run: impl FnOnce(&mut State) -> i32) -> i32 {
        let mut state = self.shared.lock();
        match state.admit(call, self.generation) {
            Ok(()) => run(&mut state),
            Err(failure) => failure.code(code),
        }
    }

    /// A change of the locks; the dead have none.
    fn locks(&self, dead: i32, run: impl FnOnce(&mut super::Locks) -> bool) -> i32 {
        let mut state = self.shared.lock();
        if state.off || state.generation != self.generation {
            return dead;
        }
        if run(state.locks.entry(self.inode).or_default()) { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.generation != self.generation {
            return;
        }
        if let Some(locks) = state.locks.get_mut(&self.inode) {
            locks.forget(self.holder);
        }
        if let Some(name) = self.delete_on_close.take()
            && !state.off
        {
            state.contents.delete(&name);
        }
    }
}

impl Failure {
    fn code(self, io: i32) -> i32 {
        match self {
            Self::Io => io,
            Self::Full => ffi::SQLITE_FULL,
        }
    }
}
