//! One SQLite connection: its open files, the snapshot they share, their locks.
//!
//! # Invariants
//! - **S1** Files of one store that hold SHARED and show the head share one snapshot, unless
//!   one of them has seen something newer before (its own commit): rule 4.
//! - **S2** A commit validates every such file from its own snapshot: rules 3 and 4.
//! - **S3** A session found by a connection's address is that connection's. Only open files
//!   keep a session alive (besides journals and super-journals, which end before their file),
//!   and SQLite closes a connection's files before it frees the connection, so that no session
//!   outlives its address. SQLite's shared cache is the exception: a file stays open for
//!   another connection. It is told at each begin whose file it is and then leaves; what
//!   remains is a transaction that a second connection joined and goes on with after the first
//!   one, whose it was, closed. A third one at the first one's address shares its session until
//!   that transaction ends: it may begin at that transaction's snapshot, its commits validate
//!   more than they must, and two commits at the same moment end in an IOERR; none is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use interleaf_store::api::BeginRequest;
use interleaf_store::sqlite_file::fill_page_one;
use interleaf_store::types::{PageNumber, StoreId, Version};
use interleaf_store::{Error, Result};

use super::file::{At, FileState, Lock, Phase, Reader, Writer, read_view};
use super::journal::Temp;
use super::page_map::Progress;
use super::source::View;
use super::stats::Stats;
use super::write_buffer::WriteBuffer;
use crate::code::{BUSY_SNAPSHOT, Failure, IOERR, LOCKED, Outcome, READONLY};
use crate::config::LogLevel;

/// Where the pager compares its cache's age: 16 bytes at 24.
const AGE_OFFSET: u64 = 24;
const AGE_LEN: usize = 16;

/// What SQLite reads without a lock, on opening a file: the header, for its page size.
/// Anything else would be of another snapshot at each read.
const HEADER_BYTES: u64 = interleaf_store::sqlite_file::HEADER_LEN as u64;

/// The files of a connection, with what is counted of it.
#[derive(Default)]
pub struct Files {
    /// Few: SQLite attaches at most 125.
    pub list: Vec<FileState>,
    /// Counters of the connection.
    pub stats: Stats,
    next: u32,
}

/// See the module.
#[derive(Default)]
pub struct Session(Mutex<Files>);

/// Which sessions there are, by the address of the SQLite connection.
static SESSIONS: OnceLock<Mutex<HashMap<usize, Weak<Session>>>> = OnceLock::new();

