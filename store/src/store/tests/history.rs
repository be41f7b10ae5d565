//! Points in time.

use std::sync::Arc;
use std::time::Duration;

use super::common::{Db, name, soon};
use crate::api::{Backend, LogRequest, OpenRequest};
use crate::env::Clock;
use crate::error::Error;
use crate::kv::sim::{FaultPlan, SimEngine};
use crate::store::{Store, StoreOptions};
use crate::types::{BranchId, Version};
use crate::when::{When, format_time};

/// A store on a clock that moves when it is told to.
fn timed() -> (Arc<SimEngine>, Arc<Store>) {
    over(SimEngine::new(1, FaultPlan::NONE))
}

/// One to which nobody else writes, and one to which others could.
fn both_timed() -> [(Arc<SimEngine>, Arc<Store>); 2] {
    [timed(), over(SimEngine::shared(1, FaultPlan::NONE))]
}

fn over(engine: SimEngine) -> (Arc<SimEngine>, Arc<Store>) {
    let engine = Arc::new(engine);
    let options = StoreOptions { env: engine.env(), memory_bytes: 0, ..StoreOptions::default() };
    let store = Store::open(Arc::clone(&engine) as _, options).unwrap();
    (engine, store)
}

fn resolve(store: &Store, branch: BranchId, when: When) -> Result<Version, Error> {
    store.resolve(branch, &when, soon())
}

#[test]
fn a_time_means_what_was_current_then() {
    for (engine, store) in both_timed() {
        check_times(&engine, &store);
    }
}

fn check_times(engine: &SimEngine, store: &Arc<Store>) {
    let clock = engine.clock();
    let now = || clock.unix_micros();
    clock.advance(Duration::from_secs(3600));
    let before_creation = now() - 1_800_000_000;
    let db = Db::open(store, "app");
    clock.advance(Duration::from_secs(60));
    let empty_time = now();
    clock.advance(Duration::from_secs(60));
    let first = db.put(&[(1, 1)]);
    let first_time = now();
    clock.advance(Duration::from_secs(600));
    let second = db.put(&[(1, 2)]);
    clock.advance(Duration::from_secs(60));

    let at = |when| resolve(store, db.open.branch, when);
    assert_eq!(at(When::Time(first_time)).unwrap(), first);
    assert_eq!(at(When::Time(first_time + 300_000_000)).unwrap(), first);
    assert_eq!(at(When::Ago(Duration::from_secs(61))).unwrap(), first);
    assert_eq!(at(When::Ago(Duration::from_secs(60))).unwrap(), second);
    assert!(at(When::Time(now() + 10_000_000)).unwrap() >= second, "a clock may be ahead a little");
    let error = at(When::Time(now() + 10_000_001)).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(error.to_string().contains(&format_time(now())), "{error}");
    assert_eq!(at(When::Version(first)).unwrap(), first);
    // Between its creation and its first commit it is there, and empty.
    let empty = at(When::Time(empty_time)).unwrap();
    assert!(empty < first);
    assert_eq!(db.try_begin(Some(empty)).unwrap().allocation.pages.0, 0);
    for when in [When::Time(before_creation), When::Ago(Duration::from_secs(86_400))] {
        let error = at(when).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        assert!(error.to_string().contains("created later"), "{error}");
    }
    assert!(matches!(at(When::Version(Version::ZERO)), Err(Error::NotFound { .. })));
    assert!(matches!(at(When::Version(Version::MAX)), Err(Error::NotFound { .. })));
    assert!(matches!(at(When::Pin("a".into())), Err(Error::NotFound { .. })));

    let open = OpenRequest { name: name("app"), create: false, at: Some(When::Version(first)) };
    assert_eq!(store.open(&open, soon()).unwrap().snapshot, Some(first));
}

#[test]
fn the_time_of_a_version_is_when_it_became_current() {
    for (engine, store) in both_timed() {
        check_times_of_versions(&engine, &store);
    }
}

