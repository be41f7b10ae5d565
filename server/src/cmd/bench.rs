//! `interleaf bench`: how fast is this store, from here?

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use interleaf_store::api::CreateState;
use interleaf_store::env::Clock;
use interleaf_store::types::DatabaseName;
use rusqlite::Connection;
use serde_json::json;

use crate::cli::Output;
use crate::connection;
use crate::context::{Context, out, out_json};
use crate::human::{grouped, per_second};
use crate::table::{Align, Table};

/// Rows of the table that is measured: some 320 pages.
const ROWS: u32 = 10_000;

/// Most writers: each is a thread with a connection of its own.
const MAX_WRITERS: i64 = 256;

/// A transaction that meets conflicts is run again so many times at most.
const MAX_AGAIN: u32 = 1000;

/// `interleaf bench`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It makes a database of its own in the store and drops it in the end; what else is in the\n\
        store stays untouched. The writers write each to rows of its own.\n\n\
        Examples:\n  interleaf bench\n  interleaf bench --store tcp://db.example:7480 --writers 32"
)]
pub struct Args {
    /// How long each measurement takes
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How many connections write at once in the last measurement
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=MAX_WRITERS))]
    writers: u32,
    /// The form of the output.
    #[command(flatten)]
    output: Output,
}

/// What one measurement gave.
struct Measured {
    name: String,
    operations: u64,
    again: u64,
    elapsed: Duration,
    median: Duration,
    p99: Duration,
}

/// Runs `interleaf bench`.
///
/// # Errors
/// Those of the store.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let backend = context.connect()?;
    let suffix = u64::from_be_bytes(context.env.random()?);
    let name = DatabaseName::new(&format!("interleaf-bench-{suffix:016x}"))?;
    backend.create(&name, CreateState::Ready, context.deadline())?;
    let bench = Bench { context, name: &name, time: Duration::from_secs(u64::from(args.seconds)) };
    let measured = bench.all(args.writers);
    let dropped = backend.drop_database(&name, context.deadline());
    let measured = measured?;
    dropped.with_context(|| format!("the database {name} of this benchmark stays behind"))?;
    if args.output.json {
        out_json(&measured.iter().map(to_json).collect())?;
    } else {
        out(table(&measured))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    context: &'a Context,
    name: &'a DatabaseName,
    time: Duration,
}

impl Bench<'_> {
    fn all(&self, writers: u32) -> anyhow::Result<Vec<Measured>> {
        let connection = self.connect()?;
        connection.execute_batch(&format!(
            "CREATE TABLE kv(id INTEGER PRIMARY KEY, value BLOB NOT NULL);
             WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {ROWS})
             INSERT INTO kv SELECT id, randomblob(100) FROM n;"
        ))?;
        let select = "SELECT value FROM kv WHERE id = ?1";
        let update = "UPDATE kv SET value = randomblob(100) WHERE id = ?1";
        let mut done = vec![self.single("point SELECT", &connection, "FULL", select)?];
        for synchronous in ["FULL", "NORMAL"] {
            let name = format!("UPDATE, synchronous={synchronous}");
            done.push(self.single(&name, &connection, synchronous, update)?);
        }
        drop(connection);
        done.push(self.many(writers, update)?);
        Ok(done)
    }

    fn connect(&self) -> anyhow::Result<Connection> {
        connection::open(self.context, self.name)
    }

    fn single(
        &self,
        name: &str,
        connection: &Connection,
        synchronous: &str,
        sql: &str,
    ) -> anyhow::Result<Measured> {
        connection.pragma_update(None, "synchronous", synchronous)?;
        let clock = self.context.env.clock.as_ref();
        let start = clock.now();
        let loop_ = repeat(connection, sql, 0, ROWS, clock, start + self.time)?;
        Ok(measured(name.to_owned(), vec![loop_], clock.now() - start))
    }

    /// Writers, each on rows of its own: what they share is the store.
    fn many(&self, writers: u32, sql: &str) -> anyhow::Result<Measured> {
        let connections: Vec<Connection> =
            (0..writers).map(|_| self.connect()).collect::<Result<_, _>>()?;
        let clock = self.context.env.clock.as_ref();
        let each = ROWS / writers;
        let start = clock.now();
        let end = start + self.time;
        let loops = std::thread::scope(|scope| {
            let spawn = |(index, connection): (u32, Connection)| {
                scope.spawn(move || repeat(&connection, sql, index * each, each, clock, end))
            };
            let threads: Vec<_> = (0..writers).zip(connections).map(spawn).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<Loop>>| {
                thread.join().map_err(|_| anyhow!("a writer's thread panicked"))?
            };
            threads.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
        })?;
        let name = format!("UPDATE, {writers} writers, synchronous=FULL");
        Ok(measured(name, loops, clock.now() - start))
    }
}

