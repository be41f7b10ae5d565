//! What this library needs from the VFS and from the process around it.
#![allow(unsafe_code, reason = "registers the VFS with a copy of SQLite")]

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use interleaf_store::env::Env;
use interleaf_vfs::config::{Config, DEFAULT_TIMEOUT};

use crate::backoff::Backoff;
use crate::copies::{Db, Sqlite};

/// `INTERLEAF_TIMEOUT_MS`, once the VFS is registered.
static TIMEOUT: OnceLock<Duration> = OnceLock::new();

/// Runs our own code between the program and SQLite; a panic ends here, as `or`.
pub fn guarded<T>(or: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(or)
}

/// Sees to it that the VFS is registered with this copy of SQLite, and is its default.
///
/// # Errors
/// The reason why not, for people.
pub fn ready(sqlite: &Sqlite) -> Result<(), String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: functions of one copy of SQLite, with texts that live on and a VFS that this
    // copy itself has given.
    unsafe {
        let default = (sqlite.vfs_find)(std::ptr::null());
        let ours = (sqlite.vfs_find)(interleaf_vfs::DEFAULT_VFS_NAME.as_ptr());
        if ours.is_null() {
            let mut config = Config::from_env().map_err(|error| error.to_string())?;
            config.default_vfs = true;
            interleaf_vfs::register_resolved(|name| NonNull::new(sqlite.symbol(name)), &config)
                .map_err(|error| error.to_string())?;
            sqlite.base.get_or_init(|| default.addr());
            TIMEOUT.get_or_init(|| config.timeout);
        } else if sqlite.base.get() == Some(&default.addr()) {
            // sqlite3_shutdown and sqlite3_initialize have made SQLite's own the default
            // again. Another than that is the program's choice.
            let code = (sqlite.vfs_register)(ours, 1);
            if code != 0 {
                return Err(format!("sqlite3_vfs_register answers {code}"));
            }
        }
    }
    Ok(())
}

/// Whether a connection has a database in Interleaf.
pub fn is_ours(db: *mut Db) -> bool {
    interleaf_vfs::uses_interleaf(db.cast())
}

/// Waits before a retry, and counts it.
pub fn pause(db: *mut Db, wait: Duration) {
    Env::system().clock.sleep(wait);
    interleaf_vfs::count_retry(db.cast());
}

/// The waits of a call that met a conflict, within the connection's busy timeout.
pub fn backoff(busy_timeout: Option<Duration>) -> Backoff {
    let limit = busy_timeout.or_else(|| TIMEOUT.get().copied()).unwrap_or(DEFAULT_TIMEOUT);
    Backoff::start(Env::system(), limit)
}

/// Tells people, in one line on stderr, unless they asked for silence.
pub fn complain(reason: &str) {
    if std::env::var_os("INTERLEAF_LOG").is_none_or(|level| level != "off") {
        // A program without stderr hears the error through SQLite alone.
        writeln!(std::io::stderr(), "interleaf: {reason}").err();
    }
}
