//! Where the demo plays: its directory, its scripts, and shell lines run as they are shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use crate::context::{Context, out};
use crate::libraries;

/// The scripts, as they are written to `scripts/`.
const SCRIPTS: [(&str, &str); 6] = [
    ("load.sql", include_str!("../../demo/load.sql")),
    ("totals.sql", include_str!("../../demo/totals.sql")),
    ("sell.sql", include_str!("../../demo/sell.sql")),
    ("desk.py", include_str!("../../demo/desk.py")),
    ("cancel.sh", include_str!("../../demo/cancel.sh")),
    ("audit.py", include_str!("../../demo/audit.py")),
];

/// Where a Python is looked for. One that is built by hand often cannot load extensions.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

const TABLES: [&str; 5] = ["airlines", "airports", "planes", "weather", "flights"];

/// The demo's directory and what its shell lines need.
pub struct Stage<'a> {
    context: &'a Context,
    dir: PathBuf,
    bin: PathBuf,
    extension: PathBuf,
    python: &'static str,
    new: bool,
}

impl<'a> Stage<'a> {
    /// Checks that all is there, writes the scripts, and makes room for a new store unless
    /// `keep` is set and there is one.
    ///
    /// # Errors
    /// Where something is missing; the error says what to run.
    pub fn set_up(context: &'a Context, dir: &Path, keep: bool) -> anyhow::Result<Self> {
        check_data(dir)?;
        let dir = dir.canonicalize().with_context(|| format!("{}", dir.display()))?;
        let program = libraries::program()?;
        let bin = program.parent().context("the directory of this program")?.to_owned();
        libraries::preload()?;
        let extension = libraries::extension()?;
        let store = dir.join("store");
        let new = !(keep && store.is_dir());
        let out = dir.join("out");
        for old in new.then_some(store).iter().chain([&out]) {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| format!("{}", old.display()))?;
            }
        }
        let scripts = dir.join("scripts");
        for created in [&out, &scripts] {
            fs::create_dir_all(created).with_context(|| format!("{}", created.display()))?;
        }
        for (name, text) in SCRIPTS {
            let path = scripts.join(name);
            fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        }
        let mut stage = Self { context, dir, bin, extension, python: "python3", new };
        stage.check_programs()?;
        Ok(stage)
    }

    fn check_programs(&mut self) -> anyhow::Result<()> {
        if !self.works("sqlite3 -version")? {
            bail!("the demo needs the program sqlite3; on Debian: apt-get install sqlite3");
        }
        let test = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)";
        for python in PYTHONS {
            if self.works(&format!("{python} -c \"{test}\""))? {
                self.python = python;
                return Ok(());
            }
        }
        bail!(
            "the demo needs a Python whose sqlite3 can load extensions, as Debian's can: \
             apt-get install python3"
        )
    }

    fn works(&self, line: &str) -> anyhow::Result<bool> {
        let output = self.shell(line).output().with_context(|| line.to_owned())?;
        Ok(output.status.success())
    }

    /// A Python whose sqlite3 can load extensions.
    pub const fn python(&self) -> &'static str {
        self.python
    }

    /// Says what the shown lines need.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn introduce(&self) -> anyhow::Result<()> {
        out(format_args!(
            "Lines after $ are run as shown; in another terminal they need this first:\n\n{}\n\n",
            self.environment_line()
        ))
    }

    /// The line that makes the shown lines work.
    pub fn environment_line(&self) -> String {
        format!(
            "cd {} && export PATH={}:$PATH INTERLEAF_STORE={} INTERLEAF_EXTENSION={}",
            quoted(&self.dir.display().to_string()),
            quoted(&self.bin.display().to_string()),
            quoted(&self.store_url()),
            quoted(&self.extension.display().to_string()),
        )
    }

    /// The demo's store.
    pub fn store_url(&self) -> String {
        format!("dir:{}", self.dir.join("store").display())
    }

    /// What the command was given.
    pub const fn context(&self) -> &Context {
        self.context
    }

    /// Whether the store was empty at the start.
    pub const fn is_new(&self) -> bool {
        self.new
    }

    /// A path within the demo's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        self.context.env.clock.now()
    }

    /// Waits.
    pub fn sleep_until(&self, moment: Instant) {
        let left = moment.saturating_duration_since(self.now());
        self.context.env.clock.sleep(left);
    }

    /// A heading over the next step.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn heading(&self, text: &str) -> anyhow::Result<()> {
        out(format_args!("\n== {text}\n\n"))
    }

    /// Shows a shell line.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn show(&self, line: &str) -> anyhow::Result<()> {
        out(format_args!("$ {line}\n"))
    }

    /// A shell line, to be run here.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let mut path = self.bin.clone().into_os_string();
        if let Some(others) = std::env::var_os("PATH") {
            path.push(":");
            path.push(others);
        }
        command
            .arg("-c")
            .arg(line)
            .current_dir(&self.dir)
            .env("PATH", path)
            .env("INTERLEAF_STORE", self.store_url())
            .env("INTERLEAF_EXTENSION", &self.extension)
            // What the surroundings set must not change what the lines mean.
            .env_remove("LD_PRELOAD")
            .env_remove("INTERLEAF_DATABASES")
            .env_remove("INTERLEAF_DEFAULT_VFS")
            .stdin(Stdio::null());
        command
    }

    /// Shows a line and runs it; whether it succeeded.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn run(&self, line: &str) -> anyhow::Result<bool> {
        self.show(line)?;
        let status = self.shell(line).status().with_context(|| line.to_owned())?;
        Ok(status.success())
    }

    /// Shows a line and runs it.
    ///
    /// # Errors
    /// Where it fails.
    pub fn require(&self, line: &str) -> anyhow::Result<()> {
        ensure!(self.run(line)?, "this failed: {line}");
        Ok(())
    }

    /// Shows a line, runs it and gives what it printed.
    ///
    /// # Errors
    /// Where it fails.
    pub fn capture(&self, line: &str) -> anyhow::Result<String> {
        self.show(line)?;
        let text = self.quiet(line)?;
        out(format_args!("{text}\n"))?;
        Ok(text)
    }

    /// Runs a line without showing it, and gives what it printed.
    ///
    /// # Errors
    /// Where it fails.
    pub fn quiet(&self, line: &str) -> anyhow::Result<String> {
        let mut command = self.shell(line);
        let output = command.stderr(Stdio::inherit()).output().with_context(|| line.to_owned())?;
        ensure!(output.status.success(), "this failed: {line}");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+=@%,".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn check_data(dir: &Path) -> anyhow::Result<()> {
    let csv = dir.join("csv");
    for table in TABLES {
        let file = csv.join(format!("{table}.csv"));
        if !file.is_file() {
            bail!(
                "{} is missing; get the data with: make demo, or: scripts/demo-data.sh {}",
                file.display(),
                csv.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("dir:/a/b-c"), "dir:/a/b-c");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
    }
}
