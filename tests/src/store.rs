//! Stores of each kind for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use interleaf_store::StoreOptions;
use interleaf_store::api::Backend;
use interleaf_wire::ConnectOptions;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::process;
use crate::server::Server;
use crate::sql;
use crate::wait;

/// How a connection reaches the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `mem:`
    Mem,
    /// `dir:`, in this process.
    Dir,
    /// `unix:`, through a server of its own.
    Server,
    /// `fdb:`, in this process.
    Fdb,
    /// `unix:`, through a server on `fdb:`.
    FdbServer,
}

impl Kind {
    /// Whether this machine has what such a store needs.
    #[must_use]
    pub fn is_found(self) -> bool {
        match self {
            Self::Mem | Self::Dir | Self::Server => true,
            #[cfg(feature = "fdb")]
            Self::Fdb | Self::FdbServer => crate::fdb::Tools::find().is_ok(),
            #[cfg(not(feature = "fdb"))]
            Self::Fdb | Self::FdbServer => false,
        }
    }
}

/// Stops what stores have started for the whole process: to be called at its end.
pub fn finish() {
    #[cfg(feature = "fdb")]
    crate::fdb::stop();
}

/// A fresh store, gone with its test.
#[derive(Debug)]
pub struct TestStore {
    /// Its kind.
    pub kind: Kind,
    /// The server, for [`Kind::Server`] and [`Kind::FdbServer`].
    pub server: Option<Server>,
    /// The store that the server serves, or that is opened without one.
    direct: String,
    /// Kept so that it is removed, after the server has gone.
    temp: TempDir,
    /// Part of every name: `mem:` is one store for all tests of a process.
    number: u64,
}

impl TestStore {
    /// A fresh store; those of FoundationDB in the cluster of this process's tests.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        match kind {
            #[cfg(feature = "fdb")]
            Kind::Fdb | Kind::FdbServer => Self::on_cluster(kind, &crate::fdb::file().unwrap()),
            _ => Self::with(kind, |number, temp| match kind {
                Kind::Mem => "mem:".into(),
                Kind::Dir | Kind::Server => format!("dir:{}", temp.join("store").display()),
                Kind::Fdb | Kind::FdbServer => panic!("store {number}: no fdb in this build"),
            }),
        }
    }

    /// A fresh store in the FoundationDB cluster with this cluster file.
    #[must_use]
    pub fn on_cluster(kind: Kind, file: &Path) -> Self {
        let process = std::process::id();
        Self::with(kind, |number, _| {
            format!("fdb:{}?prefix=test{process}-{number}", file.display())
        })
    }

    fn with(kind: Kind, url: impl FnOnce(u64, &Path) -> String) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        sql::register();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temp = tempfile::Builder::new().prefix("interleaf-").tempdir().unwrap();
        let direct = url(number, temp.path());
        let server = match kind {
            Kind::Server => Some(Server::start(&temp.path().join("store"))),
            Kind::FdbServer => Some(Server::serve(&direct, &temp.path().join("interleaf.sock"))),
            _ => None,
        };
        Self { kind, server, direct, temp, number }
    }

    /// A store at `url`, behind the server that `start` starts for it at a socket in a
    /// directory of the test's own.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn behind(url: &str, start: impl FnOnce(&Path) -> Server) -> Self {
        let mut store = Self::with(Kind::Fdb, |_, _| url.to_owned());
        store.kind = Kind::FdbServer;
        store.server = Some(start(store.scratch()));
        store
    }

    /// A directory for other files of the test.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.temp.path()
    }

    /// The store's directory, where it is embedded and on disk.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.as_ref().map_or_else(|| self.direct.clone(), Server::url)
    }

    /// The URL of the store itself, past its server.
    #[must_use]
    pub fn direct_url(&self) -> &str {
        &self.direct
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

    /// Checks that nothing stays of what was staged. A commit itself cleans up for at most half
    /// of its time; a server does the rest every 30 s, and this does it for a cluster that is
    /// used directly.
    ///
    /// # Panics
    /// Where something does.
    pub fn assert_nothing_staged(&self) {
        let later = || ConnectOptions::default().env.deadline(process::LIMIT);
        if self.kind == Kind::Fdb {
            let url = self.direct.parse().unwrap();
            let store = interleaf_wire::connect::open_store(&url, StoreOptions::default()).unwrap();
            store.tend(later()).unwrap();
        }
        wait::until("the end of all staging", process::LIMIT, || {
            let counts = self.backend().count_records(later()).unwrap().subspaces;
            (counts["staging"].0 == 0 && counts["staged_pages"].0 == 0).then_some(())
        });
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
