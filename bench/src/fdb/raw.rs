//! FoundationDB's own floor: its client interface without Interleaf, in the same process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use foundationdb::options::TransactionOption;
use foundationdb::{Database, FdbError, Transaction};
use futures_executor::block_on;

use crate::sample::median_seconds;

/// Prefix of the keys written here, in the same cluster as the stores.
const PREFIX: &str = "interleaf-bench-raw/";

/// Length of the keys written here, in bytes: about that of Interleaf's.
const KEY_BYTES: usize = 56;

/// Keys among which one client writes, again and again.
const PLACES: u64 = 1_000;

/// The records that one commit writes, as lengths of keys and values together, in bytes.
#[derive(Clone, Debug)]
pub struct Payload(Vec<usize>);

impl Payload {
    /// What `commits` commits added to the records of a store, for one of them; and the head,
    /// which each of them overwrites.
    pub fn of(
        before: &BTreeMap<String, (u64, u64)>,
        after: &BTreeMap<String, (u64, u64)>,
        commits: u64,
    ) -> Self {
        const HEAD_BYTES: usize = 70;
        let mut lengths = vec![HEAD_BYTES];
        for (name, (records, bytes)) in after {
            let (had, had_bytes) = before.get(name).copied().unwrap_or_default();
            let (added, bytes) = (records.saturating_sub(had), bytes.saturating_sub(had_bytes));
            // Rounded: a few records come with the load alone.
            let each = (added + commits / 2) / commits;
            for _ in 0..each {
                lengths.push(usize::try_from(bytes / added).unwrap_or(usize::MAX));
            }
        }
        Self(lengths)
    }

    /// How many keys.
    pub fn keys(&self) -> usize {
        self.0.len()
    }

    /// How many bytes, keys and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().sum()
    }

    /// Writes it, at keys that only `client` uses.
    fn write(&self, transaction: &Transaction, client: usize, place: u64) {
        for (index, length) in self.0.iter().enumerate() {
            let mut key = format!("{PREFIX}{client}/{place}/{index}/").into_bytes();
            key.resize(KEY_BYTES.min(*length), b'.');
            transaction.set(&key, &vec![0xa5; length.saturating_sub(key.len())]);
        }
    }
}

/// An opened cluster.
pub struct Raw {
    database: Database,
}

/// Medians, in seconds.
#[derive(Clone, Copy)]
pub struct Floor {
    /// A read version.
    pub read_version: f64,
    /// The read of a key, at a known read version.
    pub get: f64,
    /// A commit at a known read version.
    pub commit: f64,
    /// All three in one transaction after the other. The get waits there until the storage
    /// server has what the transaction before committed.
    pub together: f64,
}

impl Raw {
    /// Opens the cluster.
    pub fn open(file: &Path) -> Result<Self> {
        interleaf_fdb_link::start().map_err(|error| anyhow!("{error}"))?;
        let path = file.to_str().context("the cluster file's path is not UTF-8")?;
        Ok(Self { database: Database::from_path(path).map_err(of)? })
    }

    fn transaction(&self) -> Result<Transaction> {
        let transaction = self.database.create_trx().map_err(of)?;
        transaction.set_option(TransactionOption::ReadYourWritesDisable).map_err(of)?;
        Ok(transaction)
    }

    /// Measures each wait for so many seconds.
    pub fn floor(&self, payload: &Payload, seconds: f64) -> Result<Floor> {
        let read_version = median_seconds(seconds, |_| {
            let transaction = self.transaction()?;
            timed(|| block_on(transaction.get_read_version()).map(drop).map_err(of))
        })?;
        let known = || -> Result<Transaction> {
            let transaction = self.transaction()?;
            block_on(transaction.get_read_version()).map_err(of)?;
            Ok(transaction)
        };
        let get = median_seconds(seconds, |call| {
            let transaction = known()?;
            let key = format!("{PREFIX}get{}", call % PLACES);
            timed(|| block_on(transaction.get(key.as_bytes(), true)).map(drop).map_err(of))
        })?;
        let committing = median_seconds(seconds, |call| {
            let transaction = known()?;
            payload.write(&transaction, 0, call % PLACES);
            timed(|| commit(transaction))
        })?;
        let together = median_seconds(seconds, |call| {
            let key = format!("{PREFIX}get{}", call % PLACES);
            timed(|| {
                let transaction = known()?;
                block_on(transaction.get(key.as_bytes(), true)).map_err(of)?;
                payload.write(&transaction, 0, call % PLACES);
                commit(transaction)
            })
        })?;
        Ok(Floor { read_version, get, commit: committing, together })
    }

    /// Commits a second of so many threads, each of which fetches a read version and writes the
    /// payload at keys of its own.
    pub fn writers(&self, clients: usize, payload: &Payload, seconds: f64) -> Result<f64> {
        let barrier = Barrier::new(clients);
        let limit = Duration::from_secs_f64(seconds);
        let commits = AtomicU64::new(0);
        let work = &|client: usize| -> Result<()> {
            barrier.wait();
            let start = Instant::now();
            for place in 0.. {
                if start.elapsed() >= limit {
                    break;
                }
                let transaction = self.transaction()?;
                block_on(transaction.get_read_version()).map_err(of)?;
                payload.write(&transaction, client, place % PLACES);
                commit(transaction)?;
                commits.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..clients).map(|client| scope.spawn(move || work(client))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
        })?;
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        Ok(commits.into_inner() as f64 / seconds)
    }

    /// Removes what was written here.
    pub fn clear(&self) -> Result<()> {
        let transaction = self.transaction()?;
        let end = PREFIX.replace('/', "0");
        transaction.clear_range(PREFIX.as_bytes(), end.as_bytes());
        commit(transaction)
    }
}

fn commit(transaction: Transaction) -> Result<()> {
    block_on(transaction.commit()).map(drop).map_err(|error| anyhow!("a raw commit: {error}"))
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn of(error: FdbError) -> anyhow::Error {
    anyhow!("FoundationDB: {error}")
}
