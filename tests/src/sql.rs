//! SQL through the rlib VFS, and what tests ask of a connection.

use std::sync::OnceLock;

use interleaf_vfs::config::Config;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Error, Result};

use crate::worker::Answer;

/// SQLITE_BUSY_SNAPSHOT.
pub const CONFLICT: i32 = 517;

/// Makes the VFS known to this process's SQLite, once.
pub fn register() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let config = Config::from_env().expect("settings in the environment");
        interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config)
            .expect("register the VFS");
    });
}

/// The extended result code of an error; 0 for one that is not SQLite's.
#[must_use]
pub fn code(error: &Error) -> i32 {
    error.sqlite_error().map_or(0, |e| e.extended_code)
}

/// One value.
///
/// # Panics
/// Where the statement fails or gives no row.
#[must_use]
pub fn one<T: FromSql>(db: &Connection, sql: &str) -> T {
    db.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Runs statements.
///
/// # Panics
/// Where one fails.
pub fn run(db: &Connection, sql: &str) {
    db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e} ({})", code(&e)));
}

/// The connection's counters.
#[must_use]
pub fn stats(db: &Connection) -> serde_json::Value {
    let text: String = one(db, "PRAGMA interleaf_stats");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// One of the connection's counters.
///
/// # Panics
/// Where there is none of that name.
#[must_use]
pub fn counter(db: &Connection, name: &str) -> u64 {
    let stats = stats(db);
    stats[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {stats}"))
}

/// The version in use, or of the last commit.
#[must_use]
pub fn version(db: &Connection) -> String {
    one(db, "PRAGMA interleaf_version")
}

/// Checks that `result` is a conflict: 517, and the transaction rolled back.
///
/// # Panics
/// Where it is anything else.
pub fn assert_conflict<T: std::fmt::Debug>(db: &Connection, result: Result<T>) {
    let error = result.expect_err("a conflict was to be noticed");
    assert_eq!(code(&error), CONFLICT, "{error}");
    assert!(db.is_autocommit(), "the transaction is still open");
}

/// Checks that the database is sound.
///
/// # Panics
/// Where it is not.
pub fn assert_sound(db: &Connection) {
    assert_eq!(one::<String>(db, "PRAGMA integrity_check"), "ok");
}

/// A table `t(id, v, pad)` of `rows` rows with v = 0, each on a leaf of its own at a page
/// size of 4096.
///
/// # Panics
/// Where a statement fails.
pub fn one_row_per_leaf(db: &Connection, schema: &str, rows: u32) {
    run(
        db,
        &format!(
            "BEGIN;
             CREATE TABLE {schema}.t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad BLOB);
             WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{rows})
             INSERT INTO {schema}.t SELECT i, 0, randomblob(3000) FROM n;
             COMMIT;"
        ),
    );
}

/// The rows of a statement, or its error.
#[must_use]
pub fn answer(db: &Connection, statement: &str) -> Answer {
    match rows(db, statement) {
        Ok(rows) => Answer::Rows(rows),
        Err(error) => Answer::Error(code(&error).into(), error.to_string()),
    }
}

fn rows(db: &Connection, statement: &str) -> rusqlite::Result<Vec<Vec<serde_json::Value>>> {
    use rusqlite::types::ValueRef;
    use serde_json::Value;
    let mut statement = db.prepare(statement)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let value = |column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Real(number) => number.into(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
                ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()).into(),
            })
        };
        all.push((0..columns).map(value).collect::<rusqlite::Result<Vec<Value>>>()?);
    }
    Ok(all)
}
