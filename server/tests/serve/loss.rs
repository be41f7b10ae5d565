//! Lost connections, lost answers, dead servers.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use fork::{Fork, fork};
use interleaf_store::Error;
use interleaf_store::api::{CreateState, LogRequest};
use interleaf_store::env::Env;
use interleaf_store::types::{DatabaseName, Version};
use interleaf_wire::frame::parse_header;
use interleaf_wire::message::RequestKind;

use crate::support::{
    Database, Raw, Server, client, deadline, page, page_of, read_frame, socket, socket_url,
};

/// Stands between clients and a server, and loses answers.
struct Thief {
    path: PathBuf,
    /// Answers still to be lost.
    left: Arc<AtomicU32>,
    /// Answers lost.
    taken: Arc<AtomicU32>,
}

impl Thief {
    fn new(dir: &Path, kind: RequestKind) -> Self {
        let path = dir.join("thief.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thief = Self { path, left: Arc::default(), taken: Arc::default() };
        let (left, taken, server) =
            (Arc::clone(&thief.left), Arc::clone(&thief.taken), socket(dir));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (left, taken) = (Arc::clone(&left), Arc::clone(&taken));
                let server = UnixStream::connect(&server).unwrap();
                thread::spawn(move || relay(stream.unwrap(), server, kind, &left, &taken));
            }
        });
        thief
    }

    fn url(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    fn steal(&self, count: u32) {
        self.left.store(count, Ordering::SeqCst);
    }

    fn taken(&self) -> u32 {
        self.taken.load(Ordering::SeqCst)
    }
}

/// Passes frames on, one request and one reply at a time.
fn relay(
    client: UnixStream,
    server: UnixStream,
    kind: RequestKind,
    left: &AtomicU32,
    taken: &AtomicU32,
) {
    let (mut client, mut server) = (Raw(client), Raw(server));
    while let Some(request) = read_frame(&mut client.0) {
        let asked = parse_header(&request).unwrap().unwrap().kind;
        server.send(&request);
        let Some(reply) = read_frame(&mut server.0) else { return };
        let less = |left: u32| left.checked_sub(1);
        let steal = asked == kind.code()
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        if steal {
            taken.fetch_add(1, Ordering::SeqCst);
            return;
        }
        client.send(&reply);
    }
}

#[test]
fn a_commit_whose_answer_is_lost_takes_effect_once() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let thief = Thief::new(dir.path(), RequestKind::Commit);
    let client = client(&thief.url());
    let database = Database::open(&*client, "app");
    let first = database.change(vec![(page(1), page_of("first", 4096))]);
    client.commit(&first, deadline()).unwrap();

    thief.steal(3);
    let second = database.change(vec![(page(1), page_of("second", 4096))]);
    let done = client.commit(&second, deadline()).unwrap();
    assert_eq!(thief.taken(), 3, "the answer was lost three times");
    assert_eq!(client.find_commit(second.id, deadline()).unwrap(), Some(done.version));
    assert_eq!(database.text(1), "second");
    let log = LogRequest {
        branch: database.open.branch,
        after: Version::ZERO,
        up_to: Version::MAX,
        limit: 100,
        newest_first: false,
    };
    let ids: Vec<_> =
        client.log(&log, deadline()).unwrap().into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [first.id, second.id]);

    // A conflict is a conflict, however often its answer is lost.
    let stale = database.change(vec![(page(1), page_of("stale", 4096))]);
    let third = database.change(vec![(page(1), page_of("third", 4096))]);
    client.commit(&third, deadline()).unwrap();
    thief.steal(2);
    let error = client.commit(&stale, deadline()).unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    assert_eq!(database.text(1), "third");
}

#[test]
fn a_commit_whose_answer_never_comes_is_of_unknown_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let thief = Thief::new(dir.path(), RequestKind::Commit);
    let client = client(&thief.url());
    let database = Database::open(&*client, "app");
    let commit = database.change(vec![(page(1), page_of("there", 4096))]);
    thief.steal(u32::MAX);
    let soon = Env::system().deadline(Duration::from_millis(300));
    let error = client.commit(&commit, soon).unwrap_err();
    assert!(
        matches!(&error, Error::OutcomeUnknown { id, why } if *id == commit.id && !why.is_empty()),
        "{error}"
    );
    assert!(client.find_commit(commit.id, deadline()).unwrap().is_some());
    assert_eq!(database.text(1), "there");
}

#[test]
fn a_commit_that_never_reached_a_server_is_not_of_unknown_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let commit = Database::open(&*client, "app").change(vec![(page(1), page_of("", 4096))]);
    server.kill();
    let soon = Env::system().deadline(Duration::from_millis(300));
    let error = client.commit(&commit, soon).unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable { what } if what.contains("interleaf.sock")),
        "{error}"
    );
}