/// What one connection did.
struct Loop {
    micros: Vec<u32>,
    again: u64,
}

/// Runs a statement over and over, on the rows from `first` in an order without pattern.
fn repeat(
    connection: &Connection,
    sql: &str,
    first: u32,
    rows: u32,
    clock: &dyn Clock,
    end: Instant,
) -> anyhow::Result<Loop> {
    let mut statement = connection.prepare(sql)?;
    let mut done = Loop { micros: Vec::new(), again: 0 };
    let (mut row, mut now) = (0u32, clock.now());
    while now < end {
        // A step of a large prime visits all rows before it comes back to one.
        row = (row + 7919) % rows.max(1);
        done.again += run_once(&mut statement, first + row + 1)?;
        let later = clock.now();
        done.micros.push(u32::try_from((later - now).as_micros()).unwrap_or(u32::MAX));
        now = later;
    }
    Ok(done)
}

/// Runs the statement until it is through; how often it had to be run again.
fn run_once(statement: &mut rusqlite::Statement<'_>, id: u32) -> anyhow::Result<u64> {
    for again in 0..MAX_AGAIN {
        let result = statement.query([id]).and_then(|mut rows| {
            while rows.next()?.is_some() {}
            Ok(())
        });
        match result {
            Ok(()) => return Ok(u64::from(again)),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(anyhow!("a statement met {MAX_AGAIN} conflicts in a row"))
}

fn measured(name: String, loops: Vec<Loop>, elapsed: Duration) -> Measured {
    let again = loops.iter().map(|l| l.again).sum();
    let mut micros: Vec<u32> = loops.into_iter().flat_map(|l| l.micros).collect();
    micros.sort_unstable();
    let at = |hundredths: usize| {
        let index = micros.len() * hundredths / 100;
        Duration::from_micros(micros.get(index).copied().unwrap_or(0).into())
    };
    let (median, p99) = (at(50), at(99));
    let operations = micros.len() as u64;
    Measured { name, operations, again, elapsed, median, p99 }
}

fn table(all: &[Measured]) -> Table {
    let mut table = Table::new(&[
        ("MEASURED", Align::Left),
        ("PER SECOND", Align::Right),
        ("MEDIAN", Align::Right),
        ("P99", Align::Right),
        ("RUN AGAIN", Align::Right),
    ]);
    for one in all {
        table.row([
            one.name.clone(),
            grouped(whole(per_second(one.operations, one.elapsed))),
            format!("{:.3} ms", one.median.as_secs_f64() * 1e3),
            format!("{:.3} ms", one.p99.as_secs_f64() * 1e3),
            grouped(one.again),
        ]);
    }
    table
}

#[expect(clippy::cast_possible_truncation, reason = "a rate to show")]
fn whole(rate: f64) -> i64 {
    rate.round() as i64
}

fn to_json(one: &Measured) -> serde_json::Value {
    json!({
        "name": one.name,
        "operations": one.operations,
        "seconds": one.elapsed.as_secs_f64(),
        "per_second": per_second(one.operations, one.elapsed),
        "median_ms": one.median.as_secs_f64() * 1e3,
        "p99_ms": one.p99.as_secs_f64() * 1e3,
        "run_again": one.again,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_tail_are_those_of_all_loops_together() {
        let loops = vec![
            Loop { micros: (1..=50).collect(), again: 2 },
            Loop { micros: (51..=100).collect(), again: 1 },
        ];
        let all = measured("x".into(), loops, Duration::from_secs(2));
        assert_eq!((all.operations, all.again), (100, 3));
        assert_eq!(all.median, Duration::from_micros(51));
        assert_eq!(all.p99, Duration::from_micros(100));
    }
}
