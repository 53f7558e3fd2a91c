//! A disk in memory for SQLite, which breaks on purpose: power cuts that lose, tear and reorder what was not synced,
//! I/O errors and full disks at a chosen call, flipped bits, backups.
//!
//! ```text
//!   connections of one server ──► VFS "driftlog-test-disk" ──► Disk 7: files /disk-7/…
//!                                  (the shim to SQLite)         synced │ pending │ faults to come
//! ```
//!
//! Every disk has a folder of its own under the one VFS; open a database at [`Disk::folder`] with [`VFS`]. It behaves
//! as the system's files do under the server's real settings: write-ahead log, shared index between the connections of
//! a process, `synchronous=FULL`. What the system promises and no more: bytes survive once their file was synced, a
//! name once its folder was (with the first sync of a new journal, and with a synced deletion).
//!
//! **Invariant:** the same calls on a disk of the same seed give the same outcome. Only the salts of SQLite's journals
//! differ: they come from a generator of the whole process, and nothing depends on their value.

mod contents;
mod handle;
mod locks;
mod vfs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use driftlog_core::random::Random;

use contents::{Contents, Inode};
use handle::SharedIndex;
use locks::Locks;

pub use vfs::VFS;

/// The smallest stretch that a disk writes whole.
const GRAIN_BYTES: usize = 512;

/// A disk. Clones are one disk; it is gone with the last one and the last open file.
#[derive(Clone)]
pub struct Disk(Arc<Shared>);

/// A moment in a disk's life, counted from 1 since it was made or its counters were reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A call of any kind: open, read, write, resize, sync, delete.
    Call(u64),
    /// A call that changes something: all but reads.
    Change(u64),
    /// A sync of a file.
    Sync(u64),
}

/// What happens at a moment instead of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This call fails. If it is a sync, what it should have synced never reaches the disk.
    Io,
    /// This call finds no space. A read knows no such failure and succeeds.
    Full,
    /// The power goes: this call and all later ones fail, until [`Disk::crash`].
    PowerOff,
}

/// What a crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process was killed, the system goes on.
    Nothing,
    /// Everything that was not synced.
    Unsynced,
    /// The newest changes, from a drawn one on; that one may be torn.
    Tail,
    /// Each sector for itself: it has any of the contents it had since the last sync. Torn and reordered at once.
    Sectors,
}

impl Loss {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Unsynced, Self::Tail, Self::Sectors];
}

/// The files of a disk at one moment, as a backup has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup(BTreeMap<String, Vec<u8>>);

struct Shared {
    number: u64,
    state: Mutex<State>,
}

struct State {
    contents: Contents,
    /// Counts crashes and restores: files opened before the last one are dead.
    generation: u64,
    off: bool,
    calls: u64,
    changes: u64,
    syncs: u64,
    planned: Vec<(Moment, Fault)>,
    capacity: Option<u64>,
    /// Syncs succeed and do nothing.
    lies: bool,
    /// The contents before each sync, if they are recorded.
    recorded: Option<Vec<Contents>>,
    random: Random,
    handles: u64,
    locks: BTreeMap<Inode, Locks>,
    indexes: BTreeMap<Inode, Weak<SharedIndex>>,
}

/// Every disk there is, by the number in its folder's name.
static DISKS: Mutex<BTreeMap<u64, Weak<Shared>>> = Mutex::new(BTreeMap::new());

