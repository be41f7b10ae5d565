//! The one retry loop of [`Kv::transact`](super::Kv::transact).

use std::time::Duration;

use super::{KvError, TxnError};
use crate::env::{Deadline, Env};
use crate::error::Result;

/// The longest wait before the first retry; doubled at each until [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_micros(100);
/// The longest wait before any retry.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Runs `attempt` until it succeeds, fails for good, or `deadline` has passed, with
/// jittered, growing waits between.
///
/// `lasting` says whether an `Unavailable` will last: then it is given at once.
///
/// # Errors
/// What the transaction's body gave; an engine error that no retry can change; else the
/// last engine error when time is up.
pub(super) fn run<T>(
    env: &Env,
    deadline: Deadline,
    lasting: impl Fn() -> bool,
    mut attempt: impl FnMut() -> Result<T, TxnError>,
) -> Result<T> {
    let mut longest = FIRST_WAIT;
    loop {
        let failure = match attempt() {
            Ok(done) => return Ok(done),
            Err(TxnError::Abort(error)) => return Err(error),
            Err(TxnError::Engine(error)) => error,
        };
        if !retryable(&failure) || lasting() {
            return Err(failure.into());
        }
        let Ok(left) = env.remaining(deadline) else { return Err(failure.into()) };
        env.clock.sleep(jitter(env, longest)?.min(left));
        longest = (longest * 2).min(LONGEST_WAIT);
    }
}

/// Whether another run may end otherwise.
pub(super) const fn retryable(error: &KvError) -> bool {
    match error {
        KvError::Conflict
        | KvError::TooOld
        | KvError::UnknownResult
        | KvError::Unavailable { .. } => true,
        KvError::Timeout { .. }
        | KvError::TooLarge { .. }
        | KvError::Corrupt { .. }
        | KvError::DiskFull { .. }
        | KvError::Io { .. } => false,
    }
}

/// A random part of `longest`.
fn jitter(env: &Env, longest: Duration) -> Result<Duration> {
    let part = u32::from_be_bytes(env.random()?);
    Ok(longest.mul_f64(f64::from(part) / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn run_with(deadline_ms: u64, lasting: bool, errors: &[KvError]) -> (Result<()>, usize) {
        let env = Env::system();
        let mut runs = 0;
        let deadline = env.deadline(Duration::from_millis(deadline_ms));
        let result = run(
            &env,
            deadline,
            || lasting,
            || {
                runs += 1;
                errors.get(runs - 1).cloned().map_or(Ok(()), |e| Err(e.into()))
            },
        );
        (result, runs)
    }

    #[test]
    fn passing_errors_are_retried_and_lasting_ones_are_not() {
        let gone = KvError::Unavailable { what: "closed".into() };
        let passing = [KvError::Conflict, KvError::TooOld, KvError::UnknownResult, gone.clone()];
        assert_eq!(run_with(10_000, false, &passing), (Ok(()), 5));
        assert_eq!(run_with(10_000, true, std::slice::from_ref(&gone)), (Err(gone.into()), 1));
        let broken = KvError::Corrupt { what: "x".into() };
        assert_eq!(run_with(10_000, false, std::slice::from_ref(&broken)), (Err(broken.into()), 1));
    }

    #[test]
    fn the_last_engine_error_is_given_when_time_is_up() {
        let endless = vec![KvError::Conflict; 1_000_000];
        assert_eq!(run_with(5, false, &endless).0, Err(KvError::Conflict.into()));
    }

    #[test]
    fn what_the_body_gave_ends_it() {
        let env = Env::system();
        let deadline = env.deadline(Duration::from_secs(1));
        let abort = Error::NotFound { what: "it".into() };
        let result: Result<()> =
            run(&env, deadline, || false, || Err(TxnError::Abort(abort.clone())));
        assert_eq!(result, Err(abort));
    }
}
