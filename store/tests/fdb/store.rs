//! The store on FoundationDB, where it differs from a store with one writer.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use interleaf_store::api::{
    Allocation, AllocationChange, Backend, BeginReply, BeginRequest, Changes, CommitPart,
    CommitRequest, OpenReply, OpenRequest, ReadRequest,
};
use interleaf_store::env::{Clock, Env};
use interleaf_store::kv::{Commit, Durability, Kv, Mutation};
use interleaf_store::types::{
    BranchId, CommitId, DatabaseName, PageCount, PageNumber, PageSet, PageSize, Version,
};
use interleaf_store::when::When;
use interleaf_store::{Error, Result, Store, StoreOptions};

use crate::Test;
use crate::engine::soon;

pub const TESTS: &[(&str, Test)] = &[
    ("a_begin_and_a_commit_are_one_wait_each", one_wait_each),
    ("a_begin_on_a_branch_of_a_branch_sees_its_parents", parents_are_seen),
    ("a_time_means_what_was_current_then", times),
    ("the_last_commit_needs_no_later_one_to_be_found_by_time", the_last_commit),
    ("clocks_that_differ_lose_no_commit", clocks_that_differ),
    ("an_old_transaction_commits_by_the_log", an_old_transaction),
    ("a_commit_past_the_transaction_limit_is_staged", a_large_commit),
    ("a_commit_of_many_pages_is_published_and_merged", many_pages),
    ("a_dropped_database_takes_no_commit", a_dropped_database),
];

fn page(n: u32) -> PageNumber {
    PageNumber::new(n).unwrap()
}

struct Db {
    store: Arc<Store>,
    open: OpenReply,
}

impl Db {
    fn new(file: &Path, prefix: &str, env: Env) -> Self {
        let options = StoreOptions { env, ..StoreOptions::default() };
        let store = Store::open_fdb(file, prefix, options).unwrap();
        let name = DatabaseName::new("app").unwrap();
        let open = store.open(&OpenRequest { name, create: true, at: None }, soon()).unwrap();
        Self { store, open }
    }

    fn begin(&self, known: Option<&BeginReply>) -> BeginReply {
        let known = known.map(|begun| (begun.incarnation, begun.snapshot));
        let request = BeginRequest { branch: self.open.branch, at: None, known };
        self.store.begin(&request, soon()).unwrap()
    }

    fn request(&self, begun: &BeginReply, pages: &[(u32, u8)]) -> CommitRequest {
        let mut after = begun.allocation;
        if after == Allocation::EMPTY {
            after.page_size = PageSize::DEFAULT;
        }
        let last = pages.iter().map(|&(n, _)| n).max().unwrap();
        after.pages = PageCount(after.pages.0.max(last));
        let allocation = (after != begun.allocation).then_some(AllocationChange {
            snapshot: begun.snapshot,
            before: begun.allocation,
            after,
        });
        let writes: Vec<_> = pages.iter().map(|&(n, byte)| (page(n), filled(n, byte))).collect();
        CommitRequest {
            id: CommitId::from_bytes(self.store.env().random().unwrap()),
            incarnation: begun.incarnation,
            parts: vec![CommitPart {
                database: self.open.database,
                branch: self.open.branch,
                domain: self.open.domain,
                snapshot: begun.snapshot,
                reads: writes.iter().map(|&(n, _)| n).collect::<PageSet>(),
                writes,
                hashes: Vec::new(),
                staged: false,
                allocation,
            }],
            durability: Durability::Synced,
            client: "test".into(),
        }
    }

    fn commit(&self, begun: &BeginReply, pages: &[(u32, u8)]) -> Result<Version> {
        Ok(self.store.commit(&self.request(begun, pages), soon())?.version)
    }

    fn put(&self, pages: &[(u32, u8)]) -> Version {
        self.commit(&self.begin(None), pages).unwrap()
    }

    fn read_on(&self, branch: BranchId, snapshot: Version, n: u32) -> u8 {
        let request = ReadRequest { branch, snapshot, incarnation: None, pages: vec![page(n)] };
        self.store.read(&request, soon()).unwrap()[0].bytes[200]
    }

