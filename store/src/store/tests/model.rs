//! Random transactions against the model, on every engine: branches of branches, pages
//! that grow, shrink and change their size, snapshots old and new, commits over two
//! branches, staged ones, duplicates, restarts and crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::common::{Dice, commit_id, filled_to, for_seeds, image, name, page};
use super::world::{Model, ModelBranch, State, Wish};
use crate::api::{
    Backend, BeginReply, BeginRequest, Changes, CommitReply, CommitRequest, LogRequest,
    OpenRequest, ReadRequest, StageRequest,
};
use crate::env::{Deadline, Env};
use crate::error::{Error, Result};
use crate::kv::mem::MemEngine;
use crate::kv::sim::{FaultPlan, SimEngine};
use crate::kv::{Durability, Kv};
use crate::store::merge::Merging;
use crate::store::{Store, StoreOptions};
use crate::types::{ContentHash, Incarnation, PageCount, PageSize, Version};

const MAX_PAGES: u32 = 24;
const STEPS: u32 = 600;

/// Where the store lives, and how it can end and come back.
enum Home {
    Mem,
    Dir(tempfile::TempDir),
    Sim(Arc<SimEngine>),
}

/// A client's page map of one branch.
#[derive(Default)]
struct PageMap {
    known: Option<(Incarnation, Version)>,
    hashes: BTreeMap<u32, ContentHash>,
}

/// A transaction in progress, over one branch or two.
struct Open {
    incarnation: Incarnation,
    wishes: Vec<Wish>,
}

struct Run {
    home: Home,
    store: Arc<Store>,
    env: Env,
    dice: Dice,
    model: Model,
    maps: Vec<PageMap>,
    open: Vec<Open>,
    done: Vec<(CommitRequest, Version)>,
    conflicts: u32,
    commits: u32,
    /// Steps of merging that were done one by one.
    unmerged: u32,
}

fn options(env: &Env) -> StoreOptions {
    StoreOptions { env: env.clone(), memory_bytes: 16 << 20, ..StoreOptions::default() }
}

impl Run {
    fn new(seed: u64, home: Home, env: Env, kv: Option<Arc<dyn Kv>>) -> Self {
        let store = match (&home, kv) {
            (Home::Dir(dir), _) => Store::open_dir(dir.path(), options(&env)).unwrap(),
            (_, Some(kv)) => Store::open(kv, options(&env)).unwrap(),
            (_, None) => unreachable!(),
        };
        let mut run = Self {
            home,
            store,
            env,
            dice: Dice::new(seed),
            model: Model::default(),
            maps: Vec::new(),
            open: Vec::new(),
            done: Vec::new(),
            conflicts: 0,
            commits: 0,
            unmerged: 0,
        };
        for text in ["one", "two"] {
            let request = OpenRequest { name: name(text), create: true, at: None };
            let open = run.store.open(&request, run.deadline()).unwrap();
            run.add_branch(ModelBranch { open, parent: None, commits: Vec::new() });
        }
        run
    }

    fn deadline(&self) -> Deadline {
        self.env.deadline(Duration::from_secs(600))
    }

    fn add_branch(&mut self, branch: ModelBranch) {
        self.model.branches.push(branch);
        self.maps.push(PageMap::default());
    }

