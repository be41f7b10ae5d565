//! Conflicts are of pages, not of databases: writers of different pages do not meet. On every
//! kind of store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Barrier;

use interleaf_tests::on_each_store;
use interleaf_tests::sql::{assert_conflict, assert_sound, counter, one, one_row_per_leaf, run};
use interleaf_tests::store::{Kind, TestStore};
use rusqlite::Connection;

on_each_store!(
    two_open_transactions_on_different_leaves_both_commit,
    warm_connections_commit_at_the_second_try,
    different_tables_of_attached_databases_both_commit,
    sixteen_writers_on_their_own_leaves,
    writers_that_read_twenty_thousand_pages,
    writers_of_five_thousand_pages,
    commits_too_large_for_one_request,
);

const WRITERS: u32 = 16;

fn two_open_transactions_on_different_leaves_both_commit(store: &TestStore) {
    one_row_per_leaf(&store.open("db"), "main", 8);
    let (a, b) = (store.open("db"), store.open("db"));
    run(&a, "BEGIN; UPDATE t SET v = 1 WHERE id = 2");
    run(&b, "BEGIN; UPDATE t SET v = 1 WHERE id = 7");
    run(&a, "COMMIT");
    run(&b, "COMMIT");
    for db in [&a, &b] {
        assert_eq!(one::<i64>(db, "SELECT sum(v) FROM t"), 2);
        assert_eq!(counter(db, "conflicts"), 0);
        assert_eq!(counter(db, "commits"), 1);
    }
    assert_sound(&a);
}

/// A connection may have read what its pager has cached without the VFS seeing it: that is a
/// conflict where it was changed. The retry begins with an empty cache and is exact.
fn warm_connections_commit_at_the_second_try(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 8);
    for db in [&a, &b] {
        assert_eq!(one::<i64>(db, "SELECT sum(v) FROM t"), 0);
    }
    let update = "BEGIN; UPDATE t SET v = 1 WHERE id = 7";
    for _ in 0..3 {
        run(&a, update);
        run(&b, "UPDATE t SET v = v + 1 WHERE id = 2");
        if a.execute_batch("COMMIT").is_err() {
            // Now with another commit in between once more: the leaf of 2 is not read.
            run(&a, update);
            run(&b, "UPDATE t SET v = v + 1 WHERE id = 2");
            run(&a, "COMMIT");
        }
        assert_eq!(one::<i64>(&a, "SELECT sum(v) FROM t"), one::<i64>(&b, "SELECT sum(v) FROM t"));
    }
    assert_sound(&a);
}

fn different_tables_of_attached_databases_both_commit(store: &TestStore) {
    let first = store.open_attached("one", "two");
    one_row_per_leaf(&first, "main", 4);
    one_row_per_leaf(&first, "two", 4);
    let (a, b) = (store.open_attached("one", "two"), store.open_attached("one", "two"));
    run(&a, "BEGIN; UPDATE main.t SET v = 1 WHERE id = 1; UPDATE two.t SET v = 1 WHERE id = 1");
    run(&b, "BEGIN; UPDATE main.t SET v = 1 WHERE id = 3; UPDATE two.t SET v = 1 WHERE id = 3");
    run(&b, "COMMIT");
    run(&a, "COMMIT");
    assert_eq!(one::<i64>(&b, "SELECT sum(o.v + t.v) FROM main.t o JOIN two.t t USING (id)"), 4);
}

/// Runs `work` on so many connections at once, and checks that none met a conflict.
fn without_conflicts(
    store: &TestStore,
    writers: u32,
    work: impl Fn(&Connection, u32, &Barrier) + Sync,
) {
    let barrier = Barrier::new(writers as usize);
    std::thread::scope(|scope| {
        for writer in 1..=writers {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                let db = store.open("db");
                work(&db, writer, barrier);
                assert_eq!(counter(&db, "conflicts"), 0, "writer {writer}");
                assert_eq!(counter(&db, "retries"), 0, "writer {writer}");
            });
        }
    });
}

fn sixteen_writers_on_their_own_leaves(store: &TestStore) {
    const ROUNDS: i64 = 10;
    one_row_per_leaf(&store.open("db"), "main", WRITERS);
    without_conflicts(store, WRITERS, |db, writer, barrier| {
        barrier.wait();
        for _ in 0..ROUNDS {
            run(db, &format!("UPDATE t SET v = v + 1 WHERE id = {writer}"));
        }
        assert_eq!(counter(db, "commits"), u64::try_from(ROUNDS).unwrap());
    });
    let db = store.open("db");
    assert_eq!(one::<i64>(&db, &format!("SELECT count(*) FROM t WHERE v = {ROUNDS}")), 16);
    assert_sound(&db);
}

