//! One suite for every engine: what the trait `Kv` promises, case by case.
//!
//! `cargo test -p interleaf-store --features sim --test conformance [NAME]`; a case is named
//! `ENGINE::CASE`. The figures are ignored tests: `-- --ignored --nocapture figures`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test program"
)]

mod basics;
mod conflicts;
mod engines;
#[cfg(feature = "fdb")]
#[path = "../support/fdb_cluster.rs"]
mod fdb_cluster;
mod figures;
mod persistence;
mod publication;
mod support;
mod transact;

use libtest_mimic::{Arguments, Trial};

use crate::engines::Engine;
use crate::support::{Case, Ctx};

fn main() {
    if persistence::is_child() {
        return persistence::child();
    }
    keep_quiet_about_panics_on_purpose();
    let mut trials = Vec::new();
    for engine in engines::all() {
        let lists = [
            basics::CASES,
            conflicts::CASES,
            transact::CASES,
            publication::CASES,
            persistence::CASES,
            figures::CASES,
        ];
        for case in lists.concat() {
            trials.extend(trial(engine, case));
        }
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    engines::finish();
    conclusion.exit();
}

/// What a case panics with where it wants to see that nothing comes of it.
pub const ON_PURPOSE: &str = "on purpose";

fn keep_quiet_about_panics_on_purpose() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        if text.or_else(|| payload.downcast_ref::<&str>().copied()) != Some(ON_PURPOSE) {
            report(info);
        }
    }));
}

fn trial(engine: Engine, case: Case) -> Option<Trial> {
    if !case.needs.met_by(&engine) {
        return None;
    }
    let run = move || {
        (case.run)(&Ctx::new(engine));
        Ok(())
    };
    let name = format!("{}::{}", engine.name, case.name);
    Some(Trial::test(name, run).with_ignored_flag(engine.ignored || case.ignored))
}
