//! What the tests of this binary share: where the built libraries are, stores of their own,
//! programs with a deadline.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use interleaf_tests::{artefacts, process};
use tempfile::TempDir;

/// What a test says when it fails.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How a test ends.
pub type Outcome = Result<(), Failure>;

/// A program may take so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where this workspace's sources are.
pub fn sources() -> PathBuf {
    artefacts::repository().join("tests/clients")
}

/// A built file that the tests are about.
pub fn artefact(name: &str) -> PathBuf {
    artefacts::artefact(name)
}

/// The loadable extension.
pub fn extension() -> PathBuf {
    artefact("libinterleaf.so")
}

/// The preload library.
pub fn preload() -> PathBuf {
    artefact("libinterleaf_preload.so")
}

/// A directory for what the tests install: kept from run to run, cleared by `cargo clean`.
pub fn cache_dir(name: &str) -> Result<PathBuf, Failure> {
    let target = artefacts::target_dir();
    let dir = target.parent().ok_or("no target directory")?.join("clients").join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Whether a program of this name can be started.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// A store of its own, gone at the end of the test, and a directory to work in.
pub struct World {
    root: TempDir,
}

impl World {
    pub fn new() -> Result<Self, Failure> {
        let root = TempDir::new()?;
        std::fs::create_dir(root.path().join("work"))?;
        Ok(Self { root })
    }

    /// The directory in which programs run.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.root.path().join("store")
    }

    /// A program with this store and nothing else from Interleaf in its environment.
    pub fn program(&self, name: impl AsRef<OsStr>) -> Program {
        let mut command = Command::new(name);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("INTERLEAF_") {
                command.env_remove(key);
            }
        }
        let mut url = OsString::from("dir:");
        url.push(self.store());
        command.env("INTERLEAF_STORE", url).current_dir(self.dir());
        Program { command, input: String::new(), patience: PATIENCE }
    }

    /// A program under the preload library.
    pub fn preloaded(&self, name: impl AsRef<OsStr>) -> Result<Program, Failure> {
        Ok(self.program(name).env("LD_PRELOAD", preload()))
    }
}

/// A program to be run.
pub struct Program {
    command: Command,
    input: String,
    patience: Duration,
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// The command, to be started otherwise.
    pub fn command(self) -> Command {
        self.command
    }

    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = text.into();
        self
    }

    #[allow(dead_code, reason = "for programs that take long, such as whole test suites")]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it to its end; a panic at the end of the patience.
    pub fn run(mut self) -> Ran {
        let what = format!("{:?}", self.command);
        let output = process::run_within(&mut self.command, &self.input, self.patience);
        let (stdout, stderr) = process::text(&output);
        Ran { what, code: output.status.code(), stdout, stderr }
    }

    /// Runs it and gives what it printed; an error unless it ended with 0.
    pub fn succeed(self) -> Result<String, Failure> {
        let ran = self.run();
        if ran.code == Some(0) { Ok(ran.stdout) } else { Err(ran.report("exit code 0")) }
    }

    /// Runs it; an error unless it fails, and says each of `parts` on stdout or stderr.
    pub fn fail(self, parts: &[&str]) -> Outcome {
        let ran = self.run();
        if matches!(ran.code, Some(0) | None) {
            return Err(ran.report("an error"));
        }
        for part in parts {
            if !ran.stderr.contains(part) && !ran.stdout.contains(part) {
                return Err(ran.report(&format!("{part:?} in its message")));
            }
        }
        Ok(())
    }
}

impl Ran {
    /// An error that shows everything.
    pub fn report(&self, expected: &str) -> Failure {
        let mut text = format!("{}\nexpected {expected}, got code {:?}", self.what, self.code);
        for (name, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if write!(text, "\n--- {name}\n{output}").is_err() {
                break;
            }
        }
        text.into()
    }
}

/// Fails unless both are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(format!("found    {found:?}\nexpected {expected:?}").into())
    }
}

/// Fails unless the text contains the part.
pub fn contains(text: &str, part: &str) -> Outcome {
    if text.contains(part) { Ok(()) } else { Err(format!("{part:?} is not in:\n{text}").into()) }
}

/// The second extension, compiled for this test; `None` where SQLite's headers are not to be
/// found.
pub fn second_extension() -> Result<PathBuf, Failure> {
    let library = cache_dir("second_extension")?.join("secondextension.so");
    let source = sources().join("second_extension.c");
    let made = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    if library.is_file() && made(&library)? >= made(&source)? {
        return Ok(library);
    }
    let headers = sqlite_headers()?;
    let unfinished = tempfile::NamedTempFile::new_in(cache_dir("second_extension")?)?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(headers)
        .arg(&source)
        .arg("-o")
        .arg(unfinished.path())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    // Another test may be at it too: a rename never shows a half-written file.
    unfinished.persist(&library)?;
    Ok(library)
}

/// The directory with sqlite3ext.h: the system's, or that of the bundled SQLite, which cargo
/// has unpacked.
fn sqlite_headers() -> Result<PathBuf, Failure> {
    const HEADER: &str = "sqlite3ext.h";
    let system = PathBuf::from("/usr/include");
    if system.join(HEADER).is_file() {
        return Ok(system);
    }
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sources = home.ok_or("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    for registry in std::fs::read_dir(&sources)? {
        for package in std::fs::read_dir(registry?.path())? {
            let package = package?;
            if package.file_name().to_string_lossy().starts_with("libsqlite3-sys-") {
                let dir = package.path().join("sqlite3");
                if dir.join(HEADER).is_file() {
                    return Ok(dir);
                }
            }
        }
    }
    Err(format!("{HEADER} is neither in /usr/include nor below {}", sources.display()).into())
}
