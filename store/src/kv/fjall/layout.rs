//! A look at fjall's directory before fjall looks at it.
//!
//! Names that it does not expect make fjall panic while it holds a lock that its own
//! destructor takes again with `expect`: that ends the process, whatever is caught.

use std::ffi::OsStr;
use std::path::Path;

use crate::error::{Error, Result};

/// Written by fjall when everything else of a new store is there.
const VERSION_MARKER: &str = "version";
/// The version of fjall's files that this program knows.
const KNOWN_VERSION: u8 = 3;
const KEYSPACES: &str = "keyspaces";

/// Checks the directory `files`, if it is there, and removes what a process left in it
/// that died while it created the store: before the version marker is written there is no
/// keyspace, and nothing was ever acknowledged.
///
/// # Errors
/// `Corrupt`, naming what should not be there, or should be; `FormatVersion`; `Io`.
pub(super) fn check(files: &Path) -> Result<()> {
    let io = |e: std::io::Error| Error::Io { what: format!("{}: {e}", files.display()) };
    if !files.try_exists().map_err(io)? {
        return Ok(());
    }
    let corrupt = |path: &Path, why: &str| Error::Corrupt {
        what: format!("the engine's files: {} {why}", path.display()),
    };
    let keyspaces = files.join(KEYSPACES);
    let mut any_keyspace = false;
    if keyspaces.try_exists().map_err(io)? {
        for entry in std::fs::read_dir(&keyspaces).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_file() {
                continue;
            }
            if number(Some(&entry.file_name())).is_none() {
                return Err(corrupt(&entry.path(), "is no keyspace"));
            }
            any_keyspace = true;
        }
    }
    for entry in std::fs::read_dir(files).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let journal = path.extension().is_some_and(|extension| extension == "jnl");
        if journal && (number(path.file_stem()).is_none() || !path.is_file()) {
            return Err(corrupt(&path, "is no journal"));
        }
    }
    let marker = files.join(VERSION_MARKER);
    if !marker.try_exists().map_err(io)? {
        if any_keyspace {
            return Err(corrupt(&marker, "is missing"));
        }
        return std::fs::remove_dir_all(files).map_err(io);
    }
    match std::fs::read(&marker).map_err(io)?.as_slice() {
        [b'F', b'J', b'L', KNOWN_VERSION, ..] => Ok(()),
        [b'F', b'J', b'L', found, ..] => Err(Error::FormatVersion {
            what: format!("the engine's files in {}", files.display()),
            found: u32::from(*found),
            known: u32::from(KNOWN_VERSION),
        }),
        _ => Err(corrupt(&marker, "is no version marker")),
    }
}

fn number(name: Option<&OsStr>) -> Option<u64> {
    name?.to_str()?.parse().ok()
}
