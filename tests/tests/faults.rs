//! A process killed at each named fault point while it commits over two attached databases:
//! afterwards both have the commit or none has, every acknowledged one is there, and both are
//! sound. Each point must be passed: the process has to die there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interleaf_store::fault::POINTS;
use interleaf_tests::process::{Guard, LIMIT};
use interleaf_tests::server::Server;
use interleaf_tests::worker;
use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

/// Commits asked of a worker.
const COMMITS: i64 = 6;

/// The passage at which the process dies, where every commit passes once.
const PASSAGE: i64 = 4;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for &point in POINTS {
        for case in [
            Case { point, passage: 1, level: "FULL" },
            Case { point, passage: PASSAGE, level: "FULL" },
            Case { point, passage: PASSAGE, level: "OFF" },
        ] {
            let Case { passage, level, .. } = case;
            trials.push(Trial::test(format!("direct::{point}::{passage}::{level}"), move || {
                in_one_process(case)
            }));
            let of_client = point.starts_with("client.");
            trials.push(Trial::test(format!("server::{point}::{passage}::{level}"), move || {
                if of_client { client_dies(case) } else { server_dies(case) }
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Where a process dies.
#[derive(Clone, Copy)]
struct Case {
    point: &'static str,
    /// At which passage.
    passage: i64,
    /// The synchronous level of its commits. At OFF SQLite uses no super-journal.
    level: &'static str,
}

impl Case {
    /// As `INTERLEAF_FAULT` takes it.
    fn fault(self) -> String {
        format!("{}=kill:{}", self.point, self.passage)
    }
}

/// Two databases with a table `t(n, pad)` each, and where the acknowledged numbers go.
struct Pair {
    temp: TempDir,
}

impl Pair {
    fn new() -> Self {
        Self { temp: tempfile::Builder::new().prefix("interleaf-").tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    fn log(&self) -> PathBuf {
        self.temp.path().join("log")
    }

    fn direct(&self) -> String {
        format!("dir:{}", self.dir().display())
    }
}

fn uri(store: &str, name: &str) -> String {
    format!("file:{name}?vfs=interleaf&store={store}")
}

fn create(store: &str) {
    for name in ["one", "two"] {
        let report =
            worker::sql(&uri(store, name), &["CREATE TABLE t(n INTEGER PRIMARY KEY, pad BLOB)"]);
        assert_eq!(report.last().primary_code(), 0, "{report:?}");
    }
}

fn commits(store: &str, log: &Path, level: &str, fault: Option<&str>) -> Guard {
    let mut command = worker::command();
    command
        .args(["both", &uri(store, "one"), &uri(store, "two"), level, &COMMITS.to_string()])
        .arg(log)
        .env("INTERLEAF_TIMEOUT_MS", "20000");
    if let Some(fault) = fault {
        command.env("INTERLEAF_FAULT", fault);
    }
    Guard::spawn(&mut command)
}

fn acknowledged(log: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// The numbers in a database, which must be sound.
fn numbers(store: &str, name: &str) -> Vec<i64> {
    let report = worker::sql(
        &uri(store, name),
        &["PRAGMA integrity_check", "SELECT json_group_array(n) FROM (SELECT n FROM t ORDER BY n)"],
    );
    assert_eq!(report.answers.first().unwrap().value(), "ok", "{name}: {report:?}");
    serde_json::from_str(report.last().value().as_str().unwrap()).unwrap()
}

/// Both have the same commits: all that were acknowledged and at most the one in progress.
fn judge(store: &str, log: &Path) -> i64 {
    let (one, two) = (numbers(store, "one"), numbers(store, "two"));
    assert_eq!(one, two, "a commit in one of the two only");
    let acknowledged = acknowledged(log);
    let expected: Vec<i64> = (1..=i64::try_from(one.len()).unwrap()).collect();
    assert_eq!(one, expected, "commits in their order, none left out");
    assert!(
        one.len() == acknowledged.len() || one.len() == acknowledged.len() + 1,
        "acknowledged {acknowledged:?}, found {one:?}"
    );
    i64::try_from(one.len()).unwrap()
}

/// The store goes on: the next commit works.
fn goes_on(store: &str, from: i64) {
    let next = from + 1;
    let report = worker::sql(
        &uri(store, "one"),
        &[
            &format!("ATTACH '{}' AS other", uri(store, "two")),
            "BEGIN",
            &format!("INSERT INTO main.t VALUES ({next}, zeroblob(100))"),
            &format!("INSERT INTO other.t VALUES ({next}, zeroblob(100))"),
            "COMMIT",
        ],
    );
    assert_eq!(report.last().primary_code(), 0, "{report:?}");
    assert_eq!(numbers(store, "two").last(), Some(&next));
}

fn assert_killed(point: &str, guard: &mut Guard) {
    let status = guard.wait(LIMIT);
    assert_eq!(status.signal(), Some(9), "{point} was not passed: {status}");
}

fn in_one_process(case: Case) -> Result<(), Failed> {
    let pair = Pair::new();
    let store = pair.direct();
    create(&store);
    let fault = case.fault();
    assert_killed(case.point, &mut commits(&store, &pair.log(), case.level, Some(&fault)));
    let last = judge(&store, &pair.log());
    goes_on(&store, last);
    Ok(())
}

fn client_dies(case: Case) -> Result<(), Failed> {
    let pair = Pair::new();
    let server = Server::start(&pair.dir());
    let store = server.url();
    create(&store);
    let fault = case.fault();
    assert_killed(case.point, &mut commits(&store, &pair.log(), case.level, Some(&fault)));
    let last = judge(&store, &pair.log());
    goes_on(&store, last);
    assert!(server.stop().success());
    Ok(())
}

/// The server dies and comes back: its client's commit takes effect once, or its client hears
/// that it had none.
fn server_dies(case: Case) -> Result<(), Failed> {
    let pair = Pair::new();
    // Prepared by another server, so that the passages counted are the worker's.
    let server = Server::start(&pair.dir());
    create(&server.url());
    assert!(server.stop().success());
    let fault = case.fault();
    let mut server = Server::start_with(&pair.dir(), &[("INTERLEAF_FAULT", &fault)]);
    let store = server.url();
    let mut client = commits(&store, &pair.log(), case.level, None);
    assert_killed(case.point, server.process());
    std::thread::sleep(Duration::from_millis(50));
    server.restart();
    let status = client.wait(LIMIT);
    let last = judge(&store, &pair.log());
    // Either the client got over it, or it ended at its first error.
    assert!(status.success() == (last == COMMITS), "{status}, {last} commits");
    goes_on(&store, last);
    assert!(server.stop().success());
    Ok(())
}
