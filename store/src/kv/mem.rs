//! The engine in memory: a sorted map of versioned values.
//!
//! Each key holds its values with the batch that wrote them, oldest first; a view reads
//! the newest one not later than itself. What no open view and none to come can see is
//! dropped as later batches pass.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;

use super::group::{ApplyError, Group, Storage, WINDOW_BYTES, lock};
use super::prepare::Op;
use super::{Durability, Entry, KvResult, Limits, Reads, Scan};
use crate::env::Env;
use crate::types::Version;

/// Longest key, in bytes, of the embedded engines: the same as on every other.
pub(super) const KEY_BYTES: usize = 512;
/// Longest value, in bytes, of the embedded engines.
pub(super) const VALUE_BYTES: usize = 1 << 20;
/// Largest commit, in bytes, of the embedded engines.
pub(super) const TRANSACTION_BYTES: u64 = 256 << 20;

/// What the embedded engines can take.
pub(super) const LIMITS: Limits = Limits {
    key_bytes: KEY_BYTES,
    value_bytes: VALUE_BYTES,
    transaction_bytes: TRANSACTION_BYTES,
    transaction_age_ms: None,
};

/// The engine in memory: for tests, and for stores that need not outlive their process.
pub type MemEngine = Group<MemStorage>;

impl MemEngine {
    /// An empty store.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self::over(MemStorage::default(), env, Version::ZERO, u64::MAX, WINDOW_BYTES)
    }
}

/// A value, or its absence, and the batch from which on it holds.
type Versioned = (u64, Option<Bytes>);

/// The map under a [`MemEngine`].
#[derive(Debug, Default)]
pub struct MemStorage {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    data: RwLock<Data>,
    /// Batches at which views are open, with their number. Locked after `data`.
    open: Mutex<BTreeMap<u64, usize>>,
}

#[derive(Debug, Default)]
struct Data {
    /// Batches applied.
    batch: u64,
    values: BTreeMap<Bytes, Vec<Versioned>>,
    /// Keys that hold more than one live value, with the batch that made them so.
    stale: VecDeque<(u64, Bytes)>,
}

impl Data {
    /// Sets or removes a key as of the batch in progress.
    fn set(&mut self, key: Bytes, value: Option<Bytes>, oldest: u64) {
        let batch = self.batch;
        let values = self.values.entry(key.clone()).or_default();
        values.push((batch, value));
        if prune(values, oldest) {
            self.values.remove(&key);
        } else if values.len() > 1 || values.last().is_some_and(|(_, value)| value.is_none()) {
            self.stale.push_back((batch, key));
        }
    }

    fn delete_range(&mut self, start: Vec<u8>, end: Vec<u8>, oldest: u64) {
        if start >= end {
            return;
        }
        let bounds = (Bound::Included(Bytes::from(start)), Bound::Excluded(Bytes::from(end)));
        let present = |(key, values): (&Bytes, &Vec<Versioned>)| {
            let (_, value) = values.last()?;
            value.as_ref().map(|_| key.clone())
        };
        let keys: Vec<Bytes> = self.values.range(bounds).filter_map(present).collect();
        for key in keys {
            self.set(key, None, oldest);
        }
    }

    /// Drops values that nobody can see any more.
    fn collect(&mut self, oldest: u64) {
        while self.stale.front().is_some_and(|(batch, _)| *batch <= oldest) {
            let Some((_, key)) = self.stale.pop_front() else { break };
            if self.values.get_mut(&key).is_some_and(|values| prune(values, oldest)) {
                self.values.remove(&key);
            }
        }
    }
}

/// Drops the values that neither a view at `oldest` nor a later one can see; says whether
/// nothing is left. A lone removal hides nothing.
fn prune(values: &mut Vec<Versioned>, oldest: u64) -> bool {
    let seen = values.iter().rposition(|(batch, _)| *batch <= oldest).unwrap_or(0);
    values.drain(..seen);
    matches!(values.as_slice(), [] | [(_, None)])
}

/// The value that a view at `batch` sees.
fn visible(values: &[Versioned], batch: u64) -> Option<&Bytes> {
    let (_, value) = values.iter().rev().find(|(at, _)| *at <= batch)?;
    value.as_ref()
}

impl Shared {
    fn view(self: &Arc<Self>) -> View {
        let data = read(&self.data);
        *lock(&self.open).entry(data.batch).or_default() += 1;
        View { shared: Arc::clone(self), batch: data.batch }
    }
}

#[cfg(any(test, feature = "sim"))]
impl MemStorage {
    /// Reads of now.
    pub(super) fn now(&self) -> View {
        self.shared.view()
    }

