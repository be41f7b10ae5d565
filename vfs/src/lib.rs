//! The SQLite VFS `interleaf`: SQLite's pages in a store that many processes share.
//!
//! ```text
//! ffi (SQLite's C interface)  ->  conn (connections, in safe Rust)  ->  Backend
//! ```
//!
//! Three ways to register it with a copy of SQLite: [`register`] from a Rust program,
//! [`load_extension`] from a loadable extension, [`register_resolved`] where functions are
//! found by name.

pub mod config;
pub mod names;

mod code;
mod conn;
mod connect;
mod ffi;
mod glob;
mod log;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

use interleaf_store::Result;

#[doc(hidden)]
pub use ffi::Addresses;
pub use ffi::{ApiPointers, DEFAULT_VFS_NAME, MIN_VERSION, VFS_NAME};

use crate::config::Config;

/// Registers the VFS `interleaf` with the copy of SQLite that `pointers` are of, and with
/// [`Config::default_vfs`] as its default VFS too. A copy that has it keeps it as it is.
///
/// ```ignore
/// let config = interleaf_vfs::config::Config::from_env()?;
/// interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config)?;
/// let db = rusqlite::Connection::open("file:app?vfs=interleaf")?;
/// ```
///
/// # Errors
/// `Unsupported` for a SQLite older than [`MIN_VERSION`], or one that refuses.
pub fn register(pointers: ApiPointers, config: &Config) -> Result<()> {
    ffi::register(ffi::Api::from_pointers(pointers)?, config, connect::connect)
}

/// As [`register`], with the functions that `resolve` finds by name, as dlsym does.
///
/// # Errors
/// As [`register`].
///
/// # Safety
/// As [`ApiPointers::new`], of the addresses that `resolve` gives.
#[allow(unsafe_code, reason = "the caller vouches for function pointers")]
pub unsafe fn register_resolved(
    resolve: impl FnMut(&CStr) -> Option<NonNull<c_void>>,
    config: &Config,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let api = unsafe { ffi::Api::from_resolver(resolve) }?;
    ffi::register(api, config, connect::connect)
}

/// What a loadable extension's entry point does: registers the VFS as the environment says.
/// Answers `SQLITE_OK_LOAD_PERMANENTLY`, or `SQLITE_ERROR` with a message.
///
/// # Safety
/// The arguments are those that SQLite gave to the entry point.
#[allow(unsafe_code, reason = "the arguments are SQLite's")]
pub unsafe fn load_extension(
    db: *mut c_void,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ffi::load_extension(db, message, routines, connect::connect) }
}

/// Whether the SQLite connection at that address has a database in Interleaf.
#[must_use]
pub fn uses_interleaf(connection: *mut c_void) -> bool {
    conn::Session::existing(connection as usize).is_some()
}

/// Counts a transaction that was run again for the application, in the statistics of the
/// SQLite connection at that address.
pub fn count_retry(connection: *mut c_void) {
    if let Some(session) = conn::Session::existing(connection as usize) {
        session.files_to_close().stats.retries += 1;
    }
}
