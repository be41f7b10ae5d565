//! Stores opened in this process: one per directory, and one in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};

use interleaf_store::api::{
    Backend, BeginReply, BeginRequest, CommitReply, CommitRequest, CreateState, DatabaseInfo,
    LogEntry, LogRequest, OpenReply, OpenRequest, PageRead, ReadRequest, RecordCounts,
    StageRequest, StoreInfo, StoreStatus,
};
use interleaf_store::env::Deadline;
use interleaf_store::kv::mem::MemEngine;
use interleaf_store::types::{BranchId, CommitId, DatabaseId, DatabaseName, Version};
use interleaf_store::url::StoreUrl;
use interleaf_store::when::When;
use interleaf_store::{Error, Result, Store, StoreOptions};

use super::{ConnectOptions, POLL};

/// Opens a store in this process, whatever else runs on it. The one place that knows which
/// engine a URL means.
///
/// # Errors
/// `Locked` for a directory held by another process, `InvalidRequest` for the URL of a
/// server, `Unsupported` for an engine that is not in this build.
pub fn open_store(url: &StoreUrl, options: StoreOptions) -> Result<Arc<Store>> {
    match url {
        StoreUrl::Memory => Store::open(Arc::new(MemEngine::new(options.env.clone())), options),
        StoreUrl::Directory(dir) => Store::open_dir(dir, options),
        StoreUrl::Default => Store::open_dir(&super::default_directory()?, options),
        #[cfg(feature = "fdb")]
        StoreUrl::FoundationDb { cluster_file, prefix } => {
            Store::open_fdb(cluster_file, prefix, options)
        }
        #[cfg(not(feature = "fdb"))]
        StoreUrl::FoundationDb { .. } => {
            Err(Error::Unsupported { what: format!("{url}: FoundationDB, in this build,") })
        }
        StoreUrl::Unix(_) | StoreUrl::Tcp(_) | StoreUrl::Tls(_) => Err(Error::InvalidRequest {
            what: format!("{url} is a server's address; a store is dir:, fdb: or mem:"),
        }),
    }
}

/// What the process has open, by URL.
static OPEN: Mutex<Option<HashMap<StoreUrl, Opened>>> = Mutex::new(None);

#[derive(Debug)]
enum Opened {
    /// Closed with its last user.
    Shared(Weak<Direct>),
    /// Lives as long as the process: what is in memory would be lost with it.
    Kept(Arc<Direct>),
}

/// The store at `url`, opened by this call or an earlier one.
pub(super) fn shared(
    url: &StoreUrl,
    options: &ConnectOptions,
    deadline: Deadline,
) -> Result<Arc<dyn Backend>> {
    let key = match url {
        StoreUrl::Directory(dir) => StoreUrl::Directory(real_path(dir)?),
        other => other.clone(),
    };
    // Held while the store is opened: two threads must not open one directory.
    let mut open = loop {
        match OPEN.try_lock() {
            Ok(open) => break open,
            Err(TryLockError::Poisoned(open)) => break PoisonError::into_inner(open),
            Err(TryLockError::WouldBlock) => {
                options.env.remaining(deadline)?;
                options.env.clock.sleep(POLL / 10);
            }
        }
    };
    let open = open.get_or_insert_default();
    let known = match open.get(&key) {
        Some(Opened::Shared(weak)) => weak.upgrade(),
        Some(Opened::Kept(store)) => Some(Arc::clone(store)),
        None => None,
    };
    if let Some(store) = known
        && store.is_mine()
    {
        return Ok(store);
    }
    let store = Arc::new(Direct {
        owner: std::process::id(),
        store: Some(open_store(url, options.store())?),
    });
    let entry = match url {
        StoreUrl::Memory => Opened::Kept(Arc::clone(&store)),
        _ => Opened::Shared(Arc::downgrade(&store)),
    };
    open.insert(key, entry);
    Ok(store)
}

/// The path by which one directory is known, however it is written. Created where it is
/// absent, for only then it has one.
fn real_path(dir: &Path) -> Result<std::path::PathBuf> {
    super::create_private(dir)?;
    std::fs::canonicalize(dir).map_err(|e| Error::Io { what: format!("{}: {e}", dir.display()) })
}

/// A store of this process and of no other.
///
/// The engine has threads and locks, which a forked child does not get: there every call is
/// an error, and nothing of the store is touched.
struct Direct {
    owner: u32,
    /// `None` only while it is dropped.
    store: Option<Arc<Store>>,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Direct {
    fn is_mine(&self) -> bool {
        self.owner == std::process::id()
    }

    fn store(&self) -> Result<&Store> {
        match &self.store {
            Some(store) if self.is_mine() => Ok(store),
            _ => Err(Error::Unavailable {
                what: format!(
                    "process {} opened it before this process was forked; to share a store \
                     between processes run: interleaf serve",
                    self.owner
                ),
            }),
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let Some(store) = self.store.take() else { return };
        if !self.is_mine() {
            // Its threads and its directory's lock are the parent's.
            std::mem::forget(store);
            return;
        }
        if let Err(error) = store.close() {
            tracing::warn!(%error, "the store could not be closed cleanly");
        }
    }
}

macro_rules! forward {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $reply:ty;)*) => {
        $(fn $name(&self, $($arg: $type,)* deadline: Deadline) -> Result<$reply> {
            self.store()?.$name($($arg,)* deadline)
        })*
    };
}

impl Backend for Direct {
    forward! {
        fn info() -> StoreInfo;
        fn open(request: &OpenRequest) -> OpenReply;
        fn resolve(branch: BranchId, when: &When) -> Version;
        fn begin(request: &BeginRequest) -> BeginReply;
        fn read(request: &ReadRequest) -> Vec<PageRead>;
        fn stage(request: &StageRequest) -> ();
        fn unstage(id: CommitId) -> ();
        fn commit(request: &CommitRequest) -> CommitReply;
        fn find_commit(id: CommitId) -> Option<Version>;
        fn create(name: &DatabaseName, state: CreateState) -> OpenReply;
        fn finish_import(database: DatabaseId) -> ();
        fn list() -> Vec<DatabaseInfo>;
        fn describe(name: &DatabaseName) -> DatabaseInfo;
        fn rename(from: &DatabaseName, to: &DatabaseName) -> ();
        fn drop_database(name: &DatabaseName) -> ();
        fn log(request: &LogRequest) -> Vec<LogEntry>;
        fn time_of(version: Version) -> Option<i64>;
        fn status() -> StoreStatus;
        fn count_records() -> RecordCounts;
    }

    fn round_trips(&self) -> u64 {
        // A counter, asked around every call: in a child it is of no use and does no harm.
        self.store.as_ref().map_or(0, |store| store.round_trips())
    }
}
