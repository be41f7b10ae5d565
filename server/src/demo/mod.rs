//! The demo: eight processes write one database of real data while a ninth audits it, one of
//! them and the server are killed, the same work runs on a plain SQLite file, and history is
//! looked at. Each step is a shell line, shown and run as shown.

mod desks;
mod report;
mod server;
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use interleaf_store::when::format_time;

use crate::context::{Context, out};
use crate::human;
use crate::table::{Align, Table};
use desks::{Crew, On};
use report::{Counts, Run, Served};
use server::Server;
use stage::Stage;

/// Runs the demo in a directory.
///
/// # Errors
/// Where something is missing or fails.
pub fn run(context: &Context, dir: &Path, keep: bool, seconds: u32) -> anyhow::Result<ExitCode> {
    let started = context.env.clock.now();
    let stage = Stage::set_up(context, dir, keep)?;
    stage.introduce()?;
    let mut server = Server::start(&stage)?;
    if stage.is_new() {
        load(&stage)?;
    }
    let before = stage.capture("interleaf shell flights 'PRAGMA interleaf_version'")?;
    let loaded = report::totals(&stage, &before)?;

    stage
        .heading("Eight processes write, a ninth audits, one of them and the server are killed")?;
    let (between, interleaf, served) = write_through_kills(&stage, &mut server, seconds)?;

    stage.heading("The same eight on a plain SQLite file (WAL), for comparison")?;
    let plain = write_plain(&stage, &before, seconds)?;

    report::throughput(&stage, &interleaf, served, &plain)?;
    stage.heading("History: before the desks wrote, in their middle, now")?;
    let mut sound = report::history(&stage, &loaded, &before, &between)?;

    stage.heading("Checks")?;
    sound &= stage.run("interleaf verify flights")?;
    sound &= report::acknowledged(&stage, &interleaf)?;
    stage.run("interleaf log flights --limit 5")?;
    server.stop()?;
    let elapsed = context.env.clock.now().saturating_duration_since(started);
    farewell(&stage, &before, &between, elapsed)?;
    if !sound {
        eprintln!("interleaf: the demo found something that does not add up; see above");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn load(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.heading("Real data, by the sqlite3 program and the extension")?;
    let started = stage.now();
    stage.require("interleaf shell flights < scripts/load.sql")?;
    let elapsed = stage.now().saturating_duration_since(started);
    stage.require(
        "interleaf shell flights \"SELECT 'flights', count(*) FROM flights \
         UNION ALL SELECT 'weather', count(*) FROM weather \
         UNION ALL SELECT 'planes', count(*) FROM planes \
         UNION ALL SELECT 'airports', count(*) FROM airports \
         UNION ALL SELECT 'airlines', count(*) FROM airlines\" -- -box",
    )?;
    let rows = stage.quiet("interleaf shell flights 'SELECT count(*) FROM flights'")?;
    ensure!(rows == "336776", "the table flights has {rows} rows instead of 336776");
    out(format_args!("loaded in {:.1} s\n", elapsed.as_secs_f64()))
}

/// The desks on Interleaf. Gives a time in the middle, and what was done.
fn write_through_kills(
    stage: &Stage<'_>,
    server: &mut Server,
    seconds: u32,
) -> anyhow::Result<(String, Run, Served)> {
    let counted = report::transactions(stage, On::Interleaf)?;
    let begun = Served::read(stage)?;
    let start = stage.now();
    let third = Duration::from_secs(u64::from(seconds)) / 3;
    let mut crew = Crew::start(stage, On::Interleaf, seconds)?;
    stage.sleep_until(start + third);
    crew.kill_and_restart(stage, seconds - seconds / 3)?;
    let between = format_time(stage.context().env.clock.unix_micros());
    stage.sleep_until(start + third * 2);
    let killed = Served::read(stage)?;
    let outage = server.kill_and_restart(stage)?;
    let run = finish(stage, crew, start, &counted)?;
    out(format_args!("the server was away for {} ms\n", human::grouped(outage.as_millis())))?;
    let served = Served::over_restart(begun, killed, Served::read(stage)?);
    Ok((between, run, served))
}

fn write_plain(stage: &Stage<'_>, before: &str, seconds: u32) -> anyhow::Result<Run> {
    stage.require(&format!("interleaf export flights@{before} plain.db --force"))?;
    stage.require("sqlite3 plain.db 'PRAGMA journal_mode=WAL'")?;
    let counted = report::transactions(stage, On::Plain)?;
    let start = stage.now();
    let crew = Crew::start(stage, On::Plain, seconds)?;
    finish(stage, crew, start, &counted)
}

fn finish(stage: &Stage<'_>, crew: Crew, start: Instant, counted: &Counts) -> anyhow::Result<Run> {
    let on = crew.on();
    let transcripts = crew.wait(stage)?;
    let elapsed = stage.now().saturating_duration_since(start);
    Run::read(stage, on, elapsed, counted, &transcripts)
}

fn farewell(
    stage: &Stage<'_>,
    before: &str,
    between: &str,
    elapsed: Duration,
) -> anyhow::Result<()> {
    stage.heading("The store stays there to play with")?;
    let python = stage.python();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (line, what) in [
        ("interleaf shell flights".to_owned(), "look around; each COMMIT is a version"),
        (format!("interleaf shell flights@{before}"), "before the desks wrote, read-only"),
        (format!("interleaf export flights@{between} then.db"), "their middle, as a file"),
        (format!("interleaf exec -- {python}"), "import sqlite3; sqlite3.connect('flights')"),
        ("interleaf serve &".to_owned(), "then use it from many processes at once"),
        ("less scripts/desk.py scripts/load.sql".to_owned(), "what ran here"),
    ] {
        table.row([line, format!("# {what}")]);
    }
    out(format_args!(
        "{}{table}\nThe demo took {:.0} s.\n",
        stage.environment_line(),
        elapsed.as_secs_f64(),
    ))
}
