//! One fault at a time, at its place in the commit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::common::{Db, filled, name, page, soon};
use crate::api::{Backend, CommitRequest, CreateState, LogRequest};
use crate::env::{Deadline, Env};
use crate::error::Error;
use crate::kv::mem::MemEngine;
use crate::kv::sim::{FaultPlan, SimEngine};
use crate::kv::{BatchHook, Commit, Durability, Kv, KvError, KvResult, Limits, Snapshot, TxnBody};
use crate::store::{Store, StoreOptions};
use crate::types::Version;

/// What is to happen at the next `commit_at`.
enum Plan {
    /// This error, nothing applied.
    Fail(KvError),
    /// Applied, then an unknown result.
    Lose,
    /// Something else is done, then this error.
    FailAfter(Box<dyn FnOnce() + Send>, KvError),
    /// Something else is done first.
    First(Box<dyn FnOnce() + Send>),
}

/// An engine in memory with a plan for its next commits.
struct Planned {
    inner: MemEngine,
    plan: Mutex<VecDeque<Plan>>,
    tries: Mutex<Vec<Version>>,
    /// What is done once the next `transact` has taken effect, whose body then runs again:
    /// its result was lost.
    between: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Kv for Planned {
    fn name(&self) -> &'static str {
        "planned"
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn exclusive(&self) -> bool {
        true
    }
    fn recovered(&self) -> bool {
        false
    }
    fn set_batch_hook(&self, hook: BatchHook) {
        self.inner.set_batch_hook(hook);
    }
    fn snapshot(&self, deadline: Deadline) -> KvResult<Box<dyn Snapshot + '_>> {
        self.inner.snapshot(deadline)
    }
    fn validates(&self, snapshot: Version) -> bool {
        self.inner.validates(snapshot)
    }
    fn commit_at(&self, commit: Commit, deadline: Deadline) -> KvResult<Version> {
        self.tries.lock().unwrap().push(commit.snapshot);
        let next = self.plan.lock().unwrap().pop_front();
        match next {
            Some(Plan::Fail(error)) => return Err(error),
            Some(Plan::Lose) => {
                self.inner.commit_at(commit, deadline)?;
                return Err(KvError::UnknownResult);
            }
            Some(Plan::FailAfter(act, error)) => {
                act();
                return Err(error);
            }
            Some(Plan::First(act)) => act(),
            None => {}
        }
        self.inner.commit_at(commit, deadline)
    }
    fn transact(&self, deadline: Deadline, body: TxnBody<'_>) -> crate::Result<Option<Version>> {
        let between = self.between.lock().unwrap().take();
        if let Some(act) = between {
            self.inner.transact(deadline, body)?;
            act();
        }
        self.inner.transact(deadline, body)
    }
    fn watch(&self, key: &[u8], known: Option<&[u8]>, deadline: Deadline) -> KvResult<()> {
        self.inner.watch(key, known, deadline)
    }
    fn disk_bytes(&self) -> Option<u64> {
        None
    }
    fn close(&self) -> KvResult<()> {
        self.inner.close()
    }
}

fn planned() -> (Arc<Planned>, Db) {
    let inner = MemEngine::new(Env::system());
    let kv = Arc::new(Planned {
        inner,
        plan: Mutex::default(),
        tries: Mutex::default(),
        between: Mutex::default(),
    });
    let store = Store::open(Arc::clone(&kv) as _, StoreOptions::default()).unwrap();
    let db = Db::open(&store, "app");
    db.put(&[(1, 1), (2, 2), (3, 3)]);
    kv.tries.lock().unwrap().clear();
    (kv, db)
}

impl Planned {
    fn next(&self, plans: impl IntoIterator<Item = Plan>) {
        self.plan.lock().unwrap().extend(plans);
    }
}

/// A transaction on page 2 that began before another commit to page 1.
fn overtaken(kv: &Planned, db: &Db) -> (CommitRequest, Version) {
    let mut tx = db.begin();
    tx.write(2, filled(9));
    let other = db.put(&[(1, 8)]);
    kv.tries.lock().unwrap().clear();
    (tx.request(), other)
}

fn commits(db: &Db) -> usize {
    let request = LogRequest {
        branch: db.open.branch,
        after: Version::ZERO,
        up_to: Version::MAX,
        limit: 100,
        newest_first: false,
    };
    db.store.log(&request, soon()).unwrap().len()
}

