//! Transactions that may run again.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use foundationdb::options::ConflictRangeType;
use foundationdb::{FdbResult, Transaction};

use super::super::{
    Entry, Key, KeyRange, KvError, KvResult, Mutation, OnPublish, Reads, Scan, Txn, TxnBody,
    TxnError,
};
use super::FdbKv;
use super::error::is_retryable;
use super::reads::Reader;
use super::space::{after, any_version, only};
use super::wait::remaining;
use super::writes::{Size, apply, conflict};
use crate::env::Deadline;
use crate::types::Version;

/// First pause before a body runs again; it doubles from run to run.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// One run of a body.
struct FdbTxn<'a> {
    kv: &'a FdbKv,
    transaction: Transaction,
    deadline: Deadline,
    size: RefCell<Size>,
    /// Whether there is anything to commit.
    wrote: bool,
    /// Versioned mutations, kept until the commit: FoundationDB refuses reads of what has
    /// no version yet, and nobody is to see them before.
    versioned: Vec<Mutation>,
    /// The first failure of a call that has no way to tell.
    failed: RefCell<Option<KvError>>,
}

impl FdbTxn<'_> {
    fn reader(&self) -> Reader<'_> {
        Reader { kv: self.kv, transaction: &self.transaction, deadline: self.deadline }
    }

    fn note(&self, result: FdbResult<()>) {
        self.note_engine(result.map_err(FdbKv::read_error));
    }

    fn note_engine(&self, result: KvResult<()>) {
        if let Err(error) = result {
            self.failed.borrow_mut().get_or_insert(error);
        }
    }

    fn conflict(&self, range: &KeyRange, kind: ConflictRangeType) {
        self.size.borrow_mut().add_conflict(range);
        self.note(conflict(&self.transaction, &self.kv.space, range, kind));
    }

    fn read(&self, range: &KeyRange) {
        self.conflict(range, ConflictRangeType::Read);
    }

    /// Versioned values within `range` are overwritten before they come to be.
    fn forget_versioned(&mut self, range: &KeyRange) {
        self.versioned.retain(|pending| match pending {
            Mutation::PutVersionedValue { key, .. } => !range.contains(key),
            _ => true,
        });
    }

    /// The version, or `None` where there is nothing to commit.
    fn commit(self) -> KvResult<Option<Version>> {
        if let Some(error) = self.failed.into_inner() {
            return Err(error);
        }
        if !self.wrote {
            return Ok(None);
        }
        let size = self.size.into_inner();
        size.check()?;
        for mutation in &self.versioned {
            apply(&self.transaction, &self.kv.space, mutation).map_err(FdbKv::read_error)?;
        }
        self.kv.commit(self.transaction, size.plain, self.deadline).map(Some)
    }
}

impl Reads for FdbTxn<'_> {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        self.read(&only(key));
        self.reader().get(key)
    }

    fn get_many(&self, keys: &[Key]) -> KvResult<Vec<Option<Bytes>>> {
        for key in keys {
            self.read(&only(key));
        }
        self.reader().get_many(keys)
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        let entries = self.scan_many(std::slice::from_ref(scan))?;
        Ok(entries.into_iter().next().unwrap_or_default())
    }

    fn scan_many(&self, scans: &[Scan]) -> KvResult<Vec<Vec<Entry>>> {
        let found = self.reader().scan_many(scans)?;
        for (scan, entries) in scans.iter().zip(&found) {
            self.read(&seen(scan, entries));
        }
        Ok(found)
    }
}

/// What a scan has looked at: all of its range, or as far as its limit let it come.
fn seen(scan: &Scan, entries: &[Entry]) -> KeyRange {
    let KeyRange { start, end } = scan.range.clone();
    match entries.last() {
        _ if scan.limit == 0 => start.clone()..start,
        Some((last, _)) if entries.len() >= scan.limit => {
            if scan.reverse {
                last.to_vec()..end
            } else {
                start..after(last)
            }
        }
        _ => start..end,
    }
}

