//! Interleaf as a loadable extension of SQLite: `.load libinterleaf`, `load_extension(...)`,
//! `sqlite3_load_extension`.
//!
//! SQLite looks for `sqlite3_extension_init` first and then, by its default rule, for
//! `sqlite3_` + the letters of the file's name behind `lib` + `_init`: from libinterleaf.so
//! that is [`sqlite3_interleaf_init`], this library's only symbol. A general
//! `sqlite3_extension_init` is absent on purpose: it would bind by a name that every
//! extension may have.
//!
//! Everything comes from the table of functions that SQLite hands over, so that it is the
//! copy of SQLite that loads the extension which gets the VFS, be it the system's library or
//! one linked into the program. The extension stays loaded for the life of the process.
#![allow(unsafe_code, reason = "SQLite's entry point; all else is in interleaf-vfs")]

use std::ffi::{c_char, c_int, c_void};

/// The entry point: registers the VFS `interleaf`, and as the default VFS too where
/// `INTERLEAF_DEFAULT_VFS=1` says so. Answers SQLITE_OK_LOAD_PERMANENTLY, or SQLITE_ERROR
/// with a message.
///
/// # Safety
/// Called by SQLite, with the connection that loads it, a place for a message and SQLite's
/// table of functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_interleaf_init(
    db: *mut c_void,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: the arguments as SQLite gave them.
    unsafe { interleaf_vfs::load_extension(db, message, routines) }
}
