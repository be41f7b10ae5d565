//! FoundationDB: the engine of stores that many machines share.
//!
//! Reads never make FoundationDB's own conflicts; logical conflict keys do, in a key space
//! of theirs (see `space`). A commit is one FoundationDB transaction at the caller's read
//! version, and its version is the transaction's versionstamp.

mod error;
mod reads;
mod space;
mod wait;
mod writes;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foundationdb::options::{ConflictRangeType, TransactionOption};
use foundationdb::{Database, FdbError, Transaction};

use self::error::{During, engine_error};
use self::reads::{FdbSnapshot, Reader};
use self::space::Space;
use self::wait::{remaining, wait};
use super::conflict::point;
use super::txn::Overlay;
use super::{
    BatchHook, Commit, Entry, Found, KeyRange, Kv, KvError, KvResult, Limits, Scan, Snapshot,
    TxnBody, TxnError, retry,
};
use crate::env::{Deadline, Env};
use crate::error::{Error, Result};
use crate::types::Version;

/// FoundationDB takes transactions up to 5 s old, of 10 MB by its own count, which adds to
/// every key and range; keys of 10,000 and values of 100,000 bytes. Less is used, so that
/// no store comes near.
const LIMITS: Limits = Limits {
    key_bytes: 512,
    value_bytes: 90_000,
    transaction_bytes: 9_000_000,
    transaction_age_ms: Some(4_000),
};

/// Read versions that lie further back than this behind the newest one known are not asked
/// for again: FoundationDB counts a million a second, and keeps about 5 s of them.
const KEPT_VERSIONS: u64 = 4_000_000;

/// How long the estimate of the store's size may take.
const ESTIMATE_WAIT: Duration = Duration::from_secs(1);

/// A store in a FoundationDB cluster.
pub struct FdbKv {
    /// Taken out only when dropped.
    database: Option<Database>,
    space: Space,
    env: Env,
    closed: AtomicBool,
    /// The newest read version that was answered here.
    newest: AtomicU64,
    round_trips: AtomicU64,
}

impl FdbKv {
    /// The store of the cluster that `cluster_file` describes, under `prefix` (empty for
    /// the whole cluster). The first one of a process opens FoundationDB's client library
    /// and starts its network thread. The cluster is first asked by the first read.
    ///
    /// # Errors
    /// `Io` where the library cannot be used or the cluster file cannot be read;
    /// `InvalidUrl` for a prefix with a zero byte; `Unavailable` in a process that was
    /// forked from one that uses FoundationDB.
    pub fn open(cluster_file: &Path, prefix: &str, env: Env) -> Result<Self> {
        if prefix.contains('\0') {
            let url = format!("fdb:{}?prefix={prefix}", cluster_file.display());
            return Err(Error::InvalidUrl { url, why: "a prefix has no zero byte".into() });
        }
        let io = |what: String| Error::Io { what };
        let of_file = |why: &dyn std::fmt::Display| {
            io(format!("FoundationDB's cluster file {}: {why}", cluster_file.display()))
        };
        // Looked at here, since the client library waits for a file that is not there.
        std::fs::File::open(cluster_file).map_err(|error| of_file(&error))?;
        let path = cluster_file.to_str().ok_or_else(|| of_file(&"the path is not UTF-8"))?;
        let client = interleaf_fdb_link::start().map_err(|error| match error {
            interleaf_fdb_link::NetworkError::Forked(forked) => {
                Error::Unavailable { what: forked.to_string() }
            }
            other => io(other.to_string()),
        })?;
        tracing::debug!(library = %client.loaded.library.display(), version = client.version,
            "FoundationDB's client library");
        let database = Database::from_path(path).map_err(|error| of_file(&error))?;
        Ok(Self {
            database: Some(database),
            space: Space::new(prefix),
            env,
            closed: AtomicBool::new(false),
            newest: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
        })
    }

    /// Whether anything may be asked: the store is open, and this process is the one that
    /// opened it.
    fn usable(&self) -> KvResult<&Database> {
        let unavailable = |what: String| KvError::Unavailable { what };
        interleaf_fdb_link::check().map_err(|forked| unavailable(forked.to_string()))?;
        match &self.database {
            Some(database) if !self.closed.load(Ordering::Acquire) => Ok(database),
            _ => Err(unavailable("the store is closed".into())),
        }
    }

    fn transaction(&self) -> KvResult<Transaction> {
        self.usable()?.create_trx().map_err(Self::read_error)
    }

