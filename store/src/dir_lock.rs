//! The lock of an embedded store's directory: one process at a time.
//!
//! The file `LOCK` is held by `flock`, which the system releases however the process
//! ends, and names its holder, so that whoever finds it held can say by whom. It stays
//! in the directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Name of the lock file in the store's directory.
const LOCK_FILE: &str = "LOCK";

/// Longest command line shown, in characters.
const COMMAND_CHARS: usize = 200;

/// Holds a directory until it is dropped.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    /// The process that took it.
    process: u32,
}

impl DirLock {
    /// Takes the lock of `directory`, which exists.
    ///
    /// # Errors
    /// `Locked`, naming the process that holds it; `Io`.
    pub(crate) fn acquire(directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK_FILE);
        let io = |e: std::io::Error| Error::of_io(&path.display().to_string(), &e);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Locked {
                    path: directory.display().to_string(),
                    holder: holder(&mut file),
                });
            }
            Err(e) => return Err(io(e.into())),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io)?;
        Ok(Self { file, process: std::process::id() })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Explicitly: a program that another thread is just starting has the same open file
        // between its fork and its exec, and would hold the lock with it. Not in a child that
        // inherited this value: the lock is its parent's.
        if self.process != std::process::id() {
            return;
        }
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "the lock of a store's directory could not be released");
        }
    }
}

/// Who holds the lock, as well as it can be told.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let pid = match file.take(32).read_to_string(&mut text) {
        Ok(_) => text.trim().parse::<u32>().ok(),
        Err(_) => None,
    };
    // A holder that has just begun has not written its id yet.
    let Some(pid) = pid else { return "another process".into() };
    if pid == std::process::id() {
        return format!("this process ({pid})");
    }
    match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) if !line.is_empty() => {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
            format!("process {pid} ({})", line.chars().take(COMMAND_CHARS).collect::<String>())
        }
        // The lock outlives its taker in a child that inherited it.
        _ => format!("process {pid} or a child of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let Err(Error::Locked { path, holder }) = DirLock::acquire(dir.path()) else {
            panic!("must be locked");
        };
        assert_eq!(path, dir.path().display().to_string());
        assert_eq!(holder, format!("this process ({})", std::process::id()));
        drop(lock);
        drop(DirLock::acquire(dir.path()).unwrap());
    }

    #[test]
    fn a_lock_that_was_dropped_is_free_though_its_file_is_still_open_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        // What a child has between its fork and its exec: the same open file.
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        let again = DirLock::acquire(dir.path()).unwrap();
        drop(inherited);
        // The other way round: what a forked child drops takes nothing from its parent.
        let childs = DirLock { file: again.file.try_clone().unwrap(), process: again.process + 1 };
        drop(childs);
        assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Locked { .. })));
    }

    #[test]
    fn holders_are_named_as_well_as_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let named = |text: &str| {
            let path = dir.path().join("x");
            std::fs::write(&path, text).unwrap();
            holder(&mut File::open(path).unwrap())
        };
        assert_eq!(named(""), "another process");
        assert_eq!(named("rubbish"), "another process");
        assert_eq!(named("4294967295\n"), "process 4294967295 or a child of it");
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero();
        assert!(named(&parent.to_string()).starts_with(&format!("process {parent} (")));
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(DirLock::acquire(&missing), Err(Error::Io { .. })));
    }
}
