//! A connection in miniature: what the VFS does with a store, without SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::api::{
    Allocation, AllocationChange, Backend, BeginReply, BeginRequest, CommitPart, CommitReply,
    CommitRequest, OpenReply, OpenRequest, PageRead, ReadRequest,
};
use crate::env::{Deadline, Env};
use crate::error::Result;
use crate::kv::{Durability, mem::MemEngine};
use crate::store::{Store, StoreOptions};
use crate::types::{
    BranchId, CommitId, DatabaseName, PageCount, PageNumber, PageSet, PageSize, Version,
};

pub fn page(n: u32) -> PageNumber {
    PageNumber::new(n).unwrap()
}

pub fn name(text: &str) -> DatabaseName {
    DatabaseName::new(text).unwrap()
}

/// A deadline that is far enough also for simulated clocks, which tests move by days.
pub fn soon() -> Deadline {
    Env::system().deadline(Duration::from_secs(30 * 86_400))
}

pub fn mem_store() -> Arc<Store> {
    Store::open(Arc::new(MemEngine::new(Env::system())), StoreOptions::default()).unwrap()
}

/// A page of 512 bytes, most of them `byte`; good as page 1 too.
pub fn filled(byte: u8) -> Bytes {
    filled_to(512, byte)
}

pub fn filled_to(size: usize, byte: u8) -> Bytes {
    let mut bytes = vec![byte; size];
    bytes[24..40].fill(0);
    bytes[92..100].fill(0);
    bytes.into()
}

/// A page that begins with `byte`. Those of bytes with the same upper half differ in a few
/// places, so that one is kept as its difference from another.
pub fn image(size: usize, byte: u8) -> Bytes {
    let mut bytes = filled_to(size, byte >> 4).to_vec();
    if byte == 0 {
        // A page over which the database grew.
        return bytes.into();
    }
    bytes[0] = byte;
    bytes[100 + usize::from(byte)] = 0xff;
    bytes[size - 1 - usize::from(byte % 16)] = byte;
    bytes.into()
}

pub fn commit_id() -> CommitId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    CommitId::from_bytes(bytes)
}

/// An open database.
pub struct Db {
    pub store: Arc<Store>,
    pub open: OpenReply,
}

impl Db {
    pub fn open(store: &Arc<Store>, text: &str) -> Self {
        let request = OpenRequest { name: name(text), create: true, at: None };
        Self { store: Arc::clone(store), open: store.open(&request, soon()).unwrap() }
    }

    /// The same database seen through another branch.
    pub fn on_branch(&self, branch: BranchId) -> Self {
        let open = OpenReply { branch, ..self.open.clone() };
        Self { store: Arc::clone(&self.store), open }
    }

    pub fn try_begin(&self, at: Option<Version>) -> Result<BeginReply> {
        let request = BeginRequest { branch: self.open.branch, at, known: None };
        self.store.begin(&request, soon())
    }

    pub fn begin(&self) -> Tx<'_> {
        self.begin_at(None)
    }

    pub fn begin_at(&self, at: Option<Version>) -> Tx<'_> {
        Tx::new(self, self.try_begin(at).unwrap())
    }

    pub fn read_at(&self, snapshot: Version, pages: &[u32]) -> Result<Vec<PageRead>> {
        let pages = pages.iter().map(|&n| page(n)).collect();
        self.store.read(
            &ReadRequest { branch: self.open.branch, snapshot, incarnation: None, pages },
            soon(),
        )
    }

    /// The first byte of each page at the head.
    pub fn bytes(&self, pages: &[u32]) -> Vec<u8> {
        let snapshot = self.try_begin(None).unwrap().snapshot;
        first_bytes(&self.read_at(snapshot, pages).unwrap())
    }

    /// Writes these pages and nothing else, growing as needed.
    pub fn put(&self, pages: &[(u32, u8)]) -> Version {
        let mut tx = self.begin();
        for &(n, byte) in pages {
            tx.write(n, filled(byte));
        }
        tx.commit().unwrap().version
    }
}