    fn faults(&self, on: bool) {
        if let Home::Sim(engine) = &self.home {
            engine.set_faults(on);
        }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..35 if self.open.len() < 5 => self.begin(),
            35..60 => self.work(),
            60..88 => self.commit(),
            88..94 => self.read_old(),
            94 => self.duplicate(),
            95 => self.merge_some(),
            96..98 => self.branch(),
            98 => self.restart(),
            _ => self.merge_some(),
        }
    }

    fn begin_on(&mut self, branch: usize, at: Option<Version>) -> BeginReply {
        let map = &mut self.maps[branch];
        let request = BeginRequest { branch: self.model.branch_id(branch), at, known: map.known };
        let deadline = self.env.deadline(Duration::from_secs(600));
        let reply = self.store.begin(&request, deadline).unwrap();
        let state = self.model.state(branch, reply.snapshot);
        assert_eq!((reply.head, reply.allocation), (state.head, state.allocation));
        match &reply.changes {
            Changes::Unknown => map.hashes.clear(),
            Changes::Commits(commits) => {
                let (_, known) = map.known.unwrap();
                let expected = self.model.lineage(branch, known, reply.snapshot);
                let versions = |c: &crate::api::Change| c.version;
                assert!(commits.iter().map(versions).eq(expected.iter().map(|c| c.version)));
                for change in commits {
                    if let Some(size) = change.shrunk_to {
                        map.hashes.retain(|&page, _| page <= size.0);
                    }
                    for (page, hash) in &change.pages {
                        match hash {
                            Some(hash) => map.hashes.insert(page.get(), *hash),
                            None => map.hashes.remove(&page.get()),
                        };
                    }
                }
            }
        }
        map.known = Some((reply.incarnation, reply.snapshot));
        for (&page, &hash) in &map.hashes {
            let (_, byte) = state.pages[&page];
            assert_eq!(hash, hash_of(&state, byte), "page {page} of a page map");
        }
        reply
    }

    fn begin(&mut self) {
        let branch = self.dice.index(self.model.branches.len());
        let at = if self.dice.percent(10) { self.some_version(branch) } else { None };
        let reply = self.begin_on(branch, at);
        let mut wishes = vec![wish(branch, &reply)];
        if self.dice.percent(30) {
            let other = self.dice.index(self.model.branches.len());
            if other != branch {
                let joined = self.begin_on(other, Some(reply.snapshot));
                assert_eq!(joined.snapshot, reply.snapshot);
                wishes.push(wish(other, &joined));
            }
        }
        self.open.push(Open { incarnation: reply.incarnation, wishes });
    }

    /// A version at which the branch can be seen.
    fn some_version(&mut self, branch: usize) -> Option<Version> {
        let commits = self.model.lineage(branch, Version::ZERO, Version::MAX);
        if commits.is_empty() {
            return None;
        }
        Some(commits[self.dice.index(commits.len())].version)
    }

    fn check_reads(&mut self, branch: usize, snapshot: Version, pages: &[u32]) -> Result<()> {
        let state = self.model.state(branch, snapshot);
        let request = ReadRequest {
            branch: self.model.branch_id(branch),
            snapshot,
            incarnation: None,
            pages: pages.iter().map(|&n| page(n)).collect(),
        };
        let got = self.store.read(&request, self.deadline())?;
        assert_eq!(got.len(), pages.len());
        for (&n, read) in pages.iter().zip(&got) {
            let (version, byte) = state.pages.get(&n).copied().unwrap_or((Version::ZERO, 0));
            assert_eq!((read.version, read.bytes[0]), (version, byte), "page {n} at {snapshot}");
            assert_eq!(read.bytes.len(), state.allocation.page_size.len());
            assert_eq!(read.hash, ContentHash::of(&read.bytes));
            let map = &mut self.maps[branch];
            if map.known.is_some_and(|(_, known)| known == snapshot) && version > Version::ZERO {
                map.hashes.insert(n, read.hash);
            }
        }
        Ok(())
    }

    fn work(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let which = self.dice.index(self.open.len());
        let part = self.dice.index(self.open[which].wishes.len());
        let n = 1 + self.dice.below(MAX_PAGES);
        let byte = u8::try_from(self.dice.below(256)).unwrap();
        let action = self.dice.below(104);
        let wish = &mut self.open[which].wishes[part];
        let size = wish.after.pages.0;
        match action {
            0..40 => {
                wish.reads.insert(page(n));
                let (branch, snapshot) = (wish.branch, wish.snapshot);
                self.check_reads(branch, snapshot, &[n]).unwrap();
            }
            40..75 if n <= size => {
                // A client that does not keep rule 3 is validated as if it did.
                if action < 70 {
                    wish.reads.insert(page(n));
                }
                wish.writes.insert(n, byte);
            }
            40..85 => {
                // Grows, perhaps over pages that are not written.
                wish.after.pages = PageCount(size.max(n));
                if action < 80 {
                    wish.writes.insert(n, byte);
                    wish.reads.insert(page(n));
                }
            }
            85..91 => {
                wish.after.pages = PageCount(n.min(size));
                wish.writes.retain(|&page, _| page <= n);
            }
            91..96 => wish.after.freelist_pages = n,
            100.. => {
                // More than a commit's own transaction takes.
                for n in 1..=size {
                    wish.writes.insert(n, byte);
                    wish.reads.insert(page(n));
                }
            }
            _ => {
                let bytes = if wish.after.page_size == PageSize::MIN { 1024 } else { 512 };
                wish.after.page_size = PageSize::new(bytes).unwrap();
            }
        }
    }

    fn commit(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let which = self.dice.index(self.open.len());
        let Open { incarnation, wishes } = self.open.swap_remove(which);
        if !wishes.iter().any(Wish::changes) {
            return;
        }
        let durability =
            if self.dice.percent(30) { Durability::Synced } else { Durability::Buffered };
        let parts = wishes.iter().map(|w| w.part(&self.model.branches[w.branch].open)).collect();
        let mut request = CommitRequest {
            id: commit_id(),
            incarnation,
            parts,
            durability,
            client: "model".into(),
        };
        if self.dice.percent(15) {
            self.stage_some(&mut request);
        }
        let conflict = wishes.iter().any(|wish| self.model.conflicts(wish));
        let result = self.store.commit(&request, self.deadline());
        if incarnation != self.info().incarnation {
            assert_eq!(result.unwrap_err(), Error::IncarnationChanged);
            return;
        }
        if let Some(version) = self.outcome(&request, result, conflict, &wishes) {
            for wish in wishes.iter().filter(|wish| wish.changes()) {
                let synced = durability == Durability::Synced;
                self.model.record(wish.branch, wish.commit(request.id, version, synced));
            }
            self.done.push((request, version));
            self.commits += 1;
        }
    }

    fn info(&self) -> crate::api::StoreInfo {
        self.store.info(self.deadline()).unwrap()
    }

    /// The version of a commit that took effect; checks that the answer is a right one.
    fn outcome(
        &mut self,
        request: &CommitRequest,
        result: Result<CommitReply>,
        conflict: bool,
        wishes: &[Wish],
    ) -> Option<Version> {
        match result {
            Ok(reply) => {
                assert!(!conflict, "{request:?} should conflict");
                for (wish, previous) in wishes.iter().zip(&reply.previous) {
                    let head = self.model.state(wish.branch, Version::MAX).head;
                    assert!(previous.is_none_or(|previous| previous == head));
                    assert!(wish.changes() || previous.is_none());
                }
                Some(reply.version)
            }
            Err(Error::Conflict { .. }) => {
                assert!(conflict, "{request:?} should not conflict");
                self.conflicts += 1;
                assert_eq!(self.found(request), None);
                None
            }
            Err(Error::OutcomeUnknown { id, .. }) => {
                assert_eq!(id, request.id);
                let found = self.found(request);
                assert!(found.is_none() || !conflict);
                found
            }
            Err(Error::Unavailable { .. } | Error::Timeout { .. }) => {
                assert_eq!(self.found(request), None, "a certain failure");
                None
            }
            Err(error) => panic!("{error}: {request:?}"),
        }
    }

    fn found(&self, request: &CommitRequest) -> Option<Version> {
        self.faults(false);
        let found = self.store.find_commit(request.id, self.deadline()).unwrap();
        self.faults(true);
        found
    }

    /// Moves some pages of a request into staging, after others that they replace.
    fn stage_some(&mut self, request: &mut CommitRequest) {
        let deadline = self.deadline();
        for part in request.parts.iter_mut().filter(|part| !part.writes.is_empty()) {
            let kept = self.dice.index(part.writes.len());
            let stage = |pages: Vec<_>| StageRequest {
                id: request.id,
                branch: part.branch,
                domain: part.domain,
                pages,
            };
            let stale = part.writes.iter().map(|(n, bytes)| (*n, filled_to(bytes.len(), 0xee)));
            self.store.stage(&stage(stale.collect()), deadline).unwrap();
            let moved = part.writes.split_off(kept);
            self.store.stage(&stage(moved), deadline).unwrap();
            part.staged = true;
        }
    }

    fn read_old(&mut self) {
        let branch = self.dice.index(self.model.branches.len());
        let Some(version) = self.some_version(branch) else { return };
        let pages: Vec<u32> = (0..6).map(|_| 1 + self.dice.below(MAX_PAGES + 4)).collect();
        self.check_reads(branch, version, &pages).unwrap();
    }

    fn duplicate(&mut self) {
        if self.done.is_empty() {
            return;
        }
        let (request, version) = self.done[self.dice.index(self.done.len())].clone();
        let reply = self.store.commit(&request, self.deadline()).unwrap();
        assert_eq!(reply.version, version);
    }

    /// Merges some pages of a large commit, or all of them, or tends the whole store.
    fn merge_some(&mut self) {
        let deadline = self.deadline();
        match self.dice.below(4) {
            0 => {
                // What it discards was given up: reads and commits are the model's after it.
                self.store.tend(deadline).unwrap();
            }
            1 => self.store.unhurried.store(false, Ordering::Relaxed),
            _ => {
                self.store.unhurried.store(true, Ordering::Relaxed);
                if self.done.is_empty() {
                    return;
                }
                let (request, version) = &self.done[self.dice.index(self.done.len())];
                for _ in 0..=self.dice.below(4) {
                    let step = || {
                        let mut merging = Merging::of(request.id, *version);
                        self.store.settle_step(&mut merging, deadline)
                    };
                    self.unmerged += u32::from(self.store.retrying(deadline, step).unwrap());
                }
            }
        }
    }

    fn branch(&mut self) {
        if self.model.branches.len() >= 6 {
            return;
        }
        let parent = self.dice.index(self.model.branches.len());
        let Some(version) = self.some_version(parent) else { return };
        let open = self.model.branches[parent].open.clone();
        let branch = self.store.create_branch(open.branch, version, self.deadline()).unwrap();
        let open = crate::api::OpenReply { branch, ..open };
        self.add_branch(ModelBranch { open, parent: Some((parent, version)), commits: Vec::new() });
    }

    /// A clean restart on disk; a crash of the simulated engine.
    fn restart(&mut self) {
        match &self.home {
            Home::Dir(dir) => {
                self.store.close().unwrap();
                let path = dir.path().to_owned();
                let before = self.info().incarnation;
                // The last handle goes before the directory is opened again.
                self.store = super::common::mem_store();
                self.store = Store::open_dir(&path, options(&self.env)).unwrap();
                assert_eq!(self.info().incarnation, before, "a clean end");
            }
            Home::Sim(engine) if engine.exclusive() => {
                let before = self.info().incarnation;
                let next = Arc::new(engine.crash(self.dice.percent(50)));
                next.set_faults(false);
                let kv: Arc<dyn Kv> = Arc::clone(&next) as _;
                self.store = Store::open(kv, options(&self.env)).unwrap();
                self.home = Home::Sim(next);
                assert_ne!(self.info().incarnation, before, "an unclean end");
                self.forget_lost();
                self.faults(true);
            }
            _ => {}
        }
    }

    /// Takes from the model what a crash lost: a suffix, and nothing synced.
    fn forget_lost(&mut self) {
        let (store, deadline) = (Arc::clone(&self.store), self.deadline());
        let mut lost: Option<Version> = None;
        let mut all: Vec<_> = self
            .model
            .branches
            .iter()
            .flat_map(|b| b.commits.iter().map(|c| (c.version, c.id, c.synced)))
            .collect();
        all.sort_unstable();
        for (version, id, synced) in all {
            let found = store.find_commit(id, deadline).unwrap();
            match lost {
                Some(first) if version > first => assert_eq!(found, None, "not a suffix"),
                _ if found.is_none() => {
                    assert!(!synced, "a synced commit was lost");
                    lost = Some(version);
                }
                _ => assert_eq!(found, Some(version)),
            }
            // Parts of one commit share a version; a synced one is never behind a loss.
            assert!(lost.is_none() || !synced);
        }
        if let Some(first) = lost {
            for branch in &mut self.model.branches {
                branch.commits.retain(|commit| commit.version < first);
            }
            self.done.retain(|&(_, version)| version < first);
        }
    }

    /// At the end: everything at every version, and the log.
    fn check_all(&mut self) {
        self.faults(false);
        for branch in 0..self.model.branches.len() {
            let pages: Vec<u32> = (1..=MAX_PAGES + 1).collect();
            let commits: Vec<_> = self
                .model
                .lineage(branch, Version::ZERO, Version::MAX)
                .into_iter()
                .cloned()
                .collect();
            for commit in &commits {
                self.check_reads(branch, commit.version, &pages).unwrap();
            }
            let log = |newest_first| {
                let request = LogRequest {
                    branch: self.model.branch_id(branch),
                    after: Version::ZERO,
                    up_to: Version::MAX,
                    limit: usize::MAX,
                    newest_first,
                };
                self.store.log(&request, self.deadline()).unwrap()
            };
            let (up, mut down) = (log(false), log(true));
            down.reverse();
            assert_eq!(up, down);
            assert_eq!(up.len(), commits.len());
            for (entry, commit) in up.iter().zip(&commits) {
                assert_eq!((entry.version, entry.id), (commit.version, commit.id));
                assert_eq!(entry.allocation, commit.allocation);
                assert!(entry.pages.iter().map(|p| p.get()).eq(commit.pages.keys().copied()));
            }
        }
    }
}

