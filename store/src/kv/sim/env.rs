//! Time and randomness under a test's control.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::env::{Clock, Entropy, Env};
use crate::error::Result;
use crate::kv::group::lock;

/// Wall time at which every simulation begins: 2025-01-01, in microseconds.
const BEGIN_MICROS: i64 = 1_735_689_600_000_000;

/// A clock that moves only when it is told to, or slept on.
#[derive(Debug)]
pub struct SimClock {
    begin: Instant,
    passed: Mutex<Duration>,
}

impl SimClock {
    /// A clock at the beginning of its simulation.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), passed: Mutex::default() })
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        *lock(&self.passed) += by;
    }

    /// Time since the simulation began.
    #[must_use]
    pub fn passed(&self) -> Duration {
        *lock(&self.passed)
    }
}

impl Clock for SimClock {
    fn unix_micros(&self) -> i64 {
        i64::try_from(self.passed().as_micros())
            .map_or(i64::MAX, |micros| BEGIN_MICROS.saturating_add(micros))
    }

    fn now(&self) -> Instant {
        self.begin + self.passed()
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

/// Random bytes from a seed.
#[derive(Debug)]
pub struct SimEntropy {
    rng: Mutex<StdRng>,
}

impl SimEntropy {
    /// Those of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { rng: Mutex::new(StdRng::seed_from_u64(seed)) })
    }

    /// A number below `bound`, or 0 where that is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        let number = lock(&self.rng).next_u64();
        number.checked_rem(bound).unwrap_or(0)
    }

    /// Whether something of this probability happens now.
    #[must_use]
    pub fn chance(&self, probability: f64) -> bool {
        const STEPS: u32 = 1 << 24;
        let step = lock(&self.rng).next_u32() % STEPS;
        f64::from(step) < probability * f64::from(STEPS)
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        lock(&self.rng).fill_bytes(bytes);
        Ok(())
    }
}

/// An environment of this clock and these random bytes.
#[must_use]
pub fn env(clock: &Arc<SimClock>, entropy: &Arc<SimEntropy>) -> Env {
    Env { clock: Arc::clone(clock) as _, entropy: Arc::clone(entropy) as _ }
}
