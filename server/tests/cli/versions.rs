//! What the commands show of a database that programs write through a server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rusqlite::Connection;

use crate::support::{FILL, Place, comparable, count, integrity};

/// A server on the place's store; killed in the end.
struct Server(Child);

impl Server {
    fn start(place: &Place) -> Self {
        let mut command =
            place.command(["serve", "--listen", "tcp://127.0.0.1:0", "--http", "off"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(!ready.is_empty(), "the server did not start");
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A connection of this process to a database, through the VFS and the server.
fn connect(place: &Place, name: &str) -> Connection {
    let config = interleaf_vfs::config::Config::default();
    interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config).unwrap();
    let store = place.store_dir();
    let uri = format!("file:{name}?vfs=interleaf&store=dir:{}", store.display());
    Connection::open(uri).unwrap()
}

fn version(connection: &Connection) -> String {
    connection.query_row("PRAGMA interleaf_version", [], |row| row.get(0)).unwrap()
}

#[test]
fn each_version_is_exported_verified_and_logged() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    let _server = Server::start(&place);
    place.ok(["import", "a.db"]);
    let db = connect(&place, "a.db");
    let mut states = Vec::new();
    for sql in [
        "INSERT INTO t(name) VALUES ('one more')",
        "DROP TRIGGER t_no_delete; DELETE FROM t WHERE id % 3 = 0",
        "CREATE TABLE u AS SELECT * FROM t; INSERT INTO u SELECT * FROM t",
        "DROP TABLE u; VACUUM",
    ] {
        db.execute_batch(
            &format!("BEGIN; {sql}; COMMIT").replace("; VACUUM; COMMIT", "; COMMIT; VACUUM"),
        )
        .unwrap();
        let rows: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        let live = place.path(&format!("live-{}.db", states.len()));
        place.ok(["export".as_ref(), "a.db".as_ref(), live.as_os_str()]);
        states.push((version(&db), rows, live));
    }
    for (version, rows, live) in &states {
        let target = format!("a.db@{version}");
        let file = place.path(&format!("{version}.db"));
        place.ok(["export".as_ref(), target.as_ref(), file.as_os_str()]);
        assert_eq!(integrity(&file), "ok");
        assert_eq!(count(&file, "t"), *rows);
        assert!(comparable(&file) == comparable(live), "as when it was the newest");
        place.ok(["verify", &target]);
        let log = place.json(["log", &target, "--limit", "1", "--json"]);
        assert_eq!(log[0]["version"], version.as_str());
    }
    let log = place.json(["log", "a.db", "--json"]);
    assert!(log.as_array().unwrap().len() >= 6, "the import and each commit: {log}");
    let status = place.json(["status", "--json"]);
    assert!(status["numbers"]["commits"].as_u64().unwrap() >= 6, "{status}");
}

#[test]
fn a_time_is_a_version_as_well() {
    let place = Place::new();
    let _server = Server::start(&place);
    let db = connect(&place, "a.db");
    db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)").unwrap();
    // A time stands for the end of its millisecond: keep away from the commits' own.
    std::thread::sleep(std::time::Duration::from_millis(5));
    let now = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    let time: String = db.query_row(now, [], |row| row.get(0)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    db.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    place.ok(["export", &format!("a.db@{time}"), "then.db"]);
    assert_eq!(count(&place.path("then.db"), "t"), 1);
    place.ok(["export", "a.db@-0s", "now.db"]);
    assert_eq!(count(&place.path("now.db"), "t"), 2);
    let ran = place.run(["export", "a.db@1999-12-31T00:00:00Z", "x.db"]);
    ran.failed(1, &["1999-12-31"]);
}

#[test]
fn the_benchmark_leaves_the_store_as_it_was() {
    let place = Place::new();
    let _server = Server::start(&place);
    place.ok(["db", "create", "a"]);
    let measured = place.json(["bench", "--seconds", "1", "--writers", "3", "--json"]);
    let rows = measured.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["operations"].as_u64().unwrap() > 0), "{measured}");
    assert_eq!(place.json(["db", "list", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn large_pages_go_through_a_server_both_ways() {
    let place = Place::new();
    let file = place.sqlite_file(
        "a.db",
        "PRAGMA page_size = 65536; CREATE TABLE t(a);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
           INSERT INTO t SELECT randomblob(50000) FROM n;",
    );
    let _server = Server::start(&place);
    place.ok(["import", "a.db"]);
    place.ok(["export", "a.db", "back.db"]);
    assert!(comparable(&file) == comparable(&place.path("back.db")));
    place.ok(["verify", "a.db"]);
}
