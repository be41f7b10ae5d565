//! The conflict window: what the commits of the recent past have written.
//!
//! A window holds the write conflict ranges of every commit in `(start, newest]` and
//! answers whether one of them, later than a snapshot, meets a set of read ranges.
//!
//! # Shape
//! *Runs*, oldest first. A run covers consecutive commits; its entries are sorted,
//! disjoint, and each bears the newest version that wrote it. A commit adds a run; runs
//! of like size are merged, so that there are few of them and a commit costs a sequential
//! pass over its own ranges, amortized over the logarithm of the window's size. Runs stop
//! growing at [`RUN_ENTRIES`], which bounds what one commit can cost.
//!
//! A check looks only at runs newer than the snapshot: none where the snapshot is the
//! newest version, a few small ones where it is recent.
//!
//! # Invariants
//! * **W1** Entries of a run are sorted and disjoint, none is empty.
//! * **W2** Versions in a run are greater than those in every run before it, save that a
//!   run's entry may have been overwritten by a later run: the later one counts.
//! * **W3** Every commit after `start` is in the window.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::{ConflictSet, Key, KeyRange, KvError, KvResult, ReadConflicts};
use crate::types::Version;

/// Entries at which a run is no longer merged with its neighbour.
const RUN_ENTRIES: usize = 16_384;

/// Entries of a run up to which a lazy set is asked about each.
const ASKED_ENTRIES: usize = 512;

/// What an entry costs whose keys are short.
const ENTRY_BYTES: u64 = size_of::<Written>() as u64;

/// What a key costs that is not, beside its bytes.
const ALLOCATION_BYTES: usize = 16;

/// Sorted, disjoint, non-empty ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<KeyRange>);

impl RangeSet {
    /// The union of `ranges`, in any order; empty ones are dropped.
    pub(super) fn new(mut ranges: Vec<KeyRange>) -> Self {
        ranges.retain(|range| range.start < range.end);
        let apart = |pair: &[KeyRange]| matches!(pair, [a, b] if a.end < b.start);
        if ranges.windows(2).all(apart) {
            return Self(ranges);
        }
        ranges.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<KeyRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => {
                    if last.end < range.end {
                        last.end = range.end;
                    }
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Whether there is no range.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first range that ends after `key`, and those behind it.
    fn ending_after(&self, key: &[u8]) -> &[KeyRange] {
        let at = self.0.partition_point(|range| range.end.as_slice() <= key);
        self.0.get(at..).unwrap_or_default()
    }

    /// Whether one of the ranges meets `start..end`.
    fn meets(&self, start: &[u8], end: &[u8]) -> bool {
        self.ending_after(start).first().is_some_and(|first| first.start.as_slice() < end)
    }
}

/// What a commit read, as the window asks it.
pub(super) enum ReadSet {
    /// Listed.
    Ranges(RangeSet),
    /// Asked range by range while those are few, and then listed once.
    Lazy(Arc<dyn ConflictSet>, OnceLock<RangeSet>),
}

impl ReadSet {
    pub(super) fn new(reads: ReadConflicts) -> Self {
        match reads {
            ReadConflicts::Ranges(ranges) => Self::Ranges(RangeSet::new(ranges)),
            ReadConflicts::Set(set) => Self::Lazy(set, OnceLock::new()),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Ranges(ranges) if ranges.is_empty())
    }

    /// Whether an entry of `run` later than `snapshot` meets it.
    fn met_by(&self, run: &Run, snapshot: Version) -> bool {
        match self {
            Self::Ranges(ranges) => run.meets(snapshot, ranges),
            Self::Lazy(set, listed) if run.entries.len() > ASKED_ENTRIES => {
                run.meets(snapshot, listed.get_or_init(|| RangeSet::new(set.ranges())))
            }
            Self::Lazy(set, _) => {
                let mut later = run.entries.iter().filter(|entry| entry.at > snapshot);
                later.any(|entry| set.meets(&entry.start, &entry.end))
            }
        }
    }
}

/// A key as the window keeps it. Entries are compared and moved often: those of a commit are
/// short, and stand in place.
#[derive(Clone)]
enum Bound {
    Short(u8, [u8; Bound::SHORT_LEN]),
    Long(Box<[u8]>),
}

impl Bound {
    /// The longest key of a commit: a commit id and a byte behind it are 18.
    const SHORT_LEN: usize = 22;

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Short(..) => 0,
            Self::Long(key) => key.len() + ALLOCATION_BYTES,
        }
    }
}

