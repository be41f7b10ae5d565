//! PRAGMAs that the VFS answers in SQLite's place (SQLITE_FCNTL_PRAGMA).

use interleaf_store::when::When;

use super::file::{At, FileState};
use super::session::Files;
use super::stats::Stats;
use crate::code::{ERROR, Failure, Outcome};

/// Answers `PRAGMA name` or `PRAGMA name=value`; `None` where it is SQLite's own.
///
/// # Errors
/// A value that the pragma cannot have; those of the store.
pub fn answer(
    files: &mut Files,
    id: u32,
    name: &str,
    value: Option<&str>,
) -> Option<Outcome<String>> {
    let outcome = match name.to_ascii_lowercase().as_str() {
        // Every mode but these would break a rule, and so would an error: applications set
        // them on opening.
        "journal_mode" => Ok("delete".to_owned()),
        "locking_mode" => Ok("normal".to_owned()),
        "interleaf_version" => version(files, id),
        "interleaf_at" => at(files, id, value),
        "interleaf_consistency" => consistency(value),
        "interleaf_stats" => Ok(files.stats.to_json()),
        _ => return None,
    };
    Some(outcome)
}

/// The snapshot in use, else the last snapshot or own commit, else the newest version.
fn version(files: &mut Files, id: u32) -> Outcome<String> {
    let size = files.file(id)?.0.last.is_none();
    if size {
        // Nothing was read yet: a begin learns the newest version.
        files.lock_shared(id)?;
        files.unlock(id)?;
    }
    let (file, _) = files.file(id)?;
    let used = file.reader().map(|reader| reader.view.version);
    used.or(file.last)
        .map(|version| version.to_string())
        .ok_or_else(|| Failure::broken("a begin without a version"))
}

fn at(files: &mut Files, id: u32, value: Option<&str>) -> Outcome<String> {
    let (file, stats) = files.file(id)?;
    let now = file.next_at.unwrap_or(file.at);
    let next = match value {
        None => now,
        Some(text) if text.eq_ignore_ascii_case("head") => {
            if file.read_only {
                return Err(Failure::new(
                    ERROR,
                    format!("database {} was opened at a version: open it again", file.name),
                ));
            }
            At::Head
        }
        Some(text) => At::Snapshot(resolve(file, text, stats)?),
    };
    file.next_at = (next != file.at).then_some(next);
    Ok(match next {
        At::Head => "head".to_owned(),
        At::Snapshot(version) => version.to_string(),
    })
}

fn resolve(
    file: &FileState,
    text: &str,
    stats: &mut Stats,
) -> Outcome<interleaf_store::types::Version> {
    let bad = |error: interleaf_store::Error| Failure::new(ERROR, error.to_string());
    let when: When = text.parse().map_err(bad)?;
    let source = &file.source;
    source.store.resolve(source.branch, &when, stats).map_err(bad)
}

fn consistency(value: Option<&str>) -> Outcome<String> {
    match value {
        None => Ok("strict".to_owned()),
        Some(text) if text.eq_ignore_ascii_case("strict") => Ok("strict".to_owned()),
        Some(other) => Err(Failure::new(
            ERROR,
            format!("interleaf_consistency {other:?} is not supported: only strict is"),
        )),
    }
}
