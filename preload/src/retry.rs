//! Runs a single statement again that ended in a conflict.
//!
//! In autocommit mode a statement is a whole transaction. When its commit meets a conflict
//! (extended code 517, SQLITE_BUSY_SNAPSHOT) everything is rolled back, and all that the
//! transaction ever was is the statement's own text: running it again is what the program
//! would have got had it called a moment later. The conditions, all of them:
//!
//! * autocommit was on before the call, and the statement was not running yet;
//! * no row and no callback was handed out: the program has seen nothing of the attempt;
//! * no other statement of the connection is active: autocommit ends with the last of them;
//! * the text given to `sqlite3_exec` or `sqlite3_get_table` is one statement;
//! * the connection uses Interleaf: other databases' conflicts are theirs.
//!
//! It is bounded by the connection's busy timeout, or, where the program set none, by
//! `INTERLEAF_TIMEOUT_MS`: a conflict is no wait for somebody's lock, the attempt after it
//! usually succeeds at once.
#![allow(unsafe_code, reason = "calls SQLite's functions with the caller's own arguments")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::copies::{self, Callback, Db, Sqlite, Stmt};
use crate::nesting::{InCallback, Outermost};
use crate::{host, sql};

const SQLITE_OK: c_int = 0;
const SQLITE_BUSY: c_int = 5;
const SQLITE_MISUSE: c_int = 21;
const SQLITE_ROW: c_int = 100;
const SQLITE_BUSY_SNAPSHOT: c_int = 517;

/// `sqlite3_step`.
///
/// # Safety
/// As for SQLite's; `caller` is the address the call came from.
pub unsafe extern "C-unwind" fn step(stmt: *mut Stmt, caller: *const c_void) -> c_int {
    let Some(sqlite) = host::guarded(None, || copies::of(caller)) else { return SQLITE_MISUSE };
    // SAFETY: the functions are those of the copy that made the statement, which the caller
    // vouches for; null is a legal argument of sqlite3_step and sqlite3_stmt_busy.
    unsafe {
        let Some(_outermost) = Outermost::enter() else { return (sqlite.step)(stmt) };
        if stmt.is_null() || (sqlite.stmt_busy)(stmt) != 0 {
            return (sqlite.step)(stmt);
        }
        let db = (sqlite.db_handle)(stmt);
        Call { sqlite, db, stmt, ours: host::is_ours }.repeat(
            || true,
            || (sqlite.step)(stmt),
            || {
                // Its code is the conflict's, known already.
                (sqlite.reset)(stmt);
            },
        )
    }
}

/// `sqlite3_exec`.
///
/// # Safety
/// As for SQLite's; `caller` is the address the call came from.
pub unsafe extern "C-unwind" fn exec(
    db: *mut Db,
    text: *const c_char,
    callback: Option<Callback>,
    context: *mut c_void,
    message: *mut *mut c_char,
    caller: *const c_void,
) -> c_int {
    let Some(sqlite) = host::guarded(None, || copies::of(caller)) else { return SQLITE_MISUSE };
    // SAFETY: the caller's own arguments, but for the callback: `relay` is called while
    // `rows` lives, with what SQLite gives it, and passes that on to the caller's callback.
    unsafe {
        let Some(_outermost) = Outermost::enter() else {
            return (sqlite.exec)(db, text, callback, context, message);
        };
        let call = Call { sqlite, db, stmt: null_mut(), ours: host::is_ours };
        let Some(callback) = callback else {
            return call.repeat(
                || single(text),
                || (sqlite.exec)(db, text, None, context, message),
                || discard(sqlite, message),
            );
        };
        let mut rows = Rows { callback, context, seen: false };
        let rows = &raw mut rows;
        call.repeat(
            || !(*rows).seen && single(text),
            || (sqlite.exec)(db, text, Some(relay), rows.cast(), message),
            || discard(sqlite, message),
        )
    }
}

/// `sqlite3_get_table`. It hands rows out at its end only.
///
/// # Safety
/// As for SQLite's; `caller` is the address the call came from.
pub unsafe extern "C-unwind" fn get_table(
    db: *mut Db,
    text: *const c_char,
    table: *mut *mut *mut c_char,
    rows: *mut c_int,
    columns: *mut c_int,
    message: *mut *mut c_char,
    caller: *const c_void,
) -> c_int {
    let Some(sqlite) = host::guarded(None, || copies::of(caller)) else { return SQLITE_MISUSE };
    // SAFETY: the caller's own arguments. After an error SQLite has freed the table itself.
    unsafe {
        let run = || (sqlite.get_table)(db, text, table, rows, columns, message);
        let Some(_outermost) = Outermost::enter() else { return run() };
        let call = Call { sqlite, db, stmt: null_mut(), ours: host::is_ours };
        call.repeat(|| single(text), run, || discard(sqlite, message))
    }
}

/// A program's callback, and whether it was called.
struct Rows {
    callback: Callback,
    context: *mut c_void,
    seen: bool,
}

