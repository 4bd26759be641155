//! The VFS: the system's own, with each call that matters told to its [`Disk`] first.
//! Shapes are those of <https://sqlite.org/vfs.html>.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    mem::size_of,
    path::Path,
    ptr, slice,
    sync::{Arc, Once},
};

use rusqlite::ffi;

use crate::{
    disk::{Disk, Kind},
    log::Op,
};

/// The name it is registered under.
pub(crate) const NAME: &CStr = c"whimbrel-crash";

/// Makes it known to SQLite, once.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    // SAFETY: the structure is a copy of a valid one with our functions in it, and lives for ever.
    ONCE.call_once(|| unsafe {
        let system = ffi::sqlite3_vfs_find(ptr::null());
        let mut ours = *system;
        // 2: without the system calls of version 3, which nobody asks for.
        ours.iVersion = 2;
        ours.pNext = ptr::null_mut();
        ours.zName = NAME.as_ptr();
        ours.pAppData = system.cast();
        ours.szOsFile = size_of::<File>() as c_int + (*system).szOsFile;
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        ours.xAccess = Some(access);
        ours.xFullPathname = Some(full_pathname);
        ours.xDlOpen = None;
        ours.xDlError = None;
        ours.xDlSym = None;
        ours.xDlClose = None;
        ours.xRandomness = Some(randomness);
        ours.xSleep = Some(sleep);
        ours.xCurrentTime = Some(current_time);
        ours.xGetLastError = Some(last_error);
        ours.xCurrentTimeInt64 = Some(current_time_int64);
        let code = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 0);
        assert_eq!(code, ffi::SQLITE_OK, "the VFS could not be registered");
    });
}

/// Makes it the one that is taken where none is named. [`register`] was called.
pub(crate) fn make_default() {
    // SAFETY: what `register` registered lives for ever; registering it again only moves it to the front.
    unsafe {
        let ours = ffi::sqlite3_vfs_find(NAME.as_ptr());
        assert!(!ours.is_null(), "the VFS is registered");
        assert_eq!(ffi::sqlite3_vfs_register(ours, 1), ffi::SQLITE_OK, "the VFS could not be made the default");
    }
}

/// A file of ours; the system's own follows in the same memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// Null for files that belong to no disk: temporary ones.
    watched: *mut Watched,
}

struct Watched {
    disk: Arc<Disk>,
    name: Arc<str>,
    kind: c_int,
    /// The first sync of a new journal syncs its folder too (`unixOpen` in SQLite's `os_unix.c`).
    folder_is_due: bool,
}

/// # Safety
/// `file` was opened by [`open`].
unsafe fn system_file(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: SQLite gave `szOsFile` bytes: ours, then the system's.
    unsafe { file.cast::<u8>().add(size_of::<File>()).cast() }
}

/// # Safety
/// As [`system_file`]. No two of these live at once: SQLite calls a file's methods one after the other.
unsafe fn watched<'f>(file: *mut ffi::sqlite3_file) -> Option<&'f mut Watched> {
    // SAFETY: set by `open`, cleared by `close`.
    unsafe { (*file.cast::<File>()).watched.as_mut() }
}

/// Calls the system's method of the same name.
macro_rules! pass_on {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: `open` lets a file live only when the system opened its own, with all methods of version 2.
        unsafe {
            let file = system_file($file);
            (*(*file).pMethods).$method.expect("the system's VFS has every method of version 2")(file $(, $argument)*)
        }
    }};
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // 2: no memory mapping, which would write past us.
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

type FilePtr = *mut ffi::sqlite3_file;

unsafe extern "C" fn close(file: FilePtr) -> c_int {
    let code = pass_on!(file, xClose);
    // SAFETY: made by `open`; SQLite closes a file once.
    unsafe {
        let watched = std::mem::replace(&mut (*file.cast::<File>()).watched, ptr::null_mut());
        if !watched.is_null() {
            drop(Box::from_raw(watched));
        }
    }
    code
}

unsafe extern "C" fn read(file: FilePtr, into: *mut c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: `file` is ours.
    if let Some(code) = unsafe { watched(file) }.and_then(|w| w.disk.strikes(Kind::Read)) {
        return code;
    }
    pass_on!(file, xRead, into, amount, offset)
}

