//! What runs on every kind of store, on FoundationDB: direct from this process, and behind
//! `interleaf serve`. Ignored where FoundationDB is not found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

// Their own tests of one kind of store are left out here.
#[allow(dead_code, unused_imports, reason = "used in the program of that name")]
mod content;
mod exactness;
#[allow(dead_code, unused_imports, reason = "used in the program of that name")]
mod large;
mod page_level;
#[allow(dead_code, unused_imports, reason = "used in the program of that name")]
mod snapshots;
#[allow(dead_code, unused_imports, reason = "used in the program of that name")]
mod soak;

use std::process::Command;

use interleaf_tests::fdb::{self, Cluster, Shape, Tools};
use interleaf_tests::process;
use interleaf_tests::sql::{self, counter, one, one_row_per_leaf, run};
use interleaf_tests::store::{Kind, TestStore};
use interleaf_tests::{Case, worker};
use libtest_mimic::{Arguments, Failed, Trial};

/// Cases of FoundationDB alone.
const OWN: &[Case] = &[
    ("a_warm_read_is_one_round_trip_and_an_update_two", round_trips),
    ("a_bulk_load_of_thirty_megabytes", bulk_load),
    ("another_process_sees_what_was_acknowledged", another_process),
];

/// Cases that look at the process's cache, which the other tests fill as well.
const NEEDS_ITS_OWN_CACHE: &[&str] = &["a_second_connection_of_a_warm_process_reads_nothing"];

/// Set in a process that runs one test alone.
const ALONE: &str = "INTERLEAF_TEST_ALONE";

fn main() {
    let found = Tools::find();
    if let Err(why) = &found {
        println!("skipped: {why}");
    }
    let cases =
        [OWN, exactness::CASES, page_level::CASES, snapshots::CASES, content::CASES, large::CASES];
    let mut trials = Vec::new();
    for (name, kind) in [("direct", Kind::Fdb), ("server", Kind::FdbServer)] {
        for (case, test) in cases.concat() {
            let name = format!("{name}::{case}");
            trials.push(Trial::test(name.clone(), move || {
                if NEEDS_ITS_OWN_CACHE.contains(&case) && std::env::var_os(ALONE).is_none() {
                    return alone(&name);
                }
                test(&TestStore::new(kind));
                Ok(())
            }));
        }
    }
    trials.push(Trial::test("transfers_are_exact_whoever_is_killed", || {
        soak::soak(TestStore::new(Kind::FdbServer), seconds(6), &mut |_| {});
        Ok(())
    }));
    trials.push(Trial::test("transfers_are_exact_while_fdbservers_are_killed", || {
        transfers_while_the_cluster_is_hurt();
        Ok(())
    }));
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(found.is_err()));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    fdb::stop();
    conclusion.exit();
}

/// Runs one test of this program in a process of its own.
fn alone(name: &str) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let output =
        process::run(Command::new(program).args([name, "--exact", "--nocapture"]).env(ALONE, "1"));
    let (stdout, stderr) = process::text(&output);
    let ran = stdout.contains("1 passed");
    if output.status.success() && ran { Ok(()) } else { Err(format!("{stdout}{stderr}").into()) }
}

/// How long a soak takes: so many seconds, or what `INTERLEAF_SOAK_SECONDS` says.
fn seconds(default: u64) -> u64 {
    std::env::var("INTERLEAF_SOAK_SECONDS")
        .map_or(default, |text| text.parse().expect("INTERLEAF_SOAK_SECONDS is a number"))
}

/// Three processes with two copies: one is killed and comes back, then all at once.
fn transfers_while_the_cluster_is_hurt() {
    let mut cluster = Cluster::start_as(&Tools::find().unwrap(), Shape::ThreeDouble).unwrap();
    let store = TestStore::on_cluster(Kind::FdbServer, &cluster.file());
    let mut next = 0;
    let mut trouble = |progress: f64| {
        const STEPS: [f64; 3] = [0.2, 0.35, 0.5];
        if STEPS.get(next).is_none_or(|step| progress < *step) {
            return;
        }
        match next {
            0 => cluster.kill_one(1).unwrap(),
            1 => cluster.restart().unwrap(),
            _ => {
                cluster.kill().unwrap();
                cluster.restart().unwrap();
            }
        }
        next += 1;
    };
    soak::soak(store, seconds(20), &mut trouble);
    assert_eq!(next, 3, "the cluster was left in peace");
}

fn round_trips(store: &TestStore) {
    let db = store.open("db");
    one_row_per_leaf(&db, "main", 20);
    let spent = |sql: &str| {
        let before = counter(&db, "round_trips");
        run(&db, sql);
        counter(&db, "round_trips") - before
    };
    let (read, update) = ("SELECT v FROM t WHERE id = 7", "UPDATE t SET v = v + 1 WHERE id = 7");
    spent(read);
    spent(update);
    for _ in 0..3 {
        assert_eq!(spent(read), 1, "the begin");
        assert_eq!(spent(update), 2, "the begin and the commit");
    }
}

fn bulk_load(store: &TestStore) {
    const ROWS: i64 = 10_000;
    let db = store.open("db");
    run(
        &db,
        &format!(
            "BEGIN;
             CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB);
             WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{ROWS})
             INSERT INTO t SELECT i, randomblob(3000) FROM n;
             COMMIT;"
        ),
    );
    let sum = "SELECT sum(length(x)) FROM t";
    assert_eq!(one::<i64>(&store.open("db"), sum), ROWS * 3000);
    run(&db, "CREATE INDEX by_x ON t(x); VACUUM");
    sql::assert_sound(&db);
    let report = worker::sql(&store.uri("db"), &[sum]);
    assert_eq!(report.last().value().as_i64(), Some(ROWS * 3000), "{report:?}");
    store.assert_nothing_staged();
}

fn another_process(store: &TestStore) {
    let db = store.open("db");
    run(&db, "CREATE TABLE t(v); INSERT INTO t VALUES (0)");
    for round in 1..=3_i64 {
        run(&db, &format!("UPDATE t SET v = v + {round}"));
        let report = worker::sql(&store.uri("db"), &["UPDATE t SET v = v * 2 RETURNING v"]);
        let seen = report.last().value().as_i64().unwrap();
        assert_eq!(one::<i64>(&db, "SELECT v FROM t"), seen);
    }
    assert_eq!(one::<i64>(&db, "SELECT v FROM t"), 22);
}
