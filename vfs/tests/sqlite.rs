//! SQLite's own features over the VFS.

mod common;

use std::time::Duration;

use common::{check, code, fresh, number, open, stat, text, try_open};
use rusqlite::Connection;
use rusqlite::backup::Backup;

const FILL: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, pad TEXT);
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000)
    INSERT INTO t SELECT x, printf('%0300d', x) FROM c;";

#[test]
fn every_page_size_and_a_change_by_vacuum() {
    for size in [512, 1024, 4096, 8192, 65536] {
        let name = fresh("pages");
        let db = open(&name);
        db.execute_batch(&format!("PRAGMA page_size = {size}; {FILL}")).unwrap();
        assert_eq!(number(&db, "PRAGMA page_size"), size);
        let other = open(&name);
        assert_eq!(number(&other, "PRAGMA page_size"), size);
        assert_eq!(number(&other, "SELECT count(*) FROM t"), 2000);
        check(&other);
        for next in [512, 65536, 4096] {
            db.execute_batch(&format!("PRAGMA page_size = {next}; VACUUM")).unwrap();
            assert_eq!(number(&db, "PRAGMA page_size"), next, "from {size}");
            for db in [&db, &other, &open(&name)] {
                assert_eq!(number(db, "SELECT sum(id) FROM t"), 2_001_000, "{size} to {next}");
                check(db);
                assert_eq!(number(db, "PRAGMA page_size"), next);
            }
            other.execute_batch("UPDATE t SET pad = 'x' WHERE id = 7").unwrap();
            assert_eq!(text(&db, "SELECT pad FROM t WHERE id = 7"), "x");
        }
    }
}

#[test]
fn vacuum_gives_the_space_back() {
    let name = fresh("vacuum");
    let db = open(&name);
    db.execute_batch(FILL).unwrap();
    let before = number(&db, "PRAGMA page_count");
    db.execute_batch("DELETE FROM t WHERE id > 100; VACUUM").unwrap();
    let after = number(&db, "PRAGMA page_count");
    assert!(after * 5 < before, "{after} of {before}");
    check(&open(&name));
    db.execute_batch("INSERT INTO t SELECT id + 5000, pad FROM t; VACUUM").unwrap();
    assert_eq!(number(&open(&name), "SELECT count(*) FROM t"), 200);
    check(&db);
}

#[test]
fn auto_vacuum_full_and_incremental() {
    for mode in ["FULL", "INCREMENTAL"] {
        let name = fresh("auto");
        let db = open(&name);
        db.execute_batch(&format!("PRAGMA auto_vacuum = {mode}; {FILL}")).unwrap();
        let before = number(&db, "PRAGMA page_count");
        db.execute_batch("DELETE FROM t WHERE id > 100").unwrap();
        if mode == "INCREMENTAL" {
            assert_eq!(number(&db, "PRAGMA page_count"), before);
            let mut statement = db.prepare("PRAGMA incremental_vacuum").unwrap();
            let mut rows = statement.query([]).unwrap();
            while rows.next().unwrap().is_some() {}
        }
        let other = open(&name);
        assert!(number(&other, "PRAGMA page_count") * 5 < before, "{mode}");
        check(&other);
        db.execute_batch("INSERT INTO t SELECT id + 5000, pad FROM t").unwrap();
        check(&other);
        assert_eq!(number(&other, "SELECT count(*) FROM t"), 200);
    }
}

#[test]
fn savepoints_down_to_the_outermost() {
    let name = fresh("savepoint");
    let db = open(&name);
    db.execute_batch(FILL).unwrap();
    db.execute_batch("BEGIN; SAVEPOINT a; DELETE FROM t WHERE id > 10; SAVEPOINT b; DELETE FROM t")
        .unwrap();
    db.execute_batch("ROLLBACK TO b; RELEASE b").unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM t"), 10);
    db.execute_batch("ROLLBACK TO a; DELETE FROM t WHERE id > 20; COMMIT").unwrap();
    assert_eq!(number(&open(&name), "SELECT count(*) FROM t"), 20);
    // A savepoint that is the transaction: its rollback reads the whole journal, and yet a
    // commit follows.
    db.execute_batch("SAVEPOINT s; DELETE FROM t; ROLLBACK TO s").unwrap();
    db.execute_batch("DELETE FROM t WHERE id > 15; RELEASE s").unwrap();
    let other = open(&name);
    assert_eq!(number(&other, "SELECT count(*) FROM t"), 15);
    check(&other);
}

