//! The shape of the command line.

use clap::{Args, Parser, Subcommand};
use interleaf_store::url::StoreUrl;

use crate::cmd;

/// Many SQLite processes write one database.
#[derive(Debug, Parser)]
#[command(
    name = "interleaf",
    version,
    max_term_width = 100,
    subcommand_required = true,
    after_help = "Examples:\n  \
        interleaf import app.db                      take a SQLite file into the store\n  \
        interleaf shell app.db                       open it in the sqlite3 program\n  \
        interleaf exec -- python3 app.py             run a program on it, unchanged\n  \
        interleaf export app.db@-15m before.db       the state a quarter of an hour ago, as a file\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The store: dir:/path, unix:/path.sock, tcp://host:7480, fdb:/path/fdb.cluster?prefix=NAME;
    /// without it the store in $XDG_DATA_HOME/interleaf, by a server started on demand
    #[arg(
        long,
        global = true,
        env = "INTERLEAF_STORE",
        value_name = "URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true,
        display_order = 900
    )]
    pub store: StoreUrl,
}

/// `--json`, where a command prints data.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, describe, rename and drop databases
    #[command(subcommand)]
    Db(cmd::db::Command),
    /// Take a SQLite file into the store
    Import(cmd::import::Args),
    /// Write a database, or an earlier version of it, to a SQLite file
    Export(cmd::export::Args),
    /// Show a database's commits, or whether a commit took effect
    Log(cmd::log::Args),
    /// Check every page of a database against its hash, then run SQLite's integrity_check
    Verify(cmd::verify::Args),
    /// Show the store: engine, databases, counters, disk
    Status(cmd::status::Args),
    /// Serve a store to clients, on this machine and others
    Serve(cmd::serve::Args),
    /// Run a program with its SQLite databases in the store
    Exec(cmd::exec::Args),
    /// Open a database in the sqlite3 program
    Shell(cmd::shell::Args),
    /// Measure this store
    Bench(cmd::bench::Args),
    /// Show what Interleaf is for: many processes write one database of real data
    Demo(cmd::demo::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("interleaf "), "{} has no example", sub.get_name());
                check(sub);
            }
        }
        check(&Cli::command());
    }
}