impl Disk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self::with(Contents::default(), seed)
    }

    /// A disk that holds a backup.
    pub fn restored(backup: &Backup, seed: u64) -> Self {
        Self::with(Contents::of(backup.0.clone()), seed)
    }

    fn with(contents: Contents, seed: u64) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        vfs::register();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let state = State {
            contents,
            generation: 0,
            off: false,
            calls: 0,
            changes: 0,
            syncs: 0,
            planned: Vec::new(),
            capacity: None,
            lies: false,
            recorded: None,
            random: Random::new(bytes),
            handles: 0,
            locks: BTreeMap::new(),
            indexes: BTreeMap::new(),
        };
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared { number, state: Mutex::new(state) });
        lock(&DISKS).insert(number, Arc::downgrade(&shared));
        Self(shared)
    }

    /// The folder of its files: databases are opened under it, with the VFS [`VFS`].
    pub fn folder(&self) -> PathBuf {
        format!("/disk-{}", self.0.number).into()
    }

    /// The power is lost now, and comes back: what was not synced is lost as `loss` says, every open file is dead,
    /// faults to come are forgotten.
    pub fn crash(&self, loss: Loss) {
        let mut state = self.0.lock();
        let State { contents, random, .. } = &mut *state;
        let after = contents.after(loss, GRAIN_BYTES, random);
        state.begin(after);
    }

    /// Puts a backup in place of everything; every open file is dead.
    pub fn restore(&self, backup: &Backup) {
        self.0.lock().begin(Contents::of(backup.0.clone()));
    }

    /// Another disk in the same state, pending changes included, to crash in another way.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        Self::with(self.0.lock().contents.clone(), seed)
    }

    /// The files as a read sees them.
    pub fn backup(&self) -> Backup {
        let state = self.0.lock();
        Backup(state.contents.all().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect())
    }

    /// The power goes; it comes back with [`Disk::crash`].
    pub fn power_off(&self) {
        self.0.lock().off = true;
    }

    /// Plans a fault.
    pub fn fail(&self, moment: Moment, fault: Fault) {
        self.0.lock().planned.push((moment, fault));
    }

    /// Forgets faults to come and counts from 1 again.
    pub fn reset_counters(&self) {
        let mut state = self.0.lock();
        (state.calls, state.changes, state.syncs) = (0, 0, 0);
        state.planned.clear();
    }

    /// Bounds the size of all files together; writes beyond it find no space.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Makes syncs succeed and do nothing, as `synchronous=OFF` would: what is checked on this disk must fail.
    pub fn lie(&self) {
        self.0.lock().lies = true;
    }

    /// Keeps the state before each sync from now on.
    pub fn record(&self) {
        self.0.lock().recorded = Some(Vec::new());
    }

    /// The states before each sync since the last call, each as a disk to crash.
    pub fn take_recorded(&self) -> Vec<Self> {
        let recorded = self.0.lock().recorded.as_mut().map(std::mem::take).unwrap_or_default();
        recorded.into_iter().zip(1..).map(|(contents, seed)| Self::with(contents, seed)).collect()
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// Calls so far that change something.
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The size of each file, by name.
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.0.lock();
        state.contents.all().map(|(name, bytes)| (name.to_owned(), bytes.len() as u64)).collect()
    }

    /// The content of a file.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state.contents.named(name).map(|inode| state.contents.seen(inode).to_vec())
    }

    /// Flips one bit of a file; whether there is such a file. Beyond its end nothing happens.
    pub fn flip(&self, name: &str, bit: usize) -> bool {
        let mut state = self.0.lock();
        let Some(inode) = state.contents.named(name) else { return false };
        state.contents.flip(inode, bit);
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&DISKS).remove(&self.number);
    }
}

/// Takes a lock; a panic elsewhere leaves nothing half-done under it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a call is, for counting it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Change,
    Sync,
}

/// Why a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Io,
    Full,
}

impl State {
    /// A new life: power is on, nothing is open.
    fn begin(&mut self, contents: Contents) {
        self.contents = contents;
        self.generation += 1;
        self.off = false;
        self.planned.clear();
        self.locks.clear();
        self.indexes.clear();
    }

    /// Counts a call and says whether it may happen.
    fn admit(&mut self, call: Call, generation: u64) -> Result<(), Failure> {
        if self.off || generation != self.generation {
            return Err(Failure::Io);
        }
        self.calls += 1;
        self.changes += u64::from(call != Call::Read);
        self.syncs += u64::from(call == Call::Sync);
        let now = |moment: &Moment| match *moment {
            Moment::Call(at) => at == self.calls,
            Moment::Change(at) => at == self.changes && call != Call::Read,
            Moment::Sync(at) => at == self.syncs && call == Call::Sync,
        };
        let Some(at) = self.planned.iter().position(|(moment, _)| now(moment)) else { return Ok(()) };
        match self.planned.remove(at).1 {
            Fault::Io => Err(Failure::Io),
            Fault::Full if call == Call::Read => Ok(()),
            Fault::Full => Err(Failure::Full),
            Fault::PowerOff => {
                self.off = true;
                Err(Failure::Io)
            }
        }
    }

    /// Whether a file may have this length.
    fn has_room(&self, inode: Inode, length: usize) -> bool {
        let now = self.contents.seen(inode).len();
        let total: usize = self.contents.all().map(|(_, bytes)| bytes.len()).sum();
        length <= now || self.capacity.is_none_or(|capacity| (total - now + length) as u64 <= capacity)
    }
}

#[cfg(test)]
mod tests;
