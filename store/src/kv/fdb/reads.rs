//! Reads of one FoundationDB transaction. All of them are without conflicts in
//! FoundationDB's sense: see [`space`](super::space).

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use foundationdb::options::StreamingMode;
use foundationdb::{FdbResult, RangeOption, Transaction, future::FdbValues};

use super::super::{Entry, Key, KvResult, Reads, Scan, Snapshot};
use super::FdbKv;
use super::wait::wait;
use crate::env::Deadline;
use crate::types::Version;

/// The first part of a scan, on its way.
type FirstPart = Pin<Box<dyn Future<Output = FdbResult<FdbValues>> + Send>>;

/// A scan that was sent; `None` for one that can find nothing.
pub(super) type Sent = Option<(RangeOption<'static>, FirstPart)>;

/// Reads of `transaction`, until the deadline.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) kv: &'a FdbKv,
    pub(super) transaction: &'a Transaction,
    pub(super) deadline: Deadline,
}

impl Reader<'_> {
    fn wait<T>(&self, future: impl Future<Output = FdbResult<T>> + Unpin) -> KvResult<T> {
        let answer = wait(future, self.deadline, &*self.kv.env.clock)?;
        answer.map_err(FdbKv::read_error)
    }

    pub(super) fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        self.kv.usable()?;
        self.kv.count_wait();
        let value = self.wait(self.transaction.get(&self.kv.space.key(key), true))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(super) fn get_many(&self, keys: &[Key]) -> KvResult<Vec<Option<Bytes>>> {
        self.kv.usable()?;
        let gets = keys.iter().map(|key| self.transaction.get(&self.kv.space.key(key), true));
        let sent: Vec<_> = gets.collect();
        self.kv.count_wait();
        sent.into_iter()
            .map(|get| Ok(self.wait(get)?.map(|value| Bytes::copy_from_slice(&value))))
            .collect()
    }

    pub(super) fn scan_many(&self, scans: &[Scan]) -> KvResult<Vec<Vec<Entry>>> {
        let sent = self.send_scans(scans)?;
        self.kv.count_wait();
        self.finish_scans(sent)
    }

    /// Asks for the first part of each scan.
    pub(super) fn send_scans(&self, scans: &[Scan]) -> KvResult<Vec<Sent>> {
        self.kv.usable()?;
        let send = |options: RangeOption<'static>| {
            let first = self.transaction.get_range(&options, 1, true);
            (options, Box::pin(first) as FirstPart)
        };
        Ok(scans.iter().map(|scan| self.options(scan).map(send)).collect())
    }

    /// Waits for what was sent, and for what more of it there is.
    pub(super) fn finish_scans(&self, sent: Vec<Sent>) -> KvResult<Vec<Vec<Entry>>> {
        sent.into_iter()
            .map(|scan| match scan {
                Some((options, first)) => self.finish(options, first),
                None => Ok(Vec::new()),
            })
            .collect()
    }

    /// How FoundationDB is asked; `None` where nothing can be found, for which it has no
    /// words (a limit of 0 is none at all, and a reversed range an error).
    fn options(&self, scan: &Scan) -> Option<RangeOption<'static>> {
        if scan.limit == 0 || scan.range.start >= scan.range.end {
            return None;
        }
        let mut options = RangeOption::from(self.kv.space.range(&scan.range));
        options.reverse = scan.reverse;
        options.limit = i32::try_from(scan.limit).is_ok().then_some(scan.limit);
        options.mode = StreamingMode::WantAll;
        Some(options)
    }

    /// The entries of a scan whose first part is on its way.
    fn finish(
        &self,
        mut options: RangeOption<'static>,
        first: impl Future<Output = FdbResult<FdbValues>> + Unpin,
    ) -> KvResult<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut values = self.wait(first)?;
        for part in 2.. {
            for entry in values.iter() {
                let key = Bytes::copy_from_slice(self.kv.space.strip(entry.key())?);
                entries.push((key, Bytes::copy_from_slice(entry.value())));
            }
            match options.next_range(&values) {
                Some(next) => options = next,
                None => break,
            }
            self.kv.count_wait();
            values = self.wait(self.transaction.get_range(&options, part, true))?;
        }
        Ok(entries)
    }
}

/// Stable reads at a read version.
pub(super) struct FdbSnapshot<'a> {
    pub(super) kv: &'a FdbKv,
    pub(super) transaction: Transaction,
    pub(super) version: Version,
    pub(super) deadline: Deadline,
}

impl FdbSnapshot<'_> {
    fn reader(&self) -> Reader<'_> {
        Reader { kv: self.kv, transaction: &self.transaction, deadline: self.deadline }
    }
}

impl Reads for FdbSnapshot<'_> {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        self.reader().get(key)
    }

    fn get_many(&self, keys: &[Key]) -> KvResult<Vec<Option<Bytes>>> {
        self.reader().get_many(keys)
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        let entries = self.reader().scan_many(std::slice::from_ref(scan))?;
        Ok(entries.into_iter().next().unwrap_or_default())
    }

    fn scan_many(&self, scans: &[Scan]) -> KvResult<Vec<Vec<Entry>>> {
        self.reader().scan_many(scans)
    }
}

impl Snapshot for FdbSnapshot<'_> {
    fn version(&self) -> Version {
        self.version
    }
}
