//! Reads of pages at a snapshot.

use bytes::Bytes;

use super::Store;
use super::bases::{Base, MOST_AT_ONCE};
use super::begin::Basis;
use super::fetched::Fetched;
use super::merge::unmerged_scan;
use super::view::{View, branch_scans, page_scan};
use crate::api::{MAX_READ_PAGES, PageRead, ReadRequest};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::records::{PageRecord, decode_content};
use crate::format::{delta, keys};
use crate::kv::{Key, Snapshot};
use crate::types::{BranchId, ContentHash, PageNumber, PageSize, Version};

/// A page of zeros with its hash.
struct Zeros {
    bytes: Bytes,
    hash: ContentHash,
}

impl Zeros {
    fn new(size: PageSize) -> Self {
        let bytes = Bytes::from(vec![0; size.len()]);
        let hash = ContentHash::of(&bytes);
        Self { bytes, hash }
    }

    fn at(&self, version: Version) -> PageRead {
        PageRead { version, hash: self.hash, bytes: self.bytes.clone() }
    }
}

/// Where a page's bytes come from.
enum Source {
    Zeros(Version),
    Content(Version, ContentHash),
    Delta { version: Version, hash: ContentHash, base: ContentHash, delta: Bytes },
}

impl Store {
    pub(super) fn read_now(
        &self,
        request: &ReadRequest,
        deadline: Deadline,
    ) -> Result<Vec<PageRead>> {
        if request.pages.len() > MAX_READ_PAGES {
            return Err(Error::TooLarge {
                what: "a read in pages".into(),
                size: request.pages.len() as u64,
                limit: MAX_READ_PAGES as u64,
            });
        }
        if request.incarnation.is_some_and(|begun| begun != self.incarnation) {
            return Err(Error::IncarnationChanged);
        }
        // Before the snapshot: what the request's snapshot has was published before (U4).
        let unmerged = self.published.is_none() || !self.unmerged.is_empty();
        // The engine's snapshot before the watermark: what was not pruned when the watermark
        // is looked at was not pruned in the snapshot either.
        let reads = self.reads_for(request, deadline)?;
        let reads: &dyn Snapshot = &reads;
        let basis = self.basis(request.branch, request.snapshot, Some(reads), deadline)?;
        let sources = find(&View(reads), &basis, request, unmerged)?;
        let wanted: Vec<Key> = sources
            .iter()
            .filter_map(|source| match source {
                Source::Zeros(_) => None,
                Source::Content(_, hash) | Source::Delta { base: hash, .. } => {
                    Some(keys::content(basis.lineage.domain, *hash))
                }
            })
            .collect();
        let mut contents = reads.get_many(&wanted)?.into_iter();
        let size = basis.allocation.page_size;
        let mut zeros = None;
        let mut pages = Vec::with_capacity(request.pages.len());
        let keep = request.pages.len() <= MOST_AT_ONCE;
        let mut full = Vec::new();
        for (&page, source) in request.pages.iter().zip(sources) {
            pages.push(match source {
                Source::Zeros(version) => zeros.get_or_insert_with(|| Zeros::new(size)).at(version),
                Source::Content(version, hash) => {
                    let place = Place { branch: request.branch, page, version };
                    let found = contents.next().flatten();
                    let bytes = self.unless_damaged(&place, place.check(found, hash, size))?;
                    if keep {
                        full.push((request.branch, page, Base { hash, page: bytes.clone() }));
                    }
                    PageRead { version, hash, bytes }
                }
                Source::Delta { version, hash, base, delta } => {
                    let place = Place { branch: request.branch, page, version };
                    let found = contents.next().flatten();
                    let whole = self.unless_damaged(&place, place.check(found, base, size))?;
                    let bytes = place.changed(&whole, &delta, hash)?;
                    if keep {
                        full.push((request.branch, page, Base { hash: base, page: whole }));
                    }
                    PageRead { version, hash, bytes }
                }
            });
        }
        self.bases.seen(full);
        let bytes = pages.iter().map(|page| page.bytes.len() as u64).sum();
        self.counters.read(pages.len() as u64, bytes);
        Ok(pages)
    }
}

