//! Peers that break the protocol, over a bare socket: each gets a clear answer and its
//! connection is ended; the server and its other clients go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use interleaf_tests::rng;
use interleaf_tests::sql::{assert_sound, one, run};
use interleaf_tests::store::{Kind, TestStore};
use interleaf_tests::worker;
use rand::{Rng, RngExt};
use rusqlite::Connection;

// Numbers of docs/protocol.md, written down once more on purpose.
const HELLO: u8 = 0x01;
const HELLO_REPLY: u8 = 0x81;
const INFO: u8 = 0x02;
const COMMIT: u8 = 0x09;
const ERROR: u8 = 0xff;
const MAX_BODY: u32 = 16 << 20;

/// A server with a client that has a transaction open while others misbehave.
struct Served {
    store: TestStore,
    bystander: Connection,
}

impl Served {
    fn new() -> Self {
        let store = TestStore::new(Kind::Server);
        let bystander = store.open("db");
        run(&bystander, "CREATE TABLE t(v); INSERT INTO t VALUES (1); BEGIN; UPDATE t SET v = 2");
        Self { store, bystander }
    }

    fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(self.store.server.as_ref().unwrap().socket()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// A connection that has said hello properly.
    fn greeted(&self) -> UnixStream {
        let mut socket = self.connect();
        socket.write_all(&hello(1)).unwrap();
        let (kind, _) = reply(&mut socket).unwrap();
        assert_eq!(kind, HELLO_REPLY);
        socket
    }

    fn goes_on(self) {
        run(&self.bystander, "COMMIT");
        let other = self.store.open("db");
        assert_eq!(one::<i64>(&other, "SELECT v FROM t"), 2);
        assert_sound(&other);
        assert!(self.store.server.unwrap().stop().success());
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 9).unwrap();
    [&length.to_be_bytes()[..], &77_u64.to_be_bytes(), &[kind], body].concat()
}

fn hello(version: u16) -> Vec<u8> {
    frame(HELLO, &[b"ILF1", &version.to_be_bytes()[..], &[0; 8], b"\x04test"].concat())
}

/// The next reply, or `None` at the end of the connection.
fn reply(socket: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 13];
    match socket.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) => {
            let timeout = matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            );
            assert!(!timeout, "neither an answer nor an end");
            return None;
        }
    }
    let length = u32::from_be_bytes(header[..4].try_into().unwrap());
    let mut body = vec![0; length as usize - 9];
    socket.read_exact(&mut body).unwrap();
    Some((header[12], body))
}

/// An error reply that names each of `words`, and then the end.
fn refused(socket: &mut UnixStream, words: &[&str]) {
    let (kind, body) = reply(socket).expect("an answer before the end");
    assert_eq!(kind, ERROR);
    let error = match interleaf_wire::message::Reply::decode(kind, &body).unwrap() {
        interleaf_wire::message::Reply::Error(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for word in words {
        assert!(error.contains(word), "{word:?} is not named in: {error}");
    }
    assert_eq!(reply(socket), None, "the connection is to end");
}

#[test]
fn a_client_of_another_protocol_version() {
    let served = Served::new();
    for version in [0, 2, 99, u16::MAX] {
        let mut socket = served.connect();
        socket.write_all(&hello(version)).unwrap();
        refused(&mut socket, &["protocol version", &version.to_string()]);
    }
    served.goes_on();
}

#[test]
fn a_server_of_another_protocol_version() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("other.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut first = vec![0; 13];
        socket.read_exact(&mut first).unwrap();
        assert_eq!(first[12], HELLO);
        // A reply in which everything behind the version is of the future.
        let id = u64::from_be_bytes(first[4..12].try_into().unwrap());
        let body = [&9_u16.to_be_bytes()[..], &[0; 60]].concat();
        let mut answer = frame(HELLO_REPLY, &body);
        answer[4..12].copy_from_slice(&id.to_be_bytes());
        socket.write_all(&answer).unwrap();
    });
    let uri = format!("file:db?vfs=interleaf&store=unix:{}", path.display());
    let report = worker::sql(&uri, &["SELECT 1 FROM sqlite_schema"]);
    report.assert_refused(14, &["protocol version 9"]);
    server.join().unwrap();
}

