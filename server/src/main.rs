//! The command `interleaf`.

mod cli;
mod cmd;
mod connection;
mod context;
mod demo;
mod human;
mod libraries;
mod logging;
mod nearest;
mod progress;
mod serve;
mod snapshot;
mod source;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use interleaf_store::Error;

/// What was asked for could not be done.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cmd::run(cli) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&one_line(&format!("{error:#}")));
            ExitCode::from(code_of(&error))
        }
    }
}

/// Help and version go to stdout and are no error; where a command is missing its help goes to
/// stderr; anything else becomes one line.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    if let Some(help) = missing_command(error) {
        drop(write!(io::stderr(), "{help}"));
        return ExitCode::from(USAGE);
    }
    let first = text.split("\n\n").next().unwrap_or(&text);
    let message = one_line(first.trim_start_matches("error: "));
    complain(&format!("{message} (see --help)"));
    ExitCode::from(USAGE)
}

/// One line on stderr. Where that does not take it (a log on a full disk) the exit code must
/// do; `eprintln` would panic.
fn complain(message: &str) {
    drop(writeln!(io::stderr(), "interleaf: {message}"));
}

/// The help of a command that was given without its subcommand.
fn missing_command(error: &clap::Error) -> Option<String> {
    let given = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        // With nothing set at all clap has the help ready.
        (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => {
            return Some(error.render().to_string());
        }
        (ErrorKind::MissingSubcommand, Some(ContextValue::String(given))) => given,
        _ => return None,
    };
    let mut command = cli::Cli::command();
    command.build();
    let last = given.rsplit(' ').next().unwrap_or_default();
    let sub = command.find_subcommand(last).cloned();
    Some(sub.unwrap_or(command).render_help().to_string())
}

/// Bad names, times, URLs and settings are the caller's mistake; the rest is a failure.
fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(
            Error::InvalidName { .. }
            | Error::InvalidWhen { .. }
            | Error::InvalidVersion { .. }
            | Error::InvalidId { .. }
            | Error::InvalidUrl { .. }
            | Error::InvalidSetting { .. },
        ) => USAGE,
        _ if error.is::<cmd::Usage>() => USAGE,
        _ => FAILED,
    }
}

/// The reader of our output went away (`interleaf log app | head -1`): it has what it wanted.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