#[test]
fn a_failed_statement_leaves_the_rest_of_its_transaction() {
    let name = fresh("statement");
    let db = open(&name);
    db.execute_batch("CREATE TABLE t(a UNIQUE); PRAGMA journal_mode = OFF").unwrap();
    db.execute_batch("BEGIN; INSERT INTO t VALUES (-1)").unwrap();
    let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5000)
        INSERT INTO t SELECT CASE x WHEN 4999 THEN -1 ELSE x END FROM c";
    assert_eq!(code(db.execute_batch(sql)) & 0xff, 19);
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&open(&name), "SELECT count(*) FROM t"), 1);
    check(&db);
}

#[test]
fn spills_commit_and_roll_back() {
    let name = fresh("spill");
    let db = open(&name);
    db.execute_batch(&format!("PRAGMA cache_size = 5; PRAGMA cache_spill = 1; {FILL}")).unwrap();
    check(&open(&name));
    let sum = "SELECT sum(length(pad)) FROM t";
    let before = number(&db, sum);
    db.execute_batch(
        "BEGIN; UPDATE t SET pad = pad || 'xxxx'; INSERT INTO t SELECT id + 9000, pad FROM t",
    )
    .unwrap();
    assert_eq!(number(&open(&name), sum), before, "nothing of it is seen");
    db.execute_batch("ROLLBACK").unwrap();
    assert_eq!(number(&db, sum), before);
    check(&db);
    db.execute_batch("BEGIN; UPDATE t SET pad = pad || 'xxxx'; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; COMMIT")
        .unwrap();
    assert_eq!(number(&open(&name), sum), before + 2000 * 4);
    check(&open(&name));
    assert_eq!(stat(&db, "conflicts"), 0);
}

#[test]
fn a_spilled_first_transaction_rolls_back_to_nothing() {
    let name = fresh("first");
    let db = open(&name);
    db.execute_batch("PRAGMA cache_size = 5; BEGIN").unwrap();
    db.execute_batch(FILL).unwrap();
    db.execute_batch("ROLLBACK").unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM sqlite_schema"), 0);
    assert_eq!(number(&open(&name), "PRAGMA page_count"), 0);
    db.execute_batch(FILL).unwrap();
    check(&open(&name));
}

#[test]
fn a_conflict_after_a_spill_rolls_back() {
    let name = fresh("spilled");
    let db = open(&name);
    db.execute_batch(&format!("PRAGMA cache_size = 5; {FILL}")).unwrap();
    db.execute_batch("BEGIN; UPDATE t SET pad = 'x' || pad").unwrap();
    open(&name).execute_batch("UPDATE t SET pad = 'other' WHERE id = 1000").unwrap();
    assert_eq!(code(db.execute_batch("COMMIT")), 517);
    assert!(db.is_autocommit());
    assert_eq!(text(&db, "SELECT pad FROM t WHERE id = 1000"), "other");
    assert_eq!(number(&db, "SELECT count(*) FROM t WHERE pad LIKE 'x%'"), 0);
    check(&db);
    db.execute_batch("UPDATE t SET pad = 'x' || pad").unwrap();
    assert_eq!(text(&open(&name), "SELECT pad FROM t WHERE id = 1000"), "xother");
}

#[test]
fn large_blobs_are_staged() {
    let name = fresh("blob");
    let db = open(&name);
    db.execute_batch("CREATE TABLE b(data BLOB)").unwrap();
    db.execute("INSERT INTO b VALUES (randomblob(50000000))", []).unwrap();
    let other = open(&name);
    assert_eq!(number(&other, "SELECT length(data) FROM b"), 50_000_000);
    let same = "SELECT count(DISTINCT hex(substr(data, 1 + 4096 * 100, 4096))) FROM b";
    assert_eq!(number(&other, same), 1);
    let mut blob = db.blob_open("main", "b", "data", 1, false).unwrap();
    blob.write_at(b"hello", 30_000_000).unwrap();
    blob.close().unwrap();
    assert_eq!(text(&other, "SELECT CAST(substr(data, 30000001, 5) AS TEXT) FROM b"), "hello");
    check(&other);
}

