//! Random transfers between accounts, and the exact judgement of what became of each.
//!
//! A worker writes `try ID FROM TO AMOUNT` to its log before it begins a transaction, and
//! afterwards one of `ok ID`, `no ID` (an error that says that nothing was written) or
//! `unknown ID` (the error said "outcome unknown"). The transaction itself inserts
//! `(ID, FROM, TO, AMOUNT)` into the worker's own journal table. Ids are never used again.
//! A line `error ID CODE REASON` says what an error was (`open` in place of an id where the
//! database could not be opened), a line `slow MS CALL` which call took longer than any before.
//! Killed at any moment, the worker leaves a log from which each id can be judged:
//!
//! | last line about the id | journal row |
//! |---|---|
//! | `ok` | must be there |
//! | `no` | must not be there |
//! | `unknown`, or `try` alone | may be there |
//! | none | must not be there |
//!
//! and the balance of each account must be what the journal rows make it, to the unit: a
//! transaction is whole or absent.
//!
//! Accounts come in pairs, far from each other in the table. An account may be overdrawn as long
//! as its pair is not: a transfer reads both and writes one, so that a write skew between two
//! transfers would leave a pair below zero.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, Error};

use crate::sql;

/// Accounts in the database.
pub const ACCOUNTS: i64 = 1000;

/// What each account begins with: little, so that overdrafts are often refused.
pub const START: i64 = 10;

/// Gives a row for each pair that is overdrawn.
pub const OVERDRAWN: &str = "SELECT a.id, a.balance + b.balance FROM account a JOIN account b
    ON b.id = a.id + 500 WHERE a.balance + b.balance < 0";

/// Creates accounts and journals for `workers` workers.
pub fn create(db: &Connection, workers: u32) {
    sql::run(
        db,
        &format!(
            "BEGIN;
             CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
             WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{ACCOUNTS})
             INSERT INTO account SELECT i, {START}, hex(randomblob(100)) FROM n;"
        ),
    );
    for worker in 0..workers {
        let table = format!("journal{worker}(id INTEGER PRIMARY KEY, a INT, b INT, amount INT)");
        sql::run(db, &format!("CREATE TABLE {table}"));
    }
    sql::run(db, "COMMIT");
}

/// One worker's work.
#[derive(Debug)]
pub struct Plan<'a> {
    /// URI of the database.
    pub uri: &'a str,
    /// Which worker, from 0.
    pub worker: u32,
    /// How often this worker was started before: the upper half of its ids.
    pub incarnation: u32,
    /// Seed of its choices.
    pub seed: u64,
    /// How long it works.
    pub duration: Duration,
    /// Where it writes its log.
    pub log: &'a Path,
}

