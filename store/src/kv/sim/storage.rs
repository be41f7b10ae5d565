//! The storage under a [`SimEngine`](super::SimEngine): the one in memory, which also
//! knows what a crash would leave, and can number its commits as FoundationDB does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::env::SimEntropy;
use crate::kv::group::{ApplyError, Storage, lock};
use crate::kv::mem::{self, MemStorage, View};
use crate::kv::prepare::Op;
use crate::kv::{Durability, KvResult, Limits};
use crate::types::Version;

/// FoundationDB's limits, as the engine for it states them.
const SHARED_LIMITS: Limits = Limits {
    key_bytes: mem::KEY_BYTES,
    value_bytes: 90_000,
    transaction_bytes: 9_000_000,
    transaction_age_ms: Some(super::SHARED_AGE_MS),
};

/// How often a commit shares the commit version of the one before it.
const SHARED_VERSION: f64 = 0.5;
/// By how much commit versions grow at most.
const VERSION_STEP: u64 = 1000;

/// In memory, with a plan for its end.
pub struct SimStorage {
    mem: MemStorage,
    /// What was last made durable; keeps all that came later apart from it.
    synced: Mutex<View>,
    pub(super) reserved: AtomicU64,
    pub(super) exclusive: bool,
    recovered: bool,
    entropy: Arc<SimEntropy>,
    /// No commit shares a commit version with a snapshot up to here.
    sealed: AtomicU64,
}

impl SimStorage {
    /// A storage of what `mem` holds.
    pub(super) fn new(
        mem: MemStorage,
        exclusive: bool,
        recovered: bool,
        entropy: Arc<SimEntropy>,
    ) -> Self {
        Self {
            synced: Mutex::new(mem.now()),
            mem,
            reserved: AtomicU64::new(0),
            exclusive,
            recovered,
            entropy,
            sealed: AtomicU64::new(0),
        }
    }

    /// What a crash leaves now: everything, or what comes before some batch after the
    /// last durable one.
    pub(super) fn survivors(&self, lose_suffix: bool) -> MemStorage {
        let synced = lock(&self.synced).batch();
        let newest = self.mem.now().batch();
        let lost = if lose_suffix { self.entropy.below(newest - synced + 1) } else { 0 };
        self.mem.copy_at(newest - lost)
    }
}

impl Storage for SimStorage {
    type View = View;

    fn name(&self) -> &'static str {
        "sim"
    }

    fn limits(&self) -> Limits {
        if self.exclusive { mem::LIMITS } else { SHARED_LIMITS }
    }

    fn exclusive(&self) -> bool {
        self.exclusive
    }

    fn recovered(&self) -> bool {
        self.recovered
    }

    fn view(&self) -> KvResult<View> {
        self.mem.view()
    }

    fn apply(&self, ops: Vec<Op>, durability: Durability) -> Result<(), ApplyError> {
        self.mem.apply(ops, durability)?;
        if durability == Durability::Synced {
            *lock(&self.synced) = self.mem.now();
        }
        Ok(())
    }

    fn reserve(&self, bound: u64) -> KvResult<()> {
        self.reserved.store(bound, Ordering::Relaxed);
        Ok(())
    }

    fn next_version(&self, newest: Version) -> Version {
        if self.exclusive {
            return Version::new(newest.commit() + 1, 0);
        }
        let free = newest.commit() > self.sealed.load(Ordering::Relaxed);
        if free && newest.batch() < 1000 && self.entropy.chance(SHARED_VERSION) {
            return Version::new(newest.commit(), newest.batch() + 1);
        }
        Version::new(newest.commit() + 1 + self.entropy.below(VERSION_STEP), 0)
    }

    fn snapshot_version(&self, newest: Version) -> Version {
        if self.exclusive {
            return newest;
        }
        self.sealed.fetch_max(newest.commit(), Ordering::Relaxed);
        Version::new(newest.commit(), Version::BATCH_ALL)
    }

    fn validates(&self, snapshot: Version) -> bool {
        self.exclusive || snapshot.batch() == Version::BATCH_ALL
    }
}
