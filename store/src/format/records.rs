//! Small values. Each `encode` writes the schema byte first; each `decode` refuses
//! another one, and every combination of fields that cannot be.

use bytes::Bytes;

use super::{FORMAT_VERSION, OLDEST_FORMAT, reader, value, value_of};
use crate::api::Allocation;
use crate::buffers;
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::types::{
    BranchId, CommitId, ContentHash, DatabaseId, DatabaseName, DomainId, Incarnation, PageCount,
    PageSize, StoreId, Version,
};

const MAGIC: &[u8; 9] = b"interleaf";

/// The record that makes a key space an Interleaf store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatRecord {
    /// The store's id.
    pub store: StoreId,
    /// When it was created, microseconds since the Unix epoch.
    pub created_micros: i64,
    /// The format that its records are in: at least [`OLDEST_FORMAT`].
    pub version: u16,
}

impl FormatRecord {
    /// The value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = value();
        w.bytes(MAGIC).u16(self.version).bytes(&self.store.to_bytes()).i64(self.created_micros);
        w.finish().into()
    }

    /// Reads the value.
    ///
    /// # Errors
    /// `Corrupt` where it is no such record, `FormatVersion` for a store of another format.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let what = "the store's format record";
        // The magic is looked at before the schema: garbage is not a newer format.
        if bytes.get(1..=MAGIC.len()) != Some(MAGIC) {
            return Err(Reader::new(bytes, what).corrupt("no Interleaf store"));
        }
        let mut r = reader(bytes, what)?;
        r.bytes(MAGIC.len())?;
        let version = r.u16()?;
        if !(OLDEST_FORMAT..=FORMAT_VERSION).contains(&version) {
            return Err(Error::FormatVersion {
                what: "the store".into(),
                found: u32::from(version),
                known: u32::from(FORMAT_VERSION),
            });
        }
        let store = StoreId::from_bytes(r.array()?);
        let record = Self { store, created_micros: r.i64()?, version };
        r.end()?;
        Ok(record)
    }
}

/// The value of the incarnation record.
#[must_use]
pub fn encode_incarnation(incarnation: Incarnation) -> Bytes {
    let mut w = value();
    w.bytes(&incarnation.to_bytes());
    w.finish().into()
}

/// Reads the incarnation record.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_incarnation(bytes: &[u8]) -> Result<Incarnation> {
    let mut r = reader(bytes, "incarnation record")?;
    let incarnation = Incarnation::from_bytes(r.array()?);
    r.end()?;
    Ok(incarnation)
}

/// The value behind a name.
#[must_use]
pub fn encode_name(database: DatabaseId) -> Bytes {
    let mut w = value();
    w.bytes(&database.to_bytes());
    w.finish().into()
}

/// Reads the value behind a name.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_name(bytes: &[u8]) -> Result<DatabaseId> {
    let mut r = reader(bytes, "name record")?;
    let database = DatabaseId::from_bytes(r.array()?);
    r.end()?;
    Ok(database)
}

/// A database's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Its name.
    pub name: DatabaseName,
    /// The branch the name points to.
    pub branch: BranchId,
    /// Its content domain.
    pub domain: DomainId,
    /// Whether it is still being imported.
    pub importing: bool,
    /// Creation, microseconds since the Unix epoch.
    pub created_micros: i64,
    /// Retention in seconds; 0: the default.
    pub retention_seconds: u64,
    /// Versions to keep at least; 0: the default.
    pub least_versions: u64,
}

impl DatabaseRow {
    /// The value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = value();
        w.text(self.name.as_str())
            .bytes(&self.branch.to_bytes())
            .bytes(&self.domain.to_bytes())
            .bool(self.importing)
            .i64(self.created_micros)
            .varint(self.retention_seconds)
            .varint(self.least_versions);
        w.finish().into()
    }

    /// Reads the value.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = reader(bytes, "database record")?;
        let name = r.text()?;
        let row = Self {
            name: DatabaseName::new(name)
                .map_err(|e| Error::Corrupt { what: format!("database record: {e}") })?,
            branch: BranchId::from_bytes(r.array()?),
            domain: DomainId::from_bytes(r.array()?),
            importing: r.bool()?,
            created_micros: r.i64()?,
            retention_seconds: r.varint()?,
            least_versions: r.varint()?,
        };
        r.end()?;
        Ok(row)
    }
}

/// Where a branch left its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The parent.
    pub branch: BranchId,
    /// The newest version of it that the branch sees.
    pub version: Version,
}