#[test]
fn something_that_is_no_client() {
    let served = Served::new();
    let mut socket = served.connect();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut told = String::new();
    socket.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("not HTTP"), "{told}");
    let mut socket = served.connect();
    socket.write_all(&frame(HELLO, b"ILF9 and so on, whatever it is")).unwrap();
    refused(&mut socket, &["ILF1"]);
    // A request before the hello.
    let mut socket = served.connect();
    socket.write_all(&frame(INFO, &[0; 4])).unwrap();
    refused(&mut socket, &[]);
    served.goes_on();
}

#[test]
fn a_frame_too_large() {
    let served = Served::new();
    for length in [MAX_BODY + 10, u32::MAX] {
        let mut socket = served.greeted();
        let header = [&length.to_be_bytes()[..], &1_u64.to_be_bytes(), &[COMMIT]].concat();
        socket.write_all(&header).unwrap();
        refused(&mut socket, &[&MAX_BODY.to_string()]);
    }
    // Already in the place of a hello.
    let mut socket = served.connect();
    socket.write_all(&u32::MAX.to_be_bytes()).unwrap();
    refused(&mut socket, &[&MAX_BODY.to_string()]);
    served.goes_on();
}

#[test]
fn a_frame_too_short_or_too_long_for_its_message() {
    let served = Served::new();
    let mut socket = served.greeted();
    socket.write_all(&[0, 0, 0, 3, 1, 2, 3]).unwrap();
    refused(&mut socket, &[]);
    for (kind, body) in [(INFO, vec![0; 100]), (COMMIT, vec![1, 2, 3])] {
        let mut socket = served.greeted();
        socket.write_all(&frame(kind, &body)).unwrap();
        refused(&mut socket, &[]);
    }
    // A message of a later protocol is refused; it does not end the connection.
    let mut socket = served.greeted();
    for _ in 0..2 {
        socket.write_all(&frame(0x7e, &[0; 8])).unwrap();
        assert_eq!(reply(&mut socket).unwrap().0, ERROR);
    }
    served.goes_on();
}

#[test]
fn a_frame_cut_short() {
    let served = Served::new();
    let whole = frame(COMMIT, &[0; 1000]);
    for cut in [1, 4, 12, 13, 500] {
        let mut socket = served.greeted();
        socket.write_all(&whole[..cut]).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        // With or without a last word: it ends.
        if let Some((kind, _)) = reply(&mut socket) {
            assert_eq!(kind, ERROR);
            assert_eq!(reply(&mut socket), None);
        }
    }
    served.goes_on();
}

#[test]
fn many_that_say_nothing() {
    let served = Served::new();
    let silent: Vec<UnixStream> = (0..100).map(|_| served.connect()).collect();
    let halfway: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut socket = served.greeted();
            socket.write_all(&frame(COMMIT, &[0; 64])[..20]).unwrap();
            socket
        })
        .collect();
    let other = served.store.open("db");
    assert_eq!(one::<i64>(&other, "SELECT v FROM t"), 1);
    drop((silent, halfway, other));
    served.goes_on();
}

#[test]
fn random_bytes() {
    let served = Served::new();
    let mut rng = rng::seeded("random_bytes");
    for round in 0..300 {
        let mut socket = if round % 3 == 0 { served.connect() } else { served.greeted() };
        let mut bytes = vec![0; rng.random_range(1..300)];
        rng.fill_bytes(&mut bytes);
        if round % 3 == 2 {
            // A frame in form, of a known type, with a random body.
            bytes = frame(rng.random_range(1..=0x14), &bytes);
        }
        // The server may end the connection before all is written.
        drop(socket.write_all(&bytes));
        drop(socket.shutdown(std::net::Shutdown::Write));
        while reply(&mut socket).is_some() {}
    }
    served.goes_on();
}
