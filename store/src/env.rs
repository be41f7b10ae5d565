//! Time and randomness, passed in: production takes [`Env::system`], tests their own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Wall time in microseconds since the Unix epoch. To store and to show, never to
    /// decide whether something of another machine has expired.
    fn unix_micros(&self) -> i64;
    /// Monotonic time, to measure with.
    fn now(&self) -> Instant;
    /// Waits. A simulated clock advances instead.
    fn sleep(&self, duration: Duration);
}

/// A source of random bytes: ids and back-off.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`Error::Io`] where the system has no randomness to give.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// What a store takes from outside.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Env {
    /// The machine's clock and the system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// As [`Entropy::fill`].
    pub fn random<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A deadline `timeout` from now on this clock.
    #[must_use]
    pub fn deadline(&self, timeout: Duration) -> Deadline {
        Deadline::after(self.clock.now(), timeout)
    }

    /// What is left of a deadline.
    ///
    /// # Errors
    /// [`Error::Timeout`] where nothing is left.
    pub fn remaining(&self, deadline: Deadline) -> Result<Duration> {
        deadline.remaining(self.clock.now())
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where wall time enters")]
    fn unix_micros(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The system's randomness.
#[derive(Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        use rand::TryRng;
        rand::rngs::SysRng
            .try_fill_bytes(bytes)
            .map_err(|e| Error::Io { what: format!("the system's randomness: {e}") })
    }
}

/// The moment at which a wait ends, on the monotonic clock of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// `timeout` after `now`.
    #[must_use]
    pub fn after(now: Instant, timeout: Duration) -> Self {
        // An Instant that cannot be represented is further away than anyone waits for.
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        let timeout = timeout.min(FAR);
        Self { at: now + timeout, timeout }
    }

    /// What is left at `now`.
    ///
    /// # Errors
    /// [`Error::Timeout`] where nothing is left.
    pub fn remaining(self, now: Instant) -> Result<Duration> {
        match self.at.checked_duration_since(now) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Error::Timeout { after: self.timeout }),
        }
    }

    /// The moment itself.
    #[must_use]
    pub const fn at(self) -> Instant {
        self.at
    }

    /// How long the whole wait was to be.
    #[must_use]
    pub const fn timeout(self) -> Duration {
        self.timeout
    }
}
