//! `interleaf exec`: a program, unchanged, on databases in the store.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::anyhow;

use crate::context::Context;
use crate::libraries;

/// `interleaf exec`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The program must use the system's libsqlite3.so, as Debian's sqlite3, Python, PHP, Ruby\n\
        and Perl do; one with a SQLite of its own (Node, most Go and Rust programs) needs the\n\
        loadable extension instead. A database is named as the program names it: `app.db` as\n\
        it stands, a name with a slash as its absolute path. INTERLEAF_DATABASES says which\n\
        names are Interleaf's; the others are plain files as ever.\n\n\
        Examples:\n  interleaf exec -- sqlite3 app.db 'SELECT count(*) FROM orders'\n  \
        INTERLEAF_DATABASES='*.sqlite3' interleaf exec -- python3 manage.py migrate"
)]
pub struct Args {
    /// The program and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Becomes the program.
///
/// # Errors
/// Where the library or the program is not there.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let mut words = args.command.iter();
    let program = words.next().ok_or_else(|| anyhow!("a command is missing behind --"))?;
    let mut command = Command::new(program);
    command.args(words);
    preload(&mut command, context)?;
    let error = command.exec();
    Err(anyhow!("{}: {error}", program.to_string_lossy()))
}

/// Sets what makes a program use this store through the preload library.
///
/// # Errors
/// Where the library is not there.
pub fn preload(command: &mut Command, context: &Context) -> anyhow::Result<()> {
    let library = libraries::preload()?;
    let mut value = library.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        value.push(OsStr::new(":"));
        value.push(others);
    }
    command.env("LD_PRELOAD", value);
    environment(command, context)
}

/// Sets what every process that uses the store is given.
///
/// # Errors
/// Where a relative path cannot be made absolute.
pub fn environment(command: &mut Command, context: &Context) -> anyhow::Result<()> {
    if let Some(store) = libraries::store_variable(&libraries::absolute_store(&context.store)?) {
        command.env("INTERLEAF_STORE", store);
    }
    if context.config.bin.is_none() {
        command.env("INTERLEAF_BIN", libraries::program()?);
    }
    Ok(())
}