pub fn first_bytes(pages: &[PageRead]) -> Vec<u8> {
    pages.iter().map(|page| page.bytes[0]).collect()
}

/// A transaction on one database.
#[derive(Clone)]
pub struct Tx<'a> {
    pub db: &'a Db,
    pub begun: BeginReply,
    pub reads: PageSet,
    pub writes: std::collections::BTreeMap<PageNumber, Bytes>,
    pub after: Allocation,
    pub durability: Durability,
    pub id: CommitId,
}

impl<'a> Tx<'a> {
    fn new(db: &'a Db, begun: BeginReply) -> Self {
        let mut after = begun.allocation;
        if after == Allocation::EMPTY {
            after.page_size = PageSize::MIN;
        }
        Self {
            db,
            begun,
            reads: PageSet::new(),
            writes: std::collections::BTreeMap::new(),
            after,
            durability: Durability::Buffered,
            id: commit_id(),
        }
    }

    pub fn read(&mut self, n: u32) -> u8 {
        self.reads.insert(page(n));
        if let Some(bytes) = self.writes.get(&page(n)) {
            return bytes[0];
        }
        first_bytes(&self.db.read_at(self.begun.snapshot, &[n]).unwrap())[0]
    }

    pub fn write(&mut self, n: u32, bytes: Bytes) {
        self.reads.insert(page(n));
        self.writes.insert(page(n), bytes);
        self.after.pages.0 = self.after.pages.0.max(n);
    }

    pub fn shrink(&mut self, pages: u32) {
        self.after.pages = PageCount(pages);
        self.writes.retain(|page, _| page.get() <= pages);
    }

    pub fn part(&self) -> CommitPart {
        let (before, after) = (self.begun.allocation, self.after);
        let changed = before != after && (after.pages.0 > 0 || before.pages.0 > 0);
        CommitPart {
            database: self.db.open.database,
            branch: self.db.open.branch,
            domain: self.db.open.domain,
            snapshot: self.begun.snapshot,
            reads: self.reads.clone(),
            writes: self.writes.iter().map(|(&page, bytes)| (page, bytes.clone())).collect(),
            hashes: Vec::new(),
            staged: false,
            allocation: changed.then_some(AllocationChange {
                snapshot: self.begun.snapshot,
                before,
                after,
            }),
        }
    }

    pub fn request(&self) -> CommitRequest {
        CommitRequest {
            id: self.id,
            incarnation: self.begun.incarnation,
            parts: vec![self.part()],
            durability: self.durability,
            client: "test".into(),
        }
    }

    pub fn commit(&self) -> Result<CommitReply> {
        self.db.store.commit(&self.request(), soon())
    }
}

/// Seeded choices.
pub struct Dice(rand::rngs::StdRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        use rand::SeedableRng;
        Self(rand::rngs::StdRng::seed_from_u64(seed))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        use rand::Rng;
        self.0.next_u32() % bound
    }

    /// Whether something that happens `percent` times in a hundred happens now.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, by its place.
    pub fn index(&mut self, items: usize) -> usize {
        self.below(u32::try_from(items).unwrap()) as usize
    }
}

/// Runs a property for some seeds, `INTERLEAF_SEEDS_TIMES` as many, or for the one in
/// `INTERLEAF_SEED`; prints the seed of a run that failed. Says whether there were enough
/// of them to expect everything to have happened.
pub fn for_seeds(seeds: std::ops::Range<u64>, mut property: impl FnMut(u64)) -> bool {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with seed {}: run again with INTERLEAF_SEED={}", self.0, self.0);
            }
        }
    }
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let one = number("INTERLEAF_SEED");
    let factor = number("INTERLEAF_SEEDS_TIMES").unwrap_or(1);
    let all = seeds.start..seeds.end * factor;
    for seed in one.map_or(all, |seed| seed..seed + 1) {
        let _named = Named(seed);
        property(seed);
    }
    one.is_none()
}
