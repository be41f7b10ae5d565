//! What a process knows of a branch's pages: which content each had at which versions.
//!
//! One map a branch, shared by all connections of the process. Every answer is exact.
//!
//! # Invariants
//! - **M1** `known` never goes back within an incarnation, and every commit of the branch up
//!   to `known` has been applied to the map.
//! - **M2** An entry `(from, until, hash)` of a page says: at every snapshot S with
//!   `from <= S < until` the page's content is `hash`. `until` of `None` means: not written
//!   in `(from, known]`.
//! - **M3** `recent` holds the pages of every commit in `(recent_from, known]`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use interleaf_store::api::{Change, Changes};
use interleaf_store::types::{ContentHash, Incarnation, PageCount, PageNumber, Version};

/// Most entries of one map: some 25 MB. Past it the half of them is dropped.
pub const MAX_ENTRIES: usize = 262_144;

/// An odd number whose multiples differ in their upper bits (2^32 by the golden ratio).
const MIXER: u32 = 2_654_435_761;

/// Most versions kept of one page.
const MAX_VERSIONS: usize = 4;

/// Most commits remembered to judge pages read at a snapshot a little behind.
const MAX_RECENT: usize = 256;

/// Hashes page numbers: at most [`MAX_ENTRIES`] of them, of one's own database. The upper bits
/// of a product, which a map looks at too, depend on every bit of the number.
#[derive(Clone, Copy, Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        /// As [`MIXER`], of 64 bits.
        const MIXER_64: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = (self.0 ^ u64::from(number)).wrapping_mul(MIXER_64);
        // The lower bits choose the place in the map.
        self.0 = product ^ (product >> 32);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    from: Version,
    until: Option<Version>,
    hash: ContentHash,
}

impl Entry {
    fn covers(&self, snapshot: Version) -> bool {
        self.from <= snapshot && self.until.is_none_or(|until| snapshot < until)
    }
}

/// What one commit wrote, its pages ascending.
#[derive(Debug)]
struct Recent(Change);

impl Recent {
    fn new(mut commit: Change) -> Self {
        if !commit.pages.is_sorted_by_key(|(page, _)| *page) {
            commit.pages.sort_unstable_by_key(|(page, _)| *page);
        }
        Self(commit)
    }

    fn touches(&self, page: PageNumber) -> bool {
        self.0.pages.binary_search_by_key(&page, |(page, _)| *page).is_ok()
            || self.0.shrunk_to.is_some_and(|size| !size.contains(page))
    }
}

#[derive(Debug, Default)]
struct Inner {
    known: Option<(Incarnation, Version)>,
    pages: HashMap<PageNumber, Vec<Entry>, BuildHasherDefault<Mix>>,
    entries: usize,
    recent: VecDeque<Recent>,
    recent_from: Version,
    /// How often the map was made smaller.
    shrinks: u32,
}

/// Whose commit is applied to the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// This process's: it has the pages, and will want them.
    Own,
    /// Perhaps another's: of pages that nobody here asked for nothing is kept.
    Any,
}

/// See the module.
#[derive(Debug, Default)]
pub struct PageMap(RwLock<Inner>);

/// What a begin said: see `store::api::BeginReply`.
#[derive(Debug)]
pub struct Progress {
    /// What the request gave as known.
    pub asked: Option<(Incarnation, Version)>,
    /// The store's incarnation.
    pub incarnation: Incarnation,
    /// The snapshot.
    pub snapshot: Version,
    /// The commits between.
    pub changes: Changes,
}

/// An own commit.
#[derive(Debug)]
pub struct OwnCommit<'a> {
    /// The incarnation in which it was made.
    pub incarnation: Incarnation,
    /// Its version.
    pub version: Version,
    /// The branch's newest commit before it.
    pub previous: Option<Version>,
    /// Its pages, with their content where that was worth hashing.
    pub pages: &'a [(PageNumber, Option<ContentHash>)],
    /// The size after it, where it shrank the database.
    pub shrunk_to: Option<PageCount>,
}

