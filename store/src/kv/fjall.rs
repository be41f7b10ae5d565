//! The embedded engine on disk: fjall, a log-structured tree.
//!
//! In the store's directory: `LOCK` (see [`DirLock`]), `CLEAN` (only after a clean end, when
//! no journal may be damaged) and `fjall/`, fjall's own files, with the keyspaces `records`, `content` (keys that begin with `c`) and `engine`:
//!
//! | key in `engine` | value |
//! |---|---|
//! | `reserved` | schema version 1 (1), bound (8): versions below it may have been issued |
//! | `clean` | schema version 1 (1), newest version issued (8); only after a clean end |
//!
//! # Durability
//! A batch is one entry of fjall's journal. Buffered: handed to the operating system
//! before it is acknowledged; without that it would stay in this process and die with it.
//! Synced: `fdatasync`, which includes the file's size and the blocks given to it, that is
//! all that is needed to read the batch back.
//!
//! # Versions (rule 10 of the protocol)
//! Before a version is issued a bound above it is written with fsync, in steps of
//! [`RESERVED_VERSIONS`]. Where the last process left no mark of a clean end, versions go
//! on from the bound: none is issued twice, whatever was lost.

mod ahead;
mod error;
mod journal;
mod layout;
mod view;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use self::ahead::Ahead;
use self::error::{guarded, kv_error};
use self::view::{BULK_BUFFER_BYTES, RECORDS_BUFFER_BYTES, Spaces, View};
use super::group::{ApplyError, Group, RESERVED_VERSIONS, Storage, WINDOW_BYTES, lock};
use super::mem::LIMITS;
use super::prepare::Op;
use super::{Durability, Key, KvError, KvResult, Limits};
use crate::codec::{Reader, Writer};
use crate::dir_lock::DirLock;
use crate::disk_space::{self, ROOM_BYTES};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::types::Version;

/// fjall's own directory in the store's.
const FILES: &str = "fjall";

/// There after a clean end, empty.
const CLEAN_FILE: &str = "CLEAN";

/// Schema version of the values in the keyspace `engine`.
const SCHEMA: u8 = 1;
const RESERVED: &[u8] = b"reserved";
const CLEAN: &[u8] = b"clean";

/// Bytes of journals that fjall keeps before it writes out what holds them: the least it
/// takes.
const JOURNALS_BYTES: u64 = 64 << 20;

/// Least block cache, in bytes.
const LEAST_CACHE_BYTES: u64 = 8 << 20;

/// What the write buffers may take at worst, in bytes: each keyspace's own and four that
/// are being written out.
const BUFFERS_BYTES: u64 = 5 * (RECORDS_BUFFER_BYTES + BULK_BUFFER_BYTES);

/// fjall's threads that write buffers out and merge what was written, however few processors
/// there are. One of them is kept free for the former, and hands each message to merge back
/// to the queue without a pause until another takes it: with two threads it would keep a
/// whole processor busy for as long as the other one merges. With four it does so only while
/// the three others merge at once.
const WORKERS: usize = 4;

/// Full write buffers of one keyspace at which a batch waits; at one more fjall would.
const WAITING_BUFFERS: usize = 3;

/// How long a batch waits before it looks again whether buffers were written out.
const BUFFER_WAIT: Duration = Duration::from_millis(1);

/// How often it looks before it leaves the wait to fjall.
const BUFFER_WAITS: u32 = 10_000;

/// The embedded engine on disk.
pub type FjallEngine = Group<FjallStorage>;

impl FjallEngine {
    /// Opens the store in the directory `path`, creating it where it is absent, and locks
    /// it to this process. Of `memory_bytes`, the most that the engine takes for its block
    /// cache and write buffers, the latter may need 90 MiB and the cache gets the rest, at
    /// least 8 MiB.
    ///
    /// # Errors
    /// `Locked` where another process holds it; `FormatVersion` for files of an unknown
    /// version, `Corrupt` for damaged ones, `Io`.
    pub fn open(path: &Path, memory_bytes: u64, env: Env) -> Result<Self> {
        let io = |e: std::io::Error| Error::of_io(&path.display().to_string(), &e);
        if path.exists() && !path.is_dir() {
            return Err(Error::Io { what: format!("{} is no directory", path.display()) });
        }
        std::fs::create_dir_all(path).map_err(io)?;
        let lock = DirLock::acquire(path)?;
        // Before anything can be committed: what the process before showed to its clients is
        // not the newest for much longer.
        interleaf_heads::raise(path).map_err(|e| {
            Error::of_io(&path.join(interleaf_heads::FILE_NAME).display().to_string(), &e)
        })?;
        let files = path.join(FILES);
        layout::check(&files)?;
        let clean = path.join(CLEAN_FILE).try_exists().map_err(io)?;
        check_journals(&files, clean)?;
        let db = open_files(&files, memory_bytes)?;
        let (storage, newest, bound) = FjallStorage::over(db, path, lock, clean)?;
        if clean {
            // Durably, before anything is written that may be lost by right.
            std::fs::remove_file(path.join(CLEAN_FILE)).and_then(|()| sync(path)).map_err(io)?;
        }
        Ok(Self::over(storage, env, newest, bound, WINDOW_BYTES))
    }
}

