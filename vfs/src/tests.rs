//! SQL over a store that fails on demand: what the application sees of each failure, and
//! that nothing else is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use interleaf_store::api::*;
use interleaf_store::env::Deadline;
use interleaf_store::kv::Durability;
use interleaf_store::types::{
    BranchId, CommitId, ContentHash, DatabaseId, DatabaseName, Incarnation, Version,
};
use interleaf_store::url::StoreUrl;
use interleaf_store::when::When;
use interleaf_store::{Error, Result};
use rusqlite::Connection;

use crate::config::{Config, LogLevel};

/// What a call is to do, by the store's host name.
#[derive(Clone, Debug, Default)]
struct Plan {
    begin: Option<Error>,
    read: Option<Error>,
    commit: Option<Error>,
    /// Fail after the effect, not before it.
    commit_took_effect: bool,
    stage: Option<Error>,
    incarnation: Option<u8>,
    panic_at_begin: bool,
    /// Pages come under the hash of another content.
    false_hash: Option<ContentHash>,
    begins_at: Vec<Option<Version>>,
    reads: usize,
    durabilities: Vec<Durability>,
}

static PLANS: Mutex<Option<HashMap<String, Plan>>> = Mutex::new(None);

fn plan<T>(store: &str, change: impl FnOnce(&mut Plan) -> T) -> T {
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    change(plans.get_or_insert_default().entry(store.to_owned()).or_default())
}

/// A store in memory, each host name its own, that follows its plan.
struct Faulty {
    host: String,
    inner: Arc<dyn Backend>,
}

impl Faulty {
    fn plan(&self) -> Plan {
        plan(&self.host, |plan| plan.clone())
    }
}

fn connect(url: &StoreUrl, _: &Config) -> Result<Arc<dyn Backend>> {
    let StoreUrl::Tcp(hosts) = url else {
        return Err(Error::Unsupported { what: url.to_string() });
    };
    let engine = interleaf_store::kv::mem::MemEngine::new(interleaf_store::env::Env::system());
    let inner = interleaf_store::Store::open(Arc::new(engine), Default::default())?;
    Ok(Arc::new(Faulty { host: hosts[0].host.clone(), inner }))
}

