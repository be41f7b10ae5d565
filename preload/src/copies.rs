//! The copies of SQLite in this process, and which of them a caller means.
//!
//! A program can hold several: Debian's library and one that a Python wheel brings along,
//! say. The dynamic linker sends the calls of both to this library, and each must go on to
//! the copy that it would have reached: one copy's handles are garbage to another.
//!
//! That is the dynamic linker's own order, from behind this library on:
//! 1. what the process's global scope offers (`RTLD_NEXT`: a program that links
//!    libsqlite3);
//! 2. what the caller's own object file and its dependencies offer (a module of Python that
//!    links libsqlite3, a plug-in with SQLite inside);
//! 3. `libsqlite3.so.0` where something has loaded it: an extension links no SQLite, it
//!    calls through a table of functions, which leads here as well.
//!
//! Answers are kept for the life of the process, the object files' handles too, so that
//! no copy goes away under the pointers kept here.
#![allow(unsafe_code, reason = "dlsym, and the function pointers that it gives")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::symbols;

/// A `sqlite3`.
#[repr(C)]
#[derive(Debug)]
pub struct Db {
    _opaque: [u8; 0],
}

/// A `sqlite3_stmt`.
#[repr(C)]
#[derive(Debug)]
pub struct Stmt {
    _opaque: [u8; 0],
}

/// What `sqlite3_exec` calls for each row.
pub type Callback =
    unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;

/// What dlsym searches: RTLD_NEXT, or an object file's handle that is never closed.
#[derive(Clone, Copy)]
pub struct Handle(usize);

/// Declares the table of a copy's functions and how each is looked up.
macro_rules! functions {
    ($($name:ident = $symbol:literal : fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// One copy of SQLite: those of its functions that this library calls. Pointers
        /// are "C-unwind" since a program's callbacks may throw C++ exceptions through.
        pub struct Sqlite {
            $(
                #[doc = $symbol]
                pub $name: unsafe extern "C-unwind" fn($($arg),*) $(-> $ret)?,
            )*
            /// Address of the VFS that was the default before ours was.
            pub base: OnceLock<usize>,
            /// Where dlsym finds the rest: a handle that is never closed, or RTLD_NEXT.
            pub handle: Handle,
        }

        impl Sqlite {
            /// The copy whose functions a handle has; `None` unless it has all.
            fn load(handle: Handle) -> Option<Self> {
                Some(Self {
                    $($name: {
                        let name = CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes());
                        let found = handle.symbol(name.ok()?);
                        if found.is_null() || symbols::own().contains(&found.cast_const()) {
                            return None;
                        }
                        // SAFETY: not null, and what is found under SQLite's names is SQLite's
                        // function of that name, with its published signature.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C-unwind" fn($($arg),*) $(-> $ret)?,
                            >(found)
                        }
                    },)*
                    base: OnceLock::new(),
                    handle,
                })
            }
        }
    };
}

functions! {
    open = "sqlite3_open": fn(*const c_char, *mut *mut Db) -> c_int;
    open16 = "sqlite3_open16": fn(*const c_void, *mut *mut Db) -> c_int;
    open_v2 = "sqlite3_open_v2": fn(*const c_char, *mut *mut Db, c_int, *const c_char) -> c_int;
    step = "sqlite3_step": fn(*mut Stmt) -> c_int;
    exec = "sqlite3_exec":
        fn(*mut Db, *const c_char, Option<Callback>, *mut c_void, *mut *mut c_char) -> c_int;
    get_table = "sqlite3_get_table": fn(
        *mut Db, *const c_char, *mut *mut *mut c_char, *mut c_int, *mut c_int, *mut *mut c_char
    ) -> c_int;
    reset = "sqlite3_reset": fn(*mut Stmt) -> c_int;
    stmt_busy = "sqlite3_stmt_busy": fn(*mut Stmt) -> c_int;
    next_stmt = "sqlite3_next_stmt": fn(*mut Db, *mut Stmt) -> *mut Stmt;
    db_handle = "sqlite3_db_handle": fn(*mut Stmt) -> *mut Db;
    get_autocommit = "sqlite3_get_autocommit": fn(*mut Db) -> c_int;
    extended_errcode = "sqlite3_extended_errcode": fn(*mut Db) -> c_int;
    prepare_v2 = "sqlite3_prepare_v2":
        fn(*mut Db, *const c_char, c_int, *mut *mut Stmt, *mut *const c_char) -> c_int;
    column_int = "sqlite3_column_int": fn(*mut Stmt, c_int) -> c_int;
    finalize = "sqlite3_finalize": fn(*mut Stmt) -> c_int;
    free = "sqlite3_free": fn(*mut c_void);
    db_mutex = "sqlite3_db_mutex": fn(*mut Db) -> *mut c_void;
    mutex_enter = "sqlite3_mutex_enter": fn(*mut c_void);
    mutex_leave = "sqlite3_mutex_leave": fn(*mut c_void);
    vfs_find = "sqlite3_vfs_find": fn(*const c_char) -> *mut c_void;
    vfs_register = "sqlite3_vfs_register": fn(*mut c_void, c_int) -> c_int;
}

