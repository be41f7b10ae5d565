//! What a connection asks of a store.
//!
//! [`Store`](crate::Store) implements [`Backend`] in this process; the wire client
//! implements it over a socket. Requests and replies are plain data: `docs/protocol.md`
//! gives each its frame.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::env::Deadline;
use crate::error::Result;
use crate::kv::Durability;
use crate::types::{
    BranchId, CommitId, ContentHash, DatabaseId, DatabaseName, DomainId, Incarnation, PageCount,
    PageNumber, PageSet, PageSize, StoreId, Version,
};
use crate::when::When;

/// Most pages that one read may ask for.
pub const MAX_READ_PAGES: usize = 1024;

/// Most pages whose hashes a log entry carries; a larger commit's pages are named only.
pub const MAX_LOG_HASHES: usize = 256;

/// Most changed pages that a begin reports; past it the client drops its page map.
pub const MAX_BEGIN_CHANGES: usize = 16_384;

/// Who the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// The store's id: equal for two URLs that reach one store.
    pub store: StoreId,
    /// Changes after an unclean recovery.
    pub incarnation: Incarnation,
    /// The engine's name.
    pub engine: String,
    /// Version of the program that answers.
    pub software: String,
}

/// How a database is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Its name.
    pub name: DatabaseName,
    /// Create it where it does not exist.
    pub create: bool,
    /// A snapshot to open instead of the head; read-only.
    pub at: Option<When>,
}

/// An open database. Handles hold no state in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReply {
    /// The database.
    pub database: DatabaseId,
    /// The branch its name points to.
    pub branch: BranchId,
    /// Where its content lives.
    pub domain: DomainId,
    /// The snapshot that `at` came to.
    pub snapshot: Option<Version>,
    /// Whether this call created it.
    pub created: bool,
}

/// Size and freelist of a database at a version: bytes 28 to 40 of SQLite's page 1, and
/// the page size. These are never part of page 1's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Size in pages. 0: no page was ever written.
    pub pages: PageCount,
    /// First freelist trunk page, or 0.
    pub freelist_trunk: u32,
    /// Pages on the freelist.
    pub freelist_pages: u32,
    /// Bytes in a page.
    pub page_size: PageSize,
}

impl Allocation {
    /// A database to which nothing was written yet.
    pub const EMPTY: Self = Self {
        pages: PageCount(0),
        freelist_trunk: 0,
        freelist_pages: 0,
        page_size: PageSize::DEFAULT,
    };
}

/// The beginning of a transaction on one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginRequest {
    /// The branch.
    pub branch: BranchId,
    /// Join this snapshot of the same connection (rule 4), or take the newest.
    pub at: Option<Version>,
    /// Up to where, and in which incarnation, the caller's page map is known to be right;
    /// `None` for an empty map.
    pub known: Option<(Incarnation, Version)>,
}

/// A snapshot, and what changed on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginReply {
    /// The store's incarnation; another than the one known means [`Changes::Unknown`].
    pub incarnation: Incarnation,
    /// The snapshot: every commit acknowledged before the request is in it.
    pub snapshot: Version,
    /// The branch's newest commit that is in the snapshot; [`Version::ZERO`] for none.
    pub head: Version,
    /// The allocation at the snapshot.
    pub allocation: Allocation,
    /// What was committed in `(known, snapshot]`.
    pub changes: Changes,
}

/// What was committed between two versions of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These commits, oldest first; none where nothing changed.
    Commits(Vec<Change>),
    /// Too much, too long ago, or of another incarnation: forget the page map.
    Unknown,
}

/// One commit, as seen by a client's page map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its version.
    pub version: Version,
    /// The pages it wrote, each with its content where the log says it.
    pub pages: Vec<(PageNumber, Option<ContentHash>)>,
    /// The size after it, where it shrank the database.
    pub shrunk_to: Option<PageCount>,
}

/// A batched read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The branch.
    pub branch: BranchId,
    /// The snapshot.
    pub snapshot: Version,
    /// The incarnation in which the snapshot was begun: in another one its version may name
    /// something else (rule 10), and the answer is `IncarnationChanged`. `None` for a version
    /// that is known to be in the store's history.
    pub incarnation: Option<Incarnation>,
    /// At most [`MAX_READ_PAGES`] pages. Pages beyond the snapshot's size read as zeros.
    pub pages: Vec<PageNumber>,
}

/// One page as read. Page 1 comes with bytes 24 to 40 and 92 to 100 zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRead {
    /// The version that wrote it; [`Version::ZERO`] where no version did.
    pub version: Version,
    /// Hash of `bytes`.
    pub hash: ContentHash,
    /// The page, checked against its hash by whoever read it from the store.
    pub bytes: Bytes,
}

