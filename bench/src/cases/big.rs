//! Import, export, server memory, and what an update leaves in the store.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use rusqlite::Connection;

use crate::Context;
use crate::peer::{self, Sync};
use crate::report::{Bound, Report};
use crate::server::{self, Server};

/// Updates after which the records of the store are counted.
const UPDATES: u32 = 2_000;

/// Keys and values that a one-row update adds, all records counted.
pub fn bytes_per_update(context: &Context, report: &mut Report) -> Result<()> {
    let dir = context.dir.join("bytes-per-update");
    let server = Server::start(&dir)?;
    let mut db = peer::open(&peer::interleaf_uri(&server.url(), "db"), Sync::Normal)?;
    peer::fill(&mut db, 100_000)?;
    let before = record_bytes(&server)?;
    let mut update = db.prepare("UPDATE t SET n = n + 1 WHERE id = ?1")?;
    for i in 0..UPDATES {
        update.execute((i.wrapping_mul(48_271) % 100_000 + 1,))?;
    }
    let added = record_bytes(&server)?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = added as f64 / f64::from(UPDATES);
    report.add(
        "bytes stored per one-row UPDATE",
        each,
        "B",
        Bound::None,
        format!("{UPDATES} updates"),
    );
    Ok(())
}

fn record_bytes(server: &Server) -> Result<u64> {
    Ok(server::records(&server.url())?.values().map(|(_, bytes)| bytes).sum())
}

/// A file of about `bytes`, written by plain SQLite.
fn big_file(path: &Path, bytes: u64) -> Result<u64> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE b(id INTEGER PRIMARY KEY, x BLOB)")?;
    let mut insert = db.prepare("INSERT INTO b(x) VALUES (randomblob(3900))")?;
    db.execute_batch("BEGIN")?;
    for _ in 0..bytes / 4096 {
        insert.execute(())?;
    }
    db.execute_batch("COMMIT")?;
    Ok(std::fs::metadata(path)?.len())
}

/// Import and export in MB/s, and the server's memory with the database in it.
pub fn import_export(context: &Context, report: &mut Report) -> Result<()> {
    let dir = context.dir.join("import-export");
    let server = Server::start(&dir.join("served"))?;
    let file = dir.join("big.db");
    let bytes = big_file(&file, context.big_bytes)?;
    let seconds = interleaf(&server, &["import", &file.display().to_string(), "big"])?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let megabytes = bytes as f64 / 1e6;
    report.add(
        "import",
        megabytes / seconds,
        "MB/s",
        Bound::None,
        format!("{megabytes:.0} MB through the socket"),
    );
    let out = dir.join("out.db");
    let seconds = interleaf(&server, &["export", "big", &out.display().to_string()])?;
    report.add(
        "export",
        megabytes / seconds,
        "MB/s",
        Bound::None,
        format!("{megabytes:.0} MB through the socket"),
    );
    let db = peer::open(&peer::interleaf_uri(&server.url(), "big"), Sync::Full)?;
    let rows: i64 =
        db.query_row("SELECT count(*) + max(length(x)) - max(length(x)) FROM b", (), |r| r.get(0))?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mib = server.peak_memory()? as f64 / f64::from(1 << 20);
    let detail = format!("peak after import, export and a scan of {rows} rows");
    report.add("server memory", mib, "MiB", Bound::AtMost(512.0), detail);
    Ok(())
}

/// Runs the program on the server's store; seconds.
fn interleaf(server: &Server, args: &[&str]) -> Result<f64> {
    let start = Instant::now();
    let output =
        Command::new(server::program()?).args(args).args(["--store", &server.url()]).output()?;
    if !output.status.success() {
        bail!("interleaf {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(start.elapsed().as_secs_f64())
}
