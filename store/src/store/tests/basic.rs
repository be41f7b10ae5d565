//! Begin, read and commit on one database.

use super::common::{Db, filled, mem_store};
use crate::api::Changes;
use crate::error::Error;
use crate::types::Version;

#[test]
fn a_commit_is_read_at_its_version_and_not_before() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let empty = db.begin();
    assert_eq!((empty.begun.head, empty.begun.allocation.pages.0), (Version::ZERO, 0));
    let first = db.put(&[(1, 1), (2, 2)]);
    let second = db.put(&[(2, 9)]);
    assert!(second > first);
    assert_eq!(db.bytes(&[2, 1]), [9, 1]);
    let old = db.begin_at(Some(first));
    assert_eq!((old.begun.snapshot, old.begun.head), (first, first));
    let pages = db.read_at(first, &[1, 2, 3]).unwrap();
    assert_eq!(
        pages.iter().map(|p| (p.version, p.bytes[0])).collect::<Vec<_>>(),
        [(first, 1), (first, 2), (Version::ZERO, 0),]
    );
}

#[test]
fn a_page_that_was_read_and_changed_meanwhile_conflicts() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1), (2, 2), (3, 3)]);
    let (mut a, mut b, mut c) = (db.begin(), db.begin(), db.begin());
    a.read(2);
    a.write(3, filled(30));
    b.write(2, filled(20));
    c.write(1, filled(10));
    let b = b.commit().unwrap();
    assert!(matches!(a.commit(), Err(Error::Conflict { what }) if what.contains("page 2")));
    let c = c.commit().unwrap();
    assert_eq!(c.previous, [Some(b.version)]);
    assert_eq!(db.bytes(&[1, 2, 3]), [10, 20, 3]);
}

#[test]
fn a_begin_tells_what_changed() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    let first = db.put(&[(1, 1), (2, 2)]);
    let second = db.put(&[(2, 3)]);
    let known = |version| {
        let begun = db.begin().begun;
        let request = crate::api::BeginRequest {
            branch: db.open.branch,
            at: None,
            known: Some((begun.incarnation, version)),
        };
        crate::api::Backend::begin(&*store, &request, super::common::soon()).unwrap()
    };
    let reply = known(first);
    assert_eq!(reply.head, second);
    let Changes::Commits(commits) = reply.changes else { panic!("{reply:?}") };
    assert_eq!(commits.len(), 1);
    assert_eq!(commits[0].version, second);
    assert_eq!(commits[0].pages.len(), 1);
    assert_eq!(known(second).changes, Changes::Commits(Vec::new()));
}

#[test]
fn a_directory_keeps_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let open = || crate::Store::open_dir(dir.path(), crate::StoreOptions::default()).unwrap();
    let store = open();
    let version = Db::open(&store, "app").put(&[(1, 1), (2, 2)]);
    store.close().unwrap();
    drop(store);
    let store = open();
    let db = Db::open(&store, "app");
    assert_eq!(db.bytes(&[1, 2]), [1, 2]);
    assert_eq!(db.begin().begun.head, version);
    assert!(db.put(&[(1, 3)]) > version);
}
