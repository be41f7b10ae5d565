//! `interleaf log`: a database's commits.

use std::process::ExitCode;

use interleaf_store::api::{Backend, LogEntry, LogRequest};
use interleaf_store::types::{BranchId, CommitId, Version};
use interleaf_store::when::format_time;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::context::{Context, Target, out, out_json};
use crate::human;
use crate::nearest::describe;
use crate::table::{Align, Table};

/// Digits of a commit's id that the table shows.
const SHORT_ID: usize = 12;

/// Entries asked for in one request: well below a frame's limit.
const BATCH: usize = 1000;

/// `interleaf log`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A commit's time is by the clock of whoever wrote it, its version is exact: to go back to a\n\
    commit, give the version (NAME@VERSION). The table has the\n\
    first 12 digits of a commit's id, --json all of them.\n\n\
    Examples:\n  \
    interleaf log app.db --limit 5\n  \
    interleaf log app.db --commit 5f0c6a52d4c94c1bb3a7d7d7be0a7a10"
)]
pub struct Args {
    /// NAME, or NAME@WHEN for the commits up to then
    name: Target,
    /// At most so many commits, newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Tell whether this commit took effect: exit code 0 if so, else 1
    #[arg(long, value_name = "ID")]
    commit: Option<CommitId>,
    /// The form of the output.
    #[command(flatten)]
    output: Output,
}

/// Runs `interleaf log`.
///
/// # Errors
/// Those of the store.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let backend = context.connect()?;
    let info = describe(context, backend.as_ref(), &args.name.name)?;
    if let Some(id) = args.commit {
        return show_commit(context, args, backend.as_ref(), info.branch, id);
    }
    let newest =
        args.name.version(backend.as_ref(), info.branch, Version::MAX, context.deadline())?;
    let entries = read(context, backend.as_ref(), info.branch, newest, args.limit)?;
    if args.output.json {
        out_json(&Value::Array(entries.iter().map(to_json).collect()))?;
    } else {
        out(table(&entries))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_commit(
    context: &Context,
    args: &Args,
    backend: &dyn Backend,
    branch: BranchId,
    id: CommitId,
) -> anyhow::Result<ExitCode> {
    let version = backend.find_commit(id, context.deadline())?;
    let entries = match version {
        Some(version) => read(context, backend, branch, version, 1)?,
        None => Vec::new(),
    };
    let entry = entries.iter().find(|entry| entry.id == id);
    if args.output.json {
        out_json(&json!({
            "commit": id.to_string(),
            "took_effect": version.is_some(),
            "version": version.map(|v| v.to_string()),
            "entry": entry.map(to_json),
        }))?;
    } else {
        match (version, entry) {
            (None, _) => out(format_args!("commit {id} did not take effect\n"))?,
            (Some(version), None) => out(format_args!(
                "commit {id} took effect as version {version}, not in {}\n",
                args.name.name
            ))?,
            (Some(_), Some(entry)) => {
                out(format_args!("commit {id} took effect\n"))?;
                out(table(std::slice::from_ref(entry)))?;
            }
        }
    }
    Ok(if version.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Up to `limit` entries, newest first, from `newest` downwards.
fn read(
    context: &Context,
    backend: &dyn Backend,
    branch: BranchId,
    newest: Version,
    limit: usize,
) -> anyhow::Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    let mut up_to = newest;
    while entries.len() < limit {
        let asked = BATCH.min(limit - entries.len());
        let request =
            LogRequest { branch, after: Version::ZERO, up_to, limit: asked, newest_first: true };
        let batch = backend.log(&request, context.deadline())?;
        let full = batch.len() == asked;
        let next = batch.last().and_then(|last| before(last.version));
        entries.extend(batch);
        match next {
            Some(next) if full => up_to = next,
            _ => break,
        }
    }
    Ok(entries)
}

/// The greatest version below this one.
fn before(version: Version) -> Option<Version> {
    match version.batch().checked_sub(1) {
        Some(batch) => Some(Version::new(version.commit(), batch)),
        None => Some(Version::new(version.commit().checked_sub(1)?, u16::MAX)),
    }
}

/// Log entries as a table.
pub fn table(entries: &[LogEntry]) -> Table {
    let mut table = Table::new(&[
        ("VERSION", Align::Left),
        ("TIME", Align::Left),
        ("PAGES", Align::Right),
        ("ADDED", Align::Right),
        ("SIZE", Align::Right),
        ("COMMIT", Align::Left),
        ("CLIENT", Align::Left),
    ]);
    for entry in entries {
        table.row([
            entry.version.to_string(),
            format_time(entry.time_micros),
            entry.pages.len().to_string(),
            human::bytes(entry.bytes),
            entry.allocation.map_or_else(String::new, |a| a.pages.to_string()),
            entry.id.to_string().chars().take(SHORT_ID).collect(),
            printable(&entry.client),
        ]);
    }
    table
}

/// A client names itself: nothing in it may steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn to_json(entry: &LogEntry) -> Value {
    json!({
        "version": entry.version.to_string(),
        "commit": entry.id.to_string(),
        "time": format_time(entry.time_micros),
        "pages": entry.pages.len(),
        "bytes": entry.bytes,
        "size_pages": entry.allocation.map(|a| a.pages.0),
        "client": entry.client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_is_the_opposite_of_next() {
        for version in [Version::new(1, 0), Version::new(7, 3), Version::MAX] {
            assert_eq!(before(version).and_then(Version::next), Some(version));
        }
        assert_eq!(before(Version::ZERO), None);
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a?[2Jb?");
    }
}
