//! `interleaf verify`: is what the store holds what was written?

use std::process::ExitCode;

use anyhow::Context as _;
use interleaf_store::Error;
use interleaf_store::api::Backend;
use interleaf_store::types::{ContentHash, PageNumber};
use serde_json::json;

use crate::cli::Output;
use crate::cmd::Usage;
use crate::connection;
use crate::context::{Context, Target, out, out_json};
use crate::progress::Progress;
use crate::snapshot::Snapshot;

/// Damaged pages that are named; more are counted.
const MAX_NAMED: usize = 20;

/// `interleaf verify`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 0: every page has the hash it was stored under, and SQLite finds the database\n\
        sound. Exit code 1: damage, each damaged page named.\n\n\
        Examples:\n  interleaf verify app.db\n  interleaf verify app.db@-1d\n  \
        interleaf verify --all"
)]
pub struct Args {
    /// NAME, or NAME@WHEN for an earlier state
    name: Option<Target>,
    /// All databases
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// The form of the output.
    #[command(flatten)]
    output: Output,
}

/// What was found in one database.
struct Finding {
    target: Target,
    version: String,
    pages: u32,
    damaged: Vec<(PageNumber, String)>,
    integrity: Vec<String>,
}

impl Finding {
    fn sound(&self) -> bool {
        self.damaged.is_empty() && self.integrity == ["ok"]
    }
}

/// Runs `interleaf verify`.
///
/// # Errors
/// Where the store cannot be read at all; damage is a finding.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let backend = context.connect()?;
    let targets = match (&args.name, args.all) {
        (Some(target), _) => vec![target.clone()],
        (None, true) => backend
            .list(context.deadline())?
            .into_iter()
            .filter(|info| !info.importing)
            .map(|info| Target { name: info.name, when: None })
            .collect(),
        (None, false) => return Err(Usage("verify what? a NAME, or --all".into()).into()),
    };
    let mut findings = Vec::with_capacity(targets.len());
    for target in targets {
        let finding = verify(context, backend.as_ref(), target)?;
        if !args.output.json {
            print(&finding)?;
        }
        findings.push(finding);
    }
    if args.output.json {
        out_json(&findings.iter().map(to_json).collect())?;
    }
    let sound = findings.iter().all(Finding::sound);
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(context: &Context, backend: &dyn Backend, target: Target) -> anyhow::Result<Finding> {
    let snapshot = Snapshot::open(context, backend, &target)?;
    let mut progress = Progress::new("verifying", snapshot.bytes(), context.env.clock.now());
    let mut damaged = Vec::new();
    for numbers in snapshot.batches() {
        damaged.extend(check(context, &snapshot, &numbers)?);
        let bytes = numbers.len() * snapshot.allocation.page_size.len();
        progress.add(u64::try_from(bytes)?);
    }
    progress.finish(context.env.clock.now());
    let integrity = if damaged.is_empty() {
        integrity_check(context, &target, &snapshot)
            .unwrap_or_else(|error| vec![format!("{error:#}")])
    } else {
        // SQLite would stop at the first of the pages that are known to be damaged.
        Vec::new()
    };
    Ok(Finding {
        target,
        version: snapshot.version.to_string(),
        pages: snapshot.allocation.pages.0,
        damaged,
        integrity,
    })
}

/// The damaged ones among some pages. A batch that cannot be read is read page by page, so
/// that each damaged page is named.
fn check(
    context: &Context,
    snapshot: &Snapshot<'_>,
    numbers: &[PageNumber],
) -> anyhow::Result<Vec<(PageNumber, String)>> {
    match snapshot.read(context, numbers) {
        Ok(pages) => Ok(numbers
            .iter()
            .zip(&pages)
            .filter(|(_, page)| ContentHash::of(&page.bytes) != page.hash)
            .map(|(&number, page)| (number, format!("its content is not {}", page.hash)))
            .collect()),
        Err(error @ (Error::Corrupt { .. } | Error::FormatVersion { .. })) => match numbers {
            [number] => Ok(vec![(*number, error.to_string())]),
            _ => {
                let (low, high) = numbers.split_at(numbers.len() / 2);
                let mut damaged = check(context, snapshot, low)?;
                damaged.extend(check(context, snapshot, high)?);
                Ok(damaged)
            }
        },
        Err(error) => Err(error.into()),
    }
}

/// SQLite's own check, of exactly the snapshot whose pages were hashed.
fn integrity_check(
    context: &Context,
    target: &Target,
    snapshot: &Snapshot<'_>,
) -> anyhow::Result<Vec<String>> {
    if snapshot.allocation.pages.0 == 0 {
        return Ok(vec!["ok".into()]);
    }
    let connection = connection::open_at(context, &target.name, snapshot.version)?;
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect::<Result<Vec<String>, _>>().context("integrity_check")
}

fn print(finding: &Finding) -> anyhow::Result<()> {
    let Finding { target, version, pages, damaged, integrity } = finding;
    if finding.sound() {
        return out(format_args!(
            "{target}: ok: {pages} pages at version {version} have their hashes, \
             integrity_check is clean\n"
        ));
    }
    let what = match damaged.len() {
        0 => "every page has its hash, but SQLite finds it unsound".to_owned(),
        many => format!("{many} of {pages} pages"),
    };
    out(format_args!("{target}: DAMAGED at version {version}: {what}\n"))?;
    for (number, why) in damaged.iter().take(MAX_NAMED) {
        out(format_args!("  page {number}: {why}\n"))?;
    }
    if let Some(more) = damaged.len().checked_sub(MAX_NAMED).filter(|&more| more > 0) {
        out(format_args!("  and {more} more; --json names all\n"))?;
    }
    for line in integrity {
        out(format_args!("  integrity_check: {line}\n"))?;
    }
    Ok(())
}

fn to_json(finding: &Finding) -> serde_json::Value {
    let damaged = finding.damaged.iter();
    json!({
        "name": finding.target.name.as_str(),
        "version": finding.version,
        "pages": finding.pages,
        "sound": finding.sound(),
        "damaged": damaged
            .map(|(number, why)| json!({ "page": number.get(), "why": why }))
            .collect::<Vec<_>>(),
        "integrity_check": finding.integrity,
    })
}
