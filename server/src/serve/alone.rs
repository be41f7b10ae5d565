//! Whether one client is at work alone.
//!
//! With several, a commit that waits for the disk must not hold up what others ask, and the
//! hand-over to other threads costs little beside what commits save that meet. One alone
//! would only wait for those threads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Requests in a row from one connection that make it the only one at work.
const ENOUGH: u32 = 16;

/// A batch that takes longer is never written by the thread that serves sockets: another
/// client that comes meanwhile waits that long, once.
const QUICK: Duration = Duration::from_millis(1);

/// Who asked last. Requests may be counted wrong when two come at once: nothing but time
/// depends on it.
#[derive(Debug, Default)]
pub struct Alone {
    last: AtomicU64,
    in_a_row: AtomicU32,
    /// What the last batches took to write, in nanoseconds.
    led: AtomicU64,
}

impl Alone {
    /// A request of that connection.
    pub fn asks(&self, connection: u64) {
        if self.last.swap(connection, Ordering::Relaxed) == connection {
            let before = self.in_a_row.load(Ordering::Relaxed);
            self.in_a_row.store(before.saturating_add(1), Ordering::Relaxed);
        } else {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Whether nobody else has asked for some time.
    pub fn is(&self, connection: u64) -> bool {
        self.last.load(Ordering::Relaxed) == connection
            && self.in_a_row.load(Ordering::Relaxed) >= ENOUGH
    }

    /// Batches were written.
    pub fn led(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.led.store(nanos, Ordering::Relaxed);
    }

    /// Whether that connection's commits may be written where its requests are read.
    pub fn may_lead(&self, connection: u64) -> bool {
        self.is(connection) && u128::from(self.led.load(Ordering::Relaxed)) < QUICK.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_alone_until_another_asks() {
        let alone = Alone::default();
        for _ in 0..100 {
            alone.asks(7);
        }
        assert!(alone.is(7) && alone.may_lead(7) && !alone.is(8));
        alone.led(Duration::from_millis(5));
        assert!(alone.is(7) && !alone.may_lead(7), "a slow disk");
        alone.led(Duration::from_micros(200));
        assert!(alone.may_lead(7));
        alone.asks(8);
        assert!(!alone.is(7) && !alone.is(8));
        for round in 0..100 {
            alone.asks(round % 2);
            assert!(!alone.is(0) && !alone.is(1));
        }
    }
}
