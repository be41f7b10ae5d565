//! Heads in shared memory: begins without a request, and what ends that.

use std::time::Duration;

use interleaf_store::api::{BeginReply, BeginRequest, Changes};
use interleaf_store::types::{Incarnation, Version};
use interleaf_store::{Store, StoreOptions};
use interleaf_wire::connect;

use crate::support::{
    Database, Raw, Server, client, deadline, dir_url, options, page, page_of, socket, socket_url,
};

type Known = Option<(Incarnation, Version)>;

fn try_begin(database: &Database<'_>, known: Known) -> interleaf_store::Result<BeginReply> {
    let request = BeginRequest { branch: database.open.branch, at: None, known };
    database.backend.begin(&request, deadline())
}

/// A begin, and how many requests it took.
fn begin(database: &Database<'_>, known: Known) -> (BeginReply, u64) {
    let before = database.backend.round_trips();
    let reply = try_begin(database, known).unwrap();
    (reply, database.backend.round_trips() - before)
}

/// What a page map knows after a begin.
fn known(reply: &BeginReply) -> Known {
    Some((reply.incarnation, reply.snapshot))
}

fn write(database: &Database<'_>, text: &str) -> Version {
    let commit = database.change(vec![(page(1), page_of(text, 4096))]);
    database.backend.commit(&commit, deadline()).unwrap().version
}

#[test]
fn while_nothing_changes_a_begin_is_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let (one, other) = (client(&dir_url(dir.path())), client(&socket_url(dir.path())));
    let (mine, theirs) = (Database::open(&*one, "app"), Database::open(&*other, "app"));
    write(&theirs, "first");
    let (mut last, _) = begin(&mine, None);
    for _ in 0..1000 {
        let (reply, requests) = begin(&mine, known(&last));
        assert_eq!(requests, 0);
        let nothing = Changes::Commits(Vec::new());
        assert_eq!(reply, BeginReply { changes: nothing, ..last.clone() });
        last = reply;
    }
    assert_eq!(begin(&mine, None).1, 1, "an empty page map has much to ask");
    // Commits elsewhere move the snapshot and ask nothing.
    let elsewhere = write(&Database::open(&*other, "other"), "elsewhere");
    let (moved, requests) = begin(&mine, known(&last));
    assert_eq!((moved.snapshot, moved.head, requests), (elsewhere, last.head, 0));
    // One of others is one request, and then none.
    let second = write(&theirs, "second");
    let (reply, requests) = begin(&mine, known(&last));
    assert_eq!((reply.head, requests), (second, 1));
    assert!(matches!(&reply.changes, Changes::Commits(commits) if commits.len() == 1));
    assert_eq!(begin(&mine, known(&reply)).1, 0);
}

#[test]
fn after_an_own_commit_a_begin_is_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let one = client(&dir_url(dir.path()));
    let mine = Database::open(&*one, "app");
    write(&mine, "first");
    let (begun, _) = begin(&mine, None);
    for round in 0..3u32 {
        // The second one grows the database.
        let at = if round == 1 { 9 } else { 1 };
        let mut commit = mine.change(vec![(page(at), page_of(&round.to_string(), 4096))]);
        commit.parts[0].snapshot = begin(&mine, None).0.snapshot;
        let done = one.commit(&commit, deadline()).unwrap();
        let (reply, requests) = begin(&mine, Some((begun.incarnation, done.version)));
        assert_eq!((reply.head, requests), (done.version, 0));
        let told = begin(&mine, None).0;
        assert_eq!((reply.allocation, reply.head), (told.allocation, told.head));
    }
}

#[test]
fn a_shared_snapshot_is_joined_without_a_request_where_it_is_known_to_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let one = client(&dir_url(dir.path()));
    let (a, b) = (Database::open(&*one, "a"), Database::open(&*one, "b"));
    write(&a, "a");
    write(&b, "b");
    let (known_b, _) = begin(&b, None);
    let (begun, _) = begin(&a, None);
    let join = |at| {
        let before = one.round_trips();
        let request = BeginRequest { branch: b.open.branch, at: Some(at), known: known(&known_b) };
        (one.begin(&request, deadline()).unwrap(), one.round_trips() - before)
    };
    let (joined, requests) = join(begun.snapshot);
    assert_eq!((joined.snapshot, joined.head, requests), (begun.snapshot, known_b.head, 0));
    // Others write to it meanwhile: its state at the snapshot is asked for.
    write(&Database::open(&*client(&socket_url(dir.path())), "b"), "later");
    let (joined, requests) = join(begun.snapshot);
    assert_eq!((joined.snapshot, joined.head, requests), (begun.snapshot, known_b.head, 1));
}

#[test]
fn over_tcp_each_begin_is_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir_url(dir.path());
    let server = Server::start(&["--store", &url, "--listen", "tcp://127.0.0.1:0"]);
    let one = client(&server.address("tcp://"));
    let mine = Database::open(&*one, "app");
    write(&mine, "first");
    let (reply, _) = begin(&mine, None);
    assert_eq!(begin(&mine, known(&reply)).1, 1);
}

#[test]
fn a_dropped_database_is_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let one = client(&dir_url(dir.path()));
    let mine = Database::open(&*one, "app");
    write(&mine, "first");
    let (reply, _) = begin(&mine, None);
    assert_eq!(begin(&mine, known(&reply)).1, 0);
    let name = interleaf_store::types::DatabaseName::new("app").unwrap();
    client(&socket_url(dir.path())).drop_database(&name, deadline()).unwrap();
    let error = try_begin(&mine, known(&reply)).unwrap_err();
    assert!(matches!(error, interleaf_store::Error::NotFound { .. }), "{error}");
}

