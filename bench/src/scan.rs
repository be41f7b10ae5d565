//! A process that reads a whole database once, with nothing of it in its caches.

use std::time::Instant;

use anyhow::Result;

use crate::peer::{self, Sync};

/// What it is told.
#[derive(clap::Args)]
pub struct Args {
    /// The database.
    #[arg(long)]
    uri: String,
}

/// Reads every page of the table `b`, and prints the seconds and the bytes of the database.
pub fn run(args: &Args) -> Result<()> {
    let db = peer::open(&args.uri, Sync::Full)?;
    let start = Instant::now();
    db.query_row("SELECT sum(length(x)) FROM b", (), |row| row.get::<_, i64>(0))?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes: i64 = db.query_row(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        (),
        |row| row.get(0),
    )?;
    println!("{seconds} {bytes}");
    Ok(())
}