impl From<Key> for Bound {
    fn from(key: Key) -> Self {
        let mut bytes = [0; Self::SHORT_LEN];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(to), Ok(len)) => {
                to.copy_from_slice(&key);
                Self::Short(len, bytes)
            }
            _ => Self::Long(key.into()),
        }
    }
}

impl Deref for Bound {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(key) => key,
        }
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A range and the newest commit that wrote it.
#[derive(Debug)]
struct Written {
    start: Bound,
    end: Bound,
    at: Version,
}

impl Written {
    fn bytes(&self) -> u64 {
        ENTRY_BYTES + (self.start.heap_bytes() + self.end.heap_bytes()) as u64
    }
}

/// The writes of consecutive commits.
#[derive(Debug)]
struct Run {
    newest: Version,
    entries: Vec<Written>,
    bytes: u64,
}

impl Run {
    fn new(newest: Version, entries: Vec<Written>) -> Self {
        let bytes = entries.iter().map(Written::bytes).sum();
        Self { newest, entries, bytes }
    }

    /// Whether an entry later than `snapshot` meets `reads`.
    fn meets(&self, snapshot: Version, reads: &RangeSet) -> bool {
        // A binary search costs about as much as passing over this many neighbours.
        const SEARCH_COST: usize = 8;
        let (ours, theirs) = (self.entries.len(), reads.0.len());
        if theirs.saturating_mul(SEARCH_COST) <= ours {
            return reads.0.iter().any(|read| self.meets_one(snapshot, read));
        }
        let mut later = self.entries.iter().filter(|entry| entry.at > snapshot);
        if ours.saturating_mul(SEARCH_COST) <= theirs {
            return later.any(|entry| reads.meets(&entry.start, &entry.end));
        }
        // Of like size: one pass over both.
        let mut rest = reads.0.iter().peekable();
        later.any(|entry| {
            while rest.next_if(|read| *read.end <= *entry.start).is_some() {}
            rest.peek().is_some_and(|read| *read.start < *entry.end)
        })
    }

    fn meets_one(&self, snapshot: Version, read: &KeyRange) -> bool {
        let at = self.entries.partition_point(|entry| *entry.end <= *read.start);
        let tail = self.entries.get(at..).unwrap_or_default();
        tail.iter().take_while(|entry| *entry.start < *read.end).any(|entry| entry.at > snapshot)
    }

    /// Both runs as one, `later` winning where they overlap.
    fn merge(self, later: Self) -> Self {
        let mut entries = Vec::with_capacity(self.entries.len() + later.entries.len());
        let mut new = later.entries.into_iter().peekable();
        for mut old in self.entries {
            while let Some(before) = new.next_if(|n| *n.end <= *old.start) {
                entries.push(before);
            }
            // What is left of `old`, piece by piece, between the newer ranges upon it.
            loop {
                let Some(over) = new.peek().filter(|n| *n.start < *old.end) else {
                    entries.push(old);
                    break;
                };
                if *old.start < *over.start {
                    let (start, end) = (old.start.clone(), over.start.clone());
                    entries.push(Written { start, end, at: old.at });
                }
                if *over.end >= *old.end {
                    break;
                }
                old.start.clone_from(&over.end);
                entries.extend(new.next());
            }
        }
        entries.extend(new);
        Self::new(later.newest, entries)
    }
}

/// The conflict window.
#[derive(Debug)]
pub(super) struct Window {
    runs: Vec<Run>,
    start: Version,
    bytes: u64,
    limit_bytes: u64,
}

