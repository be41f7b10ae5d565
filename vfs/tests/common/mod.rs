//! What the tests of the VFS share.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failed test")]

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use interleaf_vfs::config::Config;
use rusqlite::{Connection, OpenFlags};

static REGISTER: Once = Once::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Registers the VFS over the store in memory.
pub fn register() {
    REGISTER.call_once(|| {
        let vars = [("INTERLEAF_STORE", "mem:"), ("INTERLEAF_LOG", "error")];
        let config = Config::from_vars(|name| {
            std::env::var(name).ok().or_else(|| {
                vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        })
        .unwrap();
        interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config).unwrap();
    });
}

/// A database name that no other test uses.
pub fn fresh(name: &str) -> String {
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Opens a database by its name.
pub fn open(name: &str) -> Connection {
    try_open(name).unwrap()
}

/// Likewise, with the error.
pub fn try_open(name: &str) -> rusqlite::Result<Connection> {
    register();
    Connection::open_with_flags(
        format!("file:{name}?vfs=interleaf"),
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

/// Attaches a database.
pub fn attach(db: &Connection, name: &str, schema: &str) {
    db.execute_batch(&format!("ATTACH 'file:{name}?vfs=interleaf' AS {schema}")).unwrap();
}

/// One number.
pub fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// One text.
pub fn text(db: &Connection, sql: &str) -> String {
    db.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// SQLite's extended code of a failure.
pub fn code(result: rusqlite::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(rusqlite::Error::SqliteFailure(error, _)) => error.extended_code,
        Err(other) => panic!("{other}"),
    }
}

/// Checks the database's own consistency.
pub fn check(db: &Connection) {
    assert_eq!(text(db, "PRAGMA integrity_check"), "ok");
}

/// A counter of `PRAGMA interleaf_stats`.
pub fn stat(db: &Connection, key: &str) -> i64 {
    number(db, &format!("SELECT json_extract({}, '$.{key}')", quoted(&stats(db))))
}

fn stats(db: &Connection) -> String {
    text(db, "PRAGMA interleaf_stats")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
