//! SQLite's file format: what of it Interleaf must understand.
//!
//! Page 1 is split (`docs/format.md`, Page 1): its counters are made up by each connection,
//! growth and freelist are the allocation record, the rest is a page like others. Offsets
//! are those of SQLite's "Database File Format", section 1.3.

use std::ops::Range;

use crate::api::Allocation;
use crate::error::{Error, Result};
use crate::types::{PageCount, PageSize};

/// What every SQLite file begins with.
pub const MAGIC: [u8; 16] = *b"SQLite format 3\0";

/// Length of the header at the start of page 1, in bytes.
pub const HEADER_LEN: usize = 100;

/// File change counter.
pub const CHANGE_COUNTER: Range<usize> = 24..28;
/// Size, first freelist trunk page and freelist length: the allocation record.
pub const ALLOCATION: Range<usize> = 28..40;
/// The change counter for which the size is valid.
pub const VERSION_VALID_FOR: Range<usize> = 92..96;
/// Version number of the library that wrote last.
pub const LIBRARY_VERSION: Range<usize> = 96..100;
/// Write and read version: 1 for a rollback journal, 2 for WAL.
pub const JOURNAL_VERSIONS: Range<usize> = 18..20;

/// The two stretches of page 1 that are never stored, hashed or compared.
pub const VIRTUAL: [Range<usize>; 2] = [24..40, 92..100];

/// The write and read version of a database with a rollback journal.
pub const ROLLBACK_JOURNAL: u8 = 1;

/// The fields of a SQLite header that Interleaf looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Write and read version; 2 is WAL.
    pub journal_versions: [u8; 2],
    /// File change counter.
    pub change_counter: u32,
    /// Size in pages; right only where `version_valid_for` equals `change_counter`.
    pub pages: u32,
    /// First freelist trunk page, or 0.
    pub freelist_trunk: u32,
    /// Pages on the freelist.
    pub freelist_pages: u32,
    /// Schema cookie.
    pub schema_cookie: u32,
    /// The change counter for which `pages` is valid.
    pub version_valid_for: u32,
}

impl Header {
    /// Reads the header from the start of page 1.
    ///
    /// # Errors
    /// `Corrupt` where the bytes are too few, do not begin with [`MAGIC`] or name a page
    /// size that there is not.
    pub fn parse(page: &[u8]) -> Result<Self> {
        let header = page.get(..HEADER_LEN).ok_or_else(|| Error::Corrupt {
            what: format!("a SQLite header of {} bytes; it has {HEADER_LEN}", page.len()),
        })?;
        if !header.starts_with(&MAGIC) {
            return Err(Error::Corrupt { what: "no SQLite database: its magic is missing".into() });
        }
        let [high, low] = field(header, 16..18)?;
        let page_size = match u16::from_be_bytes([high, low]) {
            1 => PageSize::MAX,
            bytes => PageSize::new(u32::from(bytes))?,
        };
        let number = |range| field(header, range).map(u32::from_be_bytes);
        Ok(Self {
            page_size,
            journal_versions: field(header, JOURNAL_VERSIONS)?,
            change_counter: number(CHANGE_COUNTER)?,
            pages: number(28..32)?,
            freelist_trunk: number(32..36)?,
            freelist_pages: number(36..40)?,
            schema_cookie: number(40..44)?,
            version_valid_for: number(VERSION_VALID_FOR)?,
        })
    }

    /// The allocation that the header states.
    #[must_use]
    pub const fn allocation(&self) -> Allocation {
        Allocation {
            pages: PageCount(self.pages),
            freelist_trunk: self.freelist_trunk,
            freelist_pages: self.freelist_pages,
            page_size: self.page_size,
        }
    }
}

/// Whether page 1, as SQLite writes it, is `stored` but for what is never stored.
#[must_use]
pub fn is_page_one(stored: &[u8], written: &[u8]) -> bool {
    let [first, second] = VIRTUAL;
    let parts = [0..first.start, first.end..second.start, second.end..stored.len()];
    stored.len() == written.len()
        && parts.into_iter().all(|part| match (stored.get(part.clone()), written.get(part)) {
            (Some(stored), Some(written)) => stored == written,
            _ => false,
        })
}

/// Zeroes what of page 1 is never stored. A page shorter than a header is left as it is.
pub fn strip_page_one(page: &mut [u8]) {
    for range in VIRTUAL {
        if let Some(bytes) = page.get_mut(range) {
            bytes.fill(0);
        }
    }
}