unsafe extern "C" fn write(file: FilePtr, from: *const c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: `file` is ours.
    let Some(watched) = (unsafe { watched(file) }) else { return pass_on!(file, xWrite, from, amount, offset) };
    let struck = watched.disk.strikes(Kind::Write);
    let out = match struck {
        None => amount,
        Some(_) if watched.disk.is_full() => amount / 2,
        Some(_) => 0,
    };
    if out > 0 {
        let code = pass_on!(file, xWrite, from, out, offset);
        if code != ffi::SQLITE_OK {
            return code;
        }
        // SAFETY: SQLite gives `amount` bytes, and `out` is not more.
        let bytes = unsafe { slice::from_raw_parts(from.cast::<u8>(), out as usize) }.to_vec();
        watched.disk.note(Op::Write { file: watched.name.clone(), offset: offset as usize, bytes });
    }
    struck.unwrap_or(ffi::SQLITE_OK)
}

unsafe extern "C" fn truncate(file: FilePtr, size: i64) -> c_int {
    // SAFETY: `file` is ours.
    let Some(watched) = (unsafe { watched(file) }) else { return pass_on!(file, xTruncate, size) };
    if let Some(code) = watched.disk.strikes(Kind::Truncate) {
        return code;
    }
    let code = pass_on!(file, xTruncate, size);
    if code == ffi::SQLITE_OK {
        watched.disk.note(Op::Truncate { file: watched.name.clone(), size: size as usize });
    }
    code
}

unsafe extern "C" fn sync(file: FilePtr, flags: c_int) -> c_int {
    // SAFETY: `file` is ours.
    let Some(watched) = (unsafe { watched(file) }) else { return pass_on!(file, xSync, flags) };
    if let Some(code) = watched.disk.strikes(Kind::Sync) {
        return code;
    }
    let code = pass_on!(file, xSync, flags);
    if code == ffi::SQLITE_OK {
        watched.disk.note(Op::Sync { file: watched.name.clone() });
        if std::mem::take(&mut watched.folder_is_due) {
            watched.disk.note(Op::SyncFolder);
        }
    }
    code
}