fn sessions() -> MutexGuard<'static, HashMap<usize, Weak<Session>>> {
    let sessions = SESSIONS.get_or_init(Mutex::default);
    // A map of weak references: whole at any moment.
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// The session of the SQLite connection at that address.
    pub fn of_connection(connection: usize) -> Arc<Self> {
        let mut sessions = sessions();
        if let Some(session) = sessions.get(&connection).and_then(Weak::upgrade) {
            return session;
        }
        sessions.retain(|_, session| session.strong_count() > 0);
        let session = Arc::new(Self::default());
        sessions.insert(connection, Arc::downgrade(&session));
        session
    }

    /// The session of that connection, if any of its files is open.
    pub fn existing(connection: usize) -> Option<Arc<Self>> {
        sessions().get(&connection).and_then(Weak::upgrade)
    }

    /// Its files.
    ///
    /// # Errors
    /// Where a panic left them in a state nobody knows.
    pub fn files(&self) -> Outcome<MutexGuard<'_, Files>> {
        self.0.lock().map_err(|_| {
            Failure::broken("an internal error left this connection unusable: close it")
        })
    }

    /// Its files, in whatever state, to close them.
    pub fn files_to_close(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// A number for a new file.
    pub const fn next_id(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Where a file is in the list.
    ///
    /// # Errors
    /// A broken invariant, where it is not.
    pub fn index(&self, id: u32) -> Outcome<usize> {
        let found = self.list.iter().position(|file| file.id == id);
        found.ok_or_else(|| Failure::broken(format!("file {id} is not open")))
    }

    /// A file with the counters.
    ///
    /// # Errors
    /// As [`Files::index`].
    pub fn file(&mut self, id: u32) -> Outcome<(&mut FileState, &mut Stats)> {
        let Self { list, stats, .. } = self;
        let found = list.iter_mut().find(|file| file.id == id);
        found
            .map(|file| (file, stats))
            .ok_or_else(|| Failure::broken(format!("file {id} is not open")))
    }

    /// Takes a file out.
    pub fn remove(&mut self, id: u32) -> Option<FileState> {
        let index = self.list.iter().position(|file| file.id == id)?;
        Some(self.list.swap_remove(index))
    }

    /// The snapshot that files of `store` hold, but for file `id` itself.
    fn shared(&self, store: StoreId, id: u32) -> Option<Version> {
        let others = self
            .list
            .iter()
            .filter(|file| file.id != id && file.at == At::Head && file.source.store.id() == store);
        others.filter_map(FileState::reader).map(|reader| reader.view.version).max()
    }

    /// xLock(SHARED): begins.
    ///
    /// # Errors
    /// Those of the store.
    pub fn lock_shared(&mut self, id: u32) -> Outcome<()> {
        let index = self.index(id)?;
        let Some(file) = self.list.get(index) else { return Ok(()) };
        if !matches!(file.lock, Lock::Unlocked) {
            return Ok(());
        }
        file.check_process()?;
        let shared = self.shared(file.source.store.id(), id);
        let (file, stats) = self.file(id)?;
        let view = begin(file, shared, stats, true)?;
        file.last = Some(view.version);
        file.lock = Lock::Reading(Reader { view, after: None });
        Ok(())
    }

    /// xLock(RESERVED) and more.
    ///
    /// # Errors
    /// READONLY on a snapshot; BUSY_SNAPSHOT where this file's view cannot be written from.
    pub fn lock_for_writing(&mut self, id: u32, exclusive: bool) -> Outcome<()> {
        let (file, _) = self.file(id)?;
        if let Some(writer) = file.writer_mut() {
            writer.exclusive |= exclusive;
            return Ok(());
        }
        if file.at != At::Head {
            let what = format!("database {} at a version", file.name);
            return Err(Error::ReadOnly { what }.into());
        }
        self.check_alone(id)?;
        let (file, _) = self.file(id)?;
        if file.reader().is_some_and(|reader| reader.after.is_some()) && !self.settle(id)? {
            return Err(Failure {
                level: LogLevel::Debug,
                ..Failure::new(
                    BUSY_SNAPSHOT,
                    "conflict: others changed the database while a statement of this \
                     connection was still reading it: finish that statement first",
                )
            });
        }
        let (file, _) = self.file(id)?;
        file.lock = match std::mem::replace(&mut file.lock, Lock::Unlocked) {
            Lock::Unlocked => return Err(Failure::new(IOERR, "RESERVED without SHARED")),
            Lock::Reading(reader) => {
                let allocation = reader.view.allocation;
                let buffer = WriteBuffer::new(allocation.pages, allocation.page_size);
                if let Some(journal) = &mut file.journal {
                    journal.restart();
                }
                Lock::Writing(Writer { reader, exclusive, buffer, phase: Phase::Open })
            }
            writing @ Lock::Writing(_) => writing,
        };
        Ok(())
    }

    /// The same database attached twice is written under one of its names at a time:
    /// each of the two would undo the other.
    fn check_alone(&self, id: u32) -> Outcome<()> {
        let Some(file) = self.list.iter().find(|file| file.id == id) else { return Ok(()) };
        let mut writing = self.list.iter().filter(|f| matches!(f.lock, Lock::Writing(_)));
        if !writing.any(|other| other.id != id && other.source.branch == file.source.branch) {
            return Ok(());
        }
        let text = format!("database {} is being written under another name of it", file.name);
        Err(Failure { level: LogLevel::Debug, ..Failure::new(LOCKED, text) })
    }

    /// xUnlock(SHARED): whatever was written and not committed is gone.
    ///
    /// # Errors
    /// A broken invariant: a prepared file that was neither committed nor rolled back.
    pub fn unlock_to_shared(&mut self, id: u32) -> Outcome<()> {
        let (file, _) = self.file(id)?;
        let Lock::Writing(writer) = std::mem::replace(&mut file.lock, Lock::Unlocked) else {
            return Ok(());
        };
        let lost = writer.phase == Phase::Prepared;
        file.lock = Lock::Reading(writer.reader);
        if lost {
            file.source.pager.force_reset();
            return Err(Failure::broken(format!(
                "database {}: a commit was asked for and never came",
                file.name
            )));
        }
        Ok(())
    }

    /// xUnlock(NONE).
    ///
    /// # Errors
    /// As [`Files::unlock_to_shared`].
    pub fn unlock(&mut self, id: u32) -> Outcome<()> {
        let dropped = self.unlock_to_shared(id);
        let (file, _) = self.file(id)?;
        file.lock = Lock::Unlocked;
        dropped
    }

    /// xRead. `false` where the file ends before `out` does, the rest being zeros.
    ///
    /// # Errors
    /// Those of the store.
    pub fn read(&mut self, id: u32, offset: u64, out: &mut [u8]) -> Outcome<bool> {
        let (file, stats) = self.file(id)?;
        let Some(size) = file.size() else {
            file.check_process()?;
            if file.at == At::Head && offset.saturating_add(out.len() as u64) > HEADER_BYTES {
                return Err(Failure::new(
                    IOERR,
                    format!(
                        "database {}: a page read without a lock; nolock and immutable are not \
                         supported",
                        file.name
                    ),
                ));
            }
            let peeked = peek(file, offset, out, stats);
            return forget_lost(file, peeked).map_err(Failure::from);
        };
        if offset == AGE_OFFSET && out.len() == AGE_LEN && matches!(file.lock, Lock::Reading(_)) {
            return Ok(age(file, out));
        }
        if file.reader().and_then(|r| r.after.as_ref()).is_some_and(|after| !after.stuck) {
            self.settle(id)?;
        }
        let (file, stats) = self.file(id)?;
        let there = usize::try_from(size.saturating_sub(offset).min(out.len() as u64))
            .unwrap_or(usize::MAX);
        let Some((head, tail)) = out.split_at_mut_checked(there) else { return Ok(false) };
        tail.fill(0);
        let read = file.read(offset, head, stats);
        forget_lost(file, read)?;
        Ok(tail.is_empty())
    }

    /// xFileSize.
    ///
    /// # Errors
    /// Those of the store.
    pub fn size(&mut self, id: u32) -> Outcome<u64> {
        let (file, stats) = self.file(id)?;
        match file.size() {
            Some(size) => Ok(size),
            None => Ok(begin(file, None, stats, false)?.size()),
        }
    }

    /// xWrite.
    ///
    /// # Errors
    /// Where no transaction may write here.
    pub fn write(&mut self, id: u32, offset: u64, data: &[u8], temp: &dyn Temp) -> Outcome<()> {
        let (file, stats) = self.file(id)?;
        let FileState { lock, source, name, .. } = file;
        let Lock::Writing(writer) = lock else {
            return Err(Failure::new(READONLY, format!("database {name}: a write without a lock")));
        };
        match writer.phase {
            Phase::Dead => return Ok(()),
            Phase::Open | Phase::Prepared => {}
            Phase::Committed => {
                return Err(Failure::new(
                    IOERR,
                    format!("database {name}: locking_mode=EXCLUSIVE is not supported"),
                ));
            }
        }
        let view = writer.reader.view;
        let mut base = |page: PageNumber| {
            source.pager.hand(page, view.version);
            source.shown(&view, page, stats)
        };
        writer.buffer.write(offset, data, &mut base, temp)?;
        Ok(())
    }

    /// xTruncate.
    ///
    /// # Errors
    /// Where no transaction may write here.
    pub fn truncate(&mut self, id: u32, size: u64) -> Outcome<()> {
        let (file, _) = self.file(id)?;
        match file.writer_mut() {
            // After the commit: the size is in page 1 already.
            Some(writer) if matches!(writer.phase, Phase::Dead | Phase::Committed) => {}
            // Prepared likewise: SQLite truncates after SQLITE_FCNTL_SYNC, or undoes.
            Some(writer) => writer.buffer.truncate(size)?,
            None => return Err(Failure::new(READONLY, "a truncation without a lock")),
        }
        Ok(())
    }

    /// After an own commit at V with others' commits between the snapshot and V: moves all
    /// files of the store that hold SHARED to V, if SQLite can go on there. It can where size
    /// and freelist at V are what it has in memory, and where nothing was read since the
    /// commit that the commit did not validate.
    ///
    /// All files of the store move or none: one at V and another at the snapshot would show
    /// one half of a commit of others to both (rule 4). So a statement that is still reading
    /// an attached database keeps a write to another one refused, with a 517 that no change
    /// of *that* database explains, where others changed the first one's size or freelist.
    ///
    /// # Errors
    /// Those of the store.
    fn settle(&mut self, id: u32) -> Outcome<bool> {
        let index = self.index(id)?;
        let Some(file) = self.list.get(index) else { return Ok(false) };
        let Some(after) = file.reader().and_then(|reader| reader.after.as_ref()) else {
            return Ok(true);
        };
        if after.stuck {
            return Ok(false);
        }
        let (store, version) = (file.source.store.id(), after.version);
        let Self { list, stats, .. } = self;
        let mut moved = Vec::new();
        let mut possible = true;
        for file in list.iter_mut().filter(|f| f.source.store.id() == store) {
            let Some(reader) = file.reader().filter(|_| file.at == At::Head) else { continue };
            let Some(after) = reader.after.as_ref() else {
                // S1: it began at the snapshot since, or stays there.
                possible &= reader.view.version >= version;
                continue;
            };
            let validated =
                after.version == version && file.source.pager.version() == Some(version);
            let view = if validated { Some(view_at(file, Some(version), stats)?.0) } else { None };
            let view = view.filter(|view| Some(view.allocation) == file.allocation());
            possible &= view.is_some();
            moved.push((file.id, view));
        }
        for (id, view) in moved {
            let Some(reader) = self.file(id)?.0.reader_mut() else { continue };
            match view {
                Some(view) if possible => *reader = Reader { view, after: None },
                _ => {
                    if let Some(after) = &mut reader.after {
                        after.stuck = true;
                    }
                }
            }
        }
        Ok(possible)
    }
}

/// Begins on a file: the newest snapshot, or the one `shared` with other files. `locks`:
/// whether SQLite takes its SHARED lock, and will look at the age of its cache.
fn begin(
    file: &mut FileState,
    shared: Option<Version>,
    stats: &mut Stats,
    locks: bool,
) -> Result<View> {
    if locks && let Some(at) = file.next_at.take() {
        file.at = at;
    }
    if let At::Snapshot(version) = file.at {
        return match file.fixed {
            Some(view) if view.version == version => Ok(view),
            _ => {
                let (view, reply) = view_at(file, Some(version), stats)?;
                if locks {
                    file.source.pager.begin(&reply);
                    file.fixed = Some(view);
                }
                Ok(view)
            }
        };
    }
    if locks && file.fixed.take().is_some() {
        file.source.pager.force_reset();
    }
    let seen = file.source.pager.version();
    let at = shared.filter(|&version| seen.is_none_or(|seen| seen <= version));
    let (view, reply) = view_at(file, at, stats)?;
    if locks {
        file.source.pager.begin(&reply);
    }
    Ok(view)
}

fn view_at(
    file: &FileState,
    at: Option<Version>,
    stats: &mut Stats,
) -> Result<(View, interleaf_store::api::BeginReply)> {
    let source = &file.source;
    let known = source.map.known();
    let request = BeginRequest { branch: source.branch, at, known };
    let mut reply = source.store.begin(&request, stats)?;
    let changes = std::mem::replace(&mut reply.changes, interleaf_store::api::Changes::Unknown);
    source.map.advance(Progress {
        asked: known,
        incarnation: reply.incarnation,
        snapshot: reply.snapshot,
        changes,
    });
    let view = View {
        version: reply.snapshot,
        incarnation: reply.incarnation,
        allocation: reply.allocation,
    };
    Ok((view, reply))
}

/// A store that was recovered since a snapshot was begun may have lost it: a file that shows
/// one begins on it anew.
fn forget_lost<T>(file: &mut FileState, read: Result<T>) -> Result<T> {
    if matches!(read, Err(Error::IncarnationChanged)) {
        file.fixed = None;
        file.source.pager.force_reset();
    }
    read
}

/// Reads without a lock: SQLite looks at the header so when it opens a file.
fn peek(file: &mut FileState, offset: u64, out: &mut [u8], stats: &mut Stats) -> Result<bool> {
    let view = begin(file, None, stats, false)?;
    let there =
        usize::try_from(view.size().saturating_sub(offset).min(out.len() as u64)).unwrap_or(0);
    let Some((head, tail)) = out.split_at_mut_checked(there) else { return Ok(false) };
    tail.fill(0);
    let source = &mut file.source;
    read_view(&view, offset, head, &mut |page| source.shown(&view, page, stats))?;
    Ok(tail.is_empty())
}

/// The 16 bytes by which the pager judges its cache: no read of page 1.
fn age(file: &FileState, out: &mut [u8]) -> bool {
    let Some(reader) = file.reader() else { return false };
    let mut header = [0; interleaf_store::sqlite_file::HEADER_LEN];
    let pager = &file.source.pager;
    let allocation = file.allocation().unwrap_or(reader.view.allocation);
    let filled = allocation.pages.0 > 0
        && fill_page_one(&mut header, &allocation, pager.counter(), pager.writer()).is_ok();
    let from = header.get(24..24 + AGE_LEN).filter(|_| filled);
    match from {
        Some(from) if from.len() == out.len() => {
            out.copy_from_slice(from);
            true
        }
        _ => {
            out.fill(0);
            false
        }
    }
}
