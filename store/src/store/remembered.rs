//! What begins have read of branches, where others write to the store too.
//!
//! The commit of a transaction that was begun here needs the branch's lineage and the
//! allocation at its snapshot, and finds both here: it reads nothing before it asks the
//! engine. Only what cannot change any more is kept.
//!
//! # Invariants
//! * **R1** A lineage says the same as long as its branch lives; whether it lives, the engine
//!   checks at the commit.
//! * **R2** A span (made, seen, allocation) of a branch: the newest allocation record up to
//!   `seen` is that of `made`. Hence the allocation at every version of [made, seen] is this.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::begin::Basis;
use super::view::Lineage;
use crate::api::Allocation;
use crate::types::{BranchId, Version};

/// Branches kept; past it all are forgotten, which costs each a read.
const BRANCHES: usize = 4096;

/// Spans kept for a branch: transactions begun more allocations ago read again.
const SPANS: usize = 32;

/// What is known of branches.
#[derive(Default)]
pub(super) struct Remembered {
    branches: Mutex<HashMap<BranchId, Branch>>,
}

struct Branch {
    lineage: Arc<Lineage>,
    /// Oldest first.
    spans: VecDeque<Span>,
}

struct Span {
    made: Version,
    seen: Version,
    allocation: Allocation,
}

impl Remembered {
    /// Notes what was read at the snapshot `seen`: the allocation, and the version that made
    /// it so.
    pub(super) fn note(
        &self,
        branch: BranchId,
        lineage: &Arc<Lineage>,
        seen: Version,
        (made, allocation): (Version, Allocation),
    ) {
        let mut branches = self.lock();
        if branches.len() >= BRANCHES && !branches.contains_key(&branch) {
            branches.clear();
        }
        let spans = &mut branches
            .entry(branch)
            .or_insert_with(|| Branch { lineage: Arc::clone(lineage), spans: VecDeque::new() })
            .spans;
        if let Some(span) = spans.iter_mut().find(|span| span.made == made) {
            span.seen = span.seen.max(seen);
            return;
        }
        if spans.len() >= SPANS {
            spans.pop_front();
        }
        spans.push_back(Span { made, seen, allocation });
    }

    /// What is known of a branch at a snapshot.
    pub(super) fn basis(&self, branch: BranchId, snapshot: Version) -> Option<Basis> {
        let branches = self.lock();
        let Branch { lineage, spans } = branches.get(&branch)?;
        let holds = |span: &&Span| span.made <= snapshot && snapshot <= span.seen;
        let allocation = spans.iter().rev().find(holds)?.allocation;
        Some(Basis { lineage: Arc::clone(lineage), allocation })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BranchId, Branch>> {
        // Each entry is right by itself.
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
