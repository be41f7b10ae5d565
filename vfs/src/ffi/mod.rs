//! SQLite's C interface: the only unsafe code of this crate.
//!
//! Every callback returns a code, catches panics and names the part of SQLite's contract it
//! relies on. What a callback does is safe Rust, in [`crate::conn`].

#![allow(unsafe_code, reason = "the boundary to SQLite's C interface")]

mod abi;
mod api;
mod database;
mod journal;
mod registered;
mod temp;
mod vfs;

use std::ffi::{CStr, c_char, c_int, c_void};

use interleaf_store::{Error, Result};

pub use self::api::{Addresses, Api, ApiPointers, MIN_VERSION};
use self::registered::Registered;
use crate::code::{ERROR, OK, OK_LOAD_PERMANENTLY};
use crate::config::Config;
use crate::conn::Connect;
use crate::names::{Asked, Names};

/// The VFS's name: `file:NAME?vfs=interleaf`.
pub const VFS_NAME: &CStr = c"interleaf";

/// The name under which it is registered as the default VFS, where names follow paths
/// ([`Asked::ByDefault`]).
pub const DEFAULT_VFS_NAME: &CStr = c"interleaf-default";

/// Registers the VFS with the copy of SQLite that `api` is of: as `interleaf`, and where the
/// configuration says so as the default VFS too. A copy that has it already keeps it.
///
/// # Errors
/// Where SQLite refuses.
pub fn register(api: Api, config: &Config, connect: Connect) -> Result<()> {
    register_as(&api, VFS_NAME, Asked::Explicitly, config, connect)?;
    if config.default_vfs {
        register_as(&api, DEFAULT_VFS_NAME, Asked::ByDefault, config, connect)?;
    }
    Ok(())
}

fn register_as(
    api: &Api,
    name: &'static CStr,
    asked: Asked,
    config: &Config,
    connect: Connect,
) -> Result<()> {
    // SAFETY: sqlite3_vfs_find takes a name or null for the default.
    let (there, base) =
        unsafe { ((api.vfs_find)(name.as_ptr()), (api.vfs_find)(std::ptr::null())) };
    if !there.is_null() {
        return Ok(());
    }
    // SAFETY: null or a registered VFS.
    let Some(base_vfs) = (unsafe { base.as_ref() }) else {
        return Err(Error::Unsupported { what: "a SQLite library without a default VFS".into() });
    };
    let registered = Registered::new(*api, base, Names::new(asked), config.clone(), connect);
    // A registered VFS is never freed: SQLite may use it until the process ends.
    let registered: &'static Registered = Box::leak(Box::new(registered));
    let table = Box::leak(Box::new(vfs::table(name, registered, base_vfs)));
    // SAFETY: the table and what it points to live for ever.
    let code = unsafe { (api.vfs_register)(table, c_int::from(asked == Asked::ByDefault)) };
    if code == OK {
        return Ok(());
    }
    Err(Error::Unsupported { what: format!("registering the VFS (SQLite answers {code})") })
}

/// The entry of a loadable extension: registers the VFS as the environment says.
///
/// Answers `SQLITE_OK_LOAD_PERMANENTLY`, or `SQLITE_ERROR` with a message.
///
/// # Safety
/// The arguments are those that SQLite gives to an extension's entry point.
pub unsafe fn load_extension(
    _db: *mut c_void,
    message: *mut *mut c_char,
    routines: *const c_void,
    connect: Connect,
) -> c_int {
    let registered = std::panic::catch_unwind(|| {
        // SAFETY: the caller's promise.
        let api = unsafe { Api::from_routines(routines) };
        let api = api.map_err(|error| (None, error))?;
        let config = Config::from_env().map_err(|error| (Some(api), error))?;
        register(api, &config, connect).map_err(|error| (Some(api), error))
    });
    let (api, text) = match registered {
        Ok(Ok(())) => return OK_LOAD_PERMANENTLY,
        Ok(Err((api, error))) => (api, format!("interleaf: {error}")),
        Err(_) => (None, "interleaf: internal error".to_owned()),
    };
    if let (Some(api), false) = (api, message.is_null()) {
        // SAFETY: SQLite's to be written, and freed by it.
        unsafe { *message = api.text(&text) };
    }
    ERROR
}