/// A branch's row. `created` is filled in by the engine when the row is first written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchRow {
    /// The version that created the branch.
    pub created: Version,
    /// The database it was created for.
    pub database: DatabaseId,
    /// Its content domain.
    pub domain: DomainId,
    /// Whether it was dropped: nothing begins or commits on it, but a branch of it still
    /// reads through it.
    pub dropped: bool,
    /// Where it left its parent.
    pub parent: Option<Parent>,
}

impl BranchRow {
    /// What stands before and behind the version `created` in the value.
    #[must_use]
    pub fn encode_around(&self) -> (Vec<u8>, Vec<u8>) {
        let mut w = Writer::with_capacity(40);
        w.bytes(&self.database.to_bytes()).bytes(&self.domain.to_bytes()).bool(self.dropped);
        w.bool(self.parent.is_some());
        if let Some(parent) = self.parent {
            w.bytes(&parent.branch.to_bytes()).bytes(&parent.version.to_bytes());
        }
        (value().finish(), w.finish())
    }

    /// The value, for a row whose `created` is known.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (before, behind) = self.encode_around();
        [before.as_slice(), &self.created.to_bytes(), &behind].concat().into()
    }

    /// Reads the value.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = reader(bytes, "branch record")?;
        let created = Version::from_bytes(r.array()?);
        let database = DatabaseId::from_bytes(r.array()?);
        let domain = DomainId::from_bytes(r.array()?);
        let dropped = r.bool()?;
        let parent = if r.bool()? {
            let branch = BranchId::from_bytes(r.array()?);
            let version = Version::from_bytes(r.array()?);
            if version > created {
                return Err(r.corrupt("it left its parent after its own creation"));
            }
            Some(Parent { branch, version })
        } else {
            None
        };
        r.end()?;
        Ok(Self { created, database, domain, dropped, parent })
    }
}

/// The value of records that hold one version: watermarks, commit ids, heads, time samples.
#[must_use]
pub fn encode_version(version: Version) -> Bytes {
    let mut value = encode_version_prefix();
    value.extend_from_slice(&version.to_bytes());
    value.into()
}

/// What stands before the version in such a record, with room for the version.
#[must_use]
pub fn encode_version_prefix() -> Vec<u8> {
    value_of(1 + Version::LEN).finish()
}

/// Reads a record that holds one version; `what` names it in errors.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_version(bytes: &[u8], what: &'static str) -> Result<Version> {
    let mut r = reader(bytes, what)?;
    let version = Version::from_bytes(r.array()?);
    r.end()?;
    Ok(version)
}

/// A pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// The branch.
    pub branch: BranchId,
    /// The version.
    pub version: Version,
}

impl PinRecord {
    /// The value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = value();
        w.bytes(&self.branch.to_bytes()).bytes(&self.version.to_bytes());
        w.finish().into()
    }

    /// Reads the value.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = reader(bytes, "pin record")?;
        let record = Self {
            branch: BranchId::from_bytes(r.array()?),
            version: Version::from_bytes(r.array()?),
        };
        r.end()?;
        Ok(record)
    }
}

/// What a page holds at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageRecord {
    /// The content of this hash.
    Content(ContentHash),
    /// Zeros.
    Zeros,
    /// What differs from a full page that is a content record.
    Delta {
        /// Hash of the whole page.
        hash: ContentHash,
        /// Hash of the full page.
        base: ContentHash,
        /// The difference, see [`delta`](super::delta).
        delta: Bytes,
    },
}

impl PageRecord {
    const CONTENT: u8 = 0;
    const ZEROS: u8 = 1;
    const DELTA: u8 = 2;

    /// The value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let length = match self {
            Self::Content(_) | Self::Zeros => 2 + ContentHash::LEN,
            Self::Delta { delta, .. } => 4 + 2 * ContentHash::LEN + delta.len(),
        };
        let mut w = value_of(length);
        match self {
            Self::Delta { hash, base, delta } => {
                w.u8(Self::DELTA).bytes(&hash.to_bytes()).bytes(&base.to_bytes()).blob(delta)
            }
            Self::Content(hash) => w.u8(Self::CONTENT).bytes(&hash.to_bytes()),
            Self::Zeros => w.u8(Self::ZEROS),
        };
        w.finish().into()
    }

    /// Reads the value.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = reader(bytes, "page record")?;
        let record = match r.u8()? {
            Self::CONTENT => Self::Content(ContentHash::from_bytes(r.array()?)),
            Self::ZEROS => Self::Zeros,
            Self::DELTA => Self::Delta {
                hash: ContentHash::from_bytes(r.array()?),
                base: ContentHash::from_bytes(r.array()?),
                delta: Bytes::copy_from_slice(r.blob()?),
            },
            _ => return Err(r.corrupt("an unknown kind")),
        };
        r.end()?;
        Ok(record)
    }
}

