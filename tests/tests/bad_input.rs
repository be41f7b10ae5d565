//! Whatever is wrong outside: a clear reason, SQLite's right code, and nothing else lost. Each
//! case is seen by a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use interleaf_tests::artefacts;
use interleaf_tests::process::{self, Guard, LIMIT};
use interleaf_tests::server::{self, Server};
use interleaf_tests::worker::{self, Report};
use tempfile::TempDir;

const READONLY: i64 = 8;
const CANTOPEN: i64 = 14;

/// Not to wait ten seconds for what never comes.
const HASTE: (&str, &str) = ("INTERLEAF_TIMEOUT_MS", "1500");

/// A store directory with a database `good` in it, whose table `t` has one row, 'kept'.
struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("interleaf-").tempdir().unwrap();
        let place = Self { temp };
        let made = place.on("good", "", &["CREATE TABLE t(v)", "INSERT INTO t VALUES ('kept')"]);
        assert_eq!(made.last().primary_code(), 0, "{made:?}");
        place
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    fn url(&self) -> String {
        format!("dir:{}", self.dir().display())
    }

    fn on(&self, name: &str, parameters: &str, statements: &[&str]) -> Report {
        on(&self.url(), name, parameters, statements)
    }

    /// Nothing is lost: what was there can be read, and written.
    fn is_unharmed(&self) {
        is_unharmed(&self.url());
    }
}

fn on(url: &str, name: &str, parameters: &str, statements: &[&str]) -> Report {
    let uri = format!("file:{name}?vfs=interleaf&store={url}{parameters}");
    worker::sql_with(&uri, &[HASTE], statements)
}

fn is_unharmed(url: &str) {
    let report =
        on(url, "good", "", &["UPDATE t SET v = v", "PRAGMA integrity_check", "SELECT v FROM t"]);
    assert_eq!(report.answers.len(), 3, "{report:?}");
    assert_eq!(report.answers[1].value(), "ok", "{report:?}");
    assert_eq!(report.last().value(), "kept", "{report:?}");
}

const READ: &[&str] = &["SELECT v FROM t"];

