//! What a transaction wrote and has not committed: an image over the snapshot.
//!
//! SQLite writes whole pages in its own page size, which need not be the one that the
//! header will say: `PRAGMA page_size=512; VACUUM` writes in units of the old size under a
//! header of the new one. The image is kept in units and cut into pages at the commit.
//!
//! # Invariants
//! - **W1** Bytes below `floor` that are in no unit are the snapshot's; bytes at or past
//!   `floor` that are in no unit are zero.
//! - **W2** No unit begins at or past `size`.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use interleaf_store::types::{PageCount, PageNumber, PageSet, PageSize};
use interleaf_store::{Error, Result};

/// See the module.
#[derive(Debug)]
pub struct WriteBuffer {
    unit: PageSize,
    /// Whether `unit` is settled: by a snapshot with pages in it, or by the first write.
    settled: bool,
    units: BTreeMap<PageNumber, Bytes>,
    floor: u64,
    size: u64,
    changed: bool,
}

/// Reads a whole page of the snapshot.
pub trait Base {
    /// The page, of the snapshot's page size, as SQLite would see it.
    ///
    /// # Errors
    /// Those of reading.
    fn page(&mut self, page: PageNumber) -> Result<Bytes>;
}

impl<F: FnMut(PageNumber) -> Result<Bytes>> Base for F {
    fn page(&mut self, page: PageNumber) -> Result<Bytes> {
        self(page)
    }
}

impl WriteBuffer {
    /// Nothing written over a snapshot of that size.
    pub fn new(pages: PageCount, page_size: PageSize) -> Self {
        let size = u64::from(pages.0) * u64::from(page_size.get());
        Self {
            unit: page_size,
            settled: pages.0 > 0,
            units: BTreeMap::new(),
            floor: size,
            size,
            changed: false,
        }
    }

    /// Bytes in the file, as SQLite is to see it.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether anything was written or cut off.
    pub const fn is_changed(&self) -> bool {
        self.changed
    }

    /// The page as written, where it was.
    pub fn get(&self, page: PageNumber) -> Option<&Bytes> {
        self.units.get(&page)
    }

    /// The pages written.
    pub fn written(&self) -> PageSet {
        self.units.keys().copied().collect()
    }

    /// Forgets everything written.
    pub fn clear(&mut self, pages: PageCount, page_size: PageSize) {
        *self = Self::new(pages, page_size);
    }

    fn start(&self, page: PageNumber) -> u64 {
        u64::from(page.get() - 1) * u64::from(self.unit.get())
    }

    fn unit_at(&self, offset: u64) -> Result<PageNumber> {
        let index = offset / u64::from(self.unit.get()) + 1;
        u32::try_from(index).ok().and_then(PageNumber::new).ok_or_else(|| Error::TooLarge {
            what: "the database in pages".into(),
            size: index,
            limit: u64::from(PageNumber::MAX),
        })
    }

