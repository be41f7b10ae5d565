//! From errors to SQLite's result codes: the one table.

use std::ffi::c_int;

use interleaf_store::Error;

use crate::config::LogLevel;

pub const OK: c_int = 0;
pub const ERROR: c_int = 1;
/// A conflict within one connection: no busy handler waits for it.
pub const LOCKED: c_int = 6;
pub const READONLY: c_int = 8;
pub const IOERR: c_int = 10;
pub const CORRUPT: c_int = 11;
pub const NOTFOUND: c_int = 12;
pub const FULL: c_int = 13;
pub const CANTOPEN: c_int = 14;
pub const MISUSE: c_int = 21;
/// `SQLITE_OK_LOAD_PERMANENTLY`.
pub const OK_LOAD_PERMANENTLY: c_int = 256;
pub const IOERR_READ: c_int = IOERR | (1 << 8);
pub const IOERR_SHORT_READ: c_int = IOERR | (2 << 8);
pub const BUSY_SNAPSHOT: c_int = 5 | (2 << 8);

/// Why a callback failed: what SQLite is told, and what people are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// SQLite's result code, extended.
    pub code: c_int,
    /// The reason, one line.
    pub text: String,
    /// How loudly it is told on stderr.
    pub level: LogLevel,
}

impl Failure {
    /// A failure that the user can do something about.
    #[must_use]
    pub fn new(code: c_int, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), level: LogLevel::Warn }
    }

    /// A broken invariant.
    #[must_use]
    pub fn broken(text: impl Into<String>) -> Self {
        Self { code: IOERR, text: text.into(), level: LogLevel::Error }
    }

    /// The same, seen while a database is opened: whatever keeps it from being opened is
    /// CANTOPEN, damage excepted.
    #[must_use]
    pub fn at_open(mut self) -> Self {
        if matches!(self.code & 0xff, IOERR | FULL) {
            self.code = CANTOPEN;
        }
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, level) = of(&error);
        Self { code, text: error.to_string(), level }
    }
}

/// A result of a callback.
pub type Outcome<T> = Result<T, Failure>;

/// SQLite's code for an error, and how loudly its reason is told.
///
/// Exhaustive on purpose: a new error must be given its code here.
const fn of(error: &Error) -> (c_int, LogLevel) {
    use LogLevel::{Debug, Error as Loud, Warn};
    match error {
        // The application retries the transaction: nothing for a person to do.
        Error::Conflict { .. } => (BUSY_SNAPSHOT, Debug),
        Error::IncarnationChanged => (BUSY_SNAPSHOT, Warn),
        Error::ReadOnly { .. } => (READONLY, Warn),
        Error::Corrupt { .. } => (CORRUPT, Loud),
        Error::TooLarge { .. } | Error::DiskFull { .. } => (FULL, Warn),
        // A pruned snapshot must not look like damage, nor like a conflict that a retry mends.
        Error::Pruned { .. } => (IOERR_READ, Warn),
        Error::NotFound { .. }
        | Error::AlreadyExists { .. }
        | Error::Importing { .. }
        | Error::Locked { .. }
        | Error::InvalidName { .. }
        | Error::InvalidWhen { .. }
        | Error::InvalidVersion { .. }
        | Error::InvalidId { .. }
        | Error::InvalidUrl { .. }
        | Error::InvalidSetting { .. } => (CANTOPEN, Warn),
        Error::Unavailable { .. }
        | Error::Timeout { .. }
        | Error::OutcomeUnknown { .. }
        | Error::FormatVersion { .. }
        | Error::ProtocolVersion { .. }
        | Error::InvalidPageSize { .. }
        | Error::Unsupported { .. }
        | Error::Io { .. } => (IOERR, Warn),
        Error::InvalidRequest { .. } => (IOERR, Loud),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_contract() {
        let of = |e: Error| Failure::from(e).code;
        assert_eq!(of(Error::Conflict { what: "page 2".into() }), 517);
        assert_eq!(of(Error::IncarnationChanged), 517);
        assert_eq!(of(Error::ReadOnly { what: "x".into() }), 8);
        assert_eq!(of(Error::Unavailable { what: "x".into() }), 10);
        let full = Failure::from(Error::DiskFull { what: "writing: no space left".into() });
        assert_eq!(full.code, 13);
        assert!(full.text.contains("disk is full") && full.text.contains("no space"));
        assert_eq!(of(Error::Io { what: "x".into() }), 10);
        let why = "disk full".to_owned();
        let unknown = Error::OutcomeUnknown { id: "00".repeat(16).parse().unwrap(), why };
        let failure = Failure::from(unknown);
        assert_eq!(failure.code, 10);
        assert!(failure.text.contains("outcome unknown") && failure.text.contains("0000"));
        assert!(failure.text.contains("disk full"), "the cause");
        assert_eq!(Failure::from(Error::Unavailable { what: "x".into() }).at_open().code, 14);
        let long = Error::TooLarge { what: "x".into(), size: 2, limit: 1 };
        assert_eq!(Failure::from(long).at_open().code, 14, "a socket's path, say");
        assert_eq!(Failure::from(Error::Corrupt { what: "x".into() }).at_open().code, 11);
    }
}