#[test]
fn a_store_that_is_not_there() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("plain-file");
    std::fs::write(&file, "not a directory").unwrap();
    let below = format!("dir:{}/store", file.display());
    on(&below, "db", "", READ).assert_refused(CANTOPEN, &["plain-file"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a directory");
    on("nonsense:x", "db", "", READ).assert_refused(CANTOPEN, &["nonsense:x", "dir:"]);
    let long = format!("unix:/{}", "s".repeat(200));
    on(&long, "db", "", READ).assert_refused(CANTOPEN, &["107"]);
}

#[test]
fn a_host_that_does_not_answer() {
    let start = Instant::now();
    on("tcp://127.0.0.1:1", "db", "", READ).assert_refused(CANTOPEN, &["127.0.0.1:1"]);
    on("tcp://no-such-host.invalid", "db", "", READ)
        .assert_refused(CANTOPEN, &["no-such-host.invalid"]);
    assert!(start.elapsed() < LIMIT);
}

/// A directory held by a process that serves nobody: the error names it and the way out.
#[test]
fn a_locked_directory() {
    let place = Place::new();
    let uri = format!("file:good?vfs=interleaf&store={}", place.url());
    let mut holder = Guard::spawn(
        worker::command().args(["hold", &uri]).stdin(Stdio::piped()).stdout(Stdio::piped()),
    );
    let mut line = String::new();
    BufReader::new(holder.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready 1\n");
    let pid = holder.id().to_string();
    place.on("good", "", READ).assert_refused(CANTOPEN, &[&pid, "interleaf serve --store dir:"]);
    drop(holder.child().stdin.take());
    assert!(holder.wait(LIMIT).success());
    place.is_unharmed();
}

#[test]
fn a_socket_nobody_listens_on() {
    let place = Place::new();
    let nowhere = format!("unix:{}", place.temp.path().join("none.sock").display());
    on(&nowhere, "good", "", READ).assert_refused(CANTOPEN, &["none.sock"]);
    // One that was left behind.
    let left = place.temp.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    assert!(left.exists());
    on(&format!("unix:{}", left.display()), "good", "", READ)
        .assert_refused(CANTOPEN, &["left.sock"]);
    place.is_unharmed();
}

/// One that listens and never says a word: the deadline holds.
#[test]
fn a_server_that_says_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("mute.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    on(&format!("unix:{}", socket.display()), "good", "", READ)
        .assert_refused(CANTOPEN, &["mute.sock"]);
}

#[test]
fn names_that_are_none() {
    let place = Place::new();
    place.on(&"n".repeat(256), "", READ).assert_refused(CANTOPEN, &["255"]);
    place.on("a%0ab", "", READ).assert_refused(CANTOPEN, &["control character"]);
    place.on("a%ffb", "", READ).assert_refused(CANTOPEN, &["UTF-8"]);
    // The longest name there is.
    let longest = place.on(&"n".repeat(255), "", &["CREATE TABLE t(v)", "SELECT count(*) FROM t"]);
    assert_eq!(longest.last().value(), 0);
    place.is_unharmed();
}

#[test]
fn versions_and_times_that_are_none() {
    let place = Place::new();
    let at = |when: &str| place.on("good", &format!("&at={when}"), READ);
    at("ffffffffffffffff0000").assert_refused(CANTOPEN, &["ffffffffffffffff0000"]);
    at("1990-01-01T00:00:00Z").assert_refused(CANTOPEN, &["1990-01-01T00:00:00Z"]);
    at("-7d").assert_refused(CANTOPEN, &["does not exist"]);
    at("yesterday").assert_refused(CANTOPEN, &["yesterday", "RFC 3339"]);
    at("pin:nothing").assert_refused(CANTOPEN, &["nothing"]);
    place.on("none@-0s", "", READ).assert_refused(CANTOPEN, &["none"]);
    let pragma = place.on("good", "", &["PRAGMA interleaf_at = 'ffffffffffffffff0000'"]);
    assert_ne!(pragma.last().primary_code(), 0, "{pragma:?}");
    place.is_unharmed();
}

/// A new database is made, as an `@` may be part of a name, but not in silence.
#[test]
fn a_slip_in_a_time_behind_a_name() {
    let place = Place::new();
    let made = place.on("good@-15min", "", &["SELECT count(*) FROM sqlite_schema"]);
    assert_eq!(made.last().value(), 0, "{made:?}");
    let said = &made.stderr;
    assert!(said.contains("good@-15min did not exist and was created: \"-15min\" is no"), "{said}");
    for harmless in ["good@-15min", "me@home"] {
        let made = place.on(harmless, "", &["SELECT count(*) FROM sqlite_schema"]);
        assert_eq!((made.last().value(), made.stderr.as_str()), (&0.into(), ""), "{harmless}");
    }
    place.is_unharmed();
}

#[test]
fn a_database_that_is_not_there_and_not_to_be_created() {
    let place = Place::new();
    place.on("none", "&mode=rw", READ).assert_refused(CANTOPEN, &["none"]);
    place.on("none", "&mode=ro", READ).assert_refused(CANTOPEN, &["none"]);
    let written = place.on("good", "&mode=ro", &["UPDATE t SET v = 'changed'"]);
    assert_eq!(written.last().primary_code(), READONLY, "{written:?}");
    place.is_unharmed();
}

#[test]
fn a_write_to_a_snapshot() {
    let place = Place::new();
    for statement in ["UPDATE t SET v = 'changed'", "CREATE TABLE u(x)", "DROP TABLE t"] {
        let report = place.on("good", "&at=-0s", &[statement]);
        assert_eq!(report.last().primary_code(), READONLY, "{statement}: {report:?}");
    }
    place.is_unharmed();
}

fn interleaf(place: &Place, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = process::run(
        Command::new(artefacts::program()).args(arguments).args(["--store", &place.url()]),
    );
    let (stdout, stderr) = process::text(&output);
    (output.status.code(), stdout, stderr)
}

#[test]
fn a_file_that_is_no_database() {
    let place = Place::new();
    for (name, bytes) in [
        ("text", b"surely not a database, but long enough to have a header of one".repeat(20)),
        ("short", b"SQLite format 3\0".to_vec()),
    ] {
        let file = place.temp.path().join(name);
        std::fs::write(&file, &bytes).unwrap();
        let (code, _, stderr) = interleaf(&place, &["import", file.to_str().unwrap(), "imported"]);
        assert_eq!(code, Some(1), "{name}: {stderr}");
        assert!(stderr.contains(file.to_str().unwrap()), "{name}: {stderr}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
    let (code, stdout, stderr) = interleaf(&place, &["db", "list", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("good") && !stdout.contains("imported"), "{stdout}");
    place.is_unharmed();
}

#[test]
fn a_setting_that_cannot_be() {
    let place = Place::new();
    let output = process::run(
        Command::new(artefacts::program())
            .args(["exec", "--store", &place.url(), "--", "sqlite3", "good", "SELECT v FROM t"])
            .env("INTERLEAF_TIMEOUT_MS", "soon"),
    );
    let (_, stderr) = process::text(&output);
    assert!(!output.status.success());
    assert!(stderr.contains("INTERLEAF_TIMEOUT_MS") && stderr.contains("soon"), "{stderr}");
    place.is_unharmed();
}

/// A database whose name is also that of a file with something in it.
#[test]
fn a_file_in_the_way() {
    let place = Place::new();
    let file = place.temp.path().join("app.db");
    std::fs::write(&file, "an application's own data").unwrap();
    let uri = file.to_str().unwrap();
    let env = [("INTERLEAF_DEFAULT_VFS", "1"), ("INTERLEAF_STORE", &place.url())];
    let report = worker::sql_with(uri, &env, &["CREATE TABLE t(v)"]);
    report.assert_refused(CANTOPEN, &["app.db", "interleaf import"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "an application's own data");
    place.is_unharmed();
}

#[test]
fn a_server_on_a_directory_that_is_served() {
    let place = Place::new();
    let server = Server::start(&place.dir());
    let (code, _, stderr) =
        interleaf(&place, &["serve", "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{stderr}");
    is_unharmed(&server.url());
    assert!(server.stop().success());
    place.is_unharmed();
}

#[test]
fn a_server_beyond_loopback_without_permission() {
    let place = Place::new();
    let (code, _, stderr) =
        interleaf(&place, &["serve", "--listen", "tcp://0.0.0.0:0", "--http", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--allow-insecure"), "{stderr}");
    place.is_unharmed();
}

/// The server stays away in the middle of a connection's life.
#[test]
fn a_server_that_goes() {
    let place = Place::new();
    let mut server = Server::start(&place.dir());
    let uri = format!("file:good?vfs=interleaf&store={}", server.url());
    interleaf_tests::sql::register();
    let db = rusqlite::Connection::open_with_flags(&uri, interleaf_tests::store::flags()).unwrap();
    interleaf_tests::sql::run(&db, "BEGIN; UPDATE t SET v = 'lost'");
    server.kill9();
    let start = Instant::now();
    let error = db.execute_batch("COMMIT").unwrap_err();
    assert_eq!(interleaf_tests::sql::code(&error) & 0xff, 10, "{error}");
    assert!(start.elapsed() < Duration::from_secs(20), "the deadline is 10 s");
    assert!(db.is_autocommit());
    server.restart();
    interleaf_tests::sql::run(&db, "UPDATE t SET v = 'kept'");
    is_unharmed(&server.url());
    assert!(server.stop().success());
}

#[test]
fn sockets_are_found_in_the_directory() {
    let place = Place::new();
    let server = Server::start(&place.dir());
    assert_eq!(server.socket(), server::socket(Path::new(&place.dir())));
    place.is_unharmed();
    assert!(server.stop().success());
    place.is_unharmed();
}
