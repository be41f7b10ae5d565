//! A FoundationDB cluster of one process, for one test binary.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the cluster may take until it is available.
const START_WAIT: Duration = Duration::from_secs(60);

/// FoundationDB's programs, and a client library that can be opened.
#[derive(Clone, Debug)]
pub struct Tools {
    server: PathBuf,
    cli: PathBuf,
}

impl Tools {
    /// The programs in `FDB_BIN`, else on PATH.
    ///
    /// # Errors
    /// What is missing: tests that need a cluster are then to be skipped.
    pub fn find() -> Result<Self, String> {
        let program = |name: &str| {
            let on_path = || env::var_os("PATH").unwrap_or_default();
            let dirs: OsString = env::var_os("FDB_BIN").unwrap_or_else(on_path);
            env::split_paths(&dirs)
                .map(|dir| dir.join(name))
                .find(|path| path.is_file())
                .ok_or_else(|| format!("no FoundationDB: {name} is neither in FDB_BIN nor on PATH"))
        };
        let tools = Self { server: program("fdbserver")?, cli: program("fdbcli")? };
        interleaf_fdb_link::load(None).map_err(|error| format!("no FoundationDB: {error}"))?;
        Ok(tools)
    }
}

/// A running cluster; gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    server: Child,
}

impl Cluster {
    /// Starts a cluster with an empty database on the loopback interface.
    ///
    /// # Errors
    /// Where a program fails, or the database is not available in time.
    pub fn start(tools: &Tools) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        // Free a moment ago; another process could take it, and the start would fail.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        fs::write(dir.path().join(FILE), format!("test:test@{address}\n"))?;
        let path = |name: &str| dir.path().join(name);
        // The shell ends the server when its input ends: also where this process is killed.
        let server = Command::new("sh")
            .args(["-c", "\"$@\" & read -r line; kill -9 $!; wait", "sh"])
            .arg(&tools.server)
            .args(["-p", &address, "--memory", "4GiB", "--cache-memory", "128MiB"])
            .arg("-C")
            .arg(path(FILE))
            .arg("-d")
            .arg(path("data"))
            .arg("-L")
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let cluster = Self { dir, server };
        cluster.configure(tools)?;
        Ok(cluster)
    }

    fn configure(&self, tools: &Tools) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let output = Command::new(&tools.cli)
                .arg("-C")
                .arg(self.file())
                .args(["--timeout", "20", "--exec", "configure new single ssd"])
                .stdin(Stdio::null())
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            // A second attempt may find that the first one worked after all.
            if text.contains("Database created") || text.contains("already exists") {
                return Ok(());
            }
            if begun.elapsed() > START_WAIT {
                return Err(io::Error::other(format!("the cluster does not start: {text}")));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The cluster file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    /// Stops the server as kill -9 does.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        drop(self.server.stdin.take());
        self.server.wait().map(drop)
    }
}

/// Name of the cluster file within the cluster's directory.
const FILE: &str = "fdb.cluster";

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