    /// Writes `data` at `offset`. Parts of units are completed from `base`.
    ///
    /// # Errors
    /// `TooLarge` past the last page that SQLite can have; those of `base`.
    pub fn write(&mut self, offset: u64, data: &[u8], base: &mut dyn Base) -> Result<()> {
        if !self.settled {
            if let Some(unit) = u32::try_from(data.len()).ok().and_then(|n| PageSize::new(n).ok()) {
                self.unit = unit;
            }
            self.settled = true;
        }
        self.changed = true;
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let page = self.unit_at(offset)?;
            let within = usize::try_from(offset - self.start(page)).unwrap_or(usize::MAX);
            let room = self.unit.len().saturating_sub(within).min(data.len());
            let (head, tail) = data.split_at_checked(room).unwrap_or((data, &[]));
            let whole = if head.len() == self.unit.len() {
                Bytes::copy_from_slice(head)
            } else {
                let mut whole = BytesMut::from(&*self.unit_bytes(page, base)?);
                if let Some(part) = whole.get_mut(within..within + head.len()) {
                    part.copy_from_slice(head);
                }
                whole.freeze()
            };
            self.units.insert(page, whole);
            offset += head.len() as u64;
            self.size = self.size.max(offset);
            data = tail;
        }
        Ok(())
    }

    /// Cuts the file off at `size` bytes, or grows it with zeros.
    pub fn truncate(&mut self, size: u64) {
        self.changed = true;
        self.size = size;
        self.floor = self.floor.min(size);
        let unit = u64::from(self.unit.get());
        self.units.retain(|page, _| u64::from(page.get() - 1) * unit < size);
        // A cut within a unit leaves bytes behind the cut that must read as zeros.
        let cut = usize::try_from(size % unit).unwrap_or(0);
        if cut == 0 {
            return;
        }
        if let Some(mut last) = self.units.last_entry()
            && u64::from(last.key().get()) * unit > size
        {
            let mut zeroed = BytesMut::from(&**last.get());
            if let Some(behind) = zeroed.get_mut(cut..) {
                behind.fill(0);
            }
            last.insert(zeroed.freeze());
        }
    }

    /// A whole unit as SQLite is to see it.
    fn unit_bytes(&self, page: PageNumber, base: &mut dyn Base) -> Result<Bytes> {
        if let Some(written) = self.units.get(&page) {
            return Ok(written.clone());
        }
        let start = self.start(page);
        if start >= self.floor {
            return Ok(Bytes::from(vec![0; self.unit.len()]));
        }
        let whole = base.page(page)?;
        let shown = usize::try_from(self.floor - start).unwrap_or(usize::MAX);
        if shown >= whole.len() {
            return Ok(whole);
        }
        let mut cut = BytesMut::from(&*whole);
        if let Some(behind) = cut.get_mut(shown..) {
            behind.fill(0);
        }
        Ok(cut.freeze())
    }

    /// Reads at `offset` into `out`, which lies within the file.
    ///
    /// # Errors
    /// Those of `base`.
    pub fn read(&self, offset: u64, out: &mut [u8], base: &mut dyn Base) -> Result<()> {
        let (mut offset, mut out) = (offset, out);
        while !out.is_empty() {
            let page = self.unit_at(offset)?;
            let unit = self.unit_bytes(page, base)?;
            let within = usize::try_from(offset - self.start(page)).unwrap_or(usize::MAX);
            let part = unit.get(within..).unwrap_or_default();
            let n = part.len().min(out.len());
            let (head, tail) = std::mem::take(&mut out).split_at_mut(n);
            head.copy_from_slice(part.get(..n).unwrap_or_default());
            out = tail;
            offset += n as u64;
        }
        Ok(())
    }

    /// The image as pages of `page_size`, `pages` of them: those that may differ from the
    /// snapshot's, ascending.
    ///
    /// # Errors
    /// Those of `base`.
    pub fn cut(
        &self,
        pages: PageCount,
        page_size: PageSize,
        base: &mut dyn Base,
    ) -> Result<Vec<(PageNumber, Bytes)>> {
        if page_size == self.unit {
            return Ok(self.cut_same(pages));
        }
        let mut out = Vec::new();
        for page in (1..=pages.0).filter_map(PageNumber::new) {
            let mut bytes = BytesMut::zeroed(page_size.len());
            let start = u64::from(page.get() - 1) * u64::from(page_size.get());
            let within = self.size.saturating_sub(start).min(u64::from(page_size.get()));
            let within = usize::try_from(within).unwrap_or(usize::MAX);
            self.read(start, bytes.get_mut(..within).unwrap_or_default(), base)?;
            out.push((page, bytes.freeze()));
        }
        Ok(out)
    }

    fn cut_same(&self, pages: PageCount) -> Vec<(PageNumber, Bytes)> {
        let written = self.units.iter().filter(|(page, _)| pages.contains(**page));
        let mut out: Vec<_> = written.map(|(page, bytes)| (*page, bytes.clone())).collect();
        // Cut off and grown over again without being written: zeros, no longer the
        // snapshot's.
        let first = self.floor.div_ceil(u64::from(self.unit.get())) + 1;
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        let zeros = Bytes::from(vec![0; self.unit.len()]);
        for page in (first..=pages.0).filter_map(PageNumber::new) {
            if !self.units.contains_key(&page) {
                out.push((page, zeros.clone()));
            }
        }
        out.sort_by_key(|(page, _)| *page);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(size: usize) -> impl FnMut(PageNumber) -> Result<Bytes> {
        move |page| Ok(Bytes::from(vec![u8::try_from(page.get()).unwrap(); size]))
    }

    fn nothing() -> impl FnMut(PageNumber) -> Result<Bytes> {
        |page| panic!("{page} is not the snapshot's")
    }

    #[test]
    fn what_was_written_lies_over_the_snapshot() {
        let mut buffer = WriteBuffer::new(PageCount(3), PageSize::MIN);
        buffer.write(512, &[9; 512], &mut nothing()).unwrap();
        buffer.write(1024 + 10, &[8; 4], &mut base(512)).unwrap();
        let mut out = vec![0; 1536];
        buffer.read(0, &mut out, &mut base(512)).unwrap();
        assert_eq!((out[0], out[511], out[512], out[1023]), (1, 1, 9, 9));
        assert_eq!(out[1024 + 8..1024 + 16], [3, 3, 8, 8, 8, 8, 3, 3]);
        let cut = buffer.cut(PageCount(3), PageSize::MIN, &mut nothing()).unwrap();
        assert_eq!(cut.iter().map(|(page, _)| page.get()).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn an_empty_file_takes_its_unit_from_the_first_write() {
        let mut buffer = WriteBuffer::new(PageCount(0), PageSize::DEFAULT);
        buffer.write(0, &[1; 1024], &mut nothing()).unwrap();
        buffer.write(1024, &[2; 1024], &mut nothing()).unwrap();
        assert_eq!(buffer.size(), 2048);
        let size = PageSize::new(1024).unwrap();
        assert_eq!(buffer.cut(PageCount(2), size, &mut nothing()).unwrap().len(), 2);
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros_after_growing_again() {
        let mut buffer = WriteBuffer::new(PageCount(4), PageSize::MIN);
        buffer.write(1536, &[9; 512], &mut nothing()).unwrap();
        buffer.truncate(1024);
        assert_eq!(buffer.size(), 1024);
        buffer.write(2560, &[7; 512], &mut nothing()).unwrap();
        let mut out = vec![1; 512];
        buffer.read(1024, &mut out, &mut nothing()).unwrap();
        assert_eq!(out, [0; 512]);
        let cut = buffer.cut(PageCount(6), PageSize::MIN, &mut nothing()).unwrap();
        assert_eq!(cut.iter().map(|(page, _)| page.get()).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(cut[3].1[0], 7);
        assert_eq!(cut[0].1[0], 0, "page 3 is no longer the snapshot's");
    }

    #[test]
    fn a_cut_within_a_unit_zeroes_the_rest() {
        let mut buffer = WriteBuffer::new(PageCount(1), PageSize::MIN);
        buffer.write(512, &[9; 512], &mut nothing()).unwrap();
        buffer.truncate(700);
        buffer.write(1024, &[7; 512], &mut nothing()).unwrap();
        let mut out = vec![1; 512];
        buffer.read(512, &mut out, &mut nothing()).unwrap();
        assert_eq!((out[187], out[188], out[511]), (9, 0, 0));
        buffer.truncate(100);
        buffer.truncate(512);
        let mut out = vec![1; 512];
        buffer.read(0, &mut out, &mut base(512)).unwrap();
        assert_eq!((out[99], out[100]), (1, 0), "the snapshot's, cut");
    }

    #[test]
    fn an_image_of_another_page_size_is_cut_anew() {
        let mut buffer = WriteBuffer::new(PageCount(2), PageSize::new(1024).unwrap());
        buffer.write(1024, &[9; 1024], &mut nothing()).unwrap();
        buffer.truncate(1536);
        let cut = buffer.cut(PageCount(3), PageSize::MIN, &mut base(1024)).unwrap();
        let firsts: Vec<_> = cut.iter().map(|(page, bytes)| (page.get(), bytes[0])).collect();
        assert_eq!(firsts, [(1, 1), (2, 1), (3, 9)]);
        let larger = buffer.cut(PageCount(1), PageSize::new(2048).unwrap(), &mut base(1024));
        let larger = larger.unwrap();
        assert_eq!((larger[0].1[0], larger[0].1[1024], larger[0].1[1535]), (1, 9, 9));
        assert_eq!(larger[0].1[1536], 0, "beyond the end");
    }
}