#[test]
fn what_the_next_server_commits_is_seen() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::on(dir.path());
        let one = client(&dir_url(dir.path()));
        let mine = Database::open(&*one, "app");
        write(&mine, "first");
        let (mut last, _) = begin(&mine, None);
        if clean {
            assert_eq!(server.stop().0, Some(0));
        } else {
            server.kill();
        }
        let _next = Server::on(dir.path());
        let second = write(&Database::open(&*client(&socket_url(dir.path())), "app"), "second");
        last = begin(&mine, known(&last)).0;
        assert_eq!(last.head, second, "clean: {clean}");
        // What came with the reconnection is not known to be the next server's.
        last = begin(&mine, known(&last)).0;
        assert_eq!(begin(&mine, known(&last)).1, 0, "of the next server");
    }
}

#[test]
fn what_a_process_commits_that_opens_the_directory_itself_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::on(dir.path());
    let url = socket_url(dir.path()).parse().unwrap();
    let one = connect(&url, &options(Duration::from_millis(300))).unwrap();
    let mine = Database::open(&*one, "app");
    write(&mine, "first");
    let (last, _) = begin(&mine, None);
    assert_eq!(begin(&mine, known(&last)).1, 0);
    assert_eq!(server.stop().0, Some(0));
    let direct = Store::open_dir(dir.path(), StoreOptions::default()).unwrap();
    let request = BeginRequest { branch: mine.open.branch, at: None, known: known(&last) };
    let short = interleaf_store::env::Env::system().deadline(Duration::from_millis(300));
    let error = one.begin(&request, short).unwrap_err();
    assert!(error.is_transient() || matches!(error, interleaf_store::Error::Timeout { .. }));
    write(&Database::open(&*direct, "app"), "second");
    direct.close().unwrap();
}

#[test]
fn without_its_server_no_begin_succeeds() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::on(dir.path());
        let url = socket_url(dir.path()).parse().unwrap();
        let one = connect(&url, &options(Duration::from_millis(300))).unwrap();
        let mine = Database::open(&*one, "app");
        write(&mine, "first");
        let (last, _) = begin(&mine, None);
        assert_eq!(begin(&mine, known(&last)).1, 0);
        if clean {
            assert_eq!(server.stop().0, Some(0));
        } else {
            server.kill();
        }
        let request = BeginRequest { branch: mine.open.branch, at: None, known: known(&last) };
        // Also the second one, which finds no connection at all.
        for _ in 0..3 {
            let short = interleaf_store::env::Env::system().deadline(Duration::from_millis(50));
            let error = one.begin(&request, short).unwrap_err();
            assert!(
                error.is_transient() || matches!(error, interleaf_store::Error::Timeout { .. })
            );
        }
        let _next = Server::on(dir.path());
        let last = begin(&mine, known(&last)).0;
        let last = begin(&mine, known(&last)).0;
        assert_eq!(begin(&mine, known(&last)).1, 0, "with the next one as before");
    }
}

#[test]
fn without_a_board_each_begin_is_a_request() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    // A directory of that name is no file to map.
    std::fs::create_dir(dir.path().join("heads.shm")).unwrap();
    let refused = Server::try_start(&["--store", &dir_url(dir.path())]).err().unwrap();
    assert!(refused.contains("heads.shm"), "{refused}");
    std::fs::remove_dir(dir.path().join("heads.shm")).unwrap();

    let server = Server::on(dir.path());
    let board = dir.path().join("heads.shm");
    assert_eq!(std::fs::metadata(&board).unwrap().permissions().mode() & 0o777, 0o600);
    // In another mount namespace the path may lead to another file, or to none.
    let hidden = dir.path().join("hidden");
    std::fs::rename(&board, &hidden).unwrap();
    std::fs::copy(&hidden, &board).unwrap();
    let one = client(&dir_url(dir.path()));
    let mine = Database::open(&*one, "app");
    write(&mine, "first");
    let (reply, _) = begin(&mine, None);
    assert_eq!(begin(&mine, known(&reply)).1, 1, "a copy is not the board");
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn a_client_that_cannot_read_heads_is_told_nothing_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    // `Raw` says hello without a capability, and decodes the reply exactly.
    let mut raw = Raw::greeted(&socket(dir.path()));
    raw.ask(2, &interleaf_wire::message::Request::Info);
    assert!(matches!(raw.receive(), Some((2, _))));
}

#[test]
fn many_databases_take_turns_on_the_board() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let one = client(&dir_url(dir.path()));
    // More than the branches that a server keeps in memory.
    let names: Vec<String> = (0..1100).map(|number| format!("db{number}")).collect();
    let databases: Vec<_> = names.iter().map(|name| Database::open(&*one, name)).collect();
    let mut last: Vec<_> = databases.iter().map(|database| begin(database, None).0).collect();
    let other = client(&socket_url(dir.path()));
    let changed = 500;
    let head = write(&Database::open(&*other, &names[changed]), "changed");
    for (index, database) in databases.iter().enumerate() {
        let reply = begin(database, known(&last[index])).0;
        let expected = if index == changed { head } else { last[index].head };
        assert_eq!(reply.head, expected, "{}", names[index]);
        last[index] = reply;
    }
}
