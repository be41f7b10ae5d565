//! Log entries: what each commit did.

use bytes::Bytes;

use super::records::{read_allocation, write_allocation};
use super::{LOG_PART_BYTES, MAX_CLIENT_BYTES, reader, value_of};
use crate::api::{Allocation, MAX_LOG_HASHES};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::types::{CommitId, ContentHash, PageCount, PageNumber, PageSet};

const ALLOCATION: u8 = 1;
const SHRUNK: u8 = 2;
const HASHED: u8 = 4;
const NAMED: u8 = 8;
const ALL_FLAGS: u8 = ALLOCATION | SHRUNK | HASHED | NAMED;

/// The pages a commit wrote in a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPages {
    /// At most [`MAX_LOG_HASHES`], ascending, with their content.
    Hashed(Vec<(PageNumber, ContentHash)>),
    /// More: their numbers only.
    Named(PageSet),
}

impl LogPages {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Hashed(pages) => pages.len(),
            Self::Named(pages) => usize::try_from(pages.len()).unwrap_or(usize::MAX),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The smallest page that is also in `set`.
    #[must_use]
    pub fn first_in(&self, set: &PageSet) -> Option<PageNumber> {
        match self {
            Self::Hashed(pages) => {
                pages.iter().map(|&(page, _)| page).find(|&page| set.contains(page))
            }
            Self::Named(pages) => pages.first_common(set),
        }
    }

    /// The pages without their content.
    #[must_use]
    pub fn to_set(&self) -> PageSet {
        match self {
            Self::Hashed(pages) => pages.iter().map(|&(page, _)| page).collect(),
            Self::Named(pages) => pages.clone(),
        }
    }

    /// The pages as a begin reports them.
    #[must_use]
    pub fn to_changes(&self) -> Vec<(PageNumber, Option<ContentHash>)> {
        match self {
            Self::Hashed(pages) => pages.iter().map(|&(page, hash)| (page, Some(hash))).collect(),
            Self::Named(pages) => pages.iter().map(|page| (page, None)).collect(),
        }
    }
}

/// What a commit did in one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The commit's id.
    pub id: CommitId,
    /// When, by the clock of whoever wrote it, microseconds since the Unix epoch.
    pub time_micros: i64,
    /// Who; at most [`MAX_CLIENT_BYTES`].
    pub client: String,
    /// Bytes of content that it wrote.
    pub content_bytes: u64,
    /// The allocation after it, where it changed.
    pub allocation: Option<Allocation>,
    /// Pages beyond this were cut off.
    pub shrunk_to: Option<PageCount>,
    /// The pages written, those of zeros included.
    pub pages: LogPages,
}

impl LogRecord {
    /// The values of its parts, in order: at least one.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let whole = self.encode_whole();
        let mut parts = whole.chunks(LOG_PART_BYTES).peekable();
        let mut values = Vec::with_capacity(whole.len() / LOG_PART_BYTES + 1);
        while let Some(part) = parts.next() {
            let mut w = value_of(2 + part.len());
            w.bool(parts.peek().is_some()).bytes(part);
            values.push(w.finish().into());
        }
        values
    }

    fn encode_whole(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(64 + 36 * MAX_LOG_HASHES.min(self.pages.len()));
        w.bytes(&self.id.to_bytes())
            .i64(self.time_micros)
            .text(&self.client)
            .varint(self.content_bytes);
        let mut flags = match self.pages {
            LogPages::Hashed(_) => HASHED,
            LogPages::Named(_) => NAMED,
        };
        if self.allocation.is_some() {
            flags |= ALLOCATION;
        }
        if self.shrunk_to.is_some() {
            flags |= SHRUNK;
        }
        w.u8(flags);
        if let Some(allocation) = &self.allocation {
            write_allocation(&mut w, allocation);
        }
        if let Some(size) = self.shrunk_to {
            w.u32(size.0);
        }
        match &self.pages {
            LogPages::Hashed(pages) => {
                w.len_of(pages.len());
                for (page, hash) in pages {
                    w.u32(page.get()).bytes(&hash.to_bytes());
                }
            }
            LogPages::Named(pages) => {
                w.bytes(&pages.to_bytes());
            }
        }
        w.finish()
    }

    fn decode_whole(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes, "log entry");
        let id = CommitId::from_bytes(r.array()?);
        let time_micros = r.i64()?;
        let client = r.text()?.to_owned();
        if client.len() > MAX_CLIENT_BYTES {
            return Err(r.corrupt("a client text longer than 64 bytes"));
        }
        let content_bytes = r.varint()?;
        let flags = r.u8()?;
        if flags & !ALL_FLAGS != 0 || (flags & HASHED == 0) == (flags & NAMED == 0) {
            return Err(r.corrupt("impossible flags"));
        }
        let allocation = (flags & ALLOCATION != 0).then(|| read_allocation(&mut r)).transpose()?;
        let shrunk_to = (flags & SHRUNK != 0).then(|| r.u32()).transpose()?.map(PageCount);
        let pages = if flags & HASHED != 0 {
            LogPages::Hashed(read_hashed(&mut r)?)
        } else {
            LogPages::Named(PageSet::from_bytes(r.take_rest())?)
        };
        r.end()?;
        Ok(Self { id, time_micros, client, content_bytes, allocation, shrunk_to, pages })
    }
}

