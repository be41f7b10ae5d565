//! Transactions that write more than a connection keeps in memory (8 MiB): undone in part, as a
//! whole, by a conflict, by a death; and VACUUM, with and without another page size.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::os::unix::process::ExitStatusExt;

use interleaf_tests::on_each_own_store;
use interleaf_tests::process::{self, LIMIT};
use interleaf_tests::sql::{assert_conflict, assert_sound, counter, one, run};
use interleaf_tests::store::TestStore;
use interleaf_tests::worker;
use interleaf_wire::ConnectOptions;
use rusqlite::Connection;

on_each_own_store!(
    parts_of_it_are_undone,
    all_of_it_is_undone,
    a_conflict_leaves_nothing,
    a_death_leaves_nothing,
    vacuum_with_and_without_another_page_size,
    indexes_of_attached_databases,
);

/// Each on a page of its own: 36 MB.
const ROWS: i64 = 9_000;

/// All rows get a text that says which row it is and, by `v`, whose writing.
fn rewrite(v: i64) -> String {
    format!("UPDATE t SET v = {v}, pad = printf('%03000d', id * 1000 + {v})")
}

fn fill(db: &Connection) {
    let fill = "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad TEXT);
         WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i < ";
    run(
        db,
        &format!(
            "BEGIN; {fill}{ROWS}) INSERT INTO t SELECT i, 0, printf('%03000d', i * 1000) FROM n;
             COMMIT"
        ),
    );
}

/// Checks that rows are as [`rewrite`] with their `v` left them, and how many there are of each.
fn check(db: &Connection, expected: &[(i64, i64)]) {
    let right = "SELECT count(*) FROM t WHERE pad = printf('%03000d', id * 1000 + v)";
    assert_eq!(one::<i64>(db, right), expected.iter().map(|(_, rows)| rows).sum::<i64>());
    for (v, rows) in expected {
        assert_eq!(one::<i64>(db, &format!("SELECT count(*) FROM t WHERE v = {v}")), *rows);
    }
}

/// Pages staged in the store.
fn staged_pages(store: &TestStore) -> u64 {
    let deadline = ConnectOptions::default().env.deadline(LIMIT);
    store.backend().count_records(deadline).unwrap().subspaces["staged_pages"].0
}

fn parts_of_it_are_undone(store: &TestStore) {
    let db = store.open("db");
    fill(&db);
    run(&db, &format!("BEGIN; {}; SAVEPOINT s; {}", rewrite(1), rewrite(2)));
    run(&db, "DELETE FROM t WHERE id % 2 = 0; INSERT INTO t SELECT id + 100000, 3, pad FROM t");
    assert_eq!(one::<i64>(&db, "SELECT count(*) FROM t WHERE v = 3"), ROWS / 2);
    run(&db, "ROLLBACK TO s");
    check(&db, &[(1, ROWS)]);
    run(
        &db,
        "DELETE FROM t WHERE id > 8000; UPDATE t SET v = 4, pad = printf('%03000d', id * 1000 + 4) WHERE id < 11",
    );
    check(&store.open("db"), &[(0, ROWS)]);
    run(&db, "COMMIT");
    for db in [&db, &store.open("db")] {
        check(db, &[(1, 7_990), (4, 10)]);
        assert_sound(db);
    }
    store.assert_nothing_staged();
}

fn all_of_it_is_undone(store: &TestStore) {
    let db = store.open("db");
    fill(&db);
    let before = counter(&db, "commits");
    let undone = format!("BEGIN; {}; DELETE FROM t WHERE id > 100; ROLLBACK", rewrite(1));
    run(&db, &undone);
    assert_eq!(counter(&db, "commits"), before);
    check(&db, &[(0, ROWS)]);
    run(&db, "DELETE FROM t WHERE id = 1");
    check(&store.open("db"), &[(0, ROWS - 1)]);
    assert_sound(&db);
}

fn a_conflict_leaves_nothing(store: &TestStore) {
    let (db, other) = (store.open("db"), store.open("db"));
    fill(&db);
    run(&db, &format!("BEGIN; {}", rewrite(1)));
    run(&other, "UPDATE t SET v = 7, pad = printf('%03000d', id * 1000 + 7) WHERE id = 5");
    assert_conflict(&db, db.execute_batch("COMMIT"));
    store.assert_nothing_staged();
    for db in [&db, &other] {
        check(db, &[(0, ROWS - 1), (7, 1)]);
    }
    run(&db, &format!("BEGIN; {}; COMMIT", rewrite(2)));
    check(&other, &[(2, ROWS)]);
    assert_eq!(counter(&db, "conflicts"), 1);
    assert_sound(&other);
}

/// The process dies when all its pages are in the store, and its commit is not.
fn a_death_leaves_nothing(store: &TestStore) {
    {
        // Closed before another process opens it.
        fill(&store.open("db"));
    }
    let output = process::run(
        worker::command()
            .args(["sql", &store.uri("db"), &rewrite(1)])
            .env("INTERLEAF_FAULT", "client.before-commit=kill"),
    );
    assert_eq!(output.status.signal(), Some(9), "{output:?}");
    let db = store.open("db");
    check(&db, &[(0, ROWS)]);
    assert!(staged_pages(store) > ROWS.unsigned_abs() / 2, "it died before its pages were sent");
    run(&db, &rewrite(2));
    check(&store.open("db"), &[(2, ROWS)]);
    assert_sound(&db);
}

fn vacuum_with_and_without_another_page_size(store: &TestStore) {
    let db = store.open("db");
    fill(&db);
    run(&db, "DELETE FROM t WHERE id % 5 = 0");
    for page_size in [4096, 16384, 1024, 4096] {
        run(&db, &format!("PRAGMA page_size = {page_size}; VACUUM"));
        for db in [&db, &store.open("db")] {
            assert_eq!(one::<i64>(db, "PRAGMA page_size"), page_size);
            check(db, &[(0, ROWS / 5 * 4)]);
            assert_sound(db);
        }
    }
    store.assert_nothing_staged();
}

fn indexes_of_attached_databases(store: &TestStore) {
    let db = store.open_attached("one", "two");
    fill(&db);
    run(&db, "CREATE TABLE two.t AS SELECT * FROM main.t");
    run(
        &db,
        "BEGIN; CREATE INDEX main.by_pad ON t(pad, v); CREATE INDEX two.by_pad ON t(pad, v); COMMIT",
    );
    for name in ["one", "two"] {
        let db = store.open(name);
        check(&db, &[(0, ROWS)]);
        assert_eq!(one::<i64>(&db, "SELECT v FROM t WHERE pad = printf('%03000d', 77000)"), 0);
        assert_sound(&db);
    }
    store.assert_nothing_staged();
}
