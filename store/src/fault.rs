//! Named fault points: places at which a test may stop a process or delay it.
//!
//! Compiled in with the feature `faults` only, which no released artefact has. The
//! environment variable `INTERLEAF_FAULT` is a comma-separated list of `NAME=ACTION`;
//! an action is `kill` (the process dies at once, as by kill -9), `kill:N` (at the Nth
//! passage), or `sleep:MS`.

/// A fault point: `fault_point!("commit.before-apply")`. Nothing without the feature, which
/// is this crate's own: a caller's features do not matter.
#[cfg(feature = "faults")]
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        $crate::fault::hit($name)
    };
}

/// A fault point; nothing without the feature `faults`.
#[cfg(not(feature = "faults"))]
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {{}};
}

/// Every fault point of the workspace, so that tests can drive each.
pub const POINTS: &[&str] = &[
    "commit.before-validate",
    "commit.before-apply",
    "commit.after-apply",
    "commit.before-publish",
    "commit.before-answer",
    "client.before-commit",
    "client.after-commit",
    "client.between-files",
];

/// Acts as `INTERLEAF_FAULT` says for `name`.
#[cfg(feature = "faults")]
pub fn hit(name: &str) {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{LazyLock, Mutex, PoisonError};

    static PLAN: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
        std::env::var("INTERLEAF_FAULT")
            .unwrap_or_default()
            .split(',')
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, action)| (name.to_owned(), action.to_owned()))
            .collect()
    });
    static PASSED: LazyLock<Mutex<HashMap<String, AtomicU64>>> = LazyLock::new(Mutex::default);

    debug_assert!(POINTS.contains(&name), "{name} is not listed in POINTS");
    let Some(action) = PLAN.get(name) else { return };
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = passed.entry(name.to_owned()).or_default().fetch_add(1, Ordering::Relaxed) + 1;
    drop(passed);
    let (verb, argument) = action.split_once(':').unwrap_or((action.as_str(), "1"));
    let number: u64 = argument.parse().unwrap_or(1);
    match verb {
        "kill" if count == number => {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
        "sleep" => std::thread::sleep(std::time::Duration::from_millis(number)),
        _ => {}
    }
}