#[test]
fn a_select_that_is_open_during_commits_goes_on() {
    let name = fresh("open");
    let (db, other) = (open(&name), open(&name));
    db.execute_batch(FILL).unwrap();
    let mut statement = db.prepare("SELECT id FROM t ORDER BY id").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut seen = 0;
    while let Some(row) = rows.next().unwrap() {
        let id: i64 = row.get(0).unwrap();
        seen += 1;
        if id % 100 == 0 {
            let sql = format!("UPDATE t SET pad = 'mine' WHERE id = {}", id - 50);
            db.execute_batch(&sql).unwrap();
        }
    }
    assert_eq!(seen, 2000);
    drop(rows);
    drop(statement);
    assert_eq!(number(&other, "SELECT count(*) FROM t WHERE pad = 'mine'"), 20);
    check(&db);
}

#[test]
fn a_select_that_is_open_while_others_commit_sees_one_state() {
    let name = fresh("mixed");
    let other = open(&name);
    other.execute_batch(FILL).unwrap();
    other.execute_batch("CREATE TABLE u(a); INSERT INTO u VALUES (0); CREATE TABLE w(a)").unwrap();
    let db = open(&name);
    db.execute_batch("PRAGMA cache_size = 5").unwrap();
    let mut statement = db.prepare("SELECT id, pad FROM t ORDER BY id").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap();
    // Others change what was not read yet and grow the database, then an own commit comes.
    let sql = "UPDATE t SET pad = printf('%0300d', -1) WHERE id > 1950";
    other.execute_batch(sql).unwrap();
    other.execute_batch("INSERT INTO w VALUES (printf('%09000d', 1))").unwrap();
    db.execute_batch("UPDATE u SET a = a + 1").unwrap();
    let mut count = 1;
    let mut others = 0;
    while let Some(row) = rows.next().unwrap() {
        count += 1;
        others += i32::from(row.get::<_, String>(1).unwrap().contains('-'));
    }
    assert_eq!((count, others), (2000, 0), "the snapshot of its beginning, to its end");
    drop(rows);
    drop(statement);
    let refused = {
        let mut statement = db.prepare("SELECT id FROM t").unwrap();
        let mut rows = statement.query([]).unwrap();
        rows.next().unwrap();
        other.execute_batch("INSERT INTO w VALUES (printf('%09000d', 1))").unwrap();
        db.execute_batch("UPDATE u SET a = a + 1").unwrap();
        code(db.execute_batch("UPDATE u SET a = a + 1"))
    };
    assert_eq!(refused, 517, "its view cannot follow while the statement reads");
    // Without a change of size it can.
    let sql = "UPDATE t SET pad = printf('%0300d', -2) WHERE id > 1950";
    let mut statement = db.prepare("SELECT id FROM t WHERE pad LIKE '%-2' OR id < 3").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap();
    other.execute_batch(sql).unwrap();
    for _ in 0..3 {
        db.execute_batch("UPDATE u SET a = a + 1").unwrap();
        rows.next().unwrap();
    }
    drop(rows);
    drop(statement);
    assert_eq!(number(&other, "SELECT a FROM u"), 5);
    check(&db);
    check(&other);
}

