//! A file mapped as words that several processes share.

#![allow(unsafe_code)] // Memory shared between processes is this module's purpose.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::layout::{FILE_BYTES, WORDS};

/// The file's words, [`WORDS`] of them.
#[derive(Debug)]
pub(crate) struct Words(NonNull<[AtomicU64; WORDS]>);

// SAFETY: the mapping belongs to the whole process and is used through atomics alone.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

/// What may be done with the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Words {
    /// Maps a file that has at least [`FILE_BYTES`].
    pub(crate) fn map(file: &File, access: Access) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if length < FILE_BYTES as u64 {
            let what = format!("{length} bytes where there should be {FILE_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: the kernel chooses the address, so nothing that is mapped is touched. The
        // file has the bytes, and H4 says that it keeps them.
        let base = unsafe {
            mmap(std::ptr::null_mut(), FILE_BYTES, protection, MapFlags::SHARED, file, 0)?
        };
        NonNull::new(base.cast()).map(Self).ok_or_else(|| io::Error::other("mapped at null"))
    }

    /// A word. `index` is below [`WORDS`].
    #[allow(clippy::indexing_slicing)] // The layout computes it from constants of its own.
    pub(crate) fn get(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the mapping lasts as long as `self`, is page-aligned and has `WORDS` words,
        // each of which is a valid atomic whatever its bytes. Other processes write it through
        // atomics too. A mapping for reading is never stored to: `Board` alone stores, and maps
        // for writing. Loads of 8 aligned bytes need no write on the machines we run on.
        unsafe { &self.0.as_ref()[index] }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference outlives `self`.
        // It fails for a range that is not mapped alone, and there is nothing to do then.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), FILE_BYTES) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping: {unmapped:?}");
    }
}
