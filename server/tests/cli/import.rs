//! import: what is taken, what is refused, and what is left behind.

use std::fs;

use interleaf_store::Store;
use interleaf_store::api::{Backend, CreateState};
use interleaf_store::env::Env;
use rusqlite::Connection;

use crate::support::{FILL, Place, comparable, count, integrity, mkfifo};

#[test]
fn every_page_size_comes_back_byte_for_byte() {
    let place = Place::new();
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        let name = format!("{size}.db");
        let file = place.sqlite_file(&name, &format!("PRAGMA page_size = {size}; {FILL}"));
        let imported = place.json(["import", &name, "--json"]);
        assert_eq!(imported["page_size"], size);
        let back = place.path(&format!("back-{size}.db"));
        place.ok(["export".as_ref(), name.as_ref(), back.as_os_str()]);
        assert!(comparable(&file) == comparable(&back), "{size}");
        assert_eq!(integrity(&back), "ok", "{size}");
    }
}

#[test]
fn a_live_wal_file_is_imported_at_one_moment_and_left_as_it_is() {
    let place = Place::new();
    let file = place.sqlite_file("wal.db", &format!("PRAGMA journal_mode = WAL; {FILL}"));
    let writer = Connection::open(&file).unwrap();
    writer.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    writer.execute("INSERT INTO t(name) VALUES ('only in the WAL')", []).unwrap();
    // Not committed: must not be seen.
    writer.execute_batch("BEGIN; INSERT INTO t(name) VALUES ('not yet')").unwrap();
    let wal = place.path("wal.db-wal");
    let (file_before, wal_before) = (fs::read(&file).unwrap(), fs::read(&wal).unwrap());
    assert!(!wal_before.is_empty());

    place.ok(["import", "wal.db"]);
    assert!(fs::read(&file).unwrap() == file_before, "the file was only read");
    assert!(fs::read(&wal).unwrap() == wal_before, "so was its WAL");
    writer.execute_batch("COMMIT").unwrap();

    place.ok(["export", "wal.db", "back.db"]);
    let back = place.path("back.db");
    assert_eq!(fs::read(&back).unwrap()[18..20], [1, 1], "a rollback journal");
    assert_eq!(integrity(&back), "ok");
    assert_eq!(count(&back, "t"), 2001);
}

#[test]
fn a_wal_file_that_nobody_uses_leaves_nothing_beside_it() {
    let place = Place::new();
    place.sqlite_file("wal.db", &format!("PRAGMA journal_mode = WAL; {FILL}"));
    assert_eq!(place.names(), ["wal.db"]);
    place.ok(["import", "wal.db"]);
    assert_eq!(place.names(), ["wal.db"]);
}

#[test]
fn the_wal_of_a_program_that_died_is_imported() {
    let place = Place::new();
    let file = place.sqlite_file("a.db", &format!("PRAGMA journal_mode = WAL; {FILL}"));
    let writer = Connection::open(&file).unwrap();
    writer.execute_batch("PRAGMA wal_autocheckpoint = 0; DELETE FROM t WHERE id < 0").unwrap();
    writer.execute("INSERT INTO t(name) VALUES ('in the WAL')", []).unwrap();
    // What a dead program leaves: the file and the WAL, no index.
    fs::copy(&file, place.path("dead.db")).unwrap();
    fs::copy(place.path("a.db-wal"), place.path("dead.db-wal")).unwrap();
    place.ok(["import", "dead.db"]);
    place.ok(["export", "dead.db", "back.db"]);
    assert_eq!(count(&place.path("back.db"), "t"), 2001);
}

#[test]
fn a_file_is_named_like_under_exec_unless_told() {
    let place = Place::new();
    let file = place.sqlite_file("a.db", "CREATE TABLE t(a)");
    place.ok(["import", "a.db"]);
    place.ok(["import", "./a.db"]);
    place.ok(["import", "a.db", "other"]);
    let list = place.json(["db", "list", "--json"]);
    let names: Vec<&str> =
        list.as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    let real = fs::canonicalize(&file).unwrap();
    assert_eq!(names, [real.to_str().unwrap(), "a.db", "other"]);
}

