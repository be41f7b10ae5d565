//! `interleaf db`: the catalog.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use interleaf_store::api::{CreateState, DatabaseInfo};
use interleaf_store::types::DatabaseName;
use interleaf_store::when::format_time;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::cmd::Usage;
use crate::context::{Context, out, out_json};
use crate::human;
use crate::nearest::{describe, or_nearest};
use crate::table::{Align, Table};

/// `interleaf db ...`
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  interleaf db list --json")]
pub enum Command {
    /// Create an empty database (the first open does so as well)
    #[command(after_help = "Example:\n  interleaf db create app.db")]
    Create {
        /// Its name: 1 to 255 bytes of UTF-8
        name: DatabaseName,
        /// The form of the output.
        #[command(flatten)]
        output: Output,
    },
    /// List the databases
    #[command(after_help = "Example:\n  interleaf db list")]
    List {
        /// The form of the output.
        #[command(flatten)]
        output: Output,
    },
    /// Show one database
    #[command(after_help = "Example:\n  interleaf db info app.db")]
    Info {
        /// Its name
        name: DatabaseName,
        /// The form of the output.
        #[command(flatten)]
        output: Output,
    },
    /// Give a database another name; open connections stay on it
    #[command(after_help = "Example:\n  interleaf db rename app.db old.db")]
    Rename {
        /// Its name
        from: DatabaseName,
        /// The new one
        to: DatabaseName,
        /// The form of the output.
        #[command(flatten)]
        output: Output,
    },
    /// Remove a database
    Drop(Drop),
}

/// `interleaf db drop`
#[derive(Debug, Args)]
#[command(after_help = "On a terminal it asks first; elsewhere --yes is needed.\n\n\
                  Example:\n  interleaf db drop old.db --yes")]
pub struct Drop {
    /// Its name
    name: DatabaseName,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// The form of the output.
    #[command(flatten)]
    output: Output,
}

/// Runs `interleaf db ...`.
///
/// # Errors
/// Those of the store.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create { name, output } => create(context, &name, output)?,
        Command::List { output } => list(context, output)?,
        Command::Info { name, output } => info(context, &name, output)?,
        Command::Rename { from, to, output } => rename(context, &from, &to, output)?,
        Command::Drop(args) => return drop_database(context, &args),
    }
    Ok(ExitCode::SUCCESS)
}

fn create(context: &Context, name: &DatabaseName, output: Output) -> anyhow::Result<()> {
    let created = context.connect()?.create(name, CreateState::Ready, context.deadline())?;
    if output.json {
        return out_json(&json!({
            "created": name.as_str(),
            "database": created.database.to_string(),
            "branch": created.branch.to_string(),
            "domain": created.domain.to_string(),
        }));
    }
    out(format_args!("created {name}\n"))
}

fn list(context: &Context, output: Output) -> anyhow::Result<()> {
    let databases = context.connect()?.list(context.deadline())?;
    if output.json {
        return out_json(&Value::Array(databases.iter().map(to_json).collect()));
    }
    out(table(&databases))
}

/// The databases as a table.
pub fn table(databases: &[DatabaseInfo]) -> Table {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("PAGES", Align::Right),
        ("SIZE", Align::Right),
        ("VERSION", Align::Left),
        ("CREATED", Align::Left),
        ("STATE", Align::Left),
    ]);
    for info in databases {
        table.row([
            info.name.to_string(),
            info.allocation.pages.to_string(),
            human::bytes(size_of(info)),
            info.head.to_string(),
            format_time(info.created_micros),
            state_of(info).to_owned(),
        ]);
    }
    table
}

fn info(context: &Context, name: &DatabaseName, output: Output) -> anyhow::Result<()> {
    let backend = context.connect()?;
    let info = describe(context, backend.as_ref(), name)?;
    if output.json {
        return out_json(&to_json(&info));
    }
    let allocation = info.allocation;
    out(format_args!(
        "name        {}\n\
         state       {}\n\
         version     {}\n\
         pages       {} of {} bytes, {} of them free\n\
         size        {}\n\
         created     {}\n\
         database    {}\n\
         branch      {}\n\
         domain      {}\n",
        info.name,
        state_of(&info),
        info.head,
        allocation.pages,
        allocation.page_size,
        allocation.freelist_pages,
        human::bytes(size_of(&info)),
        format_time(info.created_micros),
        info.database,
        info.branch,
        info.domain,
    ))
}

fn rename(
    context: &Context,
    from: &DatabaseName,
    to: &DatabaseName,
    output: Output,
) -> anyhow::Result<()> {
    let backend = context.connect()?;
    let renamed = backend.rename(from, to, context.deadline());
    or_nearest(context, backend.as_ref(), from, renamed)?;
    if output.json {
        return out_json(&json!({ "renamed": from.as_str(), "to": to.as_str() }));
    }
    out(format_args!("renamed {from} to {to}\n"))
}

fn drop_database(context: &Context, args: &Drop) -> anyhow::Result<ExitCode> {
    let backend = context.connect()?;
    let info = describe(context, backend.as_ref(), &args.name)?;
    if !args.yes {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            let name = &args.name;
            let what = format!("dropping {name:?} needs --yes where nobody can be asked");
            return Err(Usage(what).into());
        }
        let size = human::bytes(size_of(&info));
        eprint!("drop {} ({size}) with its whole history? [y/N] ", args.name);
        std::io::stderr().flush().context("stderr")?;
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).context("stdin")?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            eprintln!("nothing was dropped");
            return Ok(ExitCode::FAILURE);
        }
    }
    backend.drop_database(&args.name, context.deadline())?;
    if args.output.json {
        out_json(&json!({ "dropped": args.name.as_str() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    out(format_args!("dropped {}\n", args.name))?;
    Ok(ExitCode::SUCCESS)
}

/// A database as JSON.
pub fn to_json(info: &DatabaseInfo) -> Value {
    json!({
        "name": info.name.as_str(),
        "state": state_of(info),
        "version": info.head.to_string(),
        "pages": info.allocation.pages.0,
        "page_size": info.allocation.page_size.get(),
        "free_pages": info.allocation.freelist_pages,
        "bytes": size_of(info),
        "created": format_time(info.created_micros),
        "database": info.database.to_string(),
        "branch": info.branch.to_string(),
        "domain": info.domain.to_string(),
    })
}

fn size_of(info: &DatabaseInfo) -> u64 {
    u64::from(info.allocation.pages.0) * u64::from(info.allocation.page_size.get())
}

fn state_of(info: &DatabaseInfo) -> &'static str {
    if info.importing { "importing" } else { "ready" }
}
