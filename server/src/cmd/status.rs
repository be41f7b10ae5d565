//! `interleaf status`: the store and whoever serves it.

use std::process::ExitCode;

use interleaf_store::api::{RecordCounts, StoreInfo, StoreStatus};
use interleaf_store::url::StoreUrl;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::cmd::db;
use crate::context::{Context, out, out_json};
use crate::human;
use crate::table::{Align, Table};

/// Counting all records of a store may take so many times the usual wait.
const COUNT_FACTOR: u32 = 60;

/// `interleaf status`
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "Examples:\n  interleaf status\n  \
    interleaf status --store tcp://db.example:7480 --json")]
pub struct Args {
    /// Count every record of the store as well: slow
    #[arg(long)]
    records: bool,
    /// The form of the output.
    #[command(flatten)]
    output: Output,
}

/// Runs `interleaf status`.
///
/// # Errors
/// Those of the store.
pub fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let backend = context.connect()?;
    let info = backend.info(context.deadline())?;
    let status = backend.status(context.deadline())?;
    let databases = backend.list(context.deadline())?;
    let records = if args.records {
        Some(backend.count_records(context.long_deadline(COUNT_FACTOR))?)
    } else {
        None
    };
    if args.output.json {
        out_json(&json!({
            "url": context.store_url()?,
            "default": context.store == StoreUrl::Default,
            "store": info.store.to_string(),
            "incarnation": info.incarnation.to_string(),
            "engine": info.engine,
            "software": info.software,
            "numbers": status.numbers,
            "texts": status.texts,
            "databases": databases.iter().map(db::to_json).collect::<Vec<Value>>(),
            "records": records.as_ref().map(records_json),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    out(summary(context, &info, &status)?)?;
    out(format_args!("\n{}", db::table(&databases)))?;
    if let Some(records) = records {
        out(format_args!("\n{}", records_table(&records)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(
    context: &Context,
    info: &StoreInfo,
    status: &StoreStatus,
) -> Result<Table, interleaf_store::Error> {
    let mut url = context.store_url()?;
    if context.store == StoreUrl::Default {
        url.push_str(" (the default store)");
    }
    let mut table = Table::new(&[("STORE", Align::Left), (&url, Align::Left)]);
    table.row(["id", &info.store.to_string()]);
    table.row(["incarnation", &info.incarnation.to_string()]);
    table.row(["engine", &info.engine]);
    table.row(["software", &info.software]);
    // The store's status repeats what the lines above say.
    let known = ["store", "incarnation", "engine", "software"];
    for (name, text) in status.texts.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        table.row([name, text]);
    }
    for (name, number) in &status.numbers {
        let shown = if name.ends_with("_bytes") || name == "bytes" {
            human::bytes(*number)
        } else {
            human::grouped(*number)
        };
        table.row([name.as_str(), &shown]);
    }
    Ok(table)
}

fn records_json(records: &RecordCounts) -> Value {
    let subspaces = records.subspaces.iter();
    Value::Object(
        subspaces
            .map(|(name, (count, bytes))| {
                (name.clone(), json!({ "records": count, "bytes": bytes }))
            })
            .collect(),
    )
}

fn records_table(records: &RecordCounts) -> Table {
    let mut table = Table::new(&[
        ("SUBSPACE", Align::Left),
        ("RECORDS", Align::Right),
        ("BYTES", Align::Right),
    ]);
    for (name, (count, bytes)) in &records.subspaces {
        table.row([name.clone(), human::grouped(*count), human::grouped(*bytes)]);
    }
    table
}
