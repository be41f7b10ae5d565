//! Commits of more pages than one transaction has room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::common::{Db, filled, mem_store, page, soon};
use crate::api::{Backend, CommitRequest, StageRequest};
use crate::env::Env;
use crate::error::Error;
use crate::format::records::{FormatRecord, encode_discarded};
use crate::format::{FORMAT_VERSION, OLDEST_FORMAT, keys};
use crate::kv::sim::{FaultPlan, SimEngine};
use crate::kv::{Kv, Txn, mem::MemEngine};
use crate::store::merge::Merging;
use crate::store::{Store, StoreOptions, Tended};
use crate::types::{PageNumber, Version};

const PAGES: u32 = 40;

fn count(store: &Store, subspace: &str) -> u64 {
    store.count_records(soon()).unwrap().subspaces[subspace].0
}

/// A transaction that writes every page.
fn all(db: &Db, byte: u8) -> CommitRequest {
    let mut tx = db.begin();
    for n in 1..=PAGES {
        tx.write(n, filled(byte));
    }
    tx.request()
}

fn put_all(db: &Db, byte: u8) -> Version {
    db.store.commit(&all(db, byte), soon()).unwrap().version
}

/// The pages of a commit, as they are staged ahead of it.
fn stage(db: &Db, request: &CommitRequest, pages: Vec<(PageNumber, Bytes)>) -> Result<(), Error> {
    let (branch, domain) = (db.open.branch, db.open.domain);
    db.store.stage(&StageRequest { id: request.id, branch, domain, pages }, soon())
}

fn unhurried() -> (Arc<Store>, Db) {
    let store = mem_store();
    store.unhurried.store(true, Ordering::Relaxed);
    let db = Db::open(&store, "app");
    (store, db)
}

#[test]
fn pages_are_read_before_and_while_and_after_they_are_merged() {
    let (store, db) = unhurried();
    let first = put_all(&db, 1);
    let second = put_all(&db, 2);
    let small = db.put(&[(7, 3)]);
    let third = put_all(&db, 4);
    let branch = db.on_branch(store.create_branch(db.open.branch, small, soon()).unwrap());
    let check = || {
        let byte = |db: &Db, at, n| {
            let read = db.read_at(at, &[n]).unwrap();
            (read[0].version, read[0].bytes[0])
        };
        for n in 1..=PAGES {
            let expected = if n == 7 { (small, 3) } else { (second, 2) };
            assert_eq!(byte(&db, first, n), (first, 1));
            assert_eq!(byte(&db, second, n), (second, 2));
            assert_eq!(byte(&db, small, n), expected);
            assert_eq!(byte(&branch, small, n), expected);
            assert_eq!(byte(&db, third, n), (third, 4));
        }
    };
    assert_eq!(count(&store, "unmerged"), 3);
    assert_eq!(count(&store, "pages"), 1);
    check();
    let entries = store.kv.snapshot(soon()).unwrap();
    let scan = |range| crate::kv::Scan { range, reverse: false, limit: usize::MAX };
    let ids = entries.scan(&scan(keys::Subspace::Staging.range())).unwrap();
    for (key, _) in ids {
        let id = keys::parse_staging(&key).unwrap();
        let version = store.find_commit(id, soon()).unwrap().unwrap();
        let mut merging = Merging::of(id, version);
        let mut from = merging.from.clone();
        while store.settle_step(&mut merging, soon()).unwrap() {
            assert!(merging.from > from, "what was moved is passed over no more");
            from.clone_from(&merging.from);
            check();
        }
        store.note_merged(id);
    }
    check();
    assert!(store.unmerged.is_empty());
    let of = |name| count(&store, name);
    assert_eq!((of("unmerged"), of("staging"), of("staged_pages")), (0, 0, 0));
    assert_eq!((of("pages"), of("references")), (3 * u64::from(PAGES) + 1, of("pages")));
}

