//! The stores that this process has open, and what is shared by all their users.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use interleaf_store::api::{
    Backend, BeginReply, BeginRequest, CommitReply, CommitRequest, OpenReply, OpenRequest,
    PageRead, ReadRequest, StageRequest,
};
use interleaf_store::env::{Deadline, Env};
use interleaf_store::types::{BranchId, CommitId, StoreId, Version};
use interleaf_store::url::StoreUrl;
use interleaf_store::when::When;
use interleaf_store::{Error, Result};

use super::cache::ContentCache;
use super::page_map::PageMap;
use super::stats::Stats;
use crate::config::Config;

/// Most page maps that are kept while none of their databases is open.
const MAX_IDLE_MAPS: usize = 64;

/// A store as this process uses it.
pub struct Store {
    backend: Arc<dyn Backend>,
    id: StoreId,
    env: Env,
    timeout: Duration,
    cache: ContentCache,
    maps: Mutex<HashMap<BranchId, Arc<PageMap>>>,
}

/// Calls of the backend, each with its deadline and counted in the connection's statistics.
impl Store {
    /// A store behind `backend`.
    ///
    /// # Errors
    /// Where the store cannot say who it is.
    pub fn new(
        backend: Arc<dyn Backend>,
        env: Env,
        timeout: Duration,
        cache: ContentCache,
    ) -> Result<Self> {
        let info = backend.info(env.deadline(timeout))?;
        Ok(Self { backend, id: info.store, env, timeout, cache, maps: Mutex::default() })
    }

    /// Equal for two URLs that reach one store.
    pub const fn id(&self) -> StoreId {
        self.id
    }

    /// The page cache of the process.
    pub const fn cache(&self) -> &ContentCache {
        &self.cache
    }

    /// The page map of a branch, shared by all its users in this process.
    pub fn map(&self, branch: BranchId) -> Arc<PageMap> {
        let mut maps = lock(&self.maps);
        if maps.len() >= MAX_IDLE_MAPS && !maps.contains_key(&branch) {
            // Maps of databases that nobody has open, of which a program may have had any
            // number.
            maps.retain(|_, map| Arc::strong_count(map) > 1);
        }
        Arc::clone(maps.entry(branch).or_default())
    }

    /// Opens a database.
    ///
    /// # Errors
    /// As [`Backend::open`]; likewise below.
    pub fn open(&self, request: &OpenRequest, stats: &mut Stats) -> Result<OpenReply> {
        self.call(stats, |backend, deadline| backend.open(request, deadline))
    }

    /// What a WHEN means.
    pub fn resolve(&self, branch: BranchId, when: &When, stats: &mut Stats) -> Result<Version> {
        self.call(stats, |backend, deadline| backend.resolve(branch, when, deadline))
    }

    /// Begins a transaction.
    pub fn begin(&self, request: &BeginRequest, stats: &mut Stats) -> Result<BeginReply> {
        self.call(stats, |backend, deadline| backend.begin(request, deadline))
    }

    /// Reads pages.
    pub fn read(&self, request: &ReadRequest, stats: &mut Stats) -> Result<Vec<PageRead>> {
        let pages = self.call(stats, |backend, deadline| backend.read(request, deadline))?;
        if pages.len() != request.pages.len() {
            let (asked, got) = (request.pages.len(), pages.len());
            return Err(Error::Corrupt { what: format!("{asked} pages asked for, {got} given") });
        }
        stats.pages_read += pages.len() as u64;
        Ok(pages)
    }

    /// Sends parts of a commit ahead.
    pub fn stage(&self, request: &StageRequest, stats: &mut Stats) -> Result<()> {
        self.call(stats, |backend, deadline| backend.stage(request, deadline))
    }

    /// Drops what was sent ahead.
    pub fn unstage(&self, id: CommitId, stats: &mut Stats) -> Result<()> {
        self.call(stats, |backend, deadline| backend.unstage(id, deadline))
    }

    /// Commits.
    pub fn commit(&self, request: &CommitRequest, stats: &mut Stats) -> Result<CommitReply> {
        self.call(stats, |backend, deadline| backend.commit(request, deadline))
    }

    /// A fresh commit id.
    pub fn commit_id(&self) -> Result<CommitId> {
        self.env.random().map(CommitId::from_bytes)
    }