    fn read(&self, snapshot: Version, n: u32) -> u8 {
        self.read_on(self.open.branch, snapshot, n)
    }

    fn at(&self, when: &When) -> Result<Version> {
        self.store.resolve(self.open.branch, when, soon())
    }

    /// How often the store waited for the cluster meanwhile.
    fn waits<T>(&self, what: impl FnOnce() -> T) -> (u64, T) {
        let before = self.store.round_trips();
        let result = what();
        (self.store.round_trips() - before, result)
    }
}

/// A page full of `byte`, but for the page's number, so that no two are equal.
fn filled(n: u32, byte: u8) -> Bytes {
    let mut bytes = vec![byte; PageSize::DEFAULT.len()];
    bytes[24..40].fill(0);
    bytes[92..100].fill(0);
    bytes[300..304].copy_from_slice(&n.to_be_bytes());
    bytes.into()
}

fn one_wait_each(file: &Path) {
    let db = Db::new(file, "store-waits", Env::system());
    db.put(&[(1, 1), (2, 2)]);
    let first = db.begin(None);
    let (waits, second) = db.waits(|| db.begin(Some(&first)));
    assert_eq!((waits, &second.changes), (1, &Changes::Commits(Vec::new())));
    let (waits, version) = db.waits(|| db.commit(&second, &[(2, 3)]).unwrap());
    assert_eq!(waits, 1, "no read before a commit");
    let (waits, third) = db.waits(|| db.begin(Some(&second)));
    let Changes::Commits(commits) = &third.changes else { panic!("{third:?}") };
    assert_eq!((waits, third.head), (1, version));
    assert_eq!(commits.iter().map(|commit| commit.version).collect::<Vec<_>>(), [version]);
    let (waits, byte) = db.waits(|| db.read(third.snapshot, 2));
    assert_eq!((waits, byte), (2, 3), "records, then contents");
    // One that grows, too; and one begun in the middle of that.
    let (waits, _) = db.waits(|| db.commit(&third, &[(3, 3)]).unwrap());
    assert_eq!(waits, 1);
    let (waits, joined) = db.waits(|| {
        let branch = db.open.branch;
        let at = Some(third.snapshot);
        db.store.begin(&BeginRequest { branch, at, known: None }, soon()).unwrap()
    });
    assert_eq!((waits, joined.snapshot, joined.allocation.pages.0), (1, third.snapshot, 2));
    // Another process knows nothing of that, and reads before its commit.
    let other = Db::new(file, "store-waits", Env::system());
    let (waits, _) = other.waits(|| other.commit(&joined, &[(1, 9)]).unwrap());
    assert_eq!(waits, 2);
    assert_eq!(db.read(db.begin(None).snapshot, 1), 9);
}

fn parents_are_seen(file: &Path) {
    let db = Db::new(file, "store-branches", Env::system());
    let first = db.put(&[(1, 1), (2, 2)]);
    db.put(&[(1, 10), (3, 3)]);
    let child = db.store.create_branch(db.open.branch, first, soon()).unwrap();
    let child = Db { store: Arc::clone(&db.store), open: OpenReply { branch: child, ..db.open } };
    let begun = child.begin(None);
    assert_eq!((begun.head, begun.allocation.pages.0), (first, 2));
    assert_eq!([1, 2].map(|n| child.read(begun.snapshot, n)), [1, 2]);
    let second = child.commit(&begun, &[(2, 20), (3, 30)]).unwrap();
    let grand = db.store.create_branch(child.open.branch, second, soon()).unwrap();
    let grand = Db { store: Arc::clone(&db.store), open: OpenReply { branch: grand, ..db.open } };
    let begun = grand.begin(None);
    assert_eq!((begun.head, begun.allocation.pages.0), (second, 3));
    assert_eq!([1, 2, 3].map(|n| grand.read(begun.snapshot, n)), [1, 20, 30]);
    grand.commit(&begun, &[(1, 100)]).unwrap();
    let begun = grand.begin(Some(&begun));
    assert_eq!([1, 2, 3].map(|n| grand.read(begun.snapshot, n)), [100, 20, 30]);
    assert_eq!([1, 3].map(|n| db.read(db.begin(None).snapshot, n)), [10, 3]);
}

