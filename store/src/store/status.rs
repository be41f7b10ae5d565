//! Counters, and the counting of records.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;
use crate::api::{CommitRequest, RecordCounts, StoreStatus};
use crate::env::Deadline;
use crate::error::Result;
use crate::format::keys::{self, Subspace};
use crate::kv::Scan;

/// Records that one step of the counting takes.
const STEP: usize = 4096;

/// What this store has done since it was opened. Relaxed: each number stands for itself.
#[derive(Default)]
pub(super) struct Counters {
    begins: AtomicU64,
    commits: AtomicU64,
    conflicts: AtomicU64,
    retries: AtomicU64,
    reads: AtomicU64,
    pages_read: AtomicU64,
    bytes_read: AtomicU64,
    pages_written: AtomicU64,
    bytes_written: AtomicU64,
    pages_staged: AtomicU64,
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn begin(&self) {
        add(&self.begins, 1);
    }

    pub(super) fn read(&self, pages: u64, bytes: u64) {
        add(&self.reads, 1);
        add(&self.pages_read, pages);
        add(&self.bytes_read, bytes);
    }

    pub(super) fn committed(&self, request: &CommitRequest) {
        add(&self.commits, 1);
        for part in &request.parts {
            add(&self.pages_written, part.writes.len() as u64);
            add(&self.bytes_written, part.writes.iter().map(|(_, b)| b.len() as u64).sum());
        }
    }

    pub(super) fn conflict(&self) {
        add(&self.conflicts, 1);
    }

    pub(super) fn retry(&self) {
        add(&self.retries, 1);
    }

    pub(super) fn staged(&self, pages: u64) {
        add(&self.pages_staged, pages);
    }

    fn numbers(&self) -> BTreeMap<String, u64> {
        [
            ("begins", &self.begins),
            ("commits", &self.commits),
            ("conflicts", &self.conflicts),
            ("retries", &self.retries),
            ("reads", &self.reads),
            ("pages_read", &self.pages_read),
            ("bytes_read", &self.bytes_read),
            ("pages_written", &self.pages_written),
            ("bytes_written", &self.bytes_written),
            ("pages_staged", &self.pages_staged),
        ]
        .into_iter()
        .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)))
        .collect()
    }
}

impl Store {
    pub(super) fn status_now(&self) -> StoreStatus {
        let mut numbers = self.counters.numbers();
        if let Some(bytes) = self.kv.disk_bytes() {
            numbers.insert("disk_bytes".into(), bytes);
        }
        let failure = self.failure();
        numbers.insert("failed".into(), u64::from(failure.is_some()));
        let mut texts = vec![
            ("engine", self.kv.name().to_owned()),
            ("store", self.id.to_string()),
            ("incarnation", self.incarnation.to_string()),
        ];
        texts.extend(failure.map(|why| ("failure", why.to_string())));
        let texts = texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        StoreStatus { numbers, texts }
    }

    pub(super) fn count_now(&self, deadline: Deadline) -> Result<RecordCounts> {
        let reads = self.kv.snapshot(deadline)?;
        let mut counts = RecordCounts::default();
        for (subspace, name) in Subspace::STORED {
            let (mut records, mut bytes) = (0u64, 0u64);
            let mut range = subspace.range();
            loop {
                self.env.remaining(deadline)?;
                let entries =
                    reads.scan(&Scan { range: range.clone(), reverse: false, limit: STEP })?;
                records += entries.len() as u64;
                bytes += entries.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum::<u64>();
                match entries.last() {
                    Some((last, _)) if entries.len() == STEP => range.start = keys::after(last),
                    _ => break,
                }
            }
            counts.subspaces.insert(name.to_owned(), (records, bytes));
        }
        Ok(counts)
    }
}
