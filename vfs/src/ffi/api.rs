//! The functions of SQLite that the VFS calls, for one copy of SQLite in the process.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

use interleaf_store::{Error, Result};

use super::abi::{File, Vfs};

/// Oldest SQLite that has all of them: 3.32.0, of May 2020.
pub const MIN_VERSION: c_int = 3_032_000;

/// `sqlite3_vfs_find`.
type VfsFind = unsafe extern "C" fn(*const c_char) -> *mut Vfs;
/// `sqlite3_vfs_register`.
type VfsRegister = unsafe extern "C" fn(*mut Vfs, c_int) -> c_int;
/// `sqlite3_malloc`.
type Malloc = unsafe extern "C" fn(c_int) -> *mut c_void;
/// `sqlite3_log`.
type Log = unsafe extern "C" fn(c_int, *const c_char, ...);
/// `sqlite3_uri_parameter`.
type UriParameter = unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char;
/// `sqlite3_database_file_object`.
type DatabaseFileObject = unsafe extern "C" fn(*const c_char) -> *mut File;
/// `sqlite3_libversion_number`.
type LibversionNumber = unsafe extern "C" fn() -> c_int;

/// See the module. Kept per registered VFS: a process may hold two copies of SQLite.
#[derive(Clone, Copy)]
pub struct Api {
    pub vfs_find: VfsFind,
    pub vfs_register: VfsRegister,
    pub malloc: Malloc,
    pub log: Log,
    pub uri_parameter: UriParameter,
    pub database_file_object: DatabaseFileObject,
}

/// Addresses of the functions of one copy of SQLite. [`sqlite_api!`](crate::sqlite_api)
/// takes them from a crate that declares them, such as `rusqlite::ffi`.
#[derive(Clone, Copy, Debug)]
pub struct ApiPointers(Addresses);

/// What [`ApiPointers`] is made of, by the functions' names.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// `sqlite3_libversion_number`
    pub libversion_number: *const (),
    /// `sqlite3_vfs_find`
    pub vfs_find: *const (),
    /// `sqlite3_vfs_register`
    pub vfs_register: *const (),
    /// `sqlite3_malloc`
    pub malloc: *const (),
    /// `sqlite3_log`
    pub log: *const (),
    /// `sqlite3_uri_parameter`
    pub uri_parameter: *const (),
    /// `sqlite3_database_file_object`
    pub database_file_object: *const (),
}

impl ApiPointers {
    /// Vouches for addresses.
    ///
    /// # Safety
    /// Each address is null or that of the function of its name, in one copy of SQLite that
    /// stays loaded for the life of the process.
    #[must_use]
    pub const unsafe fn new(addresses: Addresses) -> Self {
        Self(addresses)
    }
}

/// The functions of SQLite from the module of bindings that declares them, linked into this
/// program, for [`register`](crate::register).
///
/// ```ignore
/// let api = interleaf_vfs::sqlite_api!(rusqlite::ffi);
/// ```
#[macro_export]
macro_rules! sqlite_api {
    ($($ffi:ident)::+) => {
        // SAFETY: functions that are linked into the program stay; a module of bindings
        // declares those of its SQLite under their names.
        unsafe {
            $crate::ApiPointers::new($crate::Addresses {
                libversion_number: $($ffi)::+::sqlite3_libversion_number as *const (),
                vfs_find: $($ffi)::+::sqlite3_vfs_find as *const (),
                vfs_register: $($ffi)::+::sqlite3_vfs_register as *const (),
                malloc: $($ffi)::+::sqlite3_malloc as *const (),
                log: $($ffi)::+::sqlite3_log as *const (),
                uri_parameter: $($ffi)::+::sqlite3_uri_parameter as *const (),
                database_file_object: $($ffi)::+::sqlite3_database_file_object as *const (),
            })
        }
    };
}

/// Places of the functions in `sqlite3_api_routines`: fixed for ever, since the structure
/// only grows (sqlite3ext.h).
mod place {
    pub const LIBVERSION_NUMBER: usize = 67;
    pub const MALLOC: usize = 68;
    pub const VFS_FIND: usize = 141;
    pub const VFS_REGISTER: usize = 142;
    pub const LOG: usize = 167;
    pub const URI_PARAMETER: usize = 189;
    pub const DATABASE_FILE_OBJECT: usize = 251;
}

fn missing(name: &str) -> Error {
    Error::Unsupported { what: format!("a SQLite library without {name}") }
}

impl Api {
    /// From addresses that somebody vouched for.
    ///
    /// # Errors
    /// `Unsupported` where one is missing or the library is older than [`MIN_VERSION`].
    pub fn from_pointers(pointers: ApiPointers) -> Result<Self> {
        // SAFETY: what whoever made `pointers` promised.
        unsafe { Self::from_addresses(&pointers.0) }
    }

