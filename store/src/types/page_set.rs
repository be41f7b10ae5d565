use std::sync::Arc;

use roaring::RoaringBitmap;

use super::PageNumber;
use crate::error::{Error, Result};

/// A set of page numbers: a read set, or the pages a commit changed.
///
/// Stored and sent in roaring's portable serialization. A clone shares the pages until one
/// of the two is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageSet(Arc<RoaringBitmap>);

/// So many pages are looked for one by one, rather than written into a set's copy.
const FEW_PAGES: u64 = 64;

impl Eq for PageSet {}

/// Ascending pages as maximal runs of adjacent ones `(first, last)`.
pub(crate) fn runs(pages: impl Iterator<Item = PageNumber>) -> Vec<(PageNumber, PageNumber)> {
    let mut runs: Vec<(PageNumber, PageNumber)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((_, last)) if last.get().checked_add(1) == Some(page.get()) => *last = page,
            _ => runs.push((page, page)),
        }
    }
    runs
}

impl PageSet {
    /// No pages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a page; whether it is new.
    pub fn insert(&mut self, page: PageNumber) -> bool {
        !self.contains(page) && Arc::make_mut(&mut self.0).insert(page.get())
    }

    /// Adds the pages `first..=last`, as far as there are such.
    pub fn insert_range(&mut self, first: u32, last: u32) {
        Arc::make_mut(&mut self.0).insert_range(first.max(1)..=last.min(PageNumber::MAX));
    }

    /// Whether `page` is in the set.
    #[must_use]
    pub fn contains(&self, page: PageNumber) -> bool {
        self.0.contains(page.get())
    }

    /// How many pages.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.0 = Arc::default();
    }

    /// Adds all of `other`.
    pub fn extend_from(&mut self, other: &Self) {
        if Arc::ptr_eq(&self.0, &other.0) {
            return;
        }
        if other.len() <= FEW_PAGES {
            self.extend(other.iter());
        } else if self.is_empty() {
            self.clone_from(other);
        } else {
            *Arc::make_mut(&mut self.0) |= &*other.0;
        }
    }

    /// The smallest page that is in both sets.
    #[must_use]
    pub fn first_common(&self, other: &Self) -> Option<PageNumber> {
        if self.0.is_disjoint(&other.0) {
            return None;
        }
        (&*self.0 & &*other.0).min().and_then(PageNumber::new)
    }

    /// Whether a page of `first..=last` is in the set.
    #[must_use]
    pub fn meets(&self, first: u32, last: u32) -> bool {
        if first == last {
            return self.0.contains(first);
        }
        first < last && self.0.range(first..=last).next().is_some()
    }

    /// The largest page.
    #[must_use]
    pub fn max(&self) -> Option<PageNumber> {
        self.0.max().and_then(PageNumber::new)
    }

    /// The pages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PageNumber> + '_ {
        self.0.iter().filter_map(PageNumber::new)
    }

    /// The set as maximal runs of adjacent pages `(first, last)`, ascending. Exact: no page
    /// outside the set is in a run.
    #[must_use]
    pub fn runs(&self) -> Vec<(PageNumber, PageNumber)> {
        let mut pages = self.0.iter();
        std::iter::from_fn(|| pages.next_range())
            .filter_map(|run| Some((PageNumber::new(*run.start())?, PageNumber::new(*run.end())?)))
            .collect()
    }

    /// Gives the set its smallest form, in memory and serialized: runs where pages are
    /// adjacent.
    pub fn pack(&mut self) {
        Arc::make_mut(&mut self.0).optimize();
    }

    /// Portable serialization.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.serialized_size());
        // Writing into a Vec cannot fail: its `Write` never returns an error.
        let written = self.0.serialize_into(&mut out);
        debug_assert!(written.is_ok());
        out
    }

    /// Reads the portable serialization.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the bytes are not exactly such a set or name a page that
    /// cannot exist.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let set = RoaringBitmap::deserialize_from(&mut rest)
            .map_err(|e| Error::Corrupt { what: format!("page set: {e}") })?;
        if !rest.is_empty() {
            return Err(Error::Corrupt { what: "page set: bytes behind its end".into() });
        }
        if set.contains(0) || set.contains(u32::MAX) {
            return Err(Error::Corrupt { what: "page set names page 0 or 2^32-1".into() });
        }
        Ok(Self(Arc::new(set)))
    }
}

impl Extend<PageNumber> for PageSet {
    fn extend<I: IntoIterator<Item = PageNumber>>(&mut self, pages: I) {
        for page in pages {
            self.insert(page);
        }
    }
}