impl Sqlite {
    /// Another function of this copy, or null.
    pub fn symbol(&self, name: &CStr) -> *mut c_void {
        self.handle.symbol(name)
    }
}

impl Handle {
    /// One that has nothing.
    #[cfg(test)]
    pub const NONE: Self = Self(0);

    /// A function's address, or null.
    fn symbol(self, name: &CStr) -> *mut c_void {
        // SAFETY: dlsym takes any name, and the handle is RTLD_NEXT or an open one.
        unsafe { libc::dlsym(std::ptr::with_exposed_provenance_mut(self.0), name.as_ptr()) }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sqlite({:p})", self.step as *const c_void)
    }
}

/// Callers known so far, by return address, and the copies they mean.
static KNOWN: RwLock<Option<HashMap<usize, &'static Sqlite>>> = RwLock::new(None);

/// The copy that the code at `caller` means; `None` where none can be found.
pub fn of(caller: *const c_void) -> Option<&'static Sqlite> {
    if let Some(found) = crate::caller::cached(caller) {
        return Some(found);
    }
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let found = known.as_ref().and_then(|known| known.get(&caller.addr()).copied());
    drop(known);
    let found = match found {
        Some(found) => found,
        None => remember(caller, find(caller)?),
    };
    crate::caller::cache(caller, found);
    Some(found)
}

/// Adds a caller. Copies are told apart by the address of their sqlite3_step, so that each
/// is kept once, however many callers it has.
fn remember(caller: *const c_void, found: Sqlite) -> &'static Sqlite {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let same = known.values().copied().find(|old| std::ptr::fn_addr_eq(old.step, found.step));
    let found = same.unwrap_or_else(|| Box::leak(Box::new(found)));
    known.insert(caller.addr(), found);
    found
}

fn find(caller: *const c_void) -> Option<Sqlite> {
    Sqlite::load(Handle(libc::RTLD_NEXT.expose_provenance()))
        .or_else(|| in_object(object_of(caller)?))
        .or_else(|| in_object(c"libsqlite3.so.0"))
}

/// The name under which the dynamic linker knows the object file that holds `address`. It
/// is the linker's own text and lives as long as the object file, whose code just called.
fn object_of(address: *const c_void) -> Option<&'static CStr> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr takes any address and fills `info` where it returns non-zero; a zeroed
    // Dl_info is valid (null pointers). The name it gives is a C string.
    unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        let name = info.assume_init().dli_fname;
        if name.is_null() { None } else { Some(CStr::from_ptr(name)) }
    }
}

/// The copy that an object file already loaded, and its dependencies, offer. The handle is
/// kept where there is one: the pointers point into it.
fn in_object(name: &CStr) -> Option<Sqlite> {
    // SAFETY: RTLD_NOLOAD loads and runs nothing.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    let found = Sqlite::load(Handle(handle.expose_provenance()));
    if found.is_none() {
        // SAFETY: opened above, and nothing found in it is kept.
        unsafe { libc::dlclose(handle) };
    }
    found
}
