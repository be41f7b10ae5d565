//! Peers that break the protocol.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use interleaf_store::Error;
use interleaf_store::api::Backend;
use interleaf_store::env::Env;
use interleaf_wire::frame;
use interleaf_wire::message::{KIND_HELLO, Reply, Request};
use interleaf_wire::{Client, ClientOptions, Endpoint, connect};

use crate::support::{Raw, Server, client, deadline, options, read_frame, socket, socket_url};

fn error(reply: Option<(u64, Reply)>) -> (u64, Error) {
    match reply {
        Some((id, Reply::Error(error))) => (id, error),
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn a_client_that_sends_rubbish_loses_its_own_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let path = socket(dir.path());
    let good = client(&socket_url(dir.path()));
    let mut bystander = Raw::greeted(&path);

    let mut http = Raw::connect(&path);
    http.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut told = String::new();
    http.0.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    assert!(told.ends_with(":7481\n") && told.contains("protocol, not HTTP"), "{told}");

    let mut huge = Raw::connect(&path);
    huge.send(&[0xff; 16]);
    let (_, refused) = error(huge.receive());
    assert!(matches!(&refused, Error::TooLarge { .. }), "{refused}");
    assert!(refused.to_string().contains("16777216"), "{refused}");
    assert!(huge.receive().is_none(), "closed");

    let mut short = Raw::greeted(&path);
    short.send(
        &frame::build(7, 0x06, 0, |w| {
            w.bytes(&[0; 9]);
        })
        .unwrap(),
    );
    let (id, refused) = error(short.receive());
    assert!(id == 7 && matches!(refused, Error::Corrupt { .. }), "{refused}");
    assert!(short.receive().is_none(), "closed");

    let mut long = Raw::greeted(&path);
    let mut bytes = Request::Info.encode(8, 100).unwrap();
    bytes.push(0);
    bytes[3] += 1;
    long.send(&bytes);
    let (id, refused) = error(long.receive());
    assert!(id == 8 && refused.to_string().contains("behind its end"), "{refused}");

    let mut eager = Raw::connect(&path);
    eager.ask(9, &Request::Info);
    let (id, refused) = error(eager.receive());
    assert!(id == 9 && refused.to_string().contains("hello"), "{refused}");

    // A message of a later version of the protocol: refused, and the connection goes on.
    let mut newer = Raw::greeted(&path);
    newer.send(&frame::build(10, 0x60, 0, |_| {}).unwrap());
    let (id, refused) = error(newer.receive());
    assert!(id == 10 && matches!(refused, Error::Unsupported { .. }), "{refused}");
    newer.ask(11, &Request::Info);
    assert!(matches!(newer.receive(), Some((11, Reply::Info(_)))));

    drop(Raw::connect(&path));
    let mut cut = Raw::greeted(&path);
    cut.send(&Request::Info.encode(1, 1).unwrap()[..10]);
    drop(cut);

    bystander.ask(12, &Request::Info);
    assert!(matches!(bystander.receive(), Some((12, Reply::Info(_)))));
    good.info(deadline()).unwrap();
}

#[test]
fn a_client_of_another_protocol_version_is_told_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let mut raw = Raw::connect(&socket(dir.path()));
    raw.send(
        &frame::build(3, KIND_HELLO, 0, |w| {
            w.bytes(b"ILF1").u16(2).bytes(b"what version 2 has here");
        })
        .unwrap(),
    );
    let (id, refused) = error(raw.receive());
    assert_eq!((id, refused), (3, Error::ProtocolVersion { found: 2, known: 1 }));
    assert!(raw.receive().is_none(), "closed");
}

/// A listener that answers the first frame of each connection with `answer`.
fn fake_server(path: &std::path::Path, answer: Vec<u8>) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut raw = Raw(stream.unwrap());
            if read_frame(&mut raw.0).is_some() {
                raw.send(&answer);
            }
        }
    });
}

#[test]
fn a_server_of_another_version_or_of_another_kind_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let try_it = |name: &str, answer: Vec<u8>| {
        let path = dir.path().join(name);
        fake_server(&path, answer);
        Client::connect(vec![Endpoint::Unix(path)], ClientOptions::default(), deadline())
            .unwrap_err()
    };
    let version = Error::ProtocolVersion { found: 1, known: 7 };
    let newer = Reply::Error(version.clone()).encode(1);
    assert_eq!(try_it("newer", newer), version);
    let http = try_it("http", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert!(matches!(http, Error::InvalidUrl { .. }), "{http}");
    assert!(http.to_string().contains("/http\" is no store URL: this is an HTTP port"), "{http}");
    let wrong = try_it("wrong", Reply::Done.encode(1));
    assert!(matches!(wrong, Error::Corrupt { .. }), "{wrong}");
}

#[test]
fn a_socket_that_nobody_listens_on_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead.sock");
    drop(UnixListener::bind(&path).unwrap());
    for name in ["dead.sock", "missing.sock"] {
        let url = format!("unix:{}", dir.path().join(name).display());
        let Err(error) = connect(&url.parse().unwrap(), &options(Duration::from_secs(20))) else {
            panic!("nobody is there");
        };
        assert!(matches!(&error, Error::Unavailable { what } if what.contains(name)), "{error}");
    }
    let Err(error) =
        connect(&"tcp://127.0.0.1:1".parse().unwrap(), &options(Duration::from_secs(2)))
    else {
        panic!("nobody is there");
    };
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn a_server_that_does_not_answer_is_given_up_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("silent.sock");
    // The system accepts into the listener's queue; nobody ever reads.
    let _listener = UnixListener::bind(&path).unwrap();
    let soon = Env::system().deadline(Duration::from_millis(200));
    let error =
        Client::connect(vec![Endpoint::Unix(path)], ClientOptions::default(), soon).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[test]
fn a_path_too_long_for_a_socket_is_named_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(100));
    let said = Server::try_start(&["--store", &format!("dir:{}", deep.display())]).err().unwrap();
    assert!(said.contains("107"), "{said}");
    assert!(!deep.exists(), "nothing was created");
    // Without a server it works.
    let store = client(&format!("dir:{}", deep.display()));
    store.info(deadline()).unwrap();
    let _: &dyn Backend = &*store;
}
