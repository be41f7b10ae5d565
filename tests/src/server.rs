//! `interleaf serve` under a test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;

use crate::artefacts;
use crate::process::{Guard, LIMIT};

/// A server, killed when this goes.
#[derive(Debug)]
pub struct Server {
    guard: Guard,
    store: String,
    socket: PathBuf,
}

impl Server {
    /// Starts a server on the store in `dir` and waits until it is ready.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// As [`start`](Self::start), with more environment variables.
    ///
    /// # Panics
    /// Where it prints no ready line in time.
    #[must_use]
    pub fn start_with(dir: &Path, env: &[(&str, &str)]) -> Self {
        let (store, socket) = (format!("dir:{}", dir.display()), socket(dir));
        Self { guard: spawn(&store, &socket, env), store, socket }
    }

    /// Starts a server on any store, at a socket.
    #[must_use]
    pub fn serve(store: &str, socket: &Path) -> Self {
        let (store, socket) = (store.to_owned(), socket.to_owned());
        Self { guard: spawn(&store, &socket, &[]), store, socket }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// The store URL of its socket.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// The process.
    pub const fn process(&mut self) -> &mut Guard {
        &mut self.guard
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.guard.kill9();
    }

    /// Starts it again after it ended.
    pub fn restart(&mut self) {
        assert!(self.guard.ended().is_some(), "the server still runs");
        self.guard = spawn(&self.store, &self.socket, &[]);
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> ExitStatus {
        self.guard.signal(Signal::TERM);
        self.guard.wait(LIMIT)
    }
}

/// The socket of a server on the store in `dir`.
#[must_use]
pub fn socket(dir: &Path) -> PathBuf {
    interleaf_store::url::StoreUrl::socket_in(dir).unwrap()
}

fn spawn(store: &str, socket: &Path, env: &[(&str, &str)]) -> Guard {
    let mut command = Command::new(artefacts::program());
    command
        .arg("serve")
        .arg("--store")
        .arg(store)
        .arg("--listen")
        .arg(format!("unix:{}", socket.display()))
        .args(["--http", "127.0.0.1:0"])
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut guard = Guard::spawn(&mut command);
    let stdout = guard.child().stdout.take().unwrap();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        // The pipe is drained to its end, lest the server block on a full one.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(send.send(line));
        }
    });
    match receive.recv_timeout(Duration::from_secs(30)) {
        Ok(_) => guard,
        Err(e) => panic!("no ready line from {command:?}: {e}; ended: {:?}", guard.ended()),
    }
}