unsafe extern "C" fn file_control(file: FilePtr, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: `file` is ours.
    if let Some(watched) = unsafe { watched(file) }
        && operation == ffi::SQLITE_FCNTL_COMMIT_PHASETWO
        && watched.kind & ffi::SQLITE_OPEN_MAIN_DB != 0
    {
        watched.disk.note(Op::Commit);
    }
    pass_on!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn shm_map(file: FilePtr, region: c_int, size: c_int, extend: c_int, at: *mut *mut c_void) -> c_int {
    if extend != 0 {
        // SAFETY: `file` is ours.
        if let Some(code) = unsafe { watched(file) }.and_then(|w| w.disk.strikes(Kind::Grow)) {
            // SAFETY: SQLite's own VFS leaves null here when it fails.
            unsafe { *at = ptr::null_mut() };
            return code;
        }
    }
    pass_on!(file, xShmMap, region, size, extend, at)
}

unsafe extern "C" fn file_size(file: FilePtr, size: *mut i64) -> c_int {
    pass_on!(file, xFileSize, size)
}
unsafe extern "C" fn lock(file: FilePtr, level: c_int) -> c_int {
    pass_on!(file, xLock, level)
}
unsafe extern "C" fn unlock(file: FilePtr, level: c_int) -> c_int {
    pass_on!(file, xUnlock, level)
}
unsafe extern "C" fn check_reserved_lock(file: FilePtr, held: *mut c_int) -> c_int {
    pass_on!(file, xCheckReservedLock, held)
}
unsafe extern "C" fn sector_size(file: FilePtr) -> c_int {
    pass_on!(file, xSectorSize)
}
// As the system says it: a promise that SQLite believes at our users' is believed here.
unsafe extern "C" fn device_characteristics(file: FilePtr) -> c_int {
    pass_on!(file, xDeviceCharacteristics)
}
unsafe extern "C" fn shm_lock(file: FilePtr, offset: c_int, amount: c_int, flags: c_int) -> c_int {
    pass_on!(file, xShmLock, offset, amount, flags)
}
unsafe extern "C" fn shm_barrier(file: FilePtr) {
    pass_on!(file, xShmBarrier);
}
unsafe extern "C" fn shm_unmap(file: FilePtr, delete: c_int) -> c_int {
    pass_on!(file, xShmUnmap, delete)
}

type VfsPtr = *mut ffi::sqlite3_vfs;

/// # Safety
/// `vfs` is the one that [`register`] made.
unsafe fn system(vfs: VfsPtr) -> VfsPtr {
    // SAFETY: set by `register`.
    unsafe { (*vfs).pAppData.cast() }
}

/// Calls the system's function of the same name.
macro_rules! ask_system {
    ($vfs:expr, $function:ident $(, $argument:expr)*) => {{
        // SAFETY: `register` kept the system's VFS, which has every function of version 2.
        unsafe {
            let system = system($vfs);
            (*system).$function.expect("the system's VFS has every function of version 2")(system $(, $argument)*)
        }
    }};
}

/// What is watched: a temporary file is gone after a crash anyway.
const WATCHED: c_int = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;

unsafe extern "C" fn open(vfs: VfsPtr, name: ffi::sqlite3_filename, file: FilePtr, flags: c_int, out_flags: *mut c_int) -> c_int {
    let ours = file.cast::<File>();
    // SAFETY: SQLite gives `szOsFile` bytes. Without methods it does not close the file.
    unsafe {
        (*ours).base.pMethods = ptr::null();
        (*ours).watched = ptr::null_mut();
        (*system_file(file)).pMethods = ptr::null();
    }
    // SAFETY: a name is null or ends in NUL.
    let path = (!name.is_null() && flags & WATCHED != 0).then(|| unsafe { to_path(name) });
    let disk = path.and_then(Disk::of);
    let new = path.is_some_and(|p| !p.exists());
    if let Some(code) = disk.as_ref().filter(|_| new && flags & ffi::SQLITE_OPEN_CREATE != 0).and_then(|d| d.strikes(Kind::Create)) {
        return code;
    }
    let code = ask_system!(vfs, xOpen, name, system_file(file), flags, out_flags);
    // SAFETY: the system sets its methods when there is something to close.
    unsafe {
        if !(*system_file(file)).pMethods.is_null() {
            (*ours).base.pMethods = &raw const METHODS;
        }
    }
    if let (ffi::SQLITE_OK, Some(path), Some(disk)) = (code, path, disk) {
        let name: Arc<str> = path.file_name().expect("a database has a name").to_string_lossy().into();
        if new {
            disk.note(Op::Create { file: name.clone() });
        }
        let folder_is_due = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & ffi::SQLITE_OPEN_MAIN_DB == 0;
        // SAFETY: `file` is ours; `close` takes it back.
        unsafe { (*ours).watched = Box::into_raw(Box::new(Watched { disk, name, kind: flags, folder_is_due })) };
    }
    code
}

unsafe extern "C" fn delete(vfs: VfsPtr, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: a name ends in NUL.
    let path = unsafe { to_path(name) };
    let disk = Disk::of(path);
    if let Some(code) = disk.as_ref().and_then(|d| d.strikes(Kind::Delete)) {
        return code;
    }
    let code = ask_system!(vfs, xDelete, name, sync_folder);
    if let (ffi::SQLITE_OK, Some(disk)) = (code, disk) {
        disk.note(Op::Delete { file: path.file_name().expect("a database has a name").to_string_lossy().into() });
        if sync_folder != 0 {
            disk.note(Op::SyncFolder);
        }
    }
    code
}

/// # Safety
/// `name` ends in NUL and outlives the call that it was given to.
unsafe fn to_path<'n>(name: *const c_char) -> &'n Path {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    // SAFETY: as the caller promises.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

unsafe extern "C" fn access(vfs: VfsPtr, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    ask_system!(vfs, xAccess, name, flags, out)
}
unsafe extern "C" fn full_pathname(vfs: VfsPtr, name: *const c_char, length: c_int, out: *mut c_char) -> c_int {
    ask_system!(vfs, xFullPathname, name, length, out)
}
unsafe extern "C" fn randomness(vfs: VfsPtr, length: c_int, out: *mut c_char) -> c_int {
    ask_system!(vfs, xRandomness, length, out)
}
unsafe extern "C" fn sleep(vfs: VfsPtr, microseconds: c_int) -> c_int {
    ask_system!(vfs, xSleep, microseconds)
}
unsafe extern "C" fn current_time(vfs: VfsPtr, out: *mut f64) -> c_int {
    ask_system!(vfs, xCurrentTime, out)
}
unsafe extern "C" fn current_time_int64(vfs: VfsPtr, out: *mut i64) -> c_int {
    ask_system!(vfs, xCurrentTimeInt64, out)
}
unsafe extern "C" fn last_error(vfs: VfsPtr, length: c_int, out: *mut c_char) -> c_int {
    ask_system!(vfs, xGetLastError, length, out)
}
