use std::time::Duration;

use crate::error::{Error, is_disk_full};

/// What an engine can answer instead of a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// A read conflict was written since the snapshot.
    #[error("conflict")]
    Conflict,
    /// The engine no longer knows what came after the snapshot.
    #[error("the snapshot is too old for the engine to validate")]
    TooOld,
    /// The commit may or may not have taken effect.
    #[error("the commit's result is unknown")]
    UnknownResult,
    /// The engine cannot be reached or is shut down; nothing had an effect.
    #[error("unavailable: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
    },
    /// No answer within the deadline; nothing had an effect.
    #[error("no answer within {} ms", after.as_millis())]
    Timeout {
        /// The whole time waited.
        after: Duration,
    },
    /// Something passes one of [`Limits`](super::Limits).
    #[error("{what} is {size}; the engine's limit is {limit}")]
    TooLarge {
        /// What, with its unit.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The engine's own data are damaged.
    #[error("corrupt: {what}")]
    Corrupt {
        /// What the engine said.
        what: String,
    },
    /// There is no room for what is to be written; of this write nothing had an effect.
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

impl KvError {
    /// `error`, met at `what`.
    pub(super) fn of_io(what: &str, error: &std::io::Error) -> Self {
        let text = format!("{what}: {error}");
        if is_disk_full(error) {
            return Self::DiskFull { what: text };
        }
        Self::Io { what: text }
    }

    /// The answer to commits after a write that failed in this way.
    pub(super) fn lasting(&self) -> Self {
        match self {
            Self::DiskFull { what } => {
                Self::DiskFull { what: format!("an earlier write failed: {what}") }
            }
            other => {
                Self::Io { what: format!("no commits are taken: an earlier write failed: {other}") }
            }
        }
    }
}

/// A result of an engine.
pub type KvResult<T> = Result<T, KvError>;

impl From<KvError> for Error {
    /// For reads and for transactions whose retries are over. A commit's conflict and its
    /// unknown result are handled where the commit id is known and never come this way.
    fn from(e: KvError) -> Self {
        match e {
            KvError::Conflict => Self::Unavailable {
                what: "the store is too busy: conflicts until the deadline".into(),
            },
            KvError::TooOld => Self::Unavailable { what: "the engine's snapshot expired".into() },
            KvError::UnknownResult => {
                Self::Unavailable { what: "the engine did not tell the result".into() }
            }
            KvError::Unavailable { what } => Self::Unavailable { what },
            KvError::Timeout { after } => Self::Timeout { after },
            KvError::TooLarge { what, size, limit } => {
                Self::TooLarge { what: what.to_owned(), size, limit }
            }
            KvError::Corrupt { what } => Self::Corrupt { what },
            KvError::DiskFull { what } => Self::DiskFull { what },
            KvError::Io { what } => Self::Io { what },
        }
    }
}

/// How the body of a transaction ends when it does not want to commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// The engine failed; run again where that can help.
    #[error(transparent)]
    Engine(#[from] KvError),
    /// The body found that it must not commit: given to the caller as it is.
    #[error(transparent)]
    Abort(#[from] Error),
}
