//! The methods of `sqlite3_io_methods` for rollback journals and super-journals.

use std::ffi::{c_int, c_void};

use super::abi::{File, IoMethods};
use super::database::{
    OurFile, check_reserved_lock, device_characteristics, length_of, offset_of, sector_size,
};
use super::registered::Registered;
use crate::code::{Failure, IOERR_SHORT_READ, MISUSE, NOTFOUND, OK, Outcome};
use crate::conn::{JournalFile, super_journal};

enum Kind {
    Main(JournalFile),
    Super(Vec<u8>),
}

struct Journal {
    ours: &'static Registered,
    kind: Kind,
}

static METHODS: IoMethods = IoMethods {
    version: 1,
    close: Some(close),
    read: Some(read),
    write: Some(write),
    truncate: Some(truncate),
    sync: Some(sync),
    file_size: Some(file_size),
    lock: Some(no_lock),
    unlock: Some(no_lock),
    check_reserved_lock: Some(check_reserved_lock),
    file_control: Some(file_control),
    sector_size: Some(sector_size),
    device_characteristics: Some(device_characteristics),
    shm_map: None,
    shm_lock: None,
    shm_barrier: None,
    shm_unmap: None,
    fetch: None,
    unfetch: None,
};

/// Opens a new main journal.
///
/// # Errors
/// Where its database is closed.
///
/// # Safety
/// `file` has room for an [`OurFile`].
pub unsafe fn open_main(
    ours: &'static Registered,
    journal: JournalFile,
    file: *mut File,
) -> Outcome<()> {
    journal.create()?;
    // SAFETY: the caller's promise.
    unsafe { put(Journal { ours, kind: Kind::Main(journal) }, file) };
    Ok(())
}

/// Opens a super-journal that exists.
///
/// # Safety
/// `file` has room for an [`OurFile`].
pub unsafe fn open_super(ours: &'static Registered, name: Vec<u8>, file: *mut File) {
    // SAFETY: the caller's promise.
    unsafe { put(Journal { ours, kind: Kind::Super(name) }, file) };
}

unsafe fn put(journal: Journal, file: *mut File) {
    // SAFETY: the callers' promise.
    unsafe {
        (*file.cast::<OurFile>()).state = Box::into_raw(Box::new(journal)).cast();
        (*file).methods = &raw const METHODS;
    }
}

/// # Safety
/// `file` is an open file with these methods.
unsafe fn with(file: *mut File, body: impl FnOnce(&mut Journal) -> Outcome<c_int>) -> c_int {
    // SAFETY: the caller's promise: the state is a boxed Journal until xClose.
    let journal = unsafe { (*file.cast::<OurFile>()).state.cast::<Journal>().as_mut() };
    let Some(journal) = journal else { return MISUSE };
    let ours = journal.ours;
    ours.guard(|| body(journal))
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    // SAFETY: SQLite closes a file once; `put` boxed the state, and the methods are taken
    // away so that it is freed once.
    let journal = unsafe {
        (*file).methods = std::ptr::null();
        Box::from_raw((*file.cast::<OurFile>()).state.cast::<Journal>())
    };
    let ours = journal.ours;
    ours.guard(|| {
        drop(journal);
        Ok(OK)
    })
}

unsafe extern "C" fn read(file: *mut File, out: *mut c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite's contract of xRead: `out` has `len` bytes.
    unsafe {
        with(file, |journal| {
            let out = std::slice::from_raw_parts_mut(out.cast::<u8>(), length_of(len)?);
            let offset = offset_of(offset)?;
            let whole = match &journal.kind {
                Kind::Main(main) => main.read(offset, out)?,
                Kind::Super(name) => read_super(name, offset, out)?,
            };
            Ok(if whole { OK } else { IOERR_SHORT_READ })
        })
    }
}

fn read_super(name: &[u8], offset: u64, out: &mut [u8]) -> Outcome<bool> {
    let content = super_journal::content(name)?;
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = content.get(start..).unwrap_or_default();
    let there = rest.len().min(out.len());
    let Some((head, tail)) = out.split_at_mut_checked(there) else { return Ok(false) };
    head.copy_from_slice(rest.get(..there).unwrap_or_default());
    tail.fill(0);
    Ok(tail.is_empty())
}

unsafe extern "C" fn write(file: *mut File, data: *const c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite's contract of xWrite: `data` has `len` bytes.
    unsafe {
        with(file, |journal| {
            let data = std::slice::from_raw_parts(data.cast::<u8>(), length_of(len)?);
            let offset = offset_of(offset)?;
            match &journal.kind {
                Kind::Main(main) => main.write(offset, data, journal.ours)?,
                Kind::Super(name) => super_journal::write(name, offset, data)?,
            }
            Ok(OK)
        })
    }
}

unsafe extern "C" fn truncate(file: *mut File, size: i64) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe {
        with(file, |journal| {
            match &journal.kind {
                Kind::Main(main) => main.truncate(offset_of(size)?)?,
                Kind::Super(_) => return Err(Failure::broken("a super-journal cut off")),
            }
            Ok(OK)
        })
    }
}

unsafe extern "C" fn sync(file: *mut File, _: c_int) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe {
        with(file, |journal| {
            match &journal.kind {
                Kind::Main(main) => main.sync()?,
                Kind::Super(_) => {}
            }
            Ok(OK)
        })
    }
}

unsafe extern "C" fn file_size(file: *mut File, out: *mut i64) -> c_int {
    // SAFETY: SQLite's contract.
    unsafe {
        with(file, |journal| {
            let size = match &journal.kind {
                Kind::Main(main) => main.size()?,
                Kind::Super(name) => super_journal::content(name)?.len() as u64,
            };
            *out = i64::try_from(size).unwrap_or(i64::MAX);
            Ok(OK)
        })
    }
}

/// Journals are not locked.
const unsafe extern "C" fn no_lock(_: *mut File, _: c_int) -> c_int {
    OK
}

const unsafe extern "C" fn file_control(_: *mut File, _: c_int, _: *mut c_void) -> c_int {
    NOTFOUND
}