/// Content encoding: the page as it is.
const ENCODING_RAW: u8 = 0;

/// The value of a content record.
#[must_use]
pub fn encode_content(page: &[u8]) -> Bytes {
    buffers::joined(&[super::SCHEMA, ENCODING_RAW], page)
}

/// The page of a content record, not yet checked against its hash.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_content(bytes: &Bytes) -> Result<Bytes> {
    let mut r = reader(bytes, "content record")?;
    match r.u8()? {
        ENCODING_RAW => Ok(bytes.slice(bytes.len() - r.remaining()..)),
        _ => Err(r.corrupt("an unknown encoding")),
    }
}

/// The value of a reference.
#[must_use]
pub fn encode_reference() -> Bytes {
    Bytes::from_static(&[super::SCHEMA])
}

pub(super) fn write_allocation(w: &mut Writer, allocation: &Allocation) {
    w.u32(allocation.pages.0)
        .u32(allocation.freelist_trunk)
        .u32(allocation.freelist_pages)
        .u32(allocation.page_size.get());
}

pub(super) fn read_allocation(r: &mut Reader<'_>) -> Result<Allocation> {
    let (pages, freelist_trunk, freelist_pages) = (r.u32()?, r.u32()?, r.u32()?);
    let page_size = PageSize::new(r.u32()?).map_err(|_| r.corrupt("an impossible page size"))?;
    if pages == u32::MAX {
        return Err(r.corrupt("more pages than a database can have"));
    }
    Ok(Allocation { pages: PageCount(pages), freelist_trunk, freelist_pages, page_size })
}

/// The value of an allocation record.
#[must_use]
pub fn encode_allocation(allocation: &Allocation) -> Bytes {
    let mut w = value();
    write_allocation(&mut w, allocation);
    w.finish().into()
}

/// Reads an allocation record.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_allocation(bytes: &[u8]) -> Result<Allocation> {
    let mut r = reader(bytes, "allocation record")?;
    let allocation = read_allocation(&mut r)?;
    r.end()?;
    Ok(allocation)
}

/// The value of an unmerged commit: its id.
#[must_use]
pub fn encode_unmerged(id: CommitId) -> Bytes {
    let mut w = value();
    w.bytes(&id.to_bytes());
    w.finish().into()
}

/// Reads the value of an unmerged commit.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_unmerged(bytes: &[u8]) -> Result<CommitId> {
    let mut r = reader(bytes, "unmerged commit record")?;
    let id = CommitId::from_bytes(r.array()?);
    r.end()?;
    Ok(id)
}

/// The value of a discarded commit id: when it was discarded.
#[must_use]
pub fn encode_discarded(micros: i64) -> Bytes {
    let mut w = value();
    w.i64(micros);
    w.finish().into()
}

/// Reads the value of a discarded commit id.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_discarded(bytes: &[u8]) -> Result<i64> {
    let mut r = reader(bytes, "discarded commit record")?;
    let micros = r.i64()?;
    r.end()?;
    Ok(micros)
}

/// The value of a staging record: when the last part was staged.
#[must_use]
pub fn encode_staging(begun_micros: i64) -> Bytes {
    let mut w = value();
    w.i64(begun_micros);
    w.finish().into()
}

/// Reads a staging record.
///
/// # Errors
/// `Corrupt`, `FormatVersion`.
pub fn decode_staging(bytes: &[u8]) -> Result<i64> {
    let mut r = reader(bytes, "staging record")?;
    let begun = r.i64()?;
    r.end()?;
    Ok(begun)
}

/// A staged page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedPage {
    /// Its content.
    pub hash: ContentHash,
    /// Its size, which must be the page size at the commit.
    pub size: PageSize,
}