fn times(file: &Path) {
    let db = Db::new(file, "store-times", Env::system());
    let now = || db.store.env().clock.unix_micros();
    let before = now() - 60_000_000;
    let pause = || thread::sleep(Duration::from_millis(60));
    pause();
    let empty = now();
    pause();
    let mut commits = Vec::new();
    for byte in 1..6 {
        commits.push((db.put(&[(1, byte)]), byte));
        pause();
        let between = now();
        pause();
        commits.last_mut().unwrap().0 = db.at(&When::Time(between)).unwrap();
    }
    for &(snapshot, byte) in &commits {
        assert_eq!(db.read(snapshot, 1), byte);
    }
    let version = db.at(&When::Time(empty)).unwrap();
    let begun = BeginRequest { branch: db.open.branch, at: Some(version), known: None };
    assert_eq!(db.store.begin(&begun, soon()).unwrap().allocation.pages.0, 0);
    let error = db.at(&When::Time(before)).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(db.read(db.at(&When::Ago(Duration::ZERO)).unwrap(), 1), 5);
}

/// Of many commits close together each is in the samples, also the last one, after which
/// nobody commits.
fn the_last_commit(file: &Path) {
    let db = Db::new(file, "store-last", Env::system());
    let mut last = Version::ZERO;
    for byte in 0..50 {
        last = db.put(&[(1, byte)]);
    }
    thread::sleep(Duration::from_millis(30));
    let then = db.store.env().clock.unix_micros();
    thread::sleep(Duration::from_millis(30));
    assert_eq!(db.at(&When::Time(then)).unwrap(), last);
    let time = db.store.time_of(last, soon()).unwrap().unwrap();
    assert!(time <= then && then - time < 10_000_000, "{time} {then}");
    let other = Db::new(file, "store-last", Env::system());
    assert_eq!(other.at(&When::Time(then)).unwrap(), last);
}

/// A clock that is wrong by so many microseconds.
struct Wrong {
    by: i64,
    clock: Arc<dyn Clock>,
}

impl Clock for Wrong {
    fn unix_micros(&self) -> i64 {
        self.clock.unix_micros() + self.by
    }
    fn now(&self) -> Instant {
        self.clock.now()
    }
    fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration);
    }
}

fn clocks_that_differ(file: &Path) {
    let right = Env::system();
    let off = |micros: i64| {
        let clock = Wrong { by: micros, clock: Arc::clone(&right.clock) };
        Env { clock: Arc::new(clock), ..right.clone() }
    };
    let dbs = [-2_000_000, 0, 2_000_000].map(|by| Db::new(file, "store-clocks", off(by)));
    let mut versions = Vec::new();
    for round in 0..30 {
        let db = &dbs[round * 7 % 3];
        versions.push(db.put(&[(1, u8::try_from(round).unwrap())]));
        thread::sleep(Duration::from_millis(40));
    }
    // Once the latest clock has passed them all, they are all there, on whichever is asked.
    let end = right.clock.unix_micros() + 2_000_000;
    thread::sleep(Duration::from_millis(4_500));
    for db in &dbs {
        assert_eq!(db.at(&When::Time(end)).unwrap(), *versions.last().unwrap());
    }
    // What a time means never goes back as the time goes on.
    let begin = dbs[1].store.time_of(versions[0], soon()).unwrap().unwrap();
    let meant: Vec<Version> =
        (begin..end).step_by(50_000).map(|time| dbs[1].at(&When::Time(time)).unwrap()).collect();
    assert!(meant.is_sorted(), "{meant:?}");
}

