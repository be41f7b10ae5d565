//! `interleaf shell`: a database in the sqlite3 program.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{anyhow, ensure};

use crate::cmd::exec;
use crate::context::{Context, Target};
use crate::libraries;

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
/// Where the extension or the program is not there.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let library = libraries::extension()?;
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
    format!(".open {}", quoted(&uri(target)))
}

/// The database's URI.
#[must_use]
pub fn uri(target: &Target) -> String {
    let mut uri = String::from("file:");
    // Two slashes would begin a host's name.
    let path = match target.name.as_str().strip_prefix("//") {
        Some(rest) => {
            uri.push_str("%2F/");
            rest
        }
        None => target.name.as_str(),
    };
    percent_encode(path, &mut uri);
    uri.push_str("?vfs=interleaf");
    if let Some(when) = &target.when {
        uri.push_str("&at=");
        percent_encode(&when.to_string(), &mut uri);
    }
    uri
}

/// Encodes all that means something in a URI.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/+@,=".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
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
    fn names_become_uris_that_sqlite_reads_back() {
        let uri_of = |name: &str| uri(&name.parse().unwrap());
        assert_eq!(uri_of("app.db"), "file:app.db?vfs=interleaf");
        assert_eq!(uri_of("/srv/a b?c#d%.db"), "file:/srv/a%20b%3Fc%23d%25.db?vfs=interleaf");
        assert_eq!(uri_of("//srv/a"), "file:%2F/srv/a?vfs=interleaf");
        assert_eq!(uri_of("zürich"), "file:z%C3%BCrich?vfs=interleaf");
        assert_eq!(uri_of("a&b@-2h"), "file:a%26b?vfs=interleaf&at=-7200s");
    }

    #[test]
    fn paths_with_spaces_and_quotes_are_quoted_for_the_program() {
        assert_eq!(load(Path::new("/a/b.so")).unwrap(), ".load /a/b.so");
        assert_eq!(load(Path::new("/a b/\"x\\.so")).unwrap(), ".load \"/a b/\\\"x\\\\.so\"");
        assert!(load(Path::new("/a\nb")).is_err());
    }
}
