//! Programs go on: when the server of their directory goes away for good, and when their
//! disk was full.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use interleaf_tests::artefacts::{artefact, program};
use interleaf_tests::process::{Guard, LIMIT};
use interleaf_tests::server::Server;
use interleaf_tests::sql::{self, assert_sound, code, one, run};
use interleaf_tests::store::flags;
use interleaf_tests::wait;
use rusqlite::Connection;

/// SQLITE_FULL.
const FULL: i32 = 13;
/// SQLITE_IOERR.
const IOERR: i32 = 10;

fn open(store: &Path, name: &str) -> rusqlite::Result<Connection> {
    let uri = format!("file:{name}?vfs=interleaf&store=dir:{}", store.display());
    let db = Connection::open_with_flags(uri, flags())?;
    // SQLite opens lazily.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    Ok(db)
}

#[test]
fn connections_of_one_program_outlive_their_server() {
    sql::register();
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let mut server = Server::start(&store);
    let (one_db, other) = (open(&store, "db").unwrap(), open(&store, "db").unwrap());
    run(&one_db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v, pad)");
    run(
        &one_db,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO t SELECT i, 0, zeroblob(500) FROM n",
    );
    assert_eq!(one::<i64>(&other, "SELECT count(*) FROM t WHERE v = 0"), 500);
    // A transaction under way; it is to be run again.
    run(&other, "BEGIN; UPDATE t SET v = 7 WHERE id = 1");
    server.kill9();
    run(&one_db, "UPDATE t SET v = v + 1 WHERE id % 2 = 0");
    let failed = other.execute_batch("COMMIT").unwrap_err();
    assert_eq!(code(&failed), sql::CONFLICT, "{failed}");
    // What the other had in its cache is right or forgotten.
    assert_eq!(one::<i64>(&other, "SELECT sum(v) FROM t"), 250);
    run(&other, "UPDATE t SET v = v + 1 WHERE id % 2 = 1");
    assert_eq!(one::<i64>(&one_db, "SELECT sum(v) FROM t"), 500);
    assert_sound(&one_db);
    let third = open(&store, "db").unwrap();
    assert_eq!(one::<i64>(&third, "SELECT count(*) FROM t WHERE v = 1"), 500);
    drop((one_db, other, third));
    let server = Server::start(&store);
    assert_eq!(one::<i64>(&open(&store, "db").unwrap(), "SELECT sum(v) FROM t"), 500);
    assert!(server.stop().success());
}

/// Says what it counted, then waits to be told to go on.
const PROGRAM: &str = r#"
import sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
db = sqlite3.connect(f"file:db?vfs=interleaf&store=dir:{sys.argv[2]}", uri=True)
db.execute("CREATE TABLE t(v)")
db.commit()
for line in sys.stdin:
    db.execute("INSERT INTO t VALUES (?)", (line.strip(),))
    db.commit()
    print(db.execute("SELECT group_concat(v) FROM t").fetchone()[0], flush=True)
"#;

#[test]
fn a_python_program_outlives_its_server() {
    const PYTHON: &str = "/usr/bin/python3";
    if !Path::new(PYTHON).exists() {
        eprintln!("skipped: {PYTHON} is not installed");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let mut server = Server::start(&store);
    let mut command = Command::new(PYTHON);
    command.args(["-c", PROGRAM]).arg(artefact("libinterleaf.so")).arg(&store);
    let mut python =
        Guard::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()));
    let mut input = python.child().stdin.take().unwrap();
    let mut output = BufReader::new(python.child().stdout.take().unwrap()).lines();
    let mut say = |word: &str| {
        writeln!(input, "{word}").unwrap();
        output.next().unwrap().unwrap()
    };
    assert_eq!(say("a"), "a");
    server.kill9();
    assert_eq!(say("b"), "a,b");
    assert_eq!(say("c"), "a,b,c");
    drop(input);
    assert!(python.wait(LIMIT).success());
}

/// Where the test runs that has a disk of its own; set for the second run of this program.
const DISK: &str = "INTERLEAF_TEST_DISK";

/// Runs the test of this name again, with a small file system of its own; gives its
/// directory to that run, and `None` to the first one, which is over then.
fn on_a_small_disk(test: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(DISK) {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=160m tmpfs \"$0\" || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", mount]).arg(dir.path());
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    command.env(DISK, dir.path()).env("XDG_DATA_HOME", dir.path());
    let status = command.env("INTERLEAF_BIN", program()).env_remove("INTERLEAF_STORE").status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => {}
        // 77 from the shell, 1 from unshare itself, before anything of the test is said.
        Err(_) | Ok(Some(77)) => eprintln!("skipped: mounting a file system needs root"),
        Ok(_) if !may_unshare() => eprintln!("skipped: unshare is not permitted"),
        Ok(code) => panic!("on a small disk: {code:?}"),
    }
    None
}

