//! Earlier versions: by version, by time, by an interval; all of them read-only. On every
//! kind of store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use interleaf_store::env::Env;
use interleaf_store::when::format_time;
use interleaf_tests::on_each_store;
use interleaf_tests::sql::{assert_sound, code, one, run, version};
use interleaf_tests::store::{TestStore, flags};
use rusqlite::Connection;

on_each_store!(
    by_version,
    by_name_and_version,
    by_pragma,
    by_time,
    by_interval,
    a_snapshot_cannot_be_written,
    a_snapshot_of_one_database_beside_the_head_of_another,
    the_version_in_use_is_told,
    a_snapshot_outlives_vacuum_and_drop_table,
);

const READONLY: i32 = 8;

fn v(db: &Connection) -> i64 {
    one(db, "SELECT v FROM t")
}

/// A database with v = 1, then v = 2; the version of each.
fn two_versions(store: &TestStore) -> (Connection, String, String) {
    let db = store.open("db");
    run(&db, "CREATE TABLE t(v); INSERT INTO t VALUES (1)");
    let first = version(&db);
    run(&db, "UPDATE t SET v = 2");
    let second = version(&db);
    assert!(first.len() == 20 && first < second, "{first} {second}");
    (db, first, second)
}

fn by_version(store: &TestStore) {
    let (_, first, second) = two_versions(store);
    let at = |version: &str| store.open_more("db", &format!("&at={version}"));
    assert_eq!((v(&at(&first)), v(&at(&second))), (1, 2));
    assert_eq!(version(&at(&first)), first);
    assert_sound(&at(&first));
}

fn by_name_and_version(store: &TestStore) {
    let (_, first, _) = two_versions(store);
    let uri = format!("file:{}@{first}?vfs=interleaf&store={}", store.name("db"), store.url());
    assert_eq!(v(&Connection::open_with_flags(uri, flags()).unwrap()), 1);
}

fn by_pragma(store: &TestStore) {
    let (db, first, second) = two_versions(store);
    for _ in 0..2 {
        run(&db, &format!("PRAGMA interleaf_at = '{first}'"));
        assert_eq!((v(&db), version(&db)), (1, first.clone()));
        let refused = db.execute_batch("UPDATE t SET v = 3").unwrap_err();
        assert_eq!(code(&refused) & 0xff, READONLY, "{refused}");
        assert!(db.is_autocommit());
        run(&db, &format!("PRAGMA interleaf_at = '{second}'"));
        assert_eq!(v(&db), 2);
        run(&db, "PRAGMA interleaf_at = 'head'");
        assert_eq!(v(&db), 2);
    }
    run(&db, "UPDATE t SET v = 3");
    assert_eq!(v(&store.open("db")), 3);
}

fn by_time(store: &TestStore) {
    let clock = Env::system().clock;
    let pause = || std::thread::sleep(Duration::from_millis(30));
    let db = store.open("db");
    run(&db, "CREATE TABLE t(v); INSERT INTO t VALUES (1)");
    pause();
    let between = format_time(clock.unix_micros());
    pause();
    run(&db, "UPDATE t SET v = 2");
    pause();
    let after = format_time(clock.unix_micros());
    pause();
    run(&db, "UPDATE t SET v = 3");
    pause();
    assert_eq!(v(&store.open_more("db", &format!("&at={between}"))), 1);
    assert_eq!(v(&store.open_more("db", &format!("&at={after}"))), 2);
    run(&db, &format!("PRAGMA interleaf_at = '{between}'"));
    assert_eq!(v(&db), 1);
    // The same moment, written in another zone.
    let far = format_time(clock.unix_micros() + 3_600_000_000).replace('Z', "%2B01:00");
    assert_eq!(v(&store.open_more("db", &format!("&at={far}"))), 3);
}

