//! Opening the library and filling the table of jumps.

use std::env;
use std::error::Error as _;
use std::ffi::{CStr, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

include!(concat!(env!("OUT_DIR"), "/names.rs"));

/// The oldest API version that a library must offer: FoundationDB 7.3.
pub const API_VERSION: i32 = 730;

/// The variable that names the library.
pub const LIBRARY_VARIABLE: &str = "FDB_CLIENT_LIB";

/// What the system's loader is asked for where nothing else is named.
pub const LIBRARY_NAME: &str = "libfdb_c.so";

unsafe extern "C" {
    /// The jumps' targets, in the order of `NAMES`; made by the build script.
    static interleaf_fdb_targets: [AtomicPtr<c_void>; NAMES.len()];
}

/// The library that this process uses, until its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The name or path under which it was opened.
    pub library: PathBuf,
    /// The newest API version that it offers.
    pub max_api_version: i32,
}

/// Why there is no client library to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The system's loader could not open it.
    #[error(
        "FoundationDB's client library {} cannot be opened: {reason}; install FoundationDB's \
         client package, 7.3 or newer, or set {LIBRARY_VARIABLE} to the path of libfdb_c.so",
        library.display()
    )]
    NotOpened {
        /// The name or path that was tried.
        library: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// It lacks a function: it is another library, or too old or too new a one.
    #[error(
        "{} lacks the function {symbol}: it is no FoundationDB client library of a version that \
         this program can use (7.3 or newer)",
        library.display()
    )]
    MissingSymbol {
        /// The library that was opened.
        library: PathBuf,
        /// The function that was looked for.
        symbol: String,
    },
    /// It is older than what this program is written for.
    #[error(
        "FoundationDB's client library {} offers API version {offered} and this program needs \
         {API_VERSION}: use a client library of FoundationDB 7.3 or newer",
        library.display()
    )]
    TooOld {
        /// The library that was opened.
        library: PathBuf,
        /// The newest API version that it offers.
        offered: i32,
    },
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Opens the client library and makes it what the `foundationdb` crate calls.
///
/// `path` is the library, or its name for the system's loader. Without one it
/// is what `FDB_CLIENT_LIB` says, else `libfdb_c.so`. The first library that
/// loads stays for the life of the process: every later call answers with that
/// one, whatever its `path`. A call that failed changed nothing, and the next
/// one tries again.
///
/// # Errors
/// [`LoadError`] where the library cannot be opened, is too old, or lacks a
/// function. Each names the library.
pub fn load(path: Option<&Path>) -> Result<Loaded, LoadError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = loaded.as_ref() {
        return Ok(loaded.clone());
    }
    let new = open(&path.map_or_else(default_library, Path::to_path_buf))?;
    Ok(loaded.insert(new).clone())
}

/// The library in use, if [`load`] has succeeded.
#[must_use]
pub fn loaded() -> Option<Loaded> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The library that [`load`] opens where it is told none.
#[must_use]
pub fn default_library() -> PathBuf {
    env::var_os(LIBRARY_VARIABLE)
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from(LIBRARY_NAME), PathBuf::from)
}

fn open(path: &Path) -> Result<Loaded, LoadError> {
    // SAFETY: opening a library runs its initialisers; the user named this one
    // as FoundationDB's, whose initialisers ask nothing of the caller.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
        LoadError::NotOpened { library: path.to_path_buf(), reason: reason(&error, path) }
    })?;
    // The version is looked at first: of an old library that is better news
    // than the name of whatever function it happens to lack.
    let max_api_version = max_api_version(&library, path)?;
    if max_api_version < API_VERSION {
        return Err(LoadError::TooOld { library: path.to_path_buf(), offered: max_api_version });
    }
    let targets = NAMES
        .iter()
        .map(|name| find(&library, path, name))
        .collect::<Result<Vec<*mut c_void>, LoadError>>()?;

    // Never closed: the table, FoundationDB's own threads and its handlers at
    // the process's end point into it.
    let _stays_open = library.into_raw();
    // SAFETY: the build script defines the table with one slot for each name,
    // aligned and zero-free, and nothing but atomic stores changes it.
    let table = unsafe { &interleaf_fdb_targets };
    for (slot, target) in table.iter().zip(targets) {
        slot.store(target, Ordering::Release);
    }
    Ok(Loaded { library: path.to_path_buf(), max_api_version })
}

fn find(library: &Library, path: &Path, name: &CStr) -> Result<*mut c_void, LoadError> {
    let missing = || LoadError::MissingSymbol {
        library: path.to_path_buf(),
        symbol: name.to_string_lossy().into_owned(),
    };
    // SAFETY: the address is only taken here; what is called through it is
    // declared by `foundationdb-sys` from the header of this API version.
    let symbol = unsafe { library.get::<*mut c_void>(name.to_bytes_with_nul()) };
    let address = symbol.map_err(|_| missing())?.into_raw();
    if address.is_null() { Err(missing()) } else { Ok(address) }
}

fn max_api_version(library: &Library, path: &Path) -> Result<i32, LoadError> {
    let address = find(library, path, c"fdb_get_max_api_version")?;
    // SAFETY: the header declares `int fdb_get_max_api_version()` in every
    // version, and it may be called before the API version is selected.
    let function =
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(address) };
    // SAFETY: as above.
    Ok(unsafe { function() })
}

/// What the loader said, without the path that it repeats at the front.
fn reason(error: &libloading::Error, path: &Path) -> String {
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let prefix = format!("{}: ", path.display());
    text.strip_prefix(&prefix).unwrap_or(&text).to_owned()
}
