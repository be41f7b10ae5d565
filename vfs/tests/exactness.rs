//! What two connections may and may not do at once: each conflict that must be seen, and
//! none that must not.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use std::sync::{Arc, Barrier};

use common::{attach, check, code, fresh, number, open, stat, text};
use rusqlite::Connection;

const BUSY_SNAPSHOT: i32 = 517;

fn pair(name: &str, setup: &str) -> (Connection, Connection) {
    let name = fresh(name);
    let a = open(&name);
    a.execute_batch(setup).unwrap();
    let b = open(&name);
    (a, b)
}

/// Rows big enough that each is on a leaf of its own.
const LEAVES: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, pad TEXT);
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 64)
    INSERT INTO t SELECT x, 100, printf('%03000d', x) FROM c;";

#[test]
fn a_lost_update_is_a_conflict() {
    let (a, b) = pair("lost", "CREATE TABLE t(n); INSERT INTO t VALUES (1)");
    for db in [&a, &b] {
        db.execute_batch("BEGIN; UPDATE t SET n = n + 1").unwrap();
    }
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(code(b.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    assert!(b.is_autocommit(), "rolled back");
    assert_eq!(number(&b, "SELECT n FROM t"), 2);
    b.execute_batch("UPDATE t SET n = n + 1").unwrap();
    assert_eq!(number(&a, "SELECT n FROM t"), 3);
    assert_eq!((stat(&b, "conflicts"), stat(&a, "conflicts")), (1, 0));
}

#[test]
fn write_skew_is_a_conflict() {
    let (a, b) = pair("skew", LEAVES);
    for (db, mine) in [(&a, 1), (&b, 60)] {
        db.execute_batch("BEGIN").unwrap();
        assert_eq!(number(db, "SELECT sum(n) FROM t WHERE id IN (1, 60)"), 200);
        db.execute_batch(&format!("UPDATE t SET n = n - 150 WHERE id = {mine}")).unwrap();
    }
    b.execute_batch("COMMIT").unwrap();
    assert_eq!(code(a.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    assert_eq!(number(&a, "SELECT sum(n) FROM t WHERE id IN (1, 60)"), 50);
}

#[test]
fn write_skew_across_attached_databases_is_a_conflict() {
    let (one, two) = (fresh("one"), fresh("two"));
    for name in [&one, &two] {
        open(name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (100)").unwrap();
    }
    let (a, b) = (open(&one), open(&two));
    attach(&a, &two, "other");
    attach(&b, &one, "other");
    for db in [&a, &b] {
        db.execute_batch("BEGIN").unwrap();
        assert_eq!(number(db, "SELECT main.t.n + other.t.n FROM main.t, other.t"), 200);
        db.execute_batch("UPDATE main.t SET n = n - 150").unwrap();
    }
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(code(b.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    assert_eq!(number(&b, "SELECT main.t.n + other.t.n FROM main.t, other.t"), 50);
}

#[test]
fn a_warm_cache_hides_no_read() {
    // The second connection has every page in SQLite's cache and asks for none again.
    let (a, b) = pair("freed", LEAVES);
    b.execute_batch("PRAGMA cache_size = 1000").unwrap();
    assert_eq!(number(&b, "SELECT sum(length(pad)) FROM t"), 64 * 3000);
    b.execute_batch("BEGIN").unwrap();
    assert_eq!(number(&b, "SELECT count(*) FROM t WHERE length(pad) > 0"), 64);
    b.execute_batch("INSERT INTO t VALUES (1000, 1, '')").unwrap();
    a.execute_batch("UPDATE t SET n = 1 WHERE id = 5").unwrap();
    assert_eq!(code(b.execute_batch("COMMIT")), BUSY_SNAPSHOT);
}

#[test]
fn a_freed_leaf_that_another_inserts_into_is_a_conflict() {
    let (a, b) = pair("leaf", &format!("{LEAVES} CREATE INDEX i ON t(pad)"));
    for db in [&a, &b] {
        assert_eq!(number(db, "SELECT count(*) FROM t WHERE pad >= ''"), 64);
    }
    a.execute_batch("BEGIN; DELETE FROM t WHERE id BETWEEN 20 AND 30").unwrap();
    b.execute_batch("BEGIN; UPDATE t SET pad = pad || 'x' WHERE id = 25").unwrap();
    b.execute_batch("COMMIT").unwrap();
    assert_eq!(code(a.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    check(&a);
    a.execute_batch("DELETE FROM t WHERE id BETWEEN 20 AND 30").unwrap();
    check(&b);
    assert_eq!(number(&b, "SELECT count(*) FROM t"), 53);
}

#[test]
fn a_page_written_and_read_from_sqlites_own_cache_counts_as_read() {
    let name = fresh("own");
    let (a, b) = (open(&name), open(&name));
    a.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1); CREATE TABLE u(n)").unwrap();
    assert_eq!(number(&b, "SELECT n FROM t"), 1);
    a.execute_batch("BEGIN").unwrap();
    assert_eq!(number(&a, "SELECT n FROM t"), 1);
    a.execute_batch("INSERT INTO u SELECT n FROM t").unwrap();
    b.execute_batch("UPDATE t SET n = 2").unwrap();
    assert_eq!(code(a.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    assert_eq!(number(&a, "SELECT count(*) FROM u"), 0);
}

#[test]
fn writers_on_different_leaves_both_commit() {
    let name = fresh("leaves");
    open(&name).execute_batch(LEAVES).unwrap();
    let (a, b) = (open(&name), open(&name));
    a.execute_batch("BEGIN; UPDATE t SET n = 1 WHERE id = 1").unwrap();
    b.execute_batch("BEGIN; UPDATE t SET n = 2 WHERE id = 60").unwrap();
    a.execute_batch("COMMIT").unwrap();
    b.execute_batch("COMMIT").unwrap();
    let c = open(&name);
    assert_eq!(text(&c, "SELECT group_concat(n) FROM t WHERE id IN (1, 60)"), "1,2");
    check(&c);
}

#[test]
fn sixteen_writers_on_their_own_leaves_never_conflict() {
    let name = fresh("sixteen");
    open(&name).execute_batch(LEAVES).unwrap();
    let barrier = Arc::new(Barrier::new(16));
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let (name, barrier) = (name.clone(), Arc::clone(&barrier));
            std::thread::spawn(move || {
                let db = open(&name);
                barrier.wait();
                for _ in 0..50 {
                    let sql = format!("UPDATE t SET n = n + 1 WHERE id = {}", n * 4 + 1);
                    db.execute_batch(&sql).unwrap();
                }
                stat(&db, "conflicts")
            })
        })
        .collect();
    let conflicts: i64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(conflicts, 0);
    let db = open(&name);
    assert_eq!(number(&db, "SELECT sum(n) FROM t"), 64 * 100 + 16 * 50);
    check(&db);
}

#[test]
fn two_that_allocate_conflict_and_the_retry_succeeds() {
    let (a, b) = pair("grow", LEAVES);
    for (db, id) in [(&a, 2000), (&b, 3000)] {
        let sql = format!("BEGIN; INSERT INTO t VALUES ({id}, 0, printf('%09000d', 1))");
        db.execute_batch(&sql).unwrap();
    }
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(code(b.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    b.execute_batch("INSERT INTO t VALUES (3000, 0, printf('%09000d', 1))").unwrap();
    check(&a);
    assert_eq!(number(&a, "SELECT count(*) FROM t"), 66);
}

#[test]
fn a_schema_change_conflicts_with_everything() {
    let (a, b) = pair("ddl", LEAVES);
    b.execute_batch("BEGIN; UPDATE t SET n = 0 WHERE id = 50").unwrap();
    a.execute_batch("CREATE TABLE u(a)").unwrap();
    assert_eq!(code(b.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    b.execute_batch("UPDATE t SET n = 0 WHERE id = 50; INSERT INTO u VALUES (1)").unwrap();
}

#[test]
fn two_first_writers_of_an_empty_database_conflict() {
    let name = fresh("empty");
    let (a, b) = (open(&name), open(&name));
    for (db, table) in [(&a, "x"), (&b, "y")] {
        db.execute_batch(&format!("BEGIN; CREATE TABLE {table}(a)")).unwrap();
    }
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(code(b.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    b.execute_batch("CREATE TABLE y(a); INSERT INTO x VALUES (1)").unwrap();
    check(&a);
    assert_eq!(number(&a, "SELECT count(*) FROM sqlite_schema"), 2);
}

#[test]
fn one_commit_over_two_databases_is_all_or_nothing() {
    for (pragma, loser) in [("FULL", "one"), ("FULL", "two"), ("OFF", "one"), ("OFF", "two")] {
        let names = [fresh("one"), fresh("two")];
        for name in &names {
            open(name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
        }
        let db = open(&names[0]);
        attach(&db, &names[1], "two");
        let sync = format!("PRAGMA main.synchronous = {pragma}; PRAGMA two.synchronous = {pragma}");
        db.execute_batch(&sync).unwrap();
        db.execute_batch("BEGIN; UPDATE main.t SET n = 10; UPDATE two.t SET n = 10").unwrap();
        let other = open(if loser == "one" { &names[0] } else { &names[1] });
        other.execute_batch("UPDATE t SET n = 2").unwrap();
        assert_eq!(code(db.execute_batch("COMMIT")), BUSY_SNAPSHOT, "{pragma} {loser}");
        assert!(db.is_autocommit());
        let sum = "SELECT main.t.n + two.t.n FROM main.t, two.t";
        assert_eq!(number(&db, sum), 3, "{pragma} {loser}: the other's write and nothing else");
        let batch = "BEGIN; UPDATE main.t SET n = 10; UPDATE two.t SET n = 10; COMMIT";
        db.execute_batch(batch).unwrap();
        assert_eq!(number(&db, sum), 20);
        for name in &names {
            assert_eq!(number(&open(name), "SELECT n FROM t"), 10, "{pragma} {loser}");
        }
    }
}

#[test]
fn attached_databases_without_a_super_journal_commit_together() {
    // Behind a main database in memory SQLite writes no super-journal.
    let names = [fresh("one"), fresh("two")];
    for name in &names {
        open(name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    }
    let db = Connection::open_in_memory().unwrap();
    attach(&db, &names[0], "one");
    attach(&db, &names[1], "two");
    db.execute_batch("BEGIN; UPDATE one.t SET n = 10; UPDATE two.t SET n = 10").unwrap();
    open(&names[0]).execute_batch("UPDATE t SET n = 2").unwrap();
    assert_eq!(code(db.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    assert_eq!(number(&db, "SELECT one.t.n + two.t.n FROM one.t, two.t"), 3);
    let batch = "BEGIN; UPDATE one.t SET n = 10; UPDATE two.t SET n = 10; COMMIT";
    db.execute_batch(batch).unwrap();
    assert_eq!(number(&open(&names[1]), "SELECT n FROM t"), 10);
}

#[test]
fn a_half_of_anothers_commit_is_never_seen() {
    let names = [fresh("one"), fresh("two")];
    for name in &names {
        open(name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    }
    let reader = open(&names[0]);
    attach(&reader, &names[1], "two");
    let writer = open(&names[0]);
    attach(&writer, &names[1], "two");
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(number(&reader, "SELECT n FROM main.t"), 1);
    writer.execute_batch("BEGIN; UPDATE main.t SET n = 2; UPDATE two.t SET n = 2; COMMIT").unwrap();
    assert_eq!(number(&reader, "SELECT n FROM two.t"), 1, "the snapshot of the first read");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&reader, "SELECT main.t.n + two.t.n FROM main.t, two.t"), 4);
}

#[test]
fn a_half_is_not_seen_either_while_a_statement_goes_on_after_an_own_commit() {
    let (one, two) = (fresh("one"), fresh("two"));
    open(&one).execute_batch(LEAVES).unwrap();
    open(&two).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)").unwrap();
    let (db, other) = (open(&one), open(&one));
    attach(&db, &two, "other");
    attach(&other, &two, "other");
    let mut statement = db.prepare("SELECT n, pad FROM main.t ORDER BY id").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap();
    // What the statement has not come to yet and the other database, in one commit.
    other
        .execute_batch(
            "BEGIN; UPDATE main.t SET n = 0 WHERE id = 60; UPDATE other.t SET n = 100; COMMIT",
        )
        .unwrap();
    db.execute_batch("UPDATE main.t SET n = n + 0, pad = 'x' WHERE id = 2").unwrap();
    let there = number(&db, "SELECT n FROM other.t");
    let mut here = 0;
    for _ in 2..=60 {
        here = rows.next().unwrap().unwrap().get::<_, i64>(0).unwrap();
    }
    assert_eq!(here + there, 100, "{here} and {there}");
}

#[test]
fn a_commit_of_files_that_sqlite_shares_between_connections_is_not_half_lost() {
    let (one, two) = (fresh("shared"), fresh("shared"));
    for name in [&one, &two] {
        open(name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)").unwrap();
    }
    // SQLite says to which connection a shared file belongs when it is opened: to the one that
    // opened it last. Which one begins a transaction is looked up then.
    let shared = || Connection::open(format!("file:{one}?vfs=interleaf&cache=shared")).unwrap();
    let (first, second) = (shared(), shared());
    attach(&first, &two, "other");
    let done = first
        .execute_batch("BEGIN; UPDATE main.t SET n = n + 1; UPDATE other.t SET n = n + 1; COMMIT");
    done.unwrap();
    for name in [&one, &two] {
        assert_eq!(number(&open(name), "SELECT n FROM t"), 1);
    }
    assert_eq!(number(&second, "SELECT n FROM t"), 1);
    // A third connection opens it while a transaction of the first one is under way.
    first.execute_batch("BEGIN; UPDATE main.t SET n = n + 1").unwrap();
    let third = shared();
    first.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&third, "SELECT n FROM t"), 2);
}

#[test]
fn a_shared_file_does_not_stay_with_a_connection_that_was_closed() {
    let name = fresh("shared");
    open(&name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)").unwrap();
    let shared = || Connection::open(format!("file:{name}?vfs=interleaf&cache=shared")).unwrap();
    let stays = shared();
    // The file belongs to this one now, and its memory is used again by the next one.
    drop(shared());
    let others: Vec<_> = (0..4).map(|_| fresh("other")).map(|name| (open(&name), name)).collect();
    stays.execute_batch("BEGIN").unwrap();
    assert_eq!(number(&stays, "SELECT n FROM t"), 0);
    for (db, name) in &others {
        open(name).execute_batch("CREATE TABLE u(n)").unwrap();
        // At the snapshot of `stays` there is no such table yet.
        db.execute_batch("INSERT INTO u VALUES (1)").unwrap();
    }
    stays.execute_batch("COMMIT").unwrap();
}

#[test]
fn a_plain_database_in_the_same_transaction_is_rolled_back_with_ours() {
    let name = fresh("mixed");
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.db");
    let db = open(&name);
    db.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    let attach = format!("ATTACH 'file:{}?vfs=unix' AS plain", plain.display());
    db.execute_batch(&attach).unwrap();
    db.execute_batch("CREATE TABLE plain.p(n); INSERT INTO p VALUES (1)").unwrap();
    db.execute_batch("BEGIN; UPDATE t SET n = 10; UPDATE p SET n = 10").unwrap();
    open(&name).execute_batch("UPDATE t SET n = 2").unwrap();
    assert_eq!(code(db.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    assert_eq!(number(&db, "SELECT t.n + p.n FROM t, p"), 3);
    db.execute_batch("BEGIN; UPDATE t SET n = 10; UPDATE p SET n = 10; COMMIT").unwrap();
    let seen = Connection::open(&plain).unwrap();
    assert_eq!(number(&seen, "SELECT n FROM p"), 10);
    assert_eq!(number(&open(&name), "SELECT n FROM t"), 10);
    let left: Vec<_> = std::fs::read_dir(".").unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("-mj")), "{left:?}");
}

#[test]
fn the_same_database_attached_twice() {
    let name = fresh("twice");
    let db = open(&name);
    db.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    attach(&db, &name, "again");
    db.execute_batch("BEGIN; UPDATE main.t SET n = 2").unwrap();
    assert_eq!(code(db.execute_batch("UPDATE again.t SET n = 3")), 6);
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&db, "SELECT main.t.n + again.t.n FROM main.t, again.t"), 4);
    // Read under one name, written under the other.
    db.execute_batch("BEGIN; UPDATE main.t SET n = (SELECT n + 1 FROM again.t)").unwrap();
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&db, "SELECT main.t.n + again.t.n FROM main.t, again.t"), 6);
    db.execute_batch("BEGIN; UPDATE main.t SET n = (SELECT n + 1 FROM again.t)").unwrap();
    open(&name).execute_batch("UPDATE t SET n = 9").unwrap();
    assert_eq!(code(db.execute_batch("COMMIT")), BUSY_SNAPSHOT);
    check(&db);
}
