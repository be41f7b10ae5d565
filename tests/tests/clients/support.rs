//! What the tests of this binary share: where the built libraries are, stores of their own,
//! programs with a deadline.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What a test says when it fails.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How a test ends.
pub type Outcome = Result<(), Failure>;

/// A program may take so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where this workspace's sources are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The directory of this build: `target/debug` or the like.
pub fn build_dir() -> Result<PathBuf, Failure> {
    let exe = std::env::current_exe()?;
    let dir =
        exe.parent().and_then(Path::parent).ok_or("the test binary has no target directory")?;
    Ok(dir.to_owned())
}

/// A built file that the tests are about.
pub fn artefact(name: &str) -> Result<PathBuf, Failure> {
    let path = build_dir()?.join(name);
    if !path.is_file() {
        return Err(
            format!("{} is missing; `cargo build --workspace` makes it", path.display()).into()
        );
    }
    Ok(path)
}

/// The loadable extension.
pub fn extension() -> Result<PathBuf, Failure> {
    artefact("libinterleaf.so")
}

/// The preload library.
pub fn preload() -> Result<PathBuf, Failure> {
    artefact("libinterleaf_preload.so")
}

/// A directory for what the tests install: kept from run to run, cleared by `cargo clean`.
pub fn cache_dir(name: &str) -> Result<PathBuf, Failure> {
    let dir = build_dir()?.parent().ok_or("no target directory")?.join("clients").join(name);
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
        Program { command, input: Vec::new(), patience: PATIENCE }
    }

    /// A program under the preload library.
    pub fn preloaded(&self, name: impl AsRef<OsStr>) -> Result<Program, Failure> {
        Ok(self.program(name).env("LD_PRELOAD", preload()?))
    }
}

/// A program to be run.
pub struct Program {
    command: Command,
    input: Vec<u8>,
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

    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    #[allow(dead_code, reason = "for programs that take long, such as whole test suites")]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it to its end, or to the end of the patience.
    pub fn run(mut self) -> Result<Ran, Failure> {
        let what = format!("{:?}", self.command);
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{what}: {e}"))?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let input = std::mem::take(&mut self.input);
        let writer = std::thread::spawn(move || {
            let mut stdin = stdin;
            // A program that ends before it has read everything says so by its exit code.
            stdin.write_all(&input).err();
        });
        let stdout = collect(child.stdout.take().ok_or("no stdout")?);
        let stderr = collect(child.stderr.take().ok_or("no stderr")?);
        let code = wait(&mut child, self.patience).map_err(|e| format!("{what}: {e}"))?;
        writer.join().map_err(|_| "the writer panicked")?;
        let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
            thread.join().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Ran {
            what,
            code,
            stdout: text(stdout).map_err(|_| "the reader panicked")?,
            stderr: text(stderr).map_err(|_| "the reader panicked")?,
        })
    }

    /// Runs it and gives what it printed; an error unless it ended with 0.
    pub fn succeed(self) -> Result<String, Failure> {
        let ran = self.run()?;
        if ran.code == Some(0) { Ok(ran.stdout) } else { Err(ran.report("exit code 0")) }
    }

    /// Runs it; an error unless it fails, and says each of `parts` on stdout or stderr.
    pub fn fail(self, parts: &[&str]) -> Outcome {
        let ran = self.run()?;
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

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what the test gets to see.
        from.read_to_end(&mut bytes).err();
        bytes
    })
}

fn wait(child: &mut Child, patience: Duration) -> Result<Option<i32>, Failure> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if begin.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Err(format!("still running after {} s", patience.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
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
