//! Starting a server for the default store.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use interleaf_store::env::{Deadline, Env};
use interleaf_store::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::ConnectOptions;
use super::lock::FileLock;
use crate::client::{Client, ClientOptions, Endpoint, Revive};

/// Name of the program.
const PROGRAM: &str = "interleaf";

/// Locked by the process that starts a server, so that two do not.
const START_LOCK: &str = "start.lock";

/// Most bytes kept of what a server says that fails to start.
const MAX_COMPLAINT: u64 = 4096;

/// Starts `interleaf serve` on a directory.
pub(super) struct Autostart {
    dir: PathBuf,
    socket: PathBuf,
    binary: Option<PathBuf>,
    beside: Option<PathBuf>,
    env: Env,
    client: ClientOptions,
}

impl Autostart {
    pub(super) fn new(dir: &Path, socket: &Path, options: &ConnectOptions) -> Self {
        Self {
            dir: dir.to_owned(),
            socket: socket.to_owned(),
            binary: options.server_binary.clone(),
            beside: options.beside.clone(),
            env: options.env.clone(),
            client: options.client(),
        }
    }

    fn program(&self) -> Result<PathBuf> {
        let path = std::env::var_os("PATH");
        find_program(self.binary.as_deref(), self.beside.as_deref(), path.as_deref()).ok_or_else(
            || Error::Unavailable {
                what: format!(
                    "{} needs a server, and the program {PROGRAM} is neither beside the library \
                     nor on PATH: set INTERLEAF_BIN to it, or INTERLEAF_AUTOSTART=0 to open the \
                     store in one process alone",
                    self.dir.display()
                ),
            },
        )
    }

    fn start(&self, deadline: Deadline) -> Result<()> {
        let program = self.program()?;
        let mut store = std::ffi::OsString::from("dir:");
        store.push(&self.dir);
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .arg("--store")
            .arg(store)
            .args(["--idle-exit", "--detach"])
            .current_dir(&self.dir)
            // The server is no client: it wants none of what was preloaded into this process.
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let failed = |what: String| Error::Unavailable {
            what: format!("starting {} serve: {what}", program.display()),
        };
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        // `--detach` returns when the server answers, or has failed and said why.
        let complaint = match child.stderr.take() {
            Some(stderr) => self.listen(stderr, deadline),
            None => Ok(String::new()),
        };
        match complaint {
            Ok(complaint) => match self.exit_of(&mut child) {
                Some(false) => Err(failed(complaint.trim().to_owned())),
                _ => Ok(()),
            },
            Err(error) => {
                // Killed, not left: it is this process's child.
                if let Err(error) = child.kill() {
                    tracing::debug!(%error, "the starter was gone already");
                }
                self.exit_of(&mut child);
                Err(failed(error.to_string()))
            }
        }
    }

    /// Whether the child ended well; `None` where the host's own handling of children took
    /// its exit code: the socket will tell.
    fn exit_of(&self, child: &mut Child) -> Option<bool> {
        match child.wait() {
            Ok(status) => Some(status.success()),
            Err(error) => {
                tracing::debug!(%error, "the starter's exit code went elsewhere");
                None
            }
        }
    }

    /// What the child says until it ends.
    fn listen(&self, stderr: ChildStderr, deadline: Deadline) -> Result<String> {
        let mut text = Vec::new();
        let mut stderr = stderr.take(MAX_COMPLAINT);
        loop {
            let left = self.env.remaining(deadline)?;
            let timeout = Timespec::try_from(left)
                .map_err(|_| Error::Io { what: "a wait too long for poll".into() })?;
            let mut fds = [PollFd::new(stderr.get_ref(), PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(Error::Io { what: format!("poll: {error}") }),
            }
            let mut some = [0; 512];
            let count = stderr
                .read(&mut some)
                .map_err(|e| Error::Io { what: format!("the starter's messages: {e}") })?;
            if count == 0 {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            text.extend_from_slice(some.get(..count).unwrap_or_default());
        }
    }
}

impl Revive for Autostart {
    fn revive(&self, deadline: Deadline) -> Result<()> {
        super::create_private(&self.dir)?;
        let lock = FileLock::acquire(&self.dir.join(START_LOCK), &self.env, deadline)?;
        // Another process may have started one while this one waited for the lock.
        let there = || {
            let endpoints = vec![Endpoint::Unix(self.socket.clone())];
            Client::connect(endpoints, self.client.clone(), deadline).map(drop)
        };
        let result = match there() {
            // One that was starting over, or by other hands, may be what was in the way.
            Err(Error::Unavailable { .. }) => {
                self.start(deadline).or_else(|error| there().map_err(|_| error))
            }
            result => result,
        };
        drop(lock);
        result
    }
}

/// The program: as named, else beside the library (or the program that calls), else on PATH.
fn find_program(
    named: Option<&Path>,
    beside: Option<&Path>,
    path: Option<&OsStr>,
) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    let beside = beside.and_then(Path::parent).map(|dir| dir.join(PROGRAM));
    let on_path = path.into_iter().flat_map(std::env::split_paths).map(|dir| dir.join(PROGRAM));
    beside.into_iter().chain(on_path).find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

impl std::fmt::Debug for Autostart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Autostart").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_program_is_found_as_named_then_beside_then_on_path() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str, mode| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            let program = path.join(PROGRAM);
            std::fs::write(&program, "").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (lib, bin, plain) = (place("lib", 0o755), place("bin", 0o755), place("plain", 0o644));
        let path = std::env::join_paths([&plain, &bin]).unwrap();
        let beside = lib.join("libinterleaf.so");
        let named = PathBuf::from("/named");
        assert_eq!(find_program(Some(&named), Some(&beside), Some(&path)), Some(named));
        assert_eq!(find_program(None, Some(&beside), Some(&path)), Some(lib.join(PROGRAM)));
        let elsewhere = plain.join("libinterleaf.so");
        assert_eq!(find_program(None, Some(&elsewhere), Some(&path)), Some(bin.join(PROGRAM)));
        assert_eq!(find_program(None, None, Some(&path)), Some(bin.join(PROGRAM)));
        assert_eq!(find_program(None, Some(&elsewhere), None), None);
    }
}
