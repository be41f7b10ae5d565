//! The state before a library is loaded, and every way in which loading fails.
//! One test, since the library is one for the whole process.

#![allow(unsafe_code)] // The test calls the jumps themselves.
#![allow(clippy::unwrap_used)] // As in every test; the lint does not know the helpers as such.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use interleaf_fdb_link::{LoadError, load, loaded};

unsafe extern "C" {
    fn fdb_select_api_version_impl(runtime: c_int, header: c_int) -> c_int;
    fn fdb_get_max_api_version() -> c_int;
    fn fdb_get_error(code: c_int) -> *const c_char;
    fn fdb_transaction_commit(transaction: *mut c_void) -> *mut c_void;
}

/// Builds a library with the given functions.
fn library(dir: &Path, name: &str, source: &str) -> PathBuf {
    let (file, library) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.so")));
    fs::write(&file, source).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&file)
        .status()
        .unwrap();
    assert!(built.success());
    library
}

fn assert_answers_without_library() {
    // SAFETY: declared as in the header; nothing is loaded, so that the
    // build script's own answers run, and they read no argument.
    unsafe {
        assert_eq!(fdb_select_api_version_impl(730, 730), 2200);
        assert_eq!(fdb_get_max_api_version(), 0);
        assert!(fdb_transaction_commit(std::ptr::null_mut()).is_null());
        let text = CStr::from_ptr(fdb_get_error(2200)).to_str().unwrap();
        assert_eq!(text, "the FoundationDB client library is not loaded");
    }
    assert_eq!(loaded(), None);
}

#[test]
fn nothing_is_called_and_every_failure_names_the_library() {
    assert_answers_without_library();
    let dir = tempfile::tempdir().unwrap();

    let absent = dir.path().join("absent/libfdb_c.so");
    let error = load(Some(&absent)).unwrap_err();
    assert!(matches!(&error, LoadError::NotOpened { library, .. } if *library == absent));
    let text = error.to_string();
    assert!(text.contains(&*absent.to_string_lossy()), "{text}");
    assert!(text.contains("FDB_CLIENT_LIB"), "{text}");

    let other = library(dir.path(), "other", "int unrelated(void) { return 1; }");
    let error = load(Some(&other)).unwrap_err();
    let symbol = "fdb_get_max_api_version".to_owned();
    assert_eq!(error, LoadError::MissingSymbol { library: other, symbol });

    let old = library(dir.path(), "old", "int fdb_get_max_api_version(void) { return 710; }");
    let error = load(Some(&old)).unwrap_err();
    assert_eq!(error, LoadError::TooOld { library: old, offered: 710 });
    assert!(error.to_string().contains("710"), "{error}");

    let partial = library(
        dir.path(),
        "partial",
        "int fdb_get_max_api_version(void) { return 740; }\n\
         int fdb_create_database(const char* f, void** d) { return 4000; }\n",
    );
    let error = load(Some(&partial)).unwrap_err();
    assert!(
        matches!(&error, LoadError::MissingSymbol { library, .. } if *library == partial),
        "{error}"
    );

    assert_answers_without_library();
}
