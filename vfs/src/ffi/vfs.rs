//! The methods of `sqlite3_vfs`.
//!
//! What is not Interleaf's is passed to the base VFS, in the same memory: files that it
//! opens bear its own methods, and SQLite calls them without coming here again.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};

use interleaf_store::url::StoreUrl;
use interleaf_store::when::When;

use super::abi::{
    ACCESS_READWRITE, File, OPEN_CREATE, OPEN_MAIN_DB, OPEN_MAIN_JOURNAL, OPEN_READONLY,
    OPEN_READWRITE, OPEN_SUPER_JOURNAL, OPEN_WAL, VFS_VERSION, Vfs,
};
use super::registered::Registered;
use super::{database, journal};
use crate::code::{CANTOPEN, Failure, IOERR, OK, Outcome};
use crate::conn::{OpenDatabase, commit_super, super_journal};
use crate::names::Target;

thread_local! {
    /// The full path that xFullPathname last got from the base VFS, which xOpen is given
    /// next. It is not judged again: another rule may take `/srv/app.db` than took `app.db`.
    static PASSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Longest path, in bytes: the base VFS's or this.
const MAX_PATH: c_int = 1024;

/// The VFS to register.
pub fn table(name: &'static CStr, registered: &'static Registered, base: &Vfs) -> Vfs {
    let own = c_int::try_from(size_of::<database::OurFile>()).unwrap_or(c_int::MAX);
    Vfs {
        version: VFS_VERSION,
        file_bytes: base.file_bytes.max(own),
        max_path: base.max_path.max(MAX_PATH),
        next: std::ptr::null_mut(),
        name: name.as_ptr(),
        app_data: std::ptr::from_ref(registered).cast_mut().cast(),
        open: Some(open),
        delete: Some(delete),
        access: Some(access),
        full_pathname: Some(full_pathname),
        dl_open: Some(dl_open),
        dl_error: Some(dl_error),
        dl_sym: Some(dl_sym),
        dl_close: Some(dl_close),
        randomness: Some(randomness),
        sleep: Some(sleep),
        current_time: Some(current_time),
        get_last_error: Some(get_last_error),
        current_time_int64: Some(current_time_int64),
    }
}

/// # Safety
/// `vfs` was made by [`table`].
unsafe fn registered(vfs: *mut Vfs) -> &'static Registered {
    // SAFETY: `table` put a reference of static life there.
    unsafe { &*(*vfs).app_data.cast::<Registered>() }
}

/// # Safety
/// `name` is null or a C string that lives as long as the answer.
unsafe fn bytes<'a>(name: *const c_char) -> Option<&'a [u8]> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(name) }.to_bytes())
}

/// Passes a call to the base VFS's method of the same name; `$missing` where it has none.
macro_rules! base {
    ($vfs:expr, $method:ident, $missing:expr $(, $arg:expr)*) => {{
        let base = registered($vfs).base;
        match (*base).$method {
            Some(method) => method(base $(, $arg)*),
            None => $missing,
        }
    }};
}

unsafe extern "C" fn open(
    vfs: *mut Vfs,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's contract of xOpen: `vfs` is ours, `file` has `file_bytes` bytes, `name`
    // is null or a name with URI parameters behind it. xClose is not called where the
    // methods are null.
    unsafe {
        (*file).methods = std::ptr::null();
        let ours = registered(vfs);
        let path = bytes(name).unwrap_or_default();
        let mut passed = false;
        let code = ours.guard(|| {
            let opened = if path.is_empty() {
                false
            } else if flags & OPEN_MAIN_DB != 0 {
                open_database(ours, name, file, flags, out_flags)?
            } else if flags & OPEN_MAIN_JOURNAL != 0 {
                open_journal(ours, name, file)?
            } else if flags & OPEN_SUPER_JOURNAL != 0 {
                open_super(ours, path, file, flags)?
            } else if flags & OPEN_WAL != 0 && main_of(ours, path).is_some() {
                return Err(Failure::new(CANTOPEN, "a write-ahead log is not supported"));
            } else {
                false
            };
            passed = !opened;
            Ok(OK)
        });
        if !passed {
            return code;
        }
        base!(vfs, open, CANTOPEN, name, file, flags, out_flags)
    }
}

/// The path of the open database that a journal's or log's path belongs to.
fn main_of<'a>(ours: &Registered, path: &'a [u8]) -> Option<&'a [u8]> {
    let suffixes = [&b"-journal"[..], b"-wal"];
    let mut mains = suffixes.iter().filter_map(|suffix| path.strip_suffix(*suffix));
    mains.find(|main| ours.is_open(main))
}