#[test]
fn a_request_that_cannot_be_repeated_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let thief = Thief::new(dir.path(), RequestKind::Create);
    let client = client(&thief.url());
    thief.steal(1);
    let name = DatabaseName::new("app").unwrap();
    let error = client.create(&name, CreateState::Ready, deadline()).unwrap_err();
    assert!(error.to_string().contains("whether `create` took effect is not known"), "{error}");
    assert_eq!(thief.taken(), 1);
    let error = client.create(&name, CreateState::Ready, deadline()).unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
}

#[test]
fn a_request_that_can_be_repeated_is() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let thief = Thief::new(dir.path(), RequestKind::Begin);
    let client = client(&thief.url());
    let database = Database::open(&*client, "app");
    thief.steal(2);
    database.begin();
    assert_eq!(thief.taken(), 2);
}

#[test]
fn clients_get_over_a_server_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::on(dir.path());
    let url = socket_url(dir.path());
    let grow = client(&url);
    let grow = Database::open(&*grow, "app").change(vec![(page(8), page_of("", 4096))]);
    client(&url).commit(&grow, deadline()).unwrap();
    let stop = AtomicBool::new(false);
    let (acknowledged, _server) = thread::scope(|scope| {
        let writers: Vec<_> = (1..=4)
            .map(|number| {
                let (url, stop) = (&url, &stop);
                scope.spawn(move || write_until(url, number, stop))
            })
            .collect();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(150));
            server.kill();
            server = Server::on(dir.path());
        }
        thread::sleep(Duration::from_millis(150));
        stop.store(true, Ordering::SeqCst);
        let done: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        (done, server)
    });
    let client = client(&url);
    for (id, version) in acknowledged.iter().flatten() {
        let found = client.find_commit(*id, deadline()).unwrap();
        assert_eq!(found, Some(*version), "an acknowledged commit");
    }
    assert!(acknowledged.iter().all(|commits| !commits.is_empty()));
}

/// Commits to a page of its own until told to stop; the commits acknowledged.
pub fn write_until(
    url: &str,
    number: u32,
    stop: &AtomicBool,
) -> Vec<(interleaf_store::types::CommitId, Version)> {
    let client = client(url);
    let database = Database::open(&*client, "app");
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let text = format!("{} of {number}", acknowledged.len());
        let commit = database.change(vec![(page(number), page_of(&text, 4096))]);
        match client.commit(&commit, deadline()) {
            Ok(done) => {
                acknowledged.push((commit.id, done.version));
                assert_eq!(database.text(number), text);
            }
            // The server that recovered is another incarnation: begin again.
            Err(Error::IncarnationChanged) => {}
            Err(error) => panic!("{error}"),
        }
    }
    acknowledged
}

#[test]
fn a_forked_child_opens_connections_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let database = Database::open(&*client, "app");
    let grow = database.change(vec![(page(2), page_of("", 4096))]);
    client.commit(&grow, deadline()).unwrap();
    // Both write through the same client at the same time: on one connection their frames
    // and replies would be mixed.
    let work = |number: u32| {
        for round in 0..200 {
            let text = format!("{number} {round}");
            let commit = database.change(vec![(page(number), page_of(&text, 4096))]);
            let done = client.commit(&commit, deadline()).unwrap();
            assert_eq!(client.find_commit(commit.id, deadline()).unwrap(), Some(done.version));
            assert_eq!(database.text(number), text);
        }
    };
    match fork().unwrap() {
        Fork::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(1)));
            std::process::exit(i32::from(done.is_err()));
        }
        Fork::Parent(child) => {
            work(2);
            let pid = rustix::process::Pid::from_raw(child).unwrap();
            let options = rustix::process::WaitOptions::empty();
            let (_, status) = rustix::process::waitpid(Some(pid), options).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0), "the child");
            // The child's end did not shut the parent's connections down.
            let before = client.round_trips();
            database.begin();
            assert_eq!(client.round_trips(), before + 1, "no new hello");
        }
    }
}

#[test]
fn a_client_of_several_hosts_moves_on_when_one_dies() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("s.sock").display());
    let server = Server::start(&[
        "--store",
        "mem:",
        "--listen",
        &socket,
        "--listen",
        "tcp://127.0.0.1:0",
        "--http",
        "off",
    ]);
    let good = server.address("tcp://");
    // Nobody listens on port 1.
    let client = client(&good.replace("tcp://", "tcp://127.0.0.1:1,"));
    Database::open(&*client, "app").begin();
    // A server of another store at the same address is not the same.
    let port = good.clone();
    server.kill();
    let _other = Server::start(&["--store", "mem:", "--listen", &port, "--http", "off"]);
    let error = client.list(deadline()).unwrap_err();
    assert!(error.to_string().contains("now serves store"), "{error}");
}