impl Backend for Faulty {
    fn info(&self, deadline: Deadline) -> Result<StoreInfo> {
        self.inner.info(deadline)
    }
    fn open(&self, request: &OpenRequest, deadline: Deadline) -> Result<OpenReply> {
        self.inner.open(request, deadline)
    }
    fn resolve(&self, branch: BranchId, when: &When, deadline: Deadline) -> Result<Version> {
        self.inner.resolve(branch, when, deadline)
    }
    fn begin(&self, request: &BeginRequest, deadline: Deadline) -> Result<BeginReply> {
        plan(&self.host, |plan| plan.begins_at.push(request.at));
        let plan = self.plan();
        assert!(!plan.panic_at_begin, "asked to panic");
        plan.begin.map_or(Ok(()), Err)?;
        let mut reply = self.inner.begin(request, deadline)?;
        if let Some(incarnation) = plan.incarnation {
            reply.incarnation = Incarnation::from_bytes([incarnation; 8]);
            reply.changes = Changes::Unknown;
        }
        Ok(reply)
    }
    fn read(&self, request: &ReadRequest, deadline: Deadline) -> Result<Vec<PageRead>> {
        plan(&self.host, |plan| plan.reads += 1);
        let plan = self.plan();
        plan.read.map_or(Ok(()), Err)?;
        // The store behind is of one incarnation; what `begin` made of it is told here.
        let mut request = request.clone();
        if let Some(incarnation) = plan.incarnation {
            let now = Incarnation::from_bytes([incarnation; 8]);
            if request.incarnation.take().is_some_and(|begun| begun != now) {
                return Err(Error::IncarnationChanged);
            }
        }
        let mut pages = self.inner.read(&request, deadline)?;
        if let Some(hash) = plan.false_hash {
            pages.iter_mut().for_each(|page| page.hash = hash);
        }
        Ok(pages)
    }
    fn stage(&self, request: &StageRequest, deadline: Deadline) -> Result<()> {
        self.plan().stage.map_or(Ok(()), Err)?;
        self.inner.stage(request, deadline)
    }
    fn unstage(&self, id: CommitId, deadline: Deadline) -> Result<()> {
        self.inner.unstage(id, deadline)
    }
    fn commit(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply> {
        plan(&self.host, |plan| plan.durabilities.push(request.durability));
        let plan = self.plan();
        match plan.commit {
            Some(error) if plan.commit_took_effect => {
                self.inner.commit(request, deadline)?;
                Err(error)
            }
            Some(Error::OutcomeUnknown { why, .. }) => {
                Err(Error::OutcomeUnknown { id: request.id, why })
            }
            Some(error) => Err(error),
            None => self.inner.commit(request, deadline),
        }
    }
    fn find_commit(&self, id: CommitId, deadline: Deadline) -> Result<Option<Version>> {
        self.inner.find_commit(id, deadline)
    }
    fn create(&self, n: &DatabaseName, s: CreateState, d: Deadline) -> Result<OpenReply> {
        self.inner.create(n, s, d)
    }
    fn finish_import(&self, database: DatabaseId, deadline: Deadline) -> Result<()> {
        self.inner.finish_import(database, deadline)
    }
    fn list(&self, deadline: Deadline) -> Result<Vec<DatabaseInfo>> {
        self.inner.list(deadline)
    }
    fn describe(&self, name: &DatabaseName, deadline: Deadline) -> Result<DatabaseInfo> {
        self.inner.describe(name, deadline)
    }
    fn rename(&self, from: &DatabaseName, to: &DatabaseName, deadline: Deadline) -> Result<()> {
        self.inner.rename(from, to, deadline)
    }
    fn drop_database(&self, name: &DatabaseName, deadline: Deadline) -> Result<()> {
        self.inner.drop_database(name, deadline)
    }
    fn log(&self, request: &LogRequest, deadline: Deadline) -> Result<Vec<LogEntry>> {
        self.inner.log(request, deadline)
    }
    fn time_of(&self, version: Version, deadline: Deadline) -> Result<Option<i64>> {
        self.inner.time_of(version, deadline)
    }
    fn status(&self, deadline: Deadline) -> Result<StoreStatus> {
        self.inner.status(deadline)
    }
    fn count_records(&self, deadline: Deadline) -> Result<RecordCounts> {
        self.inner.count_records(deadline)
    }
    fn round_trips(&self) -> u64 {
        0
    }
}

static REGISTER: Once = Once::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh store and a URI to a database in it.
fn fresh() -> (String, String) {
    REGISTER.call_once(|| {
        #[allow(unsafe_code, reason = "the macro's, seen as this crate's own here")]
        let api = crate::ffi::Api::from_pointers(crate::sqlite_api!(rusqlite::ffi));
        let config = Config { log: LogLevel::Off, ..Config::default() };
        crate::ffi::register(api.unwrap(), &config, connect).unwrap();
    });
    let host = format!("host{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let uri = format!("file:app?vfs=interleaf&store=tcp://{host}");
    (host, uri)
}

fn filled() -> (String, Connection, Connection) {
    let (host, uri) = fresh();
    let db = Connection::open(&uri).unwrap();
    db.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)").unwrap();
    (host, db, Connection::open(&uri).unwrap())
}

fn code(result: rusqlite::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(rusqlite::Error::SqliteFailure(error, _)) => error.extended_code,
        Err(other) => panic!("{other}"),
    }
}

fn n(db: &Connection) -> i64 {
    db.query_row("SELECT n FROM t", [], |row| row.get(0)).unwrap()
}

fn last_error(db: &Connection) -> String {
    db.query_row("PRAGMA interleaf_stats", [], |row| row.get(0)).unwrap()
}

const UPDATE: &str = "UPDATE t SET n = n + 1";

