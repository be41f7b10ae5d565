//! What Interleaf asks of a key-value engine: no more than both FoundationDB and an
//! embedded engine can promise.
//!
//! The trait is synchronous: SQLite's VFS is, an embedded engine is, and FoundationDB's
//! own network thread completes its futures while a caller blocks.
//!
//! # Conflicts
//! Only *logical conflict keys* conflict: [`Commit::read_conflicts`] against the
//! [`Commit::write_conflicts`] of later commits. Keys written by a commit's mutations
//! conflict with nobody unless listed. In [`Kv::transact`] every key read or written
//! through the [`Txn`] conflicts as well, as one would expect of a transaction.

mod conflict;
mod error;
#[cfg(feature = "fdb")]
pub mod fdb;
pub mod fjall;
mod group;
pub mod mem;
mod prepare;
mod retry;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod txn;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

pub use error::{KvError, KvResult, TxnError};

use crate::env::Deadline;
use crate::types::Version;

/// A key. At most [`Limits::key_bytes`] long, and never empty.
pub type Key = Vec<u8>;

/// A half-open range of keys, in byte order.
pub type KeyRange = Range<Key>;

/// What an engine can take, as constants with their units.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest key.
    pub key_bytes: usize,
    /// Longest value.
    pub value_bytes: usize,
    /// Keys, values and conflict ranges of one commit together.
    pub transaction_bytes: u64,
    /// How old a snapshot [`Kv::commit_at`] takes, in milliseconds; `None` for an engine
    /// that bounds it by what it remembers.
    pub transaction_age_ms: Option<u64>,
}

/// How much of a commit must survive what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// Survives the death of any process, not that of the machine.
    Buffered,
    /// Survives power loss.
    #[default]
    Synced,
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Sets a key.
    Put {
        /// The key.
        key: Key,
        /// Its value.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Removes a range of keys. Embedded engines do it in as many deletes as there are
    /// keys: use it for ranges known to be small.
    DeleteRange {
        /// The range.
        range: KeyRange,
    },
    /// Sets the key `prefix ++ version ++ suffix`, the version being this commit's.
    PutVersionedKey {
        /// Before the version.
        prefix: Key,
        /// Behind the version.
        suffix: Vec<u8>,
        /// The value.
        value: Bytes,
    },
    /// Sets a key to `prefix ++ version ++ suffix`, the version being this commit's.
    PutVersionedValue {
        /// The key.
        key: Key,
        /// Before the version.
        prefix: Vec<u8>,
        /// Behind the version.
        suffix: Vec<u8>,
    },
}

/// Called once, with the commit's version, after the commit is applied with the durability
/// asked for and before any caller learns of it. Calls come in the order of versions, one
/// at a time. Embedded engines only.
pub type OnPublish = Box<dyn FnOnce(Version) + Send>;

/// Logical conflict keys, worked out as far as an engine asks for them. Both may claim keys
/// that nobody read: the engine then answers [`KvError::Conflict`], as for any conflict.
pub trait ConflictSet: Send + Sync {
    /// Whether the set meets `start..end`. Asked under the lock of the commits, of each key
    /// range of those that came between: not to allocate.
    fn meets(&self, start: &[u8], end: &[u8]) -> bool;

    /// The whole set, in any order.
    fn ranges(&self) -> Vec<KeyRange>;
}

/// The logical conflict keys that a commit read.
#[derive(Clone)]
pub enum ReadConflicts {
    /// Listed, in any order.
    Ranges(Vec<KeyRange>),
    /// A set that may be large while few of the commits in question touch it.
    Set(Arc<dyn ConflictSet>),
}

impl Default for ReadConflicts {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

impl From<Vec<KeyRange>> for ReadConflicts {
    fn from(ranges: Vec<KeyRange>) -> Self {
        Self::Ranges(ranges)
    }
}

impl ReadConflicts {
    /// Whether nothing was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Ranges(ranges) if ranges.is_empty())
    }

    /// Those that are listed.
    #[must_use]
    pub fn listed(&self) -> &[KeyRange] {
        match self {
            Self::Ranges(ranges) => ranges,
            Self::Set(_) => &[],
        }
    }

    /// The same, all of them listed.
    #[must_use]
    pub fn list(self) -> Self {
        match self {
            Self::Set(set) => Self::Ranges(set.ranges()),
            listed @ Self::Ranges(_) => listed,
        }
    }
}

/// Called once with the result of [`Kv::submit`], from whatever thread.
pub type OnDone = Box<dyn FnOnce(KvResult<Version>) + Send>;

