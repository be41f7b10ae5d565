//! What must conflict does, and nothing is left of the loser: two connections each, on every
//! kind of store. Each case ends in 517, autocommit on again, and a retry that works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use interleaf_tests::on_each_store;
use interleaf_tests::sql::{
    CONFLICT, assert_conflict, assert_sound, code, counter, one, one_row_per_leaf, run,
};
use interleaf_tests::store::TestStore;
use rusqlite::Connection;

on_each_store!(
    write_skew,
    write_skew_across_attached_databases,
    lost_update,
    lost_update_with_warm_caches,
    an_insert_into_a_leaf_that_was_freed,
    a_freed_leaf_into_which_was_inserted,
    a_freed_leaf_of_an_index,
    own_page_read_from_the_cache,
    own_page_of_an_earlier_transaction,
    rows_that_a_range_did_not_have,
    allocation_by_both,
    schema_change_under_a_writer,
    a_conflict_in_either_leaves_both_unchanged,
    a_conflict_in_either_at_synchronous_off,
    a_conflict_under_an_open_cursor,
    a_commit_under_an_open_cursor,
    conflicts_under_savepoints,
    a_conflict_after_a_spill,
    a_loser_sees_the_winner_at_once,
);

fn v(db: &Connection, id: u32) -> i64 {
    one(db, &format!("SELECT v FROM t WHERE id = {id}"))
}

fn set(id: u32, v: i64) -> String {
    format!("UPDATE t SET v = {v} WHERE id = {id}")
}

/// Commits `db`'s transaction, which must conflict; then `again` must work as a whole.
fn loses(db: &Connection, again: &str) {
    assert_conflict(db, db.execute_batch("COMMIT"));
    run(db, &format!("BEGIN; {again}; COMMIT"));
    assert_sound(db);
}

fn write_skew(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 2);
    run(&a, "UPDATE t SET v = 1");
    for db in [&a, &b] {
        run(db, "BEGIN");
        assert_eq!(one::<i64>(db, "SELECT sum(v) FROM t"), 2);
    }
    // At least one must stay on duty: each takes another one off.
    run(&a, &set(1, 0));
    run(&b, &set(2, 0));
    run(&a, "COMMIT");
    loses(&b, "UPDATE t SET v = 0 WHERE id = 2 AND (SELECT sum(v) FROM t) > 1");
    assert_eq!((v(&b, 1), v(&b, 2)), (0, 1), "the retry saw the winner");
}

fn write_skew_across_attached_databases(store: &TestStore) {
    let (a, b) = (store.open_attached("one", "two"), store.open_attached("one", "two"));
    one_row_per_leaf(&a, "main", 1);
    one_row_per_leaf(&a, "two", 1);
    run(&a, "BEGIN");
    assert_eq!(one::<i64>(&a, "SELECT v FROM two.t"), 0);
    run(&a, "UPDATE main.t SET v = 1");
    run(&b, "BEGIN");
    assert_eq!(one::<i64>(&b, "SELECT v FROM main.t"), 0);
    run(&b, "UPDATE two.t SET v = 1");
    run(&a, "COMMIT");
    loses(&b, "UPDATE two.t SET v = 1 WHERE (SELECT v FROM main.t) = 0");
    assert_eq!(one::<i64>(&a, "SELECT v FROM two.t"), 0);
    assert_eq!(one::<i64>(&b, "SELECT v FROM main.t"), 1);
}

fn lost_update(store: &TestStore) {
    one_row_per_leaf(&store.open("db"), "main", 3);
    let (a, b) = (store.open("db"), store.open("db"));
    increment_in_both(&a, &b);
}

fn lost_update_with_warm_caches(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 3);
    for db in [&a, &b] {
        assert_eq!(one::<i64>(db, "SELECT sum(v) FROM t"), 0);
    }
    increment_in_both(&a, &b);
}

fn increment_in_both(a: &Connection, b: &Connection) {
    for db in [a, b] {
        run(db, "BEGIN");
        assert_eq!(v(db, 2), 0);
        run(db, &set(2, 1));
    }
    run(a, "COMMIT");
    loses(b, "UPDATE t SET v = v + 1 WHERE id = 2");
    assert_eq!(v(b, 2), 2);
    assert!(counter(b, "conflicts") >= 1);
    assert_eq!(v(a, 2), 2);
}

