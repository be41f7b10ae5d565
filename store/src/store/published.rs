//! What this process, as an embedded store's only writer, has published: enough to answer
//! a begin, and most of a read, without asking the engine.
//!
//! # Invariants
//! * **P1** `newest` and every branch's state change in one critical section per commit, in
//!   the order of versions: whoever reads `newest` under the lock sees no half of a commit
//!   over several branches.
//! * **P2** A commit is in here before its caller learns of it, so a begin that comes after
//!   an acknowledgement sees it.
//! * **P3** A branch's state is loaded *as of* the `newest` at which its slot was marked.
//!   Every commit after that mark arrives by [`Published::publish`], into the slot's list
//!   of pending events; every commit before it is seen by an engine snapshot that is taken
//!   after the mark, because a commit is published after it is applied. So loading and
//!   committing need no lock between them, and nothing is lost or applied twice.
//! * **P4** A snapshot is never newer than `newest`: what the engine has applied and not
//!   yet published is seen by no begin.
//! * **P5** A branch is on the board (the heads that other processes read) only while its
//!   state is ready here, with its head; the store's newest version goes there after the
//!   heads of the commit that made it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use interleaf_heads::{Board, Place};

use super::view::{BranchView, Lineage, View, to_change};
use crate::api::{Allocation, Changes, MAX_BEGIN_CHANGES};
use crate::error::Result;
use crate::format::log::LogRecord;
use crate::kv::Reads;
use crate::types::{BranchId, Version};

/// Bytes of log entries kept for one branch. Small in unit tests, as the two below, so that
/// those see what happens past it.
const LOG_BYTES_PER_BRANCH: usize = if cfg!(test) { 2 << 10 } else { 256 << 10 };

/// Branches kept; past it one is forgotten and loaded again when it is next used.
const MAX_BRANCHES: usize = if cfg!(test) { 3 } else { 1024 };

/// Allocations kept for one branch.
const MAX_ALLOCATIONS: usize = if cfg!(test) { 3 } else { 64 };

/// What a commit does to the published state.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A commit on the branch.
    Commit(Arc<LogRecord>),
    /// The branch is no more.
    Dropped,
    /// Snapshots below are pruned.
    Watermark(Version),
}

#[derive(Default)]
pub(super) struct Published {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    newest: Version,
    branches: HashMap<BranchId, Slot>,
    board: Option<Board>,
}

enum Slot {
    Loading { as_of: Version, pending: Vec<(Version, Event)> },
    Ready(BranchState),
}

/// One branch, as it was at a version and has become since.
pub(super) struct BranchState {
    pub(super) lineage: Arc<Lineage>,
    pub(super) dropped: bool,
    pub(super) watermark: Version,
    head: Version,
    /// Oldest first, never empty; each holds from its version on.
    allocations: VecDeque<(Version, Allocation)>,
    /// Every commit after `log_after`, oldest first; `log_after` is itself a commit of the
    /// branch or of its parents, or [`Version::ZERO`].
    log: VecDeque<(Version, Arc<LogRecord>)>,
    log_after: Version,
    log_bytes: usize,
}

impl BranchState {
    fn load<R: Reads + ?Sized>(
        view: &View<'_, R>,
        branch: BranchId,
        as_of: Version,
    ) -> Result<Self> {
        let BranchView { lineage, dropped, watermark } = view.branch(branch)?;
        let head = view.head_at(&lineage, as_of)?;
        let allocation = view.allocation_at(&lineage, as_of)?;
        Ok(Self {
            lineage: Arc::new(lineage),
            dropped,
            watermark,
            head,
            allocations: VecDeque::from([allocation]),
            log: VecDeque::new(),
            log_after: head,
            log_bytes: 0,
        })
    }

    fn apply(&mut self, version: Version, event: Event) {
        match event {
            Event::Dropped => self.dropped = true,
            Event::Watermark(watermark) => self.watermark = self.watermark.max(watermark),
            Event::Commit(record) => {
                debug_assert!(version > self.head, "P1: commits are published in order");
                self.head = version;
                if let Some(allocation) = record.allocation {
                    self.allocations.push_back((version, allocation));
                    if self.allocations.len() > MAX_ALLOCATIONS {
                        self.allocations.pop_front();
                    }
                }
                self.log_bytes += weight(&record);
                self.log.push_back((version, record));
                while self.log_bytes > LOG_BYTES_PER_BRANCH {
                    let Some((version, oldest)) = self.log.pop_front() else { break };
                    self.log_after = version;
                    self.log_bytes -= weight(&oldest);
                }
            }
        }
    }

    /// The newest commit up to `at`, if that is known here.
    pub(super) fn head_at(&self, at: Version) -> Option<Version> {
        if at >= self.head {
            return Some(self.head);
        }
        if at < self.log_after {
            return None;
        }
        let newer = self.log.partition_point(|&(version, _)| version <= at);
        let last = newer.checked_sub(1).and_then(|index| self.log.get(index));
        Some(last.map_or(self.log_after, |&(version, _)| version))
    }

    /// The allocation at `at`, if that is known here.
    pub(super) fn allocation_at(&self, at: Version) -> Option<Allocation> {
        self.allocations.iter().rev().find(|&&(version, _)| version <= at).map(|&(_, a)| a)
    }

    /// What happened in `(known, at]`, if that is known here.
    pub(super) fn changes(&self, known: Version, at: Version) -> Option<Changes> {
        if known >= self.head || known == at {
            return Some(Changes::Commits(Vec::new()));
        }
        if known < self.log_after {
            return None;
        }
        let from = self.log.partition_point(|&(version, _)| version <= known);
        let to = self.log.partition_point(|&(version, _)| version <= at);
        let window = || self.log.range(from..to.max(from));
        if window().map(|(_, record)| record.pages.len().max(1)).sum::<usize>() > MAX_BEGIN_CHANGES
        {
            return Some(Changes::Unknown);
        }
        Some(Changes::Commits(window().map(|(v, record)| to_change(*v, record)).collect()))
    }
}