/// Fills in what a stored page 1 lacks, so that SQLite reads a whole header. `counter`
/// becomes the change counter and the counter for which the size is valid.
///
/// # Errors
/// `Corrupt` where the page is shorter than a header.
pub fn fill_page_one(
    page: &mut [u8],
    allocation: &Allocation,
    counter: u32,
    library_version: u32,
) -> Result<()> {
    let have = page.len();
    let short = || Error::Corrupt { what: format!("page 1 of {have} bytes") };
    let header = page.first_chunk_mut::<HEADER_LEN>().ok_or_else(short)?;
    let mut put = |range: Range<usize>, number: u32| {
        if let Some(bytes) = header.get_mut(range) {
            bytes.copy_from_slice(&number.to_be_bytes());
        }
    };
    put(CHANGE_COUNTER, counter);
    put(28..32, allocation.pages.0);
    put(32..36, allocation.freelist_trunk);
    put(36..40, allocation.freelist_pages);
    put(VERSION_VALID_FOR, counter);
    put(LIBRARY_VERSION, library_version);
    Ok(())
}

/// Makes a page 1 say that its database has a rollback journal, as every database in
/// Interleaf does; a WAL file says 2.
pub fn set_rollback_journal(page: &mut [u8]) {
    if let Some(bytes) = page.get_mut(JOURNAL_VERSIONS) {
        bytes.fill(ROLLBACK_JOURNAL);
    }
}

fn field<const N: usize>(header: &[u8], range: Range<usize>) -> Result<[u8; N]> {
    let bytes = header.get(range).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::Corrupt { what: "a SQLite header cut short".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_one() -> Vec<u8> {
        let mut page: Vec<u8> = (0..=255).cycle().take(512).collect();
        page[..16].copy_from_slice(&MAGIC);
        page[16..18].copy_from_slice(&512u16.to_be_bytes());
        page
    }

    #[test]
    fn filled_fields_are_read_back_and_nothing_else_changes() {
        let before = page_one();
        let mut page = before.clone();
        let allocation = Allocation {
            pages: PageCount(7),
            freelist_trunk: 5,
            freelist_pages: 2,
            page_size: PageSize::MIN,
        };
        fill_page_one(&mut page, &allocation, 99, 3_040_001).unwrap();
        let header = Header::parse(&page).unwrap();
        assert_eq!(header.allocation(), allocation);
        assert_eq!((header.change_counter, header.version_valid_for), (99, 99));
        assert_eq!(page[96..100], 3_040_001u32.to_be_bytes());
        let (mut a, mut b) = (before.clone(), page.clone());
        strip_page_one(&mut a);
        strip_page_one(&mut b);
        assert_eq!(a, b);
        assert!(is_page_one(&a, &before) && is_page_one(&a, &page));
        assert!(!is_page_one(&a, &page[..511]) && !is_page_one(&a, &[]));
        for at in 0..a.len() {
            let mut other = page.clone();
            other[at] ^= 1;
            let hidden = VIRTUAL.iter().any(|range| range.contains(&at));
            assert_eq!(is_page_one(&a, &other), hidden, "{at}");
        }
        assert!(a[24..40].iter().chain(&a[92..100]).all(|&byte| byte == 0));
        assert_eq!((a[23], a[40], a[91], a[100]), (23, 40, 91, 100), "neighbours stay");
    }

    #[test]
    fn a_page_size_of_65536_is_written_as_one() {
        let mut page = page_one();
        page[16..18].copy_from_slice(&1u16.to_be_bytes());
        assert_eq!(Header::parse(&page).unwrap().page_size, PageSize::MAX);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let page = page_one();
        assert!(Header::parse(&page[..99]).is_err(), "short");
        let mut other = page.clone();
        other[0] = b's';
        assert!(Header::parse(&other).is_err(), "magic");
        let mut odd = page;
        odd[16..18].copy_from_slice(&1000u16.to_be_bytes());
        assert!(Header::parse(&odd).is_err(), "page size");
        assert!(fill_page_one(&mut [0; 99], &Allocation::EMPTY, 1, 1).is_err());
    }

    #[test]
    fn the_journal_versions_of_wal_become_one() {
        let mut page = page_one();
        page[18..20].copy_from_slice(&[2, 2]);
        set_rollback_journal(&mut page);
        assert_eq!(Header::parse(&page).unwrap().journal_versions, [1, 1]);
        assert_eq!((page[17], page[20]), (0, 20), "neighbours stay");
    }
}
