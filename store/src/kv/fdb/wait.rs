//! Blocking on FoundationDB's futures, never past a deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::super::{KvError, KvResult};
use crate::env::{Clock, Deadline};

/// Wakes a blocked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// One waker for all waits of a thread: a wake that comes late, for a future given up
    /// before, only makes the next wait look once more.
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// What `future` gives. The future is dropped, and so cancelled, at the deadline.
///
/// # Errors
/// [`KvError::Timeout`] at the deadline.
pub(super) fn wait<F>(mut future: F, deadline: Deadline, clock: &dyn Clock) -> KvResult<F::Output>
where
    F: Future + Unpin,
{
    // A thread that is ending has no waker left; such a caller polls.
    let waker = WAKER.try_with(Waker::clone).unwrap_or_else(|_| Waker::noop().clone());
    let mut context = Context::from_waker(&waker);
    let longest = if waker.will_wake(Waker::noop()) { POLL } else { Duration::MAX };
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut context) {
            return Ok(output);
        }
        let left = remaining(deadline, clock)?;
        thread::park_timeout(left.min(longest));
    }
}

/// How often a thread without a waker looks.
const POLL: Duration = Duration::from_millis(1);

/// What is left until the deadline.
///
/// # Errors
/// [`KvError::Timeout`] where nothing is.
pub(super) fn remaining(deadline: Deadline, clock: &dyn Clock) -> KvResult<Duration> {
    let timeout = |_| KvError::Timeout { after: deadline.timeout() };
    deadline.remaining(clock.now()).map_err(timeout)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use super::*;
    use crate::env::SystemClock;

    fn deadline(millis: u64) -> Deadline {
        Deadline::after(SystemClock.now(), Duration::from_millis(millis))
    }

    #[test]
    fn a_ready_future_answers_also_past_the_deadline() {
        assert_eq!(wait(ready(7), deadline(0), &SystemClock), Ok(7));
    }

    #[test]
    fn nothing_is_waited_for_past_the_deadline() {
        let after = Duration::from_millis(20);
        let timeout = Err(KvError::Timeout { after });
        assert_eq!(wait(pending::<()>(), deadline(20), &SystemClock), timeout);
    }

    #[test]
    fn another_thread_wakes_the_wait() {
        let (send, receive) = std::sync::mpsc::channel::<Waker>();
        let waking = thread::spawn(move || receive.recv().unwrap().wake());
        let mut polls = 0;
        let future = poll_fn(move |context| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            send.send(context.waker().clone()).unwrap();
            Poll::Pending
        });
        assert_eq!(wait(future, deadline(10_000), &SystemClock), Ok(()));
        waking.join().unwrap();
    }
}
