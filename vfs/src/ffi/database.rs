//! The methods of `sqlite3_io_methods` for databases.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::abi::{
    FCNTL_COMMIT_PHASETWO, FCNTL_HAS_MOVED, FCNTL_LAST_ERRNO, FCNTL_MMAP_SIZE, FCNTL_PDB,
    FCNTL_POWERSAFE_OVERWRITE, FCNTL_PRAGMA, FCNTL_SIZE_HINT, FCNTL_SYNC, FCNTL_VFSNAME, File,
    IO_VERSION, IOCAP_POWERSAFE_OVERWRITE, IoMethods, LOCK_EXCLUSIVE, LOCK_NONE, LOCK_PENDING,
    LOCK_RESERVED, LOCK_SHARED,
};
use super::registered::Registered;
use crate::code::{Failure, IOERR_SHORT_READ, MISUSE, NOTFOUND, OK, Outcome};
use crate::conn::{DatabaseFile, OpenDatabase};

/// What stands in the memory that SQLite allocates for a file.
#[repr(C)]
pub struct OurFile {
    /// SQLite's part.
    pub file: File,
    /// A boxed [`Database`] or, for journals, what `journal` keeps.
    pub state: *mut c_void,
}

/// An open database.
pub struct Database {
    ours: &'static Registered,
    path: Vec<u8>,
    /// Where SQLite says which connection uses the file: a field of its b-tree (`BtShared.db`),
    /// as the first SQLITE_FCNTL_PDB gave it, which SQLite sends while it opens the file.
    connection: *const *mut c_void,
    /// What `PRAGMA mmap_size` was set to, in bytes.
    mmap_bytes: i64,
    /// The connection's side of it.
    pub file: DatabaseFile,
}

static METHODS: IoMethods = IoMethods {
    version: IO_VERSION,
    close: Some(close),
    read: Some(read),
    write: Some(write),
    truncate: Some(truncate),
    sync: Some(sync),
    file_size: Some(file_size),
    lock: Some(lock),
    unlock: Some(unlock),
    check_reserved_lock: Some(check_reserved_lock),
    file_control: Some(file_control),
    sector_size: Some(sector_size),
    device_characteristics: Some(device_characteristics),
    shm_map: None,
    shm_lock: None,
    shm_barrier: None,
    shm_unmap: None,
    fetch: Some(fetch),
    unfetch: Some(unfetch),
};

/// Opens a database in SQLite's memory for the file; whether it is read-only.
///
/// # Errors
/// As [`DatabaseFile::open`].
///
/// # Safety
/// `file` has room for an [`OurFile`].
pub unsafe fn open(
    ours: &'static Registered,
    path: &[u8],
    wanted: &OpenDatabase,
    file: *mut File,
) -> Outcome<bool> {
    let opened = DatabaseFile::open(wanted, &ours.config, ours.connect)?;
    let read_only = opened.is_read_only();
    ours.opened(path);
    let state = Box::new(Database {
        ours,
        path: path.to_vec(),
        connection: std::ptr::null(),
        mmap_bytes: 0,
        file: opened,
    });
    // SAFETY: the caller's promise.
    unsafe {
        (*file.cast::<OurFile>()).state = Box::into_raw(state).cast();
        (*file).methods = &raw const METHODS;
    }
    Ok(read_only)
}

/// The database behind SQLite's file; `None` where it is no file of ours.
///
/// # Safety
/// `file` is null or an open file, used by one thread at a time as SQLite does.
pub unsafe fn of<'a>(file: *mut File) -> Option<&'a mut Database> {
    // SAFETY: the caller's promise; with our methods the state is a boxed Database until
    // xClose.
    unsafe {
        if file.is_null() || !std::ptr::eq((*file).methods, &raw const METHODS) {
            return None;
        }
        (*file.cast::<OurFile>()).state.cast::<Database>().as_mut()
    }
}

/// Runs a method's body on its database.
///
/// # Safety
/// As [`of`].
unsafe fn with(file: *mut File, body: impl FnOnce(&mut Database) -> Outcome<c_int>) -> c_int {
    // SAFETY: the caller's promise.
    let Some(database) = (unsafe { of(file) }) else { return MISUSE };
    let ours = database.ours;
    ours.guard(|| {
        let outcome = body(database);
        if let Err(failure) = &outcome {
            database.file.note_failure(&failure.text);
        }
        outcome
    })
}

/// An offset in a file, as SQLite gives it.
///
/// # Errors
/// For a negative one, which SQLite never gives.
pub fn offset_of(offset: i64) -> Outcome<u64> {
    u64::try_from(offset).map_err(|_| Failure::broken(format!("offset {offset}")))
}

/// A length, likewise.
///
/// # Errors
/// As [`offset_of`].
pub fn length_of(len: c_int) -> Outcome<usize> {
    usize::try_from(len).map_err(|_| Failure::broken(format!("length {len}")))
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    // SAFETY: SQLite closes a file once.
    let Some(database) = (unsafe { of(file) }) else { return MISUSE };
    let ours = database.ours;
    ours.guard(|| {
        // SAFETY: `open` boxed it; the methods are taken away so that it is freed once.
        let database = unsafe {
            (*file).methods = std::ptr::null();
            Box::from_raw((*file.cast::<OurFile>()).state.cast::<Database>())
        };
        ours.closed(&database.path);
        drop(database);
        Ok(OK)
    })
}

unsafe extern "C" fn read(file: *mut File, out: *mut c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite's contract of xRead: `out` has `len` bytes, which it reads only after
    // they were written here, a short read's included.
    unsafe {
        with(file, |database| {
            let out = std::slice::from_raw_parts_mut(out.cast::<u8>(), length_of(len)?);
            let whole = database.file.read(offset_of(offset)?, out)?;
            Ok(if whole { OK } else { IOERR_SHORT_READ })
        })
    }
}

