//! The conditions of a retry, against functions that play SQLite's part.

use std::cell::{Cell, RefCell};

use std::sync::OnceLock;

use super::*;
use crate::copies::Handle;

/// What the played SQLite does, and what was asked of it.
struct Scene {
    /// Results of the calls, in order; the last one stays.
    codes: RefCell<Vec<c_int>>,
    /// What sqlite3_extended_errcode says.
    extended: Cell<c_int>,
    autocommit: Cell<c_int>,
    /// Whether a second statement of the connection is running.
    other_busy: Cell<c_int>,
    calls: Cell<u32>,
    resets: Cell<u32>,
    busy_timeout: Cell<c_int>,
}

thread_local! {
    static SCENE: Scene = const {
        Scene {
            codes: RefCell::new(Vec::new()),
            extended: Cell::new(SQLITE_BUSY_SNAPSHOT),
            autocommit: Cell::new(1),
            other_busy: Cell::new(0),
            calls: Cell::new(0),
            resets: Cell::new(0),
            busy_timeout: Cell::new(30),
        }
    };
}

const DB: *mut Db = std::ptr::without_provenance_mut(8);
const OWN: *mut Stmt = std::ptr::without_provenance_mut(16);
const OTHER: *mut Stmt = std::ptr::without_provenance_mut(24);
const PRAGMA: *mut Stmt = std::ptr::without_provenance_mut(32);

unsafe extern "C-unwind" fn open(_: *const c_char, _: *mut *mut Db) -> c_int {
    SQLITE_OK
}
unsafe extern "C-unwind" fn open16(_: *const c_void, _: *mut *mut Db) -> c_int {
    SQLITE_OK
}
unsafe extern "C-unwind" fn open_v2(
    _: *const c_char,
    _: *mut *mut Db,
    _: c_int,
    _: *const c_char,
) -> c_int {
    SQLITE_OK
}
unsafe extern "C-unwind" fn step(stmt: *mut Stmt) -> c_int {
    assert_eq!(stmt, PRAGMA);
    SQLITE_ROW
}
unsafe extern "C-unwind" fn exec(
    _: *mut Db,
    _: *const c_char,
    _: Option<Callback>,
    _: *mut c_void,
    _: *mut *mut c_char,
) -> c_int {
    SQLITE_OK
}
unsafe extern "C-unwind" fn get_table(
    _: *mut Db,
    _: *const c_char,
    _: *mut *mut *mut c_char,
    _: *mut c_int,
    _: *mut c_int,
    _: *mut *mut c_char,
) -> c_int {
    SQLITE_OK
}
unsafe extern "C-unwind" fn reset(_: *mut Stmt) -> c_int {
    SQLITE_OK
}
unsafe extern "C-unwind" fn stmt_busy(stmt: *mut Stmt) -> c_int {
    assert_eq!(stmt, OTHER, "the call's own statement is not asked");
    SCENE.with(|scene| scene.other_busy.get())
}
unsafe extern "C-unwind" fn next_stmt(_: *mut Db, stmt: *mut Stmt) -> *mut Stmt {
    match stmt {
        OWN => OTHER,
        OTHER => null_mut(),
        _ => OWN,
    }
}
unsafe extern "C-unwind" fn db_handle(_: *mut Stmt) -> *mut Db {
    DB
}
unsafe extern "C-unwind" fn get_autocommit(_: *mut Db) -> c_int {
    SCENE.with(|scene| scene.autocommit.get())
}
unsafe extern "C-unwind" fn extended_errcode(_: *mut Db) -> c_int {
    SCENE.with(|scene| scene.extended.get())
}
unsafe extern "C-unwind" fn prepare_v2(
    _: *mut Db,
    _: *const c_char,
    _: c_int,
    out: *mut *mut Stmt,
    _: *mut *const c_char,
) -> c_int {
    // SAFETY: a test's own pointer.
    unsafe { *out = PRAGMA };
    SQLITE_OK
}
unsafe extern "C-unwind" fn column_int(_: *mut Stmt, _: c_int) -> c_int {
    SCENE.with(|scene| scene.busy_timeout.get())
}
unsafe extern "C-unwind" fn finalize(_: *mut Stmt) -> c_int {
    SQLITE_OK
}
unsafe extern "C-unwind" fn free(_: *mut c_void) {}
unsafe extern "C-unwind" fn db_mutex(_: *mut Db) -> *mut c_void {
    null_mut()
}
unsafe extern "C-unwind" fn mutex(_: *mut c_void) {}

