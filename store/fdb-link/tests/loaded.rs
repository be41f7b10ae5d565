//! The `foundationdb` crate through the jumps, against a real client library.
//! Without one (or without a cluster, for the second half) it says so and passes.
//! One test, since library and network are one for the whole process.

#![allow(unsafe_code)] // The test forks.
#![allow(clippy::unwrap_used)] // As in every test; the lint does not know the helpers as such.

use std::env;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use foundationdb::api::get_max_api_version;
use foundationdb::{Database, FdbResult};
use interleaf_fdb_link::{API_VERSION, LIBRARY_VARIABLE, check, load, loaded, start};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

async fn set_and_get(cluster: &str) -> FdbResult<()> {
    let database = Database::from_path(cluster)?;
    let write = database.create_trx()?;
    write.set(b"interleaf-fdb-link/test", b"value");
    write.commit().await?;
    let read = database.create_trx()?;
    let value = read.get(b"interleaf-fdb-link/test", false).await?;
    assert_eq!(value.as_deref(), Some(&b"value"[..]));
    read.clear(b"interleaf-fdb-link/test");
    read.commit().await?;
    Ok(())
}

/// A forked child is refused, and its exit does not wait for a thread it lacks.
fn assert_fork_is_noticed() {
    // SAFETY: the child calls `check` and exits; it touches no lock.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = check().is_err();
        // SAFETY: ends the child with its exit handlers, the one under test among them.
        unsafe { libc::exit(if refused { 7 } else { 8 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(libc::WEXITSTATUS(status), 7);
}

#[test]
fn the_crate_calls_the_loaded_library() {
    let library = match load(None) {
        Ok(library) => library,
        Err(error) => {
            assert!(env::var_os(LIBRARY_VARIABLE).is_none(), "{error}");
            assert!(start().is_err());
            println!("skipped: no FoundationDB: {error}");
            return;
        }
    };
    assert!(library.version.starts_with(|c: char| c.is_ascii_digit()), "{library:?}");
    assert!(library.max_api_version >= API_VERSION);
    assert_eq!(get_max_api_version(), library.max_api_version);
    // The first one stays, whatever is asked for later.
    assert_eq!(load(Some(Path::new("another"))), Ok(library.clone()));
    assert_eq!(loaded(), Some(library.clone()));

    assert_eq!(start(), Ok(library.clone()));
    assert_eq!(start(), Ok(library));
    assert_fork_is_noticed();
    match env::var("FDB_CLUSTER_FILE") {
        Ok(cluster) => block_on(set_and_get(&cluster)).unwrap(),
        Err(_) => println!("skipped: FDB_CLUSTER_FILE names no cluster"),
    }
}
