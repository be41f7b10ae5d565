//! Group commit: the one commit path of the embedded engines.
//!
//! A caller queues its commit. Where nobody leads, it becomes the *leader*: it validates
//! the queued commits one by one, against the conflict window and those before them in the
//! batch, gives them versions, applies all as one batch with the strongest durability in
//! it, publishes, and tells their callers. Commits that come meanwhile wait for the next
//! batch, so that the longer one takes the larger the next one is.
//!
//! # Invariants
//! * **G1** Versions are issued under the lock of [`Core`], each greater than all before.
//! * **G2** A version is issued only below the bound last reserved in the storage.
//! * **G3** A snapshot's version is read before its view is taken, and a batch is applied
//!   before its versions are published: a view holds every commit up to its version.
//! * **G4** The queue is empty wherever nobody leads, or has just been told to.
//! * **G5** After a batch of which it is not known whether it was written, nothing more is.

mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use self::queue::Leader;
use super::conflict::{ReadSet, Window};
use super::prepare::{Op, Prepared, fill};
use super::txn::Overlay;
use super::{
    AskSuccessor, BatchHook, Commit, Durability, Entry, Key, Kv, KvError, KvResult, Limits, OnDone,
    OnPublish, Reads, Scan, Snapshot, TxnBody, retry,
};
use crate::env::{Deadline, Env};
use crate::types::Version;

/// What the conflict window may take, in bytes.
pub(super) const WINDOW_BYTES: u64 = 32 << 20;

/// Versions reserved at a time: one fsync more in so many commits.
pub(super) const RESERVED_VERSIONS: u64 = 1 << 20;

/// Why a batch could not be applied.
#[derive(Debug)]
pub enum ApplyError {
    /// Nothing of it was written, nor ever will be.
    Nothing(KvError),
    /// It may have been written.
    Unknown(KvError),
}

/// What lies under the group commit.
pub trait Storage: Send + Sync + 'static {
    /// Stable reads.
    type View: Reads + Send + 'static;

    /// The engine's name.
    fn name(&self) -> &'static str;

    /// What it can take.
    fn limits(&self) -> Limits;

    /// As [`Kv::exclusive`].
    fn exclusive(&self) -> bool {
        true
    }

    /// As [`Kv::recovered`].
    fn recovered(&self) -> bool {
        false
    }

    /// Reads of now: every batch applied, none in part.
    ///
    /// # Errors
    /// As [`KvError`].
    fn view(&self) -> KvResult<Self::View>;

    /// Applies a batch, as a whole or not at all.
    ///
    /// # Errors
    /// As [`ApplyError`]; the storage is not used any more afterwards.
    fn apply(&self, ops: Vec<Op>, durability: Durability) -> Result<(), ApplyError>;

    /// Makes sure, durably, that versions below `bound` are never issued after a crash.
    ///
    /// # Errors
    /// As [`KvError`].
    fn reserve(&self, _bound: u64) -> KvResult<()> {
        Ok(())
    }

    /// The version that follows `newest`.
    fn next_version(&self, newest: Version) -> Version {
        Version::new(newest.commit() + 1, 0)
    }

    /// The version of a snapshot that sees everything up to `newest`. Asked under the lock
    /// of the commits where the storage is not exclusive.
    fn snapshot_version(&self, newest: Version) -> Version {
        newest
    }

    /// As [`Kv::validates`].
    fn validates(&self, _snapshot: Version) -> bool {
        true
    }

    /// As [`Kv::disk_bytes`].
    fn disk_bytes(&self) -> Option<u64> {
        None
    }

    /// Makes everything durable and leaves the mark of a clean end.
    ///
    /// # Errors
    /// As [`KvError`].
    fn close(&self, _newest: Version) -> KvResult<()> {
        Ok(())
    }
}

/// An embedded engine: group commit over a storage.
pub struct Group<S: Storage> {
    pub(super) storage: S,
    env: Env,
    hook: OnceLock<BatchHook>,
    successor: OnceLock<AskSuccessor>,
    queue: queue::Queue,
    core: Mutex<Core>,
    /// Commit number of the newest version whose batch is applied.
    published: AtomicU64,
    /// Set once commits are over: why.
    ended: OnceLock<KvError>,
    closed: AtomicBool,
    watchers: AtomicUsize,
    /// Locked to wait for `news`, so that none is missed.
    watch: Mutex<()>,
    news: Condvar,
}

/// What only a leader changes.
struct Core {
    window: Window,
    newest: Version,
    reserved: u64,
}

/// A batch with its commits validated and their results, ready to be written.
struct Batch {
    ops: Vec<Op>,
    durability: Durability,
    published: Vec<(Version, Option<OnPublish>)>,
    results: Vec<KvResult<Version>>,
    /// What was read, kept so that it is freed when no other commit waits for it.
    spent: Vec<ReadSet>,
}