/// Stands in front of a program's callback.
unsafe extern "C-unwind" fn relay(
    rows: *mut c_void,
    count: c_int,
    values: *mut *mut c_char,
    names: *mut *mut c_char,
) -> c_int {
    // SAFETY: `exec` gives a pointer to its Rows, which lives until SQLite's sqlite3_exec
    // returns; no reference to it is held meanwhile.
    let (callback, context) = unsafe {
        let rows = rows.cast::<Rows>();
        (*rows).seen = true;
        ((*rows).callback, (*rows).context)
    };
    let _callback = InCallback::enter();
    // SAFETY: the program's own callback with the arguments that are meant for it.
    unsafe { callback(context, count, values, names) }
}

/// A call that may be repeated.
struct Call<'a> {
    sqlite: &'a Sqlite,
    /// The connection: open, or null.
    db: *mut Db,
    /// The statement that is called, where it is one of the program's own; else null.
    stmt: *mut Stmt,
    /// Whether a connection has a file in Interleaf.
    ours: fn(*mut Db) -> bool,
}

impl Call<'_> {
    /// Calls `run`, and again after each conflict as long as everything said above holds.
    /// `unseen` says whether the program has seen nothing of the attempt, `undo` cleans up
    /// before the next.
    ///
    /// # Safety
    /// `db` must be an open connection of this copy or null, `stmt` one of its statements or
    /// null, and `run` a call that belongs to it.
    unsafe fn repeat(
        &self,
        unseen: impl Fn() -> bool,
        run: impl Fn() -> c_int,
        undo: impl Fn(),
    ) -> c_int {
        // SAFETY: by this function's contract.
        let autocommit = || unsafe { (self.sqlite.get_autocommit)(self.db) != 0 };
        if self.db.is_null() || !autocommit() {
            return run();
        }
        let mut code = run();
        let mut backoff: Option<Backoff> = None;
        loop {
            // SAFETY: by this function's contract.
            let again = unsafe { self.is_conflict(code) && autocommit() && self.alone() };
            if !again || !unseen() {
                return code;
            }
            let wait = match &mut backoff {
                Some(backoff) => host::guarded(None, || backoff.next()),
                none => {
                    if !host::guarded(false, || (self.ours)(self.db)) {
                        return code;
                    }
                    // The first wait is always granted: asking for the limit has overwritten
                    // the connection's error, which only another attempt sets again.
                    // SAFETY: by this function's contract; no statement is active.
                    let timeout = unsafe { self.busy_timeout() };
                    host::guarded(None, || none.insert(host::backoff(timeout)).next())
                }
            };
            let Some(wait) = wait else { return code };
            undo();
            host::guarded((), || host::pause(self.db, wait));
            code = run();
        }
    }

    /// Whether the call ended in a conflict. The result itself is the extended code only
    /// where the program asked for those.
    unsafe fn is_conflict(&self, code: c_int) -> bool {
        if code != SQLITE_BUSY {
            return code == SQLITE_BUSY_SNAPSHOT;
        }
        // SAFETY: the caller's connection is open.
        unsafe { (self.sqlite.extended_errcode)(self.db) == SQLITE_BUSY_SNAPSHOT }
    }

    /// Whether no statement but this call's own is active.
    unsafe fn alone(&self) -> bool {
        let sqlite = self.sqlite;
        // SAFETY: the caller's connection is open; its mutex (null where it has none, which
        // enter and leave accept) keeps other threads from finalizing a statement meanwhile.
        unsafe {
            let mutex = (sqlite.db_mutex)(self.db);
            (sqlite.mutex_enter)(mutex);
            let mut alone = true;
            let mut other = (sqlite.next_stmt)(self.db, null_mut());
            while !other.is_null() {
                alone &= other == self.stmt || (sqlite.stmt_busy)(other) == 0;
                other = (sqlite.next_stmt)(self.db, other);
            }
            (sqlite.mutex_leave)(mutex);
            alone
        }
    }

    /// The connection's busy timeout; `None` where the program set none (a busy handler of
    /// its own counts as none, SQLite does not tell).
    unsafe fn busy_timeout(&self) -> Option<Duration> {
        let sqlite = self.sqlite;
        let mut stmt = null_mut();
        let pragma = c"PRAGMA busy_timeout".as_ptr();
        // SAFETY: the caller's connection is open; the statement is finalized, which accepts
        // null, before the pointer goes.
        let millis = unsafe {
            let code = (sqlite.prepare_v2)(self.db, pragma, -1, &raw mut stmt, null_mut());
            let row = code == SQLITE_OK && (sqlite.step)(stmt) == SQLITE_ROW;
            let millis = if row { (sqlite.column_int)(stmt, 0) } else { 0 };
            (sqlite.finalize)(stmt);
            millis
        };
        u64::try_from(millis).ok().filter(|&millis| millis > 0).map(Duration::from_millis)
    }
}

/// Whether a text is a single statement.
///
/// # Safety
/// `text` must be null or a C string.
unsafe fn single(text: *const c_char) -> bool {
    // SAFETY: by this function's contract.
    !text.is_null() && sql::is_single_statement(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Frees the message of a failed attempt.
///
/// # Safety
/// `message` must be null or point to null or to a text that SQLite allocated.
unsafe fn discard(sqlite: &Sqlite, message: *mut *mut c_char) {
    if !message.is_null() {
        // SAFETY: by this function's contract; sqlite3_free accepts null.
        unsafe {
            (sqlite.free)((*message).cast());
            *message = null_mut();
        }
    }
}

#[cfg(test)]
mod tests;