/// Whether the path is a super-journal's of a connection whose main database is open here.
fn is_super(ours: &Registered, path: &[u8]) -> bool {
    let main = path.len().checked_sub(12).and_then(|len| path.get(..len));
    super_journal::is_name(path) && main.is_some_and(|main| ours.is_open(main))
}

/// # Safety
/// As [`open`].
unsafe fn open_database(
    ours: &'static Registered,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
    out_flags: *mut c_int,
) -> Outcome<bool> {
    // SAFETY: the caller's promise.
    let path = unsafe { bytes(name) }.unwrap_or_default();
    if was_passed(path) {
        return Ok(false);
    }
    let target = ours.names.target(path, &ours.config.databases);
    let Target::Interleaf { name: database, at, file: on_disk } =
        target.map_err(|error| Failure::from(error).at_open())?
    else {
        return Ok(false);
    };
    // SAFETY: the caller's promise.
    let (store, when) =
        unsafe { (ours.uri_parameter(name, c"store"), ours.uri_parameter(name, c"at")) };
    let refuse = |error: interleaf_store::Error| Failure::from(error).at_open();
    let store: StoreUrl = match store {
        Some(url) => url.parse().map_err(refuse)?,
        None => ours.config.store.clone(),
    };
    let at = match when {
        Some(text) => Some(text.parse::<When>().map_err(refuse)?),
        None => at,
    };
    let create = flags & OPEN_CREATE != 0;
    let wanted = OpenDatabase { store, name: database, at, create, file: on_disk };
    // SAFETY: the caller's promise.
    let read_only = unsafe { database::open(ours, path, &wanted, file) }?;
    if !out_flags.is_null() {
        let granted =
            if read_only { flags & !(OPEN_READWRITE | OPEN_CREATE) | OPEN_READONLY } else { flags };
        // SAFETY: not null, and SQLite's to be written.
        unsafe { *out_flags = granted };
    }
    Ok(true)
}

/// # Safety
/// As [`open`], for a main journal.
unsafe fn open_journal(
    ours: &'static Registered,
    name: *const c_char,
    file: *mut File,
) -> Outcome<bool> {
    // SAFETY: SQLite's contract: the name of a main journal, as given to xOpen, leads to its
    // database's file.
    let database = unsafe { (ours.api.database_file_object)(name) };
    // SAFETY: the file is open as long as its journal is used.
    let Some(database) = (unsafe { database::of(database) }) else { return Ok(false) };
    // SAFETY: the caller's promise.
    unsafe { journal::open_main(ours, database.file.journal(), file) }?;
    Ok(true)
}

/// # Safety
/// As [`open`].
unsafe fn open_super(
    ours: &'static Registered,
    path: &[u8],
    file: *mut File,
    flags: c_int,
) -> Outcome<bool> {
    if is_super(ours, path) {
        super_journal::open(path, flags & OPEN_CREATE != 0)?;
        // SAFETY: the caller's promise.
        unsafe { journal::open_super(ours, path.to_vec(), file) };
        return Ok(true);
    }
    if main_of(ours, path).is_some() {
        // A rollback asks whether another database's journal names the same super-journal.
        return Err(Failure::new(CANTOPEN, "a journal belongs to one open database"));
    }
    Ok(false)
}

unsafe extern "C" fn delete(vfs: *mut Vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: SQLite's contract of xDelete.
    unsafe {
        let ours = registered(vfs);
        let path = bytes(name).unwrap_or_default();
        if is_super(ours, path) {
            return ours.guard(|| {
                // With a directory sync it is the commit, without one a rollback's tidying.
                if sync_dir != 0 {
                    commit_super(path)?
                } else {
                    super_journal::forget(path)?
                }
                Ok(OK)
            });
        }
        if main_of(ours, path).is_some() {
            // Its closing forgot it.
            return OK;
        }
        base!(vfs, delete, IOERR, name, sync_dir)
    }
}

unsafe extern "C" fn access(
    vfs: *mut Vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's contract of xAccess.
    unsafe {
        let ours = registered(vfs);
        let path = bytes(name).unwrap_or_default();
        if flags != ACCESS_READWRITE {
            if is_super(ours, path) {
                *out = c_int::from(super_journal::exists(path));
                return OK;
            }
            if main_of(ours, path).is_some() {
                // No journal is ever hot, and there is no log.
                *out = 0;
                return OK;
            }
        }
        base!(vfs, access, IOERR, name, flags, out)
    }
}

