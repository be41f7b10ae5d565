//! The signals that tell a server to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both of them, from when they are taken until the process ends: what comes after that is
/// nobody's who does not ask here.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over from the system, which would end the process.
    ///
    /// # Errors
    /// Those of the system.
    pub fn take() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for one; its name.
    pub async fn come(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// What `work` gives, and the signal that came meanwhile, the last of several.
    pub async fn while_waiting_for<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> (T, Option<&'static str>) {
        let mut work = std::pin::pin!(work);
        let mut came = None;
        loop {
            tokio::select! {
                biased;
                name = self.come() => came = Some(name),
                done = &mut work => return (done, came),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_is_not_lost_while_requests_are_finished() {
        let mut signals = Signals::take().unwrap();
        assert_eq!(signals.while_waiting_for(std::future::ready(7)).await, (7, None));
        let mut seen = Signals::take().unwrap();
        let work = async {
            kill_process(getpid(), Signal::TERM).unwrap();
            seen.come().await
        };
        assert_eq!(signals.while_waiting_for(work).await, ("SIGTERM", Some("SIGTERM")));
    }
}
