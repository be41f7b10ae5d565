//! A FoundationDB cluster for one test binary, on the loopback interface or in network
//! namespaces.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::env;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the cluster may take until it is available.
const START_WAIT: Duration = Duration::from_secs(60);

/// How often a cluster is tried to be started: another process may take a port that was
/// free a moment ago.
const START_TRIES: usize = 3;

/// Seconds that one command of fdbcli may take.
const COMMAND_SECONDS: &str = "10";

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

/// How many processes a cluster has, and how it keeps data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One process, one copy.
    Single,
    /// Three processes, each a coordinator and a failure zone of its own; two copies.
    ThreeDouble,
}

impl Shape {
    const fn processes(self) -> usize {
        match self {
            Self::Single => 1,
            Self::ThreeDouble => 3,
        }
    }

    const fn redundancy(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::ThreeDouble => "double",
        }
    }
}

/// Where a process of a cluster runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address, which all other processes and the clients must reach.
    pub address: IpAddr,
    /// The words before its command that make it run there.
    pub enter: Vec<OsString>,
}

impl Place {
    /// This machine's loopback interface.
    const LOOPBACK: Self = Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), enter: Vec::new() };

    /// The words as a command to which a program and its arguments are added.
    fn command(&self, program: &Path) -> Command {
        let Some((first, others)) = self.enter.split_first() else {
            return Command::new(program);
        };
        let mut command = Command::new(first);
        command.args(others).arg(program);
        command
    }
}

/// A running cluster; gone when dropped, and when the process that started it ends.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
    tools: Tools,
    dir: TempDir,
}

/// One process of it.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    place: Place,
    /// `None` while it is dead.
    process: Option<Child>,
}

impl Cluster {
    /// Starts a cluster of one process with an empty database.
    ///
    /// # Errors
    /// Where a program fails, or the database is not available in time.
    pub fn start(tools: &Tools) -> io::Result<Self> {
        Self::start_as(tools, Shape::Single)
    }

