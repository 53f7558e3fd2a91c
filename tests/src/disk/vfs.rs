//! The shim between SQLite's C interface and [`Handle`]: pointers in, result codes out, and no decision.
//!
//! **Invariant:** a `sqlite3_file` that was opened holds a boxed [`Handle`], from `open` until `close` and no longer;
//! SQLite calls the methods of one file from one thread at a time. Both are in the contract of `sqlite3_vfs`.
#![allow(unsafe_code, reason = "SQLite takes its file system as C functions, and no safe crate wraps shared memory")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicI64, Ordering, fence};
use std::time::Duration;

use rusqlite::ffi;

use super::handle::Handle;
use super::locks::Level;

/// The name under which SQLite knows all disks.
pub const VFS: &str = "driftlog-test-disk";
const NAME: &CStr = c"driftlog-test-disk";

/// Longest path.
const PATH_BYTES: c_int = 512;
/// As the system's own files say: of Linux, and of most disks.
const SECTOR_BYTES: c_int = 4096;
/// Milliseconds of SQLite's Julian days at the beginning of 2026; each look at the clock adds one.
static CLOCK_MS: AtomicI64 = AtomicI64::new(212_634_072_000_000);

#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes the VFS known to SQLite, once in a process.
pub(super) fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<File>() as c_int,
            mxPathname: PATH_BYTES,
            pNext: std::ptr::null_mut(),
            zName: NAME.as_ptr(),
            pAppData: std::ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: None,
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the structure is complete, lives for ever and is not touched again from here.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite takes the VFS");
    });
}

/// The path that SQLite hands over.
///
/// # Safety
/// `path` is null or a string that ends with a zero byte and outlives the call.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller answers for the rest.
    unsafe { CStr::from_ptr(path) }.to_str().ok()
}

/// The handle in a file.
///
/// # Safety
/// `file` was opened by [`open`], is not closed, and no other thread uses it meanwhile.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: the module's invariant: the box is there, and nobody else refers to it now.
    unsafe { &mut *(*file.cast::<File>()).handle }
}

fn level(code: c_int) -> Level {
    match code {
        ffi::SQLITE_LOCK_NONE => Level::None,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives room for `szOsFile` bytes; without methods it will not close what was not opened.
    unsafe { (*file).pMethods = std::ptr::null() };
    // SAFETY: SQLite gives a string or null. Null asks for a temporary file: `temp_store` is memory, so none is asked.
    let Some(path) = (unsafe { text(path) }) else { return ffi::SQLITE_CANTOPEN };
    match Handle::open(path, flags) {
        Ok(handle) => {
            let opened =
                File { base: ffi::sqlite3_file { pMethods: &METHODS }, handle: Box::into_raw(Box::new(handle)) };
            // SAFETY: room for `szOsFile` bytes, aligned for pointers.
            unsafe { file.cast::<File>().write(opened) };
            if !flags_out.is_null() {
                // SAFETY: not null, so SQLite wants the answer there.
                unsafe { *flags_out = flags };
            }
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite gives a string.
    let path = unsafe { text(path) };
    path.map_or(ffi::SQLITE_IOERR_DELETE, |path| Handle::delete(path, sync_folder != 0))
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, path: *const c_char, _: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a string.
    match unsafe { text(path) }.map_or(Err(ffi::SQLITE_IOERR_ACCESS), Handle::exists) {
        Ok(exists) => {
            // SAFETY: SQLite gives room for the answer.
            unsafe { *out = c_int::from(exists) };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

/// Paths are full already.
unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a string that ends with a zero byte.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if path.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has room for `room` bytes, and the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(path.as_ptr().cast(), out, path.len()) };
    ffi::SQLITE_OK
}

/// Asked only of a process's default VFS, which this one is not; the same bytes each time if it ever is.
unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite gives room for `count` bytes.
    unsafe { std::ptr::write_bytes(out, 7, count as usize) };
    count
}

/// Really sleeps: who waits, waits for a lock of another thread.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(Duration::from_micros(microseconds as u64));
    microseconds
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite gives room for the answer.
    unsafe { *out = CLOCK_MS.fetch_add(1, Ordering::Relaxed) as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite gives room for the answer.
    unsafe { *out = CLOCK_MS.fetch_add(1, Ordering::Relaxed) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the box that `open` made; SQLite does not use the file after this.
    drop(unsafe { Box::from_raw((*file.cast::<File>()).handle) });
    // SAFETY: the file's own memory is still SQLite's.
    unsafe { (*file).pMethods = std::ptr::null() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, out: *mut c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives room for `count` bytes; they are written once before they are lent as a slice.
    let out = unsafe {
        std::ptr::write_bytes(out.cast::<u8>(), 0, count as usize);
        std::slice::from_raw_parts_mut(out.cast::<u8>(), count as usize)
    };
    // SAFETY: an open file.
    unsafe { handle(file) }.read(out, at as usize)
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, bytes: *const c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: SQLite gives `count` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count as usize) };
    // SAFETY: an open file.
    unsafe { handle(file) }.write(bytes, at as usize)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: an open file.
    unsafe { handle(file) }.resize(length as usize)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle(file) }.sync()
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: an open file.
    match unsafe { handle(file) }.size() {
        Ok(size) => {
            // SAFETY: SQLite gives room for the answer.
            unsafe { *out = size as i64 };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle(file) }.lock(level(to))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle(file) }.unlock(level(to))
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file, and room for the answer.
    unsafe { *out = c_int::from(handle(file).is_reserved()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

/// What SQLite takes for granted of the system's files: a write never changes bytes beside it.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    match unsafe { handle(file) }.map_index(region as usize, bytes as usize, make != 0) {
        Ok(found) => {
            // SAFETY: room for the answer. The region is atomics, so others may write to it too; it lives as long as
            // some handle has it mapped.
            unsafe { *out = found.map_or(std::ptr::null_mut(), |region| region.cast_mut().cast()) };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle(file) }.lock_index(first as usize, count as usize, flags)
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle(file) }.unmap_index();
    ffi::SQLITE_OK
}
