//! Whether a directory has room for more.

use std::fs::{self, OpenOptions};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Room without which an embedded store is not expected to get on, in bytes: what the engine
/// writes out at once, with some to spare.
pub const ROOM_BYTES: u64 = 32 << 20;

/// Checks that files in `dir` can take `bytes` more. Quotas and the limit of this process's
/// files count as far as the file system can set room aside.
///
/// # Errors
/// `DiskFull` where they cannot, naming what is there; `Io` where it cannot be told.
pub fn check(dir: &Path, bytes: u64) -> Result<()> {
    let shown = dir.display();
    let io = |e: std::io::Error| Error::of_io(&format!("{shown}"), &e);
    let stat = statvfs(dir).map_err(|e| io(e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < bytes {
        return Err(Error::DiskFull {
            what: format!("{shown} has {free} bytes free, {bytes} are needed"),
        });
    }
    let probe = dir.join(format!("room.{}", std::process::id()));
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&probe);
    let file = file.map_err(io)?;
    // Without a name from here on: it goes with this process, whatever becomes of it.
    fs::remove_file(&probe).map_err(io)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // Not every file system can set room aside: what it says is free must do.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(e) => Err(Error::of_io(&format!("{shown}: setting {bytes} bytes aside"), &e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_and_nothing_is_left_of_the_question() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), 4096).unwrap();
        let error = check(dir.path(), 1 << 60).unwrap_err();
        assert!(matches!(&error, Error::DiskFull { what } if what.contains("free")), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let absent = check(&dir.path().join("absent"), 1).unwrap_err();
        assert!(matches!(absent, Error::Io { .. }), "{absent}");
    }
}