    /// A transaction that does not look at its own writes, for those that never read them.
    fn plain_transaction(&self) -> KvResult<Transaction> {
        let transaction = self.transaction()?;
        let option = TransactionOption::ReadYourWritesDisable;
        transaction.set_option(option).map_err(Self::read_error)?;
        Ok(transaction)
    }

    /// Counts a wait for the cluster. Everything that was sent before it is part of it.
    fn count_wait(&self) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    /// The read version that `version` was a snapshot at, where FoundationDB may still have
    /// it. One that nobody was ever given is not: to read there would be to wait for it.
    fn recent(&self, version: Version) -> Option<i64> {
        let newest = self.newest.load(Ordering::Relaxed);
        let commit = version.commit();
        let kept = self.validates(version)
            && (newest.saturating_sub(KEPT_VERSIONS)..=newest).contains(&commit);
        kept.then(|| i64::try_from(commit).ok()).flatten()
    }

    /// The scans at a read version, or now.
    fn scan_at(
        &self,
        at: Option<i64>,
        scans: &[Scan],
        deadline: Deadline,
    ) -> KvResult<(FdbSnapshot<'_>, Vec<Vec<Entry>>)> {
        let transaction = self.plain_transaction()?;
        if let Some(at) = at {
            transaction.set_read_version(at);
        }
        // All is sent before the first wait: the client library sends the reads as soon as
        // it has the read version, and so one wait is enough.
        let asked = transaction.get_read_version();
        let reader = Reader { kv: self, transaction: &transaction, deadline };
        let sent = reader.send_scans(scans)?;
        self.count_wait();
        let asked = wait(asked, deadline, &*self.env.clock)?;
        let found = reader.finish_scans(sent)?;
        let read_version = asked.map_err(Self::read_error)?;
        let commit = u64::try_from(read_version).map_err(|_| KvError::Corrupt {
            what: format!("FoundationDB answered the read version {read_version}"),
        })?;
        self.newest.fetch_max(commit, Ordering::Relaxed);
        let version = Version::new(commit, Version::BATCH_ALL);
        Ok((FdbSnapshot { kv: self, transaction, version, deadline }, found))
    }

    fn read_error(error: FdbError) -> KvError {
        engine_error(error, During::Read, 0, LIMITS)
    }

    /// Sends a transaction of that size. Past the deadline nobody knows what became of it.
    fn commit(&self, transaction: Transaction, size: u64, deadline: Deadline) -> KvResult<Version> {
        let clock = &*self.env.clock;
        remaining(deadline, clock)?;
        let unknown = |_| KvError::UnknownResult;
        // Asked for before the commit, as FoundationDB wants it, and ready with it.
        let stamp = transaction.get_versionstamp();
        self.count_wait();
        let committed = wait(transaction.commit(), deadline, clock).map_err(unknown)?;
        let _committed =
            committed.map_err(|failed| engine_error(*failed, During::Commit, size, LIMITS))?;
        let stamp = wait(stamp, deadline, clock).map_err(unknown)?;
        // It is committed: without its version the log must be asked, but it did not fail.
        let stamp = stamp.map_err(|_| KvError::UnknownResult)?;
        let bytes = <[u8; Version::LEN]>::try_from(&*stamp).map_err(|_| KvError::UnknownResult)?;
        Ok(Version::from_bytes(bytes))
    }

    /// The transaction that a commit is. Where it has read nothing its snapshot does not
    /// matter, however old.
    fn prepare(&self, commit: &Commit) -> KvResult<Transaction> {
        let transaction = self.plain_transaction()?;
        let conflicts = |ranges: &[KeyRange], kind: fn() -> ConflictRangeType| {
            writes::conflicts(&transaction, &self.space, ranges, kind).map_err(Self::read_error)
        };
        if conflicts(commit.read_conflicts.listed(), || ConflictRangeType::Read)? {
            if !self.validates(commit.snapshot) {
                return Err(KvError::TooOld);
            }
            let version = i64::try_from(commit.snapshot.commit()).map_err(|_| KvError::TooOld)?;
            transaction.set_read_version(version);
        }
        let mut writes = conflicts(&commit.write_conflicts, || ConflictRangeType::Write)?;
        for mutation in &commit.mutations {
            writes |=
                writes::apply(&transaction, &self.space, mutation).map_err(Self::read_error)?;
        }
        if !writes {
            // FoundationDB neither validates nor gives a version where nothing is written.
            // No store has an empty key, so that its conflicts are in nobody's way.
            conflicts(&[point(b"")], || ConflictRangeType::Write)?;
        }
        Ok(transaction)
    }
}