impl<S: Storage> Group<S> {
    /// Commits over `storage`, whose newest version is `newest` and which has reserved
    /// those below `reserved`.
    pub(super) fn over(
        storage: S,
        env: Env,
        newest: Version,
        reserved: u64,
        window_bytes: u64,
    ) -> Self {
        Self {
            storage,
            env,
            hook: OnceLock::new(),
            successor: OnceLock::new(),
            queue: queue::Queue::default(),
            core: Mutex::new(Core { window: Window::new(newest, window_bytes), newest, reserved }),
            published: AtomicU64::new(newest.commit()),
            ended: OnceLock::new(),
            closed: AtomicBool::new(false),
            watchers: AtomicUsize::new(0),
            watch: Mutex::default(),
            news: Condvar::new(),
        }
    }

    fn usable(&self) -> KvResult<()> {
        self.ended.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Ends all commits, those that wait included.
    pub(super) fn end(&self, why: KvError) {
        // The first reason stays.
        self.ended.get_or_init(|| why);
        self.wake_watchers();
    }

    /// Whether commits are over.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Ends commits and reads, between two batches, and leaves no mark of it.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn kill(&self, what: &str) {
        let _core = lock(&self.core);
        self.end(KvError::Unavailable { what: what.to_owned() });
        self.closed.store(true, Ordering::Release);
    }

