//! `dir:`: through the server, or in this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use interleaf_store::Error;
use interleaf_store::api::{CreateState, ReadRequest};
use interleaf_store::types::DatabaseName;
use interleaf_store::url::StoreUrl;
use interleaf_wire::connect;

use crate::loss::write_until;
use crate::support::{
    Database, Server, client, deadline, dir_url, options, page, page_of, program, socket,
};

#[test]
fn a_directory_is_reached_through_its_server_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir_url(dir.path());
    {
        let direct = client(&url);
        assert_eq!(direct.round_trips(), 0);
        let database = Database::open(&*direct, "app");
        let commit = database.change(vec![(page(1), page_of("direct", 4096))]);
        direct.commit(&commit, deadline()).unwrap();
        assert_eq!(direct.round_trips(), 0, "in this process");
        let again = client(&format!("{url}/."));
        assert_eq!(Database::open(&*again, "app").text(1), "direct", "the same store");
    }
    let server = Server::on(dir.path());
    let served = client(&url);
    assert_eq!(Database::open(&*served, "app").text(1), "direct");
    assert!(served.round_trips() > 0);
    drop(served);
    assert_eq!(server.stop().0, Some(0));
    assert_eq!(Database::open(&*client(&url), "app").text(1), "direct");
}

#[test]
fn a_directory_held_by_a_process_that_is_no_server_is_named_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir_url(dir.path());
    let held = client(&url);
    let said = Server::try_start(&["--store", &url]).err().unwrap();
    let me = format!("process {}", std::process::id());
    assert!(said.contains(&me), "{said}");
    let run = program().args(["--store", &url, "db", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains(&me) && said.contains("interleaf serve --store"), "{said}");
    drop(held);
    let run = program().args(["--store", &url, "db", "list"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn a_client_waits_for_the_next_server_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir_url(dir.path());
    Server::on(dir.path()).kill();
    let found = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let client = client(&url);
            client.info(deadline()).unwrap();
            client.round_trips()
        });
        thread::sleep(Duration::from_millis(500));
        let server = Server::on(dir.path());
        let trips = waiting.join().unwrap();
        drop(server);
        trips
    });
    assert!(found > 0, "through the next server");
}

#[test]
fn a_client_takes_over_when_no_server_follows() {
    let dir = tempfile::tempdir().unwrap();
    let url: StoreUrl = dir_url(dir.path()).parse().unwrap();
    Server::on(dir.path()).kill();
    let Err(early) = connect(&url, &options(Duration::from_millis(500))) else {
        panic!("the server died a moment ago");
    };
    assert!(matches!(&early, Error::Unavailable { what } if what.contains("died")), "{early}");
    let direct = connect(&url, &options(Duration::from_secs(20))).unwrap();
    Database::open(&*direct, "app").begin();
    assert_eq!(direct.round_trips(), 0);
    assert!(!dir.path().join("server.mark").exists(), "the dead server's marker is gone");
    assert!(socket(dir.path()).exists(), "its socket is the next server's to replace");
}

#[test]
fn a_connected_client_goes_on_when_its_server_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir_url(dir.path());
    let server = Server::on(dir.path());
    let served = client(&url);
    let database = Database::open(&*served, "app");
    let first = database.change(vec![(page(2), page_of("first", 4096))]);
    let done = served.commit(&first, deadline()).unwrap();
    let open = database.change(vec![(page(2), page_of("second", 4096))]);
    assert_eq!(server.stop().0, Some(0));
    // Nothing was lost: not even a transaction that is open.
    let trips = served.round_trips();
    served.commit(&open, deadline()).unwrap();
    assert_eq!(database.text(2), "second");
    assert_eq!(served.commit(&first, deadline()).unwrap().version, done.version, "once");
    served.create(&DatabaseName::new("other").unwrap(), CreateState::Ready, deadline()).unwrap();
    assert_eq!(served.round_trips(), trips, "in this process");
    let said = Server::try_start(&["--store", &url]).err().unwrap();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(served);
    let server = Server::on(dir.path());
    assert_eq!(Database::open(&*client(&url), "app").text(2), "second");
    drop(server);
}

#[test]
fn connected_clients_go_on_when_their_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir_url(dir.path());
    let server = Server::on(dir.path());
    let served = client(&url);
    let database = Database::open(&*served, "app");
    let grow = database.change(vec![(page(8), page_of("", 4096))]);
    served.commit(&grow, deadline()).unwrap();
    let begun = database.begin();
    let open = database.change(vec![(page(8), page_of("open", 4096))]);
    let stop = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let writers: Vec<_> = (1..=4)
            .map(|number| {
                let (url, stop) = (&url, &stop);
                scope.spawn(move || write_until(url, number, stop))
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        server.kill();
        // This one waits as well until no other server is to be expected.
        let after = database.begin();
        assert_ne!(after.incarnation, begun.incarnation);
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let error = served.commit(&open, deadline()).unwrap_err();
    assert!(matches!(error, Error::IncarnationChanged), "{error}");
    let stale = ReadRequest {
        branch: database.open.branch,
        snapshot: begun.snapshot,
        incarnation: Some(begun.incarnation),
        pages: vec![page(8)],
    };
    let error = served.read(&stale, deadline()).unwrap_err();
    assert!(matches!(error, Error::IncarnationChanged), "{error}");
    for (id, version) in acknowledged.iter().flatten() {
        assert_eq!(served.find_commit(*id, deadline()).unwrap(), Some(*version), "acknowledged");
    }
    assert!(acknowledged.iter().all(|commits| !commits.is_empty()));
    let next = database.change(vec![(page(8), page_of("next", 4096))]);
    served.commit(&next, deadline()).unwrap();
    assert_eq!(database.text(8), "next");
}

#[test]
fn a_connected_client_finds_the_next_server_and_no_other_store() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::on(dir.path());
    let served = client(&dir_url(dir.path()));
    Database::open(&*served, "app").begin();
    assert_eq!(server.stop().0, Some(0));
    let server = Server::on(dir.path());
    let trips = served.round_trips();
    Database::open(&*served, "app").begin();
    assert!(served.round_trips() > trips, "through the next server");
    assert_eq!(server.stop().0, Some(0));
    // Another store in its place is not the same.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = served.list(deadline()).unwrap_err();
    assert!(error.to_string().contains("now holds store"), "{error}");
}