impl PageMap {
    // A panic while the lock was held can only have come from a bug in this module; the map
    // is then emptied rather than trusted.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(|poisoned| {
            let mut inner = poisoned.into_inner();
            *inner = Inner::default();
            inner
        })
    }

    /// Up to where the map is right, to be sent with a begin.
    pub fn known(&self) -> Option<(Incarnation, Version)> {
        self.read().known
    }

    /// Brings the map forward to a begin's snapshot.
    pub fn advance(&self, progress: Progress) {
        let Progress { asked, incarnation, snapshot, changes } = progress;
        if let Some((known_incarnation, known)) = self.read().known
            && known_incarnation == incarnation
            && snapshot <= known
        {
            return;
        }
        let mut inner = self.write();
        let Some((known_incarnation, known)) = inner.known else {
            inner.restart(incarnation, snapshot);
            return;
        };
        if known_incarnation != incarnation {
            inner.restart(incarnation, snapshot);
            return;
        }
        if snapshot <= known {
            return;
        }
        match (asked, changes) {
            // The reply covers (asked, snapshot]; others may have brought the map forward
            // since, never back (M1).
            (Some((i, from)), Changes::Commits(commits)) if i == incarnation && from <= known => {
                for commit in commits.into_iter().filter(|commit| commit.version > known) {
                    inner.apply(commit, Whose::Any);
                }
                inner.known = Some((incarnation, snapshot));
            }
            _ => inner.restart(incarnation, snapshot),
        }
    }

    /// Applies an own commit where nothing is missing between what is known and it (rule 6);
    /// else the next begin reads the log.
    pub fn applied(&self, own: &OwnCommit<'_>) {
        let mut inner = self.write();
        let Some((incarnation, known)) = inner.known else { return };
        if incarnation != own.incarnation || known >= own.version {
            return;
        }
        if own.previous.is_none_or(|previous| previous > known) {
            inner.remember(own);
            return;
        }
        let (version, pages) = (own.version, own.pages.to_vec());
        inner.apply(Change { version, pages, shrunk_to: own.shrunk_to }, Whose::Own);
        inner.known = Some((incarnation, own.version));
    }

    /// An own commit changed more pages than a begin reports of others' commits: as after
    /// those the map begins anew, with nothing in it (M1).
    pub fn outgrown(&self, incarnation: Incarnation, version: Version) {
        let mut inner = self.write();
        let behind = |(at, known)| at == incarnation && known < version;
        if inner.known.is_some_and(behind) {
            inner.restart(incarnation, version);
        }
    }

    /// The content of `page` at a `snapshot` begun in `incarnation`, if that is known.
    pub fn get(
        &self,
        page: PageNumber,
        snapshot: Version,
        incarnation: Incarnation,
    ) -> Option<ContentHash> {
        let inner = self.read();
        let (known_incarnation, known) = inner.known?;
        if snapshot > known || incarnation != known_incarnation {
            return None;
        }
        let entries = inner.pages.get(&page)?;
        entries.iter().find(|entry| entry.covers(snapshot)).map(|entry| entry.hash)
    }

    /// Notes what was read from the store at `snapshot`.
    pub fn note(&self, snapshot: Version, incarnation: Incarnation, reads: &[PageNote]) {
        let mut inner = self.write();
        let Some((known_incarnation, known)) = inner.known else { return };
        if known_incarnation != incarnation || snapshot > known {
            return;
        }
        for read in reads {
            inner.note(snapshot, known, read);
        }
    }
}

/// A page as the store gave it.
#[derive(Clone, Copy, Debug)]
pub struct PageNote {
    /// Which.
    pub page: PageNumber,
    /// The version that wrote it.
    pub from: Version,
    /// Its content.
    pub hash: ContentHash,
}

impl Inner {
    fn restart(&mut self, incarnation: Incarnation, known: Version) {
        self.pages.clear();
        self.entries = 0;
        self.recent.clear();
        self.recent_from = known;
        self.known = Some((incarnation, known));
    }

    fn apply(&mut self, commit: Change, whose: Whose) {
        if let Some(size) = commit.shrunk_to {
            for (page, entries) in &mut self.pages {
                if !size.contains(*page) {
                    close(entries, commit.version);
                }
            }
        }
        for &(page, hash) in &commit.pages {
            match self.pages.get_mut(&page) {
                Some(entries) => {
                    close(entries, commit.version);
                    if let Some(own) = entries.iter_mut().find(|e| e.from == commit.version) {
                        // Remembered: the log may say no more than that it was written.
                        own.until = None;
                        continue;
                    }
                }
                // Nobody here has ever asked for it.
                None if whose == Whose::Any => continue,
                None => {}
            }
            if let Some(hash) = hash {
                self.insert(page, Entry { from: commit.version, until: None, hash });
            }
        }
        self.recent.push_back(Recent::new(commit));
        if self.recent.len() > MAX_RECENT
            && let Some(Recent(oldest)) = self.recent.pop_front()
        {
            self.recent_from = oldest.version;
        }
    }

