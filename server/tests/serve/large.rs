//! Messages that do not fit one frame, and replies that do not fit a socket.

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use interleaf_store::Error;
use interleaf_store::api::{LogRequest, MAX_READ_PAGES, ReadRequest, StageRequest};
use interleaf_store::types::{PageSize, Version};
use interleaf_wire::frame::parse_header;
use interleaf_wire::limits::{HEADER_LEN, MAX_BODY, READ_REPLY_BYTES};
use interleaf_wire::message::{Reply, Request};

use crate::support::{
    Database, LIMIT, Raw, Server, client, commit_id, deadline, dir_url, page, page_of, socket,
    socket_url,
};

#[test]
fn a_commit_and_a_read_of_many_large_pages_go_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let database = Database::open(&*client, "app");
    let size = PageSize::MAX.len();
    // Five replies, and three frames of staged pages at least.
    let count = 600;
    let bytes = count as usize * size;
    assert!(bytes > 2 * MAX_BODY);
    assert!(bytes > 4 * READ_REPLY_BYTES);
    let writes = (1..=count).map(|n| (page(n), page_of(&format!("page {n}"), size))).collect();
    let commit = database.change(writes);
    client.commit(&commit, deadline()).unwrap();
    let pages: Vec<_> = (1..=count).rev().map(page).collect();
    let request = ReadRequest {
        branch: database.open.branch,
        snapshot: database.begin().snapshot,
        incarnation: None,
        pages: pages.clone(),
    };
    let before = client.round_trips();
    let read = client.read(&request, deadline()).unwrap();
    assert_eq!(read.len(), pages.len());
    for (page, read) in pages.iter().zip(&read) {
        assert_eq!(read.bytes, page_of(&format!("page {page}"), size), "{page}");
    }
    let trips = client.round_trips() - before;
    assert!((4..=7).contains(&trips), "{trips} replies of up to 8 MiB");
    // One in conflict takes back what it staged.
    let stale = commit_id();
    let error = client.commit(&commit_with(&commit, stale), deadline()).unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    let records = client.count_records(deadline()).unwrap();
    for name in ["staging", "staged_pages"] {
        assert_eq!(records.subspaces[name].0, 0, "{name}: {records:?}");
    }
}

fn commit_with(
    commit: &interleaf_store::api::CommitRequest,
    id: interleaf_store::types::CommitId,
) -> interleaf_store::api::CommitRequest {
    interleaf_store::api::CommitRequest { id, ..commit.clone() }
}

#[test]
fn a_read_of_too_many_pages_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let database = Database::open(&*client, "app");
    let pages = (1..=u32::try_from(MAX_READ_PAGES).unwrap() + 1).map(page).collect();
    let snapshot = database.begin().snapshot;
    let request = ReadRequest { branch: database.open.branch, snapshot, incarnation: None, pages };
    let error = client.read(&request, deadline()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    database.begin();
}

#[test]
fn staging_is_split_by_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let database = Database::open(&*client, "app");
    let mut commit = database.change(vec![(page(1), page_of("one", 4096))]);
    let pages = (1..=5000).map(|n| (page(n), page_of(&format!("page {n}"), 4096))).collect();
    let stage = StageRequest {
        id: commit.id,
        branch: database.open.branch,
        domain: database.open.domain,
        pages,
    };
    let before = client.round_trips();
    client.stage(&stage, deadline()).unwrap();
    assert_eq!(client.round_trips() - before, 3, "20 MB by 8 MiB");
    commit.parts[0].staged = true;
    commit.parts[0].reads = stage.pages.iter().map(|(page, _)| *page).collect();
    if let Some(change) = &mut commit.parts[0].allocation {
        change.after.pages.0 = 5000;
    }
    client.commit(&commit, deadline()).unwrap();
    assert_eq!(database.text(1), "one", "the commit's own page goes before a staged one");
    assert_eq!(database.text(5000), "page 5000");
}

