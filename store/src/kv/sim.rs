//! The engine for tests: in memory, seeded, with every error an engine may answer
//! injected at every call, and time under the test's control.
//!
//! Used from one thread, two runs of one seed are the same.

mod env;
mod storage;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

pub use self::env::{SimClock, SimEntropy};
use self::storage::SimStorage;
use super::group::{At, Group, RESERVED_VERSIONS, WINDOW_BYTES, lock, timeout};
use super::mem::{MemStorage, View};
use super::txn::Overlay;
use super::{
    BatchHook, Commit, Entry, Kv, KvError, KvResult, Limits, Reads, Scan, Snapshot, TxnBody, retry,
};
use crate::env::{Deadline, Env};
use crate::types::Version;

/// How old a transaction may be where the engine is shared, in milliseconds.
const SHARED_AGE_MS: u64 = 5000;

/// Bytes of the conflict window.
const SIM_WINDOW_BYTES: u64 = WINDOW_BYTES;

/// How a watch looks again.
const WATCH_STEP: Duration = Duration::from_millis(1);

/// What is to go wrong, and how often: probabilities for each call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultPlan {
    /// A commit conflicts with nobody in particular.
    pub conflict: f64,
    /// A snapshot is too old: at a commit, and at reads where the engine is shared.
    pub too_old: f64,
    /// A commit's result is unknown, and it had no effect.
    pub unknown_before: f64,
    /// A commit's result is unknown, and it took effect.
    pub unknown_after: f64,
    /// The engine cannot be reached.
    pub unavailable: f64,
    /// No answer comes until the deadline; the clock stands there afterwards.
    pub timeout: f64,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        conflict: 0.0,
        too_old: 0.0,
        unknown_before: 0.0,
        unknown_after: 0.0,
        unavailable: 0.0,
        timeout: 0.0,
    };

    /// Every fault but the timeout with this probability.
    #[must_use]
    pub const fn every(probability: f64) -> Self {
        Self {
            conflict: probability,
            too_old: probability,
            unknown_before: probability,
            unknown_after: probability,
            unavailable: probability,
            timeout: 0.0,
        }
    }
}

/// How often each fault was injected, by its name in [`FaultPlan`].
pub type FaultCounts = BTreeMap<&'static str, u64>;

/// The engine for tests.
pub struct SimEngine {
    inner: Group<SimStorage>,
    faults: Faults,
    clock: Arc<SimClock>,
    entropy: Arc<SimEntropy>,
}

/// The plan, whether it is in force, and what came of it.
struct Faults {
    plan: FaultPlan,
    on: AtomicBool,
    counts: Mutex<FaultCounts>,
    clock: Arc<SimClock>,
    entropy: Arc<SimEntropy>,
}

impl Faults {
    fn hits(&self, name: &'static str, probability: f64) -> bool {
        let hit = self.on.load(Ordering::Relaxed) && self.entropy.chance(probability);
        if hit {
            *lock(&self.counts).entry(name).or_default() += 1;
        }
        hit
    }

    /// Faults that any call may meet.
    fn any(&self, call: &str, deadline: Deadline) -> KvResult<()> {
        if self.hits("unavailable", self.plan.unavailable) {
            return Err(KvError::Unavailable { what: format!("injected at {call}") });
        }
        if self.hits("timeout", self.plan.timeout) {
            return Err(self.time_out(deadline));
        }
        Ok(())
    }

    /// Lets the deadline pass.
    fn time_out(&self, deadline: Deadline) -> KvError {
        use crate::env::Clock;
        if let Ok(left) = deadline.remaining(self.clock.now()) {
            self.clock.advance(left);
        }
        timeout(deadline)
    }
}

impl SimEngine {
    /// An empty store that this process has to itself, as with the embedded engines.
    #[must_use]
    pub fn new(seed: u64, plan: FaultPlan) -> Self {
        Self::with_mode(seed, plan, true)
    }

    /// An empty store shared with others, as with FoundationDB: snapshots bear the batch
    /// ffff and only they validate, several commits may share one commit version, versions
    /// leap, transactions grow too old, hooks and publications are never called.
    #[must_use]
    pub fn shared(seed: u64, plan: FaultPlan) -> Self {
        Self::with_mode(seed, plan, false)
    }

    fn with_mode(seed: u64, plan: FaultPlan, exclusive: bool) -> Self {
        let (clock, entropy) = (SimClock::new(), SimEntropy::new(seed));
        let storage =
            SimStorage::new(MemStorage::default(), exclusive, false, Arc::clone(&entropy));
        Self::over(storage, Version::ZERO, plan, clock, entropy)
    }

    fn over(
        storage: SimStorage,
        newest: Version,
        plan: FaultPlan,
        clock: Arc<SimClock>,
        entropy: Arc<SimEntropy>,
    ) -> Self {
        let env = env::env(&clock, &entropy);
        let bound = newest.commit() + RESERVED_VERSIONS;
        storage.reserved.store(bound, Ordering::Relaxed);
        let faults = Faults {
            plan,
            on: AtomicBool::new(true),
            counts: Mutex::default(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
        };
        let inner = Group::over(storage, env, newest, bound, SIM_WINDOW_BYTES);
        Self { inner, faults, clock, entropy }
    }

    /// The simulation's time and randomness, for the store on top.
    #[must_use]
    pub fn env(&self) -> Env {
        env::env(&self.clock, &self.entropy)
    }

    /// The simulation's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<SimClock> {
        &self.clock
    }

