//! The server's marker in an embedded store's directory.
//!
//! While the process that it names lives, and for some seconds after, clients wait for
//! that process's socket instead of opening the directory themselves. The server removes
//! it when it stops cleanly, and touches it while it runs, so that the time of its death
//! can be told.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interleaf_store::env::Clock;
use interleaf_store::{Error, Result};

/// Name of the marker in the store's directory.
pub const MARKER_NAME: &str = "server.mark";

/// How long after a server's death clients leave the directory to the next server.
pub const GRACE: Duration = Duration::from_secs(5);

/// How often a running server touches its marker.
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(1);

/// What a marker says about the directory's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no marker: no server, or one that stopped cleanly.
    None,
    /// The server lives.
    Alive {
        /// Its process.
        pid: u32,
    },
    /// The server died a moment ago: another may follow.
    Died {
        /// Its process.
        pid: u32,
        /// How much longer to wait for it.
        wait: Duration,
    },
    /// The server died long ago.
    Gone {
        /// Its process.
        pid: u32,
    },
}

/// Names one process of one run of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProcessMark {
    pid: u32,
    /// When it began, in clock ticks since the machine did: tells it from a later process
    /// of the same number.
    started: u64,
    /// The machine's run.
    boot: String,
}

impl ProcessMark {
    fn of(pid: u32) -> Result<Option<Self>> {
        let Some(started) = start_of(pid)? else { return Ok(None) };
        Ok(Some(Self { pid, started, boot: boot_id()? }))
    }

    fn to_text(&self) -> String {
        format!("process {}\nstarted {}\nboot {}\n", self.pid, self.started, self.boot)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Self {
            pid: field("process")?.parse().ok()?,
            started: field("started")?.parse().ok()?,
            boot: field("boot")?.to_owned(),
        })
    }
}

/// This process's marker in a directory, until it is dropped.
#[derive(Debug)]
pub struct Marker {
    path: PathBuf,
    file: fs::File,
}

impl Marker {
    /// Puts this process's marker into `dir`, in place of any other. The caller holds the
    /// directory's lock.
    ///
    /// # Errors
    /// `Io`.
    pub fn put(dir: &Path) -> Result<Self> {
        let path = dir.join(MARKER_NAME);
        let mark = ProcessMark::of(std::process::id())?
            .ok_or_else(|| io("/proc", "this process is not listed in it"))?;
        // Whole or absent, at every moment.
        let draft = dir.join(format!("{MARKER_NAME}.{}", std::process::id()));
        fs::write(&draft, mark.to_text()).map_err(|e| io(draft.display(), e))?;
        fs::rename(&draft, &path).map_err(|e| io(path.display(), e))?;
        let file =
            fs::OpenOptions::new().write(true).open(&path).map_err(|e| io(path.display(), e))?;
        Ok(Self { path, file })
    }

    /// Says that this process lives still.
    ///
    /// # Errors
    /// `Io`.
    pub fn touch(&self) -> Result<()> {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        rustix::fs::futimens(&self.file, &times).map_err(|e| io(self.path.display(), e))
    }

    /// Removes it.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| io(self.path.display(), e))
    }
}

/// What the marker in `dir` says.
///
/// # Errors
/// `Io`.
pub fn standing(dir: &Path, clock: &dyn Clock) -> Result<Standing> {
    Seen::look(dir)?.map_or(Ok(Standing::None), |seen| seen.standing(clock))
}

/// A marker as it was found; it may be gone, or another's, by the time it is judged.
struct Seen {
    path: PathBuf,
    file: fs::File,
    text: String,
}

impl Seen {
    fn look(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(MARKER_NAME);
        let absent = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
        let mut file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if absent(error.kind()) => return Ok(None),
            Err(error) => return Err(io(path.display(), error)),
        };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| io(path.display(), e))?;
        Ok(Some(Self { path, file, text }))
    }

    fn standing(&self, clock: &dyn Clock) -> Result<Standing> {
        let path = self.path.display();
        let Some(mark) = ProcessMark::parse(&self.text) else {
            tracing::warn!(%path, "a server's marker that cannot be read: ignored");
            return Ok(Standing::Gone { pid: 0 });
        };
        let pid = mark.pid;
        if mark.boot != boot_id()? {
            return Ok(Standing::Gone { pid });
        }
        if start_of(pid)? == Some(mark.started) {
            return Ok(Standing::Alive { pid });
        }
        // Of the file that was read: a server that stopped since has removed its name.
        let touched = rustix::fs::fstat(&self.file).map_err(|e| io(path, e))?;
        let touched_micros = touched.st_mtime.saturating_mul(1_000_000)
            + i64::try_from(touched.st_mtime_nsec / 1000).unwrap_or(0);
        // A clock that was set back since makes the death look recent: then the wait is longer.
        let since = clock.unix_micros().saturating_sub(touched_micros).max(0);
        let since = Duration::from_micros(since.unsigned_abs());
        Ok(match (GRACE + TOUCH_INTERVAL).checked_sub(since) {
            Some(wait) if !wait.is_zero() => Standing::Died { pid, wait },
            _ => Standing::Gone { pid },
        })
    }
}