impl Txn for FdbTxn<'_> {
    fn put(&mut self, key: Key, value: Bytes) {
        self.mutate(Mutation::Put { key, value });
    }

    fn delete(&mut self, key: Key) {
        self.mutate(Mutation::Delete { key });
    }

    fn mutate(&mut self, mutation: Mutation) {
        self.wrote = true;
        let counted = self.size.borrow_mut().add_mutation(&mutation);
        self.note_engine(counted);
        let (range, versioned) = match &mutation {
            Mutation::Put { key, .. } | Mutation::Delete { key } => (only(key), false),
            Mutation::DeleteRange { range } => (range.clone(), false),
            Mutation::PutVersionedKey { prefix, suffix, .. } => (any_version(prefix, suffix), true),
            Mutation::PutVersionedValue { key, .. } => (only(key), true),
        };
        self.conflict(&range, ConflictRangeType::Write);
        if !matches!(mutation, Mutation::PutVersionedKey { .. }) {
            self.forget_versioned(&range);
        }
        if versioned {
            self.versioned.push(mutation);
        } else {
            self.note(apply(&self.transaction, &self.kv.space, &mutation));
        }
    }

    fn read_conflict(&mut self, range: KeyRange) {
        self.read(&range);
    }

    fn write_conflict(&mut self, range: KeyRange) {
        self.wrote = true;
        self.conflict(&range, ConflictRangeType::Write);
    }

    fn on_publish(&mut self, _call: OnPublish) {
        // Embedded engines only: other processes commit here too.
    }
}

/// Runs `body` until it commits, it gives up, or the time is over.
pub(super) fn transact(
    kv: &FdbKv,
    deadline: Deadline,
    body: TxnBody<'_>,
) -> crate::Result<Option<Version>> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match run(kv, deadline, body) {
            Ok(version) => return Ok(version),
            Err(TxnError::Abort(error)) => return Err(error),
            Err(TxnError::Engine(error)) => error,
        };
        let jittered = jitter(kv, pause);
        let left = remaining(deadline, &*kv.env.clock).unwrap_or_default();
        if !is_retryable(&error) || left <= jittered {
            return Err(error.into());
        }
        kv.env.clock.sleep(jittered);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn run(kv: &FdbKv, deadline: Deadline, body: TxnBody<'_>) -> Result<Option<Version>, TxnError> {
    let mut txn = FdbTxn {
        kv,
        transaction: kv.transaction()?,
        deadline,
        size: RefCell::default(),
        wrote: false,
        versioned: Vec::new(),
        failed: RefCell::default(),
    };
    body(&mut txn)?;
    Ok(txn.commit()?)
}

/// Between a half and the whole of `pause`, so that those who met do not meet again.
fn jitter(kv: &FdbKv, pause: Duration) -> Duration {
    let part = kv.env.random::<1>().map_or(255, |[byte]| byte);
    pause / 2 + pause * u32::from(part) / 510
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(limit: usize, reverse: bool) -> Scan {
        Scan { range: b"b".to_vec()..b"y".to_vec(), reverse, limit }
    }

    #[test]
    fn a_scan_has_seen_what_it_passed() {
        let entry = |key: &'static [u8]| (Bytes::from_static(key), Bytes::new());
        let two = [entry(b"c"), entry(b"d")];
        assert_eq!(seen(&scan(9, false), &two), b"b".to_vec()..b"y".to_vec());
        assert_eq!(seen(&scan(2, false), &two), b"b".to_vec()..b"d\0".to_vec());
        let down = [entry(b"d"), entry(b"c")];
        assert_eq!(seen(&scan(2, true), &down), b"c".to_vec()..b"y".to_vec());
        assert_eq!(seen(&scan(9, true), &[]), b"b".to_vec()..b"y".to_vec());
        assert!(seen(&scan(0, false), &[]).is_empty());
    }
}