impl Store {
    /// What cannot be read is nothing to tell a page's difference from.
    fn unless_damaged(&self, place: &Place, checked: Result<Bytes>) -> Result<Bytes> {
        checked.inspect_err(|_| self.bases.forget(place.branch, place.page))
    }

    /// A snapshot for a read. Where others write too, with what is read before the contents:
    /// the page records, and all that says whether the snapshot may be read.
    fn reads_for(&self, request: &ReadRequest, deadline: Deadline) -> Result<Fetched<'_>> {
        if self.published.is_some() {
            return Ok(Fetched::take(&*self.kv, None, Vec::new(), deadline)?);
        }
        let (branch, at) = (request.branch, request.snapshot);
        let mut scans = branch_scans(branch, at);
        scans.push(unmerged_scan(branch, at));
        scans.extend(request.pages.iter().map(|&page| page_scan(branch, page, at)));
        Ok(Fetched::take(&*self.kv, Some(at), scans, deadline)?)
    }
}

fn find(
    view: &View<'_, dyn Snapshot + '_>,
    basis: &Basis,
    request: &ReadRequest,
    unmerged: bool,
) -> Result<Vec<Source>> {
    let size = basis.allocation.pages;
    let inside: Vec<PageNumber> =
        request.pages.iter().copied().filter(|&page| size.contains(page)).collect();
    let mut found =
        view.page_records(&basis.lineage, request.snapshot, &inside, unmerged)?.into_iter();
    let source = |&page: &PageNumber| {
        if !size.contains(page) {
            return Ok(Source::Zeros(Version::ZERO));
        }
        match found.next().flatten() {
            Some((version, PageRecord::Zeros)) => Ok(Source::Zeros(version)),
            Some((version, PageRecord::Content(hash))) => Ok(Source::Content(version, hash)),
            Some((version, PageRecord::Delta { hash, base, delta })) => {
                Ok(Source::Delta { version, hash, base, delta })
            }
            None => Err(Error::Corrupt {
                what: format!(
                    "page {page} of branch {} at {}: its record is missing",
                    request.branch, request.snapshot
                ),
            }),
        }
    };
    request.pages.iter().map(source).collect()
}

/// A page record, to name in errors.
struct Place {
    branch: BranchId,
    page: PageNumber,
    version: Version,
}

impl Place {
    fn corrupt(&self, why: &str) -> Error {
        Error::Corrupt {
            what: format!(
                "page {} of branch {} at version {}: {why}",
                self.page, self.branch, self.version
            ),
        }
    }

    /// The page that differs so from a full one, if it is what the page record says.
    fn changed(&self, base: &Bytes, delta: &[u8], hash: ContentHash) -> Result<Bytes> {
        let bytes = delta::apply(base, delta).map_err(|e| self.corrupt(&e.to_string()))?;
        if ContentHash::of(&bytes) != hash {
            return Err(self.corrupt("what differs from its base does not match its hash"));
        }
        Ok(bytes)
    }

    /// The page of a content record, if it is what the page record says.
    fn check(&self, value: Option<Bytes>, hash: ContentHash, size: PageSize) -> Result<Bytes> {
        let value = value.ok_or_else(|| self.corrupt("its content is missing"))?;
        let bytes = decode_content(&value).map_err(|e| match e {
            Error::Corrupt { what } => self.corrupt(&what),
            other => other,
        })?;
        if ContentHash::of(&bytes) != hash {
            return Err(self.corrupt("its content does not match its hash"));
        }
        if bytes.len() != size.len() {
            return Err(
                self.corrupt(&format!("{} bytes in a database of {size}-byte pages", bytes.len()))
            );
        }
        Ok(bytes)
    }
}
