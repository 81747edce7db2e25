//! vfs: SQLite's calls on files, shown to the model of a disk on their way to the kernel.
//!
//! A shim over SQLite's own VFS for Unix: files, locks and the shared index of the file for writing ahead
//! are the real ones, in a real directory, so that the store's own looks at the files see what SQLite
//! sees. The real files play the kernel's cache; what of it the disk has is kept by [`Disk`], which also
//! says which call fails. Files outside the directory of a [`Disk`] are passed by.
//!
//! This is the named exception to `unsafe_code`: SQLite calls back through function pointers. A file is
//! opened by the Unix VFS in place and only its table of methods is exchanged, so nothing is laid out
//! here and every call goes on to the same file with the arguments it came with. (The crate
//! `sqlite-plugin` would bring a safe trait, and have us write locks and shared memory anew.)

#![allow(
    unsafe_code,
    reason = "SQLite calls its VFS through function pointers; this is the one shim over it"
)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_OK, SQLITE_OPEN_CREATE, SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL, sqlite3_file,
    sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::disk::{Call, Disk, Verdict};

/// The name it is registered by.
pub(crate) const NAME: &str = "faulty";
const C_NAME: &CStr = c"faulty";

/// The Unix VFS, which lives as long as the process.
struct Base(*mut sqlite3_vfs);

// SAFETY: SQLite's own threads share it in the same way; it is never written after it is registered.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

static BASE: OnceLock<Base> = OnceLock::new();
/// The tables of methods of the Unix VFS's files, and the same with ours in front. It has a table for
/// files with locks and one for files without.
static METHODS: Mutex<Vec<Methods>> = Mutex::new(Vec::new());
/// Whose file stands at an address.
static FILES: LazyLock<Mutex<HashMap<usize, Handle>>> = LazyLock::new(Mutex::default);

#[derive(Clone, Copy)]
struct Methods {
    theirs: &'static sqlite3_io_methods,
    ours: &'static sqlite3_io_methods,
}

/// An open file of a disk.
#[derive(Clone)]
struct Handle {
    base: &'static sqlite3_io_methods,
    disk: Arc<Disk>,
    name: Arc<str>,
    /// Failed flushes this descriptor was told of.
    told: Arc<AtomicU64>,
    /// SQLite flushes the directory with the first flush of such a file.
    flushes_names: bool,
}

fn files() -> MutexGuard<'static, HashMap<usize, Handle>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handle(file: *mut sqlite3_file) -> Handle {
    files().get(&(file as usize)).cloned().expect("only files of a disk have these methods")
}

/// The table that stands for one of the Unix VFS.
fn methods_over(theirs: &'static sqlite3_io_methods) -> Methods {
    let mut known = METHODS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(methods) = known.iter().find(|methods| std::ptr::eq(methods.theirs, theirs)) {
        return *methods;
    }
    let methods = Methods { theirs, ours: Box::leak(Box::new(with_ours(theirs))) };
    known.push(methods);
    methods
}

/// Registers it, once.
pub(crate) fn register() {
    BASE.get_or_init(|| {
        // SAFETY: the name ends in a zero; SQLite initialises itself and answers with a VFS of its own.
        let base = unsafe { sqlite3_vfs_find(c"unix".as_ptr()) };
        assert!(!base.is_null(), "SQLite has its VFS for Unix");
        // SAFETY: it is not null and stays for as long as the process; the structure is plain data.
        let mut ours = unsafe { *base };
        ours.pNext = std::ptr::null_mut();
        ours.zName = C_NAME.as_ptr();
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        // SAFETY: SQLite keeps the pointer for as long as the process, and so is it leaked.
        let registered = unsafe { sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 0) };
        assert_eq!(registered, SQLITE_OK);
        Base(base)
    });
}

/// The disk and the name of a file; `None` for a temporary file and for one of no disk.
fn of_disk(name: *const c_char) -> Option<(Arc<Disk>, Arc<str>)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite passes a string that ends in a zero and outlives the call.
    let path = Path::new(unsafe { CStr::from_ptr(name) }.to_str().ok()?);
    let disk = Disk::of(path.parent()?)?;
    Some((disk, Arc::from(path.file_name()?.to_str()?)))
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let base = BASE.get().expect("it is registered").0;
    let ours = of_disk(name);
    if let Some((disk, _)) = &ours
        && let Verdict::Fail(code) = disk.asks(Call::Open)
    {
        // SAFETY: `file` is ours to fill; without methods SQLite does not close it.
        unsafe { (*file).pMethods = std::ptr::null() };
        return code;
    }
    // SAFETY: the arguments are those SQLite gave, for a file of the same size.
    let opened = unsafe { (*base).xOpen.expect("it opens")(base, name, file, flags, out) };
    if let (SQLITE_OK, Some((disk, name))) = (opened, ours) {
        // SAFETY: an opened file has methods, and those of the Unix VFS are constants.
        let theirs: &'static sqlite3_io_methods = unsafe { &*(*file).pMethods };
        let methods = methods_over(theirs);
        let told = Arc::new(AtomicU64::new(disk.opened(&name)));
        let made = flags & SQLITE_OPEN_CREATE != 0;
        let flushes_names = made && flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL) != 0;
        files().insert(file as usize, Handle { base: theirs, disk, name, told, flushes_names });
        // SAFETY: the methods live as long as the process.
        unsafe { (*file).pMethods = methods.ours };
    }
    opened
}