fn by_interval(store: &TestStore) {
    let clock = Env::system().clock;
    let db = store.open("db");
    run(&db, "CREATE TABLE t(v); INSERT INTO t VALUES (1)");
    let first = clock.unix_micros();
    std::thread::sleep(Duration::from_millis(2_500));
    let second = clock.unix_micros();
    run(&db, "UPDATE t SET v = 2");
    // So many whole seconds ago that it was well between the two.
    let middle = i64::midpoint(first, second);
    let ago = (clock.unix_micros() - middle + 500_000) / 1_000_000;
    assert_eq!(v(&store.open_more("db", &format!("&at=-{ago}s"))), 1);
    assert_eq!(v(&store.open_more("db", "&at=-0s")), 2);
    // Longer ago than the database exists: no such snapshot, and the head is unharmed.
    let early = store
        .try_open("db", "&at=-15m")
        .and_then(|db| db.query_row("SELECT v FROM t", [], |row| row.get::<_, i64>(0)));
    assert!(early.is_err(), "{early:?}");
    assert_eq!(v(&store.open("db")), 2);
}

fn a_snapshot_cannot_be_written(store: &TestStore) {
    let (db, first, _) = two_versions(store);
    let old = store.open_more("db", &format!("&at={first}"));
    for statement in [
        "UPDATE t SET v = 9",
        "CREATE TABLE u(x)",
        "DELETE FROM t",
        "PRAGMA user_version = 5",
        "VACUUM",
    ] {
        let Err(refused) = old.execute_batch(statement) else { panic!("{statement} worked") };
        assert_eq!(code(&refused) & 0xff, READONLY, "{statement}: {refused}");
        if !old.is_autocommit() {
            run(&old, "ROLLBACK");
        }
    }
    assert_eq!((v(&old), v(&db)), (1, 2));
    run(&old, "CREATE TEMP TABLE scratch AS SELECT v + 10 AS v FROM t");
    assert_eq!(one::<i64>(&old, "SELECT v FROM scratch"), 11, "temporary tables are allowed");
}

fn a_snapshot_of_one_database_beside_the_head_of_another(store: &TestStore) {
    let (db, first, _) = two_versions(store);
    let old = format!("{}&at={first}", store.uri("db"));
    db.execute("ATTACH ?1 AS old", [&old]).unwrap();
    assert_eq!(one::<i64>(&db, "SELECT main.t.v * 10 + old.t.v FROM main.t, old.t"), 21);
    run(&db, "UPDATE main.t SET v = (SELECT v FROM old.t)");
    assert_eq!(v(&db), 1);
    let refused = db.execute_batch("UPDATE old.t SET v = 5").unwrap_err();
    assert_eq!(code(&refused) & 0xff, READONLY);
    run(&db, "DETACH old");
}

fn the_version_in_use_is_told(store: &TestStore) {
    let (a, _, second) = two_versions(store);
    let b = store.open("db");
    run(&b, "BEGIN");
    assert_eq!(v(&b), 2);
    let snapshot = version(&b);
    assert!(snapshot >= second);
    run(&a, "UPDATE t SET v = 3");
    assert_eq!(version(&b), snapshot, "a transaction stays where it is");
    run(&b, "COMMIT");
    assert_eq!(v(&store.open_more("db", &format!("&at={snapshot}"))), 2);
    assert_eq!(v(&b), 3);
    assert!(version(&b) > snapshot);
    assert_eq!(v(&store.open_more("db", &format!("&at={}", version(&a)))), 3);
}

fn a_snapshot_outlives_vacuum_and_drop_table(store: &TestStore) {
    let db = store.open("db");
    run(
        &db,
        "CREATE TABLE t(v); CREATE TABLE big(x);
         WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<200)
         INSERT INTO big SELECT randomblob(2000) FROM n;
         INSERT INTO t SELECT sum(length(x)) FROM big;",
    );
    let full = version(&db);
    let checksum: String = one(&db, "SELECT group_concat(hex(substr(x, 1, 8))) FROM big");
    let pages: i64 = one(&db, "PRAGMA page_count");
    run(&db, "DROP TABLE big; VACUUM");
    assert!(one::<i64>(&db, "PRAGMA page_count") < pages / 10);
    assert_sound(&db);
    // Grown again over what was cut off.
    run(
        &db,
        "CREATE TABLE other(x);
         WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<100)
         INSERT INTO other SELECT zeroblob(2000) FROM n;",
    );
    let old = store.open_more("db", &format!("&at={full}"));
    assert_eq!(one::<i64>(&old, "PRAGMA page_count"), pages);
    assert_eq!(one::<String>(&old, "SELECT group_concat(hex(substr(x, 1, 8))) FROM big"), checksum);
    assert_sound(&old);
    assert_sound(&db);
}
