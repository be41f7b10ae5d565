//! Stores of each kind for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use interleaf_store::api::Backend;
use interleaf_wire::ConnectOptions;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::process;
use crate::server::Server;
use crate::sql;

/// How a connection reaches the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `mem:`
    Mem,
    /// `dir:`, in this process.
    Dir,
    /// `unix:`, through a server of its own.
    Server,
}

/// A fresh store, gone with its test.
#[derive(Debug)]
pub struct TestStore {
    /// Its kind.
    pub kind: Kind,
    /// The server, for [`Kind::Server`].
    pub server: Option<Server>,
    /// Kept so that it is removed, after the server has gone.
    temp: TempDir,
    /// Part of every name: `mem:` is one store for all tests of a process.
    number: u64,
}

impl TestStore {
    /// A fresh store.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        sql::register();
        let temp = tempfile::Builder::new().prefix("interleaf-").tempdir().unwrap();
        let server = (kind == Kind::Server).then(|| Server::start(&temp.path().join("store")));
        Self { kind, server, temp, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    /// A directory for other files of the test.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.temp.path()
    }

    /// The store's directory, unless it is in memory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        match (&self.kind, &self.server) {
            (Kind::Mem, _) => "mem:".into(),
            (Kind::Server, Some(server)) => server.url(),
            _ => format!("dir:{}", self.dir().display()),
        }
    }

    /// The name in the store of this test's database `db`.
    #[must_use]
    pub fn name(&self, db: &str) -> String {
        format!("t{}-{db}", self.number)
    }

    /// The URI that opens it.
    #[must_use]
    pub fn uri(&self, db: &str) -> String {
        format!("file:{}?vfs=interleaf&store={}", self.name(db), self.url())
    }

    /// Opens it.
    #[must_use]
    pub fn open(&self, db: &str) -> Connection {
        self.open_more(db, "")
    }

    /// Opens it with more URI parameters, as in `&at=-1s`.
    #[must_use]
    pub fn open_more(&self, db: &str, parameters: &str) -> Connection {
        self.try_open(db, parameters).unwrap_or_else(|e| panic!("open {db}{parameters}: {e}"))
    }

    /// As [`open_more`](Self::open_more), where it may fail. SQLite opens lazily: so does
    /// this, up to the first statement.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn try_open(&self, db: &str, parameters: &str) -> rusqlite::Result<Connection> {
        Connection::open_with_flags(format!("{}{parameters}", self.uri(db)), flags())
    }

    /// Opens `main` and attaches `attached` under its own name.
    #[must_use]
    pub fn open_attached(&self, main: &str, attached: &str) -> Connection {
        let db = self.open(main);
        db.execute(&format!("ATTACH ?1 AS {attached}"), [self.uri(attached)]).unwrap();
        db
    }

    /// The store itself, behind the connections.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        interleaf_wire::connect(&self.url().parse().unwrap(), &ConnectOptions::default()).unwrap()
    }

    /// Records in the store. `mem:` is one store for all tests of a process: only differences
    /// count there, and only where no other test runs beside.
    #[must_use]
    pub fn records(&self) -> Records {
        let deadline = ConnectOptions::default().env.deadline(process::LIMIT);
        let counts = self.backend().count_records(deadline).unwrap().subspaces;
        let of = |name: &str| counts.get(name).unwrap_or_else(|| panic!("no {name}: {counts:?}")).0;
        Records {
            content: of("content"),
            pages: of("pages"),
            bytes: counts.values().map(|(_, bytes)| bytes).sum(),
        }
    }
}

/// What is in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// Content records: distinct pages.
    pub content: u64,
    /// Page records: pages of versions.
    pub pages: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
}

/// How tests open databases.
#[must_use]
pub fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
}
