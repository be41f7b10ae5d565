//! The test suite of an application, unchanged, on Interleaf.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::{Outcome, World, artefact, cache_dir, contains, preload, sources};
use crate::trial;

/// For the download as well.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn trials() -> Vec<Trial> {
    vec![trial("sqlite_utils_own_tests", &["python3"], sqlite_utils)]
}

fn sqlite_utils() -> Outcome {
    let world = World::new()?;
    let suite = world
        .program("python3")
        .arg(sources().join("sqlite_utils/suite.py"))
        .arg("--preload")
        .arg(preload())
        .arg("--program")
        .arg(artefact("interleaf"))
        .arg("--work")
        .arg(cache_dir("sqlite-utils")?)
        .patience(PATIENCE);
    let report = suite.succeed()?;
    // The counts, for whoever reads the log.
    let summary = report.find("all tests:").and_then(|start| report.get(start..));
    println!("sqlite-utils: {}", summary.unwrap_or_default());
    contains(&report, "of the tests that open a file pass")
}
