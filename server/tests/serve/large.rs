//! Messages that do not fit one frame.

use interleaf_store::Error;
use interleaf_store::api::{LogRequest, MAX_READ_PAGES, ReadRequest, StageRequest};
use interleaf_store::types::{PageSize, Version};
use interleaf_wire::limits::{MAX_BODY, READ_REPLY_BYTES};

use crate::support::{Database, Server, client, commit_id, deadline, page, page_of, socket_url};

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
    for name in ["staging", "staged pages"] {
        assert_eq!(records.subspaces.get(name).map_or(0, |s| s.0), 0, "{name}: {records:?}");
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