fn an_old_transaction(file: &Path) {
    let db = Db::new(file, "store-old", Env::system());
    db.put(&[(1, 1), (2, 2), (3, 3)]);
    let (fine, loses) = (db.begin(None), db.begin(None));
    db.put(&[(3, 30)]);
    thread::sleep(Duration::from_secs(7));
    db.commit(&fine, &[(1, 10)]).unwrap();
    let lost = db.commit(&loses, &[(3, 31)]);
    assert!(matches!(lost, Err(Error::Conflict { .. })), "{lost:?}");
    let snapshot = db.begin(None).snapshot;
    assert_eq!([1, 2, 3].map(|n| db.read(snapshot, n)), [10, 2, 30]);
    // And what was read long ago is still read as it was.
    assert_eq!([1, 2, 3].map(|n| db.read(fine.snapshot, n)), [1, 2, 3]);
}

fn a_large_commit(file: &Path) {
    const PAGES: u32 = 5_000; // 20 MB: twice what FoundationDB takes at once.
    let db = Db::new(file, "store-large", Env::system());
    let all: Vec<(u32, u8)> = (1..=PAGES).map(|n| (n, 7)).collect();
    let begun = db.begin(None);
    let request = db.request(&begun, &all);
    let version = db.store.commit(&request, soon()).unwrap().version;
    assert_eq!(db.store.commit(&request, soon()).unwrap().version, version, "at most once");
    let snapshot = db.begin(None).snapshot;
    assert_eq!([1, PAGES / 2, PAGES].map(|n| db.read(snapshot, n)), [7; 3]);
    // The commit cleans up for at most half of its time; the rest is for who tends the store.
    db.store.tend(soon()).unwrap();
    let counts = db.store.count_records(soon()).unwrap().subspaces;
    let of = |name: &str| counts.get(name).unwrap_or_else(|| panic!("{name}: {counts:?}")).0;
    assert_eq!((of("content"), of("pages")), (PAGES.into(), PAGES.into()));
    assert_eq!((of("staging"), of("staged_pages")), (0, 0), "nothing staged stays");
    // One page of it changed meanwhile: nothing of it takes effect.
    let begun = db.begin(None);
    db.put(&[(PAGES, 8)]);
    let again: Vec<(u32, u8)> = (1..=PAGES).map(|n| (n, 9)).collect();
    assert!(matches!(db.commit(&begun, &again), Err(Error::Conflict { .. })));
    db.store.tend(soon()).unwrap();
    let counts = db.store.count_records(soon()).unwrap().subspaces;
    assert_eq!((counts["staging"].0, counts["staged_pages"].0), (0, 0), "nor of one that failed");
    let snapshot = db.begin(None).snapshot;
    assert_eq!([1, PAGES].map(|n| db.read(snapshot, n)), [7, 8]);
}

/// More pages than FoundationDB takes records of at once: published as they are staged, and
/// merged in time.
fn many_pages(file: &Path) {
    const PAGES: u32 = 60_000;
    let db = Db::new(file, "store-many", Env::system());
    // Tests share their machine.
    let later = || Env::system().deadline(Duration::from_secs(300));
    let small = |n: u32, byte| filled(n, byte).slice(..PageSize::MIN.len());
    let all = |begun: &BeginReply, byte| {
        let mut request = db.request(begun, &[(1, 1)]);
        let part = &mut request.parts[0];
        part.reads.insert_range(1, PAGES);
        part.writes = (1..=PAGES).map(|n| (page(n), small(n, byte))).collect();
        part.allocation = None;
        request
    };
    let begun = db.begin(None);
    let mut first = all(&begun, 1);
    let (before, mut after) = (begun.allocation, begun.allocation);
    (after.pages, after.page_size) = (PageCount(PAGES), PageSize::MIN);
    let snapshot = begun.snapshot;
    first.parts[0].allocation = Some(AllocationChange { snapshot, before, after });
    let version = db.store.commit(&first, later()).unwrap().version;
    assert_eq!(db.store.commit(&first, later()).unwrap().version, version, "at most once");
    let check = |at, byte| {
        assert_eq!([1, 20_000, PAGES].map(|n| db.read(at, n)), [byte; 3]);
    };
    check(db.begin(None).snapshot, 1);
    check(version, 1);
    // Two that meet in one page of many, and one that meets neither of them.
    let (wins, loses) = (db.begin(None), db.begin(None));
    let mut other = all(&wins, 3);
    for part in &mut other.parts {
        part.writes.retain(|(n, _)| n.get() % 2 == 1);
        part.reads = part.writes.iter().map(|(n, _)| *n).collect();
    }
    let mut even = all(&loses, 4);
    even.parts[0].writes.retain(|(n, _)| n.get() % 2 == 0);
    even.parts[0].reads = even.parts[0].writes.iter().map(|(n, _)| *n).collect();
    let lost = all(&loses, 5);
    let third = db.store.commit(&other, later()).unwrap().version;
    let fourth = db.store.commit(&even, later()).unwrap().version;
    let refused = db.store.commit(&lost, later());
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let at = |version| [1, 2, 20_001, PAGES].map(|n| db.read(version, n));
    let both = [at(version), at(third), at(fourth)];
    assert_eq!(both, [[1; 4], [3, 1, 3, 1], [3, 4, 3, 4]]);
    db.store.tend(later()).unwrap();
    assert_eq!([at(version), at(third), at(fourth)], both);
    let counts = db.store.count_records(later()).unwrap().subspaces;
    let of = |name: &str| counts[name].0;
    assert_eq!((of("staging"), of("staged_pages"), of("unmerged")), (0, 0, 0));
    assert_eq!((of("pages"), of("references")), (2 * u64::from(PAGES), 2 * u64::from(PAGES)));
}