impl Window {
    /// An empty window that knows everything after `start`, and forgets its oldest part
    /// beyond `limit_bytes`.
    pub(super) const fn new(start: Version, limit_bytes: u64) -> Self {
        Self { runs: Vec::new(), start, bytes: 0, limit_bytes }
    }

    /// Whether anything written after `snapshot` meets `reads`.
    ///
    /// # Errors
    /// `Conflict` where it does, `TooOld` where the window no longer reaches back. A commit
    /// that read nothing passes at any age.
    pub(super) fn check(&self, snapshot: Version, reads: &ReadSet) -> KvResult<()> {
        if reads.is_empty() {
            return Ok(());
        }
        if snapshot < self.start {
            return Err(KvError::TooOld);
        }
        let mut later = self.runs.iter().rev().take_while(|run| run.newest > snapshot);
        if later.any(|run| reads.met_by(run, snapshot)) { Err(KvError::Conflict) } else { Ok(()) }
    }

    /// Adds the writes of the commit `version`, which is newer than all before it.
    pub(super) fn add(&mut self, version: Version, writes: RangeSet) {
        debug_assert!(self.runs.last().is_none_or(|run| run.newest < version), "W2");
        if writes.is_empty() {
            return;
        }
        let entries = writes.0.into_iter().map(|range| Written {
            start: range.start.into(),
            end: range.end.into(),
            at: version,
        });
        let mut run = Run::new(version, entries.collect());
        self.bytes += run.bytes;
        while let Some(before) = self.runs.pop_if(|before| {
            let together = before.entries.len() + run.entries.len();
            before.entries.len() < 2 * run.entries.len() && together <= RUN_ENTRIES
        }) {
            self.bytes -= before.bytes + run.bytes;
            run = before.merge(run);
            self.bytes += run.bytes;
        }
        self.runs.push(run);
        self.forget();
    }

    fn forget(&mut self) {
        let mut excess = self.bytes.saturating_sub(self.limit_bytes);
        let mut dropped = 0;
        for run in &self.runs {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(run.bytes);
            self.bytes -= run.bytes;
            self.start = run.newest;
            dropped += 1;
        }
        self.runs.drain(..dropped);
    }
}

/// The range that holds `key` alone.
pub(super) fn point(key: &[u8]) -> KeyRange {
    key.to_vec()..after(key)
}