/// Leaves about half full: 400 rows with ids 20, 40, ... of about 110 bytes.
fn half_full_leaves(db: &Connection) {
    run(
        db,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, pad TEXT);
         CREATE INDEX by_name ON t(name);
         WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<800)
         INSERT INTO t SELECT i * 10, printf('name %06d', i * 10), hex(zeroblob(40)) FROM n;
         DELETE FROM t WHERE id % 20 = 10;",
    );
}

const FREE: &str = "DELETE FROM t WHERE id BETWEEN 2000 AND 6000";
const INSERT: &str = "INSERT INTO t VALUES (4001, 'name 004001', 'between')";

fn warmed(store: &TestStore) -> (Connection, Connection) {
    let (a, b) = (store.open("db"), store.open("db"));
    half_full_leaves(&a);
    for db in [&a, &b] {
        assert_eq!(one::<i64>(db, "SELECT count(pad) FROM t"), 400);
        assert_eq!(one::<i64>(db, "SELECT count(name) FROM t INDEXED BY by_name"), 400);
    }
    (a, b)
}

fn an_insert_into_a_leaf_that_was_freed(store: &TestStore) {
    let (a, b) = warmed(store);
    run(&a, &format!("BEGIN; {INSERT}"));
    run(&b, &format!("BEGIN; {FREE}; COMMIT"));
    loses(&a, INSERT);
    assert_eq!(one::<i64>(&a, "SELECT count(*) FROM t"), 400 - 201 + 1);
}

/// Freed pages are not written: only what was read of the leaf tells.
fn a_freed_leaf_into_which_was_inserted(store: &TestStore) {
    let (a, b) = warmed(store);
    run(&a, &format!("BEGIN; {FREE}"));
    run(&b, &format!("BEGIN; {INSERT}; COMMIT"));
    loses(&a, FREE);
    assert_eq!(one::<i64>(&b, "SELECT count(*) FROM t"), 400 - 201);
    assert_sound(&b);
}

fn a_freed_leaf_of_an_index(store: &TestStore) {
    let (a, b) = warmed(store);
    run(&a, "BEGIN; DELETE FROM t WHERE name BETWEEN 'name 002' AND 'name 006'");
    run(&b, "UPDATE t SET name = 'name 004005' WHERE id = 7000");
    loses(&a, "DELETE FROM t WHERE name BETWEEN 'name 002' AND 'name 006'");
    assert_eq!(one::<i64>(&a, "SELECT count(*) FROM t WHERE id = 7000"), 0);
    assert_sound(&b);
}

/// SQLite reads pages that the connection wrote itself from its own cache, without asking.
fn own_page_read_from_the_cache(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    run(&a, "CREATE TABLE t(x); CREATE TABLE u(x); INSERT INTO t VALUES (1)");
    run(&a, "BEGIN");
    assert_eq!(one::<i64>(&a, "SELECT x FROM t"), 1);
    run(&b, "UPDATE t SET x = 2");
    run(&a, "INSERT INTO u VALUES (1)");
    loses(&a, "INSERT INTO u SELECT x FROM t");
    assert_eq!(one::<i64>(&b, "SELECT x FROM u"), 2);
}

fn own_page_of_an_earlier_transaction(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 4);
    run(&a, &set(1, 5));
    run(&a, &set(2, 5));
    run(&a, "BEGIN");
    assert_eq!(v(&a, 1), 5);
    run(&a, &set(3, 5));
    run(&b, &set(1, 6));
    loses(&a, "UPDATE t SET v = (SELECT v FROM t WHERE id = 1) WHERE id = 3");
    assert_eq!(v(&b, 3), 6);
}

/// A predicate that found nothing is a read as well.
fn rows_that_a_range_did_not_have(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    run(&a, "CREATE TABLE booking(seat INTEGER PRIMARY KEY, who); CREATE TABLE audit(what)");
    for db in [&a, &b] {
        run(db, "BEGIN");
        assert_eq!(one::<i64>(db, "SELECT count(*) FROM booking WHERE seat = 12"), 0);
    }
    run(&a, "INSERT INTO booking VALUES (12, 'a')");
    run(&b, "INSERT INTO audit VALUES ('seat 12 is free')");
    run(&a, "COMMIT");
    loses(&b, "INSERT INTO audit SELECT 'taken by ' || who FROM booking WHERE seat = 12");
    assert_eq!(one::<String>(&a, "SELECT what FROM audit"), "taken by a");
}

