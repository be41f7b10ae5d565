//! What SQLite's pager holds of one file, as far as the VFS can know it: the counter that
//! keeps its cache alive, and the pages that it may read from that cache unseen.
//!
//! The pager compares 16 bytes at offset 24 at the start of each read transaction and drops
//! its cache where they differ. Bytes 24..28 are made up here (rule 6).
//!
//! # Invariants
//! - **P1** Every page in the pager's cache is in `handed`.
//! - **P2** No page of `handed` was changed by others in `(the version at which it was
//!   handed over or written, version]`, or the next counter differs from the pager's.

use interleaf_store::api::BeginReply;
use interleaf_store::types::{Incarnation, PageNumber, PageSet, Version};

/// Stands in bytes 96..100 until SQLite has written its own version number there: 3.0.0, so
/// that no feature is inferred from it.
const NO_WRITER: u32 = 3_000_000;

/// See the module.
#[derive(Debug)]
pub struct Pager {
    /// The change counter that SQLite is shown.
    counter: u32,
    /// The last one that SQLite wrote, committed or not.
    written: u32,
    /// Version number of the library, as SQLite writes it into 96..100.
    writer: u32,
    /// Pages handed over or written since the pager's last reset.
    handed: PageSet,
    /// How many those were when they were packed last.
    packed: u64,
    /// The version through which all of them are known to be right; `None` before the
    /// first transaction.
    version: Option<Version>,
    incarnation: Option<Incarnation>,
    reset: bool,
}

/// So many more pages, and an eighth of those before, are handed over until they are packed
/// again.
const PACK_AFTER: u64 = 64;

impl Default for Pager {
    fn default() -> Self {
        Self {
            counter: 1,
            written: 0,
            writer: NO_WRITER,
            handed: PageSet::new(),
            packed: 0,
            version: None,
            incarnation: None,
            reset: false,
        }
    }
}

impl Pager {
    /// The change counter that SQLite is shown.
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// The library version that SQLite is shown.
    pub const fn writer(&self) -> u32 {
        self.writer
    }

    /// See [`Pager`].
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Pages handed over or written since the last reset.
    pub const fn handed(&self) -> &PageSet {
        &self.handed
    }

    /// A page goes to SQLite, as it is at `snapshot`.
    pub fn hand(&mut self, page: PageNumber, snapshot: Version) {
        self.handed.insert(page);
        if self.version.is_some_and(|version| version > snapshot) {
            self.version = Some(snapshot);
        }
    }

    /// SQLite has pages of its own writing in its cache.
    pub fn wrote(&mut self, pages: &PageSet) {
        self.handed.extend_from(pages);
    }

    /// SQLite wrote page 1 with this counter and library version.
    pub const fn wrote_header(&mut self, counter: u32, writer: u32) {
        self.written = counter;
        self.writer = writer;
    }

    /// The pager's cache must not outlive this transaction.
    pub const fn force_reset(&mut self) {
        self.reset = true;
    }

    /// A transaction begins: decides whether the pager may keep its cache.
    pub fn begin(&mut self, reply: &BeginReply) {
        let fresh = self.version.is_none() && !self.reset;
        let stale =
            self.version.is_none_or(|version| reply.head > version || reply.snapshot < version);
        let other = self.incarnation.is_some_and(|i| i != reply.incarnation);
        if !fresh && (self.reset || stale || other) {
            self.drop_cache();
        }
        self.version = Some(reply.snapshot);
        self.incarnation = Some(reply.incarnation);
    }

    fn drop_cache(&mut self) {
        // Unlike what was shown, unlike what SQLite wrote and may have kept.
        let (a, b) = (self.counter, self.written);
        let next = (1..=3).map(|n| a.max(b).wrapping_add(n)).find(|&n| n != a && n != b && n != 0);
        self.counter = next.unwrap_or(a ^ 1);
        self.handed.clear();
        self.packed = 0;
        self.reset = false;
    }

    /// SQLite's transaction took effect: its counter is the counter now.
    pub const fn committed(&mut self, version: Version) {
        self.counter = self.written;
        self.version = Some(version);
    }

    /// Before `handed` goes along with a commit: adjacent pages are sent as a run.
    pub fn pack(&mut self) {
        if self.handed.len() > self.packed + self.packed / 8 + PACK_AFTER {
            self.handed.pack();
            self.packed = self.handed.len();
        }
    }

    /// A commit that others' files took part in found all of `handed` right up to `version`.
    pub fn validated(&mut self, version: Version) {
        self.version = self.version.max(Some(version));
    }

    /// A commit changed nothing but the counter.
    pub const fn committed_nothing(&mut self) {
        self.counter = self.written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interleaf_store::api::{Allocation, Changes};

    fn reply(head: u64, snapshot: u64) -> BeginReply {
        BeginReply {
            incarnation: Incarnation::from_bytes([1; 8]),
            snapshot: Version::new(snapshot, 0),
            head: Version::new(head, 0),
            allocation: Allocation::EMPTY,
            changes: Changes::Commits(vec![]),
        }
    }

    fn p(n: u32) -> PageNumber {
        PageNumber::new(n).unwrap()
    }

    #[test]
    fn the_counter_changes_with_foreign_commits_only() {
        let mut pager = Pager::default();
        pager.begin(&reply(5, 6));
        let first = pager.counter();
        pager.hand(p(2), Version::new(6, 0));
        pager.begin(&reply(5, 9));
        assert_eq!((pager.counter(), pager.handed().len()), (first, 1));
        pager.wrote_header(first + 1, 3_040_001);
        pager.committed(Version::new(10, 0));
        pager.begin(&reply(10, 10));
        assert_eq!((pager.counter(), pager.handed().len()), (first + 1, 1), "an own commit");
        pager.begin(&reply(11, 11));
        assert!(pager.counter() != first + 1 && pager.handed().is_empty(), "a foreign one");
        assert_eq!(pager.writer(), 3_040_001);
    }

    #[test]
    fn after_a_failed_commit_the_counter_is_like_none_that_sqlite_may_hold() {
        for (shown, wrote) in [(5, 6), (6, 5), (u32::MAX, 0), (u32::MAX - 1, u32::MAX)] {
            let mut pager = Pager { counter: shown, ..Pager::default() };
            pager.begin(&reply(5, 5));
            pager.wrote_header(wrote, 1);
            pager.force_reset();
            pager.begin(&reply(5, 5));
            assert!(pager.counter() != shown && pager.counter() != wrote, "{shown} {wrote}");
        }
    }

    #[test]
    fn a_page_handed_over_at_an_older_view_takes_the_validation_back() {
        let mut pager = Pager::default();
        pager.begin(&reply(5, 5));
        pager.wrote_header(2, 1);
        pager.committed(Version::new(10, 0));
        pager.hand(p(7), Version::new(5, 0));
        let counter = pager.counter();
        pager.begin(&reply(10, 10));
        assert_ne!(pager.counter(), counter, "something may have come between 5 and 10");
    }
}