/// Does transfers until the time is up.
///
/// # Panics
/// On an error that no transfer should see.
pub fn work(plan: &Plan<'_>) {
    let start = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(plan.log).unwrap();
    let mut say = |line: String| log.write_all(line.as_bytes()).unwrap();
    let mut watch = Watch::default();
    let mut db: Option<Connection> = None;
    let mut next = i64::from(plan.incarnation) << 32;
    while start.elapsed() < plan.duration {
        if let Some((call, took)) = watch.news.take() {
            say(format!("slow {} {call}\n", took.as_millis()));
        }
        // A connection that met an error other than a conflict is given up now and then,
        // as applications do; the next one must work as well.
        let open = match db.take() {
            Some(open) => open,
            None => match watch.time("open", || open(plan.uri)) {
                Ok(open) => open,
                Err(error) => {
                    say(format!("error open {} {error}\n", sql::code(&error)));
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
            },
        };
        next += 1;
        let transfer = Transfer::random(&mut rng);
        let Transfer { from, to, amount } = transfer;
        say(format!("try {next} {from} {to} {amount}\n"));
        match transfer.run(&open, plan.worker, next, &mut watch) {
            Ok(true) => say(format!("ok {next}\n")),
            Ok(false) => say(format!("no {next}\n")),
            Err(Failed { error, at_commit }) => {
                let code = sql::code(&error);
                let reason = reason(&open, &error);
                if at_commit && code != sql::CONFLICT && reason.contains("outcome unknown") {
                    say(format!("unknown {next}\n"));
                } else {
                    say(format!("no {next}\n"));
                }
                if code != sql::CONFLICT {
                    say(format!("error {next} {code} {}\n", reason.replace('\n', " ")));
                    if rng.random_bool(0.5) {
                        continue;
                    }
                }
            }
        }
        db = Some(open);
    }
}

/// Which call took longest so far.
#[derive(Default)]
struct Watch {
    longest: Duration,
    /// Not told yet.
    news: Option<(&'static str, Duration)>,
}

impl Watch {
    fn time<T>(&mut self, call: &'static str, run: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = run();
        let took = begun.elapsed();
        if took > self.longest {
            self.longest = took;
            self.news = Some((call, took));
        }
        result
    }
}

fn open(uri: &str) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(uri, crate::store::flags())?;
    db.busy_timeout(Duration::from_secs(5))?;
    Ok(db)
}

/// The error's message and what the VFS says about it.
fn reason(db: &Connection, error: &Error) -> String {
    let last = db
        .query_row("PRAGMA interleaf_stats", [], |row| row.get::<_, String>(0))
        .unwrap_or_else(|e| format!("no interleaf_stats: {e}"));
    let last = serde_json::from_str::<serde_json::Value>(&last)
        .map_or(last, |value| value["last_error"].to_string());
    format!("{error}; last_error: {last}")
}

struct Failed {
    error: Error,
    at_commit: bool,
}

#[derive(Clone, Copy)]
struct Transfer {
    from: i64,
    to: i64,
    amount: i64,
}

impl Transfer {
    fn random(rng: &mut StdRng) -> Self {
        let from = rng.random_range(1..=ACCOUNTS);
        let to = (from - 1 + rng.random_range(1..ACCOUNTS)) % ACCOUNTS + 1;
        Self { from, to, amount: rng.random_range(1..=20) }
    }

    /// Whether it was made; not where it would overdraw a pair.
    fn run(self, db: &Connection, worker: u32, id: i64, watch: &mut Watch) -> Result<bool, Failed> {
        let result = self.statements(db, worker, id, watch);
        if !matches!(result, Ok(true)) {
            let rolled_back = db.is_autocommit() || db.execute_batch("ROLLBACK").is_ok();
            assert!(rolled_back, "ROLLBACK failed after {result:?}");
            return result.map_err(|error| Failed { error, at_commit: false });
        }
        let result = watch.time("commit", || db.execute_batch("COMMIT"));
        if let Err(error) = result {
            if !db.is_autocommit() {
                db.execute_batch("ROLLBACK").unwrap_or_else(|e| panic!("ROLLBACK: {e}"));
            }
            return Err(Failed { error, at_commit: true });
        }
        Ok(true)
    }

    fn statements(
        self,
        db: &Connection,
        worker: u32,
        id: i64,
        watch: &mut Watch,
    ) -> rusqlite::Result<bool> {
        db.execute_batch("BEGIN")?;
        let mut balance = |account: i64| -> rusqlite::Result<i64> {
            watch.time("read", || {
                db.prepare("SELECT balance FROM account WHERE id = ?1")?
                    .query_row([account], |row| row.get(0))
            })
        };
        // Written from what was read, so that a lost update would change the sum.
        let (from, to) = (balance(self.from)?, balance(self.to)?);
        if from + balance(partner(self.from))? < self.amount {
            return Ok(false);
        }
        watch.time("write", || self.write(db, worker, id, from, to))?;
        Ok(true)
    }

    fn write(
        self,
        db: &Connection,
        worker: u32,
        id: i64,
        from: i64,
        to: i64,
    ) -> rusqlite::Result<()> {
        let mut update = db.prepare("UPDATE account SET balance = ?2 WHERE id = ?1")?;
        update.execute((self.from, from - self.amount))?;
        update.execute((self.to, to + self.amount))?;
        db.prepare(&format!("INSERT INTO journal{worker} VALUES (?1, ?2, ?3, ?4)"))?.execute((
            id,
            self.from,
            self.to,
            self.amount,
        ))?;
        Ok(())
    }
}

/// The other account of a pair.
const fn partner(id: i64) -> i64 {
    (id + 499) % ACCOUNTS + 1
}

/// How many transfers ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Refused: conflicts, and overdrafts.
    pub refused: u64,
    /// Reported as unknown, or the worker was killed meanwhile.
    pub open: u64,
    /// Of those, the ones that took effect.
    pub open_present: u64,
    /// Errors other than conflicts.
    pub errors: u64,
    /// The longest call, in milliseconds.
    pub slowest_ms: u64,
}

