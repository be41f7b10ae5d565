//! `interleaf export`: any version of a database as a SQLite file.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail, ensure};
use interleaf_store::Error;
use interleaf_store::api::Allocation;
use interleaf_store::sqlite_file;
use interleaf_store::types::{PageNumber, Version};
use rustix::fs::{Mode, OFlags};
use serde_json::json;

use crate::cli::Output;
use crate::cmd::Usage;
use crate::context::{Context, Target, out, out_json};
use crate::human;
use crate::progress::Progress;
use crate::snapshot::Snapshot;

/// `interleaf export`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file appears complete or not at all: it is written beside its place, made durable,\n\
        and renamed. With - for the file the database goes to stdout, where only exit code 0\n\
        says that it is complete.\n\n\
        Examples:\n  interleaf export app.db backup.db\n  \
        interleaf export app.db@2026-05-01T00:00:00Z may.db\n  \
        interleaf export app.db - | gzip > app.db.gz"
)]
pub struct Args {
    /// NAME, or NAME@WHEN for an earlier state
    name: Target,
    /// The file to write; - is stdout
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// The form of the output.
    #[command(flatten)]
    output: Output,
}

/// Runs `interleaf export`.
///
/// # Errors
/// Where the file is there already, or the store or the disk fails.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    if args.file == Path::new("-") {
        return to_stdout(context, args);
    }
    let shown = args.file.display();
    let file = check_target(&args.file, args.force)?;
    let backend = context.connect()?;
    let snapshot = Snapshot::open(context, backend.as_ref(), &args.name)?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".interleaf-export-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(directory)
        .with_context(|| format!("{}", directory.display()))?;
    let clock = &context.env.clock;
    let mut progress = Progress::new("exporting", snapshot.bytes(), clock.now());
    write_pages(context, &snapshot, temporary.as_file_mut(), &mut progress)
        .with_context(|| format!("{shown}"))?;
    temporary.as_file().sync_all().with_context(|| format!("{shown}"))?;
    if args.force {
        temporary.persist(&file).map_err(|e| e.error)
    } else {
        temporary.persist_noclobber(&file).map_err(|e| e.error)
    }
    .with_context(|| format!("{shown}"))?;
    sync_directory(directory)?;
    let (bytes, elapsed) = progress.finish(clock.now());
    let rate = human::megabytes_per_second(bytes, elapsed);
    let (pages, version) = (snapshot.allocation.pages, snapshot.version);
    if args.output.json {
        out_json(&json!({
            "name": args.name.name.as_str(),
            "file": args.file.to_string_lossy(),
            "version": version.to_string(),
            "pages": pages.0,
            "page_size": snapshot.allocation.page_size.get(),
            "bytes": bytes,
            "seconds": elapsed.as_secs_f64(),
            "mb_per_second": rate,
        }))?;
    } else {
        let (size, seconds) = (human::bytes(bytes), elapsed.as_secs_f64());
        out(format_args!(
            "exported {} at version {version} to {shown}: {pages} pages, {size} in {seconds:.2} s \
             ({rate:.1} MB/s)\n",
            args.name.name
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the database to a pipe or whatever stdout is, but for a terminal.
fn to_stdout(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    if args.output.json {
        return Err(Usage("--json and the database cannot both go to stdout".into()).into());
    }
    let stdout = std::io::stdout().lock();
    if stdout.is_terminal() {
        let why = "a database does not go to a terminal: name a file (./- for one called -), or \
                   send stdout to one";
        return Err(Usage(why.into()).into());
    }
    let backend = context.connect()?;
    let snapshot = Snapshot::open(context, backend.as_ref(), &args.name)?;
    let clock = &context.env.clock;
    let mut progress = Progress::new("exporting", snapshot.bytes(), clock.now());
    // A reader that goes away has no database: unlike with a list that is an error.
    write_pages(context, &snapshot, stdout, &mut progress).map_err(|e| anyhow!("stdout: {e:#}"))?;
    progress.finish(clock.now());
    Ok(ExitCode::SUCCESS)
}

/// The file to write: behind a link the one it leads to, so that the link stays. Nothing but a
/// regular file is replaced: a rename over `/dev/null` would take it from the whole machine.
///
/// A journal or WAL of the file that is about to be replaced would be taken for the new
/// file's own, and damage it.
fn check_target(file: &Path, force: bool) -> anyhow::Result<PathBuf> {
    let shown = file.display();
    ensure!(!file.is_dir(), "{shown} is a directory");
    let mut target = file.to_owned();
    if let Ok(meta) = file.symlink_metadata() {
        ensure!(force, "{shown} exists already; --force replaces it");
        if meta.is_symlink() {
            target = file.canonicalize().with_context(|| format!("{shown} is a link"))?;
        }
        let regular = target.metadata().with_context(|| format!("{shown}"))?.is_file();
        ensure!(regular, "{shown} is no regular file; - is stdout");
    }
    for suffix in ["-journal", "-wal"] {
        let mut beside = target.as_os_str().to_owned();
        beside.push(suffix);
        let beside = PathBuf::from(beside);
        if beside.metadata().is_ok_and(|meta| meta.len() > 0) {
            bail!(
                "{} is in the way: SQLite would apply it to the exported file; close the program \
                 that uses {shown}, or move both away",
                beside.display()
            );
        }
    }
    Ok(target)
}

fn write_pages(
    context: &Context,
    snapshot: &Snapshot<'_>,
    file: impl Write,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let (allocation, counter) = (snapshot.allocation, counter_of(snapshot.version));
    snapshot.each_batch(context, |numbers, pages| {
        for (number, page) in numbers.iter().zip(pages) {
            if *number == PageNumber::ONE {
                file.write_all(&page_one(&page.bytes, &allocation, counter)?)?;
            } else {
                file.write_all(&page.bytes)?;
            }
            progress.add(u64::try_from(page.bytes.len())?);
        }
        Ok(())
    })?;
    Ok(file.flush()?)
}

fn page_one(stored: &[u8], allocation: &Allocation, counter: u32) -> Result<Vec<u8>, Error> {
    let mut page = stored.to_vec();
    let library = u32::try_from(rusqlite::version_number()).unwrap_or(0);
    sqlite_file::fill_page_one(&mut page, allocation, counter, library)?;
    Ok(page)
}

/// A change counter that differs between exports of different versions, so that a program
/// which finds another export in the place of the one it knew does not trust its cache.
fn counter_of(version: Version) -> u32 {
    let folded = version.commit() ^ (version.commit() >> 32) ^ (u64::from(version.batch()) << 16);
    u32::try_from(folded & 0xffff_ffff).unwrap_or(1).max(1)
}

/// Makes a rename in the directory durable.
fn sync_directory(directory: &Path) -> anyhow::Result<()> {
    let shown = || format!("{}", directory.display());
    let handle = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .with_context(shown)?;
    rustix::fs::fsync(handle).with_context(shown)
}
