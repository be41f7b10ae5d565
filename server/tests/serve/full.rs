//! A disk that is full, and has space again: on a file system of its own, in memory.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use interleaf_store::Error;
use interleaf_store::api::{Backend, CreateState};
use interleaf_store::env::Env;
use interleaf_store::types::{CommitId, DatabaseName, Version};
use rustix::fs::FallocateFlags;

use crate::http::get;
use crate::support::{Database, LIMIT, Server, client, deadline, page};

/// Size of the file system; what the filler leaves of it is soon used up.
const DISK: &str = "160m";

/// Pages of the database; each but the first has a writer.
const PAGES: u32 = 5;

/// Bytes of a page, the largest there is, so that a disk is soon full.
const PAGE: usize = 65_536;

/// A server whose store has a file system of its own, which only it sees.
struct Confined {
    server: Server,
    store: PathBuf,
    url: String,
    http: String,
}

/// `None` where this user may not mount. `log`: where the server's messages go, if not to
/// this test, in the shell's words.
fn confined(dir: &Path, log: &str) -> Option<Confined> {
    let may = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a file system needs root and unshare");
        return None;
    }
    let store = dir.join("store");
    std::fs::create_dir(&store).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (url, http) = (format!("unix:{}/s.sock", dir.display()), format!("127.0.0.1:{port}"));
    let mount = format!("mount -t tmpfs -o size={DISK} tmpfs \"$0\" && exec \"$@\" {log}");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &mount]).arg(&store);
    command.arg(env!("CARGO_BIN_EXE_interleaf")).args(["serve", "--store"]);
    command.arg(format!("dir:{}", store.display()));
    command.args(["--listen", &url, "--http", &http]).env_remove("INTERLEAF_STORE");
    Some(Confined { server: Server::run(command).unwrap(), store, url, http })
}

impl Confined {
    /// The store's directory as the server sees it.
    fn inside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.server.pid()));
        root.join(self.store.strip_prefix("/").unwrap())
    }

    /// Gives the engine's journals the space they may need, so that it is something else
    /// for which there is none.
    fn set_journals_aside(&self) {
        for entry in std::fs::read_dir(self.inside().join("fjall")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "jnl") {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                let length = file.metadata().unwrap().len();
                rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, length).unwrap();
            }
        }
    }

    fn fill(&self) {
        let mut filler = std::fs::File::create(self.inside().join("filler")).unwrap();
        let error = (0..10_000).find_map(|_| filler.write_all(&[1; PAGE]).err()).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(self.inside().join("filler")).unwrap();
    }
}

/// A page that nothing makes smaller.
fn noise() -> Bytes {
    let seeds = (0..PAGE / 64).flat_map(|_| Env::system().random::<64>().unwrap());
    seeds.collect::<Vec<_>>().into()
}

/// What a writer did until the disk was full.
struct Written {
    acknowledged: Vec<(CommitId, Version)>,
    failed: CommitId,
    error: Error,
}

/// Commits to a page of its own until that fails.
fn write_until_full(client: &dyn Backend, database: &Database<'_>, number: u32) -> Written {
    let mut acknowledged = Vec::new();
    for _ in 0..10_000 {
        let commit = database.change(vec![(page(number), noise())]);
        match client.commit(&commit, deadline()) {
            Ok(reply) => acknowledged.push((commit.id, reply.version)),
            Err(error) => return Written { acknowledged, failed: commit.id, error },
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_is_said_at_once_and_got_over() {
    let said = full_and_over("", |_| ());
    assert!(said.unwrap_or_else(|| "starting over".into()).contains("starting over"));
}

#[test]
fn a_disk_on_which_only_the_journal_has_room_is_said_and_got_over() {
    full_and_over("", Confined::set_journals_aside);
}

#[test]
fn a_full_disk_with_the_servers_log_on_it_is_got_over() {
    full_and_over("2>>\"$0/server.log\"", |_| ());
}

/// What the server said on stderr; `None` where there was none.
fn full_and_over(log: &str, prepare: impl Fn(&Confined)) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let confined = confined(dir.path(), log)?;
    let pid = confined.server.pid();
    let client = &*client(&confined.url);
    let database = &Database::open(client, "app");
    let all = (2..=PAGES).map(|number| (page(number), noise())).collect();
    let first = database.change(all);
    let mut done = vec![(first.id, client.commit(&first, deadline()).unwrap().version)];
    prepare(&confined);
    confined.fill();
    let written = thread::scope(|scope| {
        let writer = |number| scope.spawn(move || write_until_full(client, database, number));
        let writers: Vec<_> = (2..=PAGES).map(writer).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    for Written { failed, error, .. } in &written {
        assert!(error.to_string().contains("disk is full"), "{error}");
        assert!(
            matches!(error, Error::OutcomeUnknown { id, .. } if id == failed)
                || matches!(error, Error::DiskFull { .. }),
            "{error}"
        );
    }
    done.extend(written.iter().flat_map(|writer| writer.acknowledged.iter().copied()));

    // Whatever writes is told; whatever reads goes on.
    let later = database.change(vec![(page(3), noise())]);
    let error = client.commit(&later, deadline()).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    let name = DatabaseName::new("other").unwrap();
    let error = client.create(&name, CreateState::Ready, deadline()).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    for writer in &written {
        let found = client.find_commit(writer.failed, deadline());
        assert!(matches!(found, Err(Error::DiskFull { .. })), "not known yet, not no: {found:?}");
    }
    let (id, version) = done[done.len() - 1];
    assert_eq!(client.find_commit(id, deadline()).unwrap(), Some(version));
    database.text(2);
    let health = get(&confined.http, "/healthz");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("disk is full"), "{health}");
    let status = client.status(deadline()).unwrap();
    assert!(status.texts["failure"].contains("disk is full"), "{status:?}");
    assert_eq!(status.numbers["failed"], 1);

    confined.make_room();
    let until = Env::system().deadline(LIMIT);
    let (id, version) = loop {
        let commit = database.change(vec![(page(3), noise())]);
        match client.commit(&commit, deadline()) {
            Ok(reply) => break (commit.id, reply.version),
            // Still the old one; or the new one, begun in the old one.
            Err(Error::DiskFull { .. } | Error::IncarnationChanged) => {}
            Err(error) => panic!("{error}"),
        }
        Env::system().remaining(until).unwrap();
        thread::sleep(Duration::from_millis(20));
    };
    done.push((id, version));
    for (id, version) in &done {
        assert_eq!(client.find_commit(*id, deadline()).unwrap(), Some(*version), "acknowledged");
    }
    // Now it can be told, and stays so.
    for Written { failed, error, .. } in &written {
        let found = client.find_commit(*failed, deadline()).unwrap();
        let doubt = matches!(error, Error::OutcomeUnknown { .. });
        assert!(found.is_none_or(|found| doubt && found < version), "{error}: {found:?}");
    }
    assert_eq!(client.find_commit(later.id, deadline()).unwrap(), None, "certainly refused");
    assert!(get(&confined.http, "/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(client.status(deadline()).unwrap().numbers["failed"], 0);
    assert_eq!(confined.server.pid(), pid);
    let (code, said) = confined.server.stop();
    assert_eq!(code, Some(0), "{said}");
    Some(said)
}