    fn wake_watchers(&self) {
        if self.watchers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.watch));
            self.news.notify_all();
        }
    }

    pub(super) fn at_now(&self) -> KvResult<At<S::View>> {
        if self.closed.load(Ordering::Acquire) {
            return self.usable().and(Err(KvError::Unavailable { what: "closed".into() }));
        }
        if !self.storage.exclusive() {
            let core = lock(&self.core);
            let version = self.storage.snapshot_version(core.newest);
            return Ok(At { version, view: self.storage.view()? });
        }
        // G3
        let version = Version::new(self.published.load(Ordering::Acquire), 0);
        Ok(At { version, view: self.storage.view()? })
    }

    /// Validates, applies and publishes; gives each commit's result.
    fn process(&self, commits: Vec<Prepared>) -> Vec<KvResult<Version>> {
        let mut core = lock(&self.core);
        let count = commits.len();
        let ready = self.usable().and_then(|()| {
            let reserved = self.reserve(&mut core, count);
            reserved.map_err(|error| self.applied_not(ApplyError::Nothing(error)))
        });
        if let Err(error) = ready {
            return vec![Err(error); count];
        }
        crate::fault_point!("commit.before-validate");
        let mut batch = self.validate(&mut core, commits);
        if batch.published.is_empty() {
            return batch.results;
        }
        if let Some(hook) = self.hook.get() {
            let newest = core.newest;
            batch.ops.extend(hook(newest).into_iter().map(|mutation| fill(mutation, newest)));
        }
        crate::fault_point!("commit.before-apply");
        if let Err(error) = self.storage.apply(batch.ops, batch.durability) {
            let error = self.applied_not(error);
            for result in batch.results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(error.clone());
            }
            return batch.results;
        }
        crate::fault_point!("commit.after-apply");
        self.published.store(core.newest.commit(), Ordering::SeqCst);
        crate::fault_point!("commit.before-publish");
        for (version, call) in batch.published {
            if let Some(call) = call {
                publish(version, call);
            }
        }
        drop(core);
        self.wake_watchers();
        batch.results
    }

    /// G2 for `count` more versions.
    fn reserve(&self, core: &mut Core, count: usize) -> KvResult<()> {
        let last = core.newest.commit().saturating_add(count as u64);
        if last >= core.reserved {
            let bound = last.saturating_add(RESERVED_VERSIONS);
            self.storage.reserve(bound)?;
            core.reserved = bound;
        }
        Ok(())
    }

    fn validate(&self, core: &mut Core, commits: Vec<Prepared>) -> Batch {
        let mut batch = Batch {
            ops: Vec::new(),
            durability: Durability::Buffered,
            published: Vec::with_capacity(commits.len()),
            results: Vec::with_capacity(commits.len()),
            spent: Vec::with_capacity(commits.len()),
        };
        for commit in commits {
            let checked = core.window.check(commit.snapshot, &commit.reads);
            batch.spent.push(commit.reads);
            if let Err(error) = checked {
                batch.results.push(Err(error));
                continue;
            }
            let version = self.storage.next_version(core.newest);
            debug_assert!(version > core.newest, "G1");
            core.newest = version;
            core.window.add(version, commit.writes);
            batch.ops.extend(commit.mutations.into_iter().map(|m| fill(m, version)));
            batch.durability = batch.durability.max(commit.durability);
            batch.published.push((version, commit.on_publish));
            batch.results.push(Ok(version));
        }
        batch
    }

    /// G5: ends the engine; the answer to the batch's callers.
    fn applied_not(&self, error: ApplyError) -> KvError {
        let (cause, answer) = match error {
            ApplyError::Nothing(error) => (error.clone(), error),
            ApplyError::Unknown(error) => (error, KvError::UnknownResult),
        };
        self.end(cause.lasting());
        tracing::error!(%cause, "a batch could not be written; no more commits are taken");
        answer
    }

    fn wait_for_change(
        &self,
        key: &[u8],
        known: Option<&[u8]>,
        deadline: Deadline,
    ) -> KvResult<()> {
        let mut guard = lock(&self.watch);
        loop {
            // A batch applied from here on finds the watcher counted, or is seen by the view.
            if self.at_now()?.get(key)?.as_deref() != known {
                return Ok(());
            }
            let left = self.env.remaining(deadline).map_err(|_| timeout(deadline))?;
            (guard, _) =
                self.news.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<S: Storage> Kv for Group<S> {
    fn name(&self) -> &'static str {
        self.storage.name()
    }

    fn limits(&self) -> Limits {
        self.storage.limits()
    }

    fn exclusive(&self) -> bool {
        self.storage.exclusive()
    }

    fn recovered(&self) -> bool {
        self.storage.recovered()
    }

    fn failure(&self) -> Option<KvError> {
        self.ended.get().filter(|why| !matches!(why, KvError::Unavailable { .. })).cloned()
    }

    fn set_batch_hook(&self, hook: BatchHook) {
        if self.storage.exclusive() && self.hook.set(hook).is_err() {
            tracing::error!("the batch hook was set before; the first one stays");
        }
    }

    fn snapshot(&self, _deadline: Deadline) -> KvResult<Box<dyn Snapshot + '_>> {
        Ok(Box::new(self.at_now()?))
    }

    fn validates(&self, snapshot: Version) -> bool {
        self.storage.validates(snapshot)
    }

    fn commit_at(&self, commit: Commit, deadline: Deadline) -> KvResult<Version> {
        self.commit(commit, deadline)
    }

    fn submit(&self, commit: Commit, _deadline: Deadline, done: OnDone) -> bool {
        self.push(commit, done)
    }

    fn lead(&self) {
        self.lead_queue(Leader::Sent);
    }

    fn lead_in_passing(&self) {
        self.lead_queue(Leader::Passing);
    }

    fn set_successor(&self, ask: AskSuccessor) {
        // Whoever was named first does as well.
        self.successor.get_or_init(|| ask);
    }

    fn transact(&self, deadline: Deadline, body: TxnBody<'_>) -> crate::Result<Option<Version>> {
        retry::run(
            &self.env,
            deadline,
            || self.ended.get().is_some(),
            || {
                let snapshot = self.at_now()?;
                let mut txn = Overlay::new(&snapshot);
                body(&mut txn)?;
                let commit = txn.into_commit();
                Ok(commit.map(|commit| self.commit(commit, deadline)).transpose()?)
            },
        )
    }

    fn watch(&self, key: &[u8], known: Option<&[u8]>, deadline: Deadline) -> KvResult<()> {
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let result = self.wait_for_change(key, known, deadline);
        self.watchers.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.storage.disk_bytes()
    }

    fn close(&self) -> KvResult<()> {
        // No batch is under way while the core is locked, and later ones find the end.
        let core = lock(&self.core);
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let failed = self.usable();
        self.end(KvError::Unavailable { what: "the store is closed".into() });
        failed?;
        self.storage.close(core.newest)
    }
}

/// A view and its version.
pub(super) struct At<V> {
    version: Version,
    view: V,
}

impl<V: Reads> Reads for At<V> {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        self.view.get(key)
    }

    fn get_many(&self, keys: &[Key]) -> KvResult<Vec<Option<Bytes>>> {
        self.view.get_many(keys)
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        self.view.scan(scan)
    }

    fn scan_many(&self, scans: &[Scan]) -> KvResult<Vec<Vec<Entry>>> {
        self.view.scan_many(scans)
    }
}

impl<V: Reads + Send> Snapshot for At<V> {
    fn version(&self) -> Version {
        self.version
    }
}

/// One call of [`OnPublish`]: a panic in it is its owner's bug and no reason to leave
/// other callers waiting.
fn publish(version: Version, call: OnPublish) {
    if catch_unwind(AssertUnwindSafe(|| call(version))).is_err() {
        tracing::error!(%version, "what was to be done at the publication of a commit panicked");
    }
}

pub(super) const fn timeout(deadline: Deadline) -> KvError {
    KvError::Timeout { after: deadline.timeout() }
}

/// A lock whose holder may have panicked: what it guards is consistent at every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
