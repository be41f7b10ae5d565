//! `interleaf serve` under a test.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;

use crate::artefacts;
use crate::process::{self, Guard, LIMIT};

/// How long a server may take to be ready: a little more than it waits for its store.
const READY_LIMIT: Duration = Duration::from_secs(75);

/// A server, killed when this goes.
#[derive(Debug)]
pub struct Server {
    guard: Guard,
    setup: Setup,
}

/// How a server is started, and started again.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The URL of its store.
    pub store: String,
    /// Its socket.
    pub socket: PathBuf,
    /// More addresses to listen at, where other machines may reach them.
    pub listen: Vec<String>,
    /// The words before its command that make it run elsewhere.
    pub enter: Vec<OsString>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
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
        let setup = Setup { store, socket, ..Setup::default() };
        // These are for the first start alone.
        Self { guard: spawn(&setup, env), setup }
    }

    /// Starts a server on any store, at a socket.
    #[must_use]
    pub fn serve(store: &str, socket: &Path) -> Self {
        let (store, socket) = (store.to_owned(), socket.to_owned());
        Self::set_up(Setup { store, socket, ..Setup::default() })
    }

    /// Starts a server as `setup` says.
    #[must_use]
    pub fn set_up(setup: Setup) -> Self {
        Self { guard: spawn(&setup, &[]), setup }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.setup.socket.clone()
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
        self.guard = spawn(&self.setup, &[]);
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

fn spawn(setup: &Setup, env: &[(&str, &str)]) -> Guard {
    let mut command = process::entering(&setup.enter, artefacts::program());
    command.arg("serve").arg("--store").arg(&setup.store);
    command.arg("--listen").arg(format!("unix:{}", setup.socket.display()));
    for address in &setup.listen {
        command.args(["--listen", address, "--allow-insecure"]);
    }
    command
        .args(["--http", "127.0.0.1:0"])
        .envs(setup.env.iter().cloned())
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
    match receive.recv_timeout(READY_LIMIT) {
        Ok(_) => guard,
        Err(e) => panic!("no ready line from {command:?}: {e}; ended: {:?}", guard.ended()),
    }
}
