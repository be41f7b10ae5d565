//! What a transaction wrote and has not committed: an image over the snapshot.
//!
//! SQLite writes whole pages in its own page size, which need not be the one that the
//! header will say: `PRAGMA page_size=512; VACUUM` writes in units of the old size under a
//! header of the new one. The image is kept in units and cut into pages at the commit.
//! Units past the first 8 MiB stand in a temporary file ([`Spill`]).
//!
//! # Invariants
//! - **W1** Bytes below `floor` that are in no unit are the snapshot's; bytes at or past
//!   `floor` that are in no unit are zero.
//! - **W2** No unit begins at or past `size`.
//! - **W3** A unit is in memory or in the file, never in both; the first one, which holds the
//!   header, is in memory.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use interleaf_store::types::{PageCount, PageNumber, PageSet, PageSize};
use interleaf_store::{Error, Result, buffers};

use super::journal::Temp;
use super::spill::Spill;

/// Bytes of units that are kept in memory. Few in unit tests, so that those see both places.
const MAX_MEMORY: usize = if cfg!(test) { 2 << 10 } else { 8 << 20 };

/// See the module.
#[derive(Debug)]
pub struct WriteBuffer {
    unit: PageSize,
    /// Whether `unit` is settled: by a snapshot with pages in it, or by the first write.
    settled: bool,
    /// Those in memory.
    units: BTreeMap<PageNumber, Bytes>,
    /// Those that are not.
    spill: Option<Spill>,
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
            spill: None,
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

    /// The first unit, which begins with the header, where it was written.
    pub fn first(&self) -> Option<&Bytes> {
        self.units.get(&PageNumber::ONE)
    }

    /// A unit as written, where it was.
    ///
    /// # Errors
    /// Those of reading the temporary file.
    pub fn get(&mut self, page: PageNumber) -> Result<Option<Bytes>> {
        match (self.units.get(&page), &mut self.spill) {
            (Some(unit), _) => Ok(Some(unit.clone())),
            (None, Some(spill)) => spill.get(page),
            (None, None) => Ok(None),
        }
    }