impl FromIterator<PageNumber> for PageSet {
    fn from_iter<I: IntoIterator<Item = PageNumber>>(iter: I) -> Self {
        Self(Arc::new(iter.into_iter().map(PageNumber::get).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(pages: &[u32]) -> PageSet {
        pages.iter().filter_map(|&n| PageNumber::new(n)).collect()
    }

    #[test]
    fn runs_are_maximal_and_exact() {
        let p = |n| PageNumber::new(n).unwrap();
        assert_eq!(set(&[1, 2, 3, 7, 9, 10]).runs(), [(p(1), p(3)), (p(7), p(7)), (p(9), p(10))]);
        assert!(set(&[]).runs().is_empty());
        // Also across roaring's containers, of whichever kind, and of every page there can be.
        let mut mixed = set(&[65_535, 65_536, 131_071]);
        mixed.insert_range(131_072, 300_000);
        (400_000..440_000).filter(|n| n % 2 == 0).for_each(|n| {
            mixed.insert(p(n));
        });
        let runs = mixed.runs();
        assert_eq!(runs[..2], [(p(65_535), p(65_536)), (p(131_071), p(300_000))]);
        assert_eq!((runs.len(), runs[20_001]), (20_002, (p(439_998), p(439_998))));
        let mut all = PageSet::new();
        all.insert_range(0, u32::MAX);
        assert_eq!(all.runs(), [(PageNumber::ONE, p(PageNumber::MAX))]);
    }

    proptest! {
        #[test]
        fn runs_are_those_found_page_by_page(
            ranges in prop::collection::vec((1u32..400_000, 0u32..70_000), 0..6),
            single in prop::collection::vec(1u32..400_000, 0..200),
            gone in prop::collection::vec((1u32..400_000, 0u32..9_000), 0..4),
        ) {
            let mut some = set(&single);
            for (first, length) in ranges {
                some.insert_range(first, first + length);
            }
            for (first, length) in gone {
                Arc::make_mut(&mut some.0).remove_range(first..first + length);
            }
            let mut packed = some.clone();
            packed.pack();
            prop_assert_eq!(&PageSet::from_bytes(&packed.to_bytes()).unwrap(), &some);
            prop_assert!(packed.to_bytes().len() <= some.to_bytes().len());
            // As it is, and as it comes back from where it was sent.
            for some in [PageSet::from_bytes(&some.to_bytes()).unwrap(), packed, some] {
                let mut expected: Vec<(u32, u32)> = Vec::new();
                for page in some.iter().map(PageNumber::get) {
                    match expected.last_mut() {
                        Some((_, last)) if *last + 1 == page => *last = page,
                        _ => expected.push((page, page)),
                    }
                }
                let runs: Vec<_> = some.runs().iter().map(|(a, b)| (a.get(), b.get())).collect();
                prop_assert_eq!(runs, expected);
            }
        }
    }

    #[test]
    fn a_clone_keeps_what_it_had() {
        let mut one = set(&[1, 70_000]);
        let two = one.clone();
        assert!(!one.insert(PageNumber::ONE), "there already");
        one.insert_range(5, 6);
        one.extend_from(&set(&[9]));
        assert_eq!((one, two), (set(&[1, 5, 6, 9, 70_000]), set(&[1, 70_000])));
    }

    #[test]
    fn ranges_meet_where_they_share_a_page() {
        let some = set(&[1, 5, 70_000]);
        assert!(some.meets(0, 1) && some.meets(2, 5) && some.meets(6, u32::MAX));
        assert!(!some.meets(2, 4) && !some.meets(6, 69_999) && !some.meets(5, 4));
    }

    #[test]
    fn serialization_round_trips_and_refuses_nonsense() {
        let s = set(&[1, 5, 70_000, PageNumber::MAX]);
        assert_eq!(PageSet::from_bytes(&s.to_bytes()).unwrap(), s);
        assert!(PageSet::from_bytes(b"not a set").is_err());
        let mut zero = RoaringBitmap::new();
        zero.insert(0);
        let mut bytes = Vec::new();
        zero.serialize_into(&mut bytes).unwrap();
        assert!(PageSet::from_bytes(&bytes).is_err());
    }

    #[test]
    fn bytes_behind_a_set_are_refused() {
        for pages in [&[1, 5, 70_000][..], &[]] {
            let mut bytes = set(pages).to_bytes();
            bytes.push(0);
            let error = PageSet::from_bytes(&bytes).unwrap_err().to_string();
            assert!(error.contains("behind its end"), "{error}");
        }
    }

    #[test]
    fn first_common_finds_the_smallest() {
        assert_eq!(set(&[3, 9]).first_common(&set(&[4, 9, 12])), PageNumber::new(9));
        assert_eq!(set(&[3]).first_common(&set(&[4])), None);
    }
}