#[test]
fn a_conflict_of_the_engine_alone_is_none() {
    let (kv, db) = planned();
    let (request, other) = overtaken(&kv, &db);
    kv.next([Plan::Fail(KvError::Conflict), Plan::Fail(KvError::TooOld)]);
    db.store.commit(&request, soon()).unwrap();
    assert_eq!(db.bytes(&[1, 2]), [8, 9]);
    // Rule 2: never again at the first snapshot, but at new ones whose log was looked at.
    let tries = kv.tries.lock().unwrap().clone();
    assert_eq!(tries, [request.parts[0].snapshot, other, other]);
}

#[test]
fn an_unknown_result_is_looked_up() {
    let (kv, db) = planned();
    for plan in [Plan::Lose, Plan::Fail(KvError::UnknownResult)] {
        let before = commits(&db);
        let (request, _) = overtaken(&kv, &db);
        kv.next([plan]);
        let version = db.store.commit(&request, soon()).unwrap().version;
        assert_eq!(db.store.find_commit(request.id, soon()).unwrap(), Some(version));
        assert_eq!(commits(&db), before + 2, "once, and the other one");
    }
}

#[test]
fn after_an_unknown_result_the_log_still_gives_a_certain_conflict() {
    let (kv, db) = planned();
    let (mut request, _) = overtaken(&kv, &db);
    request.parts[0].reads.insert(page(1));
    kv.next([Plan::Fail(KvError::UnknownResult)]);
    assert!(matches!(db.store.commit(&request, soon()), Err(Error::Conflict { .. })));
    assert_eq!(db.bytes(&[2]), [2]);
}

#[test]
fn a_pruned_snapshot_does_not_make_an_unknown_result_certain() {
    for unknown in [true, false] {
        let (kv, db) = planned();
        let (request, other) = overtaken(&kv, &db);
        let (store, branch) = (Arc::clone(&db.store), db.open.branch);
        let prune = move || store.raise_watermark(branch, other, soon()).map(drop).unwrap();
        let failed = if unknown { KvError::UnknownResult } else { KvError::TooOld };
        // The attempt that fails; what lies before the next look at the log.
        kv.next([Plan::FailAfter(Box::new(prune), failed)]);
        let error = db.store.commit(&request, soon()).unwrap_err();
        if unknown {
            assert!(
                matches!(&error, Error::OutcomeUnknown { id, .. } if *id == request.id),
                "{error}"
            );
        } else {
            assert!(matches!(&error, Error::Conflict { what } if what.contains("pruned")));
        }
    }
}

#[test]
fn what_comes_between_the_look_at_the_log_and_the_commit_is_seen() {
    let (kv, db) = planned();
    let (request, _) = overtaken(&kv, &db);
    let rival = Db { store: Arc::clone(&db.store), open: db.open.clone() };
    kv.next([
        Plan::Fail(KvError::TooOld),
        Plan::First(Box::new(move || {
            rival.put(&[(2, 7)]);
        })),
    ]);
    let result = db.store.commit(&request, soon());
    assert!(matches!(result, Err(Error::Conflict { what }) if what.contains("page 2")));
    assert_eq!(db.bytes(&[2]), [7]);
}

#[test]
fn when_time_is_up_only_an_unknown_result_stays_unknown() {
    let fails =
        |error: &KvError| (0..10_000).map(|_| Plan::Fail(error.clone())).collect::<Vec<_>>();
    let unavailable = KvError::Unavailable { what: "gone".into() };
    let (kv, db) = planned();
    let (request, _) = overtaken(&kv, &db);
    let deadline = || Env::system().deadline(Duration::from_millis(30));
    kv.next(fails(&unavailable));
    let error = db.store.commit(&request, deadline()).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    kv.plan.lock().unwrap().clear();
    kv.next([Plan::Fail(KvError::UnknownResult)]);
    kv.next(fails(&unavailable));
    let error = db.store.commit(&request, deadline()).unwrap_err();
    assert!(matches!(&error, Error::OutcomeUnknown { id, .. } if *id == request.id), "{error}");
    kv.plan.lock().unwrap().clear();
    kv.next([Plan::Fail(KvError::TooLarge { what: "it", size: 2, limit: 1 })]);
    let error = db.store.commit(&request, deadline()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 2, limit: 1, .. }));
    kv.plan.lock().unwrap().clear();
    db.store.commit(&request, soon()).unwrap();
}

#[test]
fn one_request_sent_by_many_at_once_commits_once() {
    let (kv, db) = planned();
    let (request, _) = overtaken(&kv, &db);
    let before = commits(&db);
    let request = Arc::new(request);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (store, request) = (Arc::clone(&db.store), Arc::clone(&request));
            std::thread::spawn(move || store.commit(&request, soon()).unwrap().version)
        })
        .collect();
    let versions: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert!(versions.iter().all(|&version| version == versions[0]), "{versions:?}");
    assert_eq!(commits(&db), before + 1);
}