    /// Switches all faults on or off; they are on at first.
    pub fn set_faults(&self, on: bool) {
        self.faults.on.store(on, Ordering::Relaxed);
    }

    /// What was injected so far.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        lock(&self.faults.counts).clone()
    }

    /// Ends this engine as kill -9 or, with `lose_suffix`, a power failure would: commits
    /// after some point behind the last synced one are gone. Gives the engine that the next
    /// process finds, on the same clock; this one answers `Unavailable` from now on.
    #[must_use]
    pub fn crash(&self, lose_suffix: bool) -> Self {
        self.inner.kill("the simulated process was killed");
        let storage = &self.inner.storage;
        let mem = storage.survivors(lose_suffix);
        let newest = Version::new(storage.reserved.load(Ordering::Relaxed) - 1, 0);
        let exclusive = storage.exclusive;
        let storage = SimStorage::new(mem, exclusive, exclusive, Arc::clone(&self.entropy));
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        let next = Self::over(storage, newest, self.faults.plan, clock, entropy);
        next.set_faults(self.faults.on.load(Ordering::Relaxed));
        next
    }

    fn begin(&self, deadline: Deadline) -> KvResult<SimSnapshot<'_>> {
        self.faults.any("snapshot", deadline)?;
        let at = self.inner.at_now()?;
        Ok(SimSnapshot { at, engine: self, deadline, begun: self.clock.passed() })
    }

    fn commit(&self, commit: Commit, deadline: Deadline) -> KvResult<Version> {
        let (faults, plan) = (&self.faults, &self.faults.plan);
        faults.any("commit", deadline)?;
        let validated = !commit.read_conflicts.is_empty();
        if validated
            && (faults.hits("too_old", plan.too_old) || !self.inner.validates(commit.snapshot))
        {
            return Err(KvError::TooOld);
        }
        if validated && faults.hits("conflict", plan.conflict) {
            return Err(KvError::Conflict);
        }
        if faults.hits("unknown_before", plan.unknown_before) {
            return Err(KvError::UnknownResult);
        }
        let result = self.inner.commit(commit, deadline);
        if result.is_ok() && faults.hits("unknown_after", plan.unknown_after) {
            return Err(KvError::UnknownResult);
        }
        result
    }
}

/// A snapshot whose reads may fail.
struct SimSnapshot<'a> {
    at: At<View>,
    engine: &'a SimEngine,
    deadline: Deadline,
    begun: Duration,
}

impl SimSnapshot<'_> {
    fn meet_faults(&self, call: &str) -> KvResult<()> {
        let faults = &self.engine.faults;
        faults.any(call, self.deadline)?;
        if self.engine.inner.exclusive() {
            return Ok(());
        }
        let age = self.engine.clock.passed().saturating_sub(self.begun);
        if age > Duration::from_millis(SHARED_AGE_MS) || faults.hits("too_old", faults.plan.too_old)
        {
            return Err(KvError::TooOld);
        }
        Ok(())
    }
}

impl Reads for SimSnapshot<'_> {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        self.meet_faults("get")?;
        self.at.get(key)
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        self.meet_faults("scan")?;
        self.at.scan(scan)
    }
}

impl Snapshot for SimSnapshot<'_> {
    fn version(&self) -> Version {
        self.at.version()
    }
}

impl Kv for SimEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn exclusive(&self) -> bool {
        self.inner.exclusive()
    }

    fn recovered(&self) -> bool {
        self.inner.recovered()
    }

    fn set_batch_hook(&self, hook: BatchHook) {
        self.inner.set_batch_hook(hook);
    }

    fn snapshot(&self, deadline: Deadline) -> KvResult<Box<dyn Snapshot + '_>> {
        Ok(Box::new(self.begin(deadline)?))
    }

    fn validates(&self, snapshot: Version) -> bool {
        self.inner.validates(snapshot)
    }

    fn commit_at(&self, commit: Commit, deadline: Deadline) -> KvResult<Version> {
        self.commit(commit, deadline)
    }

    fn transact(&self, deadline: Deadline, body: TxnBody<'_>) -> crate::Result<Option<Version>> {
        retry::run(
            &self.env(),
            deadline,
            || self.inner.has_ended(),
            || {
                let snapshot = self.begin(deadline)?;
                let mut txn = Overlay::new(&snapshot);
                body(&mut txn)?;
                let commit = txn.into_commit();
                Ok(commit.map(|commit| self.commit(commit, deadline)).transpose()?)
            },
        )
    }

    fn watch(&self, key: &[u8], known: Option<&[u8]>, deadline: Deadline) -> KvResult<()> {
        use crate::env::Clock;
        self.faults.any("watch", deadline)?;
        while self.inner.at_now()?.get(key)?.as_deref() == known {
            let left = deadline.remaining(self.clock.now()).map_err(|_| timeout(deadline))?;
            self.clock.sleep(left.min(WATCH_STEP));
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.inner.disk_bytes()
    }

    fn close(&self) -> KvResult<()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests;
