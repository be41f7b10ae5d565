//! Pages kept as their difference from a full one.

use std::sync::Arc;

use super::common::{Db, filled, image, mem_store, page, soon};
use super::refusals::damage;
use crate::api::Backend;
use crate::env::Env;
use crate::error::Error;
use crate::format::keys;
use crate::format::records::PageRecord;
use crate::kv::mem::MemEngine;
use crate::kv::{Commit, Kv, Mutation, Scan};
use crate::store::{Store, StoreOptions};
use crate::types::{ContentHash, Version};

/// Commits an image to page 2.
fn put(db: &Db, byte: u8) -> Version {
    let mut tx = db.begin();
    tx.write(2, image(512, byte));
    tx.commit().unwrap().version
}

/// The page records of page 2, oldest first.
fn records(db: &Db) -> Vec<PageRecord> {
    let prefix = keys::page_prefix(db.open.branch, page(2));
    let range = keys::versions_up_to(&prefix, Version::MAX);
    let scan = Scan { range, reverse: false, limit: 1000 };
    let found = db.store.kv.snapshot(soon()).unwrap().scan(&scan).unwrap();
    found.iter().map(|(_, value)| PageRecord::decode(value).unwrap()).collect()
}

fn base_of(record: &PageRecord) -> Option<ContentHash> {
    match record {
        PageRecord::Delta { base, .. } => Some(*base),
        _ => None,
    }
}

#[test]
fn a_small_change_is_kept_as_a_difference_from_the_last_full_page() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    let versions: Vec<_> = (0x10..0x18).map(|byte| (put(&db, byte), byte)).collect();
    let full = ContentHash::of(&image(512, 0x10));
    let kinds = records(&db);
    assert_eq!(kinds[0], PageRecord::Content(full));
    assert!(kinds[1..].iter().all(|record| base_of(record) == Some(full)), "B2: {kinds:?}");
    let counts = store.count_records(soon()).unwrap();
    assert_eq!(counts.subspaces["content"].0, 2, "of page 1, and one of page 2");
    assert_eq!(counts.subspaces["references"].0, 9, "one a page record");
    for (version, byte) in versions {
        let read = db.read_at(version, &[2, 2]).unwrap();
        assert_eq!(read[0].bytes, image(512, byte));
        assert_eq!((&read[1], read[0].hash), (&read[0], ContentHash::of(&read[0].bytes)));
    }
    // Another family: a full page, from which the next one differs.
    put(&db, 0x20);
    put(&db, 0x21);
    let next = ContentHash::of(&image(512, 0x20));
    assert_eq!(records(&db)[8], PageRecord::Content(next));
    assert_eq!(base_of(&records(&db)[9]), Some(next));
}

#[test]
fn a_commit_that_had_no_effect_leaves_no_base() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1), (2, 2)]);
    let mut loser = db.begin();
    loser.read(2);
    loser.write(2, image(512, 0x30));
    put(&db, 0x40);
    assert!(matches!(loser.commit(), Err(Error::Conflict { .. })));
    put(&db, 0x31);
    let last = records(&db).pop().unwrap();
    assert_eq!(last, PageRecord::Content(ContentHash::of(&image(512, 0x31))), "B1");
}

#[test]
fn another_process_differs_from_what_it_read() {
    let engine = Arc::new(MemEngine::new(Env::system()));
    let open = || Store::open(Arc::clone(&engine) as Arc<dyn Kv>, StoreOptions::default()).unwrap();
    let store = open();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    put(&db, 0x10);
    let old = put(&db, 0x11);
    let store = open();
    let db = Db::open(&store, "app");
    put(&db, 0x12);
    assert_eq!(base_of(&records(&db)[2]), None, "it knows of none");
    let store = open();
    let db = Db::open(&store, "app");
    // A read of long ago brings its base, and takes no newer one away.
    assert_eq!(db.read_at(old, &[2]).unwrap()[0].bytes, image(512, 0x11));
    put(&db, 0x13);
    assert_eq!(base_of(&records(&db)[3]), Some(ContentHash::of(&image(512, 0x10))));
    put(&db, 0x20);
    db.read_at(old, &[2]).unwrap();
    put(&db, 0x21);
    assert_eq!(base_of(&records(&db)[5]), Some(ContentHash::of(&image(512, 0x20))));
}

#[test]
fn another_page_size_begins_with_full_pages() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    put(&db, 0x10);
    let mut tx = db.begin();
    tx.after.page_size = crate::types::PageSize::new(1024).unwrap();
    for n in [1, 2] {
        tx.write(n, image(1024, 0x10));
    }
    let version = tx.commit().unwrap().version;
    assert_eq!(base_of(&records(&db)[1]), None);
    assert_eq!(db.read_at(version, &[2]).unwrap()[0].bytes, image(1024, 0x10));
}

#[test]
fn damage_to_a_base_or_a_difference_is_named() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    let first = put(&db, 0x10);
    let second = put(&db, 0x11);
    let third = put(&db, 0x12);
    let says = |version, what: &str| {
        let error = db.read_at(version, &[2]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Corrupt { .. }), "{text}");
        for part in [what, "page 2", &version.to_string()] {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    let PageRecord::Delta { hash, base, .. } = records(&db)[1].clone() else { panic!("a delta") };
    let mut key = keys::page_prefix(db.open.branch, page(2));
    key.extend_from_slice(&second.to_bytes());
    for (delta, what) in
        [(vec![0, 1, 9], "does not match its hash"), (vec![0xff, 0x7f, 1, 1], "beyond the page")]
    {
        let record = PageRecord::Delta { hash, base, delta: delta.into() };
        damage(&db, key.clone(), Some(&record.encode()));
        says(second, what);
    }
    assert_eq!(db.read_at(third, &[2]).unwrap()[0].bytes, image(512, 0x12), "nothing else");
    damage(&db, keys::content(db.open.domain, base), None);
    says(third, "is missing");
    says(first, "is missing");
    assert_eq!(db.bytes(&[1]), [filled(1)[0]]);
}

#[test]
fn a_commit_conflicts_with_the_end_of_its_base() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    put(&db, 0x10);
    let mut tx = db.begin();
    tx.write(2, image(512, 0x11));
    let base = keys::content(db.open.domain, ContentHash::of(&image(512, 0x10)));
    let collected = Commit {
        mutations: vec![Mutation::Delete { key: base.clone() }],
        write_conflicts: vec![keys::only(base)],
        on_publish: store.on_version(),
        ..Commit::default()
    };
    store.kv.commit_at(collected, soon()).unwrap();
    let version = tx.commit().unwrap().version;
    assert_eq!(records(&db)[1], PageRecord::Content(ContentHash::of(&image(512, 0x11))), "rule 8");
    assert_eq!(db.read_at(version, &[2]).unwrap()[0].bytes, image(512, 0x11));
}

#[test]
fn a_damaged_base_is_used_no_more() {
    let store = mem_store();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1)]);
    let first = put(&db, 0x10);
    damage(&db, keys::content(db.open.domain, ContentHash::of(&image(512, 0x10))), None);
    assert!(matches!(db.read_at(first, &[2]), Err(Error::Corrupt { .. })));
    let version = put(&db, 0x11);
    assert_eq!(db.read_at(version, &[2]).unwrap()[0].bytes, image(512, 0x11));
}
