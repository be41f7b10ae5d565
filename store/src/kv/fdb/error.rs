//! FoundationDB's error codes as the engine's errors.

use foundationdb::FdbError;

use super::super::{KvError, Limits};

/// What was asked for when the error came: the same code can mean that nothing had an
/// effect or that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    /// A read, or a step that changes nothing in the cluster.
    Read,
    /// A commit that was sent.
    Commit,
}

const TRANSACTION_TOO_OLD: i32 = 1007;
const NOT_COMMITTED: i32 = 1020;
const COMMIT_UNKNOWN_RESULT: i32 = 1021;
const COMMIT_UNKNOWN_RESULT_FATAL: i32 = 1022;
const TRANSACTION_CANCELLED: i32 = 1025;
const REQUEST_MAYBE_DELIVERED: i32 = 1030;
const TRANSACTION_TIMED_OUT: i32 = 1031;
const CLUSTER_VERSION_CHANGED: i32 = 1039;
const CHECKSUM_FAILED: i32 = 1520;
const FILE_CORRUPT: i32 = 1522;
const TRANSACTION_TOO_LARGE: i32 = 2101;
const KEY_TOO_LARGE: i32 = 2102;
const VALUE_TOO_LARGE: i32 = 2103;

/// The engine's error for FoundationDB's. `size` is what the caller reckons the transaction's
/// size to be, for the message of one that is too large.
pub(super) fn engine_error(error: FdbError, during: During, size: u64, limits: Limits) -> KvError {
    let too_large = |what, size, limit| KvError::TooLarge { what, size, limit };
    let text = || format!("FoundationDB: {} ({})", error.message(), error.code());
    match (error.code(), during) {
        (NOT_COMMITTED, _) => KvError::Conflict,
        (TRANSACTION_TOO_OLD, _) => KvError::TooOld,
        (COMMIT_UNKNOWN_RESULT | COMMIT_UNKNOWN_RESULT_FATAL, _)
        | (
            TRANSACTION_CANCELLED
            | REQUEST_MAYBE_DELIVERED
            | TRANSACTION_TIMED_OUT
            | CLUSTER_VERSION_CHANGED,
            During::Commit,
        ) => KvError::UnknownResult,
        (TRANSACTION_TOO_LARGE, _) => {
            too_large("transaction, in bytes,", size, limits.transaction_bytes)
        }
        (KEY_TOO_LARGE, _) => {
            too_large("key of a transaction, in bytes,", size, limits.key_bytes as u64)
        }
        (VALUE_TOO_LARGE, _) => {
            too_large("value of a transaction, in bytes,", size, limits.value_bytes as u64)
        }
        (CHECKSUM_FAILED | FILE_CORRUPT, During::Read) => KvError::Corrupt { what: text() },
        // Whatever else a commit may end in: only what is known to come before it is sent, or
        // to be refused by the cluster as a whole, had no effect for certain.
        (code, During::Commit) if !had_no_effect(code) => KvError::UnknownResult,
        // The client's own files, and uses of the interface that it refuses.
        (1500..=1999 | 2000..=2999 | 4000.., _) => KvError::Io { what: text() },
        // A cluster that is slow, overloaded, recovering or out of reach.
        _ => KvError::Unavailable { what: text() },
    }
}

/// Whether a commit that ended in `code` certainly did nothing: the codes that FoundationDB
/// calls retryable and not committed, a locked database, the client's cluster file, and uses
/// of the interface that the client refuses before it sends anything.
const fn had_no_effect(code: i32) -> bool {
    matches!(code, 1009 | 1037 | 1038 | 1042 | 1051 | 1078 | 1213 | 1515..=1517 | 2000..=2999)
}

#[cfg(test)]
mod tests {
    use super::super::LIMITS;
    use super::*;

    fn of(code: i32, during: During) -> KvError {
        engine_error(FdbError::from_code(code), during, 77, LIMITS)
    }

    #[test]
    fn codes_are_told_apart() {
        for during in [During::Read, During::Commit] {
            assert_eq!(of(1020, during), KvError::Conflict);
            assert_eq!(of(1007, during), KvError::TooOld);
            assert_eq!(of(1021, during), KvError::UnknownResult);
            assert!(matches!(of(1009, during), KvError::Unavailable { .. }));
            assert!(matches!(of(1037, during), KvError::Unavailable { .. }));
            assert!(matches!(of(1213, during), KvError::Unavailable { .. }));
            assert!(matches!(of(1515, during), KvError::Io { .. }));
            assert!(matches!(of(2000, during), KvError::Io { .. }));
            let KvError::TooLarge { size, limit, .. } = of(2101, during) else { panic!() };
            assert_eq!((size, limit), (77, LIMITS.transaction_bytes));
        }
    }

    #[test]
    fn a_commit_that_may_have_happened_is_never_called_harmless() {
        for code in [1021, 1022, 1025, 1030, 1031, 1039, 1100, 1101, 1500, 1510, 4000, 4100] {
            assert_eq!(of(code, During::Commit), KvError::UnknownResult, "{code}");
        }
        for code in [1025, 1030, 1031, 1039] {
            assert!(matches!(of(code, During::Read), KvError::Unavailable { .. }), "{code}");
        }
    }
}
