//! The FoundationDB cluster of a test program, and whether there can be one.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

#[path = "../../store/tests/support/fdb_cluster.rs"]
mod cluster;

pub use self::cluster::{Cluster, Place, Shape, Tools};

/// One cluster of one process for all tests, started by the first one that needs it.
static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

/// The cluster file of that cluster.
///
/// # Errors
/// What of FoundationDB is missing, or why it did not start.
pub fn file() -> Result<PathBuf, String> {
    let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = &*cluster {
        return Ok(cluster.file());
    }
    let started = Cluster::start(&Tools::find()?).map_err(|error| error.to_string())?;
    Ok(cluster.insert(started).file())
}

/// Stops it: to be called at the end, as nothing else does before the process is gone.
pub fn stop() {
    drop(CLUSTER.lock().unwrap_or_else(PoisonError::into_inner).take());
}
