//! A VFS as registered with one copy of SQLite: what its callbacks find behind
//! `sqlite3_vfs.pAppData`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::abi::Vfs;
use super::api::Api;
use crate::code::{Failure, Outcome};
use crate::config::Config;
use crate::conn::Connect;
use crate::log;
use crate::names::Names;

/// See the module. Lives as long as the process: SQLite may call a registered VFS at any
/// time.
pub struct Registered {
    pub api: Api,
    /// The VFS that was the default before: everything that is not Interleaf's goes there.
    pub base: *mut Vfs,
    pub names: Names,
    pub config: Config,
    pub connect: Connect,
    /// Files of this VFS that are open, by the path SQLite knows them by.
    open: Mutex<HashMap<Vec<u8>, usize>>,
}

// SAFETY: `base` is a registered VFS, which SQLite itself calls from any thread and never
// frees; the other fields are Sync by themselves.
unsafe impl Sync for Registered {}
// SAFETY: likewise.
unsafe impl Send for Registered {}

thread_local! {
    /// Reason of this thread's last failure, for xGetLastError.
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Registered {
    pub fn new(api: Api, base: *mut Vfs, names: Names, config: Config, connect: Connect) -> Self {
        Self { api, base, names, config, connect, open: Mutex::default() }
    }

    fn open_files(&self) -> MutexGuard<'_, HashMap<Vec<u8>, usize>> {
        // Counters, whole at any moment.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A database of that path was opened.
    pub fn opened(&self, path: &[u8]) {
        *self.open_files().entry(path.to_vec()).or_default() += 1;
    }

    /// It was closed.
    pub fn closed(&self, path: &[u8]) {
        let mut open = self.open_files();
        if let Some(count) = open.get_mut(path) {
            *count -= 1;
            if *count == 0 {
                open.remove(path);
            }
        }
    }

    /// Whether a database of that path is open here.
    pub fn is_open(&self, path: &[u8]) -> bool {
        self.open_files().contains_key(path)
    }

    /// Runs a callback's body: no panic crosses into C, and every reason is told.
    pub fn guard(&self, body: impl FnOnce() -> Outcome<c_int>) -> c_int {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(code)) => code,
            Ok(Err(failure)) => {
                self.tell(&failure);
                failure.code
            }
            Err(panic) => {
                let text = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                let failure = Failure::broken(format!("internal error: {text}"));
                self.tell(&failure);
                failure.code
            }
        }
    }

    /// Tells a failure's reason: to xGetLastError, to sqlite3_log and on stderr.
    pub fn tell(&self, failure: &Failure) {
        // At a thread's end its storage is gone, and nobody will ask.
        let kept = LAST_ERROR.try_with(|last| last.replace(failure.text.clone()));
        debug_assert!(kept.is_ok() || std::thread::panicking());
        let text: String = failure.text.chars().filter(|&c| c != '\0').collect();
        if let Ok(text) = CString::new(format!("interleaf: {text}")) {
            // SAFETY: sqlite3_log may be called from any thread and any callback; "%s" takes
            // one string, which outlives the call.
            unsafe { (self.api.log)(failure.code, c"%s".as_ptr(), text.as_ptr()) };
        }
        log::line(self.config.log, failure.level, &failure.text);
    }

    /// This thread's last reason, cut to `room` bytes with the terminator.
    pub fn last_error(room: usize) -> Vec<u8> {
        let text = LAST_ERROR.try_with(|last| last.borrow().clone()).unwrap_or_default();
        let mut bytes = text.into_bytes();
        bytes.retain(|&byte| byte != 0);
        bytes.truncate(room.saturating_sub(1));
        bytes.push(0);
        bytes
    }

    /// A URI parameter of the file being opened.
    ///
    /// # Safety
    /// `name` is the name that SQLite gave to xOpen of a main database.
    pub unsafe fn uri_parameter(&self, name: *const c_char, key: &CStr) -> Option<String> {
        // SAFETY: the caller's promise; the answer is null or a string that lives as long as
        // `name`.
        unsafe {
            let value = (self.api.uri_parameter)(name, key.as_ptr());
            if value.is_null() {
                return None;
            }
            Some(CStr::from_ptr(value).to_string_lossy().into_owned())
        }
    }
}
