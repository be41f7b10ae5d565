//! `dir:`: through the server, or in this process.

use std::thread;
use std::time::Duration;

use interleaf_store::Error;
use interleaf_store::url::StoreUrl;
use interleaf_wire::connect;

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