fn wish(branch: usize, reply: &BeginReply) -> Wish {
    Wish {
        branch,
        snapshot: reply.snapshot,
        before: reply.allocation,
        after: reply.allocation,
        reads: crate::types::PageSet::new(),
        writes: BTreeMap::new(),
    }
}

fn hash_of(state: &State, byte: u8) -> ContentHash {
    ContentHash::of(&image(state.allocation.page_size.len(), byte))
}

fn run(seed: u64, home: Home, env: Env, kv: Option<Arc<dyn Kv>>) -> (u32, u32, u32) {
    let mut run = Run::new(seed, home, env, kv);
    run.faults(true);
    for _ in 0..STEPS {
        run.step();
    }
    run.check_all();
    let deadline = run.deadline();
    let tended = run.store.tend(deadline).unwrap();
    run.check_all();
    let counts = run.store.count_records(deadline).unwrap().subspaces;
    let of = |name: &str| counts[name].0;
    assert_eq!((of("unmerged"), of("staging")), (0, tended.open), "{tended:?}");
    assert!(tended.open > 0 || of("staged_pages") == 0);
    (run.conflicts, run.commits, run.unmerged)
}

/// Runs some seeds; runs in which nothing happened would prove nothing.
fn eventful(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> (u32, u32, u32)) {
    let (mut conflicts, mut commits, mut unmerged) = (0, 0, 0);
    let count = u32::try_from(seeds.end).unwrap();
    let enough = for_seeds(seeds, |seed| {
        let totals = run(seed);
        conflicts += totals.0;
        commits += totals.1;
        unmerged += totals.2;
    });
    let eventful = conflicts > count && commits > 30 * count && unmerged > count;
    assert!(!enough || eventful, "{conflicts}, {commits}, {unmerged}");
}

#[test]
fn on_the_engine_in_memory() {
    eventful(0..20, |seed| {
        let env = Env::system();
        let kv = Arc::new(MemEngine::new(env.clone()));
        run(seed, Home::Mem, env, Some(kv))
    });
}

#[test]
fn on_disk_with_restarts() {
    eventful(0..4, |seed| {
        let dir = tempfile::tempdir().unwrap();
        run(seed, Home::Dir(dir), Env::system(), None)
    });
}

fn simulated(seed: u64, engine: SimEngine) -> (u32, u32, u32) {
    let engine = Arc::new(engine);
    engine.set_faults(false);
    let env = engine.env();
    let kv: Arc<dyn Kv> = Arc::clone(&engine) as _;
    run(seed, Home::Sim(engine), env, Some(kv))
}

#[test]
fn on_the_simulated_engine_with_every_fault_and_crashes() {
    eventful(0..20, |seed| simulated(seed, SimEngine::new(seed, FaultPlan::every(0.05))));
}

#[test]
fn on_the_simulated_shared_engine_with_every_fault() {
    eventful(0..20, |seed| simulated(seed, SimEngine::shared(seed, FaultPlan::every(0.02))));
}