/// Two that both grow the database would write the same new page.
fn allocation_by_both(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    run(&a, "CREATE TABLE t(x); CREATE TABLE u(x)");
    run(&a, "BEGIN; INSERT INTO t VALUES (randomblob(50000))");
    run(&b, "BEGIN; INSERT INTO u VALUES (randomblob(50000))");
    run(&a, "COMMIT");
    loses(&b, "INSERT INTO u VALUES (randomblob(50000))");
    assert_eq!(one::<i64>(&a, "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)"), 2);
    assert_sound(&a);
}

fn schema_change_under_a_writer(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 3);
    run(&b, "BEGIN");
    run(&b, &set(1, 1));
    run(&a, "ALTER TABLE t ADD COLUMN extra DEFAULT 7");
    loses(&b, "UPDATE t SET v = extra WHERE id = 1");
    assert_eq!(v(&a, 1), 7);
}

fn a_conflict_in_either_leaves_both_unchanged(store: &TestStore) {
    in_either("FULL", store);
}

/// SQLite then uses no super-journal.
fn a_conflict_in_either_at_synchronous_off(store: &TestStore) {
    in_either("OFF", store);
}

fn in_either(level: &str, store: &TestStore) {
    let a = store.open_attached("one", "two");
    run(&a, &format!("PRAGMA main.synchronous={level}; PRAGMA two.synchronous={level}"));
    one_row_per_leaf(&a, "main", 2);
    one_row_per_leaf(&a, "two", 2);
    let values = |db: &Connection| -> (i64, i64) {
        (one(db, "SELECT v FROM main.t WHERE id = 1"), one(db, "SELECT v FROM two.t WHERE id = 1"))
    };
    for (round, loser) in [(1, "one"), (2, "two")] {
        let before = values(&a);
        run(
            &a,
            "BEGIN;
             UPDATE main.t SET v = v + 10 WHERE id = 1;
             UPDATE two.t SET v = v + 10 WHERE id = 1;",
        );
        // The same leaf of one of the two, and a leaf of its own kind.
        let other = store.open(loser);
        run(&other, "UPDATE t SET v = v + 1 WHERE id = 1");
        assert_conflict(&a, a.execute_batch("COMMIT"));
        let expected =
            if loser == "one" { (before.0 + 1, before.1) } else { (before.0, before.1 + 1) };
        assert_eq!(values(&a), expected, "round {round}: conflict in {loser}");
        assert_eq!(values(&store.open_attached("one", "two")), expected);
        run(
            &a,
            "BEGIN;
             UPDATE main.t SET v = v + 10 WHERE id = 1;
             UPDATE two.t SET v = v + 10 WHERE id = 1;
             COMMIT;",
        );
        assert_eq!(values(&a), (expected.0 + 10, expected.1 + 10));
    }
    assert_sound(&a);
    assert_eq!(one::<String>(&a, "PRAGMA two.integrity_check"), "ok");
}

fn conflicts_under_savepoints(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 3);
    run(&b, "SAVEPOINT s");
    assert_eq!(v(&b, 1), 0);
    run(&b, "SAVEPOINT inner");
    run(&b, &set(2, 9));
    run(&b, "ROLLBACK TO inner; RELEASE inner");
    run(&b, &set(3, 1));
    run(&a, &set(1, 1));
    // SQLite rolls back, and yet says that a transaction is open after a RELEASE that failed.
    assert_eq!(code(&b.execute_batch("RELEASE s").unwrap_err()), CONFLICT);
    run(&b, "ROLLBACK");
    assert_eq!((v(&b, 1), v(&b, 2), v(&b, 3)), (1, 0, 0));
    run(&b, "SAVEPOINT s");
    run(&b, &set(3, 1));
    run(&b, "RELEASE s");
    assert_eq!(v(&a, 3), 1);
}

