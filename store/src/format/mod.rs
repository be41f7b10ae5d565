//! Keys and records: `docs/format.md` in code, and nothing else that knows their bytes.
//!
//! * [`keys`] builds and takes apart keys.
//! * [`records`] holds the small values: catalog, allocation, page records, staging.
//! * [`log`] holds the log entry, which may be cut into parts.

pub mod delta;
pub mod keys;
pub mod log;
pub mod records;

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Version of the whole format, in the `format` record. A program that knows less refuses
/// the store: it would not see what commits of any size wrote, nor read small changes.
pub const FORMAT_VERSION: u16 = 3;

/// The oldest format whose records all mean the same today: such a store becomes one of
/// [`FORMAT_VERSION`] when it is opened.
pub const OLDEST_FORMAT: u16 = 1;

/// Schema version at the start of every value.
pub const SCHEMA: u8 = 1;

/// Most bytes of a log entry in one value; with its key it stays well below every engine's
/// value limit (FoundationDB: 100,000). Small in unit tests, so that those see many parts.
pub const LOG_PART_BYTES: usize = if cfg!(test) { 160 } else { 80_000 };

/// Longest `client` text of a log entry, in bytes.
pub const MAX_CLIENT_BYTES: usize = 64;

/// A value's writer, its schema byte written.
fn value() -> Writer {
    value_of(64)
}

/// As [`value`], for the values of every commit: at most so many bytes, schema and all. One
/// that fills them takes no more memory, and an engine may keep it as it is.
fn value_of(bytes: usize) -> Writer {
    let mut writer = Writer::with_capacity(bytes);
    writer.u8(SCHEMA);
    writer
}

/// A value's reader behind its schema byte.
fn reader<'a>(bytes: &'a [u8], what: &'static str) -> Result<Reader<'a>> {
    let mut reader = Reader::new(bytes, what);
    match reader.u8()? {
        SCHEMA => Ok(reader),
        found => Err(Error::FormatVersion {
            what: what.to_owned(),
            found: u32::from(found),
            known: u32::from(SCHEMA),
        }),
    }
}
