//! The replies of one connection on their way out.
//!
//! Whoever has a reply writes it at once, from whatever thread, where nothing waits before
//! it; what the socket does not take is written by the connection's own task.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::gate::Pass;
use super::metrics::Metrics;
use super::stream::Stream;

/// How long a peer may take no byte of a reply before its connection is closed.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

struct Pending {
    frame: Vec<u8>,
    written: usize,
    /// Held until the reply is written: bounds the memory of replies that wait.
    _pass: Option<Pass>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Pending>,
    broken: bool,
}

/// The replies of one connection.
pub struct Outbox {
    stream: Arc<Stream>,
    state: Mutex<State>,
    wake: Notify,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// An empty one.
    pub fn new(stream: Arc<Stream>, metrics: Arc<Metrics>) -> Self {
        Self { stream, state: Mutex::default(), wake: Notify::new(), metrics }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame, now or as soon as the peer takes it.
    pub fn send(&self, frame: Vec<u8>, pass: Option<Pass>) {
        self.metrics.bytes_out.inc_by(frame.len() as u64);
        let mut state = self.state();
        let mut pending = Pending { frame, written: 0, _pass: pass };
        let done = state.broken || (state.queue.is_empty() && self.write(&mut state, &mut pending));
        if !done {
            state.queue.push_back(pending);
            self.wake.notify_one();
        }
    }

    /// Writes what the socket takes; whether there is nothing left to write.
    fn write(&self, state: &mut State, pending: &mut Pending) -> bool {
        while let Some(rest) = pending.frame.get(pending.written..).filter(|r| !r.is_empty()) {
            match self.stream.try_write(rest) {
                Ok(count) => pending.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    tracing::debug!(%error, "a client went away before its reply");
                    state.broken = true;
                    self.wake.notify_one();
                    return true;
                }
            }
        }
        true
    }

    /// Writes what waits, until the connection breaks.
    pub async fn drain(&self) {
        loop {
            self.wake.notified().await;
            while !self.flush() {
                match tokio::time::timeout(WRITE_LIMIT, self.stream.writable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => self.state().broken = true,
                }
            }
            if self.state().broken {
                return;
            }
        }
    }

    /// Whether nothing waits any more.
    fn flush(&self) -> bool {
        let mut state = self.state();
        while let Some(mut pending) = state.queue.pop_front() {
            if !self.write(&mut state, &mut pending) {
                state.queue.push_front(pending);
                return false;
            }
            if state.broken {
                state.queue.clear();
            }
        }
        true
    }
}