fn check_times_of_versions(engine: &SimEngine, store: &Arc<Store>) {
    let db = Db::open(store, "app");
    let mut versions = Vec::new();
    for byte in 1..40 {
        engine.clock().advance(Duration::from_secs(7));
        versions.push((db.put(&[(1, byte)]), engine.clock().unix_micros()));
    }
    // Of a time that is now the answer would be what is newest.
    engine.clock().advance(Duration::from_secs(1));
    for &(version, time) in &versions {
        assert_eq!(store.time_of(version, soon()).unwrap(), Some(time));
        assert_eq!(resolve(store, db.open.branch, When::Time(time)).unwrap(), version);
        let before = resolve(store, db.open.branch, When::Time(time - 1)).unwrap();
        assert!(before < version);
    }
    assert_eq!(store.time_of(Version::MAX, soon()).unwrap(), None);
}

/// F5 with a clock that goes back, and a store that is opened after it did.
#[test]
fn samples_never_go_back_though_the_clock_does() {
    struct Fickle(std::sync::atomic::AtomicI64);
    impl Clock for Fickle {
        fn unix_micros(&self) -> i64 {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
        fn now(&self) -> std::time::Instant {
            std::time::Instant::now()
        }
        fn sleep(&self, _: Duration) {}
    }
    let clock = Arc::new(Fickle(5_000_000_000.into()));
    let set = |micros| clock.0.store(micros, std::sync::atomic::Ordering::Relaxed);
    let env = crate::env::Env { clock: Arc::clone(&clock) as _, ..crate::env::Env::system() };
    let kv = Arc::new(crate::kv::mem::MemEngine::new(env.clone()));
    let open = || {
        let options = StoreOptions { env: env.clone(), memory_bytes: 0, ..StoreOptions::default() };
        Store::open(Arc::clone(&kv) as _, options).unwrap()
    };
    let store = open();
    let db = Db::open(&store, "app");
    let first = db.put(&[(1, 1)]);
    set(1_000_000_000);
    let second = db.put(&[(1, 2)]);
    let store = open();
    let db = Db::open(&store, "app");
    let third = db.put(&[(1, 3)]);
    set(6_000_000_500);
    let fourth = db.put(&[(1, 4)]);
    let time = |version| store.time_of(version, soon()).unwrap().unwrap();
    let times = [time(first), time(second), time(third), time(fourth)];
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(time(fourth), 6_000_001_000, "the end of its millisecond");
    let at = |micros| resolve(&store, db.open.branch, When::Time(micros));
    assert_eq!(at(5_500_000_000).unwrap(), third);
    assert!(matches!(at(4_000_000_000), Err(Error::NotFound { .. })));
}

#[test]
fn a_part_of_the_log_is_given_as_asked() {
    let (_, store) = timed();
    let db = Db::open(&store, "app");
    let versions: Vec<Version> = (1..=9).map(|byte| db.put(&[(1, byte), (2, byte)])).collect();
    let log = |after, up_to, limit, newest_first| {
        let branch = db.open.branch;
        let request = LogRequest { branch, after, up_to, limit, newest_first };
        let entries = store.log(&request, soon()).unwrap();
        entries.into_iter().map(|entry| entry.version).collect::<Vec<_>>()
    };
    assert_eq!(log(Version::ZERO, Version::MAX, 100, false), versions);
    assert_eq!(log(versions[1], versions[4], 2, false), versions[2..4]);
    assert_eq!(log(versions[1], versions[4], 2, true), [versions[4], versions[3]]);
    assert!(log(Version::ZERO, Version::MAX, 0, true).is_empty());
    let nobody = BranchId::from_bytes([9; 8]);
    let request = LogRequest {
        branch: nobody,
        after: Version::ZERO,
        up_to: Version::MAX,
        limit: 1,
        newest_first: false,
    };
    assert!(matches!(store.log(&request, soon()), Err(Error::NotFound { .. })));
}