#[test]
fn what_is_no_sound_database_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let good = fs::read(place.sqlite_file("good.db", FILL)).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(place.path(name), bytes).unwrap();
    write("text", &b"SQLite format 2, and then some text that is longer than a header".repeat(4));
    write("empty", b"");
    write("stub", &good[..60]);
    write("short", &good[..good.len() / 2]);
    write("ragged", &good[..good.len() - 1000]);
    let mut odd = good.clone();
    odd[16..18].copy_from_slice(&1000u16.to_be_bytes());
    write("odd", &odd);
    fs::create_dir(place.path("folder")).unwrap();
    for (name, part) in [
        ("text", "no SQLite database"),
        ("empty", "is empty"),
        ("stub", "60 bytes"),
        ("short", "cut short"),
        ("ragged", "cut short"),
        ("odd", "1000 is no page size"),
        ("folder", "no regular file"),
        ("absent", "No such file"),
    ] {
        place.run(["import", name]).failed(1, &[name, part]);
    }
    assert_eq!(place.json(["db", "list", "--json"]), serde_json::json!([]));
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let place = Place::new();
    mkfifo(&place.path("pipe"));
    place.run(["import", "pipe"]).failed(1, &["pipe", "no regular file"]);
}

#[test]
fn a_file_locked_by_another_program_is_named() {
    let place = Place::new();
    let file = place.sqlite_file("a.db", "CREATE TABLE t(a)");
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    place.run(["import", "a.db"]).failed(1, &["a.db", "locked by another program"]);
    other.execute_batch("COMMIT").unwrap();
    place.ok(["import", "a.db"]);
}

#[test]
fn a_taken_name_is_refused_with_what_to_do() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    place.ok(["import", "a.db"]);
    let before = place.ok(["db", "list"]);
    place
        .run(["import", "a.db"])
        .failed(1, &["database \"a.db\" exists already: ", "interleaf db drop"]);
    assert_eq!(place.ok(["db", "list"]), before, "the first one is as it was");
}

#[test]
fn an_import_cut_short_is_invisible_and_says_what_to_do() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    {
        let store = Store::open_dir(&place.store_dir(), Default::default()).unwrap();
        let deadline = Env::system().deadline(std::time::Duration::from_secs(10));
        store.create(&"a.db".parse().unwrap(), CreateState::Importing, deadline).unwrap();
        store.close().unwrap();
    }
    place.run(["export", "a.db", "x.db"]).failed(1, &["being imported", "interleaf db drop"]);
    place.run(["verify", "a.db"]).failed(1, &["being imported"]);
    place.run(["import", "a.db"]).failed(1, &["being imported", "interleaf db drop"]);
    assert!(place.ok(["db", "list"]).contains("importing"));
    place.ok(["db", "drop", "a.db", "--yes"]);
    place.ok(["import", "a.db"]);
    place.ok(["export", "a.db", "x.db"]);
    assert_eq!(count(&place.path("x.db"), "t"), 2000);
}

#[test]
fn an_import_killed_at_any_moment_shows_nothing_or_all() {
    let place = Place::new();
    let file = place.sqlite_file(
        "a.db",
        "CREATE TABLE t(a, b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
           INSERT INTO t SELECT i, randomblob(1000) FROM n;",
    );
    for ms in [10, 25, 50, 100, 200] {
        let mut import = place.command(["import", "a.db"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(ms));
        import.kill().unwrap();
        import.wait().unwrap();
        let list = place.json(["db", "list", "--json"]);
        match list[0]["state"].as_str() {
            None => {}
            Some("importing") => {
                place.run(["import", "a.db"]).failed(1, &["interleaf db drop"]);
                place.ok(["db", "drop", "a.db", "--yes"]);
            }
            Some(state) => {
                assert_eq!(state, "ready");
                place.ok(["export", "a.db", "back.db"]);
                assert!(comparable(&file) == comparable(&place.path("back.db")));
                fs::remove_file(place.path("back.db")).unwrap();
                place.ok(["db", "drop", "a.db", "--yes"]);
            }
        }
    }
    place.ok(["import", "a.db"]);
    place.ok(["export", "a.db", "back.db"]);
    assert!(comparable(&file) == comparable(&place.path("back.db")));
}
