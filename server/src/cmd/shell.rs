//! `interleaf shell`: a database in the sqlite3 program.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{anyhow, ensure};
use interleaf_store::Error;
use interleaf_store::api::OpenRequest;
use interleaf_store::types::DatabaseName;
use interleaf_vfs::names::{self, Asked, Names};

use crate::cmd::exec;
use crate::context::{Context, Target};
use crate::libraries;
use crate::nearest::{or_nearest, suggestion};

/// `interleaf shell`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SQL and stdin go to the sqlite3 program as they are; so do its options, behind `--`.\n\n\
        Examples:\n  interleaf shell app.db\n  interleaf shell app.db 'SELECT count(*) FROM orders'\n  \
        interleaf shell app.db@-1h 'SELECT * FROM orders' -- -header -separator ,\n  \
        interleaf shell app.db < schema.sql"
)]
pub struct Args {
    /// NAME, or NAME@WHEN for an earlier state, read-only
    name: Target,
    /// SQL to run instead of a prompt
    sql: Option<OsString>,
    /// Options for the sqlite3 program
    #[arg(last = true, value_name = "SQLITE3-ARGS")]
    rest: Vec<OsString>,
}

/// Becomes the sqlite3 program.
///
/// # Errors
/// Where the extension or the program is not there, or the database cannot be opened.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let library = libraries::extension()?;
    check(context, &args.name)?;
    let mut command = Command::new("sqlite3");
    command.arg("-cmd").arg(load(&library)?);
    command.arg("-cmd").arg(open(&args.name));
    command.args(&args.rest);
    if let Some(sql) = &args.sql {
        // The program takes the first plain word for a file's name.
        command.arg(":memory:").arg(sql);
    }
    exec::environment(&mut command, context)?;
    let error = command.exec();
    Err(match error.kind() {
        ErrorKind::NotFound => {
            anyhow!("the program sqlite3 is not installed; on Debian: apt-get install sqlite3")
        }
        _ => anyhow!("sqlite3: {error}"),
    })
}

/// Opens the database once before the program does. Where its `.open` fails the program goes
/// on with an empty database in memory, and ends with 0 having written into nothing.
///
/// A name that is not there is created, as the program by itself would do, but not silently:
/// it may be a slip. Behind a WHEN with a slip in it no database is created, nor under a
/// relative path.
fn check(context: &Context, target: &Target) -> anyhow::Result<()> {
    let backend = context.connect()?;
    let (name, at) = (&target.name, target.when.clone());
    let mut request = OpenRequest { name: name.clone(), create: false, at };
    let error = match backend.open(&request, context.deadline()) {
        Err(error @ Error::NotFound { .. }) if target.when.is_none() => error,
        opened => return or_nearest(context, backend.as_ref(), name, opened).map(|_| ()),
    };
    let suggestion = suggestion(context, backend.as_ref(), name).unwrap_or_default();
    if let Some((bare, _)) = name.as_str().rsplit_once('@')
        && DatabaseName::new(bare)
            .is_ok_and(|bare| backend.describe(&bare, context.deadline()).is_ok())
    {
        return Err(anyhow!("{error}{suggestion}"));
    }
    if let Some(path) = mistaken_path(context, name)
        && (name.as_str().starts_with("./")
            || name.as_str().starts_with("../")
            || backend.describe(&path, context.deadline()).is_ok())
    {
        return Err(anyhow!("{error}; programs under `interleaf exec` know this path as {path:?}"));
    }
    request.create = true;
    if backend.open(&request, context.deadline())?.created {
        eprintln!("interleaf: database {name:?} did not exist and was created{suggestion}");
    }
    Ok(())
}

/// The name that a program under `exec` gives to a relative path with a slash. In commands a
/// name is taken as it stands.
fn mistaken_path(context: &Context, name: &DatabaseName) -> Option<DatabaseName> {
    let relative = Path::new(name.as_str());
    if relative.is_absolute() || !name.as_str().contains('/') {
        return None;
    }
    let names = Names::new(Asked::ByDefault);
    match names.target(name.as_str().as_bytes(), &context.config.databases) {
        Ok(names::Target::Interleaf { name, at: None, .. }) => Some(name),
        _ => None,
    }
}

/// The dot command that loads the extension. Within double quotes the program understands
/// backslashes as C does.
pub fn load(library: &Path) -> anyhow::Result<String> {
    let path = library.to_str().ok_or_else(|| anyhow!("{}: not UTF-8", library.display()))?;
    ensure!(!path.contains('\n'), "{path:?} has a line break");
    Ok(format!(".load {}", quoted(path)))
}

/// The dot command that opens the database.
#[must_use]
pub fn open(target: &Target) -> String {
    format!(".open {}", quoted(&target.uri()))
}

fn quoted(text: &str) -> String {
    if text.contains([' ', '"', '\'', '\\', '\t']) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_in_the_uri() {
        let target: Target = "/srv/a b.db@-2h".parse().unwrap();
        assert_eq!(open(&target), ".open file:/srv/a%20b.db?vfs=interleaf&at=-7200s");
    }

    #[test]
    fn paths_with_spaces_and_quotes_are_quoted_for_the_program() {
        assert_eq!(load(Path::new("/a/b.so")).unwrap(), ".load /a/b.so");
        assert_eq!(load(Path::new("/a b/\"x\\.so")).unwrap(), ".load \"/a b/\\\"x\\\\.so\"");
        assert!(load(Path::new("/a\nb")).is_err());
    }
}