/// Judges a database against the logs of its workers.
///
/// # Panics
/// Where a transfer is not what its log says, or an account not what the journals say.
pub fn judge(db: &Connection, logs: &[impl AsRef<Path>]) -> Tally {
    let mut tally = Tally::default();
    let mut balances: BTreeMap<i64, i64> = (1..=ACCOUNTS).map(|id| (id, START)).collect();
    for (worker, log) in logs.iter().enumerate() {
        let text = std::fs::read_to_string(log).unwrap();
        let journal = journal(db, worker);
        judge_worker(worker, &text, &journal, &mut tally);
        for (from, to, amount) in journal.values() {
            *balances.get_mut(from).unwrap() -= amount;
            *balances.get_mut(to).unwrap() += amount;
        }
    }
    let mut select = db.prepare("SELECT id, balance FROM account").unwrap();
    let found: BTreeMap<i64, i64> = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for (id, expected) in &balances {
        assert_eq!(found.get(id), Some(expected), "account {id}: a transfer in part, or twice");
    }
    assert_eq!(found.values().sum::<i64>(), ACCOUNTS * START);
    for (id, balance) in &found {
        let both = balance + found[&partner(*id)];
        assert!(both >= 0, "the pair of account {id} is overdrawn by {both}: write skew");
    }
    tally
}

/// The errors in the logs, each with its code and how often it was met; numbers in them are
/// left out.
///
/// # Panics
/// Where an error is none that a store in trouble may give, or gives no reason.
pub fn errors(logs: &[impl AsRef<Path>]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for log in logs {
        let log = std::fs::read_to_string(log).unwrap();
        for line in log.lines() {
            let Some(("error", rest)) = line.split_once(' ') else { continue };
            let (_, what) = rest.split_once(' ').unwrap();
            let (code, reason) = what.split_once(' ').unwrap();
            let primary = code.parse::<i32>().unwrap() & 0xff;
            assert!(matches!(primary, BUSY | IOERR | CANTOPEN), "an unexpected error: {line}");
            assert!(!reason.contains("last_error: null"), "no reason: {line}");
            *found.entry(format!("{code} {}", without_numbers(reason))).or_insert(0) += 1;
        }
    }
    found
}

/// SQLite's primary codes.
const BUSY: i32 = 5;
const IOERR: i32 = 10;
const CANTOPEN: i32 = 14;

/// Words with a digit in them become `#`.
fn without_numbers(text: &str) -> String {
    let word = |word: &str| match word.contains(|letter: char| letter.is_ascii_digit()) {
        true => "#".to_owned(),
        false => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<String>>().join(" ")
}

/// How many transfers were acknowledged by the log.
#[must_use]
pub fn acknowledged(log: &Path) -> usize {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.lines().filter(|line| line.starts_with("ok ")).count()
}

type Journal = BTreeMap<i64, (i64, i64, i64)>;

fn journal(db: &Connection, worker: usize) -> Journal {
    db.prepare(&format!("SELECT id, a, b, amount FROM journal{worker}"))
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Tried,
    Ok,
    No,
    Unknown,
}

fn judge_worker(worker: usize, log: &str, journal: &Journal, tally: &mut Tally) {
    let mut fates: BTreeMap<i64, ((i64, i64, i64), Fate)> = BTreeMap::new();
    // A last line without its end is one that the worker was killed in.
    let complete = log.rfind('\n').map_or("", |end| &log[..end]);
    for line in complete.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<i64>().unwrap_or_else(|e| panic!("{line}: {e}"));
        let mut settle = |fate| fates.get_mut(&number(1)).unwrap().1 = fate;
        match words[0] {
            "try" => {
                let row = (number(2), number(3), number(4));
                assert!(fates.insert(number(1), (row, Fate::Tried)).is_none(), "{line}");
            }
            "ok" => settle(Fate::Ok),
            "no" => settle(Fate::No),
            "unknown" => settle(Fate::Unknown),
            "error" => tally.errors += 1,
            "slow" => tally.slowest_ms = tally.slowest_ms.max(number(1).unsigned_abs()),
            _ => panic!("worker {worker}: {line}"),
        }
    }
    for (id, (row, fate)) in &fates {
        let found = journal.get(id);
        if let Some(found) = found {
            assert_eq!(found, row, "worker {worker}: transfer {id} has other numbers");
        }
        match fate {
            Fate::Ok => {
                assert!(found.is_some(), "worker {worker}: acknowledged transfer {id} is lost");
                tally.acknowledged += 1;
            }
            Fate::No => {
                assert!(found.is_none(), "worker {worker}: refused transfer {id} is there");
                tally.refused += 1;
            }
            Fate::Unknown | Fate::Tried => {
                tally.open += 1;
                tally.open_present += u64::from(found.is_some());
            }
        }
    }
    for id in journal.keys() {
        assert!(fates.contains_key(id), "worker {worker}: nobody tried transfer {id}");
    }
}