    /// A storage of what a view at `batch` sees, which is still kept apart.
    pub(super) fn copy_at(&self, batch: u64) -> Self {
        let data = read(&self.shared.data);
        let keep = |(key, values): (&Bytes, &Vec<Versioned>)| {
            visible(values, batch).map(|value| (key.clone(), vec![(0, Some(value.clone()))]))
        };
        let values = data.values.iter().filter_map(keep).collect();
        let copy = Self::default();
        write(&copy.shared.data).values = values;
        copy
    }
}

#[cfg(any(test, feature = "sim"))]
impl View {
    /// The batch up to which it sees.
    pub(super) const fn batch(&self) -> u64 {
        self.batch
    }
}

/// Reads of the moment at which it was taken.
#[derive(Debug)]
pub struct View {
    shared: Arc<Shared>,
    batch: u64,
}

impl Drop for View {
    fn drop(&mut self) {
        let mut open = lock(&self.shared.open);
        if let Some(count) = open.get_mut(&self.batch) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.batch);
            }
        }
    }
}

impl Reads for View {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        let data = read(&self.shared.data);
        Ok(data.values.get(key).and_then(|values| visible(values, self.batch)).cloned())
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        let (start, end) = (scan.range.start.as_slice(), scan.range.end.as_slice());
        if start >= end {
            return Ok(Vec::new());
        }
        let data = read(&self.shared.data);
        let all = data.values.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
        let entry = |(key, values): (&Bytes, &Vec<Versioned>)| {
            visible(values, self.batch).map(|value| (key.clone(), value.clone()))
        };
        Ok(if scan.reverse {
            all.rev().filter_map(entry).take(scan.limit).collect()
        } else {
            all.filter_map(entry).take(scan.limit).collect()
        })
    }
}

impl Storage for MemStorage {
    type View = View;

    fn name(&self) -> &'static str {
        "mem"
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn view(&self) -> KvResult<View> {
        Ok(self.shared.view())
    }

    fn apply(&self, ops: Vec<Op>, _durability: Durability) -> Result<(), ApplyError> {
        let mut data = write(&self.shared.data);
        let oldest = {
            let open = lock(&self.shared.open);
            open.first_key_value().map_or(data.batch + 1, |(&batch, _)| batch)
        };
        data.batch += 1;
        data.collect(oldest);
        for op in ops {
            match op {
                Op::Put(key, value) => data.set(key.into(), Some(value), oldest),
                Op::Delete(key) => data.set(key.into(), None, oldest),
                Op::DeleteRange(range) => data.delete_range(range.start, range.end, oldest),
            }
        }
        Ok(())
    }
}

fn read(data: &RwLock<Data>) -> std::sync::RwLockReadGuard<'_, Data> {
    data.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write(data: &RwLock<Data>) -> std::sync::RwLockWriteGuard<'_, Data> {
    data.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(storage: &MemStorage, ops: Vec<Op>) {
        storage.apply(ops, Durability::Buffered).unwrap();
    }

    fn put(key: &str, value: &str) -> Op {
        Op::Put(key.into(), Bytes::copy_from_slice(value.as_bytes()))
    }

    fn values_kept(storage: &MemStorage) -> usize {
        read(&storage.shared.data).values.values().map(Vec::len).sum()
    }

    #[test]
    fn what_no_view_can_see_is_dropped() {
        let storage = MemStorage::default();
        apply(&storage, vec![put("a", "1"), put("b", "1")]);
        let view = storage.view().unwrap();
        for n in 0..10 {
            apply(&storage, vec![put("a", &n.to_string()), Op::Delete(b"b".to_vec())]);
        }
        assert_eq!(view.get(b"a").unwrap().unwrap(), "1");
        assert_eq!(view.get(b"b").unwrap().unwrap(), "1");
        drop(view);
        apply(&storage, vec![]);
        assert_eq!(values_kept(&storage), 1, "only the last value of a is left");
        assert_eq!(storage.view().unwrap().get(b"a").unwrap().unwrap(), "9");
        assert_eq!(storage.view().unwrap().get(b"b").unwrap(), None);
    }

    #[test]
    fn a_key_set_twice_in_one_batch_keeps_the_last() {
        let storage = MemStorage::default();
        apply(&storage, vec![put("a", "1"), Op::Delete(b"a".to_vec()), put("a", "2")]);
        assert_eq!(storage.view().unwrap().get(b"a").unwrap().unwrap(), "2");
        let range = b"a".to_vec()..b"b".to_vec();
        apply(&storage, vec![put("aa", "3"), Op::DeleteRange(range), put("ab", "4")]);
        let view = storage.view().unwrap();
        let scan = Scan { range: b"a".to_vec()..b"z".to_vec(), reverse: false, limit: 9 };
        let expected = (Bytes::from_static(b"ab"), Bytes::from_static(b"4"));
        assert_eq!(view.scan(&scan).unwrap(), vec![expected]);
    }
}