impl Drop for FdbKv {
    fn drop(&mut self) {
        let database = self.database.take();
        if interleaf_fdb_link::check().is_err() {
            // To close it is to talk to a network thread that a forked child lacks.
            std::mem::forget(database);
        }
    }
}

impl Kv for FdbKv {
    fn name(&self) -> &'static str {
        "fdb"
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn exclusive(&self) -> bool {
        false
    }

    fn recovered(&self) -> bool {
        false
    }

    fn set_batch_hook(&self, _hook: BatchHook) {
        // For engines that see all commits of a store. Here other processes commit too.
    }

    fn snapshot(&self, deadline: Deadline) -> KvResult<Box<dyn Snapshot + '_>> {
        Ok(Box::new(self.scan_at(None, &[], deadline)?.0))
    }

    fn snapshot_with(
        &self,
        at: Option<Version>,
        scans: &[Scan],
        deadline: Deadline,
    ) -> KvResult<Found<'_>> {
        if let Some(at) = at.and_then(|at| self.recent(at)) {
            match self.scan_at(Some(at), scans, deadline) {
                Err(KvError::TooOld) => {}
                answer => return answer.map(|(snapshot, found)| (Box::new(snapshot) as _, found)),
            }
        }
        let (snapshot, found) = self.scan_at(None, scans, deadline)?;
        Ok((Box::new(snapshot), found))
    }

    fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }

    /// A versionstamp is within its batch, and FoundationDB validates from whole ones.
    fn validates(&self, snapshot: Version) -> bool {
        snapshot.batch() == Version::BATCH_ALL && snapshot.commit() > 0
    }

    fn commit_at(&self, mut commit: Commit, deadline: Deadline) -> KvResult<Version> {
        commit.read_conflicts = std::mem::take(&mut commit.read_conflicts).list();
        let size = writes::check(&commit)?;
        let transaction = self.prepare(&commit)?;
        self.commit(transaction, size, deadline)
    }

    fn transact(&self, deadline: Deadline, body: TxnBody<'_>) -> Result<Option<Version>> {
        let lasting = || self.usable().is_err();
        retry::run(&self.env, deadline, lasting, || -> Result<_, TxnError> {
            let snapshot = self.snapshot(deadline)?;
            let mut txn = Overlay::new(&*snapshot);
            body(&mut txn)?;
            let commit = txn.into_commit();
            Ok(commit.map(|commit| self.commit_at(commit, deadline)).transpose()?)
        })
    }

    fn watch(&self, key: &[u8], known: Option<&[u8]>, deadline: Deadline) -> KvResult<()> {
        let clock = &*self.env.clock;
        let mut pause = Duration::from_millis(1);
        loop {
            let transaction = self.transaction()?;
            let reader = Reader { kv: self, transaction: &transaction, deadline };
            let error = match reader.get(key) {
                Ok(value) if value.as_deref() != known => return Ok(()),
                Ok(_) => {
                    let changed = transaction.watch(&self.space.key(key));
                    // Nothing is written: this only lets the watch outlive its transaction.
                    let sent = wait(transaction.commit(), deadline, clock)?;
                    let changed = match sent {
                        Ok(_) => wait(changed, deadline, clock)?,
                        Err(failed) => Err(*failed),
                    };
                    changed.err().map(Self::read_error)
                }
                Err(error) => Some(error),
            };
            let Some(error) = error else {
                pause = Duration::from_millis(1);
                continue;
            };
            if !retry::retryable(&error) {
                return Err(error);
            }
            // Too many watches, a server that moved, a recovery: look again, and so come
            // down to polling where watching does not work.
            clock.sleep(pause.min(remaining(deadline, clock)?));
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// FoundationDB's estimate of the store's keys and values, before replication.
    fn disk_bytes(&self) -> Option<u64> {
        let clock = &*self.env.clock;
        let deadline = Deadline::after(clock.now(), ESTIMATE_WAIT);
        let transaction = self.transaction().ok()?;
        let (start, end) = self.space.everything();
        let estimate = transaction.get_estimated_range_size_bytes(&start, &end);
        wait(estimate, deadline, clock).ok()?.ok().and_then(|bytes| u64::try_from(bytes).ok())
    }

    fn close(&self) -> KvResult<()> {
        // What FoundationDB has acknowledged is durable, and there is no mark to leave.
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}
