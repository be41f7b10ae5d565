//! `interleaf serve` as a child process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A running server; ended when dropped.
pub struct Server {
    child: Child,
    /// Its store's directory.
    pub dir: PathBuf,
}

/// The program `interleaf`, which stands beside this one.
pub fn program() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("interleaf");
    if !path.exists() {
        bail!("{} is missing: cargo build --release -p interleaf", path.display());
    }
    Ok(path)
}

/// How many records a store has, and of how many bytes, by the name of the subspace.
pub fn records(store: &str) -> Result<BTreeMap<String, (u64, u64)>> {
    let output = Command::new(program()?)
        .args(["status", "--records", "--json", "--store", store])
        .output()?;
    if !output.status.success() {
        bail!("interleaf status: {}", String::from_utf8_lossy(&output.stderr));
    }
    let status: Value = serde_json::from_slice(&output.stdout)?;
    let records = status.get("records").and_then(Value::as_object).context("records")?;
    let number = |record: &Value, name: &str| {
        record.get(name).and_then(Value::as_u64).with_context(|| format!("{name} in {record}"))
    };
    records
        .iter()
        .map(|(name, record)| {
            Ok((name.clone(), (number(record, "records")?, number(record, "bytes")?)))
        })
        .collect()
}

impl Server {
    /// Starts a server on an embedded store and waits until it is ready.
    pub fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut child = Command::new(program()?)
            .args(["serve", "--store", &format!("dir:{}", dir.display())])
            .args(["--listen", &format!("unix:{}", dir.join("interleaf.sock").display())])
            .args(["--http", "off"])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting interleaf serve")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the server's output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("interleaf serve ended at once: {}", child.wait()?);
        }
        Ok(Self { child, dir: dir.to_owned() })
    }

    /// The URL of its socket.
    pub fn url(&self) -> String {
        format!("unix:{}", self.dir.join("interleaf.sock").display())
    }

    /// Largest resident memory of the server so far, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib << 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        if !matches!(stop, Some(Ok(()))) {
            eprintln!("the server could not be told to stop: {stop:?}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("waiting for the server: {error}");
        }
    }
}