/// A table `big(id, v, pad)` with a row a page of 512 bytes.
fn small_pages(db: &Connection, rows: u32) {
    run(
        db,
        &format!(
            "PRAGMA page_size = 512;
             BEGIN;
             CREATE TABLE big(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad BLOB);
             WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{rows})
             INSERT INTO big SELECT i, 0, randomblob(400) FROM n;
             CREATE TABLE own(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad BLOB);
             WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{WRITERS})
             INSERT INTO own SELECT i, 0, zeroblob(400) FROM n;
             COMMIT"
        ),
    );
    assert_eq!(one::<i64>(db, "PRAGMA page_size"), 512);
}

fn writers_that_read_twenty_thousand_pages(store: &TestStore) {
    const ROWS: u32 = 20_000;
    small_pages(&store.open("db"), ROWS);
    without_conflicts(store, WRITERS, |db, writer, barrier| {
        run(db, "BEGIN");
        assert_eq!(one::<u32>(db, "SELECT count(*) FROM big WHERE length(pad) = 400"), ROWS);
        run(db, &format!("UPDATE own SET v = v + 1 WHERE id = {writer}"));
        barrier.wait();
        run(db, "COMMIT");
    });
    let db = store.open("db");
    assert_eq!(one::<u32>(&db, "SELECT sum(v) FROM own"), WRITERS);
    // The read set does count: one page of twenty thousand that changed is a conflict.
    let other = store.open("db");
    run(&db, "BEGIN");
    assert_eq!(one::<u32>(&db, "SELECT count(*) FROM big WHERE length(pad) = 400"), ROWS);
    run(&db, "UPDATE own SET v = 0");
    run(&other, "UPDATE big SET v = 1 WHERE id = 12345");
    assert_conflict(&db, db.execute_batch("COMMIT"));
    assert_eq!(one::<u32>(&db, "SELECT sum(v) FROM own"), WRITERS);
}

fn writers_of_five_thousand_pages(store: &TestStore) {
    const EACH: u32 = 5_000;
    // To find the end of a range SQLite reads the row behind it: a few rows lie between.
    const STRIDE: u32 = EACH + 10;
    let writers = if store.kind == Kind::Dir { WRITERS } else { 4 };
    small_pages(&store.open("db"), STRIDE * writers);
    without_conflicts(store, writers, |db, writer, barrier| {
        let first = (writer - 1) * STRIDE + 1;
        let last = first + EACH - 1;
        run(db, "BEGIN");
        let update = format!("UPDATE big SET v = 1 WHERE id BETWEEN {first} AND {last}");
        assert_eq!(db.execute(&update, []).unwrap(), EACH as usize);
        barrier.wait();
        run(db, "COMMIT");
    });
    let db = store.open("db");
    assert_eq!(one::<u32>(&db, "SELECT sum(v) FROM big"), EACH * writers);
    assert_sound(&db);
}

/// Ten megabytes each: their pages are staged ahead of the commit.
fn commits_too_large_for_one_request(store: &TestStore) {
    const EACH: u32 = 2_500;
    one_row_per_leaf(&store.open("db"), "main", 2 * EACH + 10);
    let update = |first: u32| {
        let last = first + EACH - 1;
        format!("UPDATE t SET v = v + 1, pad = zeroblob(3000) WHERE id BETWEEN {first} AND {last}")
    };
    without_conflicts(store, 2, |db, writer, barrier| {
        run(db, "BEGIN");
        run(db, &update(if writer == 1 { 1 } else { EACH + 10 }));
        barrier.wait();
        run(db, "COMMIT");
    });
    let (a, b) = (store.open("db"), store.open("db"));
    assert_eq!(one::<u32>(&a, "SELECT sum(v) FROM t"), 2 * EACH);
    // One page of them changed meanwhile: nothing of it takes effect.
    run(&a, "BEGIN");
    run(&a, &update(1));
    run(&b, "UPDATE t SET v = 100 WHERE id = 1234");
    assert_conflict(&a, a.execute_batch("COMMIT"));
    assert_eq!(one::<u32>(&a, "SELECT sum(v) FROM t"), 2 * EACH + 99);
    run(&a, &update(1));
    assert_eq!(one::<u32>(&b, "SELECT sum(v) FROM t"), 3 * EACH + 99);
    assert_sound(&b);
}
