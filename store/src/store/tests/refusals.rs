//! Bad requests, damaged records, pruned snapshots.

use std::sync::Arc;

use bytes::Bytes;

use super::common::{Db, filled, filled_to, mem_store, page, soon};
use crate::api::{Backend, BeginRequest, CommitRequest, MAX_READ_PAGES, ReadRequest};
use crate::error::{Error, Result};
use crate::format::keys;
use crate::kv::{Commit, Mutation};
use crate::types::{CommitId, ContentHash, DomainId, Incarnation, Version};

/// Sends a good request with one thing changed.
fn changed(db: &Db, change: impl FnOnce(&mut CommitRequest)) -> Result<Version> {
    let mut tx = db.begin();
    tx.write(1, filled(7));
    let mut request = tx.request();
    change(&mut request);
    db.store.commit(&request, soon()).map(|reply| reply.version)
}

#[test]
fn requests_that_break_a_rule_are_refused_by_name() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1), (2, 2)]);
    let refused = |what: &str, change: &dyn Fn(&mut CommitRequest)| {
        let error = changed(&db, change).unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
    };
    refused("without parts", &|r| r.parts.clear());
    refused("twice", &|r| r.parts.push(r.parts[0].clone()));
    refused("limit is 128", &|r| r.parts = vec![r.parts[0].clone(); 129]);
    refused("limit is 64", &|r| r.client = "x".repeat(65));
    refused("not a hash for each page", &|r| r.parts[0].hashes = vec![ContentHash::of(b"x"); 9]);
    refused("ascending", &|r| r.parts[0].writes.push((page(1), filled(1))));
    refused("beyond the size of 2", &|r| r.parts[0].writes.push((page(3), filled(1))));
    refused("1024 bytes", &|r| r.parts[0].writes[0].1 = filled_to(1024, 1));
    refused("100 bytes", &|r| r.parts[0].writes[0].1 = Bytes::from_static(&[0; 100]));
    refused("24..40", &|r| r.parts[0].writes[0].1 = Bytes::from_static(&[1; 512]));
    refused("content domain", &|r| r.parts[0].domain = DomainId::from_bytes([1; 8]));
    refused("newest version", &|r| r.parts[0].snapshot = Version::MAX);
    refused("nothing is staged", &|r| r.parts[0].staged = true);
    refused("allocation", &|r| {
        let now = db.begin().begun.allocation;
        let before = crate::api::Allocation { freelist_pages: 5, ..now };
        let snapshot = r.parts[0].snapshot;
        r.parts[0].allocation = Some(crate::api::AllocationChange { snapshot, before, after: now });
    });
    assert!(matches!(
        changed(&db, |r| r.incarnation = Incarnation::from_bytes([0; 8])),
        Err(Error::IncarnationChanged)
    ));
    assert_eq!(db.bytes(&[1, 2]), [1, 2], "nothing of it was written");

    let many = ReadRequest {
        branch: db.open.branch,
        snapshot: Version::ZERO,
        incarnation: None,
        pages: vec![page(1); MAX_READ_PAGES + 1],
    };
    assert!(store.read(&many, soon()).unwrap_err().to_string().contains("limit is 1024"));
    let lost = ReadRequest {
        incarnation: Some(Incarnation::from_bytes([0; 8])),
        pages: vec![page(1)],
        ..many
    };
    assert_eq!(store.read(&lost, soon()), Err(Error::IncarnationChanged));
    let beyond = BeginRequest { branch: db.open.branch, at: Some(Version::MAX), known: None };
    assert!(matches!(store.begin(&beyond, soon()), Err(Error::InvalidRequest { .. })));
    assert!(matches!(db.read_at(Version::MAX, &[1]), Err(Error::InvalidRequest { .. })));
}

#[test]
fn growing_over_too_many_pages_names_the_limit() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let mut tx = db.begin();
    tx.write(5_000_000, filled(1));
    let error = tx.commit().unwrap_err();
    assert!(error.to_string().contains("4194304"), "{error}");
}

