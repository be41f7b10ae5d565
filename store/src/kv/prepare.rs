//! What is done with a commit before it queues: limits checked, ranges sorted.

use bytes::Bytes;

use super::conflict::{RangeSet, ReadSet};
use super::{Commit, Durability, Key, KeyRange, KvError, KvResult, Limits, Mutation, OnPublish};
use crate::types::Version;

/// One change as an embedded engine applies it: the version is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Key, Bytes),
    /// Removes a key.
    Delete(Key),
    /// Removes what is in a range at this point of the batch.
    DeleteRange(KeyRange),
}

/// A commit that has passed the limits.
pub(super) struct Prepared {
    pub(super) snapshot: Version,
    pub(super) reads: ReadSet,
    pub(super) writes: RangeSet,
    pub(super) mutations: Vec<Mutation>,
    pub(super) bytes: u64,
    pub(super) durability: Durability,
    pub(super) on_publish: Option<OnPublish>,
}

impl Prepared {
    /// Checks `commit` against `limits` and sorts its ranges.
    ///
    /// # Errors
    /// `TooLarge`, naming the limit; `Corrupt` for an empty key.
    pub(super) fn new(commit: Commit, limits: &Limits) -> KvResult<Self> {
        let bytes = check(&commit, limits)?;
        Ok(Self {
            snapshot: commit.snapshot,
            reads: ReadSet::new(commit.read_conflicts),
            writes: RangeSet::new(commit.write_conflicts),
            mutations: commit.mutations,
            bytes,
            durability: commit.durability,
            on_publish: commit.on_publish,
        })
    }
}

/// Fills `version` in.
pub(super) fn fill(mutation: Mutation, version: Version) -> Op {
    let join = |mut prefix: Vec<u8>, suffix: Vec<u8>| {
        prefix.reserve_exact(Version::LEN + suffix.len());
        prefix.extend_from_slice(&version.to_bytes());
        prefix.extend_from_slice(&suffix);
        prefix
    };
    match mutation {
        Mutation::Put { key, value } => Op::Put(key, value),
        Mutation::Delete { key } => Op::Delete(key),
        Mutation::DeleteRange { range } => Op::DeleteRange(range),
        Mutation::PutVersionedKey { prefix, suffix, value } => Op::Put(join(prefix, suffix), value),
        Mutation::PutVersionedValue { key, prefix, suffix } => {
            Op::Put(key, Bytes::from(join(prefix, suffix)))
        }
    }
}

/// The bytes of a commit.
///
/// # Errors
/// `TooLarge`, naming the limit.
pub(super) fn check(commit: &Commit, limits: &Limits) -> KvResult<u64> {
    let within = |what: &'static str, size: usize, limit: usize| {
        if size <= limit {
            return Ok(size as u64);
        }
        Err(KvError::TooLarge { what, size: size as u64, limit: limit as u64 })
    };
    let key = |size: usize| within("key, in bytes,", size, limits.key_bytes);
    let set = |size: usize| {
        if size == 0 {
            return Err(KvError::Corrupt { what: "a commit writes an empty key".into() });
        }
        key(size)
    };
    let value = |size: usize| within("value, in bytes,", size, limits.value_bytes);
    // The end of a range may be a longest key and one byte behind it.
    let range = |range: &KeyRange| {
        let end = within("key, in bytes,", range.end.len(), limits.key_bytes + 1)?;
        Ok(key(range.start.len())? + end)
    };
    let mut total = 0u64;
    // A set that is not listed takes no room.
    let reads = commit.read_conflicts.listed();
    for conflict in reads.iter().chain(&commit.write_conflicts) {
        total += range(conflict)?;
    }
    for mutation in &commit.mutations {
        total += match mutation {
            Mutation::Put { key: k, value: v } => set(k.len())? + value(v.len())?,
            Mutation::Delete { key: k } => set(k.len())?,
            Mutation::DeleteRange { range: r } => range(r)?,
            Mutation::PutVersionedKey { prefix, suffix, value: v } => {
                key(prefix.len() + Version::LEN + suffix.len())? + value(v.len())?
            }
            Mutation::PutVersionedValue { key: k, prefix, suffix } => {
                set(k.len())? + value(prefix.len() + Version::LEN + suffix.len())?
            }
        };
    }
    if total > limits.transaction_bytes {
        let limit = limits.transaction_bytes;
        return Err(KvError::TooLarge { what: "transaction, in bytes,", size: total, limit });
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { key_bytes: 20, value_bytes: 30, transaction_bytes: 100, transaction_age_ms: None };

    fn put(key: usize, value: usize) -> Commit {
        let mutation = Mutation::Put { key: vec![1; key], value: vec![2; value].into() };
        Commit { mutations: vec![mutation], ..Commit::default() }
    }

    #[test]
    fn limits_are_named() {
        let refused = |commit| match Prepared::new(commit, &LIMITS) {
            Err(KvError::TooLarge { what, size, limit }) => (what, size, limit),
            _ => panic!("must be refused"),
        };
        assert!(Prepared::new(put(20, 30), &LIMITS).is_ok_and(|p| p.bytes == 50));
        assert_eq!(refused(put(21, 30)), ("key, in bytes,", 21, 20));
        assert_eq!(refused(put(20, 31)), ("value, in bytes,", 31, 30));
        let versioned = Mutation::PutVersionedKey {
            prefix: vec![1; 6],
            suffix: vec![1; 5],
            value: Bytes::new(),
        };
        let commit = Commit { mutations: vec![versioned], ..Commit::default() };
        assert_eq!(refused(commit), ("key, in bytes,", 21, 20));
        let read_conflicts = vec![vec![1; 20]..vec![2; 21]; 3].into();
        let commit = Commit { read_conflicts, ..Commit::default() };
        assert_eq!(refused(commit), ("transaction, in bytes,", 123, 100));
    }

    #[test]
    fn versions_are_filled_in() {
        let version = Version::new(7, 0);
        let join = [b"ab".as_slice(), &version.to_bytes(), b"c"].concat();
        let (prefix, suffix) = (b"ab".to_vec(), b"c".to_vec());
        let key = Mutation::PutVersionedKey {
            prefix: prefix.clone(),
            suffix: suffix.clone(),
            value: Bytes::from_static(b"x"),
        };
        assert_eq!(fill(key, version), Op::Put(join.clone(), Bytes::from_static(b"x")));
        let value = Mutation::PutVersionedValue { key: b"k".to_vec(), prefix, suffix };
        assert_eq!(fill(value, version), Op::Put(b"k".to_vec(), join.into()));
    }
}
