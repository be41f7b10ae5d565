//! The store: [`Backend`](crate::api::Backend) over an engine.
//!
//! * [`published`] is the memory of an embedded store's only writer: begins cost no read;
//!   [`view`] is what an engine's reads say, for everything that memory does not.
//! * [`remembered`] and [`fetched`] save reads of an engine to which others write too.
//! * [`begin`], [`read`], [`prepare`] with [`commit`] and [`submit`], [`stage`] and [`merge`], [`catalog`], [`history`],
//!   [`status`]: one a kind of call; [`backend`] lists them all.

mod backend;
mod bases;
mod begin;
mod catalog;
mod commit;
mod fetched;
mod history;
mod merge;
mod prepare;
mod published;
mod read;
mod remembered;
mod retry;
mod stage;
mod status;
mod submit;
#[cfg(test)]
mod tests;
mod time;
mod view;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

pub use self::merge::Tended;
pub use self::submit::{CommitWork, OnCommit, Submitted};

use interleaf_heads::Board;

use self::bases::Bases;
use self::merge::Unmerged;
use self::published::Published;
use self::remembered::Remembered;
use self::status::Counters;
use self::time::Sampler;
use self::view::View;
use crate::env::{Deadline, Env};
use crate::error::{Error, Result};
use crate::format::records::{FormatRecord, decode_incarnation, encode_incarnation};
use crate::format::{FORMAT_VERSION, keys};
use crate::kv::Kv;
use crate::kv::fjall::FjallEngine;
use crate::types::{Incarnation, StoreId, Version};

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Time and randomness.
    pub env: Env,
    /// Bytes the embedded engine may use for its own block cache and write buffers.
    pub memory_bytes: u64,
    /// How long a store outside the process may take to answer while it is opened.
    pub open_timeout: Duration,
    /// Show the heads of an embedded store to other processes of this machine, in a file
    /// of these permissions; see [`Store::heads_place`].
    pub heads_mode: Option<u32>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            env: Env::system(),
            memory_bytes: 192 << 20,
            open_timeout: Duration::from_secs(30),
            heads_mode: None,
        }
    }
}

/// A store in this process.
pub struct Store {
    kv: Arc<dyn Kv>,
    env: Env,
    id: StoreId,
    incarnation: Incarnation,
    /// Of an engine whose only writer is this process; `None` where others write too.
    published: Option<Arc<Published>>,
    /// Of an engine to which others write too.
    remembered: Remembered,
    bases: Bases,
    /// Of an engine whose only writer is this process.
    unmerged: Unmerged,
    sampler: Arc<Sampler>,
    counters: Counters,
    /// Done once the engine knows whom to ask for a thread that leads.
    has_successor: Once,
    closed: AtomicBool,
    /// Commits leave the merging of their pages to the test.
    #[cfg(test)]
    unhurried: AtomicBool,
}

impl Store {
    /// Opens the store that `kv` holds, creating it where the engine is empty. An engine that
    /// cannot be reached just now is asked again until `open_timeout` is over.
    ///
    /// # Errors
    /// `FormatVersion` for a store of a newer program; `Corrupt` where the engine holds
    /// something else; those of the engine.
    pub fn open(kv: Arc<dyn Kv>, options: StoreOptions) -> Result<Arc<Self>> {
        let env = options.env;
        let deadline = env.deadline(options.open_timeout);
        let sampler = first_look(&*kv, &env, deadline)?;
        let samples = Arc::clone(&sampler);
        kv.set_batch_hook(Box::new(move |version| vec![samples.sample(version)]));
        let (id, incarnation) = identify(&*kv, &env, deadline)?;
        let (published, unmerged) = if kv.exclusive() {
            let newest = kv.snapshot(deadline)?.version();
            (Some(Arc::new(Published::new(newest))), Unmerged::load(&*kv.snapshot(deadline)?)?)
        } else {
            (None, Unmerged::default())
        };
        Ok(Arc::new(Self {
            kv,
            env,
            id,
            incarnation,
            published,
            remembered: Remembered::default(),
            bases: Bases::default(),
            unmerged,
            sampler,
            counters: Counters::default(),
            has_successor: Once::new(),
            closed: AtomicBool::new(false),
            #[cfg(test)]
            unhurried: AtomicBool::new(false),
        }))
    }

