//! A warm autocommit point SELECT, against plain SQLite in WAL mode in the same run.
//!
//! `cargo run --release -p interleaf-vfs --example point_select [STORE-URL]`

use std::error::Error;
use std::time::{Duration, Instant};

use interleaf_vfs::config::Config;
use rusqlite::{Connection, Statement};

const ROWS: i64 = 100_000;
const ROUNDS: usize = 9;
const SELECTS: i32 = 50_000;

const FILL: &str = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT);
    DELETE FROM t;
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 100000)
    INSERT INTO t SELECT x, printf('value %d', x) FROM c;";

fn round(statement: &mut Statement<'_>) -> rusqlite::Result<Duration> {
    let begun = Instant::now();
    for n in 0..SELECTS {
        let id = i64::from(n) * 7919 % ROWS + 1;
        statement.query_row([id], |row| row.get_ref(0).map(|v| v.as_str().map(str::len)))??;
    }
    Ok(begun.elapsed())
}

fn main() -> Result<(), Box<dyn Error>> {
    let store = std::env::args().nth(1).unwrap_or_else(|| "mem:".to_owned());
    let config = Config { store: store.parse()?, ..Config::default() };
    interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config)?;
    let folder = tempfile::tempdir()?;
    let plain = Connection::open(folder.path().join("plain.db"))?;
    let ours = Connection::open("file:point_select?vfs=interleaf")?;
    plain.execute_batch("PRAGMA journal_mode = WAL")?;
    for db in [&plain, &ours] {
        db.execute_batch(FILL)?;
    }
    let sql = "SELECT v FROM t WHERE id = ?";
    let (mut plain, mut ours) = (plain.prepare(sql)?, ours.prepare(sql)?);
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let (a, b) = (round(&mut plain)?, round(&mut ours)?);
        let micros = |d: Duration| d.as_secs_f64() * 1e6 / f64::from(SELECTS);
        ratios.push(a.as_secs_f64() / b.as_secs_f64());
        println!("plain {:.2} us, interleaf {:.2} us", micros(a), micros(b));
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio of speeds: {:.2}", ratios.get(ROUNDS / 2).copied().unwrap_or_default());
    Ok(())
}
