//! Several clients of one store.

use std::borrow::Cow;
use std::collections::HashSet;
use std::thread;

use interleaf_store::Error;
use interleaf_store::api::{Backend, BeginRequest, Changes};
use interleaf_wire::message::{Reply, Request};

use crate::support::{Database, Raw, Server, client, deadline, page, page_of};

fn memory_server(dir: &std::path::Path) -> (Server, String, String) {
    let socket = format!("unix:{}", dir.join("s.sock").display());
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
    let tcp = server.address("tcp://");
    (server, socket, tcp)
}

#[test]
fn a_unix_and_a_tcp_client_see_each_others_commits_and_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let (server, socket, tcp) = memory_server(dir.path());
    let (one, two) = (client(&socket), client(&tcp));
    let info = one.info(deadline()).unwrap();
    assert_eq!(info, two.info(deadline()).unwrap());
    let (a, b) = (Database::open(&*one, "app"), Database::open(&*two, "app"));
    assert_eq!(a.open.branch, b.open.branch);
    assert!(a.open.created && !b.open.created);

    let known = b.begin();
    let first = a.change(vec![(page(1), page_of("from a", 4096))]);
    let done = one.commit(&first, deadline()).unwrap();
    assert_eq!(b.text(1), "from a");
    let request = BeginRequest {
        branch: b.open.branch,
        at: None,
        known: Some((known.incarnation, known.snapshot)),
    };
    let Changes::Commits(changes) = two.begin(&request, deadline()).unwrap().changes else {
        panic!("the changes are known");
    };
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].version, done.version);

    let mine = a.change(vec![(page(1), page_of("a again", 4096))]);
    let theirs = b.change(vec![(page(1), page_of("b too", 4096))]);
    one.commit(&mine, deadline()).unwrap();
    let error = two.commit(&theirs, deadline()).unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    assert_eq!(b.text(1), "a again");
    assert!(one.round_trips() > 0);
    drop(server);
}

#[test]
fn threads_of_one_client_work_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, socket, _) = memory_server(dir.path());
    let client = client(&socket);
    let grow = Database::open(&*client, "app").change(vec![(page(64), page_of("", 4096))]);
    client.commit(&grow, deadline()).unwrap();
    thread::scope(|scope| {
        for thread in 1..=8 {
            let client: &dyn Backend = &*client;
            scope.spawn(move || {
                let database = Database::open(client, "app");
                for round in 0..20 {
                    let text = format!("{thread} {round}");
                    let commit = database.change(vec![(page(thread), page_of(&text, 4096))]);
                    client.commit(&commit, deadline()).unwrap();
                    assert_eq!(database.text(thread), text);
                }
            });
        }
    });
}

#[test]
fn many_requests_are_in_flight_on_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, socket, _) = memory_server(dir.path());
    let client = client(&socket);
    let database = Database::open(&*client, "app");
    let mut raw = Raw::greeted(&dir.path().join("s.sock"));
    // More than the server works on at once: it must not forget those that wait.
    let count = 300;
    for id in 0..count {
        let at = None;
        let begin = BeginRequest { branch: database.open.branch, at, known: None };
        match id % 3 {
            0 => raw.ask(id, &Request::Begin(Cow::Owned(begin))),
            1 => raw.ask(id, &Request::Status),
            _ => raw.ask(id, &Request::List { after: None }),
        }
    }
    let mut seen = HashSet::new();
    for _ in 0..count {
        let (id, reply) = raw.receive().unwrap();
        assert!(seen.insert(id), "{id} was answered twice");
        let fits = match id % 3 {
            0 => matches!(reply, Reply::Begun(_)),
            1 => matches!(reply, Reply::Status(_)),
            _ => matches!(reply, Reply::Databases(_)),
        };
        assert!(fits, "{id}: {reply:?}");
    }
}

#[test]
fn a_connection_too_many_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let socket = format!("unix:{}", path.display());
    let args = ["--store", "mem:", "--listen", &socket, "--http", "off", "--max-connections", "2"];
    let _server = Server::start(&args);
    let (mut first, second) = (Raw::greeted(&path), Raw::greeted(&path));
    let (id, reply) = Raw::connect(&path).receive().unwrap();
    let Reply::Error(Error::Unavailable { what }) = reply else { panic!("{reply:?}") };
    assert!(id == 0 && what.contains('2'), "{id} {what}");
    first.ask(5, &Request::Info);
    assert!(matches!(first.receive(), Some((5, Reply::Info(_)))));
    drop(second);
    // There is room again: a client waits until it gets it.
    client(&socket).info(deadline()).unwrap();
}
