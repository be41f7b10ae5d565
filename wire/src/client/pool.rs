//! Sockets kept between requests, for each process that uses the client.
//!
//! A process may fork while other threads of it use the client. The child has its own
//! slot, so that it never waits for a lock that only the parent could release, and never
//! writes to a connection that the parent uses.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::socket::Socket;

/// Sockets kept for one process; one more is closed after its request.
const KEPT_SOCKETS: usize = 32;

/// Processes, each a fork of the one before, that get a slot. A later one opens a socket
/// for each request.
const SLOTS: usize = 8;

#[derive(Debug, Default)]
struct Slot {
    /// The process that it belongs to; 0 for none yet. Set once.
    owner: AtomicU32,
    sockets: Mutex<Vec<Socket>>,
    /// Whether the last that was heard of the server was a reply.
    answered: AtomicBool,
}

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: [Slot; SLOTS],
}

impl Pool {
    /// A socket that is idle, the one used last first.
    pub(super) fn take(&self) -> Option<Socket> {
        let slot = self.mine()?;
        slot.sockets.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Whether the server that answered last is there still, as far as this machine knows.
    /// Where all sockets are at work, their requests will tell.
    pub(super) fn is_connected(&self) -> bool {
        let Some(slot) = self.mine() else { return false };
        let sockets = slot.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        slot.answered.load(Ordering::Relaxed) && sockets.last().is_none_or(Socket::is_connected)
    }

    /// Keeps a socket that is idle again.
    pub(super) fn give(&self, socket: Socket) {
        let Some(slot) = self.mine() else { return };
        let mut sockets = slot.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        slot.answered.store(true, Ordering::Relaxed);
        if sockets.len() < KEPT_SOCKETS {
            sockets.push(socket);
        }
    }

    /// Closes what is idle: its server is gone.
    pub(super) fn clear(&self) {
        if let Some(slot) = self.mine() {
            let mut sockets = slot.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            slot.answered.store(false, Ordering::Relaxed);
            let idle = std::mem::take(&mut *sockets);
            drop(sockets);
            drop(idle);
        }
    }

    /// This process's slot; `None` where there is none left.
    fn mine(&self) -> Option<&Slot> {
        let me = std::process::id();
        for slot in &self.slots {
            match slot.owner.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.close_inherited(me);
                    return Some(slot);
                }
                Err(owner) if owner == me => return Some(slot),
                Err(_) => {}
            }
        }
        None
    }

    /// Closes this process's copies of its ancestors' sockets. Nothing is shut down: the
    /// connections stay theirs. A list that was locked at the fork stays as it is.
    fn close_inherited(&self, me: u32) {
        for slot in &self.slots {
            if slot.owner.load(Ordering::Acquire) != me
                && let Ok(mut sockets) = slot.sockets.try_lock()
            {
                sockets.clear();
            }
        }
    }
}