fn with_ours(theirs: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        // Version 3 would let SQLite map the file and read past us.
        iVersion: 2,
        xClose: Some(close),
        xRead: Some(read),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xShmMap: Some(map_index),
        ..*theirs
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync_names: c_int) -> c_int {
    let base = BASE.get().expect("it is registered").0;
    let ours = of_disk(name);
    if let Some((disk, _)) = &ours
        && let Verdict::Fail(code) = disk.asks(Call::Delete)
    {
        return code;
    }
    // SAFETY: the arguments are those SQLite gave. We flush nothing for real.
    let deleted = unsafe { (*base).xDelete.expect("it deletes")(base, name, 0) };
    if let (SQLITE_OK, Some((disk, name))) = (deleted, ours) {
        disk.deleted(&name, sync_names != 0);
    }
    deleted
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let closed = files().remove(&(file as usize)).expect("it is open");
    // SAFETY: the file SQLite gave was opened by the Unix VFS with these methods; so it is below.
    unsafe { closed.base.xClose.expect("it closes")(file) }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    to: *mut c_void,
    bytes: c_int,
    at: sqlite3_int64,
) -> c_int {
    let Handle { base, disk, .. } = handle(file);
    let verdict = disk.asks_for(Call::Read, usize::try_from(at).unwrap_or(0), bytes as usize);
    if let Verdict::Fail(code) = verdict {
        return code;
    }
    // SAFETY: as in `close`; the buffer is SQLite's.
    let done = unsafe { base.xRead.expect("it reads")(file, to, bytes, at) };
    // What came before the failure stands in the buffer.
    if let Verdict::Part(_, code) = verdict { code } else { done }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    at: sqlite3_int64,
) -> c_int {
    let Handle { base, disk, name, .. } = handle(file);
    let (part, said) = match disk.asks_for(Call::Write, usize::try_from(at).unwrap_or(0), bytes as usize) {
        Verdict::Fail(code) => return failed(code, if code == SQLITE_FULL { ENOSPC } else { EIO }),
        Verdict::Quota(code) => return failed(code, EDQUOT),
        Verdict::Part(part, code) => (part, Some(code)),
        Verdict::Pass => (bytes as usize, None),
    };
    // SAFETY: as in `close`; `part` is at most `bytes`.
    let done =
        unsafe { base.xWrite.expect("it writes")(file, from, c_int::try_from(part).unwrap_or(bytes), at) };
    if done == SQLITE_OK {
        // SAFETY: the buffer has at least `part` bytes and nobody writes to it meanwhile.
        let written = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), part) };
        disk.wrote(&name, usize::try_from(at).unwrap_or(0), written);
    }
    said.map_or(done, |code| failed(code, if code == SQLITE_FULL { ENOSPC } else { EIO }))
}

unsafe extern "C" {
    /// Where the C library keeps the thread's `errno`.
    fn __errno_location() -> *mut c_int;
}

const EIO: c_int = 5;
const ENOSPC: c_int = 28;
const EDQUOT: c_int = 122;

/// What is done here between two calls of the kernel's leaves `errno` as it is: waiting for a lock that
/// another thread holds sets it, and SQLite reads why a write failed out of it later.
pub(crate) fn keeping_errno<T>(deed: impl FnOnce() -> T) -> T {
    // SAFETY: as in `failed`.
    let before = unsafe { *__errno_location() };
    let done = deed();
    // SAFETY: as in `failed`.
    unsafe { *__errno_location() = before };
    done
}

/// A write that fails leaves its reason behind, as the kernel's would.
fn failed(code: c_int, errno: c_int) -> c_int {
    // SAFETY: the C library answers with this thread's own.
    unsafe { *__errno_location() = errno };
    code
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, bytes: sqlite3_int64) -> c_int {
    let Handle { base, disk, name, .. } = handle(file);
    if let Verdict::Fail(code) = disk.asks(Call::Truncate) {
        return code;
    }
    // SAFETY: as in `close`.
    let done = unsafe { base.xTruncate.expect("it cuts")(file, bytes) };
    if done == SQLITE_OK {
        disk.cut(&name, usize::try_from(bytes).unwrap_or(0));
    }
    done
}

/// Nothing is flushed for real: what the disk has is the model's to say.
unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    let Handle { disk, name, told, flushes_names, .. } = handle(file);
    disk.flushed(&name, flushes_names, &told)
}

unsafe extern "C" fn map_index(
    file: *mut sqlite3_file,
    part: c_int,
    bytes: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    let Handle { base, disk, .. } = handle(file);
    if let Verdict::Fail(code) = disk.asks(Call::Index) {
        return code;
    }
    // SAFETY: as in `close`.
    unsafe { base.xShmMap.expect("it maps")(file, part, bytes, extend, to) }
}
