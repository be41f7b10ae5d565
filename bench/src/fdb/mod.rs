//! Interleaf on FoundationDB, direct, against FoundationDB's own floor in the same run.

mod raw;

#[path = "../../../store/tests/support/fdb_cluster.rs"]
mod fdb_cluster;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;

use self::fdb_cluster::{Cluster, Tools};
use self::raw::{Floor, Payload, Raw};
use crate::Context;
use crate::cases::writers;
use crate::peer::{self, Sync};
use crate::report::{Bound, Report};
use crate::sample::{in_turns, median, median_seconds};
use crate::server;

/// Rows of the tables that are loaded and looked into.
const ROWS: u32 = 100_000;

/// Updates after which the records of the store are counted.
const UPDATES: u64 = 1_000;

/// Writers at once, and rows of each, on leaves of its own.
const WRITERS: u32 = 64;
const ROWS_EACH: u32 = 400;

/// What the cold scan reads, in bytes.
const SCAN_BYTES: u64 = 256 << 20;

/// Rows that one transaction of the load for the scan writes, 4 KiB each.
const SCAN_BATCH: u64 = 4_096;

/// What the cases share.
struct Bench<'a> {
    context: &'a Context,
    raw: Raw,
    store: String,
    payload: Payload,
    db: Connection,
}

