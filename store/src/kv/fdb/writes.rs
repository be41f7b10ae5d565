//! Mutations and logical conflicts on one FoundationDB transaction.

use foundationdb::options::{ConflictRangeType, TransactionOption};
use foundationdb::{FdbResult, Transaction};

use super::super::{Commit, KeyRange, KvError, KvResult, Mutation};
use super::LIMITS;
use super::space::{STAMP_KEY, STAMP_VALUE, Space, stamped};

/// What FoundationDB counts for a mutation beside its key and value, rounded up.
const MUTATION_BYTES: usize = 48;

/// What it counts for a conflict range beside its two keys, rounded up.
const CONFLICT_BYTES: usize = 40;

/// FoundationDB's own limit of a transaction, in bytes.
const FDB_TRANSACTION_BYTES: u64 = 10_000_000;

/// Adds a change that by itself conflicts with nobody.
pub(super) fn apply(
    transaction: &Transaction,
    space: &Space,
    mutation: &Mutation,
) -> FdbResult<()> {
    if let Mutation::DeleteRange { range } = mutation
        && range.start >= range.end
    {
        return Ok(());
    }
    transaction.set_option(TransactionOption::NextWriteNoWriteConflictRange)?;
    match mutation {
        Mutation::Put { key, value } => transaction.set(&space.key(key), value),
        Mutation::Delete { key } => transaction.clear(&space.key(key)),
        Mutation::DeleteRange { range } => {
            let (start, end) = space.range(range);
            transaction.clear_range(&start, &end);
        }
        Mutation::PutVersionedKey { prefix, suffix, value } => {
            transaction.atomic_op(&space.versioned_key(prefix, suffix), value, STAMP_KEY);
        }
        Mutation::PutVersionedValue { key, prefix, suffix } => {
            transaction.atomic_op(&space.key(key), &stamped(prefix, suffix), STAMP_VALUE);
        }
    }
    Ok(())
}

/// Adds a logical conflict. An empty range is none.
pub(super) fn conflict(
    transaction: &Transaction,
    space: &Space,
    range: &KeyRange,
    kind: ConflictRangeType,
) -> FdbResult<()> {
    if range.start >= range.end {
        return Ok(());
    }
    let (start, end) = space.conflict(range);
    transaction.add_conflict_range(&start, &end, kind)
}

/// Checks a commit against the limits, before anything of it is sent.
pub(super) fn check(commit: &Commit) -> KvResult<u64> {
    let mut size = Size::default();
    for mutation in &commit.mutations {
        size.add_mutation(mutation)?;
    }
    for range in commit.read_conflicts.iter().chain(&commit.write_conflicts) {
        size.add_conflict(range);
    }
    size.check()?;
    Ok(size.plain)
}

/// The size of a transaction as it grows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Keys, values and conflict ranges.
    pub(super) plain: u64,
    /// With what FoundationDB counts for each beside them.
    counted: u64,
}

impl Size {
    fn add(&mut self, bytes: usize, overhead: usize) {
        self.plain += bytes as u64;
        self.counted += (bytes + overhead) as u64;
    }

    /// Counts a mutation, whose key and value must each be within the limits.
    pub(super) fn add_mutation(&mut self, mutation: &Mutation) -> KvResult<()> {
        const VERSION: usize = crate::types::Version::LEN;
        let (key, value) = match mutation {
            Mutation::Put { key, value } => (key.len(), value.len()),
            Mutation::Delete { key } => (key.len(), 0),
            Mutation::DeleteRange { range } => {
                let longest = range.start.len().max(range.end.len());
                self.add(range.start.len() + range.end.len() - longest, 0);
                (longest, 0)
            }
            Mutation::PutVersionedKey { prefix, suffix, value } => {
                (prefix.len() + VERSION + suffix.len(), value.len())
            }
            Mutation::PutVersionedValue { key, prefix, suffix } => {
                (key.len(), prefix.len() + VERSION + suffix.len())
            }
        };
        limit("a key in bytes", key as u64, LIMITS.key_bytes as u64)?;
        limit("a value in bytes", value as u64, LIMITS.value_bytes as u64)?;
        self.add(key + value, MUTATION_BYTES);
        Ok(())
    }

    /// Counts a conflict range.
    pub(super) fn add_conflict(&mut self, range: &KeyRange) {
        self.add(range.start.len() + range.end.len(), CONFLICT_BYTES);
    }

    /// Whether it fits: by the limit that is promised, and by FoundationDB's own count.
    pub(super) fn check(self) -> KvResult<()> {
        let what = "the engine's transaction in bytes";
        limit(what, self.plain, LIMITS.transaction_bytes)?;
        if self.counted > FDB_TRANSACTION_BYTES {
            let limit = LIMITS.transaction_bytes;
            return Err(KvError::TooLarge { what, size: self.counted, limit });
        }
        Ok(())
    }
}

const fn limit(what: &'static str, size: u64, limit: u64) -> KvResult<()> {
    if size > limit { Err(KvError::TooLarge { what, size, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(key: usize, value: usize) -> Mutation {
        Mutation::Put { key: vec![1; key], value: Bytes::from(vec![0; value]) }
    }

    fn of(mutations: Vec<Mutation>) -> KvResult<u64> {
        check(&Commit { mutations, ..Commit::default() })
    }

    #[test]
    fn limits_hold_to_the_byte() {
        assert_eq!(of(vec![put(LIMITS.key_bytes, LIMITS.value_bytes)]), Ok(90_512));
        assert!(matches!(of(vec![put(LIMITS.key_bytes + 1, 0)]), Err(KvError::TooLarge { .. })));
        assert!(matches!(of(vec![put(1, LIMITS.value_bytes + 1)]), Err(KvError::TooLarge { .. })));
        let full = vec![put(10, 89_990); 100];
        assert_eq!(of(full.clone()), Ok(LIMITS.transaction_bytes));
        let over = [full, vec![put(1, 0)]].concat();
        assert!(matches!(of(over), Err(KvError::TooLarge { .. })));
    }

    #[test]
    fn many_small_things_count_for_more_than_their_bytes() {
        let ranges = |count| vec![vec![1; 20]..vec![2; 21]; count];
        let of = |count| check(&Commit { read_conflicts: ranges(count), ..Commit::default() });
        assert!(of(100_000).is_ok());
        assert!(matches!(of(150_000), Err(KvError::TooLarge { .. })));
    }
}