/// About what a log entry takes in memory.
fn weight(record: &LogRecord) -> usize {
    128 + 40 * record.pages.len()
}

impl Published {
    pub(super) fn new(newest: Version) -> Self {
        Self { state: RwLock::new(State { newest, branches: HashMap::new(), board: None }) }
    }

    /// Shows the heads on a board from here on.
    pub(super) fn show_on(&self, mut board: Board) {
        let mut state = self.write();
        board.show_newest(state.newest.commit());
        state.board = Some(board);
        let branches: Vec<_> = state.branches.keys().copied().collect();
        for branch in branches {
            state.show(branch);
        }
    }

    /// Where the board is, if there is one.
    pub(super) fn place(&self) -> Option<Place> {
        self.read().board.as_ref().map(|board| board.place().clone())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn newest(&self) -> Version {
        self.read().newest
    }

    /// Runs `look` on the newest version and the branch's state, if it is loaded.
    pub(super) fn peek<T>(
        &self,
        branch: BranchId,
        look: impl FnOnce(Version, &BranchState) -> T,
    ) -> Option<T> {
        let state = self.read();
        let Some(Slot::Ready(ready)) = state.branches.get(&branch) else { return None };
        let seen = look(state.newest, ready);
        let shown = state.board.as_ref().is_none_or(|board| board.shows(number_of(branch)));
        drop(state);
        if !shown {
            // Others took its slot; whoever looks is about to use it again.
            self.write().show(branch);
        }
        Some(seen)
    }

    /// Marks a branch as being loaded: the version as of which to load it (P3).
    fn mark(&self, branch: BranchId) -> Version {
        let mut state = self.write();
        let newest = state.newest;
        if state.branches.len() >= MAX_BRANCHES && !state.branches.contains_key(&branch) {
            let victim = state.branches.keys().next().copied();
            if let Some(victim) = victim {
                state.hide(victim);
                state.branches.remove(&victim);
            }
        }
        let slot = state
            .branches
            .entry(branch)
            .or_insert_with(|| Slot::Loading { as_of: newest, pending: Vec::new() });
        match slot {
            Slot::Loading { as_of, .. } => *as_of,
            // Loaded by another meanwhile; what is loaded now will be dropped.
            Slot::Ready(_) => newest,
        }
    }

    /// Loads a branch's state. `snapshot` is called after the mark was set and must give
    /// reads of then.
    pub(super) fn load<S: std::ops::Deref<Target: Reads>>(
        &self,
        branch: BranchId,
        snapshot: impl FnOnce() -> Result<S>,
    ) -> Result<()> {
        let as_of = self.mark(branch);
        let loaded = snapshot().and_then(|reads| BranchState::load(&View(&*reads), branch, as_of));
        let mut state = self.write();
        match (state.branches.remove(&branch), loaded) {
            // As of the same mark: others may have loaded it too, one of us is first.
            (Some(Slot::Loading { as_of: marked, pending }), Ok(mut ready)) if marked == as_of => {
                for (version, event) in pending {
                    ready.apply(version, event);
                }
                state.branches.insert(branch, Slot::Ready(ready));
                state.show(branch);
            }
            (Some(slot @ Slot::Ready(_)), _) => {
                state.branches.insert(branch, slot);
            }
            // A failed load, or one of a mark that is gone: without a mark, whoever comes
            // next begins anew.
            (_, Err(e)) => return Err(e),
            (_, Ok(_)) => {}
        }
        Ok(())
    }

    /// A commit took effect (P1). Gives the heads of the branches right before it, where
    /// they are known.
    pub(super) fn publish(
        &self,
        version: Version,
        events: Vec<(BranchId, Event)>,
    ) -> Vec<Option<Version>> {
        let mut state = self.write();
        debug_assert!(version > state.newest, "K3: versions grow");
        state.newest = state.newest.max(version);
        let heads = events.into_iter().map(|(branch, event)| state.take(version, branch, event));
        let heads = heads.collect();
        let newest = state.newest.commit();
        if let Some(board) = &mut state.board {
            board.show_newest(newest);
        }
        heads
    }
}

impl State {
    /// What happened to a branch; its head right before, where it is known.
    fn take(&mut self, version: Version, branch: BranchId, event: Event) -> Option<Version> {
        let head = match self.branches.get_mut(&branch)? {
            Slot::Ready(ready) => {
                let head = ready.head;
                ready.apply(version, event);
                head
            }
            Slot::Loading { pending, .. } => {
                pending.push((version, event));
                return None;
            }
        };
        self.show(branch);
        Some(head)
    }

    /// Shows a branch's head, if it has one to show (P5).
    fn show(&mut self, branch: BranchId) {
        let Some(board) = &mut self.board else { return };
        match self.branches.get(&branch) {
            Some(Slot::Ready(ready)) if !ready.dropped => {
                debug_assert_eq!(ready.head.batch(), 0, "an embedded version has no batch order");
                board.show(number_of(branch), ready.head.commit());
            }
            _ => board.hide(number_of(branch)),
        }
    }

    fn hide(&mut self, branch: BranchId) {
        if let Some(board) = &mut self.board {
            board.hide(number_of(branch));
        }
    }
}

/// A branch's id as the board has it.
const fn number_of(branch: BranchId) -> u64 {
    u64::from_be_bytes(branch.to_bytes())
}
