//! Temporary files of the base VFS, for journals that outgrow memory.

use std::ffi::{c_int, c_void};

use super::abi::{
    File, IoMethods, OPEN_CREATE, OPEN_DELETEONCLOSE, OPEN_EXCLUSIVE, OPEN_READWRITE,
    OPEN_TEMP_JOURNAL, Vfs,
};
use super::registered::Registered;
use crate::code::{CANTOPEN, Failure, IOERR, OK, Outcome};
use crate::conn::{Temp, TempFile};

/// Most bytes passed to the base VFS in one call: SQLite itself asks for a page at most, and
/// its unix VFS takes a length modulo 128 KiB and calls what is missing then a full disk.
const MAX_CALL_BYTES: usize = 1 << 16;

impl Temp for Registered {
    fn open(&self) -> Outcome<Box<dyn TempFile>> {
        // SAFETY: `base` is a registered VFS.
        let file = unsafe { BaseFile::open_temp(self.base) }?;
        Ok(Box::new(file))
    }
}

/// A file that the base VFS opened in memory of ours.
struct BaseFile {
    /// Memory for the base VFS's sqlite3_file, aligned as malloc's.
    memory: Vec<u128>,
}

// SAFETY: SQLite itself moves files between threads, one at a time.
unsafe impl Send for BaseFile {}

impl BaseFile {
    /// # Safety
    /// `base` is a registered VFS.
    unsafe fn open_temp(base: *mut Vfs) -> Outcome<Self> {
        let flags =
            OPEN_READWRITE | OPEN_CREATE | OPEN_EXCLUSIVE | OPEN_DELETEONCLOSE | OPEN_TEMP_JOURNAL;
        // SAFETY: the caller's promise.
        let (bytes, open) = unsafe { ((*base).file_bytes, (*base).open) };
        let words = usize::try_from(bytes).unwrap_or(0).div_ceil(size_of::<u128>());
        let mut file = Self { memory: vec![0; words] };
        let mut out = 0;
        let open = open.ok_or_else(|| Failure::new(CANTOPEN, "the base VFS cannot open"))?;
        // SAFETY: the memory is as large as the VFS asks; a null name asks for a temporary
        // file of its own choosing.
        let code = unsafe { open(base, std::ptr::null(), file.as_file(), flags, &raw mut out) };
        if code == OK { Ok(file) } else { Err(failed("open a temporary file", code)) }
    }

    const fn as_file(&mut self) -> *mut File {
        self.memory.as_mut_ptr().cast()
    }

    fn methods(&mut self) -> Option<&'static IoMethods> {
        // SAFETY: zeroed memory or what xOpen filled in; methods are static (sqlite3.h).
        unsafe { (*self.as_file()).methods.as_ref() }
    }
}

fn failed(what: &str, code: c_int) -> Failure {
    Failure::new(IOERR, format!("cannot {what} for a journal: the base VFS answers {code}"))
}

impl TempFile for BaseFile {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Outcome<()> {
        let read = self.methods().and_then(|methods| methods.read);
        let read = read.ok_or_else(|| failed("read", IOERR))?;
        let mut offset = i64::try_from(offset).unwrap_or(i64::MAX);
        for part in out.chunks_mut(MAX_CALL_BYTES) {
            let len = c_int::try_from(part.len()).unwrap_or(c_int::MAX);
            // SAFETY: the file is open, `part` has `len` bytes.
            let code = unsafe { read(self.as_file(), part.as_mut_ptr().cast(), len, offset) };
            if code != OK {
                return Err(failed("read", code));
            }
            offset = offset.saturating_add(i64::from(len));
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Outcome<()> {
        let write = self.methods().and_then(|methods| methods.write);
        let write = write.ok_or_else(|| failed("write", IOERR))?;
        let mut offset = i64::try_from(offset).unwrap_or(i64::MAX);
        for part in data.chunks(MAX_CALL_BYTES) {
            let len = c_int::try_from(part.len()).unwrap_or(c_int::MAX);
            let bytes = part.as_ptr().cast::<c_void>();
            // SAFETY: the file is open, `part` has `len` bytes.
            let code = unsafe { write(self.as_file(), bytes, len, offset) };
            if code != OK {
                return Err(failed("write", code));
            }
            offset = offset.saturating_add(i64::from(len));
        }
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> Outcome<()> {
        let truncate = self.methods().and_then(|methods| methods.truncate);
        let truncate = truncate.ok_or_else(|| failed("truncate", IOERR))?;
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        // SAFETY: the file is open.
        let code = unsafe { truncate(self.as_file(), size) };
        if code == OK { Ok(()) } else { Err(failed("truncate", code)) }
    }
}

impl Drop for BaseFile {
    fn drop(&mut self) {
        if let Some(close) = self.methods().and_then(|methods| methods.close) {
            // SAFETY: the file is open, and this is the only call to close it. What it
            // answers changes nothing: the file was temporary.
            unsafe { close(self.as_file()) };
        }
    }
}
