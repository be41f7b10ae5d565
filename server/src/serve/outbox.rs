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
const WRITE_LIMIT: Duration =
    if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(30) };

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

    /// Writes what waits, until the connection breaks. May be dropped and begun anew.
    pub async fn drain(&self) {
        loop {
            // Before the first wait too: whoever drained before may have taken the call.
            while !self.flush() {
                match tokio::time::timeout(WRITE_LIMIT, self.stream.writable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => self.state().broken = true,
                }
            }
            if self.state().broken {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Whether nothing waits any more.
    fn flush(&self) -> bool {
        let mut state = self.state();
        while !state.broken {
            let Some(mut pending) = state.queue.pop_front() else { return true };
            if !self.write(&mut state, &mut pending) {
                state.queue.push_front(pending);
                return false;
            }
        }
        state.queue.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::net::UnixStream;

    use super::*;

    /// More than a socket takes at once.
    const LARGE: usize = 4 << 20;

    fn outbox() -> (Arc<Outbox>, Stream) {
        let (one, other) = UnixStream::pair().unwrap();
        let outbox = Outbox::new(Arc::new(Stream::Unix(one)), Arc::default());
        (Arc::new(outbox), Stream::Unix(other))
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(30), test).await.unwrap();
        });
    }

    #[test]
    fn a_peer_that_reads_nothing_is_given_up() {
        run(async {
            let (outbox, _peer) = outbox();
            outbox.send(vec![1; LARGE], None);
            outbox.send(vec![2; LARGE], None);
            outbox.drain().await;
            assert!(outbox.state().queue.is_empty(), "nothing is kept for it");
            outbox.send(vec![3; LARGE], None);
            assert!(outbox.state().queue.is_empty(), "nor anything more taken");
        });
    }

    #[test]
    fn who_takes_over_the_draining_goes_on_with_it() {
        run(async {
            let (outbox, peer) = outbox();
            outbox.send(vec![1; LARGE], None);
            tokio::select! {
                biased;
                () = outbox.drain() => panic!("the peer is there"),
                () = tokio::task::yield_now() => {}
            }
            let received = async {
                let (mut bytes, mut count) = (BytesMut::new(), 0);
                while count < LARGE {
                    peer.readable().await.unwrap();
                    count += peer.try_read_buf(&mut bytes).unwrap_or(0);
                    bytes.clear();
                }
            };
            tokio::select! {
                () = outbox.drain() => panic!("the peer is there"),
                () = received => {}
            }
        });
    }
}
