//! What the FFI holds of an open database: a place in a session.

use std::sync::{Arc, MutexGuard};

use interleaf_store::api::OpenRequest;
use interleaf_store::types::DatabaseName;
use interleaf_store::when::When;
use interleaf_store::{Error, url::StoreUrl};
use std::path::PathBuf;

use super::commit;
use super::file::FileState;
use super::journal::{Journal, Temp};
use super::pragma;
use super::session::{Files, Session};
use super::source::Source;
use super::stats::Stats;
use super::store::{Connect, Store, store_at};
use super::super_journal;
use crate::code::{CANTOPEN, Failure, Outcome};
use crate::config::{Config, LogLevel};
use crate::log;
use crate::names::has_data;

/// A database to open.
#[derive(Clone, Debug)]
pub struct OpenDatabase {
    /// Where its store is.
    pub store: StoreUrl,
    /// Its name.
    pub name: DatabaseName,
    /// A snapshot.
    pub at: Option<When>,
    /// Whether to create it where it is not there.
    pub create: bool,
    /// The file that plain SQLite would have opened.
    pub file: Option<PathBuf>,
}

/// An open database file.
pub struct DatabaseFile {
    session: Arc<Session>,
    /// The SQLite connection that `session` is of; 0 before it is known.
    connection: usize,
    id: u32,
    read_only: bool,
}

impl DatabaseFile {
    /// Opens a database.
    ///
    /// # Errors
    /// CANTOPEN and its reason.
    pub fn open(wanted: &OpenDatabase, config: &Config, connect: Connect) -> Outcome<Self> {
        Self::try_open(wanted, config, connect).map_err(Failure::at_open)
    }

    fn try_open(wanted: &OpenDatabase, config: &Config, connect: Connect) -> Outcome<Self> {
        let store = store_at(&wanted.store, config, connect)?;
        let mut stats = Stats::default();
        let create = wanted.create && wanted.at.is_none();
        // Where data may be on disk, the name is not to be created over them unseen.
        let careful = create && wanted.file.is_some();
        let mut request = OpenRequest {
            name: wanted.name.clone(),
            create: create && !careful,
            at: wanted.at.clone(),
        };
        let open = match store.open(&request, &mut stats) {
            Err(Error::NotFound { .. }) if wanted.at.is_none() => {
                if let Some(file) = wanted.file.as_ref()
                    && has_data(file)?
                {
                    return Err(on_disk(wanted, file));
                }
                request.create = create;
                store.open(&request, &mut stats)?
            }
            other => other?,
        };
        if open.created {
            // As with SQLite's own files a slip in a name makes a new database.
            let text = format!("database {} did not exist and was created", wanted.name);
            match slip_behind_at(&store, &wanted.name, &mut stats) {
                Some(slip) => log::line(config.log, LogLevel::Warn, &format!("{text}: {slip}")),
                None => log::line(config.log, LogLevel::Info, &text),
            }
        }
        let session = Arc::new(Session::default());
        let read_only = open.snapshot.is_some();
        let id = {
            let mut files = session.files()?;
            let id = files.next_id();
            let source = Source::new(store, open.branch);
            files.list.push(FileState::new(id, wanted.name.clone(), &open, source));
            files.stats.add(stats);
            id
        };
        Ok(Self { session, connection: 0, id, read_only })
    }

    /// Whether it shows a snapshot, and cannot be written.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// This file belongs to the SQLite connection at that address: told by SQLITE_FCNTL_PDB
    /// and before each transaction, since with SQLite's shared cache it may change.
    ///
    /// # Errors
    /// Where a panic left the session unusable; likewise below.
    pub fn set_connection(&mut self, connection: usize) -> Outcome<()> {
        if connection == self.connection {
            return Ok(());
        }
        let session = Session::of_connection(connection);
        let (file, stats) = {
            let mut files = self.session.files()?;
            let (file, _) = files.file(self.id)?;
            if file.reader().is_some() || file.journal.is_some() {
                // SQLite's shared cache: another connection opens it, or joins, in the middle
                // of a transaction, which goes on where it began.
                return Ok(());
            }
            let Some(file) = files.remove(self.id) else { return Ok(()) };
            // What was counted stays with the connection's other files, if it has any.
            let alone = files.list.is_empty();
            (file, if alone { std::mem::take(&mut files.stats) } else { Stats::default() })
        };
        {
            let mut files = session.files()?;
            self.id = files.next_id();
            files.list.push(FileState { id: self.id, ..file });
            files.stats.add(stats);
        }
        (self.session, self.connection) = (session, connection);
        Ok(())
    }

