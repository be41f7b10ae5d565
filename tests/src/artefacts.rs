//! Where the things under test are.

use std::path::{Path, PathBuf};

/// The directory that cargo built into: `target/debug` or `target/release`.
#[must_use]
pub fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let dir = exe.parent().unwrap();
    let dir = match dir.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => dir.parent().unwrap(),
        _ => dir,
    };
    dir.to_owned()
}

/// A built file by its name.
#[must_use]
pub fn artefact(name: &str) -> PathBuf {
    let path = target_dir().join(name);
    assert!(
        path.exists(),
        "{} is missing; run: cargo build --workspace --all-targets",
        path.display()
    );
    path
}

/// The program `interleaf`.
#[must_use]
pub fn program() -> PathBuf {
    artefact("interleaf")
}

/// The root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