/// What the store costs above what FoundationDB does: printed, for people.
pub fn figures(file: &Path) {
    const TIMES: usize = 500;
    let kv = crate::engine::store(file, "figures-raw");
    let median = |what: &str, run: &mut dyn FnMut()| {
        let mut took: Vec<Duration> = (0..TIMES)
            .map(|_| {
                let begun = Instant::now();
                run();
                begun.elapsed()
            })
            .collect();
        took.sort_unstable();
        println!("{what:44} {:?}", took[TIMES / 2]);
    };
    let put = |key: &[u8], bytes: usize| Mutation::Put {
        key: key.to_vec(),
        value: vec![7; bytes].into(),
    };
    let commit = |snapshot, bytes| {
        let mutations = (0..8u8).map(|n| put(&[n], if n == 0 { bytes } else { 60 })).collect();
        let read_conflicts = vec![b"a".to_vec()..b"b".to_vec()];
        let commit = Commit {
            snapshot,
            read_conflicts: read_conflicts.into(),
            mutations,
            ..Commit::default()
        };
        kv.commit_at(commit, soon()).unwrap();
    };
    commit(kv.snapshot(soon()).unwrap().version(), 4096);
    median("read version", &mut || drop(kv.snapshot(soon()).unwrap()));
    let reads = kv.snapshot(soon()).unwrap();
    median("get", &mut || drop(reads.get(&[1]).unwrap()));
    median("read version and commit of a page, 7 keys", &mut || {
        commit(kv.snapshot(soon()).unwrap().version(), 4096);
    });
    let db = Db::new(file, "figures", Env::system());
    db.put(&[(1, 1), (2, 2)]);
    let mut begun = db.begin(None);
    median("begin", &mut || begun = db.begin(Some(&begun)));
    median("read of a page", &mut || assert!(db.read(begun.snapshot, 2) > 0));
    let mut byte = 0;
    median("begin and commit of a page", &mut || {
        byte = byte % 200 + 1;
        begun = db.begin(Some(&begun));
        db.commit(&begun, &[(2, byte)]).unwrap();
    });
}

fn a_dropped_database(file: &Path) {
    let db = Db::new(file, "store-drop", Env::system());
    let other = Db::new(file, "store-drop", Env::system());
    db.put(&[(1, 1)]);
    let begun = db.begin(None);
    other.store.drop_database(&DatabaseName::new("app").unwrap(), soon()).unwrap();
    let refused = db.commit(&begun, &[(1, 2)]);
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    let request = BeginRequest { branch: db.open.branch, at: None, known: None };
    assert!(matches!(db.store.begin(&request, soon()), Err(Error::NotFound { .. })));
}