    fn files(&self) -> Outcome<MutexGuard<'_, Files>> {
        self.session.files()
    }

    /// Another hold on the same file, for its journal.
    pub fn journal(&self) -> JournalFile {
        JournalFile { session: Arc::clone(&self.session), id: self.id }
    }

    /// xRead; `false` for a short read.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Outcome<bool> {
        self.files()?.read(self.id, offset, out)
    }

    /// xWrite.
    pub fn write(&self, offset: u64, data: &[u8], temp: &dyn Temp) -> Outcome<()> {
        self.files()?.write(self.id, offset, data, temp)
    }

    /// xTruncate.
    pub fn truncate(&self, size: u64) -> Outcome<()> {
        self.files()?.truncate(self.id, size)
    }

    /// xFileSize.
    pub fn size(&self) -> Outcome<u64> {
        self.files()?.size(self.id)
    }

    /// xLock(SHARED).
    pub fn lock_shared(&self) -> Outcome<()> {
        self.files()?.lock_shared(self.id)
    }

    /// xLock(RESERVED) and more.
    pub fn lock_for_writing(&self, exclusive: bool) -> Outcome<()> {
        self.files()?.lock_for_writing(self.id, exclusive)
    }

    /// xUnlock(SHARED).
    pub fn unlock_to_shared(&self) -> Outcome<()> {
        self.files()?.unlock_to_shared(self.id)
    }

    /// xUnlock(NONE).
    pub fn unlock(&self) -> Outcome<()> {
        self.files()?.unlock(self.id)
    }

    /// SQLITE_FCNTL_SYNC.
    pub fn sync_point(
        &self,
        super_name: Option<&[u8]>,
        is_ours: &dyn Fn(&[u8]) -> bool,
    ) -> Outcome<()> {
        commit::sync_point(&self.session, &mut *self.files()?, self.id, super_name, is_ours)
    }

    /// SQLITE_FCNTL_COMMIT_PHASETWO.
    pub fn phase_two(&self) -> Outcome<()> {
        let mut files = self.files()?;
        commit::phase_two(files.file(self.id)?.0)
    }

    /// SQLITE_FCNTL_PRAGMA; `None` where the pragma is SQLite's own.
    pub fn pragma(&self, name: &str, value: Option<&str>) -> Option<Outcome<String>> {
        match self.files() {
            Ok(mut files) => pragma::answer(&mut files, self.id, name, value),
            Err(failure) => Some(Err(failure)),
        }
    }

    /// Keeps the reason of a failure for `PRAGMA interleaf_stats`.
    pub fn note_failure(&self, text: &str) {
        self.session.files_to_close().stats.last_error = Some(text.to_owned());
    }
}

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        super_journal::leave(&self.session, self.id);
        let file = self.session.files_to_close().remove(self.id);
        if file.as_ref().is_some_and(|file| file.process != std::process::id()) {
            // The parent's store is not this process's to close.
            std::mem::forget(file);
        }
    }
}

/// Why what stands behind the `@` of a new name is no WHEN, where the part before it is a
/// database: most likely a snapshot was meant. Only a hint, so that no answer is none.
fn slip_behind_at(store: &Store, name: &DatabaseName, stats: &mut Stats) -> Option<Error> {
    let (bare, rest) = name.as_str().rsplit_once('@')?;
    let slip = rest.parse::<When>().err()?;
    let request = OpenRequest { name: DatabaseName::new(bare).ok()?, create: false, at: None };
    store.open(&request, stats).ok().map(|_| slip)
}

fn on_disk(wanted: &OpenDatabase, file: &std::path::Path) -> Failure {
    Failure::new(
        CANTOPEN,
        format!(
            "{} holds data and the store has no database {}: run `interleaf import {} {}` to bring \
             it in, or exclude the name in INTERLEAF_DATABASES",
            file.display(),
            wanted.name,
            shell_word(&file.display().to_string()),
            shell_word(&wanted.name.to_string())
        ),
    )
}

/// A word as a shell takes it.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The rollback journal of an open database.
pub struct JournalFile {
    session: Arc<Session>,
    id: u32,
}

impl JournalFile {
    fn with<T>(&self, f: impl FnOnce(&mut Journal) -> Outcome<T>) -> Outcome<T> {
        let mut files = self.session.files()?;
        let (file, _) = files.file(self.id)?;
        let journal = file.journal.as_mut();
        f(journal.ok_or_else(|| Failure::broken("a journal that is not open"))?)
    }

    /// xOpen: a new one, empty.
    ///
    /// # Errors
    /// Where the database is closed; likewise below.
    pub fn create(&self) -> Outcome<()> {
        let mut files = self.session.files()?;
        let (file, _) = files.file(self.id)?;
        file.journal = Some(Journal::new(std::mem::take(&mut file.spare)));
        Ok(())
    }

    /// xRead; `false` for a short read.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Outcome<bool> {
        self.with(|journal| journal.read(offset, out))
    }

    /// xWrite.
    pub fn write(&self, offset: u64, data: &[u8], temp: &dyn Temp) -> Outcome<()> {
        self.with(|journal| journal.write(offset, data, temp))
    }

    /// xTruncate.
    pub fn truncate(&self, size: u64) -> Outcome<()> {
        self.with(|journal| journal.truncate(size))
    }

    /// xSync.
    pub fn sync(&self) -> Outcome<()> {
        self.with(|journal| {
            journal.sync();
            Ok(())
        })
    }

    /// xFileSize.
    pub fn size(&self) -> Outcome<u64> {
        self.with(|journal| Ok(journal.size()))
    }
}

impl Drop for JournalFile {
    fn drop(&mut self) {
        let mut files = self.session.files_to_close();
        if let Ok((file, _)) = files.file(self.id)
            && let Some(journal) = file.journal.take()
        {
            file.spare = journal.into_memory();
        }
        drop(files);
        super_journal::leave(&self.session, self.id);
    }
}
