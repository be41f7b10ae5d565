//! Heads in shared memory, as SQL sees them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use interleaf_tests::process::{Guard, LIMIT};
use interleaf_tests::server::{self, Server};
use interleaf_tests::sql::{self, counter, one, run};
use interleaf_tests::store::flags;
use interleaf_tests::worker;
use rusqlite::Connection;

fn uri(store: &std::path::Path) -> String {
    format!("file:db?vfs=interleaf&store=unix:{}", server::socket(store).display())
}

fn open(store: &std::path::Path) -> Connection {
    Connection::open_with_flags(uri(store), flags()).unwrap()
}

#[test]
fn ten_thousand_selects_make_no_request_and_a_foreign_commit_one() {
    sql::register();
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let _server = Server::start(&store);
    let db = open(&store);
    run(&db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    run(
        &db,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO t SELECT i, 0 FROM n",
    );
    let mut select = db.prepare("SELECT v FROM t WHERE id = ?").unwrap();
    let mut read = |id: i64| select.query_row([id], |row| row.get::<_, i64>(0)).unwrap();
    for id in 1..=1000 {
        read(id);
    }
    let before = counter(&db, "round_trips");
    for id in 0..10_000 {
        assert_eq!(read(id % 1000 + 1), 0);
    }
    assert_eq!(counter(&db, "round_trips"), before, "nothing changed");
    for round in 1..=20 {
        let statement = format!("UPDATE t SET v = {round} WHERE id = 7");
        let report = worker::sql(&uri(&store), &[&statement]);
        assert_eq!(report.last().primary_code(), 0, "{report:?}");
        let before = counter(&db, "round_trips");
        assert_eq!(read(7), round);
        // The begin that learns of it, and the page.
        let trips = counter(&db, "round_trips") - before;
        assert!(trips <= 2, "{trips} after one foreign commit");
        assert_eq!((read(7), counter(&db, "round_trips")), (round, before + trips));
    }
}

/// Linearizability of begins: an acknowledged commit of one process is seen by every later
/// begin of all others, whatever becomes of the server.
#[test]
fn acknowledged_commits_are_seen_by_all_processes_while_the_server_is_killed() {
    const WORKERS: u64 = 6;
    const RUN: Duration = Duration::from_secs(6);
    sql::register();
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let mut server = Server::start(&store);
    {
        let db = open(&store);
        run(&db, "CREATE TABLE register(value); INSERT INTO register VALUES (0)");
    }
    let file = temp.path().join("acknowledged");
    std::fs::write(&file, [0; 8]).unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut workers: Vec<Guard> = (0..WORKERS)
        .map(|number| {
            Guard::spawn(
                worker::command()
                    .args(["register", &uri(&store), &seed.wrapping_add(number).to_string()])
                    .arg(RUN.as_millis().to_string())
                    .arg(&file)
                    .env("INTERLEAF_LOG", "off")
                    .stdout(Stdio::piped()),
            )
        })
        .collect();
    let end = Instant::now() + RUN;
    let mut kills = 0;
    while Instant::now() < end {
        std::thread::sleep(RUN / 6);
        server.kill9();
        server.restart();
        kills += 1;
    }
    let (mut reads, mut commits, mut trips) = (0u64, 0u64, 0u64);
    for worker in &mut workers {
        let status = worker.wait(LIMIT);
        assert!(status.success(), "seed {seed}: {status}");
        let mut said = String::new();
        worker.child().stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let mut numbers = said.split_whitespace().map(|number| number.parse::<u64>().unwrap());
        reads += numbers.next().unwrap();
        commits += numbers.next().unwrap();
        trips += numbers.next().unwrap();
    }
    println!("{reads} reads, {commits} commits, {trips} round trips, {kills} kills");
    assert!(reads > 100 && commits > 10 && kills > 2);
    let last = i64::from_be_bytes(std::fs::read(&file).unwrap().try_into().unwrap());
    let value = one::<i64>(&open(&store), "SELECT value FROM register");
    // Beside those acknowledged there may be some whose outcome nobody knows.
    assert!(value >= last, "seed {seed}: {value} after {last} was acknowledged");
}
