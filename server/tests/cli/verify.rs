//! verify: damage is found and named.

use interleaf_store::env::Env;
use interleaf_store::kv::fjall::FjallEngine;
use interleaf_store::kv::{Kv, Scan};

use crate::support::{FILL, Place};

/// Turns one bit of one content record.
fn damage_one_page(place: &Place) {
    let deadline = Env::system().deadline(std::time::Duration::from_secs(10));
    let engine = FjallEngine::open(&place.store_dir(), 64 << 20, Env::system()).unwrap();
    let entries = {
        let scan = Scan { range: b"c".to_vec()..b"d".to_vec(), limit: 1000, reverse: false };
        engine.snapshot(deadline).unwrap().scan(&scan).unwrap()
    };
    let (key, value) = entries.into_iter().nth(5).unwrap();
    let mut bytes = value.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    engine
        .transact(deadline, &mut |txn| {
            txn.put(key.to_vec(), bytes.clone().into());
            Ok(())
        })
        .unwrap();
    engine.close().unwrap();
}

#[test]
fn a_sound_database_is_ok_and_a_damaged_page_is_named() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    place.ok(["import", "a.db"]);
    place.ok(["db", "create", "empty"]);
    let text = place.ok(["verify", "a.db"]);
    assert!(text.starts_with("a.db: ok"), "{text}");
    assert_eq!(place.json(["verify", "--all", "--json"]).as_array().unwrap().len(), 2);

    damage_one_page(&place);
    let ran = place.run(["verify", "a.db"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("1 of 384 pages") && ran.stdout.contains("\n  page "), "{ran:?}");
    let ran = place.run(["verify", "--all", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found[0]["damaged"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found[1]["sound"], true, "{found}");
    let ran = place.run(["export", "a.db", "x.db"]);
    ran.failed(1, &["corrupt", "page"]);
    assert!(!place.path("x.db").exists());
}

#[test]
fn a_database_that_is_not_there_is_no_finding() {
    let place = Place::new();
    place.run(["verify", "nope"]).failed(1, &["\"nope\"", "does not exist"]);
}
