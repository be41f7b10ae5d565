//! A process that updates rows of leaves of its own for some seconds.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::peer::{self, Sync};

/// What a worker is told.
#[derive(clap::Args)]
pub struct Args {
    /// The database.
    #[arg(long)]
    uri: String,
    /// First row that is its own.
    #[arg(long)]
    first: u32,
    /// How many rows are.
    #[arg(long)]
    rows: u32,
    /// For how long.
    #[arg(long)]
    seconds: f64,
}

/// Opens the database, says "ready", waits for a line, works, prints commits and retries.
pub fn run(args: &Args) -> Result<()> {
    let db = peer::open(&args.uri, Sync::Full)?;
    let mut update = db.prepare("UPDATE t SET n = n + 1 WHERE id = ?1")?;
    peer::retry(|| update.execute((args.first,)))?;
    println!("ready");
    std::io::stdout().flush()?;
    let mut go = [0u8; 1];
    std::io::stdin().read_exact(&mut go)?;
    let start = Instant::now();
    let limit = Duration::from_secs_f64(args.seconds);
    let (mut commits, mut retries) = (0u64, 0u64);
    while start.elapsed() < limit {
        let row = args.first + u32::try_from(commits * 7 % u64::from(args.rows))?;
        retries += peer::retry(|| update.execute((row,)))?;
        commits += 1;
    }
    println!("{commits} {retries}");
    Ok(())
}
