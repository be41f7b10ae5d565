//! Where pages come from: the page map, the page cache, then the store, with read-ahead.

use std::sync::Arc;

use bytes::Bytes;
use interleaf_store::api::{Allocation, ReadRequest};
use interleaf_store::sqlite_file::fill_page_one;
use interleaf_store::types::{BranchId, ContentHash, Incarnation, PageNumber, PageSize, Version};
use interleaf_store::{Error, Result};

use super::page_map::{PageMap, PageNote};
use super::pager::Pager;
use super::stats::Stats;
use super::store::Store;

/// Most pages that one read asks for.
const MAX_BATCH_PAGES: u32 = 256;

/// Most bytes that one read asks for.
const MAX_BATCH_BYTES: u32 = 1 << 20;

/// First batch of a scan, in pages.
const FIRST_BATCH_PAGES: u32 = 8;

/// How far behind the last batch a page may lie and still continue a scan: interior pages
/// and what the cache had already are passed over.
const SCAN_GAP_PAGES: u32 = 8;

/// A branch at a version, as one transaction sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The version.
    pub version: Version,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// Size and freelist.
    pub allocation: Allocation,
}

impl View {
    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        u64::from(self.allocation.pages.0) * u64::from(self.page_size().get())
    }

    /// Bytes in a page.
    pub const fn page_size(&self) -> PageSize {
        self.allocation.page_size
    }
}

/// Notices scans.
#[derive(Debug, Default)]
struct ReadAhead {
    /// The page behind the last batch.
    next: u32,
    window: u32,
}

impl ReadAhead {
    /// How many pages to ask for, beginning with `page`.
    fn plan(&mut self, page: PageNumber, page_size: PageSize) -> u32 {
        let page = page.get();
        let most = (MAX_BATCH_BYTES / page_size.get()).clamp(1, MAX_BATCH_PAGES);
        let goes_on = page >= self.next && page - self.next < SCAN_GAP_PAGES;
        self.window = if goes_on && self.next > 0 {
            (self.window * 2).clamp(FIRST_BATCH_PAGES.min(most), most)
        } else {
            1
        };
        self.next = page.saturating_add(self.window);
        self.window
    }
}

/// One open file's way to its pages.
pub struct Source {
    /// The store.
    pub store: Arc<Store>,
    /// The branch.
    pub branch: BranchId,
    /// What is known of the branch's pages.
    pub map: Arc<PageMap>,
    /// What SQLite's pager holds.
    pub pager: Pager,
    ahead: ReadAhead,
}

impl Source {
    /// Pages of `branch` in `store`.
    pub fn new(store: Arc<Store>, branch: BranchId) -> Self {
        let map = store.map(branch);
        Self { store, branch, map, pager: Pager::default(), ahead: ReadAhead::default() }
    }

    /// A page as stored (page 1 without its virtual bytes) if the process has it.
    pub fn cached(&self, view: &View, page: PageNumber) -> Option<Bytes> {
        let hash = self.map.get(page, view.version, view.incarnation)?;
        self.store.cache().get(&hash)
    }

    /// A page as stored.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub fn page(&mut self, view: &View, page: PageNumber, stats: &mut Stats) -> Result<Bytes> {
        if let Some(bytes) = self.cached(view, page) {
            stats.cache_hits += 1;
            return Ok(bytes);
        }
        self.fetch(view, page, stats)
    }

    /// A page as SQLite sees it: page 1 with its virtual bytes filled in.
    ///
    /// # Errors
    /// Those of reading from the store; `Corrupt` for a page 1 without a header.
    pub fn shown(&mut self, view: &View, page: PageNumber, stats: &mut Stats) -> Result<Bytes> {
        let bytes = self.page(view, page, stats)?;
        if page != PageNumber::ONE {
            return Ok(bytes);
        }
        let mut whole = bytes.to_vec();
        fill_page_one(&mut whole, &view.allocation, self.pager.counter(), self.pager.writer())?;
        Ok(whole.into())
    }

    fn fetch(&mut self, view: &View, page: PageNumber, stats: &mut Stats) -> Result<Bytes> {
        let window = self.ahead.plan(page, view.page_size());
        let end = page.get().saturating_add(window - 1).min(view.allocation.pages.0);
        let behind = (page.get().saturating_add(1)..=end).filter_map(PageNumber::new);
        let mut pages = vec![page];
        pages.extend(behind.filter(|&p| {
            let hash = self.map.get(p, view.version, view.incarnation);
            !hash.is_some_and(|hash| self.store.cache().contains(&hash))
        }));
        let mut request = ReadRequest {
            branch: self.branch,
            snapshot: view.version,
            incarnation: Some(view.incarnation),
            pages,
        };
        let reads = match self.store.read(&request, stats) {
            // The damage may be in a page that nobody has asked for yet.
            Err(Error::Corrupt { .. } | Error::FormatVersion { .. }) if request.pages.len() > 1 => {
                request.pages.truncate(1);
                self.store.read(&request, stats)?
            }
            reads => reads?,
        };
        let mut notes = Vec::with_capacity(reads.len());
        let mut first = None;
        for (&page, read) in request.pages.iter().zip(&reads) {
            if read.bytes.len() != view.page_size().len() {
                let (have, want) = (read.bytes.len(), view.page_size());
                return Err(Error::Corrupt {
                    what: format!(
                        "page {page} of branch {} at {} has {have} bytes, not {want}",
                        self.branch, view.version
                    ),
                });
            }
            if ContentHash::of(&read.bytes) != read.hash {
                if first.is_some() {
                    // Read ahead: whoever asks for it will be told.
                    continue;
                }
                return Err(Error::Corrupt {
                    what: format!(
                        "page {page} of branch {} at {} came with the hash of another content",
                        self.branch, view.version
                    ),
                });
            }
            let kept = self.store.cache().put(read.hash, &read.bytes);
            notes.push(PageNote { page, from: read.version, hash: read.hash });
            first.get_or_insert(kept);
        }
        self.map.note(view.version, view.incarnation, &notes);
        first.ok_or_else(|| Error::Corrupt { what: format!("no answer for page {page}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_noticed_and_random_reads_are_not() {
        let mut ahead = ReadAhead::default();
        let mut plan = |n| ahead.plan(PageNumber::new(n).unwrap(), PageSize::DEFAULT);
        assert_eq!([plan(1), plan(500), plan(30)], [1, 1, 1]);
        assert_eq!([plan(31), plan(39), plan(56)], [8, 16, 32], "a scan, one page passed over");
        assert_eq!([plan(88), plan(152), plan(280), plan(536)], [64, 128, 256, 256]);
        assert_eq!(plan(5), 1);
        let mut ahead = ReadAhead { next: 10, window: 200 };
        assert_eq!(ahead.plan(PageNumber::new(10).unwrap(), PageSize::MAX), 16, "1 MiB");
    }
}
