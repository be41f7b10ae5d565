//! The transaction of [`Kv::transact`](super::Kv::transact) over a snapshot: its reads
//! are recorded as conflicts, its writes are laid over the snapshot.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::conflict::{after, point};
use super::{
    Commit, Durability, Entry, Key, KeyRange, KvResult, Mutation, OnPublish, Reads, Scan, Snapshot,
    Txn,
};
use crate::types::Version;

/// A transaction in progress.
pub(super) struct Overlay<'a> {
    base: &'a dyn Snapshot,
    /// Keys set or removed here; what is not in it shows through from `base`, unless it is
    /// in `deleted`.
    own: BTreeMap<Key, Option<Bytes>>,
    deleted: Vec<KeyRange>,
    mutations: Vec<Mutation>,
    reads: RefCell<Vec<KeyRange>>,
    writes: Vec<KeyRange>,
    on_publish: Option<OnPublish>,
}

impl<'a> Overlay<'a> {
    /// A transaction that reads from `base`.
    pub(super) fn new(base: &'a dyn Snapshot) -> Self {
        Self {
            base,
            own: BTreeMap::new(),
            deleted: Vec::new(),
            mutations: Vec::new(),
            reads: RefCell::default(),
            writes: Vec::new(),
            on_publish: None,
        }
    }

    /// The commit of what was done here, or `None` where nothing was written.
    pub(super) fn into_commit(self) -> Option<Commit> {
        if self.mutations.is_empty() && self.writes.is_empty() {
            return None;
        }
        Some(Commit {
            snapshot: self.base.version(),
            read_conflicts: self.reads.into_inner().into(),
            write_conflicts: self.writes,
            mutations: self.mutations,
            durability: Durability::Synced,
            on_publish: self.on_publish,
        })
    }

    fn is_deleted(&self, key: &[u8]) -> bool {
        self.deleted.iter().any(|range| range.start.as_slice() <= key && key < range.end.as_slice())
    }

    /// The base's entries of a scan that show through.
    fn shown(&self, scan: &Scan, hidden_at_most: usize) -> KvResult<Vec<Entry>> {
        let mut shown = Vec::new();
        let mut range = scan.range.clone();
        loop {
            let limit = (scan.limit - shown.len()).saturating_add(hidden_at_most);
            let part = Scan { range: range.clone(), reverse: scan.reverse, limit };
            let entries = self.base.scan(&part)?;
            let all = entries.len() < limit;
            match entries.last() {
                Some((key, _)) if scan.reverse => range.end = key.to_vec(),
                Some((key, _)) => range.start = after(key),
                None => {}
            }
            let visible = |key: &[u8]| !self.own.contains_key(key) && !self.is_deleted(key);
            shown.extend(entries.into_iter().filter(|(key, _)| visible(key)));
            if all || shown.len() >= scan.limit || range.start >= range.end {
                return Ok(shown);
            }
        }
    }

    /// Lays a mutation over the base and notes what it writes.
    fn lay(&mut self, mutation: &Mutation) {
        match mutation {
            Mutation::Put { key, value } => {
                self.own.insert(key.clone(), Some(value.clone()));
                self.writes.push(point(key));
            }
            Mutation::Delete { key } => {
                self.own.insert(key.clone(), None);
                self.writes.push(point(key));
            }
            Mutation::DeleteRange { range } => {
                self.own.retain(|key, _| !range.contains(key));
                self.deleted.push(range.clone());
                self.writes.push(range.clone());
            }
            Mutation::PutVersionedKey { prefix, suffix, .. } => {
                let with = |version: Version| [prefix, &version.to_bytes()[..], suffix].concat();
                let last = with(Version::MAX);
                self.writes.push(with(self.base.version())..after(&last));
            }
            Mutation::PutVersionedValue { key, .. } => self.writes.push(point(key)),
        }
    }
}