    /// Starts a cluster with an empty database, and waits until it is available.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_as(tools: &Tools, shape: Shape) -> io::Result<Self> {
        Self::start_at(tools, shape, &vec![Place::LOOPBACK; shape.processes()])
    }

    /// As [`start_as`](Self::start_as), each process at a place of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start); also where there are not as many places as processes.
    pub fn start_at(tools: &Tools, shape: Shape, places: &[Place]) -> io::Result<Self> {
        if places.len() != shape.processes() {
            return Err(io::Error::other(format!("{} places for {shape:?}", places.len())));
        }
        let mut tries = 1;
        loop {
            match Self::try_start(tools, shape, places) {
                Err(error) if tries < START_TRIES => {
                    println!("FoundationDB, try {tries}: {error}");
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(tools: &Tools, shape: Shape, places: &[Place]) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("interleaf-fdb-").tempdir()?;
        // All are held until the last is chosen, so that they differ. A port that is free here
        // is free in a namespace in which nothing else listens.
        let held = (0..shape.processes())
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<io::Result<Vec<TcpListener>>>()?;
        let addresses = std::iter::zip(&held, places)
            .map(|(held, place)| Ok(SocketAddr::new(place.address, held.local_addr()?.port())))
            .collect::<io::Result<Vec<SocketAddr>>>()?;
        drop(held);
        let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        fs::write(dir.path().join(FILE), format!("test:test@{}\n", names.join(",")))?;
        let servers = std::iter::zip(addresses, places.to_vec())
            .map(|(address, place)| Server { address, place, process: None })
            .collect();
        let mut cluster = Self { servers, tools: tools.clone(), dir };
        cluster.restart()?;
        cluster.configure(shape)?;
        cluster.wait()?;
        if shape != Shape::Single {
            cluster.settle()?;
        }
        Ok(cluster)
    }

    fn spawn(&self, address: SocketAddr, place: &Place) -> io::Result<Child> {
        let of_port = |what: &str| format!("{what}{}", address.port());
        let server = place.command(&self.tools.server);
        match fs::remove_file(self.pid_file(address)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The shell ends the server when its input ends: also where this process is killed, and
        // where the server is stopped.
        const SHELL: &str =
            "file=$1; shift; \"$@\" & echo $! >\"$file\"; read -r line; kill -9 $!; wait";
        Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .arg(self.pid_file(address))
            .arg(server.get_program())
            .args(server.get_args())
            .args(["-p", &address.to_string(), "--memory", "4GiB", "--cache-memory", "128MiB"])
            .args(["--locality-zoneid", &of_port("zone"), "--locality-machineid", &of_port("m")])
            .arg("-C")
            .arg(self.file())
            .arg("-d")
            .arg(self.dir.path().join(of_port("data")))
            .arg("-L")
            .arg(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    /// Where the shell writes a server's process id.
    fn pid_file(&self, address: SocketAddr) -> PathBuf {
        self.dir.path().join(format!("pid{}", address.port()))
    }

    fn configure(&mut self, shape: Shape) -> io::Result<()> {
        let line = format!("configure new {} ssd", shape.redundancy());
        // A second attempt may find that the first one worked after all.
        self.command(&line, &["Database created", "already exists"])
    }

    /// Waits until the database can be used.
    ///
    /// # Errors
    /// Where that takes too long.
    pub fn wait(&mut self) -> io::Result<()> {
        self.command("status minimal", &["The database is available"])
    }

    /// Waits until the cluster has stopped to move its roles among its processes, each move
    /// being a recovery, in which commits have unknown results.
    fn settle(&self) -> io::Result<()> {
        const CALM: Duration = Duration::from_secs(3);
        let begun = Instant::now();
        let (mut generation, mut since) = (self.generation()?, begun);
        while since.elapsed() < CALM {
            if begun.elapsed() > START_WAIT {
                return Err(io::Error::other("the cluster does not come to rest"));
            }
            thread::sleep(Duration::from_millis(250));
            let now = self.generation()?;
            if now != generation {
                (generation, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// How many recoveries there have been, as the cluster tells it.
    fn generation(&self) -> io::Result<String> {
        let output = self.fdbcli("status json").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = text.split("\"generation\" :").nth(1).unwrap_or_default();
        Ok(number.trim_start().chars().take_while(char::is_ascii_digit).collect())
    }

    /// Runs a command of fdbcli until it answers one of `wanted`.
    fn command(&mut self, line: &str, wanted: &[&str]) -> io::Result<()> {
        let begun = Instant::now();
        let mut said = String::new();
        while begun.elapsed() < START_WAIT {
            for server in &mut self.servers {
                if let Some(process) = &mut server.process
                    && let Some(status) = process.try_wait()?
                {
                    write!(said, " ({} ended: {status})", server.address)
                        .map_err(io::Error::other)?;
                    return Err(io::Error::other(format!("{line}: {said}")));
                }
            }
            let output = self.fdbcli(line).output()?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
            if wanted.iter().any(|wanted| said.contains(wanted)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err(io::Error::other(format!("{line}: not in {START_WAIT:?}: {said}")))
    }

    /// A call of fdbcli, at the place of the first process.
    fn fdbcli(&self, line: &str) -> Command {
        let first = self.servers.first().map_or(Place::LOOPBACK, |server| server.place.clone());
        let mut command = first.command(&self.tools.cli);
        command
            .arg("-C")
            .arg(self.file())
            .args(["--timeout", COMMAND_SECONDS, "--exec", line])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The cluster file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    /// Stops all servers as kill -9 does.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        (0..self.servers.len()).try_for_each(|index| self.kill_one(index))
    }

    /// Stops one server as kill -9 does.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn kill_one(&mut self, index: usize) -> io::Result<()> {
        let process = self.servers.get_mut(index).and_then(|server| server.process.take());
        let Some(mut process) = process else { return Ok(()) };
        drop(process.stdin.take());
        process.wait().map(drop)
    }

    /// Stops all servers that live, as they are, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn pause(&self) -> io::Result<()> {
        self.servers.iter().try_for_each(|server| self.signal(server, "-STOP"))
    }

    /// Stops one server that lives, as it is, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// Where the system refuses, and where there is no such server.
    pub fn pause_one(&self, index: usize) -> io::Result<()> {
        let none = || io::Error::other(format!("no server {index}"));
        self.signal(self.servers.get(index).ok_or_else(none)?, "-STOP")
    }

    /// Lets all servers go on.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn resume(&self) -> io::Result<()> {
        self.servers.iter().try_for_each(|server| self.signal(server, "-CONT"))
    }

    /// A server's process id, as soon as its shell has written it.
    fn pid(&self, address: SocketAddr) -> io::Result<String> {
        let begun = Instant::now();
        loop {
            match fs::read_to_string(self.pid_file(address)) {
                Ok(line) if line.ends_with('\n') => return Ok(line.trim().to_owned()),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ if begun.elapsed() > START_WAIT => {
                    return Err(io::Error::other(format!("{address} has no process id")));
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Sends a signal to a server, if it lives.
    fn signal(&self, server: &Server, signal: &str) -> io::Result<()> {
        if server.process.is_none() {
            return Ok(());
        }
        let pid = self.pid(server.address)?;
        let status = Command::new("kill").args([signal, &pid]).status()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("kill {signal} {pid}: {status}")))
    }

    /// Starts all servers that are dead.
    ///
    /// # Errors
    /// Where one cannot be started.
    pub fn restart(&mut self) -> io::Result<()> {
        for index in 0..self.servers.len() {
            let Some(Server { address, place, process: None }) = self.servers.get(index) else {
                continue;
            };
            let process = self.spawn(*address, place)?;
            if let Some(server) = self.servers.get_mut(index) {
                server.process = Some(process);
            }
        }
        Ok(())
    }
}

/// Name of the cluster file within the cluster's directory.
const FILE: &str = "fdb.cluster";

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            println!("FoundationDB could not be stopped: {error}");
        }
    }
}
