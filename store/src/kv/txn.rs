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
            read_conflicts: self.reads.into_inner(),
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
        // Beyond the last entry given, a scan that was full has seen nothing.
        let mut seen = scan.range.clone();
        if let Some((key, _)) = entries.last().filter(|_| entries.len() == scan.limit) {
            if scan.reverse {
                seen.start = key.to_vec();
            } else {
                seen.end = after(key);
            }
        }
        self.reads.borrow_mut().push(seen);
        Ok(entries)
    }
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