unsafe extern "C" fn full_pathname(
    vfs: *mut Vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's contract of xFullPathname: `out` has `room` bytes.
    unsafe {
        let ours = registered(vfs);
        let path = bytes(name).unwrap_or_default();
        let mut passed = false;
        let code = ours.guard(|| {
            let full = full_path(ours, path).map_err(Failure::at_open)?;
            let Some(full) = full else {
                passed = true;
                return Ok(OK);
            };
            if full.len() >= usize::try_from(room).unwrap_or(0) {
                let text = format!("a path of {} bytes; the limit is {}", full.len(), room - 1);
                return Err(Failure::new(CANTOPEN, text));
            }
            std::ptr::copy_nonoverlapping(full.as_ptr(), out.cast(), full.len());
            *out.add(full.len()) = 0;
            Ok(OK)
        });
        if !passed {
            pass(&[]);
            return code;
        }
        let code = base!(vfs, full_pathname, CANTOPEN, name, room, out);
        // A symbolic link was followed where the code is OK_SYMLINK.
        pass(if code & 0xff == OK { bytes(out).unwrap_or_default() } else { &[] });
        code
    }
}

/// Notes the path that xOpen is to pass to the base VFS. A thread that is ending has no
/// memory for it: the path is judged by itself then.
fn pass(path: &[u8]) {
    PASSED.try_with(|passed| passed.replace(path.to_vec())).ok();
}

fn was_passed(path: &[u8]) -> bool {
    PASSED.try_with(|passed| *passed.borrow() == path).unwrap_or(false)
}

fn full_path(ours: &Registered, path: &[u8]) -> Outcome<Option<String>> {
    match ours.names.target(path, &ours.config.databases)? {
        Target::Base => Ok(None),
        // A name of ours is UTF-8.
        Target::Interleaf { .. } => Ok(Some(ours.names.full_path(&String::from_utf8_lossy(path))?)),
    }
}

unsafe extern "C" fn dl_open(vfs: *mut Vfs, name: *const c_char) -> *mut c_void {
    // SAFETY: passed through as it came; likewise below.
    unsafe { base!(vfs, dl_open, std::ptr::null_mut(), name) }
}

unsafe extern "C" fn dl_error(vfs: *mut Vfs, room: c_int, out: *mut c_char) {
    // SAFETY: passed through.
    unsafe { base!(vfs, dl_error, (), room, out) }
}

unsafe extern "C" fn dl_sym(
    vfs: *mut Vfs,
    library: *mut c_void,
    symbol: *const c_char,
) -> Option<unsafe extern "C" fn()> {
    // SAFETY: passed through.
    unsafe { base!(vfs, dl_sym, None, library, symbol) }
}

unsafe extern "C" fn dl_close(vfs: *mut Vfs, library: *mut c_void) {
    // SAFETY: passed through.
    unsafe { base!(vfs, dl_close, (), library) }
}

unsafe extern "C" fn randomness(vfs: *mut Vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: passed through.
    unsafe { base!(vfs, randomness, 0, len, out) }
}

unsafe extern "C" fn sleep(vfs: *mut Vfs, micros: c_int) -> c_int {
    // SAFETY: passed through.
    unsafe { base!(vfs, sleep, 0, micros) }
}

unsafe extern "C" fn current_time(vfs: *mut Vfs, out: *mut f64) -> c_int {
    // SAFETY: passed through.
    unsafe { base!(vfs, current_time, IOERR, out) }
}

unsafe extern "C" fn current_time_int64(vfs: *mut Vfs, out: *mut i64) -> c_int {
    // SAFETY: a base VFS of version 1 has no such slot; its xCurrentTime serves.
    unsafe {
        if (*registered(vfs).base).version >= 2 {
            return base!(vfs, current_time_int64, IOERR, out);
        }
        let mut days = 0.0;
        let code = base!(vfs, current_time, IOERR, &raw mut days);
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 4714 BC")]
        let millis = (days * 86_400_000.0) as i64;
        *out = millis;
        code
    }
}

unsafe extern "C" fn get_last_error(_: *mut Vfs, room: c_int, out: *mut c_char) -> c_int {
    let room = usize::try_from(room).unwrap_or(0);
    if room > 0 && !out.is_null() {
        let text = Registered::last_error(room);
        // SAFETY: SQLite gives `room` bytes at `out`, and the text is no longer.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), text.len()) };
    }
    // The system's error number: none of these failures has one.
    0
}
