//! Packages from npm that tests need, installed once into the build directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{artefacts, process};

/// How long an installation may take: it may have to compile.
const LIMIT: Duration = Duration::from_secs(600);

/// Whether node and npm are there.
#[must_use]
pub fn is_there() -> bool {
    let runs = |program: &str| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    runs("node") && runs("npm")
}

/// The `node_modules` with better-sqlite3, as `tests/clients/node/package-lock.json` pins it.
///
/// # Errors
/// As [`installed`].
pub fn better_sqlite3() -> Result<PathBuf, String> {
    installed("tests/clients/node", "node")
}

/// The `node_modules` that `package-lock.json` in the folder `from` of the repository pins,
/// kept from run to run under `name`. Other processes that install it at the same time wait
/// for each other.
///
/// # Errors
/// What went wrong, with what npm said.
pub fn installed(from: &str, name: &str) -> Result<PathBuf, String> {
    let said = |what: &str, e: std::io::Error| format!("{what}: {e}");
    let dir =
        artefacts::target_dir().parent().ok_or("no target directory")?.join("clients").join(name);
    std::fs::create_dir_all(&dir).map_err(|e| said("the directory for node", e))?;
    let from = artefacts::repository().join(from);
    let pinned = std::fs::read_to_string(from.join("package-lock.json"))
        .map_err(|e| said("package-lock.json", e))?;
    let (version, _) = process::text(&process::run(Command::new("node").arg("--version")));
    let (stamp, wanted) = (dir.join("installed"), format!("{version}{pinned}"));
    let lock = std::fs::File::create(dir.join("lock")).map_err(|e| said("the lock", e))?;
    lock.lock().map_err(|e| said("the lock", e))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(dir.join("node_modules"));
    }
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(from.join(file), dir.join(file)).map_err(|e| said(file, e))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir);
    if Path::new("/usr/include/node/node.h").is_file() {
        // Where no ready-made binary can be had, node-gyp compiles against these.
        npm.env("npm_config_nodedir", "/usr");
    }
    let output = process::run_within(&mut npm, "", LIMIT);
    if !output.status.success() {
        let (stdout, stderr) = process::text(&output);
        return Err(format!("npm ci: {}\n{stdout}\n{stderr}", output.status));
    }
    std::fs::write(stamp, wanted).map_err(|e| said("the stamp", e))?;
    Ok(dir.join("node_modules"))
}
