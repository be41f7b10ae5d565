//! A database of the store as a SQLite connection of this program, by the VFS.

use std::sync::Arc;

use interleaf_store::api::Backend;
use interleaf_store::types::{DatabaseName, Version};
use rusqlite::Connection;

use crate::context::Context;

/// Opens a database at its head.
///
/// # Errors
/// Those of the VFS.
pub fn open(
    _context: &Context,
    _backend: &Arc<dyn Backend>,
    name: &DatabaseName,
) -> anyhow::Result<Connection> {
    anyhow::bail!("{name}: the VFS is not there yet")
}

/// Opens a snapshot, read-only.
///
/// # Errors
/// Those of the VFS.
pub fn open_at(
    _context: &Context,
    _backend: &Arc<dyn Backend>,
    name: &DatabaseName,
    version: Version,
) -> anyhow::Result<Connection> {
    anyhow::bail!("{name}@{version}: the VFS is not there yet")
}