static SQLITE: Sqlite = Sqlite {
    open,
    open16,
    open_v2,
    step,
    exec,
    get_table,
    reset,
    stmt_busy,
    next_stmt,
    db_handle,
    get_autocommit,
    extended_errcode,
    prepare_v2,
    column_int,
    finalize,
    free,
    db_mutex,
    mutex_enter: mutex,
    mutex_leave: mutex,
    vfs_find,
    vfs_register,
    base: OnceLock::new(),
    handle: Handle::NONE,
};

unsafe extern "C-unwind" fn vfs_find(_: *const c_char) -> *mut c_void {
    null_mut()
}
unsafe extern "C-unwind" fn vfs_register(_: *mut c_void, _: c_int) -> c_int {
    SQLITE_OK
}

/// Plays the scene as it is set: the result, how often the call ran, how often it was
/// cleaned up after.
fn play(codes: &[c_int], unseen: bool, ours: fn(*mut Db) -> bool) -> (c_int, u32, u32) {
    SCENE.with(|scene| {
        let call = Call { sqlite: &SQLITE, db: DB, stmt: OWN, ours };
        *scene.codes.borrow_mut() = codes.iter().rev().copied().collect();
        let run = || {
            scene.calls.set(scene.calls.get() + 1);
            let mut codes = scene.codes.borrow_mut();
            let code = if codes.len() > 1 { codes.pop() } else { codes.last().copied() };
            code.unwrap()
        };
        let undo = || scene.resets.set(scene.resets.get() + 1);
        // SAFETY: the functions above take any pointer.
        let code = unsafe { call.repeat(|| unseen, run, undo) };
        (code, scene.calls.get(), scene.resets.get())
    })
}

fn ours(_: *mut Db) -> bool {
    true
}

#[test]
fn a_conflict_is_tried_again_until_it_succeeds() {
    assert_eq!(play(&[5, 5, 517, 101], true, ours), (101, 4, 3));
}

#[test]
fn what_succeeds_runs_once() {
    assert_eq!(play(&[101], true, ours), (101, 1, 0));
}

#[test]
fn another_error_is_not_tried_again() {
    for code in [1, 6, 8, 10, 13, 19, 262, 773] {
        SCENE.with(|scene| scene.calls.set(0));
        assert_eq!(play(&[code, 101], true, ours), (code, 1, 0));
    }
}

#[test]
fn a_plain_busy_is_not_tried_again() {
    SCENE.with(|scene| scene.extended.set(SQLITE_BUSY));
    assert_eq!(play(&[5, 101], true, ours), (5, 1, 0));
}

#[test]
fn within_a_transaction_nothing_is_tried_again() {
    SCENE.with(|scene| scene.autocommit.set(0));
    assert_eq!(play(&[517, 101], true, ours), (517, 1, 0));
}

#[test]
fn with_another_active_statement_nothing_is_tried_again() {
    SCENE.with(|scene| scene.other_busy.set(1));
    assert_eq!(play(&[517, 101], true, ours), (517, 1, 0));
}

#[test]
fn after_a_row_was_handed_out_nothing_is_tried_again() {
    assert_eq!(play(&[517, 101], false, ours), (517, 1, 0));
}

#[test]
fn other_databases_conflicts_are_left_alone() {
    assert_eq!(play(&[517, 101], true, |_| false), (517, 1, 0));
}

#[test]
fn an_endless_conflict_ends_with_the_busy_timeout() {
    let (code, calls, resets) = play(&[517], true, ours);
    assert_eq!(code, 517);
    assert!(calls >= 2 && resets == calls - 1, "{calls} calls, {resets} resets");
}

#[test]
fn a_callback_is_relayed_and_noted() {
    unsafe extern "C-unwind" fn add(
        sum: *mut c_void,
        count: c_int,
        _: *mut *mut c_char,
        _: *mut *mut c_char,
    ) -> c_int {
        // SAFETY: the test's own number.
        unsafe { *sum.cast::<c_int>() += count };
        7
    }
    let mut sum: c_int = 0;
    let mut rows = Rows { callback: add, context: (&raw mut sum).cast(), seen: false };
    // SAFETY: `rows` and `sum` live until the end of the test.
    let code = unsafe { relay((&raw mut rows).cast(), 3, null_mut(), null_mut()) };
    assert_eq!((code, sum, rows.seen), (7, 3, true));
}
