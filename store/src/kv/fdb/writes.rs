//! Mutations and logical conflicts on one FoundationDB transaction.

use foundationdb::options::{ConflictRangeType, TransactionOption};
use foundationdb::{FdbResult, Transaction};

use super::super::{Commit, KeyRange, KvError, KvResult, Mutation, prepare};
use super::LIMITS;
use super::space::{STAMP_KEY, STAMP_VALUE, Space, stamped};

/// What FoundationDB counts for a mutation beside its key and value, rounded up.
const MUTATION_BYTES: usize = 48;

/// What it counts for a conflict range beside its two keys, rounded up.
const CONFLICT_BYTES: usize = 40;

/// FoundationDB's own limit of a transaction, in bytes.
const FDB_TRANSACTION_BYTES: u64 = 10_000_000;

/// Adds a change that by itself conflicts with nobody. Says whether there is any.
pub(super) fn apply(
    transaction: &Transaction,
    space: &Space,
    mutation: &Mutation,
) -> FdbResult<bool> {
    if let Mutation::DeleteRange { range } = mutation
        && range.start >= range.end
    {
        return Ok(false);
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
    Ok(true)
}

/// Adds logical conflicts. Says whether there are any: an empty range is none.
pub(super) fn conflicts(
    transaction: &Transaction,
    space: &Space,
    ranges: &[KeyRange],
    kind: impl Fn() -> ConflictRangeType,
) -> FdbResult<bool> {
    let mut any = false;
    for range in ranges.iter().filter(|range| range.start < range.end) {
        let (start, end) = space.conflict(range);
        transaction.add_conflict_range(&start, &end, kind())?;
        any = true;
    }
    Ok(any)
}

/// The bytes of a commit, checked against the limits and against FoundationDB's own count
/// before anything is sent.
pub(super) fn check(commit: &Commit) -> KvResult<u64> {
    let bytes = prepare::check(commit, &LIMITS)?;
    let conflicts = commit.read_conflicts.listed().len() + commit.write_conflicts.len();
    let beside = commit.mutations.len() * MUTATION_BYTES + conflicts * CONFLICT_BYTES;
    let size = bytes + beside as u64;
    if size > FDB_TRANSACTION_BYTES {
        return Err(KvError::TooLarge {
            what: "transaction, in bytes as FoundationDB counts them,",
            size,
            limit: FDB_TRANSACTION_BYTES,
        });
    }
    Ok(bytes)
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
        let ranges = |count| vec![vec![1; 20]..vec![2; 21]; count].into();
        let of = |count| check(&Commit { read_conflicts: ranges(count), ..Commit::default() });
        assert!(of(100_000).is_ok());
        assert!(matches!(of(150_000), Err(KvError::TooLarge { .. })));
    }
}
