//! Real programs on Interleaf, as their users run them: Debian's sqlite3, python3,
//! better-sqlite3 of Node, rusqlite; through the loadable extension and the preload library.
//!
//! A test whose program is not installed is reported as ignored.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod opening;
mod repeating;
mod suite;
mod support;
mod tours;

use libtest_mimic::{Arguments, Trial};
use support::{Outcome, has_program};

/// A test that is ignored unless all of these programs are installed.
fn trial(name: &str, programs: &[&str], run: fn() -> Outcome) -> Trial {
    let missing = programs.iter().any(|program| !has_program(program));
    Trial::test(name, move || run().map_err(|failure| failure.to_string().into()))
        .with_ignored_flag(missing)
}

fn main() {
    let arguments = Arguments::from_args();
    let trials = [tours::trials(), opening::trials(), repeating::trials(), suite::trials()];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
