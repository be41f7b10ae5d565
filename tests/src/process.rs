//! Processes that do not outlive their test.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// How long a process that ends by itself may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A child that is killed when the guard goes.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Starts a process.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child }
    }

    /// The child, for its pipes.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of process {}", self.id());
        wait::until(&what, limit, || self.ended())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl From<Child> for Guard {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // An error means that it has ended already.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// A command for `program`, behind the words that make it run elsewhere.
#[must_use]
pub fn entering(words: &[OsString], program: impl AsRef<OsStr>) -> Command {
    let Some((first, others)) = words.split_first() else {
        return Command::new(program);
    };
    let mut command = Command::new(first);
    command.args(others).arg(program);
    command
}

/// Runs a process to its end, within [`LIMIT`], and gives what it printed.
///
/// # Panics
/// Where it cannot be started or does not end.
#[must_use]
pub fn run(command: &mut Command) -> Output {
    run_within(command, "", LIMIT)
}

/// As [`run`], with `input` as its standard input and a limit of its own.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_within(command: &mut Command, input: &str, limit: Duration) -> Output {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut guard = Guard::spawn(command);
    let stdout = collect(guard.child().stdout.take().unwrap());
    let stderr = collect(guard.child().stderr.take().unwrap());
    let mut stdin = guard.child().stdin.take().unwrap();
    let input = input.as_bytes().to_vec();
    // On a thread: a process that reads nothing must not keep the limit from being noticed.
    let writer = std::thread::spawn(move || {
        // A process that ends without reading all closes the pipe: its own business.
        drop(stdin.write_all(&input));
    });
    let status = guard.wait(limit);
    writer.join().unwrap();
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// What a process printed, as text, both streams.
#[must_use]
pub fn text(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