/// Runs the cases whose names are wanted.
pub fn run(
    context: &Context,
    file: Option<&Path>,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> Result<()> {
    let mut started = None;
    let file = match file {
        Some(file) => file.to_owned(),
        None => match Tools::find() {
            Ok(tools) => started.insert(Cluster::start(&tools)?).file(),
            Err(why) => {
                println!("skipped: {why}");
                return Ok(());
            }
        },
    };
    let prefix = format!("bench{}", std::process::id());
    let store = format!("fdb:{}?prefix={prefix}", file.display());
    // The first load is always made: the others look into it.
    eprintln!("fdb-load ...");
    let mut db = peer::open(&peer::interleaf_uri(&store, "db"), Sync::Full)?;
    let begun = Instant::now();
    peer::fill(&mut db, ROWS)?;
    load_figure(begun.elapsed().as_secs_f64(), report);
    let raw = Raw::open(&file)?;
    let payload = bytes_per_update(&store, &db, report)?;
    let bench = Bench { context, raw, store, payload, db };
    type Case = fn(&Bench<'_>, &mut Report) -> Result<()>;
    let cases: [(&str, Case); 3] =
        [("fdb-latency", latency), ("fdb-writers", many_writers), ("fdb-scan", cold_scan)];
    for (name, case) in cases {
        if wanted(name) {
            eprintln!("{name} ...");
            case(&bench, report)?;
        }
    }
    bench.raw.clear()
}

fn load_figure(seconds: f64, report: &mut Report) {
    let detail = format!("{:.0} rows/s, one transaction", f64::from(ROWS) / seconds);
    report.add("load of 100,000 rows", seconds, "s", Bound::None, detail);
}

/// The i-th row of a walk over all rows that is nowhere sequential.
fn row(i: u64) -> u32 {
    u32::try_from(i.wrapping_mul(2_654_435_761) % u64::from(ROWS)).unwrap_or(0) + 1
}

/// Keys and values that a one-row update adds, all records counted; and so what the raw
/// clients are to write.
fn bytes_per_update(store: &str, db: &Connection, report: &mut Report) -> Result<Payload> {
    let before = server::records(store)?;
    let mut update = db.prepare("UPDATE t SET n = n + 1 WHERE id = ?1")?;
    for i in 0..UPDATES {
        update.execute((row(i),))?;
    }
    let after = server::records(store)?;
    let sum = |records: &std::collections::BTreeMap<String, (u64, u64)>| {
        records.values().map(|(_, bytes)| bytes).sum::<u64>()
    };
    let payload = Payload::of(&before, &after, UPDATES);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = sum(&after).saturating_sub(sum(&before)) as f64 / UPDATES as f64;
    let detail = format!(
        "{UPDATES} updates; a raw commit writes {} keys, {} B",
        payload.keys(),
        payload.bytes()
    );
    report.add("bytes stored per one-row UPDATE", each, "B", Bound::None, detail);
    Ok(payload)
}

/// Warm strict point SELECT and warm autocommit one-row UPDATE, against the waits that they
/// cannot do without.
fn latency(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let (db, seconds) = (&bench.db, bench.context.seconds);
    let mut select = db.prepare("SELECT n FROM t WHERE id = ?1")?;
    db.query_row("SELECT sum(n) FROM t", (), |r| r.get::<_, i64>(0))?;
    let mut update = db.prepare("UPDATE t SET n = n + 1 WHERE id = ?1")?;
    let mut floors: Vec<Floor> = Vec::new();
    let (mut selects, mut updates) = (Vec::new(), Vec::new());
    for round in 0..bench.context.rounds {
        // Whoever goes second finds a warmer machine: take turns in that, too.
        if round % 2 == 0 {
            floors.push(bench.raw.floor(&bench.payload, seconds)?);
        }
        selects.push(median_seconds(seconds, |i| {
            let start = Instant::now();
            select.query_row((row(i),), |r| r.get::<_, i64>(0))?;
            Ok(start.elapsed())
        })?);
        updates.push(median_seconds(seconds, |i| {
            let start = Instant::now();
            update.execute((row(i),))?;
            Ok(start.elapsed())
        })?);
        if round % 2 == 1 {
            floors.push(bench.raw.floor(&bench.payload, seconds)?);
        }
    }
    let of = |part: fn(&Floor) -> f64| median(&floors.iter().map(part).collect::<Vec<f64>>());
    for (name, value) in [
        ("FoundationDB: read version, p50", of(|floor| floor.read_version)),
        ("FoundationDB: get, p50", of(|floor| floor.get)),
        ("FoundationDB: commit at a known version, p50", of(|floor| floor.commit)),
        ("FoundationDB: one transaction of the three, p50", of(|floor| floor.together)),
    ] {
        report.add(name, value * 1e3, "ms", Bound::None, String::new());
    }
    let read = |floor: &Floor| floor.read_version + floor.get;
    let write = |floor: &Floor| read(floor) + floor.commit;
    let together = |floor: &Floor| floor.together;
    let (select, update) = ("warm strict point SELECT, p50", "warm one-row UPDATE, p50");
    against(select, &selects, &floors, read, Bound::AtMost(1.3), report);
    against(update, &updates, &floors, write, Bound::AtMost(1.5), report);
    against("the same, to one transaction", &updates, &floors, together, Bound::None, report);
    Ok(())
}

/// Adds the median of the rounds' ratios.
fn against(
    name: &str,
    ours: &[f64],
    floors: &[Floor],
    floor: impl Fn(&Floor) -> f64,
    bound: Bound,
    report: &mut Report,
) {
    let floors: Vec<f64> = floors.iter().map(floor).collect();
    let ratios: Vec<f64> =
        std::iter::zip(ours, &floors).map(|(ours, floor)| ours / floor).collect();
    let detail = format!("{:.3} ms against {:.3} ms", median(ours) * 1e3, median(&floors) * 1e3);
    report.add(name, median(&ratios), "x", bound, detail);
}

/// Writers on leaves of their own, against as many raw clients that write as much.
fn many_writers(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let uri = peer::interleaf_uri(&bench.store, "writers");
    peer::fill(&mut peer::open(&uri, Sync::Full)?, WRITERS * ROWS_EACH)?;
    let seconds = bench.context.seconds * 2.0;
    let clients = usize::try_from(WRITERS)?;
    let (raw, ours, ratio) = in_turns(
        bench.context.rounds,
        || bench.raw.writers(clients, &bench.payload, seconds),
        || writers::by_threads(&uri, WRITERS, ROWS_EACH, seconds),
    )?;
    let detail = format!("{ours:.0}/s against {raw:.0}/s");
    report.add("64 writers on disjoint leaves", ratio, "x", Bound::AtLeast(0.5), detail);
    Ok(())
}

/// A whole table, read by a process that has nothing of it yet.
fn cold_scan(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let uri = peer::interleaf_uri(&bench.store, "scan");
    let db = peer::open(&uri, Sync::Full)?;
    db.execute_batch("CREATE TABLE b(id INTEGER PRIMARY KEY, x BLOB)")?;
    let mut insert = db.prepare("INSERT INTO b(x) VALUES (randomblob(3900))")?;
    for _ in 0..SCAN_BYTES / 4096 / SCAN_BATCH {
        db.execute_batch("BEGIN")?;
        for _ in 0..SCAN_BATCH {
            insert.execute(())?;
        }
        db.execute_batch("COMMIT")?;
    }
    let mut rates = Vec::new();
    for _ in 0..bench.context.rounds {
        let output =
            Command::new(std::env::current_exe()?).args(["scan", "--uri", &uri]).output()?;
        if !output.status.success() {
            bail!("the scan: {}", String::from_utf8_lossy(&output.stderr));
        }
        let line = String::from_utf8(output.stdout)?;
        let (seconds, bytes) = line.trim().split_once(' ').context("the scan's answer")?;
        rates.push(bytes.parse::<f64>()? / 1e6 / seconds.parse::<f64>()?);
    }
    let detail = format!("256 MB, {} rounds", rates.len());
    report.add("cold scan", median(&rates), "MB/s", Bound::None, detail);
    Ok(())
}
