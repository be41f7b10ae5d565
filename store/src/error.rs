use std::time::Duration;

use crate::types::{CommitId, Version};

/// What can go wrong between a connection and a store.
///
/// Every variant can cross the wire (`docs/protocol.md`, Errors); the VFS maps each to one
/// SQLite code in one exhaustive table. Messages name the thing and, where there is one,
/// the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another transaction committed something that this one has read or written.
    #[error("conflict: {what} was changed by another transaction since this one began")]
    Conflict {
        /// The page, the allocation or the catalog row at which it was noticed.
        what: String,
    },
    /// The snapshot is older than what the retention kept.
    #[error("the snapshot {version} has been pruned; the oldest one kept is {oldest}")]
    Pruned {
        /// The snapshot asked for.
        version: Version,
        /// The branch's watermark.
        oldest: Version,
    },
    /// No database, branch, pin or version of that name.
    #[error("{what} does not exist")]
    NotFound {
        /// Kind and name, as in `database "app"`.
        what: String,
    },
    /// The name is taken.
    #[error("{what} exists already")]
    AlreadyExists {
        /// Kind and name.
        what: String,
    },
    /// A database that is still being imported, or whose import was cut short.
    #[error(
        "database {name:?} is being imported; if that import was cut short, `interleaf db drop` removes it"
    )]
    Importing {
        /// The database's name.
        name: String,
    },
    /// A write to a snapshot.
    #[error("{what} is a snapshot and cannot be written")]
    ReadOnly {
        /// What was to be written.
        what: String,
    },
    /// The store cannot be reached, or does not answer for now.
    #[error("the store cannot be reached: {what}")]
    Unavailable {
        /// Where, and what was tried.
        what: String,
    },
    /// No answer within the deadline.
    #[error("no answer within {} ms", after.as_millis())]
    Timeout {
        /// The whole time waited.
        after: Duration,
    },
    /// A commit was sent and its answer is not known.
    #[error(
        "outcome unknown of commit {id} ({why}); `interleaf log NAME --commit {id}` tells later"
    )]
    OutcomeUnknown {
        /// The commit's id.
        id: CommitId,
        /// What went wrong, as far as it is known.
        why: String,
    },
    /// Something passes a limit.
    #[error("{what} is {size}; the limit is {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A record or frame that is not what it must be.
    #[error("corrupt: {what}")]
    Corrupt {
        /// What and where.
        what: String,
    },
    /// A durable record of a version this program does not know.
    #[error("{what} has format version {found}; this program knows up to {known}")]
    FormatVersion {
        /// Which record.
        what: String,
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// A peer of another protocol version.
    #[error("protocol version {found} is not supported; this program speaks {known}")]
    ProtocolVersion {
        /// Version the peer speaks.
        found: u32,
        /// Version spoken here.
        known: u32,
    },
    /// The directory is held by another process that is no server.
    #[error(
        "{path} is in use by {holder}; to share it, stop that process and run: interleaf serve --store dir:{path}"
    )]
    Locked {
        /// The directory.
        path: String,
        /// Who holds it.
        holder: String,
    },
    /// The store lost what it had issued (unclean recovery): a transaction that began before cannot commit.
    #[error("the store was recovered since this transaction began")]
    IncarnationChanged,
    /// Not a database name.
    #[error("{name:?} is no valid database name: {why}")]
    InvalidName {
        /// The name, cut to what can be shown.
        name: String,
        /// The reason.
        why: String,
    },
    /// Not a WHEN.
    #[error("{text:?} is no point in time: {}", crate::when::FORMS)]
    InvalidWhen {
        /// The text.
        text: String,
    },
    /// Not a version.
    #[error("{text:?} is no version: a version is 20 hex digits")]
    InvalidVersion {
        /// The text.
        text: String,
    },
    /// Not an id of the kind asked for.
    #[error("{text:?} is no {what}")]
    InvalidId {
        /// Kind.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Not a page size.
    #[error("{bytes} is no page size: a power of two from 512 to 65536")]
    InvalidPageSize {
        /// The number.
        bytes: u32,
    },
    /// Not a store URL.
    #[error("{url:?} is no store URL: {why}")]
    InvalidUrl {
        /// The text.
        url: String,
        /// The reason.
        why: String,
    },
    /// A setting, usually an environment variable, with a value it cannot have.
    #[error("{setting} is {value:?}; allowed is {allowed}")]
    InvalidSetting {
        /// Name of the variable or parameter.
        setting: String,
        /// Its value, cut to what can be shown.
        value: String,
        /// What it may be, with the limits.
        allowed: String,
    },
    /// A request that breaks a rule of the protocol.
    #[error("invalid request: {what}")]
    InvalidRequest {
        /// Which rule.
        what: String,
    },
    /// The feature is not there, in this build or in this version.
    #[error("{what} is not supported")]
    Unsupported {
        /// Which.
        what: String,
    },
    /// There is no room for what is to be written.
    #[error("the store's disk is full: {what}")]
    DiskFull {
        /// What was tried and what the system said.
        what: String,
    },
    /// The disk or the operating system refused.
    #[error("{what}")]
    Io {
        /// What was tried and what the system said.
        what: String,
    },
}

impl Error {
    /// `error`, met at `what`.
    #[must_use]
    pub fn of_io(what: &str, error: &std::io::Error) -> Self {
        let text = format!("{what}: {error}");
        if is_disk_full(error) {
            return Self::DiskFull { what: text };
        }
        Self::Io { what: text }
    }

    /// Whether the same request may succeed when sent again, to this or another server,
    /// because it certainly had no effect.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Whether the system says that there is no room: on the file system, in a quota, or up to
/// the size a file of this process may have.
pub(crate) fn is_disk_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
