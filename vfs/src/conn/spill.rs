//! Units of a write buffer that memory is not to hold, in slots of a temporary file.

use std::collections::BTreeMap;

use bytes::Bytes;
use interleaf_store::types::{PageNumber, PageSize};
use interleaf_store::{Error, Result};

use super::journal::{Temp, TempFile};
use crate::code::Failure;

/// See the module.
pub struct Spill {
    file: Box<dyn TempFile>,
    /// Bytes in a slot.
    unit: PageSize,
    /// Which slot holds a unit: some twelve bytes of memory each.
    slots: BTreeMap<PageNumber, u32>,
    /// Slots whose units were cut off.
    free: Vec<u32>,
    /// The first slot never used.
    next: u32,
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill").field("units", &self.slots.len()).finish_non_exhaustive()
    }
}

/// The base VFS's file failed: nothing of the store's.
fn of_file(failure: Failure) -> Error {
    Error::Io { what: failure.text }
}

impl Spill {
    /// An empty file for units of that size.
    ///
    /// # Errors
    /// `Io`, as the base VFS says; likewise below.
    pub fn open(temp: &dyn Temp, unit: PageSize) -> Result<Self> {
        let file = temp.open().map_err(of_file)?;
        Ok(Self { file, unit, slots: BTreeMap::new(), free: Vec::new(), next: 0 })
    }

    fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * u64::from(self.unit.get())
    }

    /// Whether a unit is in it.
    pub fn contains(&self, page: PageNumber) -> bool {
        self.slots.contains_key(&page)
    }

    /// The units in it.
    pub fn pages(&self) -> impl Iterator<Item = PageNumber> {
        self.slots.keys().copied()
    }

    /// Writes a unit, in place of what was written of it before.
    pub fn put(&mut self, page: PageNumber, whole: &[u8]) -> Result<()> {
        let known = self.slots.get(&page).or(self.free.last()).copied();
        let slot = known.unwrap_or(self.next);
        self.file.write(self.offset(slot), whole).map_err(of_file)?;
        if self.slots.insert(page, slot).is_none() && self.free.pop().is_none() {
            // No more slots than pages, whose numbers have 32 bits.
            self.next += 1;
        }
        Ok(())
    }

    /// Reads a unit, if it is in it.
    pub fn get(&mut self, page: PageNumber) -> Result<Option<Bytes>> {
        let Some(&slot) = self.slots.get(&page) else { return Ok(None) };
        let mut whole = vec![0; self.unit.len()];
        self.file.read(self.offset(slot), &mut whole).map_err(of_file)?;
        Ok(Some(whole.into()))
    }

    /// Forgets the units that are not `kept`.
    pub fn retain(&mut self, kept: impl Fn(&PageNumber) -> bool) {
        let Self { slots, free, .. } = self;
        slots.retain(|page, slot| {
            let kept = kept(page);
            if !kept {
                free.push(*slot);
            }
            kept
        });
    }
}