#[test]
fn a_transaction_that_changes_nothing_is_answered_and_leaves_no_trace() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    let mut tx = db.begin();
    tx.read(1);
    let before = store.count_records(soon()).unwrap();
    let mut request = tx.request();
    request.id = CommitId::from_bytes([5; 16]);
    request.parts[0].allocation = None;
    assert_eq!(store.commit(&request, soon()).unwrap().version, tx.begun.snapshot);
    assert_eq!(store.count_records(soon()).unwrap(), before);
    assert_eq!(store.find_commit(request.id, soon()).unwrap(), None);
}

/// Overwrites, or removes, one record behind the store's back.
pub(super) fn damage(db: &Db, key: Vec<u8>, value: Option<&[u8]>) {
    let mutation = match value {
        Some(value) => Mutation::Put { key, value: Bytes::copy_from_slice(value) },
        None => Mutation::Delete { key },
    };
    let commit = Commit {
        mutations: vec![mutation],
        on_publish: db.store.on_version(),
        ..Commit::default()
    };
    db.store.kv.commit_at(commit, soon()).unwrap();
}

#[test]
fn damaged_content_is_named_and_nothing_else_is_lost() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let version = db.put(&[(1, 1), (2, 2), (3, 3)]);
    let content = |byte| {
        let hash = crate::types::ContentHash::of(&filled(byte));
        keys::content(db.open.domain, hash)
    };
    let mut flipped = vec![1, 0];
    flipped.extend_from_slice(&filled(9));
    let says = |what: &str| {
        let error = db.read_at(version, &[1, 2]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Corrupt { .. }), "{text}");
        for part in [what, "page 2", &db.open.branch.to_string(), &version.to_string()] {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    damage(&db, content(2), Some(&flipped));
    says("does not match its hash");
    damage(&db, content(2), None);
    says("is missing");
    damage(&db, content(2), Some(&[1]));
    says("cut short");
    damage(&db, content(2), Some(&[9, 0, 0]));
    let error = db.read_at(version, &[2]).unwrap_err();
    assert!(matches!(error, Error::FormatVersion { found: 9, .. }), "{error}");
    let rest = db.read_at(version, &[1, 3]).unwrap();
    assert_eq!(super::common::first_bytes(&rest), [1, 3]);

    let mut record = keys::page_prefix(db.open.branch, page(3));
    record.extend_from_slice(&version.to_bytes());
    damage(&db, record, None);
    let error = db.read_at(version, &[3]).unwrap_err().to_string();
    assert!(error.contains("page 3") && error.contains("record is missing"), "{error}");
}

#[test]
fn a_pruned_snapshot_says_so_and_its_writers_run_again() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let first = db.put(&[(1, 1), (2, 2)]);
    let mut late = db.begin();
    late.write(1, filled(5));
    let second = db.put(&[(2, 3)]);
    store.raise_watermark(db.open.branch, second, soon()).unwrap();
    let pruned = |error| {
        assert_eq!(error, Error::Pruned { version: first, oldest: second });
    };
    pruned(db.read_at(first, &[1]).unwrap_err());
    pruned(db.try_begin(Some(first)).unwrap_err());
    let when = crate::when::When::Version(first);
    pruned(store.resolve(db.open.branch, &when, soon()).unwrap_err());
    assert!(matches!(late.commit(), Err(Error::Conflict { what }) if what.contains("pruned")));
    // It never goes back.
    store.raise_watermark(db.open.branch, first, soon()).unwrap();
    assert!(db.try_begin(Some(first)).is_err());
    assert_eq!(db.bytes(&[1, 2]), [1, 3]);
}

#[test]
fn a_closed_store_says_so_at_once() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let mut tx = db.begin();
    tx.write(1, filled(1));
    store.close().unwrap();
    let before = std::time::Instant::now();
    assert!(matches!(tx.commit(), Err(Error::Unavailable { .. })));
    assert!(matches!(store.list(soon()), Err(Error::Unavailable { .. })));
    // Far from the deadline of ten seconds.
    assert!(before.elapsed() < std::time::Duration::from_secs(5));
    drop(Arc::clone(&store));
}

#[test]
fn an_engine_with_versions_and_no_format_record_is_no_new_store() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    damage(&db, keys::format(), None);
    let error = crate::Store::open(Arc::clone(&store.kv), crate::StoreOptions::default());
    let Err(Error::Corrupt { what }) = error else { panic!("{:?}", error.map(drop)) };
    assert!(what.contains("format record"), "{what}");
}
