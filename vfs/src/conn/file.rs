//! One open database file and the state of its lock.
//!
//! ```text
//!            xLock(SHARED): begin                xLock(RESERVED)
//!   Unlocked -------------------> Reading(Reader) ---------------> Writing(Writer)
//!      ^                             |   ^                             |
//!      +-----------------------------+   +-----------------------------+
//!            xUnlock(NONE)                       xUnlock(SHARED)
//!
//!   Writer::phase:  Open --SQLITE_FCNTL_SYNC of a commit, others to follow--> Prepared
//!                   Open, Prepared --the last of them, or xDelete(super)--> Committed | Dead
//!                   Prepared --SQLITE_FCNTL_SYNC of a rollback--> Open
//! ```
//!
//! `Dead`: the commit failed; what SQLite still sends while it rolls back is accepted and
//! dropped. `Committed`: the store has it; xTruncate may still come and changes nothing.

use bytes::Bytes;
use interleaf_store::Result;
use interleaf_store::api::{Allocation, OpenReply};
use interleaf_store::types::{DatabaseId, DatabaseName, DomainId, PageNumber, Version};

use super::journal::Journal;
use super::source::{Source, View};
use super::stats::Stats;
use super::write_buffer::WriteBuffer;
use crate::code::{Failure, IOERR, Outcome};

/// Which point of the branch's history a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest version at each begin.
    Head,
    /// Always this one; read-only.
    Snapshot(Version),
}

/// The lock that SQLite holds, with what goes with it.
pub enum Lock {
    /// None.
    Unlocked,
    /// SHARED.
    Reading(Reader),
    /// RESERVED or more.
    Writing(Writer),
}

/// A snapshot held.
#[derive(Debug)]
pub struct Reader {
    /// The snapshot.
    pub view: View,
    /// After an own commit that others' commits came before.
    pub after: Option<After>,
}

/// SQLite goes on reading under the same SHARED lock after a commit at `version`, while
/// commits of others lie between the snapshot and it.
#[derive(Debug)]
pub struct After {
    /// The commit.
    pub version: Version,
    /// What this file wrote in it: lies over the snapshot.
    pub own: Option<WriteBuffer>,
    /// Size and freelist as SQLite has them in memory.
    pub allocation: Allocation,
    /// Whether the view could not be moved to `version`, since the database's size or
    /// freelist is not what SQLite has in memory. It stays at the snapshot, and writes are
    /// refused, until SQLite lets go of the lock.
    pub stuck: bool,
}

/// A transaction that may write.
pub struct Writer {
    /// What it reads.
    pub reader: Reader,
    /// Whether SQLite holds EXCLUSIVE.
    pub exclusive: bool,
    /// What it wrote.
    pub buffer: WriteBuffer,
    /// How far its commit is.
    pub phase: Phase,
}

/// How far a commit is; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not asked for.
    Open,
    /// Asked for; waits for other files of the same commit.
    Prepared,
    /// Took effect.
    Committed,
    /// Failed.
    Dead,
}

/// An open database file.
pub struct FileState {
    /// Its place in the session.
    pub id: u32,
    /// Its name.
    pub name: DatabaseName,
    /// The database.
    pub database: DatabaseId,
    /// Where its content lives.
    pub domain: DomainId,
    /// Its pages.
    pub source: Source,
    /// Which point of history it shows.
    pub at: At,
    /// Which it is to show from its next transaction on, where that was changed.
    pub next_at: Option<At>,
    /// The lock.
    pub lock: Lock,
    /// Its rollback journal, while SQLite has it open.
    pub journal: Option<Journal>,
    /// Memory for the next one.
    pub spare: Vec<u8>,
    /// Version of the last snapshot or own commit.
    pub last: Option<Version>,
    /// The snapshot's view, which never changes.
    pub fixed: Option<View>,
    /// Whether it was opened at a version.
    pub read_only: bool,
    /// The process that opened it.
    pub process: u32,
}

impl FileState {
    /// An open file, unlocked.
    pub fn new(id: u32, name: DatabaseName, open: &OpenReply, source: Source) -> Self {
        Self {
            id,
            name,
            database: open.database,
            domain: open.domain,
            source,
            at: open.snapshot.map_or(At::Head, At::Snapshot),
            next_at: None,
            lock: Lock::Unlocked,
            journal: None,
            spare: Vec::new(),
            last: None,
            fixed: None,
            read_only: open.snapshot.is_some(),
            process: std::process::id(),
        }
    }

