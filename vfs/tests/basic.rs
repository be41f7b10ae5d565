//! Ordinary use of one database.

mod common;

use common::{check, code, fresh, number, open, text};

#[test]
fn what_is_written_is_read_by_the_same_and_by_others() {
    let name = fresh("basic");
    let db = open(&name);
    db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)").unwrap();
    db.execute_batch("INSERT INTO t VALUES (1, 'x'), (2, 'y')").unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM t"), 2);
    let other = open(&name);
    assert_eq!(text(&other, "SELECT b FROM t WHERE a = 2"), "y");
    other.execute_batch("UPDATE t SET b = 'z' WHERE a = 2").unwrap();
    assert_eq!(text(&db, "SELECT b FROM t WHERE a = 2"), "z");
    drop(db);
    drop(other);
    let again = open(&name);
    assert_eq!(text(&again, "SELECT b FROM t WHERE a = 2"), "z");
    check(&again);
}

#[test]
fn a_rollback_leaves_nothing() {
    let db = open(&fresh("rollback"));
    db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)").unwrap();
    db.execute_batch("BEGIN; INSERT INTO t VALUES (2); ROLLBACK").unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM t"), 1);
    db.execute_batch("BEGIN; CREATE TABLE u(a); DELETE FROM t; ROLLBACK").unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM t"), 1);
    assert_eq!(code(db.execute_batch("SELECT * FROM u")), 1);
    check(&db);
}
