//! Full pages that the store has, of pages written or read lately: what the next change of
//! such a page is told as a difference from.
//!
//! # Invariants
//! * **B1** A base is in the store as a content record of its branch's domain: it comes from
//!   a commit that took effect or from a read, and content is never deleted. A commit that
//!   names one conflicts with whoever writes its key after the commit's snapshot; what was
//!   deleted before that, while the base was kept here, nothing tells yet (format.md).
//! * **B2** A base is never itself a difference.

use bytes::Bytes;
use moka::sync::Cache;

use crate::types::{BranchId, ContentHash, PageNumber};

/// Bytes of pages kept.
const MAX_BYTES: u64 = 16 << 20;

/// Bytes that a page's place takes besides.
const PLACE_BYTES: usize = 160;

/// Of a commit the first so many pages are kept, of a read that asks for more none: bulk loads
/// and scans would only push out what is changed again and again.
pub(super) const MOST_AT_ONCE: usize = 64;

/// A full page.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) hash: ContentHash,
    pub(super) page: Bytes,
}

/// A page with the full content that it has or had.
pub(super) type NewBase = (BranchId, PageNumber, Base);

/// The bases.
#[derive(Clone)]
pub(super) struct Bases(Cache<(BranchId, PageNumber), Base>);

impl Default for Bases {
    fn default() -> Self {
        let weight =
            |_: &_, base: &Base| u32::try_from(base.page.len() + PLACE_BYTES).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(MAX_BYTES).weigher(weight).build())
    }
}

impl Bases {
    /// The base of a page.
    pub(super) fn get(&self, branch: BranchId, page: PageNumber) -> Option<Base> {
        self.0.get(&(branch, page))
    }

    /// The page's base cannot be read.
    pub(super) fn forget(&self, branch: BranchId, page: PageNumber) {
        self.0.invalidate(&(branch, page));
    }

    /// Pages that were read, maybe of long ago: kept where there is none.
    pub(super) fn seen(&self, read: Vec<NewBase>) {
        for (branch, page, base) in read {
            if !self.0.contains_key(&(branch, page)) {
                self.0.insert((branch, page), base);
            }
        }
    }

    /// Pages that a commit wrote, which took effect (B1).
    pub(super) fn keep(&self, new: Vec<NewBase>) {
        for (branch, page, base) in new {
            self.0.insert((branch, page), base);
        }
    }
}