/// The smallest key behind `key`.
pub(super) fn after(key: &[u8]) -> Key {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const AMPLE: u64 = 64 << 20;

    fn v(n: u64) -> Version {
        Version::new(n, 0)
    }

    /// As what is read.
    fn read(ranges: &[(u8, u8)]) -> ReadSet {
        ReadSet::Ranges(set(ranges))
    }

    /// A set that is asked; see [`ReadSet::Lazy`].
    struct Asked(RangeSet);

    impl ConflictSet for Asked {
        fn meets(&self, start: &[u8], end: &[u8]) -> bool {
            self.0.meets(start, end)
        }

        fn ranges(&self) -> Vec<KeyRange> {
            self.0.0.clone()
        }
    }

    fn set(ranges: &[(u8, u8)]) -> RangeSet {
        RangeSet::new(ranges.iter().map(|&(a, b)| vec![a]..vec![b]).collect())
    }

    #[test]
    fn ranges_are_sorted_and_united() {
        assert_eq!(set(&[(5, 7), (1, 3), (2, 4), (9, 9), (7, 8)]), set(&[(1, 4), (5, 8)]));
        assert!(set(&[(3, 3), (4, 1)]).is_empty());
    }

    #[test]
    fn later_writes_conflict_and_earlier_ones_do_not() {
        let mut window = Window::new(v(0), AMPLE);
        window.add(v(1), set(&[(10, 20)]));
        window.add(v(2), set(&[(30, 40)]));
        assert_eq!(window.check(v(0), &read(&[(15, 16)])), Err(KvError::Conflict));
        assert_eq!(window.check(v(1), &read(&[(15, 16)])), Ok(()));
        assert_eq!(window.check(v(1), &read(&[(0, 31)])), Err(KvError::Conflict));
        assert_eq!(window.check(v(1), &read(&[(0, 30), (40, 50)])), Ok(()), "ranges are half open");
        assert_eq!(window.check(v(2), &read(&[(0, 255)])), Ok(()));
    }

    #[test]
    fn forgetting_makes_old_snapshots_too_old_and_blind_writes_pass() {
        let mut window = Window::new(v(0), 2 * ENTRY_BYTES);
        for n in 1..=10 {
            window.add(v(n), set(&[(u8::try_from(20 * n).unwrap(), 255)]));
            window.add(v(n + 100), set(&[]));
        }
        let reads = read(&[(0, 1)]);
        assert_eq!(window.check(v(0), &reads), Err(KvError::TooOld));
        assert_eq!(window.check(v(10), &reads), Ok(()));
        assert_eq!(window.check(v(0), &read(&[])), Ok(()));
        assert!(window.bytes <= window.limit_bytes);
    }

    #[test]
    fn keys_of_any_length_are_kept_as_they_are() {
        for len in [0, 1, Bound::SHORT_LEN, Bound::SHORT_LEN + 1, 255, 256, 600] {
            let key: Key = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let bound = Bound::from(key.clone());
            assert_eq!(*bound, *key);
            assert_eq!(bound.heap_bytes() > 0, len > Bound::SHORT_LEN);
            let mut window = Window::new(v(0), AMPLE);
            window.add(v(1), RangeSet::new(vec![point(&key)]));
            let reads = |key: &[u8]| ReadSet::Ranges(RangeSet::new(vec![point(key)]));
            assert_eq!(window.check(v(0), &reads(&key)), Err(KvError::Conflict), "{len}");
            assert_eq!(window.check(v(0), &reads(&after(&key))), Ok(()), "{len}");
        }
    }

    #[test]
    fn hot_keys_do_not_fill_the_window() {
        let mut window = Window::new(v(0), AMPLE);
        for n in 1..=10_000 {
            window.add(v(n), set(&[(1, 2), (5, 6)]));
        }
        assert!(window.bytes < 20 * ENTRY_BYTES * 14, "{}", window.bytes);
        assert_eq!(window.check(v(9_999), &read(&[(5, 6)])), Err(KvError::Conflict));
        assert_eq!(window.check(v(1), &read(&[(3, 4)])), Ok(()));
    }

    /// Commits as lists of ranges, each checked against a plain list of all of them.
    fn history() -> impl Strategy<Value = Vec<Vec<(u8, u8)>>> {
        prop::collection::vec(prop::collection::vec((0u8..40, 0u8..40), 0..12), 1..40)
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(
            commits in history(),
            reads in prop::collection::vec((0u8..40, 0u8..40), 0..12),
            snapshot in 0u64..40,
        ) {
            let mut window = Window::new(v(0), AMPLE);
            for (n, ranges) in (1..).zip(&commits) {
                window.add(v(n), set(ranges));
            }
            let expected = (1u64..).zip(&commits).any(|(n, ranges)| {
                n > snapshot && ranges.iter().any(|&(a, b)| {
                    a < b && reads.iter().any(|&(c, d)| c < d && a.max(c) < b.min(d))
                })
            });
            let got = window.check(v(snapshot), &read(&reads)) == Err(KvError::Conflict);
            prop_assert_eq!(got, expected);
            let lazy = ReadSet::new(ReadConflicts::Set(Arc::new(Asked(set(&reads)))));
            let got = window.check(v(snapshot), &lazy) == Err(KvError::Conflict);
            prop_assert_eq!(got, expected, "asked range by range");
            for run in &window.runs {
                let sorted = run.entries.windows(2).all(|p| *p[0].end <= *p[1].start);
                prop_assert!(sorted, "W1");
                prop_assert!(run.entries.iter().all(|e| *e.start < *e.end), "W1");
            }
        }
    }
}