    fn call<T>(
        &self,
        stats: &mut Stats,
        call: impl FnOnce(&dyn Backend, Deadline) -> Result<T>,
    ) -> Result<T> {
        let before = self.backend.round_trips();
        let result = call(&*self.backend, self.env.deadline(self.timeout));
        // The backend counts for all its users: whether it moved is all that can be said
        // of this call.
        stats.round_trips += u64::from(self.backend.round_trips() != before);
        result
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only maps stand behind these locks, whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One URL's store: held while it is connected to, so that two opens at once connect once.
type Slot = Arc<Mutex<Option<Kept>>>;

/// How a store is kept between the last close and the next open.
enum Kept {
    /// Memory goes with its store, a socket is cheap to keep.
    Always(Arc<Store>),
    /// A directory is let go, so that another process can have it.
    WhileUsed(Weak<Store>),
}

impl Kept {
    fn get(&self) -> Option<Arc<Store>> {
        match self {
            Self::Always(store) => Some(Arc::clone(store)),
            Self::WhileUsed(store) => store.upgrade(),
        }
    }
}

/// How to get from a URL to a backend.
pub type Connect = fn(&StoreUrl, &Config) -> Result<Arc<dyn Backend>>;

/// All stores of the process. A child after fork starts with none: it connects anew.
#[derive(Default)]
struct Stores {
    process: u32,
    slots: HashMap<StoreUrl, Slot>,
    cache: Option<ContentCache>,
}

static STORES: OnceLock<Mutex<Stores>> = OnceLock::new();

/// The store at `url`, opened if it is not open yet.
///
/// # Errors
/// Those of connecting. After fork, `fdb:` where the parent used it (rule 12).
pub fn store_at(url: &StoreUrl, config: &Config, connect: Connect) -> Result<Arc<Store>> {
    let url = canonical(url);
    let (slot, cache) = slot_of(&url, config)?;
    let mut kept = lock(&slot);
    if let Some(store) = kept.as_ref().and_then(Kept::get) {
        return Ok(store);
    }
    let backend = connect(&url, config)?;
    let mut store = Arc::new(Store::new(backend, Env::system(), config.timeout, cache)?);
    if let Some(same) = same_store(&url, store.id()) {
        store = same;
    }
    *kept = Some(match url {
        StoreUrl::Directory(_) => Kept::WhileUsed(Arc::downgrade(&store)),
        _ => Kept::Always(Arc::clone(&store)),
    });
    Ok(store)
}

fn slot_of(url: &StoreUrl, config: &Config) -> Result<(Slot, ContentCache)> {
    let mut stores = lock(STORES.get_or_init(Mutex::default));
    let process = std::process::id();
    if stores.process != process {
        let forked = stores.process != 0;
        if forked && matches!(url, StoreUrl::FoundationDb { .. }) && stores.slots.contains_key(url)
        {
            return Err(Error::Unsupported {
                what: format!("{url} in a child process whose parent had used it before fork"),
            });
        }
        // The parent's connections are not the child's to use nor to close.
        std::mem::forget(std::mem::take(&mut stores.slots));
        stores.process = process;
    }
    let cache = stores.cache.get_or_insert_with(|| ContentCache::new(config.cache_bytes)).clone();
    Ok((Arc::clone(stores.slots.entry(url.clone()).or_default()), cache))
}

/// The store of that id under another URL: two URLs of one store share everything.
fn same_store(url: &StoreUrl, id: StoreId) -> Option<Arc<Store>> {
    let stores = lock(STORES.get_or_init(Mutex::default));
    let others = stores.slots.iter().filter(|(other, _)| *other != url);
    // A slot that is being connected to is passed over: waiting for it could wait for us.
    let open = others.filter_map(|(_, slot)| slot.try_lock().ok()?.as_ref()?.get());
    open.into_iter().find(|store| store.id() == id)
}

/// The same directory under another path is the same store, and could not be opened twice.
fn canonical(url: &StoreUrl) -> StoreUrl {
    let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    match url {
        StoreUrl::Directory(path) => StoreUrl::Directory(real(path)),
        StoreUrl::Unix(path) => StoreUrl::Unix(real(path)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use interleaf_store::kv::mem::MemEngine;

    use super::*;

    #[test]
    fn page_maps_of_closed_databases_are_bounded() {
        let env = Env::system();
        let engine = Arc::new(MemEngine::new(env.clone()));
        let backend = interleaf_store::Store::open(engine, Default::default()).unwrap();
        let cache = ContentCache::new(1 << 20);
        let store = Store::new(backend, env, Duration::from_secs(10), cache).unwrap();
        let branch = |n: usize| BranchId::from_bytes((n as u64).to_be_bytes());
        let kept = store.map(branch(0));
        for n in 1..1000 {
            store.map(branch(n));
        }
        assert!(lock(&store.maps).len() <= MAX_IDLE_MAPS);
        assert!(Arc::ptr_eq(&kept, &store.map(branch(0))), "its database is open");
    }
}
