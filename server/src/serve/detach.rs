//! `--detach`: a server that outlives whoever starts it.
//!
//! This process starts another one that serves, waits until that one is ready or has
//! failed, and ends. The server is then nobody's child, in a session of its own, with its
//! messages in the log file of the store's directory.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use interleaf_store::url::StoreUrl;
use interleaf_wire::connect::create_private;

use super::directory::directory_of;
use super::restart::is_again;

/// Name of the log in the store's directory.
const LOG_NAME: &str = "server.log";

/// A log longer than this begins anew at the next start.
const LOG_LIMIT: u64 = 1 << 20;

/// Most bytes shown of what a server said that failed to start.
const SHOWN: u64 = 2048;

/// Set for the second process: leave the session, then serve.
const SECOND: &str = "INTERLEAF_DETACHED";

/// Whether this is the second process.
#[must_use]
pub fn is_second() -> bool {
    std::env::var_os(SECOND).is_some()
}

/// Leaves the session of whoever started this process.
///
/// # Errors
/// Where the system refuses.
pub fn leave_session() -> anyhow::Result<()> {
    if is_again() {
        return Ok(());
    }
    rustix::process::setsid().map(drop).context("leaving the session")
}

/// Starts this program again with the same arguments, and returns when it serves.
///
/// # Errors
/// What the server said when it failed.
pub fn start(store: &StoreUrl) -> anyhow::Result<()> {
    let Some(dir) = directory_of(store)? else {
        bail!("--detach needs an embedded store, whose directory holds the log");
    };
    create_private(&dir)?;
    let (log, begun, log_path) = open_log(&dir)?;
    // What the starter has open (a host's sockets and files) is not the server's.
    close_fds::set_fds_cloexec(3, &[]);
    let program = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(SECOND, "1")
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("starting the server")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("waiting for the server")?;
    }
    if !line.is_empty() {
        return Ok(());
    }
    let status = child.wait().context("waiting for the server")?;
    let said = said_since(&log_path, begun)?;
    let said = said.trim().trim_start_matches("interleaf: ");
    if said.is_empty() {
        bail!("the server ended ({status}) and said nothing; its log is {}", log_path.display());
    }
    bail!("{said}");
}

fn open_log(dir: &Path) -> anyhow::Result<(File, u64, PathBuf)> {
    let path = dir.join(LOG_NAME);
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let log = options.open(&path).with_context(|| path.display().to_string())?;
    let mut length = log.metadata()?.len();
    if length > LOG_LIMIT {
        log.set_len(0)?;
        length = 0;
    }
    Ok((log, length, path))
}

fn said_since(path: &Path, begun: u64) -> anyhow::Result<String> {
    let mut log = File::open(path)?;
    let end = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(begun.max(end.saturating_sub(SHOWN))))?;
    let mut said = Vec::new();
    log.take(SHOWN).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}