/// Runs `call` such that its transaction takes effect, then `act`, then its body again.
fn again_after<T>(
    kv: &Planned,
    db: &Db,
    act: impl FnOnce(&Store) + Send + 'static,
    call: impl FnOnce(&Store) -> T,
) -> T {
    let store = Arc::clone(&db.store);
    *kv.between.lock().unwrap() = Some(Box::new(move || act(&store)));
    let result = call(&db.store);
    assert!(kv.between.lock().unwrap().is_none(), "it ran twice");
    result
}

fn create(store: &Store) {
    store.create(&name("app"), CreateState::Ready, soon()).unwrap();
}

#[test]
fn a_drop_whose_result_was_lost_leaves_a_new_database_of_the_name_alone() {
    let (kv, db) = planned();
    again_after(&kv, &db, create, |store| store.drop_database(&name("app"), soon())).unwrap();
    assert_ne!(db.store.describe(&name("app"), soon()).unwrap().database, db.open.database);
    // Where nobody was faster, the second run finds nothing to do.
    again_after(&kv, &db, |_| {}, |store| store.drop_database(&name("app"), soon())).unwrap();
    assert!(db.store.describe(&name("app"), soon()).is_err());
}

#[test]
fn a_rename_whose_result_was_lost_is_done_though_the_old_name_is_taken_again() {
    let (kv, db) = planned();
    let rename = |store: &Store| store.rename(&name("app"), &name("other"), soon());
    again_after(&kv, &db, create, rename).unwrap();
    assert_eq!(db.store.describe(&name("other"), soon()).unwrap().database, db.open.database);
    assert_ne!(db.store.describe(&name("app"), soon()).unwrap().database, db.open.database);
    assert!(matches!(rename(&db.store), Err(Error::AlreadyExists { .. })));
}

#[test]
fn a_creation_whose_result_was_lost_does_not_bring_back_what_was_dropped() {
    let (kv, db) = planned();
    let drop = |store: &Store| store.drop_database(&name("new"), soon()).unwrap();
    let create = |store: &Store| store.create(&name("new"), CreateState::Ready, soon());
    let opened = again_after(&kv, &db, drop, create).unwrap();
    assert!(db.store.describe(&name("new"), soon()).is_err());
    let gone = Db { store: Arc::clone(&db.store), open: opened };
    assert!(matches!(gone.try_begin(None), Err(Error::NotFound { .. })));
}

#[test]
fn a_commit_that_survived_a_crash_is_found_by_its_duplicate() {
    let engine = SimEngine::new(3, FaultPlan::NONE);
    let options = StoreOptions { env: engine.env(), memory_bytes: 0, ..StoreOptions::default() };
    let engine = Arc::new(engine);
    let store = Store::open(Arc::clone(&engine) as _, options.clone()).unwrap();
    let db = Db::open(&store, "app");
    let mut tx = db.begin();
    tx.write(1, filled(1));
    tx.durability = Durability::Synced;
    let late = db.begin();
    let version = tx.commit().unwrap().version;
    let store = Store::open(Arc::new(engine.crash(true)), options).unwrap();
    assert_eq!(store.commit(&tx.request(), soon()).unwrap().version, version);
    let mut request = late.request();
    request.parts[0].writes = vec![(page(1), filled(2))];
    assert_eq!(store.commit(&request, soon()).unwrap_err(), Error::IncarnationChanged);
}

#[test]
fn a_store_is_opened_though_its_engine_is_in_trouble() {
    for seed in 0..50 {
        let engine = SimEngine::shared(seed, FaultPlan::every(0.4));
        let options = StoreOptions { env: engine.env(), memory_bytes: 0, ..Default::default() };
        let kv = Arc::new(engine);
        let first = Store::open(Arc::clone(&kv) as _, options.clone());
        let first = first.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let again = Store::open(kv, options).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(first.id, again.id, "seed {seed}");
    }
}

#[test]
fn opening_ends_at_its_deadline_and_says_why() {
    let plan = FaultPlan { unavailable: 1.0, ..FaultPlan::NONE };
    let engine = SimEngine::shared(1, plan);
    let env = engine.env();
    let open_timeout = Duration::from_secs(3);
    let options =
        StoreOptions { env: env.clone(), memory_bytes: 0, open_timeout, heads_mode: None };
    let begun = env.clock.now();
    let error = Store::open(Arc::new(engine), options).err().unwrap();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(env.clock.now().duration_since(begun) >= open_timeout);
}