#[test]
fn backups_in_and_out() {
    let name = fresh("backup");
    let folder = tempfile::tempdir().unwrap();
    for (mode, size) in [("DELETE", 4096), ("WAL", 4096), ("WAL", 1024)] {
        let path = folder.path().join(format!("{mode}{size}.db"));
        let source = Connection::open(&path).unwrap();
        let setup = format!("PRAGMA page_size = {size}; PRAGMA journal_mode = {mode};");
        source.execute_batch(&setup).unwrap();
        source.execute_batch(FILL).unwrap();
        let mut db = open(&name);
        Backup::new(&source, &mut db).unwrap().run_to_completion(50, Duration::ZERO, None).unwrap();
        assert_eq!(number(&db, "SELECT count(*) FROM t"), 2000);
        let other = open(&name);
        check(&other);
        db.execute_batch("DELETE FROM t WHERE id > 10").unwrap();
        assert_eq!(number(&other, "SELECT count(*) FROM t"), 10);
        let mut copy = Connection::open_in_memory().unwrap();
        Backup::new(&other, &mut copy).unwrap().run_to_completion(3, Duration::ZERO, None).unwrap();
        assert_eq!(number(&copy, "SELECT count(*) FROM t"), 10);
        check(&copy);
        db.execute_batch("DROP TABLE t").unwrap();
    }
}

#[test]
fn data_version_changes_with_foreign_commits_only() {
    let name = fresh("version");
    let (a, b) = (open(&name), open(&name));
    a.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(number(&b, "SELECT n FROM t"), 1);
    let version = |db: &Connection| number(db, "PRAGMA data_version");
    let (first, mine) = (version(&b), version(&a));
    for _ in 0..3 {
        assert_eq!(number(&b, "SELECT n FROM t"), 1);
        assert_eq!(version(&b), first);
    }
    a.execute_batch("UPDATE t SET n = 2").unwrap();
    assert_eq!(version(&a), mine, "an own commit");
    assert_ne!(version(&b), first, "a foreign one");
}

#[test]
fn the_usual_opening_lines_pass() {
    let name = fresh("lines");
    let db = open(&name);
    for (pragma, answer) in [
        ("journal_mode = WAL", "delete"),
        ("journal_mode = OFF", "delete"),
        ("journal_mode = MEMORY", "delete"),
        ("journal_mode", "delete"),
        ("locking_mode = EXCLUSIVE", "normal"),
    ] {
        assert_eq!(text(&db, &format!("PRAGMA {pragma}")), answer, "{pragma}");
    }
    db.execute_batch(
        "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -20000; PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;",
    )
    .unwrap();
    assert_eq!(number(&db, "PRAGMA mmap_size = 268435456"), 268_435_456);
    db.execute_batch(FILL).unwrap();
    let other = open(&name);
    number(&other, "PRAGMA mmap_size = 268435456");
    assert_eq!(number(&other, "SELECT count(*) FROM t"), 2000);
    check(&other);
}

#[test]
fn exclusive_locking_behind_the_vfs_back_never_loses_a_commit() {
    let name = fresh("exclusive");
    open(&name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)").unwrap();
    let db = Connection::open_in_memory().unwrap();
    common::attach(&db, &name, "x");
    // An unscoped pragma goes to main's VFS alone, and sets all databases.
    db.execute_batch("PRAGMA locking_mode = EXCLUSIVE").unwrap();
    let mut done = 0;
    for _ in 0..3 {
        match db.execute_batch("UPDATE x.t SET n = n + 1") {
            Ok(()) => done += 1,
            Err(error) => assert!(error.to_string().contains("I/O"), "{error}"),
        }
    }
    assert!(done < 3, "refused at the latest at the second commit");
    drop(db);
    assert_eq!(number(&open(&name), "SELECT n FROM t"), done);
}

#[test]
fn journals_kept_open_behind_the_vfs_back_serve_one_transaction_each() {
    for mode in ["TRUNCATE", "PERSIST"] {
        let names = [fresh("kept"), fresh("kept")];
        let db = Connection::open_in_memory().unwrap();
        for (name, schema) in names.iter().zip(["x", "y"]) {
            open(name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0), (0)").unwrap();
            common::attach(&db, name, schema);
        }
        // As above: the VFS of the attached ones never hears of it.
        db.execute_batch(&format!("PRAGMA journal_mode = {mode}")).unwrap();
        // While a statement reads them SQLite keeps their journals open.
        let mut statement = db.prepare("SELECT x.t.n, y.t.n FROM x.t, y.t").unwrap();
        let mut rows = statement.query([]).unwrap();
        rows.next().unwrap();
        for done in 1..4 {
            // What one transaction did with the journal does not count for the next.
            db.execute_batch("BEGIN; UPDATE x.t SET n = 99; UPDATE y.t SET n = 99").unwrap();
            db.execute_batch("ROLLBACK").unwrap();
            db.execute_batch("BEGIN; UPDATE x.t SET n = n + 1; UPDATE y.t SET n = n + 1; COMMIT")
                .unwrap();
            // One that is locked and not written holds nobody up.
            db.execute_batch("BEGIN IMMEDIATE; UPDATE x.t SET n = n + 1; COMMIT").unwrap();
            assert_eq!(number(&open(&names[0]), "SELECT max(n) FROM t"), 2 * done, "{mode}");
            assert_eq!(number(&open(&names[1]), "SELECT min(n) FROM t"), done, "{mode}");
        }
        rows.next().unwrap();
    }
}