impl Reads for Overlay<'_> {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        if let Some(own) = self.own.get(key) {
            return Ok(own.clone());
        }
        if self.is_deleted(key) {
            return Ok(None);
        }
        self.reads.borrow_mut().push(point(key));
        self.base.get(key)
    }

    /// What is not written here is fetched in one go.
    fn get_many(&self, keys: &[Key]) -> KvResult<Vec<Option<Bytes>>> {
        let shows = |key: &&Key| !self.own.contains_key(*key) && !self.is_deleted(key);
        let shown: Vec<Key> = keys.iter().filter(shows).cloned().collect();
        self.reads.borrow_mut().extend(shown.iter().map(|key| point(key)));
        let mut fetched = self.base.get_many(&shown)?.into_iter();
        let value = |key: &Key| match self.own.get(key) {
            Some(own) => own.clone(),
            None if self.is_deleted(key) => None,
            None => fetched.next().flatten(),
        };
        Ok(keys.iter().map(value).collect())
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        if scan.limit == 0 || scan.range.start >= scan.range.end {
            return Ok(Vec::new());
        }
        let bounds = (
            Bound::Included(scan.range.start.as_slice()),
            Bound::Excluded(scan.range.end.as_slice()),
        );
        let own: Vec<_> = self.own.range::<[u8], _>(bounds).collect();
        let mut entries = self.shown(scan, own.len())?;
        let put = |(key, value): (&Key, &Option<Bytes>)| {
            value.as_ref().map(|value| (Bytes::copy_from_slice(key), value.clone()))
        };
        entries.extend(own.into_iter().filter_map(put));
        entries.sort_unstable_by(|a, b| if scan.reverse { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
        entries.truncate(scan.limit);
        self.reads.borrow_mut().push(seen(scan, &entries));
        Ok(entries)
    }

    /// Where nothing is written here, all are fetched in one go.
    fn scan_many(&self, scans: &[Scan]) -> KvResult<Vec<Vec<Entry>>> {
        if !self.own.is_empty() || !self.deleted.is_empty() {
            return scans.iter().map(|scan| self.scan(scan)).collect();
        }
        let found = self.base.scan_many(scans)?;
        let ranges = scans.iter().zip(&found).map(|(scan, entries)| seen(scan, entries));
        self.reads.borrow_mut().extend(ranges.filter(|range| range.start < range.end));
        Ok(found)
    }
}

/// What a scan has seen: beyond the last entry given, one that was full nothing.
fn seen(scan: &Scan, entries: &[Entry]) -> KeyRange {
    let mut seen = scan.range.clone();
    if scan.limit == 0 {
        seen.end.clone_from(&seen.start);
    } else if let Some((key, _)) = entries.last().filter(|_| entries.len() == scan.limit) {
        if scan.reverse {
            seen.start = key.to_vec();
        } else {
            seen.end = after(key);
        }
    }
    seen
}

impl Txn for Overlay<'_> {
    fn put(&mut self, key: Key, value: Bytes) {
        self.mutate(Mutation::Put { key, value });
    }

    fn delete(&mut self, key: Key) {
        self.mutate(Mutation::Delete { key });
    }

    fn mutate(&mut self, mutation: Mutation) {
        self.lay(&mutation);
        self.mutations.push(mutation);
    }

    fn read_conflict(&mut self, range: KeyRange) {
        self.reads.get_mut().push(range);
    }

    fn write_conflict(&mut self, range: KeyRange) {
        self.writes.push(range);
    }

    fn on_publish(&mut self, call: OnPublish) {
        self.on_publish = Some(call);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Kv;
    use super::super::mem::MemEngine;
    use super::*;
    use crate::env::Env;

    fn entries(keys: &[&'static str]) -> Vec<Entry> {
        keys.iter().map(|key| (Bytes::from_static(key.as_bytes()), Bytes::new())).collect()
    }

    #[test]
    fn reads_of_many_are_as_reads_of_one() {
        let env = Env::system();
        let deadline = env.deadline(Duration::from_secs(10));
        let engine = MemEngine::new(env);
        let put = |txn: &mut dyn Txn, key: &str| txn.put(key.into(), Bytes::new());
        engine
            .transact(deadline, &mut |txn| {
                ["a", "b", "c", "d"].iter().for_each(|key| put(txn, key));
                Ok(())
            })
            .unwrap();

        let snapshot = engine.snapshot(deadline).unwrap();
        let mut txn = Overlay::new(&*snapshot);
        let scan = |limit, reverse| Scan { range: b"a".to_vec()..b"z".to_vec(), reverse, limit };
        let scans = [scan(9, false), scan(1, true), scan(0, false)];
        let plain = txn.scan_many(&scans).unwrap();
        assert_eq!(plain, [entries(&["a", "b", "c", "d"]), entries(&["d"]), entries(&[])]);
        let seen = [b"a".to_vec()..b"z".to_vec(), b"d".to_vec()..b"z".to_vec()];
        assert_eq!(*txn.reads.borrow(), seen);

        put(&mut txn, "e");
        txn.delete(b"a".to_vec());
        txn.mutate(Mutation::DeleteRange { range: b"b".to_vec()..b"c".to_vec() });
        let laid = txn.scan_many(&scans).unwrap();
        assert_eq!(laid, [entries(&["c", "d", "e"]), entries(&["e"]), entries(&[])]);
        let keys: Vec<Key> = ["e", "d", "b", "a", "d", "x"].iter().map(|&k| k.into()).collect();
        let found = txn.get_many(&keys).unwrap();
        let one_by_one: Vec<_> = keys.iter().map(|key| txn.get(key).unwrap()).collect();
        assert_eq!(found, one_by_one);
        let there: Vec<bool> = found.iter().map(Option::is_some).collect();
        assert_eq!(there, [true, true, false, false, true, false]);
    }
}