    /// Opens an embedded store in a directory, creating it where it is absent. The
    /// directory is locked to this process.
    ///
    /// # Errors
    /// `Locked` where another process holds it; else as [`open`](Self::open).
    pub fn open_dir(path: &std::path::Path, options: StoreOptions) -> Result<Arc<Self>> {
        let engine = FjallEngine::open(path, options.memory_bytes, options.env.clone())?;
        let mode = options.heads_mode;
        let store = Self::open(Arc::new(engine), options)?;
        if let (Some(mode), Some(published)) = (mode, &store.published) {
            // Without it each begin is a request; nothing else depends on it.
            match Board::take(path, store.id.to_bytes(), published.newest().commit(), mode) {
                Ok(board) => published.show_on(board),
                Err(error) => tracing::warn!(
                    %error,
                    file = %path.join(interleaf_heads::FILE_NAME).display(),
                    "heads cannot be shown to local clients: their transactions begin by a request"
                ),
            }
        }
        Ok(store)
    }

    /// Where the store's heads are shown, if they are.
    #[must_use]
    pub fn heads_place(&self) -> Option<interleaf_heads::Place> {
        self.published.as_ref()?.place()
    }

    /// Opens the store of a FoundationDB cluster under a prefix (empty for none), creating
    /// it where it is absent.
    ///
    /// # Errors
    /// As [`FdbKv::open`](crate::kv::fdb::FdbKv::open) and [`open`](Self::open).
    #[cfg(feature = "fdb")]
    pub fn open_fdb(
        cluster_file: &std::path::Path,
        prefix: &str,
        options: StoreOptions,
    ) -> Result<Arc<Self>> {
        let engine = crate::kv::fdb::FdbKv::open(cluster_file, prefix, options.env.clone())?;
        Self::open(Arc::new(engine), options)
    }

    /// Makes everything durable, leaves the mark of a clean end; later calls fail.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(self.kv.close()?)
    }

    /// Why the store takes no commits any more, until it is opened anew. Reads go on.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.kv.failure().map(Error::from)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Time and randomness of this store.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }
}

/// Whether this program may use what the engine holds, and what it says of time: the first
/// that an engine is asked, perhaps just when its cluster is in trouble.
fn first_look(kv: &dyn Kv, env: &Env, deadline: Deadline) -> Result<Arc<Sampler>> {
    let look = || {
        let reads = kv.snapshot(deadline)?;
        // Refused before anything is written.
        match reads.get(&keys::format())? {
            Some(bytes) => {
                FormatRecord::decode(&bytes)?;
            }
            // The record is written with the first version, and never again.
            None if kv.exclusive() && !kv.recovered() && reads.version() > Version::ZERO => {
                let what = "the store's format record is missing".to_owned();
                return Err(Error::Corrupt { what });
            }
            None => {}
        }
        Ok(Arc::new(Sampler::load(env.clone(), kv.exclusive(), &View(&*reads))?))
    };
    retry::transient(env, deadline, Error::is_transient, look)
}

/// The store's id and incarnation, created where there are none; a new incarnation where
/// the engine recovered from an unclean end.
fn identify(kv: &dyn Kv, env: &Env, deadline: Deadline) -> Result<(StoreId, Incarnation)> {
    let fresh = FormatRecord {
        store: StoreId::from_bytes(env.random()?),
        created_micros: env.clock.unix_micros(),
        version: FORMAT_VERSION,
    };
    let fresh_incarnation = Incarnation::from_bytes(env.random()?);
    let found = Cell::new((fresh.store, fresh_incarnation));
    kv.transact(deadline, &mut |txn| {
        let store = match txn.get(&keys::format())? {
            Some(bytes) => {
                let found = FormatRecord::decode(&bytes)?;
                if found.version < FORMAT_VERSION {
                    txn.put(
                        keys::format(),
                        FormatRecord { version: FORMAT_VERSION, ..found }.encode(),
                    );
                }
                found.store
            }
            None => {
                txn.put(keys::format(), fresh.encode());
                fresh.store
            }
        };
        let incarnation = match txn.get(&keys::incarnation())? {
            Some(bytes) if !kv.recovered() => decode_incarnation(&bytes)?,
            Some(_) | None => {
                txn.put(keys::incarnation(), encode_incarnation(fresh_incarnation));
                fresh_incarnation
            }
        };
        found.set((store, incarnation));
        Ok(())
    })?;
    Ok(found.get())
}