fn check_journals(files: &Path, clean: bool) -> Result<()> {
    if !files.is_dir() {
        return Ok(());
    }
    match journal::damaged(files, clean) {
        Ok(None) => Ok(()),
        Ok(Some(path)) => {
            Err(Error::Corrupt { what: format!("the engine's journal {}", path.display()) })
        }
        Err(e) => Err(Error::of_io(&files.display().to_string(), &e)),
    }
}

/// Makes the names in a directory, or a file, durable.
fn sync(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

fn open_files(files: &Path, memory_bytes: u64) -> Result<Database> {
    let name = files.display().to_string();
    let open = || {
        catch_unwind(AssertUnwindSafe(|| {
            Database::builder(files)
                .cache_size(memory_bytes.saturating_sub(BUFFERS_BYTES).max(LEAST_CACHE_BYTES))
                .max_journaling_size(JOURNALS_BYTES)
                .journal_compression(CompressionType::None)
                .worker_threads(WORKERS)
                .open()
        }))
        .map_err(|_| Error::Corrupt { what: format!("{name}: the engine panicked on opening") })
    };
    let error = match open()? {
        Ok(db) => return Ok(db),
        Err(error) => error,
    };
    if !matches!(error, fjall::Error::JournalRecovery(_)) {
        return Err(kv_error(&name, &error).into());
    }
    let cut = journal::cut_torn_end(files)
        .map_err(|e| Error::of_io(&format!("{name}: repairing the journal"), &e))?;
    let Some(bytes) = cut else { return Err(kv_error(&name, &error).into()) };
    tracing::warn!(%name, bytes, %error, "the journal's end was written in part; cut off");
    open()?.map_err(|error| kv_error(&name, &error).into())
}

/// fjall under a [`FjallEngine`].
pub struct FjallStorage {
    db: Database,
    spaces: Spaces,
    engine: Keyspace,
    path: PathBuf,
    recovered: bool,
    /// Used by one batch at a time.
    ahead: Mutex<Ahead>,
    // Dropped last, as fields are in their order.
    _lock: DirLock,
}

impl FjallStorage {
    /// Takes over an opened database; gives the newest version issued and the bound of
    /// those reserved. After a clean end (`ended`) there are both, even in an empty store.
    fn over(db: Database, path: &Path, lock: DirLock, ended: bool) -> Result<(Self, Version, u64)> {
        let name = path.display().to_string();
        let (spaces, engine, empty, reserved, clean) = guarded(&name, || {
            let spaces = Spaces::open(&db)?;
            let options = || KeyspaceCreateOptions::default().max_memtable_size(1 << 20);
            let engine = db.keyspace("engine", options)?;
            let (reserved, clean) = (engine.get(RESERVED)?, engine.get(CLEAN)?);
            let empty = spaces.is_empty()?;
            Ok((spaces, engine, empty, reserved, clean))
        })?;
        let number =
            |value: Option<fjall::Slice>, what| value.map(|v| decode(&v, what)).transpose();
        let reserved = number(reserved, "the engine's bound of versions")?;
        let clean = number(clean, "the engine's mark of a clean end")?;
        let newest = match (reserved, clean) {
            (Some(bound), Some(newest)) if newest < bound => newest,
            (Some(bound), None) if bound > 0 => bound - 1,
            (None, None) if empty && ended => {
                let what =
                    format!("{name}: a store was closed here, and {FILES} has nothing of it");
                return Err(Error::Corrupt { what });
            }
            (None, None) if empty => 0,
            _ => {
                let what = format!("{name}: the engine's bound of versions is missing or wrong");
                return Err(Error::Corrupt { what });
            }
        };
        let recovered = reserved.is_some() && clean.is_none();
        let ahead = Mutex::new(Ahead::new(&path.join(FILES)));
        let path = path.to_owned();
        let storage = Self { db, spaces, engine, path, recovered, ahead, _lock: lock };
        // The mark goes with the same write: from here on this process is the last one.
        let bound = newest.saturating_add(RESERVED_VERSIONS);
        storage.reserve(bound)?;
        Ok((storage, Version::new(newest, 0), bound))
    }

    /// Writes to the keyspace `engine`, durably.
    fn record(&self, bound: u64, clean: Option<u64>) -> KvResult<()> {
        guarded("recording versions", || {
            let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&self.engine, RESERVED, encode(bound));
            match clean {
                Some(newest) => batch.insert(&self.engine, CLEAN, encode(newest)),
                None => batch.remove(&self.engine, CLEAN),
            }
            batch.commit()
        })
    }

    /// Why fjall refuses writes: one of its own in the background failed, and it does not
    /// tell how.
    fn stopped(&self) -> KvError {
        match disk_space::check(&self.path, ROOM_BYTES) {
            Err(Error::DiskFull { what }) => {
                KvError::DiskFull { what: format!("the engine stopped: {what}") }
            }
            Ok(()) | Err(_) => kv_error("writing in the background", &fjall::Error::Poisoned),
        }
    }

    /// Waits while fjall has more to write out than it should. It would wait by itself, but
    /// for ever where the thread that writes has met an error.
    fn wait_for_buffers(&self) -> KvResult<()> {
        for _ in 0..BUFFER_WAITS {
            if self.spaces.waiting_buffers() < WAITING_BUFFERS {
                return Ok(());
            }
            if matches!(self.db.persist(PersistMode::Buffer), Err(fjall::Error::Poisoned)) {
                return Err(self.stopped());
            }
            std::thread::sleep(BUFFER_WAIT);
        }
        Ok(())
    }

    /// What `ops` come to, key by key: several commits of one batch may write one key.
    fn outcome(&self, ops: Vec<Op>) -> KvResult<BTreeMap<Key, Option<Bytes>>> {
        let mut outcome = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    outcome.insert(key, Some(value));
                }
                Op::Delete(key) => {
                    outcome.insert(key, None);
                }
                Op::DeleteRange(range) => {
                    outcome.retain(|key, _| !range.contains(key));
                    for key in self.view()?.keys(&range.start, &range.end)? {
                        outcome.insert(key.into(), None);
                    }
                }
            }
        }
        Ok(outcome)
    }
}

