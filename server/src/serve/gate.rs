//! How much the server takes on at once.

use std::sync::Arc;

use interleaf_wire::limits::{MAX_BODY, READ_REPLY_BYTES};
use interleaf_wire::message::Request;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Requests of one connection that may be in the works or have a reply waiting.
pub const IN_FLIGHT: u32 = 64;

/// Bytes of large requests and replies that the server holds at once, all connections
/// together.
pub const LARGE_BYTES: usize = 96 << 20;

/// A frame or reply from this size on counts against [`LARGE_BYTES`].
pub const LARGE: usize = 64 << 10;

/// Unit in which they are counted.
const UNIT: usize = 1 << 10;

// The largest request and its reply pass at once, so that nobody waits for himself.
const _: () = assert!(MAX_BODY + READ_REPLY_BYTES <= LARGE_BYTES);

/// Leave to work on a request, until its reply is written.
#[derive(Debug)]
pub struct Pass {
    _slot: OwnedSemaphorePermit,
    _large: Option<OwnedSemaphorePermit>,
}

impl Pass {
    /// Joins the leave to have a request's frame in memory with that to work on it.
    pub fn new(slot: OwnedSemaphorePermit, large: Option<OwnedSemaphorePermit>) -> Self {
        Self { _slot: slot, _large: large }
    }
}

/// Leave for large frames, shared by all connections.
#[derive(Clone, Debug)]
pub struct LargeGate(Arc<Semaphore>);

impl Default for LargeGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_BYTES / UNIT)))
    }
}

impl LargeGate {
    /// Waits for leave to hold `bytes`; small ones need none.
    pub async fn pass(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, AcquireError> {
        if bytes < LARGE {
            return Ok(None);
        }
        let units = u32::try_from(bytes.min(LARGE_BYTES) / UNIT).unwrap_or(u32::MAX);
        Arc::clone(&self.0).acquire_many_owned(units).await.map(Some)
    }
}

/// Most bytes that the reply to a request may take, where they are many.
pub fn reply_bytes(request: &Request<'_>) -> usize {
    match request {
        Request::Read(read) => read.pages.len().saturating_mul(4096 + 64).min(READ_REPLY_BYTES),
        Request::List { .. } | Request::Log(_) => READ_REPLY_BYTES / 2,
        _ => 0,
    }
}