    /// The pages written, in any order.
    pub fn pages(&self) -> impl Iterator<Item = PageNumber> + '_ {
        let spilled = self.spill.iter().flat_map(Spill::pages);
        self.units.keys().copied().chain(spilled)
    }

    /// The same as a set.
    pub fn written(&self) -> PageSet {
        self.pages().collect()
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

    /// Writes `data` at `offset`. Parts of units are completed from `base`; `temp` gives the
    /// file for what memory is not to hold.
    ///
    /// # Errors
    /// `TooLarge` past the last page that SQLite can have; those of `base` and of the file.
    pub fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        base: &mut dyn Base,
        temp: &dyn Temp,
    ) -> Result<()> {
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
                buffers::joined(head, &[])
            } else {
                let mut whole = BytesMut::from(&*self.unit_bytes(page, base)?);
                if let Some(part) = whole.get_mut(within..within + head.len()) {
                    part.copy_from_slice(head);
                }
                whole.freeze()
            };
            self.put(page, whole, temp)?;
            offset += head.len() as u64;
            self.size = self.size.max(offset);
            data = tail;
        }
        Ok(())
    }

    /// Keeps a unit: in memory while there is room (W3).
    fn put(&mut self, page: PageNumber, whole: Bytes, temp: &dyn Temp) -> Result<()> {
        let full = self.units.len() >= MAX_MEMORY / self.unit.len();
        if !full && self.spill.is_none() {
            self.units.insert(page, whole);
            return Ok(());
        }
        if let Some(spill) = self.spill.as_mut().filter(|spill| spill.contains(page)) {
            return spill.put(page, &whole);
        }
        if !full || page == PageNumber::ONE || self.units.contains_key(&page) {
            self.units.insert(page, whole);
            return Ok(());
        }
        match &mut self.spill {
            Some(spill) => spill.put(page, &whole),
            none => none.insert(Spill::open(temp, self.unit)?).put(page, &whole),
        }
    }

    /// Cuts the file off at `size` bytes, or grows it with zeros.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.changed = true;
        self.shorten(size);
        let unit = u64::from(self.unit.get());
        // A cut within a unit leaves bytes behind the cut that must read as zeros.
        let cut = usize::try_from(size % unit).unwrap_or(0);
        if cut == 0 {
            return Ok(());
        }
        let last = self.unit_at(size)?;
        let Some(whole) = self.get(last)? else { return Ok(()) };
        let mut zeroed = BytesMut::from(&*whole);
        if let Some(behind) = zeroed.get_mut(cut..) {
            behind.fill(0);
        }
        match self.spill.as_mut().filter(|spill| spill.contains(last)) {
            Some(spill) => spill.put(last, &zeroed)?,
            None => drop(self.units.insert(last, zeroed.freeze())),
        }
        Ok(())
    }

    /// As [`truncate`](Self::truncate), for an image that will not grow again: what lies
    /// behind the end within its unit stays, and is not seen. That cannot fail.
    pub fn shorten(&mut self, size: u64) {
        self.size = size;
        self.floor = self.floor.min(size);
        let unit = u64::from(self.unit.get());
        let kept = |page: &PageNumber| u64::from(page.get() - 1) * unit < size;
        self.units.retain(|page, _| kept(page));
        if let Some(spill) = &mut self.spill {
            spill.retain(kept);
        }
    }

    /// A whole unit as SQLite is to see it.
    fn unit_bytes(&mut self, page: PageNumber, base: &mut dyn Base) -> Result<Bytes> {
        if let Some(written) = self.get(page)? {
            return Ok(written);
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
    /// Those of `base` and of the temporary file.
    pub fn read(&mut self, offset: u64, out: &mut [u8], base: &mut dyn Base) -> Result<()> {
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

    /// Whether its pages are to be taken one by one: they stand in a file, or take as much
    /// again when they are cut to another size.
    pub fn is_large(&self, page_size: PageSize) -> bool {
        self.spill.is_some() || page_size != self.unit
    }

    /// Which of the image's `pages` pages of `page_size` may differ from the snapshot's.
    pub fn may_differ(&self, pages: PageCount, page_size: PageSize) -> PageSet {
        if page_size != self.unit {
            return (1..=pages.0).filter_map(PageNumber::new).collect();
        }
        let mut out = PageSet::new();
        out.extend(self.written().iter().filter(|page| pages.contains(*page)));
        out.extend(self.grown_over(pages));
        out
    }

    /// One page of the image.
    ///
    /// # Errors
    /// Those of `base` and of the temporary file.
    pub fn page(
        &mut self,
        page: PageNumber,
        page_size: PageSize,
        base: &mut dyn Base,
    ) -> Result<Bytes> {
        if page_size == self.unit {
            return self.unit_bytes(page, base);
        }
        let mut bytes = BytesMut::zeroed(page_size.len());
        let start = u64::from(page.get() - 1) * u64::from(page_size.get());
        let within = self.size.saturating_sub(start).min(u64::from(page_size.get()));
        let within = usize::try_from(within).unwrap_or(usize::MAX);
        self.read(start, bytes.get_mut(..within).unwrap_or_default(), base)?;
        Ok(bytes.freeze())
    }

    /// The image of a buffer that is not large, as `pages` pages: those that may differ from
    /// the snapshot's, ascending.
    pub fn cut(&self, pages: PageCount) -> Vec<(PageNumber, Bytes)> {
        debug_assert!(self.spill.is_none());
        let written = self.units.iter().filter(|(page, _)| pages.contains(**page));
        let mut out: Vec<_> = written.map(|(page, bytes)| (*page, bytes.clone())).collect();
        let mut grown = self.grown_over(pages).filter(|page| !self.units.contains_key(page));
        // As a rule there are none.
        if let Some(first) = grown.next() {
            let zeros = Bytes::from(vec![0; self.unit.len()]);
            out.extend(std::iter::once(first).chain(grown).map(|page| (page, zeros.clone())));
            out.sort_by_key(|(page, _)| *page);
        }
        out
    }

    /// Pages that were cut off and grown over again: where they are in no unit they are
    /// zeros, no longer the snapshot's.
    fn grown_over(&self, pages: PageCount) -> impl Iterator<Item = PageNumber> + use<> {
        let first = self.floor.div_ceil(u64::from(self.unit.get())) + 1;
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        (first..=pages.0).filter_map(PageNumber::new)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::journal::tests::TestTemp;
    use super::*;

    fn base(size: usize) -> impl FnMut(PageNumber) -> Result<Bytes> {
        move |page| Ok(Bytes::from(vec![u8::try_from(page.get()).unwrap(); size]))
    }

    fn nothing() -> impl FnMut(PageNumber) -> Result<Bytes> {
        |page| panic!("{page} is not the snapshot's")
    }

    /// The image in pages, as a commit takes it.
    fn cut_of(
        buffer: &mut WriteBuffer,
        pages: PageCount,
        page_size: PageSize,
        base: &mut dyn Base,
    ) -> Vec<(PageNumber, Bytes)> {
        let each: Vec<_> = buffer
            .may_differ(pages, page_size)
            .iter()
            .map(|page| (page, buffer.page(page, page_size, base).unwrap()))
            .collect();
        if !buffer.is_large(page_size) {
            assert_eq!(buffer.cut(pages), each);
        }
        each
    }

    #[test]
    fn what_was_written_lies_over_the_snapshot() {
        let mut buffer = WriteBuffer::new(PageCount(3), PageSize::MIN);
        buffer.write(512, &[9; 512], &mut nothing(), &TestTemp).unwrap();
        buffer.write(1024 + 10, &[8; 4], &mut base(512), &TestTemp).unwrap();
        let mut out = vec![0; 1536];
        buffer.read(0, &mut out, &mut base(512)).unwrap();
        assert_eq!((out[0], out[511], out[512], out[1023]), (1, 1, 9, 9));
        assert_eq!(out[1024 + 8..1024 + 16], [3, 3, 8, 8, 8, 8, 3, 3]);
        let cut = cut_of(&mut buffer, PageCount(3), PageSize::MIN, &mut nothing());
        assert_eq!(cut.iter().map(|(page, _)| page.get()).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn an_empty_file_takes_its_unit_from_the_first_write() {
        let mut buffer = WriteBuffer::new(PageCount(0), PageSize::DEFAULT);
        buffer.write(0, &[1; 1024], &mut nothing(), &TestTemp).unwrap();
        buffer.write(1024, &[2; 1024], &mut nothing(), &TestTemp).unwrap();
        assert_eq!(buffer.size(), 2048);
        let size = PageSize::new(1024).unwrap();
        assert_eq!(cut_of(&mut buffer, PageCount(2), size, &mut nothing()).len(), 2);
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros_after_growing_again() {
        let mut buffer = WriteBuffer::new(PageCount(4), PageSize::MIN);
        buffer.write(1536, &[9; 512], &mut nothing(), &TestTemp).unwrap();
        buffer.truncate(1024).unwrap();
        assert_eq!(buffer.size(), 1024);
        buffer.write(2560, &[7; 512], &mut nothing(), &TestTemp).unwrap();
        let mut out = vec![1; 512];
        buffer.read(1024, &mut out, &mut nothing()).unwrap();
        assert_eq!(out, [0; 512]);
        let cut = cut_of(&mut buffer, PageCount(6), PageSize::MIN, &mut nothing());
        assert_eq!(cut.iter().map(|(page, _)| page.get()).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(cut[3].1[0], 7);
        assert_eq!(cut[0].1[0], 0, "page 3 is no longer the snapshot's");
    }

    #[test]
    fn a_cut_within_a_unit_zeroes_the_rest() {
        let mut buffer = WriteBuffer::new(PageCount(1), PageSize::MIN);
        buffer.write(512, &[9; 512], &mut nothing(), &TestTemp).unwrap();
        buffer.truncate(700).unwrap();
        buffer.write(1024, &[7; 512], &mut nothing(), &TestTemp).unwrap();
        let mut out = vec![1; 512];
        buffer.read(512, &mut out, &mut nothing()).unwrap();
        assert_eq!((out[187], out[188], out[511]), (9, 0, 0));
        buffer.truncate(100).unwrap();
        buffer.truncate(512).unwrap();
        let mut out = vec![1; 512];
        buffer.read(0, &mut out, &mut base(512)).unwrap();
        assert_eq!((out[99], out[100]), (1, 0), "the snapshot's, cut");
    }

    #[test]
    fn an_image_of_another_page_size_is_cut_anew() {
        let mut buffer = WriteBuffer::new(PageCount(2), PageSize::new(1024).unwrap());
        buffer.write(1024, &[9; 1024], &mut nothing(), &TestTemp).unwrap();
        buffer.truncate(1536).unwrap();
        let cut = cut_of(&mut buffer, PageCount(3), PageSize::MIN, &mut base(1024));
        let firsts: Vec<_> = cut.iter().map(|(page, bytes)| (page.get(), bytes[0])).collect();
        assert_eq!(firsts, [(1, 1), (2, 1), (3, 9)]);
        let size = PageSize::new(2048).unwrap();
        let larger = cut_of(&mut buffer, PageCount(1), size, &mut base(1024));
        assert_eq!((larger[0].1[0], larger[0].1[1024], larger[0].1[1535]), (1, 9, 9));
        assert_eq!(larger[0].1[1536], 0, "beyond the end");
    }

    /// Against a plain vector of bytes, with more units than memory takes.
    #[test]
    fn units_in_memory_and_in_the_file_are_one_image() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..200 {
            let pages: u32 = rng.random_range(0..12);
            let mut buffer = WriteBuffer::new(PageCount(pages), PageSize::MIN);
            let mut image: Vec<u8> =
                (1..=pages).flat_map(|page| [u8::try_from(page).unwrap(); 512]).collect();
            for step in 0..60u8 {
                let at = rng.random_range(0..24usize) * 512;
                match rng.random_range(0..10) {
                    0 => {
                        let size = at + rng.random_range(0..512);
                        buffer.truncate(size as u64).unwrap();
                        image.resize(size, 0);
                    }
                    n => {
                        let (at, len) = if n < 8 { (at, 512) } else { (at + 100, 900) };
                        let data = vec![step + 100; len];
                        buffer.write(at as u64, &data, &mut base(512), &TestTemp).unwrap();
                        image.resize(image.len().max(at + len), 0);
                        image[at..at + len].copy_from_slice(&data);
                    }
                }
                assert_eq!(buffer.size(), image.len() as u64);
                assert!(buffer.units.len() <= MAX_MEMORY / 512 + 1, "memory is bounded");
            }
            let mut out = vec![0; image.len()];
            buffer.read(0, &mut out, &mut base(512)).unwrap();
            assert!(out == image);
            for size in [512, 1024, 4096] {
                let size = PageSize::new(size).unwrap();
                let count = PageCount(u32::try_from(image.len().div_ceil(size.len())).unwrap());
                let cut = cut_of(&mut buffer, count, size, &mut base(512));
                image.resize(count.0 as usize * size.len(), 0);
                for (page, bytes) in cut {
                    let start = (page.get() as usize - 1) * size.len();
                    assert_eq!(bytes, image[start..start + size.len()], "page {page}");
                }
            }
        }
    }
}