/// SQLite writes pages before the commit where its cache is too small for them.
fn a_conflict_after_a_spill(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 400);
    run(&b, "PRAGMA cache_size = 10; PRAGMA cache_spill = 10");
    run(&b, "BEGIN; UPDATE t SET v = 3, pad = randomblob(3000)");
    run(&a, &set(300, 1));
    assert_conflict(&b, b.execute_batch("COMMIT"));
    assert_eq!(one::<i64>(&b, "SELECT sum(v) FROM t"), 1);
    assert_sound(&b);
    run(&b, "BEGIN; UPDATE t SET v = 3; COMMIT");
    assert_eq!(one::<i64>(&a, "SELECT sum(v) FROM t"), 1200);
    run(&b, "BEGIN; UPDATE t SET v = 4; ROLLBACK");
    assert_eq!(one::<i64>(&b, "SELECT sum(v) FROM t"), 1200);
    assert_sound(&a);
}

/// A SELECT is still being read when the COMMIT of its connection fails.
fn a_conflict_under_an_open_cursor(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 20);
    run(&b, "BEGIN");
    let mut select = b.prepare("SELECT v FROM t ORDER BY id").unwrap();
    let mut rows = select.query([]).unwrap();
    assert_eq!(rows.next().unwrap().unwrap().get(0), Ok(0));
    run(&b, &set(5, 7));
    run(&a, &set(1, 1));
    assert_conflict(&b, b.execute_batch("COMMIT"));
    // What was rolled back is seen neither by the cursor nor afterwards.
    loop {
        match rows.next() {
            Ok(Some(row)) => assert_ne!(row.get(0), Ok(7)),
            Ok(None) => break,
            Err(error) => {
                assert_eq!(code(&error) & 0xff, 4, "SQLITE_ABORT_ROLLBACK, not {error}");
                break;
            }
        }
    }
    drop(rows);
    drop(select);
    assert_eq!((v(&b, 1), v(&b, 5)), (1, 0));
    run(&b, &set(5, 8));
    assert_eq!(one::<i64>(&a, "SELECT sum(v) FROM t"), 9);
    assert_sound(&b);
}

/// A SELECT is still being read when its connection commits, others having committed before:
/// its rows are of one moment, be it before or after the commit that found all it had read
/// unchanged.
fn a_commit_under_an_open_cursor(store: &TestStore) {
    one_row_per_leaf(&store.open("db"), "main", 40);
    let (a, b) = (store.open("db"), store.open("db"));
    run(&a, "PRAGMA cache_size = 10");
    let mut select = a.prepare("SELECT id, v FROM t WHERE id > 2 ORDER BY id").unwrap();
    let mut rows = select.query([]).unwrap();
    assert!(rows.next().unwrap().is_some());
    run(&b, "UPDATE t SET v = 1 WHERE id IN (30, 40)");
    run(&a, "UPDATE t SET v = 5 WHERE id = 1");
    let mut sum = 0;
    while let Some(row) = rows.next().unwrap() {
        sum += row.get::<_, i64>(1).unwrap();
    }
    assert!(sum == 0 || sum == 2, "rows 30 and 40 of two moments");
    drop(rows);
    drop(select);
    assert_eq!((v(&a, 30), v(&a, 1)), (1, 5));
    assert_eq!(one::<i64>(&b, "SELECT sum(v) FROM t"), 7);
    assert_sound(&a);
}

/// Single statements in autocommit are transactions like any other: they never lose to a
/// commit that was acknowledged before they began.
fn a_loser_sees_the_winner_at_once(store: &TestStore) {
    let (a, b) = (store.open("db"), store.open("db"));
    one_row_per_leaf(&a, "main", 2);
    for _ in 0..50 {
        for db in [&a, &b] {
            let done = db.execute("UPDATE t SET v = v + 1 WHERE id = 1", []);
            assert_eq!(done.map_err(|e| code(&e)), Ok(1));
        }
    }
    assert_eq!((v(&a, 1), v(&b, 1)), (100, 100));
    assert_eq!(counter(&a, "conflicts") + counter(&b, "conflicts"), 0);
    // Nor does a reader see its snapshot move.
    run(&a, "BEGIN");
    assert_eq!(v(&a, 1), 100);
    run(&b, &set(1, 0));
    assert_eq!(v(&a, 1), 100);
    run(&a, "COMMIT");
    assert_eq!(v(&a, 1), 0);
}
