//! The desks: eight processes that write, and the auditor.

use std::fs::File;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::stage::Stage;
use crate::context::out;

/// How long after their time desks may take to come to an end.
const GRACE: Duration = Duration::from_secs(20);

/// The desk that is killed and started again.
const VICTIM: u32 = 5;

/// What the desks write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The database `flights` in the store.
    Interleaf,
    /// The file `plain.db`.
    Plain,
}

/// What a desk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The sqlite3 program, fed by a pipe; each statement a transaction.
    Pipe,
    /// Python with the extension.
    PythonExtension,
    /// Python under the preload library.
    PythonPreload,
    /// A shell script that runs sqlite3, with the extension, for each transaction.
    Script,
}

/// The desks by number.
pub const DESKS: [(u32, Kind); 8] = [
    (1, Kind::Pipe),
    (2, Kind::Pipe),
    (3, Kind::Pipe),
    (4, Kind::PythonExtension),
    (5, Kind::PythonExtension),
    (6, Kind::PythonPreload),
    (7, Kind::PythonPreload),
    (8, Kind::Script),
];

impl Kind {
    /// What it is, for the report.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Pipe => "sqlite3, preload",
            Self::PythonExtension => "python3, extension",
            Self::PythonPreload => "python3, preload",
            Self::Script => "sqlite3, extension",
        }
    }

    /// What it does, for the report.
    pub const fn work(self) -> &'static str {
        match self {
            Self::Pipe => "sells",
            Self::PythonExtension | Self::PythonPreload => "sells, delays; pays 2 ms",
            Self::Script => "cancels, a process each",
        }
    }

    /// How its process names itself in `out/`.
    const fn how(self, on: On) -> &'static str {
        match (on, self) {
            (On::Plain, _) => "plain",
            (On::Interleaf, Self::PythonPreload) => "preload",
            (On::Interleaf, _) => "extension",
        }
    }

    fn line(self, python: &str, on: On, desk: u32, seconds: u32) -> String {
        let statements =
            format!("yes \"$(sed s/DESK/{desk}/ scripts/sell.sql)\" | timeout {seconds}");
        match (on, self) {
            (On::Interleaf, Self::Pipe) => {
                format!("{statements} interleaf exec -- sqlite3 flights")
            }
            (On::Plain, Self::Pipe) => {
                format!("{statements} sqlite3 -cmd '.timeout 30000' plain.db")
            }
            (On::Interleaf, Self::PythonExtension) => {
                format!("{python} scripts/desk.py {desk} {seconds} extension")
            }
            (On::Interleaf, Self::PythonPreload) => {
                format!("interleaf exec -- {python} scripts/desk.py {desk} {seconds} preload")
            }
            (On::Plain, Self::PythonExtension | Self::PythonPreload) => {
                format!("{python} scripts/desk.py {desk} {seconds} plain plain.db")
            }
            (On::Interleaf, Self::Script) => {
                format!("sh scripts/cancel.sh {desk} {seconds} BEGIN interleaf shell flights")
            }
            (On::Plain, Self::Script) => format!(
                "sh scripts/cancel.sh {desk} {seconds} 'BEGIN IMMEDIATE' \
                 sqlite3 -cmd '.timeout 30000' plain.db"
            ),
        }
    }
}

impl On {
    /// How files in `out/` begin.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Interleaf => "interleaf",
            Self::Plain => "plain",
        }
    }
}

/// The file where a Python desk notes what was acknowledged to it.
pub fn ledger(kind: Kind, on: On, desk: u32) -> Option<String> {
    matches!(kind, Kind::PythonExtension | Kind::PythonPreload)
        .then(|| format!("out/{}-{desk}.acknowledged", kind.how(on)))
}

