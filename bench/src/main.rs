//! Measures Interleaf against plain SQLite, always both in the same run and in turns, and
//! prints the medians of the ratios of the rounds.
//!
//! Timings are never asserted by a test: they are printed here, beside the bound that the
//! project means to keep.

mod cases;
#[cfg(feature = "fdb")]
mod fdb;
mod peer;
mod report;
mod sample;
mod scan;
mod server;
mod worker;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::report::Report;

/// Interleaf against plain SQLite, in the same run.
#[derive(Parser)]
#[command(after_help = "Example: interleaf-bench --rounds 3 --only point-select")]
struct Args {
    /// Rounds of each case; the median of their ratios is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that each side of a timed round takes.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Run only the cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Size of the database for import, export and server memory, in MiB.
    #[arg(long, default_value_t = 1024)]
    big_mib: u64,
    /// Folder for the databases: use the kind of disk that you mean to use.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure on FoundationDB instead, against its own floor: on a cluster of one process
    /// started for it, or on the one of --cluster.
    #[cfg(feature = "fdb")]
    #[arg(long)]
    fdb: bool,
    /// The cluster file of the FoundationDB cluster to measure on; what is written there stays.
    #[cfg(feature = "fdb")]
    #[arg(long, requires = "fdb")]
    cluster: Option<PathBuf>,
    /// Write the figures to this file as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// One of several writing processes, started by the benchmark itself.
    #[command(hide = true)]
    Worker(worker::Args),
    /// A process that reads a whole database, started by the benchmark itself.
    #[command(hide = true)]
    Scan(scan::Args),
}

/// What every case is given.
struct Context {
    rounds: usize,
    seconds: f64,
    big_bytes: u64,
    dir: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    peer::register()?;
    match &args.role {
        Some(Role::Worker(worker)) => return worker::run(worker),
        Some(Role::Scan(scan)) => return scan::run(scan),
        None => {}
    }
    let scratch = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut context = Context {
        rounds: args.rounds.max(1),
        seconds: args.seconds,
        big_bytes: args.big_mib << 20,
        dir: PathBuf::new(),
    };
    let mut report = Report::new();
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    #[cfg(feature = "fdb")]
    if args.fdb {
        fdb::run(&context, args.cluster.as_deref(), &wanted, &mut report)?;
        return finish(&report, args.json.as_deref());
    }
    for (name, case) in cases::ALL {
        if wanted(name) {
            eprintln!("{name} ...");
            context.dir = scratch.path().join(name);
            std::fs::create_dir(&context.dir)?;
            case(&context, &mut report)?;
            // The next case is not to wait for what the disk still has to do for this one.
            std::fs::remove_dir_all(&context.dir)?;
            rustix::fs::sync();
        }
    }
    finish(&report, args.json.as_deref())
}

fn finish(report: &Report, json: Option<&Path>) -> Result<()> {
    print!("{}", report.table());
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&report.json())?)?;
    }
    Ok(())
}