/// At most what a key and its value take in the journal.
fn journal_bytes((key, value): (&Key, &Option<Bytes>)) -> u64 {
    /// Head of an item, and its share of the batch's own.
    const ITEM_BYTES: usize = 64;
    (key.len() + value.as_ref().map_or(0, Bytes::len) + ITEM_BYTES) as u64
}

fn encode(number: u64) -> Vec<u8> {
    let mut value = Writer::with_capacity(9);
    value.u8(SCHEMA).u64(number);
    value.finish()
}

fn decode(value: &[u8], what: &'static str) -> Result<u64> {
    let mut reader = Reader::new(value, what);
    let schema = reader.u8()?;
    if schema != SCHEMA {
        let (found, known) = (u32::from(schema), u32::from(SCHEMA));
        return Err(Error::FormatVersion { what: what.into(), found, known });
    }
    let number = reader.u64()?;
    reader.end()?;
    Ok(number)
}

impl Storage for FjallStorage {
    type View = View;

    fn name(&self) -> &'static str {
        "fjall"
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn recovered(&self) -> bool {
        self.recovered
    }

    fn view(&self) -> KvResult<View> {
        Ok(View::new(&self.db, &self.spaces))
    }

    fn apply(&self, ops: Vec<Op>, durability: Durability) -> Result<(), ApplyError> {
        const WHAT: &str = "writing a batch";
        let outcome = self.outcome(ops).map_err(ApplyError::Nothing)?;
        let mode = match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        self.wait_for_buffers().map_err(ApplyError::Nothing)?;
        let bytes = outcome.iter().map(journal_bytes).sum();
        lock(&self.ahead).prepare(bytes, durability == Durability::Synced);
        let mut batch = self.db.batch().durability(Some(mode));
        for (key, value) in outcome {
            let space = self.spaces.of(&key);
            match value {
                Some(value) => batch.insert(space, key, value),
                None => batch.remove(space, key),
            }
        }
        match catch_unwind(AssertUnwindSafe(|| batch.commit())) {
            Ok(Ok(())) => Ok(()),
            // Refused before anything is written.
            Ok(Err(fjall::Error::Poisoned)) => Err(ApplyError::Nothing(self.stopped())),
            Ok(Err(e)) => Err(ApplyError::Unknown(kv_error(WHAT, &e))),
            Err(_) => {
                let what = format!("{WHAT}: the engine panicked");
                Err(ApplyError::Unknown(KvError::Corrupt { what }))
            }
        }
    }

    fn reserve(&self, bound: u64) -> KvResult<()> {
        self.record(bound, None)
    }

    /// Bytes given to the files, which are sparse.
    fn disk_bytes(&self) -> Option<u64> {
        allocated(&self.path.join(FILES)).ok()
    }

    fn close(&self, newest: Version) -> KvResult<()> {
        self.record(newest.commit().saturating_add(1), Some(newest.commit()))?;
        let file = self.path.join(CLEAN_FILE);
        std::fs::File::create(&file)
            .and_then(|_| sync(&file))
            .and_then(|()| sync(&self.path))
            .map_err(|e| KvError::of_io(&file.display().to_string(), &e))
    }
}

fn allocated(directory: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;

    /// What `stat` counts blocks in, in bytes.
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // A file that compaction has just removed takes nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            bytes += allocated(&entry.path())?;
        }
        bytes += metadata.blocks() * BLOCK_BYTES;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