#[test]
fn what_is_staged_late_changes_nothing_of_a_commit_that_took_effect() {
    let (store, db) = unhurried();
    let request = all(&db, 1);
    let version = store.commit(&request, soon()).unwrap().version;
    stage(&db, &request, vec![(page(5), filled(9))]).unwrap();
    assert_eq!(db.bytes(&[5]), [1]);
    // Neither does taking it back: that is what its pages are.
    store.unstage(request.id, soon()).unwrap();
    assert_eq!(db.bytes(&(1..=PAGES).collect::<Vec<_>>()), vec![1; PAGES as usize]);
    stage(&db, &request, vec![(page(5), filled(9))]).unwrap();
    assert_eq!((count(&store, "staging"), count(&store, "staged_pages")), (0, 0));
    assert_eq!(store.commit(&request, soon()).unwrap().version, version, "at most once");
}

#[test]
fn a_commit_whose_pages_were_given_up_never_takes_effect() {
    let env = SimEngine::new(1, FaultPlan::every(0.0)).env();
    let clock = Arc::clone(&env.clock);
    let kv = Arc::new(MemEngine::new(env.clone()));
    let options = StoreOptions { env, ..StoreOptions::default() };
    let store = Store::open(kv, options).unwrap();
    let db = Db::open(&store, "app");
    db.put(&[(1, 7)]);
    let request = all(&db, 1);
    let mut staged = request.clone();
    let pages = std::mem::take(&mut staged.parts[0].writes);
    staged.parts[0].staged = true;
    stage(&db, &staged, pages[..30].to_vec()).unwrap();
    let open = Tended { open: 1, ..Tended::default() };
    assert_eq!(store.tend(soon()).unwrap(), open, "it may still come");
    clock.sleep(Duration::from_secs(7200));
    let given_up = Tended { discarded: 1, ..Tended::default() };
    assert_eq!(store.tend(soon()).unwrap(), given_up);
    assert_eq!((count(&store, "staging"), count(&store, "staged_pages")), (0, 0));
    // Half of it must not be taken for all of it.
    assert!(matches!(stage(&db, &staged, pages[30..].to_vec()), Err(Error::Conflict { .. })));
    assert!(store.commit(&staged, soon()).is_err());
    assert!(matches!(store.commit(&request, soon()), Err(Error::Conflict { .. })));
    assert_eq!(db.bytes(&[1, 2]), [7, 0]);
    assert_eq!(store.tend(soon()).unwrap(), Tended::default());
}

#[test]
fn what_was_left_of_a_commit_that_was_given_up_goes_at_once() {
    let (store, db) = unhurried();
    let request = all(&db, 1);
    stage(&db, &request, request.parts[0].writes.clone()).unwrap();
    // Whoever gave it up came no further than to say so.
    let mark = encode_discarded(0);
    store
        .kv
        .transact(soon(), &mut |txn| {
            txn.put(keys::discarded(request.id), mark.clone());
            Ok(())
        })
        .unwrap();
    let given_up = Tended { discarded: 1, ..Tended::default() };
    assert_eq!(store.tend(soon()).unwrap(), given_up);
    assert_eq!((count(&store, "staging"), count(&store, "staged_pages")), (0, 0));
    assert!(matches!(store.commit(&request, soon()), Err(Error::Conflict { .. })));
}

#[test]
fn giving_up_and_committing_exclude_each_other() {
    let (store, db) = unhurried();
    let request = all(&db, 1);
    let prepared = store.prepare(&request, soon()).unwrap();
    assert!(prepared.indexed);
    // Between what the commit prepared and its attempt.
    store.unstage(request.id, soon()).unwrap();
    let result = store.drive(&prepared, None, soon());
    assert!(matches!(result, Err(Error::Conflict { .. })), "{result:?}");
    assert_eq!(store.find_commit(request.id, soon()).unwrap(), None);
    assert_eq!((count(&store, "unmerged"), db.begin().begun.head), (0, Version::ZERO));
}

/// Also of few pages, whose records the commit writes itself: an id that was given up is
/// never one of a commit (F8), and nothing need be kept for it.
#[test]
fn giving_up_and_committing_few_staged_pages_exclude_each_other() {
    let (store, db) = unhurried();
    let mut tx = db.begin();
    (1..=3).for_each(|n| tx.write(n, filled(1)));
    let mut request = tx.request();
    let pages = std::mem::take(&mut request.parts[0].writes);
    request.parts[0].staged = true;
    stage(&db, &request, pages).unwrap();
    let prepared = store.prepare(&request, soon()).unwrap();
    assert!(!prepared.indexed);
    // Between what the commit prepared and its attempt.
    store.unstage(request.id, soon()).unwrap();
    let result = store.drive(&prepared, None, soon());
    assert!(matches!(result, Err(Error::Conflict { .. })), "{result:?}");
    assert_eq!(store.find_commit(request.id, soon()).unwrap(), None);
    assert_eq!(db.begin().begun.head, Version::ZERO);
}