fn read_hashed(r: &mut Reader<'_>) -> Result<Vec<(PageNumber, ContentHash)>> {
    let count = r.len(4 + ContentHash::LEN)?;
    if count > MAX_LOG_HASHES {
        return Err(r.corrupt("more hashes than a log entry has"));
    }
    let mut pages: Vec<(PageNumber, ContentHash)> = Vec::with_capacity(count);
    for _ in 0..count {
        let page = PageNumber::new(r.u32()?).ok_or_else(|| r.corrupt("no such page number"))?;
        if pages.last().is_some_and(|&(last, _)| last >= page) {
            return Err(r.corrupt("pages out of order"));
        }
        pages.push((page, ContentHash::from_bytes(r.array()?)));
    }
    Ok(pages)
}

/// Puts the parts of one log entry together, as a scan upwards gives them.
#[derive(Debug, Default)]
pub struct LogAssembler {
    bytes: Vec<u8>,
    next_part: u16,
}

impl LogAssembler {
    /// Adds the next part; gives the entry once it is whole.
    ///
    /// # Errors
    /// `Corrupt` where a part is missing or is not one, `FormatVersion`.
    pub fn push(&mut self, part: u16, value: &[u8]) -> Result<Option<LogRecord>> {
        let mut r = reader(value, "log entry")?;
        if part != self.next_part {
            return Err(r.corrupt("a part is missing"));
        }
        let more = r.bool()?;
        let bytes = r.take_rest();
        if more {
            self.bytes.extend_from_slice(bytes);
            self.next_part = part
                .checked_add(1)
                .ok_or_else(|| Error::Corrupt { what: "log entry: too many parts".into() })?;
            return Ok(None);
        }
        let record = if self.bytes.is_empty() {
            LogRecord::decode_whole(bytes)
        } else {
            self.bytes.extend_from_slice(bytes);
            LogRecord::decode_whole(&self.bytes)
        };
        *self = Self::default();
        record.map(Some)
    }

    /// Whether parts of an entry are still to come.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.next_part != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(n: u32) -> PageNumber {
        PageNumber::new(n).unwrap()
    }

    fn record(pages: LogPages) -> LogRecord {
        LogRecord {
            id: CommitId::from_bytes([4; 16]),
            time_micros: 12,
            client: "test".into(),
            content_bytes: 9000,
            allocation: Some(Allocation { pages: PageCount(9), ..Allocation::EMPTY }),
            shrunk_to: Some(PageCount(9)),
            pages,
        }
    }

    fn assemble(parts: &[Bytes]) -> Result<LogRecord> {
        let mut assembler = LogAssembler::default();
        let mut done = None;
        for (number, part) in (0u16..).zip(parts) {
            assert!(done.is_none());
            done = assembler.push(number, part)?;
        }
        Ok(done.unwrap())
    }

    #[test]
    fn entries_round_trip_whole_and_in_parts() {
        let hashed = record(LogPages::Hashed(vec![(page(2), ContentHash::of(b"x"))]));
        assert_eq!(hashed.encode().len(), 1);
        assert_eq!(assemble(&hashed.encode()).unwrap(), hashed);
        let bare = LogRecord { allocation: None, shrunk_to: None, ..hashed };
        assert_eq!(assemble(&bare.encode()).unwrap(), bare);
        // Every 9th page: no runs, two bytes a page.
        let many = record(LogPages::Named((1..=100_000).map(|n| page(n * 9)).collect()));
        let parts = many.encode();
        assert!(parts.len() > 1 && parts.iter().all(|p| p.len() <= LOG_PART_BYTES + 2));
        assert_eq!(assemble(&parts).unwrap(), many);
    }

    #[test]
    fn bad_entries_are_refused() {
        let good = record(LogPages::Hashed(vec![(page(2), ContentHash::of(b"x"))]));
        let value = good.encode().remove(0);
        for len in 0..value.len() {
            assert!(LogAssembler::default().push(0, &value[..len]).is_err(), "cut to {len}");
        }
        assert!(LogAssembler::default().push(1, &value).is_err(), "a part is missing");
        let mut other = value.to_vec();
        other[0] = 3;
        assert!(matches!(
            LogAssembler::default().push(0, &other),
            Err(Error::FormatVersion { found: 3, .. })
        ));
        let twice = record(LogPages::Hashed(vec![
            (page(2), ContentHash::of(b"x")),
            (page(2), ContentHash::of(b"y")),
        ]));
        assert!(assemble(&twice.encode()).is_err(), "pages out of order");
    }

    #[test]
    fn pages_in_common() {
        let set: PageSet = [3, 5].into_iter().map(page).collect();
        let hashed = LogPages::Hashed(vec![(page(4), ContentHash::of(b""))]);
        assert_eq!(hashed.first_in(&set), None);
        assert_eq!(
            LogPages::Named([5].into_iter().map(page).collect()).first_in(&set),
            Some(page(5))
        );
    }
}
