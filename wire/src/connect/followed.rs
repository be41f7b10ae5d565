//! The store of a directory whose server may go away for good.
//!
//! A program that was connected through a server goes on without it: its next call finds
//! the next server, or opens the directory in this process, as a new connection would. It
//! is the same store (its id is checked); what a server that died had not made certain, the
//! incarnation tells, as after any restart of a server.
//!
//! No lock is held while the way is looked for: a child forked meanwhile could never get it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};

use interleaf_store::api::{
    Backend, BeginReply, BeginRequest, CommitReply, CommitRequest, CreateState, DatabaseInfo,
    LogEntry, LogRequest, OpenReply, OpenRequest, PageRead, ReadRequest, RecordCounts,
    StageRequest, StoreInfo, StoreStatus,
};
use interleaf_store::env::Deadline;
use interleaf_store::types::{BranchId, CommitId, DatabaseId, DatabaseName, StoreId, Version};
use interleaf_store::when::When;
use interleaf_store::{Error, Result};

use super::directory::{self, Way};
use super::{ConnectOptions, POLL};
use crate::client::commit_error;

/// A directory's store, reached in whichever way there is.
pub(super) struct Followed {
    dir: PathBuf,
    options: ConnectOptions,
    store: StoreId,
    way: RwLock<Arc<Way>>,
    /// Round trips of the ways before this one.
    past_trips: AtomicU64,
}

impl Followed {
    /// The store in `dir`, reached through `way` so far.
    pub(super) fn new(
        dir: PathBuf,
        options: ConnectOptions,
        way: Way,
        deadline: Deadline,
    ) -> Result<Self> {
        let store = way.backend().info(deadline)?.store;
        let way = RwLock::new(Arc::new(way));
        Ok(Self { dir, options, store, way, past_trips: AtomicU64::new(0) })
    }

    fn way(&self, deadline: Deadline) -> Result<Arc<Way>> {
        loop {
            match self.way.try_read() {
                Ok(way) => return Ok(Arc::clone(&way)),
                Err(TryLockError::Poisoned(way)) => return Ok(Arc::clone(&way.into_inner())),
                // For the moment of a change; for ever in a child forked in it.
                Err(TryLockError::WouldBlock) => self.pause(deadline)?,
            }
        }
    }

    fn pause(&self, deadline: Deadline) -> Result<()> {
        self.options.env.remaining(deadline)?;
        self.options.env.clock.sleep(POLL / 10);
        Ok(())
    }

    /// Whether another way may be looked for after an error of this one.
    fn may_follow(&self, way: &Way, deadline: Deadline) -> bool {
        way.is_served() && self.options.env.remaining(deadline).is_ok()
    }

    /// Looks for the way again, `lost` being one no more.
    fn follow(&self, lost: &Arc<Way>, deadline: Deadline) -> Result<()> {
        let way = directory::reach(&self.dir, &self.options, deadline)?;
        let found = way.backend().info(deadline)?.store;
        if found != self.store {
            return Err(Error::Unavailable {
                what: format!("{} now holds store {found}, not {}", self.dir.display(), self.store),
            });
        }
        let mut current = loop {
            match self.way.try_write() {
                Ok(current) => break current,
                Err(TryLockError::Poisoned(current)) => break PoisonError::into_inner(current),
                Err(TryLockError::WouldBlock) => self.pause(deadline)?,
            }
        };
        // Another thread may have found it first.
        if Arc::ptr_eq(&current, lost) {
            self.past_trips.fetch_add(lost.backend().round_trips(), Ordering::Relaxed);
            *current = Arc::new(way);
        }
        Ok(())
    }

    /// A call that may be repeated.
    fn ask<T>(&self, deadline: Deadline, call: impl Fn(&dyn Backend) -> Result<T>) -> Result<T> {
        loop {
            let way = self.way(deadline)?;
            match call(way.backend()) {
                Err(error) if error.is_transient() && self.may_follow(&way, deadline) => {
                    tracing::debug!(%error, "looking for the store's next server");
                    self.follow(&way, deadline)?;
                }
                result => return result,
            }
        }
    }

    /// A call that may not be repeated: first a way is made sure of by one that may.
    fn once<T>(&self, deadline: Deadline, call: impl Fn(&dyn Backend) -> Result<T>) -> Result<T> {
        self.info(deadline)?;
        call(self.way(deadline)?.backend())
    }
}

impl std::fmt::Debug for Followed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Followed").field("dir", &self.dir).finish_non_exhaustive()
    }
}

macro_rules! forward {
    ($how:ident: $(fn $name:ident($($arg:ident: $type:ty),*) -> $reply:ty;)*) => {
        $(fn $name(&self, $($arg: $type,)* deadline: Deadline) -> Result<$reply> {
            self.$how(deadline, |backend| backend.$name($($arg,)* deadline))
        })*
    };
}

impl Backend for Followed {
    forward! {
        ask:
        fn info() -> StoreInfo;
        fn open(request: &OpenRequest) -> OpenReply;
        fn resolve(branch: BranchId, when: &When) -> Version;
        fn begin(request: &BeginRequest) -> BeginReply;
        fn read(request: &ReadRequest) -> Vec<PageRead>;
        fn stage(request: &StageRequest) -> ();
        fn unstage(id: CommitId) -> ();
        fn find_commit(id: CommitId) -> Option<Version>;
        fn finish_import(database: DatabaseId) -> ();
        fn list() -> Vec<DatabaseInfo>;
        fn describe(name: &DatabaseName) -> DatabaseInfo;
        fn log(request: &LogRequest) -> Vec<LogEntry>;
        fn time_of(version: Version) -> Option<i64>;
        fn status() -> StoreStatus;
        fn count_records() -> RecordCounts;
    }

    forward! {
        once:
        fn create(name: &DatabaseName, state: CreateState) -> OpenReply;
        fn rename(from: &DatabaseName, to: &DatabaseName) -> ();
        fn drop_database(name: &DatabaseName) -> ();
    }

    /// The commit's id makes it right to ask again elsewhere: the store looks for it. What
    /// was in doubt stays so until a store has answered.
    fn commit(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply> {
        let id = request.id;
        let mut doubt = false;
        loop {
            let way = self.way(deadline).map_err(|error| commit_error(error, id, doubt))?;
            let error = match way.backend().commit(request, deadline) {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let unknown = matches!(error, Error::OutcomeUnknown { .. });
            // Unknown only once: a server that is there may answer the same again.
            let other = error.is_transient() || (unknown && !doubt);
            let again = other && self.may_follow(&way, deadline);
            doubt |= unknown;
            if !again {
                return Err(commit_error(error, id, doubt));
            }
            self.follow(&way, deadline).map_err(|error| commit_error(error, id, doubt))?;
        }
    }

    fn round_trips(&self) -> u64 {
        let now = self.way.try_read().map_or(0, |way| way.backend().round_trips());
        self.past_trips.load(Ordering::Relaxed) + now
    }
}