    /// From addresses.
    ///
    /// # Errors
    /// As [`Api::from_pointers`].
    ///
    /// # Safety
    /// As [`ApiPointers::new`].
    unsafe fn from_addresses(pointers: &Addresses) -> Result<Self> {
        check_version(pointers.libversion_number)?;
        let present = |pointer: *const (), name: &str| {
            if pointer.is_null() { Err(missing(name)) } else { Ok(pointer) }
        };
        let vfs_find = present(pointers.vfs_find, "sqlite3_vfs_find")?;
        let vfs_register = present(pointers.vfs_register, "sqlite3_vfs_register")?;
        let malloc = present(pointers.malloc, "sqlite3_malloc")?;
        let log = present(pointers.log, "sqlite3_log")?;
        let uri_parameter = present(pointers.uri_parameter, "sqlite3_uri_parameter")?;
        let object = present(pointers.database_file_object, "sqlite3_database_file_object")?;
        // SAFETY: none is null, and the caller promises that each is the function whose C
        // prototype (sqlite3.h) the type repeats.
        unsafe {
            Ok(Self {
                vfs_find: std::mem::transmute::<*const (), VfsFind>(vfs_find),
                vfs_register: std::mem::transmute::<*const (), VfsRegister>(vfs_register),
                malloc: std::mem::transmute::<*const (), Malloc>(malloc),
                log: std::mem::transmute::<*const (), Log>(log),
                uri_parameter: std::mem::transmute::<*const (), UriParameter>(uri_parameter),
                database_file_object: std::mem::transmute::<*const (), DatabaseFileObject>(object),
            })
        }
    }

    /// From what SQLite hands to a loadable extension.
    ///
    /// # Errors
    /// As [`Api::from_pointers`].
    ///
    /// # Safety
    /// `routines` is the `sqlite3_api_routines` that SQLite gave to the extension's entry.
    pub unsafe fn from_routines(routines: *const c_void) -> Result<Self> {
        if routines.is_null() {
            return Err(missing("sqlite3_api_routines"));
        }
        let table = routines.cast::<*const ()>();
        // SAFETY: the structure is an array of function pointers. This one is in it since
        // 3.3.13, the first with loadable extensions of today's form.
        let version = unsafe { *table.add(place::LIBVERSION_NUMBER) };
        check_version(version)?;
        // SAFETY: the library is new enough to have every one of these places.
        let at = |place: usize| unsafe { *table.add(place) };
        let pointers = Addresses {
            libversion_number: version,
            vfs_find: at(place::VFS_FIND),
            vfs_register: at(place::VFS_REGISTER),
            malloc: at(place::MALLOC),
            log: at(place::LOG),
            uri_parameter: at(place::URI_PARAMETER),
            database_file_object: at(place::DATABASE_FILE_OBJECT),
        };
        // SAFETY: SQLite filled its own table.
        unsafe { Self::from_addresses(&pointers) }
    }

    /// By asking `resolve` for each function's address, as dlsym answers it.
    ///
    /// # Errors
    /// As [`Api::from_pointers`].
    ///
    /// # Safety
    /// As [`ApiPointers::new`], of the addresses that `resolve` gives.
    pub unsafe fn from_resolver(
        mut resolve: impl FnMut(&CStr) -> Option<NonNull<c_void>>,
    ) -> Result<Self> {
        let mut get = |name: &CStr| {
            resolve(name).map_or(std::ptr::null(), |address| address.as_ptr().cast::<()>())
        };
        let pointers = Addresses {
            libversion_number: get(c"sqlite3_libversion_number"),
            vfs_find: get(c"sqlite3_vfs_find"),
            vfs_register: get(c"sqlite3_vfs_register"),
            malloc: get(c"sqlite3_malloc"),
            log: get(c"sqlite3_log"),
            uri_parameter: get(c"sqlite3_uri_parameter"),
            database_file_object: get(c"sqlite3_database_file_object"),
        };
        // SAFETY: the caller's promise.
        unsafe { Self::from_addresses(&pointers) }
    }

    /// `text` in memory that SQLite frees, or null where there is none left.
    pub fn text(&self, text: &str) -> *mut c_char {
        let bytes: Vec<u8> = text.bytes().filter(|&byte| byte != 0).collect();
        let Ok(len) = c_int::try_from(bytes.len() + 1) else { return std::ptr::null_mut() };
        // SAFETY: sqlite3_malloc may be called from any thread; null is checked for.
        let memory = unsafe { (self.malloc)(len) }.cast::<u8>();
        if !memory.is_null() {
            // SAFETY: the allocation has room for the bytes and the terminator.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len());
                *memory.add(bytes.len()) = 0;
            }
        }
        memory.cast()
    }
}

fn check_version(libversion_number: *const ()) -> Result<()> {
    if libversion_number.is_null() {
        return Err(missing("sqlite3_libversion_number"));
    }
    // SAFETY: not null, and by the callers' promise the function of that name.
    let version =
        unsafe { std::mem::transmute::<*const (), LibversionNumber>(libversion_number)() };
    if version < MIN_VERSION {
        return Err(Error::Unsupported {
            what: format!("SQLite {version}, older than {MIN_VERSION} (3.32.0)"),
        });
    }
    Ok(())
}
