//! As the process's default VFS: which paths are Interleaf's. A process of its own, since a
//! default VFS is the whole process's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod common;

use common::{check, number};
use interleaf_vfs::config::Config;
use rusqlite::Connection;

#[test]
fn paths_become_names_and_data_on_disk_are_never_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    Connection::open(path("old.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (7)")
        .unwrap();
    let vars = [
        ("INTERLEAF_STORE", "mem:"),
        ("INTERLEAF_LOG", "error"),
        ("INTERLEAF_DEFAULT_VFS", "1"),
        ("INTERLEAF_DATABASES", "*.db, *.renamed=renamed"),
    ];
    let config = Config::from_vars(|name| {
        vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config).unwrap();

    let new = Connection::open(path("new.db")).unwrap();
    new.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    assert!(!path("new.db").exists(), "nothing on disk");
    let dotted = folder.path().join("sub/../new.db");
    let again = Connection::open(dotted).unwrap();
    assert_eq!(number(&again, "SELECT n FROM t"), 1, "one path however it is written");
    // The extension's own name takes names as they stand.
    let named = format!("file:{}?vfs=interleaf", path("new.db").display());
    assert_eq!(number(&Connection::open(named).unwrap(), "SELECT n FROM t"), 1);

    let hidden = Connection::open(path("old.db")).map(drop).unwrap_err();
    assert_eq!(hidden.sqlite_error().unwrap().extended_code & 0xff, 14);

    let renamed = Connection::open(path("x.renamed")).unwrap();
    renamed.execute_batch("CREATE TABLE r(n)").unwrap();
    let named = Connection::open("file:renamed?vfs=interleaf").unwrap();
    assert_eq!(number(&named, "SELECT count(*) FROM r"), 0);

    // What no rule names is a plain file, with its journal and its log.
    let plain = Connection::open(path("plain.sqlite")).unwrap();
    let mode: String = plain.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0)).unwrap();
    assert_eq!(mode, "wal");
    plain.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    assert!(path("plain.sqlite").exists() && path("plain.sqlite-wal").exists());
    plain.execute_batch("PRAGMA journal_mode = DELETE").unwrap();

    // Both in one transaction.
    let attach = format!("ATTACH '{}' AS plain", path("plain.sqlite").display());
    new.execute_batch(&attach).unwrap();
    new.execute_batch("BEGIN; UPDATE main.t SET n = 2; UPDATE plain.t SET n = 2").unwrap();
    again.execute_batch("UPDATE t SET n = 5").unwrap();
    assert_eq!(common::code(new.execute_batch("COMMIT")), 517);
    assert_eq!(number(&new, "SELECT main.t.n * 10 + plain.t.n FROM main.t, plain.t"), 51);
    let batch = "BEGIN; UPDATE main.t SET n = 2; UPDATE plain.t SET n = 2; COMMIT";
    new.execute_batch(batch).unwrap();
    assert_eq!(number(&plain, "SELECT n FROM t"), 2);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert!(!left.iter().any(|e| e.file_name().to_string_lossy().contains("-mj")), "{left:?}");
    check(&new);
    let memory = Connection::open_in_memory().unwrap();
    memory.execute_batch("CREATE TABLE t(n)").unwrap();
}