/// Asks for another thread that calls [`Kv::lead`]; false where there is none to be had.
pub type AskSuccessor = Box<dyn Fn() -> bool + Send + Sync>;

/// A commit at a snapshot.
#[derive(Default)]
pub struct Commit {
    /// The snapshot at which everything in `read_conflicts` was read.
    pub snapshot: Version,
    /// What was read.
    pub read_conflicts: ReadConflicts,
    /// What others may have read and is changed here.
    pub write_conflicts: Vec<KeyRange>,
    /// The changes.
    pub mutations: Vec<Mutation>,
    /// How much it must survive before it is acknowledged.
    pub durability: Durability,
    /// See [`OnPublish`].
    pub on_publish: Option<OnPublish>,
}

/// Called by an embedded engine under its commit lock, once for each batch it writes and
/// before it writes it, with the newest version in the batch: what it returns is written
/// with the batch. FoundationDB never calls it.
pub type BatchHook = Box<dyn Fn(Version) -> Vec<Mutation> + Send + Sync>;

/// One end of a range scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The keys to look at.
    pub range: KeyRange,
    /// From the end of the range downwards.
    pub reverse: bool,
    /// At most so many entries.
    pub limit: usize,
}

/// A key and its value.
pub type Entry = (Bytes, Bytes);

/// Reads of one moment.
pub trait Reads {
    /// The value of `key`.
    ///
    /// # Errors
    /// As [`KvError`].
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>>;

    /// The values of `keys`, in their order; fetched in parallel where that helps.
    ///
    /// # Errors
    /// As [`KvError`].
    fn get_many(&self, keys: &[Key]) -> KvResult<Vec<Option<Bytes>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// The first entries of a range, or the last ones downwards.
    ///
    /// # Errors
    /// As [`KvError`].
    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>>;

    /// Several scans, answered in their order; fetched in parallel where that helps.
    ///
    /// # Errors
    /// As [`KvError`].
    fn scan_many(&self, scans: &[Scan]) -> KvResult<Vec<Vec<Entry>>> {
        scans.iter().map(|scan| self.scan(scan)).collect()
    }
}

/// Stable reads at a version.
pub trait Snapshot: Reads + Send {
    /// The snapshot's version: every commit up to it is seen. [`Kv::commit_at`] takes it.
    ///
    /// An embedded engine may let a snapshot see commits that came just after its version
    /// (never a part of one); validation from this version on is then only stricter.
    fn version(&self) -> Version;
}

/// A snapshot, and the answers to some scans of it, in their order.
pub type Found<'a> = (Box<dyn Snapshot + 'a>, Vec<Vec<Entry>>);

/// A transaction that may be run again: reads are of one moment and conflict, writes are
/// seen by later reads of the same transaction.
pub trait Txn: Reads {
    /// Sets a key.
    fn put(&mut self, key: Key, value: Bytes);
    /// Removes a key.
    fn delete(&mut self, key: Key);
    /// Adds any mutation, versioned ones among them; those are not seen by later reads.
    fn mutate(&mut self, mutation: Mutation);
    /// Adds a logical read conflict.
    fn read_conflict(&mut self, range: KeyRange);
    /// Adds a logical write conflict.
    fn write_conflict(&mut self, range: KeyRange);
    /// Registers what to do at the commit (see [`OnPublish`]); embedded engines only, the
    /// last one registered in the run that commits counts.
    fn on_publish(&mut self, call: OnPublish);
}

/// The body of [`Kv::transact`]: may run several times, also after a run that took effect
/// without its caller learning of it.
pub type TxnBody<'a> = &'a mut dyn FnMut(&mut dyn Txn) -> Result<(), TxnError>;