    /// Size and freelist as SQLite has them in memory; `None` while unlocked.
    pub fn allocation(&self) -> Option<Allocation> {
        let reader = self.reader()?;
        Some(reader.after.as_ref().map_or(reader.view.allocation, |after| after.allocation))
    }

    /// Refuses to go on in a child process.
    ///
    /// # Errors
    /// Where the file was opened before a fork: what the parent and the child would do to
    /// one store connection cannot be told apart.
    pub fn check_process(&self) -> Outcome<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Failure::new(
            IOERR,
            format!("database {} was opened before fork: open it again in the child", self.name),
        ))
    }

    /// The snapshot held, if one is.
    pub const fn reader(&self) -> Option<&Reader> {
        match &self.lock {
            Lock::Unlocked => None,
            Lock::Reading(reader) => Some(reader),
            Lock::Writing(writer) => Some(&writer.reader),
        }
    }

    /// Likewise.
    pub const fn reader_mut(&mut self) -> Option<&mut Reader> {
        match &mut self.lock {
            Lock::Unlocked => None,
            Lock::Reading(reader) => Some(reader),
            Lock::Writing(writer) => Some(&mut writer.reader),
        }
    }

    /// The transaction that may write, if there is one.
    pub const fn writer_mut(&mut self) -> Option<&mut Writer> {
        match &mut self.lock {
            Lock::Writing(writer) => Some(writer),
            Lock::Unlocked | Lock::Reading(_) => None,
        }
    }

    /// Whether this file takes part in the commit under way: rule 5.
    pub fn is_committing(&self) -> bool {
        match &self.lock {
            Lock::Writing(writer) => writer.exclusive && self.has_journal(),
            Lock::Unlocked | Lock::Reading(_) => false,
        }
    }

    /// Whether the transaction in progress keeps a journal.
    pub fn has_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_written)
    }

    /// Bytes in the file, as SQLite is to see it; `None` while unlocked.
    pub fn size(&self) -> Option<u64> {
        if let Lock::Writing(writer) = &self.lock
            && writer.buffer.is_changed()
        {
            return Some(writer.buffer.size());
        }
        let reader = self.reader()?;
        let own = reader.after.as_ref().and_then(|after| after.own.as_ref());
        Some(own.map_or_else(|| reader.view.size(), WriteBuffer::size))
    }

    /// Reads within the file at `offset`, and notes what was handed over.
    ///
    /// # Errors
    /// Those of the store.
    pub fn read(&mut self, offset: u64, out: &mut [u8], stats: &mut Stats) -> Result<()> {
        let Self { lock, source, .. } = self;
        let (reader, buffer) = match lock {
            Lock::Unlocked => return Ok(()),
            Lock::Reading(reader) => (reader, None),
            Lock::Writing(Writer { reader, buffer, .. }) => {
                (reader, buffer.is_changed().then_some(buffer))
            }
        };
        let Reader { view, after } = reader;
        let view = &*view;
        let own = after.as_mut().and_then(|after| after.own.as_mut());
        let mut base = |page: PageNumber| -> Result<Bytes> {
            source.pager.hand(page, view.version);
            source.shown(view, page, stats)
        };
        // Writing is refused while an own commit lies over the snapshot.
        debug_assert!(buffer.is_none() || own.is_none());
        match buffer.or(own) {
            None => read_view(view, offset, out, &mut base),
            Some(buffer) => buffer.read(offset, out, &mut base),
        }
    }
}

/// Reads within the view at `offset`.
///
/// # Errors
/// Those of `base`, which gives whole pages.
pub fn read_view(
    view: &View,
    offset: u64,
    out: &mut [u8],
    base: &mut dyn FnMut(PageNumber) -> Result<Bytes>,
) -> Result<()> {
    // The usual case, and the only one on the way of a warm read: one whole page.
    let unit = u64::from(view.page_size().get());
    let whole = out.len() as u64 == unit && offset.is_multiple_of(unit);
    let page = u32::try_from(offset / unit + 1).ok().and_then(PageNumber::new);
    if let (true, Some(page)) = (whole, page) {
        let bytes = base(page)?;
        if bytes.len() == out.len() {
            out.copy_from_slice(&bytes);
        }
        return Ok(());
    }
    WriteBuffer::new(view.allocation.pages, view.page_size())
        .read(offset, out, &mut |page| base(page))
}
