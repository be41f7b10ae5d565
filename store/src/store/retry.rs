//! Waiting between tries: the one place that does.

use std::time::Duration;

use super::Store;
use crate::env::{Deadline, Env};
use crate::error::{Error, Result};

/// The first wait; the first try again comes at once.
const FIRST_WAIT: Duration = Duration::from_micros(500);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Waits that grow and differ between callers.
pub(super) struct Backoff {
    next: Option<Duration>,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: None }
    }

    /// Waits, not at all the first time.
    ///
    /// # Errors
    /// `Timeout` where the deadline is over.
    pub(super) fn wait(&mut self, env: &Env, deadline: Deadline) -> Result<()> {
        let left = env.remaining(deadline)?;
        let Some(most) = self.next else {
            self.next = Some(FIRST_WAIT);
            return Ok(());
        };
        // Between half of it and all of it.
        let [random] = env.random::<1>()?;
        let wait = most.mul_f64(0.5 + f64::from(random) / 512.0);
        env.clock.sleep(wait.min(left));
        self.next = Some((most * 2).min(LONGEST_WAIT));
        Ok(())
    }
}

impl Store {
    /// Whether the same can be tried again because it had no effect, or one that is looked
    /// for.
    pub(super) fn may_retry(&self, error: &Error) -> bool {
        error.is_transient() && !self.is_closed()
    }

    /// Runs something without effects until it succeeds, fails for good, or time is up.
    pub(super) fn retrying<T>(
        &self,
        deadline: Deadline,
        run: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        transient(&self.env, deadline, |error| self.may_retry(error), run)
    }
}

/// As [`Store::retrying`], also where there is no store yet. `passes`: whether the same may
/// succeed later.
pub(super) fn transient<T>(
    env: &Env,
    deadline: Deadline,
    passes: impl Fn(&Error) -> bool,
    mut run: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut backoff = Backoff::new();
    loop {
        match run() {
            Err(error) if passes(&error) => {
                // The reason tells more than that time is up.
                backoff.wait(env, deadline).map_err(|_| error)?;
            }
            result => return result,
        }
    }
}