/// What a desk printed.
pub struct Transcript {
    /// Its number.
    pub desk: u32,
    /// Its stdout, that of a restarted desk's last process.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Processes at work; those that are left are killed in the end.
pub struct Crew {
    on: On,
    seconds: u32,
    desks: Vec<(u32, Child)>,
    auditor: Child,
}

impl Crew {
    /// Starts all.
    ///
    /// # Errors
    /// Where one cannot be started.
    pub fn start(stage: &Stage<'_>, on: On, seconds: u32) -> anyhow::Result<Self> {
        let python = stage.python();
        let line = match on {
            On::Interleaf => format!("{python} scripts/audit.py {seconds} extension"),
            On::Plain => format!("{python} scripts/audit.py {seconds} plain plain.db"),
        };
        for (desk, kind) in DESKS {
            stage.show(&format!("{} &", kind.line(python, on, desk, seconds)))?;
        }
        stage.show(&line)?;
        let auditor = stage.shell(&format!("exec {line}")).spawn().context(line)?;
        let mut crew = Self { on, seconds, desks: Vec::with_capacity(DESKS.len()), auditor };
        for (desk, kind) in DESKS {
            let child = spawn(stage, on, desk, &kind.line(python, on, desk, seconds))?;
            crew.desks.push((desk, child));
        }
        Ok(crew)
    }

    /// What they write to.
    pub const fn on(&self) -> On {
        self.on
    }

    /// kill -9 of one desk in the middle of its work, and a new process in its place.
    ///
    /// # Errors
    /// Where the new one cannot be started.
    pub fn kill_and_restart(&mut self, stage: &Stage<'_>, seconds: u32) -> anyhow::Result<()> {
        let Some((desk, child)) = self.desks.iter_mut().find(|(desk, _)| *desk == VICTIM) else {
            bail!("there is no desk {VICTIM}");
        };
        stage.show(&format!("kill -9 {}   # desk {desk}", child.id()))?;
        child.kill().context("kill")?;
        child.wait().context("the killed desk")?;
        let kind = DESKS.iter().find(|(number, _)| number == desk).map_or(Kind::Script, |d| d.1);
        let line = kind.line(stage.python(), self.on, *desk, seconds);
        stage.show(&format!("{line} &"))?;
        *child = spawn(stage, self.on, *desk, &line)?;
        Ok(())
    }

    /// Waits for the end of all; what the desks printed.
    ///
    /// # Errors
    /// Where the auditor found that something does not add up, or a desk does not end.
    pub fn wait(mut self, stage: &Stage<'_>) -> anyhow::Result<Vec<Transcript>> {
        let limit = stage.now() + Duration::from_secs(u64::from(self.seconds)) + GRACE;
        let audited = ended(stage, &mut self.auditor, limit, "the auditor")?;
        let mut transcripts = Vec::with_capacity(self.desks.len());
        for (desk, child) in &mut self.desks {
            ended(stage, child, limit, &format!("desk {desk}"))?;
            let read = |kind: &str| {
                let path = stage.path(&transcript(self.on, *desk, kind));
                std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
            };
            let (stdout, stderr) = (read("out")?, read("err")?);
            transcripts.push(Transcript { desk: *desk, stdout, stderr });
        }
        ensure!(audited.success(), "the auditor found totals that do not add up");
        out("\n")?;
        Ok(transcripts)
    }
}

/// Waits for a process to end.
fn ended(
    stage: &Stage<'_>,
    child: &mut Child,
    limit: Instant,
    what: &str,
) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().with_context(|| what.to_owned())? {
            return Ok(status);
        }
        ensure!(stage.now() < limit, "{what} did not come to its end");
        stage.context().env.clock.sleep(Duration::from_millis(20));
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in self.desks.iter_mut().map(|(_, child)| child).chain([&mut self.auditor]) {
            // Ended ones are reaped already; of the others nothing may stay behind.
            if matches!(child.try_wait(), Ok(None)) {
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

fn transcript(on: On, desk: u32, kind: &str) -> String {
    format!("out/{}-{desk}.{kind}", on.prefix())
}

/// Starts a desk; what it prints goes to `out/`.
fn spawn(stage: &Stage<'_>, on: On, desk: u32, line: &str) -> anyhow::Result<Child> {
    let file = |kind: &str| {
        let path = stage.path(&transcript(on, desk, kind));
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())
    };
    // `exec`, so that the process is the desk's own and not a shell's; a pipe needs the shell.
    let alone = !line.contains('|');
    let mut command = if alone { stage.shell(&format!("exec {line}")) } else { stage.shell(line) };
    command.stdin(Stdio::null()).stdout(file("out")?).stderr(file("err")?);
    command.spawn().with_context(|| line.to_owned())
}