    /// Keeps what an own commit wrote, before the commits that came between are known: true
    /// at its version, until the log says for how much longer.
    fn remember(&mut self, own: &OwnCommit<'_>) {
        let until = own.version.next();
        for &(page, hash) in own.pages {
            if let Some(hash) = hash {
                self.insert(page, Entry { from: own.version, until, hash });
            }
        }
    }

    fn note(&mut self, snapshot: Version, known: Version, read: &PageNote) {
        let until = if snapshot == known {
            None
        } else if snapshot >= self.recent_from {
            let later = self.recent.iter().filter(|commit| commit.0.version > snapshot);
            later.filter(|commit| commit.touches(read.page)).map(|commit| commit.0.version).min()
        } else {
            // Nothing is known of what came after the snapshot.
            snapshot.next()
        };
        self.insert(read.page, Entry { from: read.from, until, hash: read.hash });
    }

    fn insert(&mut self, page: PageNumber, entry: Entry) {
        if self.entries >= MAX_ENTRIES {
            self.shrink();
        }
        let entries = self.pages.entry(page).or_default();
        // What is known of the same write can only be extended, not contradicted.
        if let Some(same) = entries.iter_mut().find(|e| e.from == entry.from) {
            debug_assert_eq!(same.hash, entry.hash, "two contents of {page} at one version");
            if same.until.is_some_and(|until| entry.until.is_none_or(|new| new > until)) {
                same.until = entry.until;
            }
            return;
        }
        if entries.len() >= MAX_VERSIONS {
            entries.remove(0);
            self.entries -= 1;
        }
        // Most pages have one entry, and there are many pages.
        entries.reserve_exact(1);
        let at = entries.partition_point(|e| e.from < entry.from);
        entries.insert(at, entry);
        self.entries += 1;
    }

    /// Drops old versions and about half of the pages: at each call another half, so that
    /// those that stayed last time do not fill the map for ever.
    fn shrink(&mut self) {
        let bit = self.shrinks % 16;
        self.shrinks = self.shrinks.wrapping_add(1);
        // The upper half of the product depends on every bit of the number.
        let kept = |page: PageNumber| (page.get().wrapping_mul(MIXER) >> (16 + bit)) & 1 == 0;
        self.pages.retain(|&page, entries| {
            entries.retain(|entry| entry.until.is_none());
            kept(page) && !entries.is_empty()
        });
        self.entries = self.pages.values().map(Vec::len).sum();
        if self.entries > MAX_ENTRIES / 4 * 3 {
            // Pages that no bit tells apart.
            self.pages.clear();
            self.entries = 0;
        }
    }
}