fn may_unshare() -> bool {
    Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success())
}

/// Leaves nothing of the disk; the file to remove to have it back.
fn fill(disk: &Path) -> PathBuf {
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 65_536]).is_ok() {}
    filler
}

#[test]
fn a_full_disk_of_a_store_opened_here() {
    let Some(disk) = on_a_small_disk("a_full_disk_of_a_store_opened_here") else { return };
    sql::register();
    let store = disk.join("store");
    let (db, reader) = (open(&store, "db").unwrap(), open(&store, "db").unwrap());
    run(&db, "CREATE TABLE t(id INTEGER PRIMARY KEY, pad)");
    let filler = fill(&disk);
    let mut rows = 0;
    let failed = loop {
        match db.execute("INSERT INTO t(pad) VALUES (randomblob(60000))", []) {
            Ok(_) => rows += 1,
            Err(failed) => break failed,
        }
        assert!(rows < 10_000, "the disk is never full");
    };
    let text: String = one(&db, "PRAGMA interleaf_stats");
    match code(&failed) & 0xff {
        FULL => {}
        IOERR => assert!(text.contains("outcome unknown"), "{text}"),
        other => panic!("{other}: {failed}"),
    }
    assert!(text.contains("disk is full"), "{text}");
    for _ in 0..3 {
        let failed = db.execute("INSERT INTO t(pad) VALUES (1)", []).unwrap_err();
        assert_eq!(code(&failed), FULL, "{failed}");
        assert!(db.is_autocommit());
    }
    for db in [&db, &reader] {
        assert_eq!(one::<i64>(db, "SELECT count(*) FROM t WHERE length(pad) = 60000"), rows);
    }
    assert_sound(&reader);

    // Space alone is not enough: the engine is closed with the last connection.
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(code(&db.execute("INSERT INTO t(pad) VALUES (1)", []).unwrap_err()), FULL);
    drop((db, reader));
    let db = open(&store, "db").unwrap();
    let kept: i64 = one(&db, "SELECT count(*) FROM t");
    assert!(kept == rows || kept == rows + 1, "{kept} of {rows}: one was in doubt");
    run(&db, "INSERT INTO t(pad) VALUES (randomblob(60000))");
    assert_eq!(one::<i64>(&db, "SELECT count(*) FROM t"), kept + 1);
    assert_sound(&db);
}

#[test]
fn a_full_disk_of_the_default_store() {
    let Some(disk) = on_a_small_disk("a_full_disk_of_the_default_store") else { return };
    sql::register();
    // Its server is started by this open, and has its log on the same disk.
    let db = Connection::open_with_flags("file:db?vfs=interleaf", flags()).unwrap();
    run(&db, "CREATE TABLE t(id INTEGER PRIMARY KEY, pad)");
    let filler = fill(&disk);
    let insert = || db.execute("INSERT INTO t(pad) VALUES (randomblob(60000))", []);
    let before = (0..10_000).find_map(|_| insert().err()).expect("the disk is never full");
    assert!([FULL, IOERR].contains(&code(&before)), "{before}");
    assert_eq!(code(&insert().unwrap_err()), FULL);
    let rows: i64 = one(&db, "SELECT count(*) FROM t");
    std::fs::remove_file(&filler).unwrap();
    wait::until("a commit", LIMIT, || match insert() {
        Ok(_) => Some(()),
        Err(failed) => {
            assert!([FULL, sql::CONFLICT].contains(&code(&failed)), "{failed}");
            None
        }
    });
    assert!([rows + 1, rows + 2].contains(&one(&db, "SELECT count(*) FROM t")));
    assert_sound(&db);
    // The same process, or another that this one started while that one started over: the
    // directory's lock decides.
    let server = rustix::process::Pid::from_raw(server_of(&disk)).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::TERM).unwrap();
}

/// The process of the default store's server.
fn server_of(disk: &Path) -> i32 {
    let mark = std::fs::read_to_string(disk.join("interleaf/server.mark")).unwrap();
    mark.lines().next().unwrap().strip_prefix("process ").unwrap().parse().unwrap()
}
