use roaring::RoaringBitmap;

use super::PageNumber;
use crate::error::{Error, Result};

/// A set of page numbers: a read set, or the pages a commit changed.
///
/// Stored and sent in roaring's portable serialization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageSet(RoaringBitmap);

impl Eq for PageSet {}

impl PageSet {
    /// No pages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a page; whether it is new.
    pub fn insert(&mut self, page: PageNumber) -> bool {
        self.0.insert(page.get())
    }

    /// Adds the pages `first..=last`, as far as there are such.
    pub fn insert_range(&mut self, first: u32, last: u32) {
        self.0.insert_range(first.max(1)..=last.min(PageNumber::MAX));
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
        self.0.clear();
    }

    /// Adds all of `other`.
    pub fn extend_from(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// The smallest page that is in both sets.
    #[must_use]
    pub fn first_common(&self, other: &Self) -> Option<PageNumber> {
        if self.0.is_disjoint(&other.0) {
            return None;
        }
        (&self.0 & &other.0).min().and_then(PageNumber::new)
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
        let mut runs: Vec<(PageNumber, PageNumber)> = Vec::new();
        for page in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if last.get().checked_add(1) == Some(page.get()) => *last = page,
                _ => runs.push((page, page)),
            }
        }
        runs
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
    /// [`Error::Corrupt`] where the bytes are no such set or name a page that cannot exist.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let set = RoaringBitmap::deserialize_from(bytes)
            .map_err(|e| Error::Corrupt { what: format!("page set: {e}") })?;
        if set.contains(0) || set.contains(u32::MAX) {
            return Err(Error::Corrupt { what: "page set names page 0 or 2^32-1".into() });
        }
        Ok(Self(set))
    }
}

impl FromIterator<PageNumber> for PageSet {
    fn from_iter<I: IntoIterator<Item = PageNumber>>(iter: I) -> Self {
        Self(iter.into_iter().map(PageNumber::get).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pages: &[u32]) -> PageSet {
        pages.iter().filter_map(|&n| PageNumber::new(n)).collect()
    }

    #[test]
    fn runs_are_maximal_and_exact() {
        let p = |n| PageNumber::new(n).unwrap();
        assert_eq!(set(&[1, 2, 3, 7, 9, 10]).runs(), [(p(1), p(3)), (p(7), p(7)), (p(9), p(10))]);
        assert!(set(&[]).runs().is_empty());
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
    fn first_common_finds_the_smallest() {
        assert_eq!(set(&[3, 9]).first_common(&set(&[4, 9, 12])), PageNumber::new(9));
        assert_eq!(set(&[3]).first_common(&set(&[4])), None);
    }
}
