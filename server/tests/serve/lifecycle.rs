//! Start, stop, addresses.

use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use crate::support::{
    Database, Raw, Server, client, deadline, dir_url, page, page_of, socket, socket_url,
};

#[test]
fn the_ready_line_names_store_and_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&[
        "--store",
        &dir_url(dir.path()),
        "--listen",
        "tcp://127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    let line = &server.line;
    assert!(line.contains(&dir_url(dir.path())), "{line}");
    assert!(line.contains(&socket_url(dir.path())), "{line}");
    assert!(!server.address("tcp://127.0.0.1:").ends_with(":0"), "{line}");
    assert!(!server.address("http://127.0.0.1:").ends_with(":0"), "{line}");
    let mode = socket(dir.path()).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::on(dir.path());
    let url = socket_url(dir.path());
    let first = client(&url);
    let database = Database::open(&*first, "app");
    let grow = database.change(vec![(page(4), page_of("", 4096))]);
    first.commit(&grow, deadline()).unwrap();
    let store = first.info(deadline()).unwrap();
    let last = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut last = None;
            for round in 0.. {
                let begun = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    database.change(vec![(page(1), page_of(&round.to_string(), 4096))])
                }));
                let Ok(commit) = begun else { break };
                let soon = interleaf_store::env::Env::system().deadline(Duration::from_millis(500));
                match first.commit(&commit, soon) {
                    Ok(done) => last = Some((commit.id, done.version)),
                    Err(_) => break,
                }
            }
            last
        });
        thread::sleep(Duration::from_millis(200));
        let (code, said) = server.stop();
        assert_eq!(code, Some(0), "{said}");
        assert!(!socket(dir.path()).exists());
        assert!(!dir.path().join("server.mark").exists());
        // The next one takes over; the clean end is not taken for a crash.
        let next = Server::on(dir.path());
        assert_eq!(client(&url).info(deadline()).unwrap(), store);
        thread::sleep(Duration::from_millis(100));
        drop(next);
        writer.join().unwrap()
    });
    let (id, version) = last.unwrap();
    let next = Server::on(dir.path());
    assert_eq!(client(&url).find_commit(id, deadline()).unwrap(), Some(version));
    drop(next);
}

#[test]
fn a_second_server_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::on(dir.path());
    let said = Server::try_start(&["--store", &dir_url(dir.path())]).err().unwrap();
    assert!(said.contains(&format!("process {} serves", first.pid())), "{said}");
    client(&socket_url(dir.path())).info(deadline()).unwrap();
}

#[test]
fn what_a_dead_server_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::on(dir.path());
    let before = client(&socket_url(dir.path())).info(deadline()).unwrap();
    first.kill();
    assert!(socket(dir.path()).exists());
    let _second = Server::on(dir.path());
    let after = client(&socket_url(dir.path())).info(deadline()).unwrap();
    assert_eq!(before.store, after.store);
    assert_ne!(before.incarnation, after.incarnation, "an unclean end is seen");
}

#[test]
fn addresses_beyond_loopback_need_a_word() {
    let open = ["--store", "mem:", "--listen", "tcp://0.0.0.0:0", "--http", "off"];
    let said = Server::try_start(&open).err().unwrap();
    assert!(said.contains("--allow-insecure"), "{said}");
    let said = Server::try_start(&["--store", "mem:", "--http", "0.0.0.0:0"]).err().unwrap();
    assert!(said.contains("--allow-insecure"), "{said}");
    let server = Server::start(&[&open[..], &["--allow-insecure"]].concat());
    let (code, said) = server.stop();
    assert_eq!(code, Some(0));
    assert!(said.contains("WARN") && said.contains("open to everybody"), "{said}");
}

#[test]
fn an_address_that_is_named_and_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let tcp = format!("tcp://{address}");
    let said = Server::try_start(&["--store", "mem:", "--listen", &tcp, "--http", "off"]);
    assert!(said.err().unwrap().contains(&address));
    let listen = ["--store", "mem:", "--listen", "tcp://127.0.0.1:0", "--http", &address];
    assert!(Server::try_start(&listen).err().unwrap().contains(&address));
    for wrong in ["tls://127.0.0.1:1", "dir:/x"] {
        assert!(Server::try_start(&["--store", "mem:", "--listen", wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn an_idle_server_ends_but_not_while_a_client_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&["--store", &dir_url(dir.path()), "--idle-exit=1"]);
    let mut raw = Raw::greeted(&socket(dir.path()));
    thread::sleep(Duration::from_millis(1500));
    raw.ask(1, &interleaf_wire::message::Request::Info);
    assert!(raw.receive().is_some(), "it is there still");
    drop(raw);
    assert_eq!(server.wait(), Some(0));
    assert!(!dir.path().join("server.mark").exists());
}
