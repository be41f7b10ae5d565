//! The two sides that are compared: plain SQLite on a file, and Interleaf.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};

/// How hard a commit is made durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// `synchronous=FULL`.
    Full,
    /// `synchronous=NORMAL`.
    Normal,
}

/// Makes the VFS `interleaf` known to the SQLite in this program.
pub fn register() -> Result<()> {
    let config = interleaf_vfs::config::Config::from_env()?;
    interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config)?;
    Ok(())
}

/// The URI of a plain file.
pub fn plain_uri(dir: &Path, name: &str) -> String {
    format!("file:{}", dir.join(name).display())
}

/// The URI of an Interleaf database in the store `url`.
pub fn interleaf_uri(url: &str, name: &str) -> String {
    format!("file:{name}?vfs=interleaf&store={url}")
}

/// Opens either side with the usual opening lines.
pub fn open(uri: &str, sync: Sync) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(uri, flags)?;
    db.busy_timeout(std::time::Duration::from_secs(60))?;
    db.execute_batch(match sync {
        Sync::Full => "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        Sync::Normal => "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    })?;
    Ok(db)
}

/// A table of `rows` rows of about 100 bytes, spread over many leaves.
pub fn fill(db: &mut Connection, rows: u32) -> Result<()> {
    let tx = db.transaction()?;
    tx.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, pad TEXT NOT NULL)",
    )?;
    {
        let mut insert = tx.prepare("INSERT INTO t VALUES (?1, 0, ?2)")?;
        let pad = "x".repeat(90);
        for id in 1..=rows {
            insert.execute((id, &pad))?;
        }
    }
    tx.commit()?;
    Ok(())
}

/// Runs one statement again until it commits, as an application with a retry loop does.
pub fn retry(mut statement: impl FnMut() -> rusqlite::Result<usize>) -> Result<u64> {
    let mut retries = 0;
    loop {
        match statement() {
            Ok(_) => return Ok(retries),
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                retries += 1
            }
            Err(e) => return Err(e.into()),
        }
    }
}
