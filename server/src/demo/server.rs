//! The demo's server: started, killed, started again, stopped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::stage::Stage;
use crate::context::out;

/// Where its usual ports are taken it does without them: the desks use its socket.
const LINE: &str = "interleaf serve";

/// How long a server may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A server that runs.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it and waits until it says that it is ready.
    ///
    /// # Errors
    /// Where it ends before that.
    pub fn start(stage: &Stage<'_>) -> anyhow::Result<Self> {
        stage.show(&format!("{LINE} &"))?;
        let mut command = stage.shell(&format!("exec {LINE}"));
        let mut child = command.stdout(Stdio::piped()).spawn().context("interleaf serve")?;
        let stdout = child.stdout.take().context("the server's stdout")?;
        let server = Self { child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("the server's stdout")?;
        ensure!(!line.is_empty(), "the server ended before it was ready");
        out(&line)?;
        Ok(server)
    }

    /// kill -9, and a new one; how long it was away.
    ///
    /// # Errors
    /// Where the new one does not start.
    pub fn kill_and_restart(&mut self, stage: &Stage<'_>) -> anyhow::Result<Duration> {
        stage.show(&format!("kill -9 {}   # the server", self.child.id()))?;
        let killed = stage.now();
        self.signal(Signal::KILL)?;
        self.child.wait().context("the killed server")?;
        *self = Self::start(stage)?;
        Ok(stage.now().saturating_duration_since(killed))
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// Where it does not end in time, or with an error.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("the server")? {
                break status;
            }
            ensure!(waited < STOP, "the server did not stop within {} s", STOP.as_secs());
            std::thread::sleep(step);
            waited += step;
        };
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("kill")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a clean stop there is nothing left to kill; after an error nothing more to say.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