/// A key-value engine.
///
/// # Invariants
/// * **K1** A commit takes effect as a whole or not at all.
/// * **K2** A commit is validated against every commit between its snapshot and itself: if
///   one's write conflicts meet its read conflicts the answer is [`KvError::Conflict`].
/// * **K3** Versions grow with the order of commits and are never issued twice, whatever a
///   crash undid.
/// * **K4** What was acknowledged as [`Durability::Synced`] survives power loss; a crash
///   otherwise loses only a suffix of the commits.
/// * **K5** A snapshot taken after a commit was acknowledged sees it.
pub trait Kv: Send + Sync + 'static {
    /// The engine's name: `mem`, `fjall`, `fdb`, `sim`.
    fn name(&self) -> &'static str;

    /// What it can take.
    fn limits(&self) -> Limits;

    /// Whether this process is the store's only writer, so that what it has published
    /// itself is all there is. False for FoundationDB.
    fn exclusive(&self) -> bool;

    /// Whether the engine recovered from an unclean end when it was opened here, so that
    /// a suffix may be lost and the incarnation must change.
    fn recovered(&self) -> bool;

    /// Why the engine takes no commits any more, until it is opened anew: a write failed.
    /// Reads go on. `None` for an engine that is well, or closed.
    fn failure(&self) -> Option<KvError> {
        None
    }

    /// Sets the hook of [`BatchHook`]; once, before the first commit. Engines that are not
    /// [`exclusive`](Self::exclusive) ignore it.
    fn set_batch_hook(&self, hook: BatchHook);

    /// Reads of now.
    ///
    /// # Errors
    /// As [`KvError`].
    fn snapshot(&self, deadline: Deadline) -> KvResult<Box<dyn Snapshot + '_>>;

    /// A snapshot, and what `scans` find in it, in one wait where the engine can.
    ///
    /// `_at`, the version of an earlier snapshot, asks for reads of that moment in place of
    /// now: an engine that still has them saves the question what is newest, any other
    /// gives reads of now.
    ///
    /// # Errors
    /// As [`KvError`].
    fn snapshot_with(
        &self,
        _at: Option<Version>,
        scans: &[Scan],
        deadline: Deadline,
    ) -> KvResult<Found<'_>> {
        let snapshot = self.snapshot(deadline)?;
        let found = snapshot.scan_many(scans)?;
        Ok((snapshot, found))
    }

    /// How often this engine waited for something outside the process; what is asked for
    /// together counts once.
    fn round_trips(&self) -> u64 {
        0
    }

    /// Whether [`commit_at`](Self::commit_at) can validate from this version itself; false
    /// for a versionstamp on FoundationDB (rule 1 of the protocol).
    fn validates(&self, snapshot: Version) -> bool;

    /// Validates and applies a commit. Never run again by itself.
    ///
    /// # Errors
    /// [`KvError::Conflict`] as K2 says; [`KvError::TooOld`] where the engine no longer knows
    /// what came after the snapshot; [`KvError::UnknownResult`] where it may or may not have
    /// taken effect; the others of [`KvError`] where it had none.
    fn commit_at(&self, commit: Commit, deadline: Deadline) -> KvResult<Version>;

    /// As [`commit_at`](Self::commit_at), the result being given to `done`, which must not
    /// block: at once or later, and whether or not the deadline has passed by then. Where
    /// this says `true` the caller must call [`lead`](Self::lead) next. An engine that can
    /// do no better commits before this returns.
    fn submit(&self, commit: Commit, deadline: Deadline, done: OnDone) -> bool {
        done(self.commit_at(commit, deadline));
        false
    }

    /// Commits what was submitted, by this thread and others, until nothing is left to do or
    /// another thread does it. Blocks for as long.
    fn lead(&self) {}

    /// As [`lead`](Self::lead), of a thread that has other work: after one batch the lead goes
    /// to another, if there is one.
    fn lead_in_passing(&self) {}

    /// Sets whom to ask for another thread, once: where a caller of
    /// [`commit_at`](Self::commit_at) or [`lead_in_passing`](Self::lead_in_passing) leads and
    /// others submit without an end, it would never get to its own answer, or work.
    fn set_successor(&self, _ask: AskSuccessor) {}

    /// Runs `body` until it commits, at most until the deadline, with back-off. For
    /// everything that is not a SQLite commit; `body` must be idempotent.
    ///
    /// Gives the version, or `None` where `body` wrote nothing.
    ///
    /// # Errors
    /// What `body` gave, at once; else the last engine error when time is up.
    fn transact(&self, deadline: Deadline, body: TxnBody<'_>) -> crate::Result<Option<Version>>;

    /// Blocks until the value of `key` is no longer `known`, or the deadline.
    ///
    /// # Errors
    /// [`KvError::Timeout`] at the deadline.
    fn watch(&self, key: &[u8], known: Option<&[u8]>, deadline: Deadline) -> KvResult<()>;

    /// Bytes on disk, where the engine can tell.
    fn disk_bytes(&self) -> Option<u64>;

    /// Makes everything durable and leaves the mark of a clean end. Later commits fail
    /// with [`KvError::Unavailable`].
    ///
    /// # Errors
    /// As [`KvError`].
    fn close(&self) -> KvResult<()>;
}