#[test]
fn a_damaged_commit_does_not_keep_others_from_being_merged() {
    let (store, db) = unhurried();
    let commit = |byte| {
        let request = all(&db, byte);
        store.commit(&request, soon()).unwrap();
        request.id
    };
    let ids: Vec<_> = (1..=5).map(commit).collect();
    // Neither the first nor the last of their ids.
    let key = keys::staged_page(ids[2], db.open.branch, page(1));
    let before = store.kv.snapshot(soon()).unwrap().get(&key).unwrap().unwrap();
    let put = |value: Bytes| {
        let mut put = |txn: &mut dyn Txn| {
            txn.put(key.clone(), value.clone());
            Ok(())
        };
        store.kv.transact(soon(), &mut put).unwrap();
    };
    put(Bytes::from_static(b"rubbish"));
    assert!(store.tend(soon()).is_err());
    assert_eq!(count(&store, "unmerged"), 1, "all but the damaged one");
    put(before);
    store.tend(soon()).unwrap();
    assert_eq!(count(&store, "unmerged"), 0);
    assert_eq!(db.bytes(&[1, PAGES]), [5, 5]);
}

#[test]
fn conflicts_are_per_page() {
    let (_store, db) = unhurried();
    put_all(&db, 1);
    let half = |pages: std::ops::RangeInclusive<u32>| {
        let mut tx = db.begin();
        pages.for_each(|n| tx.write(n, filled(2)));
        tx
    };
    let (low, high, both) = (half(1..=20), half(21..=PAGES), half(20..=21));
    low.commit().unwrap();
    high.commit().unwrap();
    assert!(matches!(both.commit(), Err(Error::Conflict { .. })));
    assert_eq!(db.bytes(&(1..=PAGES).collect::<Vec<_>>()), vec![2; PAGES as usize]);
}

#[test]
fn a_store_of_the_first_format_becomes_one_of_this() {
    let kv: Arc<dyn Kv> = Arc::new(MemEngine::new(Env::system()));
    let open = || Store::open(Arc::clone(&kv), StoreOptions::default()).unwrap();
    let record = || {
        let bytes = kv.snapshot(soon()).unwrap().get(&keys::format()).unwrap().unwrap();
        FormatRecord::decode(&bytes).unwrap()
    };
    let id = open().id;
    let old = FormatRecord { version: OLDEST_FORMAT, ..record() };
    kv.transact(soon(), &mut |txn| {
        txn.put(keys::format(), old.encode());
        Ok(())
    })
    .unwrap();
    assert_eq!(open().id, id);
    assert_eq!(record(), FormatRecord { version: FORMAT_VERSION, ..old });
}

/// Writers of every page, readers, and whoever merges, all at once: every reader sees one
/// commit and not two halves.
fn nobody_sees_half(store: &Arc<Store>) {
    store.unhurried.store(true, Ordering::Relaxed);
    let db = Db::open(store, "app");
    put_all(&db, 0);
    let stop = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed);
    let pages: Vec<u32> = (1..=PAGES).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stopped() {
                    let bytes = db.bytes(&pages);
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{bytes:?}");
                }
            });
            scope.spawn(|| {
                while !stopped() {
                    store.tend(soon()).unwrap();
                }
            });
        }
        for byte in 1..=60 {
            put_all(&db, byte);
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.tend(soon()).unwrap();
    assert_eq!((count(store, "unmerged"), count(store, "staged_pages")), (0, 0));
    assert_eq!(count(store, "pages"), 61 * u64::from(PAGES));
}

#[test]
fn nobody_sees_half_of_a_commit_in_memory() {
    nobody_sees_half(&mem_store());
}

#[test]
fn nobody_sees_half_of_a_commit_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    nobody_sees_half(&Store::open_dir(dir.path(), StoreOptions::default()).unwrap());
}
