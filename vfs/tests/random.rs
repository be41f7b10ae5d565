//! Random transactions of many connections: money is neither made nor lost, what was
//! acknowledged is there once, what was not is not, and SQLite finds every page in order.
//!
//! `INTERLEAF_SEED=N` repeats a run's choices (not its interleaving).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod common;

use common::{attach, check, code, fresh, number, open};
use rusqlite::Connection;

/// A small generator: xorshift64*.
struct Choices(u64);

impl Choices {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below
    }
}

fn seed() -> u64 {
    let seed = std::env::var("INTERLEAF_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1);
    println!("INTERLEAF_SEED={seed}");
    seed
}

const ACCOUNTS: u64 = 200;

fn setup(name: &str) {
    open(name)
        .execute_batch(&format!(
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, pad TEXT);
             CREATE TABLE note(thread INT, number INT, pad TEXT, PRIMARY KEY (thread, number));
             CREATE INDEX by_pad ON note(pad);
             WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {ACCOUNTS})
             INSERT INTO account SELECT x, 100, printf('%0200d', x) FROM c;"
        ))
        .unwrap();
}

/// One transaction's statements; `None` for one that ends in ROLLBACK.
fn statements(choices: &mut Choices, thread: u64, number: u64) -> Vec<String> {
    let schema = |choices: &mut Choices| ["main", "two"][usize::from(choices.next(3) == 0)];
    let (from, to) = (schema(choices), schema(choices));
    let (a, b) = (choices.next(ACCOUNTS) + 1, choices.next(ACCOUNTS) + 1);
    let amount = choices.next(20);
    let mut list = vec![
        format!("UPDATE {from}.account SET balance = balance - {amount} WHERE id = {a}"),
        format!("UPDATE {to}.account SET balance = balance + {amount} WHERE id = {b}"),
    ];
    let length = choices.next(1500) + 1;
    let pad = format!("printf('%0{length}d', {})", choices.next(100_000));
    list.push(format!("INSERT INTO main.note VALUES ({thread}, {number}, {pad})"));
    match choices.next(6) {
        0 => {
            list.push("SAVEPOINT s".into());
            list.push(format!("DELETE FROM note WHERE thread = {thread}"));
            list.push("ROLLBACK TO s".into());
        }
        1 => list.push(format!(
            "UPDATE note SET pad = pad || 'x' WHERE thread = {thread} AND number % 7 = {}",
            choices.next(7)
        )),
        2 => list.push(format!(
            "SELECT sum(balance) FROM account WHERE id BETWEEN {a} AND {}",
            a + choices.next(50)
        )),
        _ => {}
    }
    list
}

fn run(db: &Connection, list: &[String], commit: bool) -> Result<(), i32> {
    let step = |sql: &str| match db.execute_batch(sql) {
        Ok(()) => Ok(()),
        Err(error) => Err(code(Err(error))),
    };
    step("BEGIN")?;
    for sql in list {
        if let Err(error) = step(sql) {
            db.execute_batch("ROLLBACK").unwrap();
            return Err(error);
        }
    }
    step(if commit { "COMMIT" } else { "ROLLBACK" })
}

fn worker(names: &[String; 2], thread: u64, seed: u64) -> Vec<u64> {
    let mut choices = Choices(seed ^ (thread + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let db = open(&names[0]);
    attach(&db, &names[1], "two");
    if choices.next(2) == 0 {
        db.execute_batch("PRAGMA cache_size = 8; PRAGMA two.cache_size = 8").unwrap();
    }
    if choices.next(3) == 0 {
        db.execute_batch("PRAGMA synchronous = OFF; PRAGMA two.synchronous = OFF").unwrap();
    }
    let mut acknowledged = Vec::new();
    for number in 0..60 {
        let list = statements(&mut choices, thread, number);
        let commit = choices.next(8) != 0;
        loop {
            match run(&db, &list, commit) {
                Ok(()) => break,
                Err(517) => {}
                Err(other) => panic!("{other}: {list:?}"),
            }
        }
        if commit {
            acknowledged.push(number);
        }
    }
    acknowledged
}

#[test]
fn random_transactions_over_two_databases() {
    let seed = seed();
    let names = [fresh("random"), fresh("random")];
    names.iter().for_each(|name| setup(name));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let names = names.clone();
            std::thread::spawn(move || worker(&names, thread, seed))
        })
        .collect();
    let reader = {
        let names = names.clone();
        std::thread::spawn(move || {
            let db = open(&names[0]);
            attach(&db, &names[1], "two");
            for _ in 0..200 {
                let sql = "SELECT (SELECT sum(balance) FROM main.account)
                    + (SELECT sum(balance) FROM two.account)";
                assert_eq!(number(&db, sql), 2 * 100 * 200, "seen by a reader");
            }
        })
    };
    let acknowledged: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    reader.join().unwrap();
    let db = open(&names[0]);
    attach(&db, &names[1], "two");
    check(&db);
    check(&open(&names[1]));
    let sum = "SELECT (SELECT sum(balance) FROM account) + (SELECT sum(balance) FROM two.account)";
    assert_eq!(number(&db, sum), 2 * 100 * 200);
    for (thread, numbers) in acknowledged.iter().enumerate() {
        let sql = format!("SELECT count(*) FROM note WHERE thread = {thread}");
        assert_eq!(number(&db, &sql), i64::try_from(numbers.len()).unwrap(), "thread {thread}");
        for n in numbers {
            let sql = format!("SELECT count(*) FROM note WHERE thread = {thread} AND number = {n}");
            assert_eq!(number(&db, &sql), 1, "thread {thread}, {n}");
        }
    }
}
