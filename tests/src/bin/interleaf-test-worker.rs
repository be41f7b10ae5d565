//! What tests run in processes of their own.
//!
//! | command | what it does |
//! |---|---|
//! | `sql URI STATEMENT...` | runs statements on one connection, prints one answer a line |
//! | `talk URI` | as `sql`, with the statements from its input, one a line |
//! | `hold URI` | reads from the database, prints `ready`, keeps it open until its input ends |
//! | `both MAIN OTHER LEVEL COUNT LOG` | commits COUNT times over two attached databases, see below |
//! | `transfer URI WORKER INCARNATION SEED MS LOG` | random transfers |
//! | `register URI SEED MS FILE` | counts in a row and checks what it reads, see below |
//!
//! `both` inserts the numbers from 1 to COUNT into `t` of both databases, one number a
//! transaction at the synchronous level LEVEL, and writes a number to LOG once its COMMIT is
//! acknowledged; it ends with exit code 1 at the first error.
//!
//! `register` adds 1 to the only row of `register`, and keeps in FILE the largest number
//! whose commit any worker was told of. Before each transaction it looks there: what it
//! reads must not be less.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "part of the tests: a panic is how it fails"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use interleaf_tests::store::flags;
use interleaf_tests::worker::Answer;
use interleaf_tests::{sql, transfers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};

/// SQLITE_IOERR.
const IOERR: i32 = 10;

fn main() -> ExitCode {
    sql::register();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["sql", uri, statements @ ..] => statements_on(uri, statements),
        ["talk", uri] => talk(uri),
        ["hold", uri] => hold(uri),
        ["both", main, other, level, count, log] => {
            return both(main, other, level, count.parse().unwrap(), Path::new(log));
        }
        ["transfer", uri, worker, incarnation, seed, ms, log] => {
            transfers::work(&transfers::Plan {
                uri,
                worker: worker.parse().unwrap(),
                incarnation: incarnation.parse().unwrap(),
                seed: seed.parse().unwrap(),
                duration: Duration::from_millis(ms.parse().unwrap()),
                log: Path::new(log),
            })
        }
        ["register", uri, seed, ms, file] => {
            let duration = Duration::from_millis(ms.parse().unwrap());
            register(uri, seed.parse().unwrap(), duration, Path::new(file));
        }
        other => panic!("no such command: {other:?}"),
    }
    ExitCode::SUCCESS
}

fn open(uri: &str) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(uri, flags())
}

fn statements_on(uri: &str, statements: &[&str]) {
    let print = |answer: &Answer| println!("{}", answer.to_json());
    let db = match open(uri) {
        Ok(db) => db,
        Err(error) => {
            print(&Answer::Error(sql::code(&error).into(), error.to_string()));
            return;
        }
    };
    for statement in statements {
        print(&sql::answer(&db, statement));
    }
}

fn talk(uri: &str) {
    let db = open(uri).unwrap();
    for statement in std::io::stdin().lines() {
        println!("{}", sql::answer(&db, &statement.unwrap()).to_json());
    }
}

fn hold(uri: &str) {
    let db = open(uri).unwrap();
    let tables: i64 = sql::one(&db, "SELECT count(*) FROM sqlite_schema");
    println!("ready {tables}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// The largest number acknowledged, raised to `at_least`.
fn acknowledged(file: &File, at_least: i64) -> i64 {
    flock(file, FlockOperation::LockExclusive).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let most = i64::from_be_bytes(bytes).max(at_least);
    file.write_all_at(&most.to_be_bytes(), 0).unwrap();
    flock(file, FlockOperation::Unlock).unwrap();
    most
}

/// While servers come and go: no answer, or one of another run of the store.
fn may_fail(error: &rusqlite::Error) {
    let code = sql::code(error);
    assert!(code == sql::CONFLICT || code & 0xff == IOERR, "{code}: {error}");
}

/// One transaction; the number that it wrote.
fn add_one(db: &Connection) -> rusqlite::Result<i64> {
    let work = || {
        db.execute_batch("BEGIN; UPDATE register SET value = value + 1")?;
        let value = db.query_row("SELECT value FROM register", [], |row| row.get(0))?;
        db.execute_batch("COMMIT").map(|()| value)
    };
    let done = work();
    if done.is_err() && !db.is_autocommit() {
        db.execute_batch("ROLLBACK")?;
    }
    done
}

fn register(uri: &str, seed: u64, duration: Duration, file: &Path) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let db = open(uri).unwrap();
    let read = |least: i64| {
        let query = "SELECT value FROM register";
        match db.query_row(query, [], |row| row.get::<_, i64>(0)) {
            Ok(value) => assert!(value >= least, "read {value} after {least} was acknowledged"),
            Err(error) => may_fail(&error),
        }
    };
    let (mut reads, mut commits) = (0u32, 0u32);
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let least = acknowledged(&file, 0);
        if rng.random_bool(0.9) {
            read(least);
            reads += 1;
            continue;
        }
        match add_one(&db) {
            Ok(value) => {
                assert!(value > least, "wrote {value} after {least} was acknowledged");
                acknowledged(&file, value);
                commits += 1;
            }
            Err(error) => may_fail(&error),
        }
    }
    println!("{reads} {commits} {}", sql::counter(&db, "round_trips"));
}

fn both(main: &str, other: &str, level: &str, count: i64, log: &Path) -> ExitCode {
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let db = open(main).unwrap();
    db.execute("ATTACH ?1 AS other", [other]).unwrap();
    sql::run(&db, &format!("PRAGMA main.synchronous={level}; PRAGMA other.synchronous={level}"));
    for number in 1..=count {
        let transaction = format!(
            "BEGIN;
             INSERT INTO main.t VALUES ({number}, zeroblob(100));
             INSERT INTO other.t VALUES ({number}, zeroblob(100));
             COMMIT"
        );
        if let Err(error) = db.execute_batch(&transaction) {
            eprintln!("{number}: {} {error}", sql::code(&error));
            eprintln!("{}", sql::stats(&db));
            return ExitCode::FAILURE;
        }
        writeln!(log, "{number}").unwrap();
    }
    ExitCode::SUCCESS
}
