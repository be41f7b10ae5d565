//! Time travel, PRAGMAs, and names that cannot be opened.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{attach, check, code, fresh, number, open, stat, text, try_open};

const READONLY: i32 = 8;

/// A database with one row, and the version at which it held 1.
fn history(name: &str) -> String {
    let db = open(name);
    db.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    let version = text(&db, "PRAGMA interleaf_version");
    db.execute_batch("UPDATE t SET n = 2; CREATE TABLE later(a)").unwrap();
    version
}

#[test]
fn a_version_is_opened_by_name_and_by_parameter() {
    let name = fresh("at");
    let version = history(&name);
    assert_eq!(version.len(), 20, "{version}");
    for old in [open(&format!("{name}@{version}")), {
        common::register();
        rusqlite::Connection::open(format!("file:{name}?vfs=interleaf&at={version}")).unwrap()
    }] {
        assert_eq!(number(&old, "SELECT n FROM t"), 1);
        assert_eq!(number(&old, "SELECT count(*) FROM sqlite_schema"), 1);
        assert_eq!(code(old.execute_batch("UPDATE t SET n = 3")), READONLY);
        assert_eq!(text(&old, "PRAGMA interleaf_version"), version);
        check(&old);
        open(&name).execute_batch("UPDATE t SET n = n + 1").unwrap();
        assert_eq!(number(&old, "SELECT n FROM t"), 1, "and stays there");
    }
    assert_eq!(number(&open(&name), "SELECT n FROM t"), 4);
}

#[test]
fn a_connection_travels_and_comes_back() {
    let name = fresh("travel");
    let version = history(&name);
    let db = open(&name);
    assert_eq!(number(&db, "SELECT n FROM t"), 2);
    assert_eq!(text(&db, "PRAGMA interleaf_at"), "head");
    assert_eq!(text(&db, &format!("PRAGMA interleaf_at = '{version}'")), version);
    assert_eq!(number(&db, "SELECT n FROM t"), 1);
    assert_eq!(code(db.execute_batch("UPDATE t SET n = 9")), READONLY);
    assert_eq!(code(db.execute_batch("SELECT * FROM later")), 1, "no such table yet");
    assert_eq!(text(&db, "PRAGMA interleaf_at = 'head'"), "head");
    db.execute_batch("UPDATE t SET n = n + 1; INSERT INTO later VALUES (1)").unwrap();
    assert_eq!(number(&open(&name), "SELECT n FROM t"), 3);
    check(&db);
}

#[test]
fn travelling_waits_for_the_next_transaction() {
    let name = fresh("wait");
    let version = history(&name);
    let db = open(&name);
    db.execute_batch("BEGIN; UPDATE t SET n = 5").unwrap();
    assert_eq!(text(&db, &format!("PRAGMA interleaf_at = '{version}'")), version);
    assert_eq!(number(&db, "SELECT n FROM t"), 5);
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&db, "SELECT n FROM t"), 1);
    assert_eq!(number(&open(&name), "SELECT n FROM t"), 5);
}

#[test]
fn a_snapshot_beside_the_head_in_one_statement() {
    let name = fresh("beside");
    let version = history(&name);
    let db = open(&name);
    attach(&db, &format!("{name}@{version}"), "old");
    let sql = "SELECT main.t.n * 10 + old.t.n FROM main.t, old.t";
    assert_eq!(number(&db, sql), 21);
    db.execute_batch("UPDATE main.t SET n = (SELECT n FROM old.t) + 6").unwrap();
    assert_eq!(number(&db, sql), 71);
    assert_eq!(code(db.execute_batch("DELETE FROM old.t")), READONLY);
}

#[test]
fn times_and_versions_that_are_not_there_are_refused() {
    let name = fresh("bad");
    let version = history(&name);
    let db = open(&name);
    for bad in ["yesterday", "", "-5", "ffffffffffffffffffff", "pin:none"] {
        let pragma = format!("PRAGMA interleaf_at = '{bad}'");
        let error = db.query_row(&pragma, [], |_| Ok(())).unwrap_err();
        assert_eq!(code(Err(error)), 1, "{bad}");
    }
    assert_eq!(number(&db, "SELECT n FROM t"), 2, "and nothing changed");
    for bad in [format!("{name}@ffffffffffffffffffff"), format!("none-of-it@{version}")] {
        let error = try_open(&bad).map(drop).unwrap_err();
        assert_eq!(error.sqlite_error().unwrap().extended_code & 0xff, 14, "{bad}");
    }
    let error = db.query_row("PRAGMA interleaf_consistency = 'session'", [], |_| Ok(()));
    assert!(error.unwrap_err().to_string().contains("strict"));
    assert_eq!(text(&db, "PRAGMA interleaf_consistency"), "strict");
    assert_eq!(text(&db, "PRAGMA interleaf_consistency = 'strict'"), "strict");
}

#[test]
fn statistics_count() {
    let name = fresh("stats");
    let db = open(&name);
    db.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1); UPDATE t SET n = 2").unwrap();
    assert_eq!((stat(&db, "commits"), stat(&db, "conflicts")), (3, 0));
    db.execute_batch("BEGIN; UPDATE t SET n = 2; ROLLBACK").unwrap();
    db.execute_batch("UPDATE t SET n = 2").unwrap();
    assert_eq!(stat(&db, "commits"), 3, "a commit that changes nothing asks nobody");
    assert_eq!(number(&db, "SELECT n FROM t"), 2);
}

#[test]
fn a_name_that_is_not_there_is_created_only_where_that_was_asked() {
    common::register();
    let name = fresh("absent");
    let uri = format!("file:{name}?vfs=interleaf&mode=rw");
    let error = rusqlite::Connection::open(&uri).map(drop).unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code & 0xff, 14);
    open(&name).execute_batch("CREATE TABLE t(n)").unwrap();
    let db = rusqlite::Connection::open(&uri).unwrap();
    db.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let reader = rusqlite::Connection::open(format!("file:{name}?vfs=interleaf&mode=ro")).unwrap();
    assert_eq!(number(&reader, "SELECT n FROM t"), 1);
    assert_eq!(code(reader.execute_batch("DELETE FROM t")), READONLY);
}

#[test]
fn a_bad_store_is_named() {
    common::register();
    for store in ["nowhere:", "unix:/nonexistent/interleaf.sock", "tls://localhost:1"] {
        let uri = format!("file:x?vfs=interleaf&store={store}");
        let error = rusqlite::Connection::open(&uri).map(drop).unwrap_err();
        assert_eq!(error.sqlite_error().unwrap().extended_code & 0xff, 14, "{store}");
    }
}
