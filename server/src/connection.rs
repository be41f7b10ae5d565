//! A database of the store as a SQLite connection of this program, by the VFS.

use std::time::Duration;

use anyhow::Context as _;
use interleaf_store::types::{DatabaseName, Version};
use interleaf_store::when::When;
use interleaf_vfs::config::Config;
use rusqlite::{Connection, OpenFlags};

use crate::context::{Context, Target};
use crate::libraries;

/// Opens a database at its head.
///
/// # Errors
/// Those of the VFS.
pub fn open(context: &Context, name: &DatabaseName) -> anyhow::Result<Connection> {
    open_target(context, &Target { name: name.clone(), when: None })
}

/// Opens a snapshot, read-only.
///
/// # Errors
/// Those of the VFS.
pub fn open_at(
    context: &Context,
    name: &DatabaseName,
    version: Version,
) -> anyhow::Result<Connection> {
    open_target(context, &Target { name: name.clone(), when: Some(When::Version(version)) })
}

fn open_target(context: &Context, target: &Target) -> anyhow::Result<Connection> {
    register(context)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(target.uri(), flags).with_context(|| target.to_string())?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Makes the VFS known to this program's SQLite; the first call decides for which store.
fn register(context: &Context) -> anyhow::Result<()> {
    let bin = context.config.bin.clone().map_or_else(libraries::program, Ok)?;
    let config = Config {
        store: context.store.clone(),
        default_vfs: false,
        bin: Some(bin),
        ..context.config.clone()
    };
    interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config)?;
    Ok(())
}