/// Parts of a commit too large for one request, sent ahead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRequest {
    /// The commit they will be part of.
    pub id: CommitId,
    /// The branch.
    pub branch: BranchId,
    /// The branch's content domain.
    pub domain: DomainId,
    /// Pages; a page staged again replaces what was staged before.
    pub pages: Vec<(PageNumber, Bytes)>,
}

/// A commit over one or several branches of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// The same for all retries.
    pub id: CommitId,
    /// The incarnation in which the transaction began.
    pub incarnation: Incarnation,
    /// One part a file, those that were only read included.
    pub parts: Vec<CommitPart>,
    /// How much it must survive before it is acknowledged.
    pub durability: Durability,
    /// Who commits, to show in the log: at most 64 bytes.
    pub client: String,
}

/// What a commit read and wrote in one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPart {
    /// The database.
    pub database: DatabaseId,
    /// The branch.
    pub branch: BranchId,
    /// The branch's content domain.
    pub domain: DomainId,
    /// The snapshot from which `reads` must be unchanged.
    pub snapshot: Version,
    /// The read set (rule 3 of the protocol), the write set included.
    pub reads: PageSet,
    /// Changed pages, ascending, each once; page 1 with its virtual bytes zeroed.
    pub writes: Vec<(PageNumber, Bytes)>,
    /// The content hashes of `writes`, in their order, from a caller in the store's own
    /// process that has worked them out; else empty, and the store does. Believed, hence
    /// never sent: a server hashes the bytes that it gets.
    pub hashes: Vec<ContentHash>,
    /// Whether more of this branch's pages were staged under the commit's id. A page in
    /// both is taken from `writes`.
    pub staged: bool,
    /// The allocation after the commit, where it differs from the one read.
    pub allocation: Option<AllocationChange>,
}

/// A changed allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationChange {
    /// The snapshot from which the allocation must be unchanged; usually the part's own.
    pub snapshot: Version,
    /// What it was.
    pub before: Allocation,
    /// What it is.
    pub after: Allocation,
}

/// A commit that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitReply {
    /// Its version.
    pub version: Version,
    /// For each part, the newest commit of its branch before this one, where it is known.
    /// A client whose page map is right up to there may apply its own pages and go on from
    /// `version`; any other reads the log at its next begin.
    pub previous: Vec<Option<Version>>,
}

/// A database as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseInfo {
    /// Its name.
    pub name: DatabaseName,
    /// Its id.
    pub database: DatabaseId,
    /// Its branch.
    pub branch: BranchId,
    /// Its content domain.
    pub domain: DomainId,
    /// When it was created, microseconds since the Unix epoch.
    pub created_micros: i64,
    /// Whether an import is under way or was cut short.
    pub importing: bool,
    /// Newest commit, [`Version::ZERO`] for none.
    pub head: Version,
    /// Size and page size at the head.
    pub allocation: Allocation,
}

/// One commit as shown by `interleaf log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its version.
    pub version: Version,
    /// Its id.
    pub id: CommitId,
    /// When, by the clock of whoever wrote it: informational.
    pub time_micros: i64,
    /// Pages written.
    pub pages: PageSet,
    /// Bytes of content that it added to the store.
    pub bytes: u64,
    /// The allocation after it, where it changed.
    pub allocation: Option<Allocation>,
    /// Who.
    pub client: String,
}

/// Which part of a log to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The branch; commits of its parents before the branching point are included.
    pub branch: BranchId,
    /// Only commits after this one.
    pub after: Version,
    /// Only commits up to this one.
    pub up_to: Version,
    /// At most so many.
    pub limit: usize,
    /// Newest first.
    pub newest_first: bool,
}

/// State of a database's catalog entry at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateState {
    /// Ready for use.
    Ready,
    /// Hidden from [`Backend::open`] until [`Backend::finish_import`].
    Importing,
}

/// Numbers for `interleaf status`, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Counters and gauges, as in `commits`, `conflicts`, `disk_bytes`.
    pub numbers: BTreeMap<String, u64>,
    /// Texts, as in `engine`, `url`.
    pub texts: BTreeMap<String, String>,
}

/// Logical keys and bytes of each subspace, for `interleaf status --records` and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Subspace name to (records, bytes of keys and values).
    pub subspaces: BTreeMap<String, (u64, u64)>,
}