impl StagedPage {
    /// The value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = value();
        w.bytes(&self.hash.to_bytes()).u32(self.size.get());
        w.finish().into()
    }

    /// Reads the value.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = reader(bytes, "staged page record")?;
        let hash = ContentHash::from_bytes(r.array()?);
        let size = PageSize::new(r.u32()?).map_err(|_| r.corrupt("an impossible page size"))?;
        r.end()?;
        Ok(Self { hash, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(n: u64) -> Version {
        Version::new(n, 0)
    }

    /// Roundtrip; another schema is `FormatVersion`; every shorter or longer value is an
    /// error and never a panic.
    fn check<T: PartialEq + std::fmt::Debug>(
        record: &T,
        bytes: &[u8],
        decode: impl Fn(&[u8]) -> Result<T>,
    ) {
        assert_eq!(&decode(bytes).unwrap(), record);
        let mut other = bytes.to_vec();
        other[0] = 2;
        assert!(
            matches!(decode(&other), Err(Error::FormatVersion { found: 2, known: 1, .. })),
            "schema 2: {:?}",
            decode(&other)
        );
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut to {len}");
        }
        assert!(decode(&[bytes, &[0]].concat()).is_err(), "one byte more");
    }

    fn branch_row(parent: Option<Parent>) -> BranchRow {
        BranchRow {
            created: v(9),
            database: DatabaseId::from_bytes([1; 8]),
            domain: DomainId::from_bytes([2; 8]),
            dropped: false,
            parent,
        }
    }

    #[test]
    fn records_round_trip_and_bad_ones_are_refused() {
        for version in [OLDEST_FORMAT, FORMAT_VERSION] {
            let store = StoreId::from_bytes([7; 16]);
            let format = FormatRecord { store, created_micros: -5, version };
            check(&format, &format.encode(), FormatRecord::decode);
        }
        let incarnation = Incarnation::from_bytes([3; 8]);
        check(&incarnation, &encode_incarnation(incarnation), decode_incarnation);
        let database = DatabaseId::from_bytes([3; 8]);
        check(&database, &encode_name(database), decode_name);
        let row = DatabaseRow {
            name: DatabaseName::new("app").unwrap(),
            branch: BranchId::from_bytes([1; 8]),
            domain: DomainId::from_bytes([2; 8]),
            importing: true,
            created_micros: 1,
            retention_seconds: 300,
            least_versions: 0,
        };
        check(&row, &row.encode(), DatabaseRow::decode);
        let root = branch_row(None);
        check(&root, &root.encode(), BranchRow::decode);
        let child =
            branch_row(Some(Parent { branch: BranchId::from_bytes([5; 8]), version: v(9) }));
        check(&child, &child.encode(), BranchRow::decode);
        check(&v(4), &encode_version(v(4)), |b| decode_version(b, "head"));
        let pin = PinRecord { branch: BranchId::from_bytes([1; 8]), version: v(3) };
        check(&pin, &pin.encode(), PinRecord::decode);
        let delta = PageRecord::Delta {
            hash: ContentHash::of(b"x"),
            base: ContentHash::of(b"y"),
            delta: Bytes::from_static(b"difference"),
        };
        for record in [PageRecord::Content(ContentHash::of(b"x")), PageRecord::Zeros, delta] {
            check(&record, &record.encode(), PageRecord::decode);
        }
        let allocation = Allocation { pages: PageCount(3), ..Allocation::EMPTY };
        check(&allocation, &encode_allocation(&allocation), decode_allocation);
        check(&7, &encode_staging(7), decode_staging);
        let id = CommitId::from_bytes([4; 16]);
        check(&id, &encode_unmerged(id), decode_unmerged);
        check(&7, &encode_discarded(7), decode_discarded);
        let staged = StagedPage { hash: ContentHash::of(b"x"), size: PageSize::MAX };
        check(&staged, &staged.encode(), StagedPage::decode);
    }

    #[test]
    fn impossible_records_are_corrupt() {
        let late =
            branch_row(Some(Parent { branch: BranchId::from_bytes([5; 8]), version: v(10) }));
        assert!(matches!(BranchRow::decode(&late.encode()), Err(Error::Corrupt { .. })));
        assert!(matches!(PageRecord::decode(&[1, 9]), Err(Error::Corrupt { .. })));
        let mut allocation = encode_allocation(&Allocation::EMPTY).to_vec();
        allocation[16] = 1;
        assert!(matches!(decode_allocation(&allocation), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn garbage_is_no_store_and_a_newer_store_is_named() {
        let store = StoreId::from_bytes([7; 16]);
        let record = FormatRecord { store, created_micros: 0, version: FORMAT_VERSION };
        let mut newer = record.encode().to_vec();
        newer[10..12].copy_from_slice(&[0, 9]);
        assert!(matches!(
            FormatRecord::decode(&newer),
            Err(Error::FormatVersion { found: 9, known: 3, .. })
        ));
        for garbage in [&b""[..], b"\x01", b"\x02garbage", b"hello, this is no store"] {
            assert!(matches!(FormatRecord::decode(garbage), Err(Error::Corrupt { .. })));
        }
    }

    #[test]
    fn content_is_the_page_behind_two_bytes() {
        let page = vec![7; 512];
        let value = encode_content(&page);
        assert_eq!(value.len(), 514);
        assert_eq!(decode_content(&value).unwrap(), page);
        assert!(matches!(
            decode_content(&Bytes::from_static(&[2, 0, 1])),
            Err(Error::FormatVersion { .. })
        ));
        assert!(decode_content(&Bytes::from_static(&[1, 9, 1])).is_err());
        assert!(decode_content(&Bytes::new()).is_err());
    }
}
