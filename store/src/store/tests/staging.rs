//! Parts sent ahead, large commits, and what a commit stores.

use bytes::Bytes;

use super::common::{Db, commit_id, filled, filled_to, mem_store, name, page, soon};
use crate::api::{Backend, CommitRequest, CreateState, RecordCounts, StageRequest};
use crate::env::Env;
use crate::error::Error;
use crate::kv::Kv;
use crate::store::{Store, StoreOptions};
use crate::types::PageNumber;

fn records(counts: &RecordCounts, subspace: &str) -> u64 {
    counts.subspaces[subspace].0
}

fn count(store: &Store) -> RecordCounts {
    store.count_records(soon()).unwrap()
}

fn stage(db: &Db, request: &CommitRequest, pages: Vec<(PageNumber, Bytes)>) {
    let (branch, domain) = (db.open.branch, db.open.domain);
    let request = StageRequest { id: request.id, branch, domain, pages };
    db.store.stage(&request, soon()).unwrap();
}

#[test]
fn staged_pages_are_part_of_the_commit_and_leave_nothing_behind() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let mut tx = db.begin();
    for n in 1..=20 {
        tx.write(n, filled(u8::try_from(n).unwrap()));
    }
    let mut request = tx.request();
    let mut ahead = request.parts[0].writes.split_off(2);
    // Staged twice, the second counts; staged and sent with the commit, the latter counts.
    stage(&db, &request, vec![(page(3), filled(99)), (page(2), filled(99))]);
    let rest = ahead.split_off(9);
    stage(&db, &request, ahead);
    stage(&db, &request, rest);
    request.parts[0].staged = true;
    assert_eq!(records(&count(&store), "staged_pages"), 19);
    let version = store.commit(&request, soon()).unwrap().version;
    let expected: Vec<u8> = (1..=20).collect();
    assert_eq!(db.bytes(&(1..=20).collect::<Vec<_>>()), expected);
    let counts = count(&store);
    assert_eq!((records(&counts, "staged_pages"), records(&counts, "staging")), (0, 0));
    // A duplicate finds the commit though what was staged is gone.
    assert_eq!(store.commit(&request, soon()).unwrap().version, version);
}

#[test]
fn what_was_staged_for_nothing_goes_away() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let mut tx = db.begin();
    tx.write(1, filled(1));
    let request = tx.request();
    stage(&db, &request, (1..=10).map(|n| (page(n), filled(1))).collect());
    store.unstage(request.id, soon()).unwrap();
    let counts = count(&store);
    assert_eq!((records(&counts, "staged_pages"), records(&counts, "staging")), (0, 0));
    store.unstage(request.id, soon()).unwrap();
    let id = commit_id();
    let foreign = StageRequest {
        id,
        branch: db.open.branch,
        domain: crate::types::DomainId::from_bytes([0; 8]),
        pages: Vec::new(),
    };
    assert!(matches!(store.stage(&foreign, soon()), Err(Error::InvalidRequest { .. })));
}

#[test]
fn a_large_commit_is_staged_by_the_store_itself() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let (mut tx, mut loser) = (db.begin(), db.begin());
    for n in 1..=100 {
        tx.write(n, filled(u8::try_from(n).unwrap()));
        loser.write(n, filled(0xaa));
    }
    assert!(store.is_large(&tx.request()));
    tx.commit().unwrap();
    assert!(matches!(loser.commit(), Err(Error::Conflict { .. })));
    assert_eq!(db.bytes(&[1, 50, 100]), [1, 50, 100]);
    let counts = count(&store);
    assert_eq!((records(&counts, "staged_pages"), records(&counts, "staging")), (0, 0));
    let log = crate::api::LogRequest {
        branch: db.open.branch,
        after: crate::types::Version::ZERO,
        up_to: crate::types::Version::MAX,
        limit: 9,
        newest_first: true,
    };
    let entries = store.log(&log, soon()).unwrap();
    assert_eq!((entries[0].pages.len(), entries[0].bytes), (100, 51_200));
}

#[test]
fn an_import_through_staging_is_read_back() {
    let store = mem_store();
    let open = store.create(&name("big"), CreateState::Importing, soon()).unwrap();
    let db = Db { store: std::sync::Arc::clone(&store), open };
    let mut tx = db.begin();
    tx.after.pages.0 = 300;
    tx.after.page_size = crate::types::PageSize::MAX;
    tx.reads.insert_range(1, 300);
    let mut request = tx.request();
    request.parts[0].staged = true;
    for chunk in (1..=300).collect::<Vec<u32>>().chunks(32) {
        let bytes = |n: &u32| filled_to(65_536, u8::try_from(n % 251).unwrap());
        stage(&db, &request, chunk.iter().map(|n| (page(*n), bytes(n))).collect());
    }
    store.commit(&request, soon()).unwrap();
    store.finish_import(db.open.database, soon()).unwrap();
    let pages: Vec<u32> = (1..=300).collect();
    let expected: Vec<u8> = pages.iter().map(|n| u8::try_from(n % 251).unwrap()).collect();
    assert_eq!(db.bytes(&pages), expected);
}

#[test]
fn a_page_equal_in_two_versions_is_one_content_record() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1), (2, 2)]);
    db.put(&[(2, 3)]);
    let before = count(&store);
    db.put(&[(2, 2)]);
    let after = count(&store);
    assert_eq!(records(&before, "content"), records(&after, "content"));
    assert_eq!(records(&before, "pages") + 1, records(&after, "pages"));
    assert_eq!(records(&before, "references") + 1, records(&after, "references"));
    // Twice in one commit, too; and another domain has its own.
    db.put(&[(1, 7), (2, 7)]);
    assert_eq!(records(&count(&store), "content"), records(&after, "content") + 1);
    Db::open(&store, "other").put(&[(1, 7)]);
    assert_eq!(records(&count(&store), "content"), records(&after, "content") + 2);
}

#[test]
fn a_commit_of_one_page_stores_little_more_than_the_page() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let mut tx = db.begin();
    for n in 1..=3 {
        tx.after.page_size = crate::types::PageSize::DEFAULT;
        tx.write(n, filled_to(4096, 1));
    }
    tx.commit().unwrap();
    let total = |counts: &RecordCounts| counts.subspaces.values().map(|&(_, b)| b).sum::<u64>();
    let before = total(&count(&store));
    let mut tx = db.begin();
    tx.write(2, filled_to(4096, 2));
    tx.commit().unwrap();
    let added = total(&count(&store)) - before;
    assert!(added <= 4096 + 512, "{added} bytes for one page");
}

#[test]
fn every_page_size_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let engine = crate::kv::fjall::FjallEngine::open(dir.path(), 32 << 20, env).unwrap();
    let kv: std::sync::Arc<dyn Kv> = std::sync::Arc::new(engine);
    let store = Store::open(kv, StoreOptions::default()).unwrap();
    for size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        let db = Db::open(&store, &format!("db{size}"));
        let mut tx = db.begin();
        tx.after.page_size = crate::types::PageSize::new(size).unwrap();
        tx.write(1, filled_to(size as usize, 1));
        tx.write(4, filled_to(size as usize, 4));
        let version = tx.commit().unwrap().version;
        let pages = db.read_at(version, &[1, 3, 4, 5]).unwrap();
        assert!(pages.iter().all(|page| page.bytes.len() == size as usize));
        assert_eq!(super::common::first_bytes(&pages), [1, 0, 4, 0]);
    }
}
