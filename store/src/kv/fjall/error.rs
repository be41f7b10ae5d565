//! What fjall says, in the words of the trait.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fjall::LsmError;

use crate::kv::{KvError, KvResult};

/// Runs `call`, which asks the engine for `what`; a panic in it (damaged files can cause
/// one) is an error like others.
pub(super) fn guarded<T>(what: &str, call: impl FnOnce() -> fjall::Result<T>) -> KvResult<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(kv_error(what, &error)),
        Err(_) => Err(KvError::Corrupt { what: format!("{what}: the engine panicked") }),
    }
}

/// `error`, met at `what`.
pub(super) fn kv_error(what: &str, error: &fjall::Error) -> KvError {
    use fjall::Error as Fjall;
    match error {
        Fjall::Io(e) | Fjall::Storage(LsmError::Io(e)) => KvError::of_io(what, e),
        Fjall::Poisoned => {
            KvError::Io { what: format!("{what}: the engine stopped after a failed write") }
        }
        Fjall::Locked => KvError::Unavailable { what: format!("{what}: held by another process") },
        other => KvError::Corrupt { what: format!("{what}: {other:?}") },
    }
}
