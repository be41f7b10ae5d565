//! The commands, one a file.

pub mod bench;
pub mod db;
pub mod demo;
pub mod exec;
pub mod export;
pub mod import;
pub mod log;
pub mod serve;
pub mod shell;
pub mod status;
pub mod verify;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::logging;

/// The command line is right in form, but what it says cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Runs a command.
///
/// # Errors
/// What `main` prints as one line.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new(cli.global.store)?;
    logging::init(context.config.log);
    match cli.command {
        Command::Db(command) => db::run(&context, command),
        Command::Import(args) => import::run(&context, &args),
        Command::Export(args) => export::run(&context, &args),
        Command::Log(args) => log::run(&context, &args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Status(args) => status::run(&context, args),
        Command::Serve(args) => serve::run(&context, args),
        Command::Exec(args) => exec::run(&context, &args),
        Command::Shell(args) => shell::run(&context, &args),
        Command::Bench(args) => bench::run(&context, &args),
        Command::Demo(args) => demo::run(&context, &args),
    }
}