#[test]
fn pages_are_not_read_without_a_lock() {
    let name = fresh("nolock");
    open(&name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)").unwrap();
    for parameter in ["nolock", "immutable"] {
        let uri = format!("file:{name}?vfs=interleaf&{parameter}=1");
        let db = Connection::open(uri).unwrap();
        // Each page would be of another moment, and the cache never dropped.
        let read = db.query_row("SELECT n FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(code(read.map(drop)) & 0xff, 10, "{parameter}");
    }
}

#[test]
fn wal_behind_the_vfs_back_is_refused() {
    let name = fresh("wal");
    open(&name).execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)").unwrap();
    let db = Connection::open_in_memory().unwrap();
    common::attach(&db, &name, "x");
    db.execute_batch("PRAGMA locking_mode = EXCLUSIVE").unwrap();
    assert_eq!(number(&db, "SELECT n FROM x.t"), 0);
    assert!(
        db.execute_batch("PRAGMA x.journal_mode = WAL").is_err() || {
            text(&db, "PRAGMA x.journal_mode") == "delete"
        }
    );
    drop(db);
    let db = open(&name);
    assert_eq!(number(&db, "SELECT n FROM t"), 0);
    check(&db);
}

#[test]
fn temporary_tables_and_big_sorts_use_the_base_vfs() {
    let name = fresh("temp");
    let db = open(&name);
    db.execute_batch(FILL).unwrap();
    db.execute_batch(
        "PRAGMA temp_store = FILE; PRAGMA cache_size = 10; PRAGMA temp.cache_size = 10",
    )
    .unwrap();
    db.execute_batch("CREATE TEMP TABLE x AS SELECT a.id, b.pad FROM t a, t b LIMIT 20000")
        .unwrap();
    assert_eq!(
        number(&db, "SELECT count(*) FROM (SELECT pad FROM x ORDER BY pad, id DESC)"),
        20000
    );
    db.execute_batch("BEGIN; DELETE FROM x WHERE id = 1; ROLLBACK").unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM x"), 20000);
}

#[test]
fn begin_immediate_is_optimistic() {
    let name = fresh("immediate");
    let (a, b) = (open(&name), open(&name));
    a.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    a.execute_batch("BEGIN IMMEDIATE; UPDATE t SET n = 2").unwrap();
    b.execute_batch("BEGIN EXCLUSIVE; UPDATE t SET n = 3").unwrap();
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(code(b.execute_batch("COMMIT")), 517);
}

#[test]
fn a_second_connection_reads_nothing_from_the_store() {
    let name = fresh("warm");
    let db = open(&name);
    db.execute_batch(FILL).unwrap();
    assert_eq!(number(&open(&name), "SELECT sum(length(pad)) FROM t"), 600_000);
    let other = open(&name);
    assert_eq!(number(&other, "SELECT sum(length(pad)) FROM t"), 600_000);
    assert_eq!(stat(&other, "pages_read"), 0);
    assert!(stat(&other, "cache_hits") > 100);
}

#[test]
fn what_cannot_be_opened_says_so() {
    common::register();
    let long = "x".repeat(300);
    for name in [long.as_str(), "app@-2h"] {
        let error = try_open(name).map(drop).unwrap_err();
        let code = error.sqlite_error().map(|e| e.extended_code & 0xff);
        assert_eq!(code, Some(14), "{name}: {error}");
    }
}