fn unavailable() -> Error {
    Error::Unavailable { what: "the cable is cut".into() }
}

#[test]
fn a_store_that_does_not_answer_is_an_ioerr_and_comes_back() {
    let (host, db, _) = filled();
    for error in [unavailable(), Error::Timeout { after: Duration::from_secs(1) }] {
        plan(&host, |plan| plan.begin = Some(error.clone()));
        assert_eq!(code(db.execute_batch(UPDATE)), 10);
        assert!(last_error(&db).contains(&error.to_string()), "{}", last_error(&db));
        plan(&host, |plan| plan.begin = None);
        assert_eq!(n(&db), 1);
        plan(&host, |plan| plan.commit = Some(error.clone()));
        assert_eq!(code(db.execute_batch(UPDATE)), 10);
        assert!(db.is_autocommit());
        plan(&host, |plan| plan.commit = None);
        assert_eq!(n(&db), 1, "rolled back");
    }
    db.execute_batch(UPDATE).unwrap();
    assert_eq!(n(&db), 2);
}

#[test]
fn a_read_that_fails_inside_a_transaction_rolls_it_back() {
    let (host, uri) = fresh();
    let db = Connection::open(&uri).unwrap();
    let fill = "CREATE TABLE t(n, pad);
        WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 12000)
        INSERT INTO t SELECT x, printf('%0900d', x) FROM c";
    db.execute_batch(fill).unwrap();
    db.execute_batch("PRAGMA cache_size = 5").unwrap();
    // What an own large commit wrote is in no cache of this process.
    let corrupt = Error::Corrupt { what: "page 9".into() };
    for (error, expected) in [(unavailable(), 10), (corrupt, 11)] {
        db.execute_batch("BEGIN; UPDATE t SET n = 0 WHERE rowid = 1").unwrap();
        plan(&host, |plan| plan.read = Some(error));
        let failed = code(db.execute_batch("SELECT sum(length(pad)) FROM t"));
        assert_eq!(failed, expected, "{}", last_error(&db));
        plan(&host, |plan| plan.read = None);
        assert_eq!(db.is_autocommit(), expected == 10, "an IOERR rolls back by itself");
        if !db.is_autocommit() {
            db.execute_batch("ROLLBACK").unwrap();
        }
        let first: i64 =
            db.query_row("SELECT min(n) FROM t WHERE rowid = 1", [], |r| r.get(0)).unwrap();
        assert_eq!(first, 1);
    }
    let sum: i64 = db.query_row("SELECT sum(length(pad)) FROM t", [], |r| r.get(0)).unwrap();
    assert_eq!(sum, 12_000 * 900);
}

#[test]
fn an_unknown_outcome_says_so_with_its_id() {
    let (host, db, other) = filled();
    let id = CommitId::from_bytes([0; 16]);
    plan(&host, |plan| plan.commit = Some(Error::OutcomeUnknown { id, why: "lost".into() }));
    assert_eq!(code(db.execute_batch(UPDATE)), 10);
    let text = last_error(&db);
    assert!(text.contains("outcome unknown") && text.contains("--commit"), "{text}");
    // It took effect after all: the connection sees what the store has, not its own cache.
    plan(&host, |plan| plan.commit_took_effect = true);
    assert_eq!(code(db.execute_batch(UPDATE)), 10);
    plan(&host, |plan| plan.commit = None);
    assert_eq!((n(&db), n(&other)), (2, 2));
    db.execute_batch(UPDATE).unwrap();
    assert_eq!(n(&other), 3);
}

#[test]
fn another_incarnation_is_a_conflict_and_empties_the_caches() {
    let (host, db, _) = filled();
    db.execute_batch("BEGIN; UPDATE t SET n = 5").unwrap();
    plan(&host, |plan| plan.commit = Some(Error::IncarnationChanged));
    assert_eq!(code(db.execute_batch("COMMIT")), 517);
    plan(&host, |plan| {
        plan.commit = None;
        plan.incarnation = Some(9);
    });
    assert_eq!(n(&db), 1);
    assert_eq!(code(db.execute_batch(UPDATE)), 517, "the store's own is another yet");
    plan(&host, |plan| plan.incarnation = None);
    db.execute_batch(UPDATE).unwrap();
    assert_eq!(n(&db), 2);
}

