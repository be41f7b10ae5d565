//! What is kept in memory of an exclusive engine: loading while commits go on (P3).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::common::{Db, commit_id, filled, mem_store, page, soon};
use crate::api::{Backend, Changes};
use crate::error::Error;
use crate::format::log::{LogPages, LogRecord};
use crate::kv::Snapshot;
use crate::store::Store;
use crate::store::published::{Event, Published};
use crate::types::{ContentHash, Version};

fn record(n: u32) -> Event {
    let pages = LogPages::Hashed(vec![(page(n), ContentHash::of(b""))]);
    Event::Commit(Arc::new(LogRecord {
        id: commit_id(),
        time_micros: 0,
        client: String::new(),
        content_bytes: 0,
        allocation: None,
        shrunk_to: None,
        pages,
    }))
}

/// A memory of its own over a store's engine, which knows nothing yet.
fn fresh(store: &Store) -> (Published, Version) {
    let newest = store.kv.snapshot(soon()).unwrap().version();
    (Published::new(newest), newest)
}

/// Version `n` commits after `newest`.
fn later(newest: Version, n: u64) -> Version {
    Version::new(newest.commit() + n, 0)
}

#[test]
fn commits_published_while_a_branch_is_loaded_are_neither_lost_nor_doubled() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let first = db.put(&[(1, 1), (2, 2)]);
    let branch = db.open.branch;
    let (published, newest) = fresh(&store);
    let one = later(newest, 1);
    let two = later(newest, 2);
    published
        .load(branch, || {
            // Applied and published before the engine's reads, and after them.
            published.publish(one, vec![(branch, record(1))]);
            let reads = store.kv.snapshot(soon())?;
            published.publish(two, vec![(branch, record(2))]);
            Ok(reads)
        })
        .unwrap();
    let seen = published.peek(branch, |newest, state| {
        (newest, state.head_at(newest), state.head_at(first), state.changes(first, newest))
    });
    let (newest, head, before, changes) = seen.unwrap();
    assert_eq!((newest, head, before), (two, Some(two), Some(first)));
    let Some(Changes::Commits(changes)) = changes else { panic!("{changes:?}") };
    assert_eq!(changes.iter().map(|c| c.version).collect::<Vec<_>>(), [one, two]);
    assert_eq!(published.publish(later(newest, 1), vec![(branch, record(1))]), [Some(two)]);
}

#[test]
fn what_the_engine_applied_and_not_yet_published_is_not_seen() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let first = db.put(&[(1, 1), (2, 2)]);
    let (published, newest) = fresh(&store);
    let unpublished = db.put(&[(1, 3), (3, 3)]);
    assert!(unpublished > newest);
    published.load(db.open.branch, || Ok(store.kv.snapshot(soon())?)).unwrap();
    let look = |at| {
        published.peek(db.open.branch, |_, state| {
            (state.head_at(at), state.allocation_at(at).map(|a| a.pages.0))
        })
    };
    assert_eq!(look(newest), Some((Some(first), Some(2))), "P4");
}

#[test]
fn a_load_that_fails_leaves_no_mark_and_two_at_once_agree() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let first = db.put(&[(1, 1)]);
    let branch = db.open.branch;
    let (published, newest) = fresh(&store);
    let gone = || Error::Unavailable { what: "gone".into() };
    let snapshot = || Ok(store.kv.snapshot(soon())?);
    let failed = published.load(branch, || Err::<Box<dyn Snapshot>, _>(gone()));
    assert_eq!(failed.unwrap_err(), gone());
    assert!(published.peek(branch, |_, _| ()).is_none());
    let nobody = crate::types::BranchId::from_bytes([9; 8]);
    assert!(matches!(published.load(nobody, snapshot), Err(Error::NotFound { .. })));
    published
        .load(branch, || {
            published.load(branch, snapshot)?;
            published.publish(later(newest, 1), vec![(branch, record(1))]);
            snapshot()
        })
        .unwrap();
    let head = published.peek(branch, |newest, state| state.head_at(newest)).unwrap();
    assert_eq!(head, Some(later(newest, 1)));
    let known = published.peek(branch, |newest, state| state.changes(first, newest)).unwrap();
    assert!(matches!(known, Some(Changes::Commits(changes)) if changes.len() == 1));
}

/// P1, rule 4: a commit over two databases is seen in both or in none.
#[test]
fn a_commit_over_two_databases_is_never_half_seen() {
    let store = mem_store();
    let (one, two) = (Db::open(&store, "one"), Db::open(&store, "two"));
    one.put(&[(1, 0)]);
    two.put(&[(1, 0)]);
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        std::thread::spawn(move || {
            let (one, two) = (Db::open(&store, "one"), Db::open(&store, "two"));
            let mut seen = 0u32;
            while !done.load(Ordering::Relaxed) || seen == 0 {
                let first = one.begin();
                let second = two.begin_at(Some(first.begun.snapshot));
                assert_eq!(first.begun.snapshot, second.begun.snapshot);
                let at = |db: &Db| db.read_at(first.begun.snapshot, &[1]).unwrap()[0].bytes[0];
                assert_eq!(at(&one), at(&two));
                seen += 1;
            }
        })
    };
    for byte in 1..=250 {
        let mut first = one.begin();
        let mut second = two.begin_at(Some(first.begun.snapshot));
        first.write(1, filled(byte));
        second.write(1, filled(byte));
        let mut request = first.request();
        request.parts.push(second.part());
        let reply = store.commit(&request, soon()).unwrap();
        assert_eq!(reply.previous.len(), 2);
    }
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
}
