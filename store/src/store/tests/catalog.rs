//! Names and databases.

use std::sync::{Arc, Barrier};

use super::common::{Db, filled, mem_store, name, soon};
use crate::api::{Backend, CreateState, OpenRequest};
use crate::env::Env;
use crate::error::Error;
use crate::kv::mem::MemEngine;
use crate::kv::{Kv, Mutation};
use crate::store::{Store, StoreOptions};
use crate::types::Version;

fn open(store: &Store, text: &str, create: bool) -> Result<crate::api::OpenReply, Error> {
    store.open(&OpenRequest { name: name(text), create, at: None }, soon())
}

#[test]
fn a_database_is_created_once_and_opened_by_everyone() {
    let store = mem_store();
    assert!(matches!(open(&store, "app", false), Err(Error::NotFound { .. })));
    let slip = open(&store, "app@yesterday", false).unwrap_err();
    assert!(matches!(slip, Error::NotFound { .. }), "{slip}");
    assert!(slip.to_string().contains("\"yesterday\" is no point in time: 20 hex"), "{slip}");
    let barrier = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (store, barrier) = (Arc::clone(&store), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                open(&store, "app", true).unwrap()
            })
        })
        .collect();
    let replies: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(replies.iter().filter(|reply| reply.created).count(), 1);
    assert!(replies.iter().all(|reply| reply.branch == replies[0].branch));
    assert!(matches!(
        store.create(&name("app"), CreateState::Ready, soon()),
        Err(Error::AlreadyExists { .. })
    ));
}

#[test]
fn an_import_is_hidden_until_it_is_finished() {
    let store = mem_store();
    let made = store.create(&name("big"), CreateState::Importing, soon()).unwrap();
    assert!(matches!(open(&store, "big", true), Err(Error::Importing { .. })));
    assert!(store.describe(&name("big"), soon()).unwrap().importing);
    store.finish_import(made.database, soon()).unwrap();
    assert_eq!(open(&store, "big", false).unwrap().branch, made.branch);
    let nobody = crate::types::DatabaseId::from_bytes([1; 8]);
    assert!(matches!(store.finish_import(nobody, soon()), Err(Error::NotFound { .. })));
}

#[test]
fn renaming_keeps_the_database_and_dropping_ends_its_transactions() {
    let store = mem_store();
    let db = Db::open(&store, "old");
    db.put(&[(1, 1)]);
    Db::open(&store, "other");
    let rename = |from, to| store.rename(&name(from), &name(to), soon());
    assert!(matches!(rename("missing", "x"), Err(Error::NotFound { .. })));
    assert!(matches!(rename("old", "other"), Err(Error::AlreadyExists { .. })));
    rename("old", "old").unwrap();
    rename("old", "new").unwrap();
    assert!(matches!(open(&store, "old", false), Err(Error::NotFound { .. })));
    assert_eq!(open(&store, "new", false).unwrap().branch, db.open.branch);
    assert_eq!(db.bytes(&[1]), [1], "open connections stay");

    let mut tx = db.begin();
    tx.write(1, filled(2));
    store.drop_database(&name("new"), soon()).unwrap();
    assert!(matches!(tx.commit(), Err(Error::NotFound { .. })));
    assert!(matches!(db.read_at(tx.begun.snapshot, &[1]), Err(Error::NotFound { .. })));
    assert!(matches!(store.drop_database(&name("new"), soon()), Err(Error::NotFound { .. })));
    let again = open(&store, "new", true).unwrap();
    assert!(again.created && again.branch != db.open.branch && again.domain != db.open.domain);
}

#[test]
fn databases_are_listed_by_name_with_their_heads() {
    let store = mem_store();
    for text in ["b", "a", "ä"] {
        Db::open(&store, text);
    }
    let head = Db::open(&store, "b").put(&[(1, 1), (2, 2)]);
    let list = store.list(soon()).unwrap();
    assert_eq!(list.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["a", "b", "ä"]);
    assert_eq!((list[0].head, list[0].allocation.pages.0), (Version::ZERO, 0));
    assert_eq!((list[1].head, list[1].allocation.pages.0), (head, 2));
    assert_eq!(list[1], store.describe(&name("b"), soon()).unwrap());
    assert!(matches!(store.describe(&name("c"), soon()), Err(Error::NotFound { .. })));
}

#[test]
fn a_store_of_another_format_and_what_is_no_store_are_refused_untouched() {
    for (value, newer) in [(&b"\x01interleaf\x00\x09"[..], true), (b"garbage", false)] {
        let kv = Arc::new(MemEngine::new(Env::system()));
        let put = Mutation::Put {
            key: crate::format::keys::format(),
            value: bytes::Bytes::copy_from_slice(value),
        };
        let commit = crate::kv::Commit { mutations: vec![put], ..Default::default() };
        let version = kv.commit_at(commit, soon()).unwrap();
        let opened = Store::open(Arc::clone(&kv) as Arc<dyn Kv>, StoreOptions::default());
        match opened.map(drop).unwrap_err() {
            Error::FormatVersion { found: 9, .. } => assert!(newer),
            Error::Corrupt { .. } => assert!(!newer),
            other => panic!("{other}"),
        }
        assert_eq!(kv.snapshot(soon()).unwrap().version(), version, "nothing was written");
    }
}

#[test]
fn a_store_keeps_its_id() {
    let kv: Arc<dyn Kv> = Arc::new(MemEngine::new(Env::system()));
    let info = || {
        let store = Store::open(Arc::clone(&kv), StoreOptions::default()).unwrap();
        store.info(soon()).unwrap()
    };
    let first = info();
    assert_eq!(info(), first);
    assert_eq!(first.engine, "mem");
}
