//! FoundationDB's network thread: one for the life of the process, started by the
//! first store that needs it and stopped when the process exits.

use std::ffi::{CStr, c_char};
use std::panic::catch_unwind;
use std::process;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use foundationdb::FdbError;
use foundationdb::api::{FdbApiBuilder, NetworkRunner, NetworkStop, NetworkWait};

use crate::library::{LoadError, Loaded, load};

/// How long the process's exit waits for the network thread.
const EXIT_WAIT: Duration = Duration::from_secs(2);

unsafe extern "C" {
    fn fdb_get_client_version() -> *const c_char;
}

/// FoundationDB's client, in use in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The library.
    pub loaded: Loaded,
    /// Its version, such as `7.3.79`.
    pub version: String,
}

/// The process was forked from one that uses FoundationDB, whose threads and
/// connections the fork did not take along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "process {child} was forked from process {parent}, which uses FoundationDB already: a client \
     of FoundationDB cannot be used across a fork; open the store after the fork only, or exec"
)]
pub struct Forked {
    /// The process that uses FoundationDB.
    pub parent: u32,
    /// This process.
    pub child: u32,
}

/// Why FoundationDB cannot be used in this process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// There is no library to use.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The process was forked from one that uses FoundationDB.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The library refused.
    #[error("FoundationDB's client library refused {step}: {reason} ({code})")]
    Refused {
        /// What was asked of it.
        step: &'static str,
        /// What it said.
        reason: String,
        /// FoundationDB's error code.
        code: i32,
    },
    /// The system gave no thread.
    #[error("no thread for FoundationDB's network: {reason}")]
    NoThread {
        /// What the system said.
        reason: String,
    },
}

/// The process that uses FoundationDB; 0 before any does. Read without the lock,
/// which in a forked child may be held by a thread that is not there.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// How often the library was used, about.
static USES: AtomicU64 = AtomicU64::new(1);

static NETWORK: Mutex<State> = Mutex::new(State::Idle);

enum State {
    Idle,
    Running {
        started: Started,
        stop: NetworkStop,
        thread: Running,
    },
    /// The API version can be selected once only: this answer is final.
    Failed(NetworkError),
    Stopped,
}

struct Running {
    ended: Arc<(Mutex<bool>, Condvar)>,
    handle: Option<JoinHandle<()>>,
}

/// Loads the library and starts its network thread, unless that is done. The
/// thread ends when the process exits.
///
/// # Errors
/// [`NetworkError`]. Where only the library is missing the next call tries again.
pub fn start() -> Result<Started, NetworkError> {
    check()?;
    let mut state = lock(&NETWORK);
    match &*state {
        State::Running { started, .. } => return Ok(started.clone()),
        State::Failed(error) => return Err(error.clone()),
        State::Stopped => return Err(exiting()),
        State::Idle => {}
    }
    let loaded = load(None)?;
    OWNER.store(process::id(), Ordering::Release);
    match boot() {
        Ok((stop, thread)) => {
            let started = Started { loaded, version: client_version() };
            *state = State::Running { started: started.clone(), stop, thread };
            Ok(started)
        }
        Err(error) => {
            *state = State::Failed(error.clone());
            Err(error)
        }
    }
}

/// Whether this process may call the library: it was not forked from the one that
/// started the network. Cheap: to be asked before every use.
///
/// # Errors
/// [`Forked`]
pub fn check() -> Result<(), Forked> {
    let parent = OWNER.load(Ordering::Acquire);
    let child = process::id();
    if parent == 0 {
        return Ok(());
    }
    if parent != child {
        return Err(Forked { parent, child });
    }
    if USES.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
        stop_before_others();
    }
    Ok(())
}

/// Makes [`stop_at_exit`] the first of the process's exit handlers, for now.
///
/// The library makes some of its globals when it first needs them, and an exit handler for
/// each then. Exit handlers run from the last one to the first, and a network that stops, or
/// runs, after those globals are gone crashes the process. So the handler is set anew as the
/// library is used, less and less often: when nothing was new for long, nothing is to come.
fn stop_before_others() {
    // SAFETY: the handler is a plain function of this library; where the library is
    // unloaded before the process ends, the C library runs it then. Without memory for
    // one more handler the earlier ones do.
    let _ = unsafe { libc::atexit(stop_at_exit) };
}

fn boot() -> Result<(NetworkStop, Running), NetworkError> {
    let refused = |step| move |error: FdbError| refusal(step, error);
    let builder = FdbApiBuilder::default().build().map_err(refused("the API version"))?;
    let (runner, wait) = builder.build().map_err(refused("to set up its network"))?;
    let ended = Arc::new((Mutex::new(false), Condvar::new()));
    let handle = spawn(runner, Arc::clone(&ended))?;
    let stop = NetworkWait::wait(wait);
    stop_before_others();
    Ok((stop, Running { ended, handle: Some(handle) }))
}

/// The thread takes no signals: the host's handlers run on the host's threads.
fn spawn(
    runner: NetworkRunner,
    ended: Arc<(Mutex<bool>, Condvar)>,
) -> Result<JoinHandle<()>, NetworkError> {
    let body = move || {
        // SAFETY: `stop_at_exit` stops the network before the process ends.
        // Its result is of no use: every wait for FoundationDB has a deadline.
        let _result = unsafe { runner.run() };
        let (flag, condition) = &*ended;
        *lock(flag) = true;
        condition.notify_all();
    };
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are this function's own; the calls fill them in.
    let masked = unsafe {
        libc::sigfillset(all.as_mut_ptr()) == 0
            && libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) == 0
    };
    let spawned = thread::Builder::new().name("fdb-network".to_owned()).spawn(body);
    if masked {
        // SAFETY: `before` was filled in by the call that set the other mask.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        }
    }
    spawned.map_err(|error| NetworkError::NoThread { reason: error.to_string() })
}

/// Stops the network, and waits for its end a little; what is called again does nothing.
extern "C" fn stop_at_exit() {
    // A panic must not cross into C; nothing here is known to panic.
    let _ = catch_unwind(|| {
        if OWNER.load(Ordering::Acquire) != process::id() {
            return;
        }
        let State::Running { stop, mut thread, .. } =
            std::mem::replace(&mut *lock(&NETWORK), State::Stopped)
        else {
            return;
        };
        // Asked for by a new thread: what the library keeps for each thread is gone for
        // this one, whose destructors ran before its exit handlers.
        let stopper = thread::Builder::new().spawn(move || stop.stop().is_ok());
        let (flag, condition) = &*thread.ended;
        let waited = condition.wait_timeout_while(lock(flag), EXIT_WAIT, |ended| !*ended);
        let ended = waited.is_ok_and(|(ended, _)| *ended);
        if ended && let Some(handle) = thread.handle.take() {
            let _ = handle.join();
            let _ = stopper.map(JoinHandle::join);
        }
    });
}

/// The first part of `7.3.79,<commit>,<protocol>`. The library knows no answer before the
/// API version is selected.
fn client_version() -> String {
    // SAFETY: declared as in the library's header, and answers a string that the library
    // keeps for good.
    let text = unsafe { CStr::from_ptr(fdb_get_client_version()) }.to_string_lossy();
    text.split(',').next().unwrap_or_default().to_owned()
}

fn refusal(step: &'static str, error: FdbError) -> NetworkError {
    NetworkError::Refused { step, reason: error.message().to_owned(), code: error.code() }
}

fn exiting() -> NetworkError {
    NetworkError::NoThread { reason: "the process is exiting".to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