#[test]
fn a_long_log_is_read_in_parts_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let database = Database::open(&*client, "app");
    let count = 2100;
    let mut ids = Vec::new();
    for n in 0..count {
        let commit = database.change(vec![(page(1), page_of(&n.to_string(), 512))]);
        client.commit(&commit, deadline()).unwrap();
        ids.push(commit.id);
    }
    let log = |limit, newest_first| {
        let request = LogRequest {
            branch: database.open.branch,
            after: Version::ZERO,
            up_to: Version::MAX,
            limit,
            newest_first,
        };
        let entries = client.log(&request, deadline()).unwrap();
        entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(log(usize::MAX, false), ids);
    let newest: Vec<_> = ids.iter().rev().copied().collect();
    assert_eq!(log(usize::MAX, true), newest);
    assert_eq!(log(2060, true), newest[..2060]);
    assert_eq!(log(3, false), ids[..3]);
}

/// A server's database of large pages, and a read of as many as one reply takes.
fn large_read(client: &dyn interleaf_store::api::Backend) -> ReadRequest {
    let database = Database::open(client, "app");
    let size = PageSize::MAX.len();
    let count = u32::try_from(READ_REPLY_BYTES / size).unwrap();
    let writes = (1..=count).map(|n| (page(n), page_of(&format!("page {n}"), size))).collect();
    client.commit(&database.change(writes), deadline()).unwrap();
    let snapshot = database.begin().snapshot;
    let pages = (1..=count).map(page).collect();
    ReadRequest { branch: database.open.branch, snapshot, incarnation: None, pages }
}

/// A connection that is amid the reply to `read`: of its first frame the head was read.
fn amid_reply(dir: &std::path::Path, read: &ReadRequest) -> (Raw, [u8; HEADER_LEN]) {
    let mut raw = Raw::greeted(&socket(dir));
    raw.ask(2, &Request::Read(Cow::Borrowed(read)));
    let mut head = [0; HEADER_LEN];
    raw.0.read_exact(&mut head).unwrap();
    // So that the server waits for room.
    std::thread::sleep(Duration::from_millis(20));
    (raw, head)
}

/// The rest of it.
fn rest_of_reply(mut raw: Raw, head: [u8; HEADER_LEN]) -> usize {
    let header = parse_header(&head).unwrap().unwrap();
    let mut body = vec![0; header.frame_len() - HEADER_LEN];
    raw.0.read_exact(&mut body).unwrap();
    match Reply::decode(header.kind, &body).unwrap() {
        Reply::Pages(pages) => pages.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn clients_that_leave_amid_a_reply_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&["--store", &dir_url(dir.path()), "--idle-exit=1"]);
    let client = client(&socket_url(dir.path()));
    let read = large_read(&*client);
    // Whether the server sees first that the client left or that it cannot write is luck.
    for _ in 0..12 {
        drop(amid_reply(dir.path(), &read));
    }
    drop(client);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(server.wait()));
    let code = end.recv_timeout(LIMIT).expect("the server takes none of them for a client");
    assert_eq!(code, Some(0));
}

#[test]
fn a_client_that_has_sent_its_last_gets_its_reply() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let read = large_read(&*client);
    let (raw, head) = amid_reply(dir.path(), &read);
    raw.0.shutdown(std::net::Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rest_of_reply(raw, head), read.pages.len());
}

#[test]
fn a_stop_finishes_a_reply_that_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::on(dir.path());
    let client = client(&socket_url(dir.path()));
    let read = large_read(&*client);
    let (raw, head) = amid_reply(dir.path(), &read);
    let stopped = std::thread::spawn(|| server.stop());
    while socket(dir.path()).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rest_of_reply(raw, head), read.pages.len());
    let (code, said) = stopped.join().unwrap();
    assert_eq!(code, Some(0));
    assert!(!said.contains("cut off"), "{said}");
}