unsafe extern "C" fn write(file: *mut File, data: *const c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite's contract of xWrite: `data` has `len` bytes.
    unsafe {
        with(file, |database| {
            let data = std::slice::from_raw_parts(data.cast::<u8>(), length_of(len)?);
            database.file.write(offset_of(offset)?, data, database.ours)?;
            Ok(OK)
        })
    }
}

unsafe extern "C" fn truncate(file: *mut File, size: i64) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe {
        with(file, |database| {
            database.file.truncate(offset_of(size)?)?;
            Ok(OK)
        })
    }
}

/// Comes after SQLITE_FCNTL_SYNC, where the commit was: nothing is left to do.
const unsafe extern "C" fn sync(_: *mut File, _: c_int) -> c_int {
    OK
}

unsafe extern "C" fn file_size(file: *mut File, out: *mut i64) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe {
        with(file, |database| {
            *out = i64::try_from(database.file.size()?).unwrap_or(i64::MAX);
            Ok(OK)
        })
    }
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: SQLite's contract; the b-tree and its field `db` live until after xClose
    // (sqlite3BtreeClose closes the pager first), and whoever calls xLock holds their mutex.
    unsafe {
        with(file, |database| {
            match level {
                LOCK_SHARED => {
                    // With cache=shared several connections use one file in turn: whose
                    // transaction begins is known only now.
                    if !database.connection.is_null() {
                        database.file.set_connection(*database.connection as usize)?;
                    }
                    database.file.lock_shared()?;
                }
                LOCK_RESERVED => database.file.lock_for_writing(false)?,
                LOCK_PENDING | LOCK_EXCLUSIVE => database.file.lock_for_writing(true)?,
                _ => return Err(Failure::broken(format!("lock {level}"))),
            }
            Ok(OK)
        })
    }
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe {
        with(file, |database| {
            match level {
                LOCK_NONE => database.file.unlock()?,
                _ => database.file.unlock_to_shared()?,
            }
            Ok(OK)
        })
    }
}

/// Only asked where a journal is there, and none ever is.
pub unsafe extern "C" fn check_reserved_lock(_: *mut File, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe { *out = 0 };
    OK
}

unsafe extern "C" fn file_control(file: *mut File, op: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: SQLite's contract of each code (sqlite3.h): what `arg` points to.
    unsafe {
        with(file, |database| {
            match op {
                FCNTL_PDB => {
                    // The address of a field that holds the connection. Only the first one
                    // is kept: later ones could be an application's own sqlite3_file_control.
                    let field = arg.cast::<*mut c_void>().cast_const();
                    if database.connection.is_null() {
                        database.connection = field;
                    }
                    database.file.set_connection(*field as usize)?;
                }
                FCNTL_SYNC => {
                    let name = arg.cast::<c_char>().cast_const();
                    let name = (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes());
                    let ours = database.ours;
                    database.file.sync_point(name, &|path| ours.is_open(path))?;
                }
                FCNTL_COMMIT_PHASETWO => database.file.phase_two()?,
                FCNTL_PRAGMA => return pragma(database, arg.cast()),
                FCNTL_VFSNAME => *arg.cast::<*mut c_char>() = database.ours.api.text("interleaf"),
                FCNTL_HAS_MOVED | FCNTL_LAST_ERRNO => *arg.cast::<c_int>() = 0,
                FCNTL_POWERSAFE_OVERWRITE => *arg.cast::<c_int>() = 1,
                FCNTL_MMAP_SIZE => {
                    let wanted = std::mem::replace(&mut *arg.cast::<i64>(), database.mmap_bytes);
                    if wanted >= 0 {
                        database.mmap_bytes = wanted;
                    }
                }
                FCNTL_SIZE_HINT => {}
                _ => return Ok(NOTFOUND),
            }
            Ok(OK)
        })
    }
}

/// # Safety
/// `args` are the pragma's: a slot for the answer, the name, the value or null.
unsafe fn pragma(database: &Database, args: *mut *mut c_char) -> Outcome<c_int> {
    // SAFETY: the caller's promise.
    let (name, value) = unsafe {
        let value = *args.add(2);
        let value = (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy());
        (CStr::from_ptr(*args.add(1)).to_string_lossy(), value)
    };
    let Some(outcome) = database.file.pragma(&name, value.as_deref()) else { return Ok(NOTFOUND) };
    let text = match &outcome {
        Ok(text) => text,
        Err(failure) => &failure.text,
    };
    // SAFETY: the caller's promise; SQLite frees it.
    unsafe { *args = database.ours.api.text(text) };
    outcome.map(|_| OK)
}

/// Sets the size of a journal's header to that of a disk's sector.
pub const unsafe extern "C" fn sector_size(_: *mut File) -> c_int {
    512
}

/// Never SAFE_APPEND or SEQUENTIAL: the journal's syncs tell the durability (rule 13).
pub const unsafe extern "C" fn device_characteristics(_: *mut File) -> c_int {
    IOCAP_POWERSAFE_OVERWRITE
}

/// No page is ever mapped: SQLite then reads it (sqlite3.h, xFetch).
unsafe extern "C" fn fetch(_: *mut File, _: i64, _: c_int, out: *mut *mut c_void) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe { *out = std::ptr::null_mut() };
    OK
}

const unsafe extern "C" fn unfetch(_: *mut File, _: i64, _: *mut c_void) -> c_int {
    OK
}
