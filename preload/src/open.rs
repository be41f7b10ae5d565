//! `sqlite3_open` and its two sisters: the Interleaf VFS is there before the first of them
//! reaches SQLite.
#![allow(unsafe_code, reason = "calls SQLite's functions with the caller's own arguments")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use crate::copies::{self, Db, Sqlite};
use crate::host;
use crate::nesting::Outermost;

const SQLITE_ERROR: c_int = 1;
const SQLITE_OPEN_READWRITE: c_int = 0x2;
const SQLITE_OPEN_CREATE: c_int = 0x4;

/// `sqlite3_open`.
///
/// # Safety
/// As for SQLite's; `caller` is the address the call came from.
pub unsafe extern "C-unwind" fn open(
    name: *const c_char,
    out: *mut *mut Db,
    caller: *const c_void,
) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { prepared(caller, out, true, |sqlite| (sqlite.open)(name, out)) }
}

/// `sqlite3_open16`.
///
/// # Safety
/// As for SQLite's; `caller` is the address the call came from.
pub unsafe extern "C-unwind" fn open16(
    name: *const c_void,
    out: *mut *mut Db,
    caller: *const c_void,
) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { prepared(caller, out, true, |sqlite| (sqlite.open16)(name, out)) }
}

/// `sqlite3_open_v2`.
///
/// # Safety
/// As for SQLite's; `caller` is the address the call came from.
pub unsafe extern "C-unwind" fn open_v2(
    name: *const c_char,
    out: *mut *mut Db,
    flags: c_int,
    vfs: *const c_char,
    caller: *const c_void,
) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe {
        prepared(caller, out, vfs.is_null(), |sqlite| (sqlite.open_v2)(name, out, flags, vfs))
    }
}

/// Calls `open` on the caller's copy of SQLite, with our VFS in place. Where that cannot be
/// put in place (a variable that makes no sense, say), an open that leaves the choice of
/// the VFS to SQLite fails: it could be meant for Interleaf, and a file on the local disk
/// in its place would be data lost to everybody else.
///
/// # Safety
/// `out` must be what the caller gave, `open` pass it on.
unsafe fn prepared(
    caller: *const c_void,
    out: *mut *mut Db,
    default_vfs: bool,
    open: impl Fn(&Sqlite) -> c_int,
) -> c_int {
    let Some(sqlite) = host::guarded(None, || copies::of(caller)) else {
        host::complain("no copy of SQLite was found behind a call to sqlite3_open");
        if !out.is_null() {
            // SAFETY: the caller's own pointer, which SQLite too sets in any case.
            unsafe { *out = null_mut() };
        }
        return SQLITE_ERROR;
    };
    let Some(_outermost) = Outermost::enter() else { return open(sqlite) };
    let ready = host::guarded(Err("an internal error".to_owned()), || host::ready(sqlite));
    match ready {
        Err(reason) if default_vfs => {
            host::complain(&reason);
            // SAFETY: as above.
            unsafe { refuse(sqlite, out, &reason) }
        }
        Ok(()) | Err(_) => open(sqlite),
    }
}

/// Fails with a handle whose sqlite3_errmsg says why: SQLite makes one that reads `no such
/// vfs: NAME`, whatever the NAME.
///
/// # Safety
/// `out` must be what the caller gave to an open.
unsafe fn refuse(sqlite: &Sqlite, out: *mut *mut Db, reason: &str) -> c_int {
    let vfs = CString::new(format!("interleaf: {reason}")).unwrap_or_else(|_| c"interleaf".into());
    let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    // SAFETY: the caller's pointer, and texts that outlive the call.
    unsafe { (sqlite.open_v2)(c":memory:".as_ptr(), out, flags, vfs.as_ptr()) }
}
