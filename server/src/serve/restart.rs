//! Starting over, once an engine that met a full disk can be opened anew.
//!
//! After a write that failed the engine takes no more, and what it holds in memory, bytes
//! of a half-written batch among them, is no longer to be trusted with the disk. So it is
//! not closed and opened in this process: the program is executed anew in place of itself.
//! That is what a crash and a start do to the store, which is tested more than anything,
//! without a supervisor; the process keeps its number, so that clients wait for it.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use interleaf_store::Error;
use interleaf_store::disk_space::{self, ROOM_BYTES};

use super::directory::Served;

/// How often a full disk is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Set for the program that is executed in place of this one.
const AGAIN: &str = "INTERLEAF_SERVE_AGAIN";

/// This program, also where its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Whether this process has served before.
#[must_use]
pub fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// Returns once the store has failed for want of space and there is some again. Other
/// failures are a person's to look into: trying again could make damage worse.
pub async fn room_again(served: &Served) {
    let Some((dir, _)) = &served.place else { return std::future::pending().await };
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !matches!(served.store.failure(), Some(Error::DiskFull { .. })) {
            continue;
        }
        let dir = dir.clone();
        let room = tokio::task::spawn_blocking(move || disk_space::check(&dir, ROOM_BYTES)).await;
        match room {
            Ok(Ok(())) => {
                tracing::warn!("there is space again: starting over");
                return;
            }
            Ok(Err(error)) if !told => {
                tracing::warn!(%error, "no commits until there is space: then this starts over");
                told = true;
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "looking for space failed"),
        }
    }
}

/// Executes this program anew in place of this process. Returns only where that fails.
pub fn start_over() -> anyhow::Error {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(THIS_PROGRAM);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).env(AGAIN, "1").exec();
    anyhow::Error::new(error).context("starting over after a full disk")
}