/// A store, direct or behind a server. Every call ends by its deadline.
///
/// All calls may be made from many threads at once.
pub trait Backend: Send + Sync {
    /// Who the store is.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    fn info(&self, deadline: Deadline) -> Result<StoreInfo>;

    /// Looks a name up, creating the database where asked.
    ///
    /// # Errors
    /// `NotFound`, `Importing`, `Pruned` (for `at`), and those of reaching the store.
    fn open(&self, request: &OpenRequest, deadline: Deadline) -> Result<OpenReply>;

    /// What a WHEN means for a branch now.
    ///
    /// # Errors
    /// `NotFound` for a version, time or pin that the history does not have, `Pruned`.
    fn resolve(&self, branch: BranchId, when: &When, deadline: Deadline) -> Result<Version>;

    /// Begins a transaction on one branch.
    ///
    /// # Errors
    /// `NotFound` for a dropped branch, `Pruned` for an `at` that is gone.
    fn begin(&self, request: &BeginRequest, deadline: Deadline) -> Result<BeginReply>;

    /// Reads pages, answered in the order asked.
    ///
    /// # Errors
    /// `Pruned`, `Corrupt` where content does not match its hash, `TooLarge` past
    /// [`MAX_READ_PAGES`].
    fn read(&self, request: &ReadRequest, deadline: Deadline) -> Result<Vec<PageRead>>;

    /// Sends parts of a commit ahead. Repeatable.
    ///
    /// # Errors
    /// Those of reaching the store.
    fn stage(&self, request: &StageRequest, deadline: Deadline) -> Result<()>;

    /// Drops what was staged for a commit that will not come.
    ///
    /// # Errors
    /// Those of reaching the store.
    fn unstage(&self, id: CommitId, deadline: Deadline) -> Result<()>;

    /// Validates and commits. At most once per commit id, however often it is called. A
    /// request that changes nothing is answered with its snapshot and leaves no trace.
    ///
    /// # Errors
    /// `Conflict`, `IncarnationChanged`, `Pruned`, `NotFound` (dropped meanwhile): nothing was written.
    /// `OutcomeUnknown`: it may have been.
    fn commit(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply>;

    /// The version that a commit id got, if it took effect.
    ///
    /// # Errors
    /// Those of reaching the store.
    fn find_commit(&self, id: CommitId, deadline: Deadline) -> Result<Option<Version>>;

    /// Creates a database.
    ///
    /// # Errors
    /// `AlreadyExists`.
    fn create(
        &self,
        name: &DatabaseName,
        state: CreateState,
        deadline: Deadline,
    ) -> Result<OpenReply>;

    /// Makes an imported database visible.
    ///
    /// # Errors
    /// `NotFound`.
    fn finish_import(&self, database: DatabaseId, deadline: Deadline) -> Result<()>;

    /// All databases, by name.
    ///
    /// # Errors
    /// Those of reaching the store.
    fn list(&self, deadline: Deadline) -> Result<Vec<DatabaseInfo>>;

    /// One database by name, also one being imported.
    ///
    /// # Errors
    /// `NotFound`.
    fn describe(&self, name: &DatabaseName, deadline: Deadline) -> Result<DatabaseInfo>;

    /// Gives a database another name. Open connections stay on it.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    fn rename(&self, from: &DatabaseName, to: &DatabaseName, deadline: Deadline) -> Result<()>;

    /// Removes a database's name. Transactions in progress on it end in an error.
    ///
    /// # Errors
    /// `NotFound`.
    fn drop_database(&self, name: &DatabaseName, deadline: Deadline) -> Result<()>;

    /// A part of a branch's log.
    ///
    /// # Errors
    /// `NotFound`.
    fn log(&self, request: &LogRequest, deadline: Deadline) -> Result<Vec<LogEntry>>;

    /// The time at which a version was current, by the store's samples.
    ///
    /// # Errors
    /// Those of reaching the store.
    fn time_of(&self, version: Version, deadline: Deadline) -> Result<Option<i64>>;

    /// Counters and gauges of the store and of whoever serves it.
    ///
    /// # Errors
    /// Those of reaching the store.
    fn status(&self, deadline: Deadline) -> Result<StoreStatus>;

    /// Counts every record of the store: slow, for tests and for people.
    ///
    /// # Errors
    /// Those of reaching the store.
    fn count_records(&self, deadline: Deadline) -> Result<RecordCounts>;

    /// How often this backend waited for a server or a store outside the process; pipelined
    /// requests count as one.
    fn round_trips(&self) -> u64;

    /// The default time a caller should allow, where the store's own nature asks for one.
    fn suggested_timeout(&self) -> Duration {
        Duration::from_millis(10_000)
    }
}