#[test]
fn a_panic_stays_inside() {
    let (host, db, other) = filled();
    plan(&host, |plan| plan.panic_at_begin = true);
    assert_eq!(code(db.execute_batch(UPDATE)), 10);
    plan(&host, |plan| plan.panic_at_begin = false);
    assert_eq!(code(db.execute_batch(UPDATE)), 10, "its state is not known any more");
    db.close().unwrap();
    other.execute_batch(UPDATE).unwrap();
    assert_eq!(n(&other), 2);
}

#[test]
fn staging_that_fails_fails_the_commit() {
    let (host, db, other) = filled();
    plan(&host, |plan| plan.stage = Some(unavailable()));
    let sql = "INSERT INTO t VALUES (zeroblob(20000000))";
    assert_eq!(code(db.execute_batch(sql)), 10);
    plan(&host, |plan| plan.stage = None);
    let count = |db: &Connection| -> i64 {
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count(&db), count(&other)), (1, 1));
    db.execute_batch(sql).unwrap();
    assert_eq!(count(&other), 2);
}

#[test]
fn writing_two_stores_in_one_transaction_is_refused() {
    let (_, db, other) = filled();
    let (_, uri) = fresh();
    db.execute_batch(&format!("ATTACH '{uri}' AS two; CREATE TABLE two.u(n)")).unwrap();
    db.execute_batch("BEGIN; UPDATE t SET n = 2; INSERT INTO u VALUES (1)").unwrap();
    assert_eq!(code(db.execute_batch("COMMIT")), 10);
    assert!(last_error(&db).contains("two stores"), "{}", last_error(&db));
    let count: i64 = db.query_row("SELECT count(*) FROM u", [], |row| row.get(0)).unwrap();
    assert_eq!((n(&db), n(&other), count), (1, 1, 0));
    // Reading the one and writing the other is fine.
    db.execute_batch("INSERT INTO u SELECT n FROM t").unwrap();
}

#[test]
fn files_of_one_connection_join_one_snapshot() {
    let (host, uri) = fresh();
    let db = Connection::open(&uri).unwrap();
    db.execute_batch("CREATE TABLE t(n)").unwrap();
    let two = uri.replace("file:app", "file:two");
    db.execute_batch(&format!("ATTACH '{two}' AS two; CREATE TABLE two.u(n)")).unwrap();
    plan(&host, |plan| plan.begins_at.clear());
    db.execute_batch("BEGIN; SELECT * FROM t; SELECT * FROM u; COMMIT").unwrap();
    let begins = plan(&host, |plan| plan.begins_at.clone());
    assert!(matches!(begins.as_slice(), [None, Some(_)]), "{begins:?}");
}

#[test]
fn a_warm_update_is_one_begin_and_one_commit() {
    let (host, db, _) = filled();
    db.execute_batch(UPDATE).unwrap();
    plan(&host, |plan| *plan = Plan::default());
    db.execute_batch(UPDATE).unwrap();
    let done = plan(&host, |plan| plan.clone());
    assert_eq!((done.begins_at.len(), done.reads, done.durabilities.len()), (1, 0, 1));
    assert_eq!(n(&db), 3);
}