/// Removes what a dead server left. The caller holds the directory's lock.
///
/// # Errors
/// `Io`.
pub fn clear(dir: &Path) -> Result<()> {
    let path = dir.join(MARKER_NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io(path.display(), error)),
        _ => Ok(()),
    }
}

/// When a process began, in clock ticks since the machine did; `None` where there is no
/// such process, or only its unread exit code.
fn start_of(pid: u32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // ESRCH: it ended while it was read.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(3) => {
            return Ok(None);
        }
        Err(error) => return Err(io(path, error)),
    };
    // The second field is the program's name in parentheses and may hold anything; the
    // third is the state, the 22nd the start.
    let after_name = text.rsplit_once(") ").map(|(_, rest)| rest);
    let mut fields = after_name.ok_or_else(|| io(&path, "not understood"))?.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return Ok(None);
    }
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    started.map(Some).ok_or_else(|| io(&path, "not understood"))
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|e| io(path, e))
}

fn io(path: impl std::fmt::Display, error: impl std::fmt::Display) -> Error {
    Error::Io { what: format!("{path}: {error}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use interleaf_store::env::SystemClock;

    use super::*;

    struct Later(i64);

    impl Clock for Later {
        fn unix_micros(&self) -> i64 {
            SystemClock.unix_micros() + self.0
        }
        fn now(&self) -> Instant {
            Instant::now()
        }
        fn sleep(&self, _: Duration) {}
    }

    fn dead_process() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn a_living_server_is_seen_until_it_removes_its_marker() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        assert_eq!(standing(dir.path(), &*clock).unwrap(), Standing::None);
        let marker = Marker::put(dir.path()).unwrap();
        marker.touch().unwrap();
        let me = std::process::id();
        assert_eq!(standing(dir.path(), &*clock).unwrap(), Standing::Alive { pid: me });
        marker.remove().unwrap();
        assert_eq!(standing(dir.path(), &*clock).unwrap(), Standing::None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn a_dead_server_is_waited_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dead_process();
        let mark = ProcessMark { pid, started: 1, boot: boot_id().unwrap() };
        fs::write(dir.path().join(MARKER_NAME), mark.to_text()).unwrap();
        let now = standing(dir.path(), &SystemClock).unwrap();
        assert!(matches!(now, Standing::Died { pid: p, .. } if p == pid), "{now:?}");
        let later = Later(7_000_000);
        assert_eq!(standing(dir.path(), &later).unwrap(), Standing::Gone { pid });
        let earlier = Later(-3_600_000_000);
        assert!(matches!(standing(dir.path(), &earlier).unwrap(), Standing::Died { .. }));
        clear(dir.path()).unwrap();
        clear(dir.path()).unwrap();
        assert_eq!(standing(dir.path(), &SystemClock).unwrap(), Standing::None);
    }

    #[test]
    fn a_marker_that_is_removed_while_it_is_looked_at_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mark = ProcessMark { pid: dead_process(), started: 1, boot: boot_id().unwrap() };
        fs::write(dir.path().join(MARKER_NAME), mark.to_text()).unwrap();
        let seen = Seen::look(dir.path()).unwrap().unwrap();
        // As a server does that stops cleanly, and then ends.
        clear(dir.path()).unwrap();
        let standing = seen.standing(&SystemClock).unwrap();
        assert!(matches!(standing, Standing::Died { pid, .. } if pid == mark.pid), "{standing:?}");
        assert!(Seen::look(dir.path()).unwrap().is_none());
    }

    #[test]
    fn another_process_of_the_same_number_is_not_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let me = ProcessMark::of(std::process::id()).unwrap().unwrap();
        let put = |mark: &ProcessMark| {
            fs::write(dir.path().join(MARKER_NAME), mark.to_text()).unwrap();
            standing(dir.path(), &SystemClock).unwrap()
        };
        let earlier = ProcessMark { started: me.started - 1, ..me.clone() };
        assert!(matches!(put(&earlier), Standing::Died { .. }));
        let other_run = ProcessMark { boot: "another".into(), ..me.clone() };
        assert_eq!(put(&other_run), Standing::Gone { pid: me.pid });
        assert_eq!(put(&me), Standing::Alive { pid: me.pid });
        fs::write(dir.path().join(MARKER_NAME), "rubbish").unwrap();
        assert_eq!(standing(dir.path(), &SystemClock).unwrap(), Standing::Gone { pid: 0 });
    }
}
