//! The `foundationdb` crate through the jumps, against a real client library; ignored where
//! there is none. The store's tests do the same against a cluster.

#![allow(unsafe_code)] // The test forks.
#![allow(clippy::unwrap_used)] // Test code throughout.

use std::path::Path;
use std::process::ExitCode;

use foundationdb::Database;
use foundationdb::api::get_max_api_version;
use foundationdb::options::TransactionOption;
use interleaf_fdb_link::{API_VERSION, Loaded, check, load, loaded, start};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let library = load(None);
    if let Err(error) = &library {
        println!("skipped: no FoundationDB: {error}");
    }
    let none = library.is_err();
    // One test, since library and network are one for the whole process.
    let trial = Trial::test("the_crate_calls_the_loaded_library", move || {
        the_crate_calls_the_loaded_library(&library?);
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(none)]).exit_code()
}

fn the_crate_calls_the_loaded_library(library: &Loaded) {
    assert!(library.max_api_version >= API_VERSION);
    assert_eq!(get_max_api_version(), library.max_api_version);
    // The first one stays, whatever is asked for later.
    assert_eq!(load(Some(Path::new("another"))).as_ref(), Ok(library));
    assert_eq!(loaded().as_ref(), Some(library));

    let started = start().unwrap();
    assert_eq!(started.loaded, *library);
    assert!(started.version.starts_with(|c: char| c.is_ascii_digit()), "{started:?}");
    assert_eq!(start(), Ok(started));
    assert_fork_is_noticed();

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fdb.cluster");
    std::fs::write(&file, "test:test@127.0.0.1:1\n").unwrap();
    let database = Database::from_path(file.to_str().unwrap()).unwrap();
    let transaction = database.create_trx().unwrap();
    transaction.set_option(TransactionOption::Timeout(1000)).unwrap();
    transaction.set(b"key", b"value");
    // As an engine does before every use.
    assert_eq!(check(), Ok(()));
}

/// A forked child is refused, and its exit does not wait for a thread it lacks.
fn assert_fork_is_noticed() {
    // SAFETY: the child calls `check` and exits; it touches no lock.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = check().is_err() && start().is_err();
        // SAFETY: ends the child with its exit handlers, the one under test among them.
        unsafe { libc::exit(if refused { 7 } else { 8 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(libc::WEXITSTATUS(status), 7);
}
