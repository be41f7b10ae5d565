//! Keys. The first byte is the subspace; numbers are big endian, so that keys sort as
//! their parts do.

use std::ops::Range;

use crate::codec::Reader;
use crate::error::{Error, Result};
use crate::kv::Key;
use crate::types::{
    BranchId, CommitId, ContentHash, DatabaseId, DatabaseName, DomainId, PageNumber, Version,
};

/// A subspace: the first byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Subspace {
    /// Format and incarnation.
    Meta = b'M',
    /// Name to database.
    Names = b'N',
    /// Databases.
    Databases = b'D',
    /// Branches.
    Branches = b'B',
    /// Watermarks of branches.
    Watermarks = b'W',
    /// Pins.
    Pins = b'n',
    /// Page records.
    Pages = b'p',
    /// Content by hash.
    Content = b'c',
    /// References to content.
    References = b'r',
    /// Allocation records.
    Allocations = b'a',
    /// Log entries, in parts.
    Log = b'l',
    /// Commit ids.
    CommitIds = b'i',
    /// Newest commit of each branch.
    Heads = b'h',
    /// Staged commits.
    Staging = b'S',
    /// Pages of staged commits.
    StagedPages = b's',
    /// Commits whose staged pages are still their page records.
    Unmerged = b'u',
    /// Commit ids that can never take effect.
    Discarded = b'x',
    /// Time samples.
    Times = b't',
    /// Logical conflict keys; never stored.
    Conflicts = b'k',
}

