//! `/healthz` and `/metrics`.

use std::io::{Read, Write};
use std::net::TcpStream;

use interleaf_wire::connect;

use crate::support::{Database, LIMIT, Server, client, deadline, options, page, page_of};

pub fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn health_and_numbers_are_served() {
    let listen = ["--store", "mem:", "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"];
    let server = Server::start(&listen);
    let (tcp, http) = (server.address("tcp://"), server.address("http://"));
    assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(&http, "/other").starts_with("HTTP/1.1 404"));
    // Each at the other's port.
    assert!(get(&tcp.replace("tcp:", "http:"), "/healthz").contains("protocol, not HTTP"));
    let Err(error) = connect(&http.replace("http:", "tcp:").parse().unwrap(), &options(LIMIT))
    else {
        panic!("HTTP is no store");
    };
    assert!(error.to_string().contains("this is an HTTP port"), "{error}");
    let client = client(&tcp);
    let database = Database::open(&*client, "app");
    let stale = database.change(vec![(page(1), page_of("a", 4096))]);
    let commit = database.change(vec![(page(1), page_of("b", 4096))]);
    client.commit(&commit, deadline()).unwrap();
    client.commit(&stale, deadline()).unwrap_err();
    let text = get(&http, "/metrics");
    for line in [
        "interleaf_connections 1",
        "interleaf_commits_total 1",
        "interleaf_conflicts_total 1",
        "interleaf_requests_total{kind=\"commit\",result=\"ok\"} 1",
        "interleaf_request_seconds_count{kind=\"commit\"} 2",
        "interleaf_store_commits 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}
