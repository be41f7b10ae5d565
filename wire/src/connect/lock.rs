//! A lock between processes, taken within a deadline.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use interleaf_store::env::{Deadline, Env};
use interleaf_store::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::POLL;

/// A file's lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits for the lock of `path`, creating the file where it is absent.
    pub(super) fn acquire(path: &Path, env: &Env, deadline: Deadline) -> Result<Self> {
        let io = |e: std::io::Error| Error::Io { what: format!("{}: {e}", path.display()) };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(io)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    env.remaining(deadline)?;
                    env.clock.sleep(POLL);
                }
                Err(error) => return Err(io(error.into())),
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Explicitly: a process forked meanwhile has the same open file and would hold the
        // lock with it.
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "a lock could not be released");
        }
    }
}