impl Subspace {
    /// Every subspace that holds records, with the name that `status --records` shows.
    pub const STORED: [(Self, &'static str); 18] = [
        (Self::Meta, "meta"),
        (Self::Names, "names"),
        (Self::Databases, "databases"),
        (Self::Branches, "branches"),
        (Self::Watermarks, "watermarks"),
        (Self::Pins, "pins"),
        (Self::Pages, "pages"),
        (Self::Content, "content"),
        (Self::References, "references"),
        (Self::Allocations, "allocations"),
        (Self::Log, "log"),
        (Self::CommitIds, "commit_ids"),
        (Self::Heads, "heads"),
        (Self::Staging, "staging"),
        (Self::StagedPages, "staged_pages"),
        (Self::Unmerged, "unmerged"),
        (Self::Discarded, "discarded"),
        (Self::Times, "times"),
    ];

    /// All keys of the subspace.
    #[must_use]
    pub fn range(self) -> Range<Key> {
        let byte = self as u8;
        vec![byte]..vec![byte + 1]
    }

    fn key(self, parts: &[&[u8]]) -> Key {
        self.prefix(parts, 0)
    }

    /// A key that gets so many bytes more. With its last one it takes no byte of memory more
    /// than it has: an engine may then keep it as it is.
    fn prefix(self, parts: &[&[u8]], room: usize) -> Key {
        let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = Vec::with_capacity(len + room);
        key.push(self as u8);
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }
}

/// The range that holds `key` alone.
#[must_use]
pub fn only(key: Key) -> Range<Key> {
    let end = after(&key);
    key..end
}

/// The smallest key behind `key`: where a paged scan goes on.
#[must_use]
pub fn after(key: &[u8]) -> Key {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// All keys that begin with `prefix`.
#[must_use]
pub fn with_prefix(prefix: Key) -> Range<Key> {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    prefix..end
}

/// `prefix ++ version` for versions in `(after, up_to]`, whatever follows the version.
#[must_use]
pub fn versions(prefix: &[u8], after: Version, up_to: Version) -> Range<Key> {
    let bound = |version: Version| match version.next() {
        Some(next) => [prefix, &next.to_bytes()].concat(),
        None => with_prefix(prefix.to_vec()).end,
    };
    bound(after)..bound(up_to)
}

/// `prefix ++ version` for versions up to `up_to`, [`Version::ZERO`] included.
#[must_use]
pub fn versions_up_to(prefix: &[u8], up_to: Version) -> Range<Key> {
    let end = versions(prefix, up_to, up_to).end;
    prefix.to_vec()..end
}

/// The store's format record.
#[must_use]
pub fn format() -> Key {
    Subspace::Meta.key(&[b"format"])
}

/// The store's incarnation.
#[must_use]
pub fn incarnation() -> Key {
    Subspace::Meta.key(&[b"incarnation"])
}

/// A database's name.
#[must_use]
pub fn name(name: &DatabaseName) -> Key {
    Subspace::Names.key(&[name.as_str().as_bytes()])
}

/// The name in a key of [`name`].
///
/// # Errors
/// `Corrupt` where it is no name.
pub fn parse_name(key: &[u8]) -> Result<DatabaseName> {
    let mut reader = tail(key, Subspace::Names, "name key")?;
    let text = std::str::from_utf8(reader.take_rest())
        .map_err(|_| Error::Corrupt { what: "name key: not UTF-8".into() })?;
    DatabaseName::new(text).map_err(|e| Error::Corrupt { what: format!("name key: {e}") })
}

/// A database's row.
#[must_use]
pub fn database(id: DatabaseId) -> Key {
    Subspace::Databases.key(&[&id.to_bytes()])
}

/// A branch's row.
#[must_use]
pub fn branch(id: BranchId) -> Key {
    Subspace::Branches.key(&[&id.to_bytes()])
}

/// A branch's watermark.
#[must_use]
pub fn watermark(id: BranchId) -> Key {
    Subspace::Watermarks.key(&[&id.to_bytes()])
}

/// A pin of a database.
#[must_use]
pub fn pin(database: DatabaseId, label: &str) -> Key {
    Subspace::Pins.key(&[&database.to_bytes(), label.as_bytes()])
}

/// Records of one page of a branch, without their version.
#[must_use]
pub fn page_prefix(branch: BranchId, page: PageNumber) -> Key {
    Subspace::Pages.prefix(&[&branch.to_bytes(), &page.get().to_be_bytes()], Version::LEN)
}

/// The version in a page record's key.
///
/// # Errors
/// `Corrupt`.
pub fn parse_page(key: &[u8]) -> Result<(BranchId, PageNumber, Version)> {
    let mut reader = tail(key, Subspace::Pages, "page record key")?;
    let branch = BranchId::from_bytes(reader.array()?);
    let page =
        PageNumber::new(reader.u32()?).ok_or_else(|| reader.corrupt("no such page number"))?;
    let version = Version::from_bytes(reader.array()?);
    reader.end()?;
    Ok((branch, page, version))
}

/// Content of a domain.
#[must_use]
pub fn content(domain: DomainId, hash: ContentHash) -> Key {
    Subspace::Content.key(&[&domain.to_bytes(), &hash.to_bytes()])
}

/// Kind of a referrer that is a page record.
const REFERRER_PAGE: u8 = 1;

/// A reference to content by a page record, without the record's version, which follows.
#[must_use]
pub fn reference_prefix(
    domain: DomainId,
    hash: ContentHash,
    branch: BranchId,
    page: PageNumber,
) -> Key {
    let page = page.get().to_be_bytes();
    let parts: [&[u8]; 5] =
        [&domain.to_bytes(), &hash.to_bytes(), &[REFERRER_PAGE], &branch.to_bytes(), &page];
    Subspace::References.prefix(&parts, Version::LEN)
}

/// Allocation records of a branch, without their version.
#[must_use]
pub fn allocation_prefix(branch: BranchId) -> Key {
    Subspace::Allocations.prefix(&[&branch.to_bytes()], Version::LEN)
}

/// The version in an allocation record's key.
///
/// # Errors
/// `Corrupt`.
pub fn parse_allocation(key: &[u8]) -> Result<(BranchId, Version)> {
    let mut reader = tail(key, Subspace::Allocations, "allocation key")?;
    let parsed = (BranchId::from_bytes(reader.array()?), Version::from_bytes(reader.array()?));
    reader.end()?;
    Ok(parsed)
}

/// Log entries of a branch, without version and part.
#[must_use]
pub fn log_prefix(branch: BranchId) -> Key {
    Subspace::Log.prefix(&[&branch.to_bytes()], Version::LEN + size_of::<u16>())
}

/// Branch, version and part number in a log key.
///
/// # Errors
/// `Corrupt`.
pub fn parse_log(key: &[u8]) -> Result<(BranchId, Version, u16)> {
    let mut reader = tail(key, Subspace::Log, "log key")?;
    let branch = BranchId::from_bytes(reader.array()?);
    let version = Version::from_bytes(reader.array()?);
    let part = reader.u16()?;
    reader.end()?;
    Ok((branch, version, part))
}

/// A commit id.
#[must_use]
pub fn commit_id(id: CommitId) -> Key {
    Subspace::CommitIds.key(&[&id.to_bytes()])
}

/// A branch's head.
#[must_use]
pub fn head(branch: BranchId) -> Key {
    Subspace::Heads.key(&[&branch.to_bytes()])
}

/// A staged commit.
#[must_use]
pub fn staging(id: CommitId) -> Key {
    Subspace::Staging.key(&[&id.to_bytes()])
}

/// A page of a staged commit.
#[must_use]
pub fn staged_page(id: CommitId, branch: BranchId, page: PageNumber) -> Key {
    Subspace::StagedPages.key(&[&id.to_bytes(), &branch.to_bytes(), &page.get().to_be_bytes()])
}

/// All pages of a staged commit, or those of one branch.
#[must_use]
pub fn staged_pages(id: CommitId, branch: Option<BranchId>) -> Range<Key> {
    let prefix = match branch {
        Some(branch) => Subspace::StagedPages.key(&[&id.to_bytes(), &branch.to_bytes()]),
        None => Subspace::StagedPages.key(&[&id.to_bytes()]),
    };
    with_prefix(prefix)
}

/// The page in a staged page's key.
///
/// # Errors
/// `Corrupt`.
pub fn parse_staged_page(key: &[u8]) -> Result<(CommitId, BranchId, PageNumber)> {
    let mut reader = tail(key, Subspace::StagedPages, "staged page key")?;
    let id = CommitId::from_bytes(reader.array()?);
    let branch = BranchId::from_bytes(reader.array()?);
    let page =
        PageNumber::new(reader.u32()?).ok_or_else(|| reader.corrupt("no such page number"))?;
    reader.end()?;
    Ok((id, branch, page))
}

/// The id in a key of [`staging`].
///
/// # Errors
/// `Corrupt`.
pub fn parse_staging(key: &[u8]) -> Result<CommitId> {
    let mut reader = tail(key, Subspace::Staging, "staging key")?;
    let id = CommitId::from_bytes(reader.array()?);
    reader.end()?;
    Ok(id)
}

/// Unmerged commits of a branch, without their version.
#[must_use]
pub fn unmerged_prefix(branch: BranchId) -> Key {
    Subspace::Unmerged.key(&[&branch.to_bytes()])
}

/// An unmerged commit of a branch.
#[must_use]
pub fn unmerged(branch: BranchId, version: Version) -> Key {
    Subspace::Unmerged.key(&[&branch.to_bytes(), &version.to_bytes()])
}

/// Branch and version in a key of [`unmerged`].
///
/// # Errors
/// `Corrupt`.
pub fn parse_unmerged(key: &[u8]) -> Result<(BranchId, Version)> {
    let mut reader = tail(key, Subspace::Unmerged, "unmerged commit key")?;
    let parsed = (BranchId::from_bytes(reader.array()?), Version::from_bytes(reader.array()?));
    reader.end()?;
    Ok(parsed)
}

/// A commit id that can never take effect.
#[must_use]
pub fn discarded(id: CommitId) -> Key {
    Subspace::Discarded.key(&[&id.to_bytes()])
}

/// A time sample, in microseconds since the Unix epoch.
#[must_use]
pub fn time(micros: i64) -> Key {
    // Flipping the sign bit makes two's complement sort as unsigned bytes do.
    let ordered = micros.cast_unsigned() ^ (1 << 63);
    Subspace::Times.key(&[&ordered.to_be_bytes()])
}

/// The time in a sample's key.
///
/// # Errors
/// `Corrupt`.
pub fn parse_time(key: &[u8]) -> Result<i64> {
    let mut reader = tail(key, Subspace::Times, "time sample key")?;
    let ordered = reader.u64()?;
    reader.end()?;
    Ok((ordered ^ (1 << 63)).cast_signed())
}

/// Logical conflict keys of the pages `first..=last` of a branch. Page 0 stands for the
/// allocation.
#[must_use]
pub fn conflict_pages(branch: BranchId, first: u32, last: u32) -> Range<Key> {
    let key = |page: u32| Subspace::Conflicts.key(&[&branch.to_bytes(), &page.to_be_bytes()]);
    let end = match last.checked_add(1) {
        Some(next) => key(next),
        None => with_prefix(Subspace::Conflicts.key(&[&branch.to_bytes()])).end,
    };
    key(first)..end
}

/// The pages, and 0 for the allocation, of a branch that the range `start..end` of logical
/// conflict keys meets: first and last.
#[must_use]
pub fn pages_of_conflict(branch: BranchId, start: &[u8], end: &[u8]) -> Option<(u32, u32)> {
    let [a, b, c, d, e, f, g, h] = branch.to_bytes();
    let prefix = [Subspace::Conflicts as u8, a, b, c, d, e, f, g, h];
    // The first page whose key is not below `key`.
    let first_from = |key: &[u8]| -> Option<u32> {
        let Some(tail) = key.strip_prefix(&prefix) else {
            return if *key < prefix[..] { Some(0) } else { None };
        };
        let mut page = [0; 4];
        for (to, from) in page.iter_mut().zip(tail) {
            *to = *from;
        }
        let page = u32::from_be_bytes(page);
        if tail.len() > 4 { page.checked_add(1) } else { Some(page) }
    };
    let first = first_from(start)?;
    let last = match first_from(end) {
        Some(end) => end.checked_sub(1)?,
        None => u32::MAX,
    };
    (first <= last).then_some((first, last))
}

/// Logical conflict key of a branch's allocation.
#[must_use]
pub fn conflict_allocation(branch: BranchId) -> Range<Key> {
    conflict_pages(branch, 0, 0)
}

/// What is behind the subspace byte, which must be `subspace`.
fn tail<'a>(key: &'a [u8], subspace: Subspace, what: &'static str) -> Result<Reader<'a>> {
    let mut reader = Reader::new(key, what);
    if reader.u8()? == subspace as u8 {
        Ok(reader)
    } else {
        Err(reader.corrupt("a key of another subspace"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch_id(n: u8) -> BranchId {
        BranchId::from_bytes([n; 8])
    }

    fn page(n: u32) -> PageNumber {
        PageNumber::new(n).unwrap()
    }

    fn v(n: u64) -> Version {
        Version::new(n, 0)
    }

    fn versioned(prefix: Key, version: Version, suffix: &[u8]) -> Key {
        [prefix.as_slice(), &version.to_bytes(), suffix].concat()
    }

    #[test]
    fn keys_round_trip() {
        let (b, p) = (branch_id(7), page(300));
        let id = CommitId::from_bytes([9; 16]);
        assert_eq!(parse_page(&versioned(page_prefix(b, p), v(5), &[])).unwrap(), (b, p, v(5)));
        assert_eq!(
            parse_allocation(&versioned(allocation_prefix(b), v(5), &[])).unwrap(),
            (b, v(5))
        );
        assert_eq!(parse_log(&versioned(log_prefix(b), v(5), &[1, 2])).unwrap(), (b, v(5), 0x0102));
        assert_eq!(parse_staged_page(&staged_page(id, b, p)).unwrap(), (id, b, p));
        assert_eq!(parse_staging(&staging(id)).unwrap(), id);
        assert_eq!(parse_unmerged(&unmerged(b, v(5))).unwrap(), (b, v(5)));
        assert_eq!(unmerged(b, v(5)), versioned(unmerged_prefix(b), v(5), &[]));
        for micros in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(parse_time(&time(micros)).unwrap(), micros);
        }
        let app = DatabaseName::new("app").unwrap();
        assert_eq!(parse_name(&name(&app)).unwrap(), app);
    }

    #[test]
    fn bad_keys_are_refused() {
        let good = versioned(page_prefix(branch_id(1), page(1)), v(1), &[]);
        assert!(parse_page(&good[..good.len() - 1]).is_err(), "cut short");
        assert!(parse_page(&[good.as_slice(), &[0]].concat()).is_err(), "too long");
        assert!(parse_log(&good).is_err(), "another subspace");
        assert!(parse_page(&[]).is_err());
        assert!(parse_name(b"N\xff").is_err());
        assert!(parse_name(b"N").is_err());
        let mut zero = good;
        zero[9..13].copy_from_slice(&[0; 4]);
        assert!(parse_page(&zero).is_err(), "page 0");
    }

    #[test]
    fn keys_sort_as_their_parts() {
        let sorted = [
            versioned(page_prefix(branch_id(1), page(1)), v(9), &[]),
            versioned(page_prefix(branch_id(1), page(2)), v(1), &[]),
            versioned(page_prefix(branch_id(1), page(2)), v(2), &[]),
            versioned(page_prefix(branch_id(1), page(256)), v(1), &[]),
            versioned(page_prefix(branch_id(2), page(1)), v(1), &[]),
        ];
        assert!(sorted.is_sorted());
        assert!([time(i64::MIN), time(-1), time(0), time(1), time(i64::MAX)].is_sorted());
        let log =
            |version, part: u16| versioned(log_prefix(branch_id(1)), version, &part.to_be_bytes());
        assert!([log(v(1), 0), log(v(1), 1), log(v(1), 256), log(v(2), 0)].is_sorted());
    }

    #[test]
    fn ranges_hold_exactly_their_keys() {
        let prefix = page_prefix(branch_id(1), page(2));
        let at = |n| versioned(prefix.clone(), v(n), &[]);
        let range = versions(&prefix, v(2), v(4));
        assert!(!range.contains(&at(2)) && range.contains(&at(3)) && range.contains(&at(4)));
        assert!(!range.contains(&at(5)));
        let to_batch = versions(&prefix, v(2), Version::new(4, Version::BATCH_ALL));
        assert!(to_batch.contains(&versioned(prefix.clone(), Version::new(4, 7), &[])));
        let all = versions_up_to(&prefix, Version::MAX);
        assert!(all.contains(&versioned(prefix.clone(), Version::MAX, &[])));
        assert!(all.contains(&versioned(prefix.clone(), Version::ZERO, &[])));
        assert!(!all.contains(&versioned(page_prefix(branch_id(1), page(3)), v(1), &[])));

        let key = |n| conflict_pages(branch_id(1), n, n).start;
        let to_end = conflict_pages(branch_id(1), 7, u32::MAX);
        assert!(to_end.contains(&key(PageNumber::MAX)) && !to_end.contains(&key(6)));
        assert!(!to_end.contains(&conflict_allocation(branch_id(2)).start));
        assert!(!conflict_pages(branch_id(1), 1, 3).contains(&key(0)));
        assert_eq!(with_prefix(vec![1, 0xff]), vec![1, 0xff]..vec![2]);
    }

    #[test]
    fn ranges_of_conflict_keys_name_the_pages_they_meet() {
        let (one, two) = (branch_id(1), branch_id(2));
        for (first, last) in [(0, 0), (1, 1), (7, 300), (9, u32::MAX), (0, u32::MAX)] {
            let range = conflict_pages(one, first, last);
            assert_eq!(pages_of_conflict(one, &range.start, &range.end), Some((first, last)));
            assert_eq!(pages_of_conflict(two, &range.start, &range.end), None);
            assert_eq!(pages_of_conflict(branch_id(0), &range.start, &range.end), None);
        }
        let joined = conflict_pages(one, 9, 9).start..conflict_pages(two, 3, 3).end;
        assert_eq!(pages_of_conflict(one, &joined.start, &joined.end), Some((9, u32::MAX)));
        assert_eq!(pages_of_conflict(two, &joined.start, &joined.end), Some((0, 3)));
        let behind = [conflict_pages(one, 5, 5).start, vec![0]].concat();
        let range = behind.clone()..conflict_pages(one, 6, 6).start;
        assert_eq!(
            pages_of_conflict(one, &range.start, &range.end),
            None,
            "no page's key is in it"
        );
        assert_eq!(pages_of_conflict(one, &[], &behind), Some((0, 5)));
        let id = only(commit_id(CommitId::from_bytes([1; 16])));
        assert_eq!(pages_of_conflict(one, &id.start, &id.end), None);
    }

    #[test]
    fn prefixes_and_single_keys() {
        assert!(only(vec![5]).contains(&vec![5]) && !only(vec![5]).contains(&vec![5, 0]));
    }
}
