//! Begins without a request: heads that a local server shows in shared memory.
//!
//! What a reply to a begin says of a branch (its head, the allocation, the incarnation) is
//! remembered, and moves on with own commits. While the branch's head in shared memory is
//! that one, a begin whose page map reaches up to it has nothing to ask.
//!
//! # Invariants
//! * **L1** What is remembered holds for one generation of the board. It is noted with the
//!   generation read *before* its request was sent: a later server's answer noted under the
//!   generation before it is of no use, and does no harm.
//! * **L2** Nothing here waits: a process that forks while another thread of it is in here
//!   leaves a lock to its child that nobody will release. Who does not get it soon asks the
//!   server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

use interleaf_heads::{Place, Reader};
use interleaf_store::api::{
    Allocation, BeginReply, BeginRequest, Changes, CommitPart, CommitReply, CommitRequest,
};
use interleaf_store::types::{BranchId, Incarnation, StoreId, Version};

/// Branches remembered; past it all are forgotten, and asked for when next used.
const MAX_BRANCHES: usize = 4096;

/// How often a lock is tried.
const TRIES: u32 = 100;

/// No server has told a generation yet.
const NONE: u64 = 0;

/// See the module.
#[derive(Default)]
pub(super) struct Heads {
    reader: OnceLock<Reader>,
    /// The generation that the server greeted last told, [`NONE`] where it told none.
    generation: AtomicU64,
    branches: Mutex<HashMap<BranchId, Known>>,
}

/// A branch at its head.
#[derive(Clone, Copy, Debug)]
struct Known {
    generation: u64,
    incarnation: Incarnation,
    head: Version,
    allocation: Allocation,
}

impl Heads {
    /// A server said where it shows its heads, or that it does not.
    pub(super) fn greeted(&self, place: Option<&Place>, store: StoreId) {
        match place.filter(|place| self.can_read(place, store)) {
            // It grows; another thread may have met a later server already.
            Some(place) => drop(self.generation.fetch_max(place.generation, Ordering::AcqRel)),
            None => self.generation.store(NONE, Ordering::Release),
        }
    }

    fn can_read(&self, place: &Place, store: StoreId) -> bool {
        if self.reader.get().is_none() {
            match Reader::open(place, store.to_bytes()) {
                // Another thread may have been first.
                Ok(Some(reader)) => drop(self.reader.set(reader)),
                Ok(None) => tracing::debug!(?place, "the server's heads cannot be seen from here"),
                Err(error) => tracing::debug!(%error, ?place, "the server's heads cannot be read"),
            }
        }
        // Another file than before: somebody removed that one.
        self.reader.get().is_some_and(|reader| reader.place().same_file(place))
    }

    /// The generation, to be read before a request is sent (L1).
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The reply to a begin, if it can be given here.
    pub(super) fn begin(&self, request: &BeginRequest) -> Option<BeginReply> {
        let generation = self.generation();
        if generation == NONE {
            return None;
        }
        let reader = self.reader.get()?;
        let (incarnation, known) = request.known?;
        let branch = *self.branches()?.get(&request.branch)?;
        if branch.generation != generation || branch.incarnation != incarnation {
            return None;
        }
        let look = reader.look(generation, number_of(request.branch))?;
        let newest = Version::new(look.newest, 0);
        let snapshot = request.at.unwrap_or(newest);
        // Nothing was committed after `head`: not up to `newest`, which is what is certain.
        let unchanged = Version::new(look.head, 0) == branch.head;
        let covered = branch.head <= known && known <= snapshot && snapshot <= newest;
        (unchanged && covered).then(|| BeginReply {
            incarnation,
            snapshot,
            head: branch.head,
            allocation: branch.allocation,
            changes: Changes::Commits(Vec::new()),
        })
    }

    /// What a server replied, asked when the generation was `generation`.
    pub(super) fn begun(&self, generation: u64, branch: BranchId, reply: &BeginReply) {
        let BeginReply { incarnation, head, allocation, .. } = *reply;
        self.note(branch, Known { generation, incarnation, head, allocation });
    }

    /// A commit took effect, sent when the generation was `generation`.
    pub(super) fn committed(&self, generation: u64, request: &CommitRequest, reply: &CommitReply) {
        if generation == NONE {
            return;
        }
        let Some(mut branches) = self.branches() else { return };
        for (part, previous) in request.parts.iter().zip(&reply.previous) {
            let Some(known) = branches.get_mut(&part.branch) else { continue };
            let same = known.generation == generation && known.incarnation == request.incarnation;
            if same && *previous == Some(known.head) && writes(part) {
                known.head = reply.version;
                known.allocation = part.allocation.map_or(known.allocation, |to| to.after);
            }
        }
    }

    fn note(&self, branch: BranchId, now: Known) {
        if now.generation == NONE {
            return;
        }
        let Some(mut branches) = self.branches() else { return };
        if branches.len() >= MAX_BRANCHES && !branches.contains_key(&branch) {
            branches.clear();
        }
        let known = branches.entry(branch).or_insert(now);
        // Replies of several threads may come here in another order than they were given,
        // and one to a begin at an older snapshot says what was then.
        if known.generation != now.generation
            || known.incarnation != now.incarnation
            || known.head < now.head
        {
            *known = now;
        }
    }

    fn branches(&self) -> Option<MutexGuard<'_, HashMap<BranchId, Known>>> {
        for _ in 0..TRIES {
            match self.branches.try_lock() {
                Ok(branches) => return Some(branches),
                // Whole at every moment: each entry is written at once.
                Err(TryLockError::Poisoned(branches)) => return Some(branches.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }
}

/// Whether a part moves its branch's head.
fn writes(part: &CommitPart) -> bool {
    !part.writes.is_empty() || part.staged || part.allocation.is_some()
}

/// A branch's id as the board has it.
const fn number_of(branch: BranchId) -> u64 {
    u64::from_be_bytes(branch.to_bytes())
}
