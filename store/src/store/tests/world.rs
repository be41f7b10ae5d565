//! A store beside a model of it: plain maps that say what every read, begin and commit
//! must answer.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::{Allocation, AllocationChange, CommitPart};
use crate::types::{BranchId, CommitId, PageCount, PageNumber, PageSet, Version};

use super::common::{image, page};
use crate::api::OpenReply;

/// A commit in one branch, as the model knows it.
#[derive(Clone, Debug)]
pub struct ModelCommit {
    pub version: Version,
    pub id: CommitId,
    /// Every page with a record, those of zeros included.
    pub pages: BTreeMap<u32, u8>,
    pub allocation: Option<Allocation>,
    pub shrunk_to: Option<u32>,
    pub synced: bool,
}

/// A branch of the model.
#[derive(Clone, Debug)]
pub struct ModelBranch {
    pub open: OpenReply,
    pub parent: Option<(usize, Version)>,
    pub commits: Vec<ModelCommit>,
}

/// What is in a branch at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub head: Version,
    pub allocation: Allocation,
    pub pages: BTreeMap<u32, (Version, u8)>,
}

/// All branches.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub branches: Vec<ModelBranch>,
}

/// What a transaction wants of one branch.
#[derive(Clone, Debug)]
pub struct Wish {
    pub branch: usize,
    pub snapshot: Version,
    pub before: Allocation,
    pub after: Allocation,
    pub reads: PageSet,
    pub writes: BTreeMap<u32, u8>,
}

impl Wish {
    pub fn changes(&self) -> bool {
        !self.writes.is_empty() || self.before != self.after
    }

    pub fn bytes(&self, byte: u8) -> Bytes {
        image(self.after.page_size.len(), byte)
    }

    /// From where the kept part of the old pages ends, if something was cut off.
    pub fn shrunk_to(&self) -> Option<u32> {
        let (before, after) = (self.before, self.after);
        if before.pages.0 > 0 && before.page_size != after.page_size {
            return Some(0);
        }
        (after.pages < before.pages).then_some(after.pages.0)
    }

    pub fn part(&self, open: &OpenReply) -> CommitPart {
        let changed = self.before != self.after;
        CommitPart {
            database: open.database,
            branch: open.branch,
            domain: open.domain,
            snapshot: self.snapshot,
            reads: self.reads.clone(),
            writes: self.writes.iter().map(|(&n, &byte)| (page(n), self.bytes(byte))).collect(),
            hashes: Vec::new(),
            staged: false,
            allocation: changed.then_some(AllocationChange {
                snapshot: self.snapshot,
                before: self.before,
                after: self.after,
            }),
        }
    }

    /// What the model records of it.
    pub fn commit(&self, id: CommitId, version: Version, synced: bool) -> ModelCommit {
        let shrunk_to = self.shrunk_to();
        let mut pages = self.writes.clone();
        for hole in shrunk_to.unwrap_or(self.before.pages.0) + 1..=self.after.pages.0 {
            pages.entry(hole).or_insert(0);
        }
        let allocation = (self.before != self.after).then_some(self.after);
        ModelCommit { version, id, pages, allocation, shrunk_to, synced }
    }
}

impl Model {
    /// The commits of a branch and of its parents in `(after, up_to]`, oldest first.
    pub fn lineage(&self, branch: usize, after: Version, up_to: Version) -> Vec<&ModelCommit> {
        let here = &self.branches[branch];
        let mut commits = match here.parent {
            Some((parent, left)) => self.lineage(parent, after, up_to.min(left)),
            None => Vec::new(),
        };
        commits.extend(here.commits.iter().filter(|c| c.version > after && c.version <= up_to));
        commits
    }

    pub fn state(&self, branch: usize, at: Version) -> State {
        let mut state =
            State { head: Version::ZERO, allocation: Allocation::EMPTY, pages: BTreeMap::new() };
        for commit in self.lineage(branch, Version::ZERO, at) {
            if let Some(size) = commit.shrunk_to {
                state.pages.retain(|&page, _| page <= size);
            }
            for (&page, &byte) in &commit.pages {
                state.pages.insert(page, (commit.version, byte));
            }
            state.allocation = commit.allocation.unwrap_or(state.allocation);
            state.head = commit.version;
        }
        assert!(state.pages.keys().copied().eq(1..=state.allocation.pages.0), "the model's own F2");
        state
    }

    /// Whether what a wish read was changed after its snapshot.
    pub fn conflicts(&self, wish: &Wish) -> bool {
        let allocates = wish.before != wish.after;
        self.lineage(wish.branch, wish.snapshot, Version::MAX).into_iter().any(|commit| {
            let read = |page: PageNumber| {
                commit.pages.contains_key(&page.get())
                    || commit.shrunk_to.is_some_and(|size| !PageCount(size).contains(page))
            };
            let written = wish.commit(commit.id, commit.version, false).pages.into_keys();
            let kept = wish.shrunk_to().unwrap_or(wish.before.pages.0);
            let wrote = written.chain(kept + 1..=wish.before.pages.0).map(page);
            (allocates && commit.allocation.is_some()) || wish.reads.iter().chain(wrote).any(read)
        })
    }

    pub fn record(&mut self, branch: usize, commit: ModelCommit) {
        let commits = &mut self.branches[branch].commits;
        assert!(commits.last().is_none_or(|last| last.version < commit.version), "versions grow");
        commits.push(commit);
    }

    pub fn branch_id(&self, branch: usize) -> BranchId {
        self.branches[branch].open.branch
    }
}
