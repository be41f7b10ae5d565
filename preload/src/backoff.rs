//! How long to wait before a statement is run again.

use std::time::Duration;

use interleaf_store::env::{Deadline, Env};

/// Shortest wait, before the jitter.
const FIRST: Duration = Duration::from_millis(1);

/// Longest wait, before the jitter.
const LONGEST: Duration = Duration::from_millis(100);

/// Waits that double up to [`LONGEST`], each somewhere between its half and itself, so that
/// writers who met once do not meet again and again, until a deadline.
#[derive(Debug)]
pub struct Backoff {
    env: Env,
    deadline: Deadline,
    next: Option<Duration>,
}

impl Backoff {
    /// Begins now, and ends after `limit`.
    pub fn start(env: Env, limit: Duration) -> Self {
        let deadline = env.deadline(limit);
        Self { env, deadline, next: None }
    }

    /// The next wait, cut to what is left; `None` after the deadline. The first one is
    /// always given.
    pub fn next(&mut self) -> Option<Duration> {
        let (whole, left) = match self.next {
            None => (FIRST, self.env.remaining(self.deadline).unwrap_or(FIRST)),
            Some(whole) => (whole, self.env.remaining(self.deadline).ok()?),
        };
        self.next = Some((whole * 2).min(LONGEST));
        // Without randomness (the system's source failed) the wait is the whole one.
        let part = self.env.random().map_or(u32::from(u16::MAX), |b| u16::from_be_bytes(b).into());
        Some((whole / 2 + whole / 2 * part / u32::from(u16::MAX)).min(left))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::time::Instant;

    use interleaf_store::Result;
    use interleaf_store::env::{Clock, Entropy};

    use super::*;

    /// A clock that stands still until it is told, and one random byte over and over.
    struct Fixed {
        now: Mutex<Instant>,
        byte: u8,
    }

    impl Clock for Fixed {
        fn unix_micros(&self) -> i64 {
            0
        }
        fn now(&self) -> Instant {
            *self.now.lock().unwrap()
        }
        fn sleep(&self, duration: Duration) {
            *self.now.lock().unwrap() += duration;
        }
    }

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) -> Result<()> {
            bytes.fill(self.byte);
            Ok(())
        }
    }

    fn env(byte: u8) -> Env {
        let fixed = Arc::new(Fixed { now: Mutex::new(Instant::now()), byte });
        Env { clock: fixed.clone(), entropy: fixed }
    }

    /// All waits until the deadline, each of them waited.
    fn waits(byte: u8, limit: Duration) -> Vec<Duration> {
        let env = env(byte);
        let mut backoff = Backoff::start(env.clone(), limit);
        let mut all = Vec::new();
        while let Some(wait) = backoff.next() {
            env.clock.sleep(wait);
            all.push(wait);
        }
        all
    }

    #[test]
    fn waits_double_up_to_the_longest_and_end_at_the_deadline() {
        let all = waits(0xff, Duration::from_secs(1));
        let millis: Vec<u128> = all.iter().take(9).map(Duration::as_millis).collect();
        assert_eq!(millis, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
        assert_eq!(all.iter().sum::<Duration>(), Duration::from_secs(1));
    }

    #[test]
    fn the_jitter_takes_off_at_most_half() {
        let (full, half) = (waits(0xff, LONGEST), waits(0, LONGEST));
        for (full, half) in full.iter().zip(&half).take(6) {
            assert_eq!(*half, *full / 2);
        }
    }

    #[test]
    fn the_first_wait_is_given_even_when_nothing_is_left() {
        let mut backoff = Backoff::start(env(1), Duration::ZERO);
        assert!(backoff.next().is_some());
        assert_eq!(backoff.next(), None);
    }
}