fn close(entries: &mut [Entry], at: Version) {
    for entry in entries {
        if entry.until.is_none() && entry.from < at {
            entry.until = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Incarnation = Incarnation::from_bytes([1; 8]);
    const TWO: Incarnation = Incarnation::from_bytes([2; 8]);

    fn v(n: u64) -> Version {
        Version::new(n, 0)
    }

    fn p(n: u32) -> PageNumber {
        PageNumber::new(n).unwrap()
    }

    fn h(n: u8) -> ContentHash {
        ContentHash::from_bytes([n; 32])
    }

    fn begin(map: &PageMap, from: Option<u64>, snapshot: u64, changes: Changes) {
        map.advance(Progress {
            asked: from.map(|n| (ONE, v(n))),
            incarnation: ONE,
            snapshot: v(snapshot),
            changes,
        });
    }

    fn wrote(version: u64, pages: &[(u32, Option<u8>)]) -> Change {
        Change {
            version: v(version),
            pages: pages.iter().map(|&(n, hash)| (p(n), hash.map(h))).collect(),
            shrunk_to: None,
        }
    }

    fn note(map: &PageMap, snapshot: u64, page: u32, from: u64, hash: u8) {
        let read = PageNote { page: p(page), from: v(from), hash: h(hash) };
        map.note(v(snapshot), ONE, &[read]);
    }

    #[test]
    fn a_page_answers_from_its_write_to_the_next_one() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        note(&map, 10, 5, 3, 1);
        let wrote = wrote(15, &[(5, Some(2)), (6, None), (7, Some(7))]);
        begin(&map, Some(10), 20, Changes::Commits(vec![wrote]));
        for (at, hash) in [(2, None), (3, Some(1)), (14, Some(1)), (15, Some(2)), (20, Some(2))] {
            assert_eq!(map.get(p(5), v(at), ONE), hash.map(h), "{at}");
        }
        assert_eq!(map.get(p(5), v(21), ONE), None, "beyond what is known");
        assert_eq!(map.get(p(6), v(20), ONE), None, "written, content not said");
        assert_eq!(map.get(p(7), v(20), ONE), None, "nobody here has ever read it");
    }

    #[test]
    fn an_own_commit_of_too_many_pages_empties_the_map() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        note(&map, 10, 5, 3, 1);
        map.outgrown(TWO, v(15));
        map.outgrown(ONE, v(9));
        assert_eq!((map.get(p(5), v(10), ONE), map.known()), (Some(h(1)), Some((ONE, v(10)))));
        map.outgrown(ONE, v(15));
        assert_eq!((map.get(p(5), v(10), ONE), map.known()), (None, Some((ONE, v(15)))));
        note(&map, 12, 5, 3, 1);
        assert_eq!(map.get(p(5), v(12), ONE), Some(h(1)));
        assert_eq!(map.get(p(5), v(15), ONE), None, "perhaps written in between");
    }

    #[test]
    fn a_page_read_behind_what_is_known_is_judged_by_recent_commits() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        let commits = vec![wrote(12, &[(5, None)]), wrote(14, &[(6, None)])];
        begin(&map, Some(10), 20, Changes::Commits(commits));
        note(&map, 11, 5, 3, 1);
        note(&map, 11, 7, 3, 2);
        note(&map, 9, 8, 3, 3);
        assert_eq!(map.get(p(5), v(11), ONE), Some(h(1)));
        assert_eq!(map.get(p(5), v(12), ONE), None, "written at 12");
        assert_eq!(map.get(p(7), v(20), ONE), Some(h(2)), "not written since");
        assert_eq!(map.get(p(8), v(9), ONE), Some(h(3)));
        assert_eq!(map.get(p(8), v(10), ONE), None, "nothing is known of (9, 10]");
    }

    #[test]
    fn replies_out_of_order_apply_once_and_never_go_back() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        note(&map, 10, 5, 3, 9);
        let (first, second) = (wrote(15, &[(5, Some(1))]), wrote(25, &[(5, Some(2))]));
        begin(&map, Some(10), 30, Changes::Commits(vec![first.clone(), second]));
        begin(&map, Some(10), 20, Changes::Commits(vec![first]));
        assert_eq!(map.known(), Some((ONE, v(30))));
        assert_eq!(map.get(p(5), v(20), ONE), Some(h(1)));
        assert_eq!(map.get(p(5), v(30), ONE), Some(h(2)));
    }

    #[test]
    fn a_shrink_ends_what_lies_beyond_it() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        note(&map, 10, 5, 3, 1);
        note(&map, 10, 9, 3, 2);
        let shrink = Change { version: v(12), pages: vec![], shrunk_to: Some(PageCount(8)) };
        begin(&map, Some(10), 12, Changes::Commits(vec![shrink]));
        assert_eq!(map.get(p(5), v(12), ONE), Some(h(1)));
        assert_eq!(map.get(p(9), v(12), ONE), None);
        assert_eq!(map.get(p(9), v(11), ONE), Some(h(2)));
        note(&map, 11, 10, 3, 4);
        assert_eq!(map.get(p(10), v(12), ONE), None, "read late, cut off all the same");
    }

    #[test]
    fn own_commits_apply_only_without_a_gap() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        note(&map, 10, 5, 3, 1);
        let own = |version, previous: Option<u64>| OwnCommit {
            incarnation: ONE,
            version: v(version),
            previous: previous.map(v),
            pages: &[],
            shrunk_to: None,
        };
        map.applied(&own(20, Some(15)));
        assert_eq!(map.known(), Some((ONE, v(10))), "15 is not known");
        map.applied(&own(20, None));
        assert_eq!(map.known(), Some((ONE, v(10))));
        let pages = [(p(5), Some(h(9)))];
        let beyond = [(p(8), Some(h(8)))];
        map.applied(&OwnCommit { pages: &beyond, ..own(30, Some(25)) });
        assert_eq!(map.get(p(8), v(30), ONE), None, "not before the log is known");
        map.applied(&OwnCommit { pages: &pages, ..own(20, Some(7)) });
        assert_eq!(map.known(), Some((ONE, v(20))));
        assert_eq!(map.get(p(5), v(19), ONE), Some(h(1)));
        assert_eq!(map.get(p(5), v(20), ONE), Some(h(9)));
        let log = vec![wrote(25, &[(5, None)]), wrote(30, &[(8, Some(8))])];
        begin(&map, Some(20), 40, Changes::Commits(log));
        assert_eq!(map.get(p(8), v(40), ONE), Some(h(8)), "kept since its own commit");
        assert_eq!(map.get(p(5), v(40), ONE), None);
    }

    #[test]
    fn the_log_names_a_large_own_commit_and_its_content_is_known() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        let pages: Vec<_> = (1..=300).map(|n| (p(n), Some(h(9)))).collect();
        map.applied(&OwnCommit {
            incarnation: ONE,
            version: v(20),
            previous: None,
            pages: &pages,
            shrunk_to: None,
        });
        assert_eq!(map.get(p(5), v(20), ONE), None, "not before the log is read");
        // Another one wrote before it: the log has both.
        let named: Vec<(u32, Option<u8>)> = (1..=301).map(|n| (n, None)).collect();
        let commits = vec![wrote(15, &named), wrote(20, &named), wrote(25, &[(7, Some(1))])];
        begin(&map, Some(10), 30, Changes::Commits(commits));
        for (page, at, hash) in [
            (5, 30, Some(9)),
            (5, 19, None),
            (301, 30, None), // Grown over: it was not among what was sent.
            (7, 24, Some(9)),
            (7, 30, Some(1)),
        ] {
            assert_eq!(map.get(p(page), v(at), ONE), hash.map(h), "{page} at {at}");
        }
    }

    #[test]
    fn another_incarnation_or_an_unknown_stretch_empties_the_map() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        note(&map, 10, 5, 3, 1);
        begin(&map, Some(10), 20, Changes::Unknown);
        assert_eq!(map.get(p(5), v(20), ONE), None);
        note(&map, 20, 5, 3, 1);
        map.advance(Progress {
            asked: Some((ONE, v(20))),
            incarnation: TWO,
            snapshot: v(12),
            changes: Changes::Commits(vec![]),
        });
        assert_eq!(map.known(), Some((TWO, v(12))));
        assert_eq!(map.get(p(5), v(12), ONE), None);
        note(&map, 12, 5, 3, 1);
        assert_eq!(map.get(p(5), v(12), ONE), None, "a read of the old incarnation");
    }

    #[test]
    fn the_map_is_bounded() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        for n in 1..=u32::try_from(MAX_ENTRIES).unwrap() + 10 {
            note(&map, 10, n, 3, 1);
        }
        let inner = map.read();
        assert!(inner.entries <= MAX_ENTRIES && inner.entries > MAX_ENTRIES / 4);
        assert_eq!(inner.entries, inner.pages.values().map(Vec::len).sum::<usize>());
    }

    #[test]
    fn pages_of_a_kind_do_not_fill_the_map_for_ever() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        let all = u32::try_from(MAX_ENTRIES).unwrap();
        for n in 1..=4 * all {
            note(&map, 10, n * 2, 3, 1);
        }
        let inner = map.read();
        assert!(inner.entries <= MAX_ENTRIES, "{}", inner.entries);
        assert_eq!(inner.entries, inner.pages.values().map(Vec::len).sum::<usize>());
        assert!(inner.shrinks < 16, "{} times smaller for 4 times its size", inner.shrinks);
    }

    #[test]
    fn a_snapshot_of_another_incarnation_is_not_answered() {
        let map = PageMap::default();
        begin(&map, None, 10, Changes::Unknown);
        note(&map, 10, 5, 3, 1);
        assert_eq!(map.get(p(5), v(10), ONE), Some(h(1)));
        assert_eq!(map.get(p(5), v(10), TWO), None, "its version 10 may be another");
    }
}
