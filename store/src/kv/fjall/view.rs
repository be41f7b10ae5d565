//! Keyspaces and reads.

use bytes::Bytes;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, Readable};

use super::error::guarded;
use crate::kv::{Entry, KvResult, Reads, Scan};

/// First byte of the keys whose values are large and never change: content
/// (`docs/format.md`). They have a keyspace of their own, whose values are written to
/// files beside the tree once, instead of again with every compaction.
const BULK: u8 = b'c';

/// Values from this size on are kept beside the tree, in bytes.
const BESIDE_BYTES: u32 = 512;

/// Write buffer of the small records, in bytes. The engine may hold five times as much
/// while it writes them out.
pub(super) const RECORDS_BUFFER_BYTES: u64 = 6 << 20;
/// Write buffer of content, in bytes; likewise.
pub(super) const BULK_BUFFER_BYTES: u64 = 12 << 20;

/// The keyspaces that hold a store's keys.
#[derive(Clone)]
pub(super) struct Spaces {
    records: Keyspace,
    bulk: Keyspace,
}

impl Spaces {
    pub(super) fn open(db: &Database) -> fjall::Result<Self> {
        Ok(Self {
            records: db.keyspace("records", || {
                KeyspaceCreateOptions::default().max_memtable_size(RECORDS_BUFFER_BYTES)
            })?,
            bulk: db.keyspace("content", || {
                let beside = KvSeparationOptions::default().separation_threshold(BESIDE_BYTES);
                KeyspaceCreateOptions::default()
                    .max_memtable_size(BULK_BUFFER_BYTES)
                    .with_kv_separation(Some(beside))
            })?,
        })
    }

    /// Whether there is no key at all.
    pub(super) fn is_empty(&self) -> fjall::Result<bool> {
        Ok(self.records.is_empty()? && self.bulk.is_empty()?)
    }

    /// Full write buffers that wait to be written out, of the keyspace that has most.
    pub(super) fn waiting_buffers(&self) -> usize {
        self.records.sealed_memtable_count().max(self.bulk.sealed_memtable_count())
    }

    /// Where `key` is kept.
    pub(super) fn of(&self, key: &[u8]) -> &Keyspace {
        if key.first() == Some(&BULK) { &self.bulk } else { &self.records }
    }

    /// The parts of `start..end` that lie in one keyspace each, ascending.
    fn parts<'a>(&self, start: &'a [u8], end: &'a [u8]) -> Vec<(&Keyspace, &'a [u8], &'a [u8])> {
        const FROM: &[u8] = &[BULK];
        const UP_TO: &[u8] = &[BULK + 1];
        let all = [
            (&self.records, start, end.min(FROM)),
            (&self.bulk, start.max(FROM), end.min(UP_TO)),
            (&self.records, start.max(UP_TO), end),
        ];
        all.into_iter().filter(|(_, start, end)| start < end).collect()
    }
}

/// Reads of one moment.
pub struct View {
    snapshot: fjall::Snapshot,
    spaces: Spaces,
}

impl View {
    pub(super) fn new(db: &Database, spaces: &Spaces) -> Self {
        Self { snapshot: db.snapshot(), spaces: spaces.clone() }
    }

    /// The keys of a range.
    pub(super) fn keys(&self, start: &[u8], end: &[u8]) -> KvResult<Vec<Bytes>> {
        guarded("scanning", || {
            let mut keys = Vec::new();
            for (space, start, end) in self.spaces.parts(start, end) {
                for guard in self.snapshot.range(space, start..end) {
                    keys.push(guard.key()?.into());
                }
            }
            Ok(keys)
        })
    }
}

fn entry(guard: Guard) -> fjall::Result<Entry> {
    let (key, value) = guard.into_inner()?;
    Ok((key.into(), value.into()))
}

impl Reads for View {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        guarded("reading", || Ok(self.snapshot.get(self.spaces.of(key), key)?.map(Into::into)))
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        guarded("scanning", || {
            let mut parts = self.spaces.parts(&scan.range.start, &scan.range.end);
            if scan.reverse {
                parts.reverse();
            }
            let mut entries = Vec::new();
            for (space, start, end) in parts {
                let left = scan.limit - entries.len();
                if left == 0 {
                    break;
                }
                let found = self.snapshot.range(space, start..end);
                if scan.reverse {
                    found.rev().take(left).try_for_each(|g| {
                        entries.push(entry(g)?);
                        fjall::Result::Ok(())
                    })?;
                } else {
                    found.take(left).try_for_each(|g| {
                        entries.push(entry(g)?);
                        fjall::Result::Ok(())
                    })?;
                }
            }
            Ok(entries)
        })
    }
}
