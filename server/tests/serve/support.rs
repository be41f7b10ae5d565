//! Servers, clients and frames for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interleaf_store::api::{
    AllocationChange, Backend, BeginReply, BeginRequest, CommitPart, CommitRequest, OpenReply,
    OpenRequest,
};
use interleaf_store::env::{Deadline, Env};
use interleaf_store::kv::Durability;
use interleaf_store::types::{CommitId, DatabaseName, PageCount, PageNumber};
use interleaf_wire::frame::parse_header;
use interleaf_wire::limits::HEADER_LEN;
use interleaf_wire::message::{ClientHello, Reply, Request};
use interleaf_wire::{ConnectOptions, connect};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything in these tests may take.
pub const LIMIT: Duration = Duration::from_secs(30);

pub fn deadline() -> Deadline {
    Env::system().deadline(LIMIT)
}

/// The program, with nothing of this environment that it would heed.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interleaf"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("INTERLEAF_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A running server, killed when it is dropped.
pub struct Server {
    child: Child,
    /// The line that it printed when it was ready.
    pub line: String,
    stderr: Option<ChildStderr>,
}

impl Server {
    /// Starts `interleaf serve ARGS` and waits until it is ready; else what it said.
    pub fn try_start(args: &[&str]) -> Result<Self, String> {
        let mut command = program();
        command.arg("serve").args(args);
        Self::run(command)
    }

    /// The same by a command that becomes the server.
    pub fn run(mut command: Command) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        if line.is_empty() {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
            return Err(said);
        }
        Ok(Self { child, line, stderr: Some(stderr) })
    }

    pub fn start(args: &[&str]) -> Self {
        Self::try_start(args).unwrap()
    }

    /// One on a directory, at its socket only.
    pub fn on(dir: &Path) -> Self {
        Self::start(&["--store", &dir_url(dir), "--idle-exit=3600"])
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What stands behind `prefix` in the ready line, as in `tcp://`.
    pub fn address(&self, prefix: &str) -> String {
        let word = self.line.split_whitespace().find(|word| word.starts_with(prefix));
        word.unwrap_or_else(|| panic!("no {prefix} in {:?}", self.line)).to_owned()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code, and what was said on stderr.
    pub fn stop(mut self) -> (Option<i32>, String) {
        signal(self.pid(), Signal::TERM);
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        self.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }

    /// Waits for an end that nobody asks for.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

pub fn dir_url(dir: &Path) -> String {
    format!("dir:{}", dir.display())
}

pub fn socket_url(dir: &Path) -> String {
    format!("unix:{}", socket(dir).display())
}

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("interleaf.sock")
}

pub fn options(timeout: Duration) -> ConnectOptions {
    ConnectOptions { timeout, autostart: false, ..ConnectOptions::default() }
}

pub fn client(url: &str) -> Arc<dyn Backend> {
    connect(&url.parse().unwrap(), &options(LIMIT)).unwrap()
}

pub fn page(number: u32) -> PageNumber {
    PageNumber::new(number).unwrap()
}

/// A page of `size` bytes that says `text`.
pub fn page_of(text: &str, size: usize) -> Bytes {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(size, 0);
    Bytes::from(bytes)
}

pub fn commit_id() -> CommitId {
    CommitId::from_bytes(Env::system().random().unwrap())
}

/// A database and how to change it.
pub struct Database<'a> {
    pub backend: &'a dyn Backend,
    pub open: OpenReply,
}

impl<'a> Database<'a> {
    pub fn open(backend: &'a dyn Backend, name: &str) -> Self {
        let name = DatabaseName::new(name).unwrap();
        let request = OpenRequest { name, create: true, at: None };
        Self { backend, open: backend.open(&request, deadline()).unwrap() }
    }

    pub fn begin(&self) -> BeginReply {
        let request = BeginRequest { branch: self.open.branch, at: None, known: None };
        self.backend.begin(&request, deadline()).unwrap()
    }

    /// A commit of these pages that begins now; it grows the database where it must.
    pub fn change(&self, writes: Vec<(PageNumber, Bytes)>) -> CommitRequest {
        let begun = self.begin();
        let size = writes.iter().map(|(page, _)| page.get()).max().unwrap_or(0);
        let mut after = begun.allocation;
        after.pages = PageCount(size.max(after.pages.0));
        let length = writes.first().map_or(4096, |(_, bytes)| bytes.len());
        after.page_size =
            interleaf_store::types::PageSize::new(u32::try_from(length).unwrap()).unwrap();
        let change = AllocationChange { snapshot: begun.snapshot, before: begun.allocation, after };
        CommitRequest {
            id: commit_id(),
            incarnation: begun.incarnation,
            durability: Durability::Buffered,
            client: "test".into(),
            parts: vec![CommitPart {
                database: self.open.database,
                branch: self.open.branch,
                domain: self.open.domain,
                snapshot: begun.snapshot,
                reads: writes.iter().map(|(page, _)| *page).collect(),
                writes,
                hashes: Vec::new(),
                staged: false,
                allocation: (after != begun.allocation).then_some(change),
            }],
        }
    }

    /// The text of a page now.
    pub fn text(&self, number: u32) -> String {
        let request = interleaf_store::api::ReadRequest {
            branch: self.open.branch,
            snapshot: self.begin().snapshot,
            incarnation: None,
            pages: vec![page(number)],
        };
        let pages = self.backend.read(&request, deadline()).unwrap();
        String::from_utf8_lossy(&pages[0].bytes).trim_end_matches('\0').to_owned()
    }
}

/// A connection without a client: frames as the test makes them.
pub struct Raw(pub UnixStream);

impl Raw {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    /// One that has said hello.
    pub fn greeted(path: &Path) -> Self {
        let mut raw = Self::connect(path);
        let hello = ClientHello { capabilities: 0, software: "test".into() };
        raw.send(&hello.encode(1).unwrap());
        assert!(matches!(raw.receive(), Some((1, Reply::Hello(_)))));
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn ask(&mut self, id: u64, request: &Request<'_>) {
        self.send(&request.encode(id, 10_000).unwrap());
    }

    /// The next reply; `None` at the end.
    pub fn receive(&mut self) -> Option<(u64, Reply)> {
        let frame = read_frame(&mut self.0)?;
        let header = parse_header(&frame).unwrap().unwrap();
        Some((header.request, Reply::decode(header.kind, &frame[HEADER_LEN..]).unwrap()))
    }
}

/// A whole frame; `None` at the end or where the connection breaks.
pub fn read_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER_LEN];
    stream.read_exact(&mut frame).ok()?;
    let header = parse_header(&frame).unwrap().unwrap();
    frame.resize(header.frame_len(), 0);
    stream.read_exact(&mut frame[HEADER_LEN..]).ok()?;
    Some(frame)
}