#[test]
fn the_synchronous_level_reaches_the_store() {
    let (host, db, _) = filled();
    let two = format!("file:two?vfs=interleaf&store=tcp://{host}");
    db.execute_batch(&format!("ATTACH '{two}' AS two; CREATE TABLE two.u(n)")).unwrap();
    db.execute_batch("CREATE TABLE big(pad)").unwrap();
    let spill = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3000)
        INSERT INTO big SELECT printf('%0300d', x) FROM c; UPDATE big SET pad = 'x' || pad";
    let both = "BEGIN; UPDATE t SET n = n + 1; INSERT INTO u VALUES (1); COMMIT";
    for (level, expected) in [
        ("OFF", Durability::Buffered),
        ("NORMAL", Durability::Buffered),
        ("FULL", Durability::Synced),
        ("EXTRA", Durability::Synced),
    ] {
        let set = format!(
            "PRAGMA main.synchronous = {level}; PRAGMA two.synchronous = {level};
             PRAGMA cache_size = 5"
        );
        db.execute_batch(&set).unwrap();
        plan(&host, |plan| plan.durabilities.clear());
        for sql in [UPDATE, both, spill, "DELETE FROM big", "VACUUM"] {
            db.execute_batch(sql).unwrap();
        }
        let seen = plan(&host, |plan| plan.durabilities.clone());
        assert_eq!(seen, vec![expected; 6], "{level}");
    }
}

#[test]
fn a_database_read_in_another_incarnation_than_the_one_written_is_a_conflict() {
    let (host, db, _) = filled();
    let attach = format!("ATTACH 'file:read?vfs=interleaf&store=tcp://{host}' AS r");
    db.execute_batch(&attach).unwrap();
    db.execute_batch("CREATE TABLE r.t(n); INSERT INTO r.t VALUES (1)").unwrap();
    for changed in [true, false] {
        // What was read may have been lost before what is written began.
        plan(&host, |plan| plan.incarnation = changed.then_some(7));
        db.execute_batch("BEGIN; SELECT n FROM r.t").unwrap();
        plan(&host, |plan| plan.incarnation = None);
        db.execute_batch("UPDATE main.t SET n = (SELECT n + 1 FROM r.t)").unwrap();
        assert_eq!(code(db.execute_batch("COMMIT")), if changed { 517 } else { 0 });
    }
}

#[test]
fn a_commit_of_two_databases_that_a_recovery_ended_is_told_as_the_last_error() {
    let (host, db, _) = filled();
    let two = format!("file:two?vfs=interleaf&store=tcp://{host}");
    db.execute_batch(&format!("ATTACH '{two}' AS two; CREATE TABLE two.u(n)")).unwrap();
    plan(&host, |plan| plan.commit = Some(Error::IncarnationChanged));
    let both = "BEGIN; UPDATE t SET n = n + 1; INSERT INTO u VALUES (1); COMMIT";
    assert_eq!(code(db.execute_batch(both)), 517);
    assert!(last_error(&db).contains("the store was recovered"), "{}", last_error(&db));
    plan(&host, |plan| plan.commit = None);
    db.execute_batch(both).unwrap();
    assert_eq!(n(&db), 2);
}

#[test]
fn a_server_cannot_put_its_own_bytes_under_another_stores_hash() {
    let (host, uri) = fresh();
    let fill = "CREATE TABLE t(n, pad); INSERT INTO t VALUES (1, hex(randomblob(40000)))";
    Connection::open(&uri).unwrap().execute_batch(fill).unwrap();
    let (_, victim, _) = filled();
    // The hash of a page that the other store's users have.
    let page: Vec<u8> = victim
        .query_row("SELECT data FROM sqlite_dbpage WHERE pgno = 2", [], |row| row.get(0))
        .unwrap();
    let db = Connection::open(&uri).unwrap();
    plan(&host, |plan| {
        plan.false_hash = Some(ContentHash::of(&page));
        // What this process knew of the store's pages is forgotten.
        plan.incarnation = Some(7);
    });
    let read = db.query_row("SELECT sum(length(pad)) FROM t", [], |_| Ok(()));
    assert_eq!(code(read), 11);
    assert!(last_error(&db).contains("the hash of another content"), "{}", last_error(&db));
    plan(&host, |plan| plan.false_hash = None);
    let sum: i64 = db.query_row("SELECT sum(length(pad)) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!((sum, n(&victim)), (80_000, 1), "neither store's pages were harmed");
}
