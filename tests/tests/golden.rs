//! Recorded SQL sessions over several connections, run on every kind of store.
//!
//! A session is a file in `tests/golden`. Its lines:
//!
//! | line | meaning |
//! |---|---|
//! | empty, or `-- ...` | comment |
//! | `A> SQL` | runs the statements on connection A, which opens `${main}` when first used |
//! | `A= NAME SQL` | runs one statement with one value and remembers it as `${NAME}` |
//! | `A. open NAME PARAMETERS` | (re)opens connection A on the database NAME |
//! | `A. close` | closes it |
//! | `  ...` | what came out of the line above: rows, or `! CODE MESSAGE` |
//!
//! In SQL `${main}`, `${two}`, `${three}` are the URIs of databases, which attach. A session whose
//! first line is `-- plain SQLite gives the same` is run on SQLite's own files as well.
//! `UPDATE_GOLDEN=1` writes what came out on the first kind of store into the files; the other kinds
//! are compared with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use interleaf_tests::artefacts;
use interleaf_tests::sql;
use interleaf_tests::store::{self, Kind, TestStore, flags};
use libtest_mimic::{Arguments, Failed, Trial};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection};

const ALSO_PLAIN: &str = "-- plain SQLite gives the same";
/// `None` is plain SQLite.
const KINDS: [Option<Kind>; 5] =
    [None, Some(Kind::Mem), Some(Kind::Dir), Some(Kind::Server), Some(Kind::Fdb)];

const DATABASES: [&str; 3] = ["main", "two", "three"];

fn main() {
    let arguments = Arguments::from_args();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut trials = Vec::new();
    for path in sessions() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let kinds: &[Option<Kind>] = match (update, text.starts_with(ALSO_PLAIN)) {
            (true, true) => &[None],
            (true, false) => &KINDS[1..2],
            (false, true) => &KINDS,
            (false, false) => &KINDS[1..],
        };
        for &kind in kinds {
            let kind_name = kind.map_or("plain".into(), |kind| format!("{kind:?}").to_lowercase());
            let (path, text) = (path.clone(), text.clone());
            let trial = Trial::test(format!("{name}::{kind_name}"), move || {
                let out = Session::new(kind).run(&text)?;
                if update {
                    std::fs::write(&path, out)?;
                    return Ok(());
                }
                compare(&text, &out)
            });
            trials.push(trial.with_ignored_flag(kind.is_some_and(|kind| !kind.is_found())));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    store::finish();
    conclusion.exit();
}

fn sessions() -> Vec<PathBuf> {
    let dir = artefacts::repository().join("tests/tests/golden");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "sql"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 12, "{} sessions", paths.len());
    paths
}

/// The first difference, with its line.
fn compare(expected: &str, found: &str) -> Result<(), Failed> {
    if expected == found {
        return Ok(());
    }
    let (mut old, mut new) = (expected.lines(), found.lines());
    for number in 1.. {
        let (was, is) = (old.next(), new.next());
        if was != is {
            let show = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
            return Err(format!(
                "line {number}:\n  recorded: {}\n  came out: {}",
                show(was),
                show(is)
            )
            .into());
        }
    }
    Err("only line ends differ".into())
}

/// Connections and remembered values of one run.
struct Session {
    store: TestStore,
    /// SQLite's own files instead of the store.
    plain: bool,
    connections: BTreeMap<char, Connection>,
    values: BTreeMap<String, String>,
}

impl Session {
    fn new(kind: Option<Kind>) -> Self {
        let store = TestStore::new(kind.unwrap_or(Kind::Mem));
        let mut session = Self {
            store,
            plain: kind.is_none(),
            connections: BTreeMap::new(),
            values: BTreeMap::new(),
        };
        for name in DATABASES {
            let uri = session.uri(name);
            session.values.insert(name.into(), uri);
        }
        session
    }

    fn uri(&self, name: &str) -> String {
        if self.plain {
            format!("file:{}", Path::join(self.store.scratch(), name).display())
        } else {
            self.store.uri(name)
        }
    }

    /// The session again, with what came out of each line.
    fn run(&mut self, text: &str) -> Result<String, Failed> {
        let mut out = String::new();
        for line in text.lines().filter(|line| !line.starts_with("  ")) {
            writeln!(out, "{line}")?;
            if line.is_empty() || line.starts_with("--") {
                continue;
            }
            let (connection, verb, rest) = split(line)?;
            let rest = self.with_values(rest);
            match verb {
                '>' => {
                    for result in statements(self.connection(connection)?, &rest) {
                        writeln!(out, "  {}", self.without_values(&result))?;
                    }
                }
                '=' => {
                    let (name, sql) = rest.split_once(' ').ok_or("a name and SQL")?;
                    let value = sql::one::<String>(self.connection(connection)?, sql);
                    self.values.insert(name.to_owned(), value);
                }
                '.' => self.command(connection, &rest)?,
                _ => return Err(format!("no such line: {line}").into()),
            }
        }
        Ok(out)
    }

    fn connection(&mut self, name: char) -> Result<&Connection, Failed> {
        if !self.connections.contains_key(&name) {
            self.open(name, "main", "")?;
        }
        Ok(&self.connections[&name])
    }

    fn open(&mut self, name: char, database: &str, parameters: &str) -> Result<(), Failed> {
        let uri = format!("{}{parameters}", self.uri(database));
        self.connections.insert(name, Connection::open_with_flags(uri, flags())?);
        Ok(())
    }

    fn command(&mut self, name: char, command: &str) -> Result<(), Failed> {
        match command.split(' ').collect::<Vec<_>>().as_slice() {
            ["close"] => drop(self.connections.remove(&name)),
            ["open", database] => self.open(name, database, "")?,
            ["open", database, parameters] => self.open(name, database, parameters)?,
            _ => return Err(format!("no such command: {command}").into()),
        }
        Ok(())
    }

    fn with_values(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value)
        })
    }

    fn without_values(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(value, &format!("${{{name}}}"))
        })
    }
}

/// `A> rest` in its parts.
fn split(line: &str) -> Result<(char, char, &str), Failed> {
    let mut chars = line.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some(name), Some(verb), Some(' ')) if name.is_ascii_uppercase() => {
            Ok((name, verb, chars.as_str()))
        }
        _ => Err(format!("no such line: {line}").into()),
    }
}

/// The rows of all statements, and the error at which they end.
fn statements(db: &Connection, sql: &str) -> Vec<String> {
    let mut out = Vec::new();
    if let Err(error) = all_rows(db, sql, &mut out) {
        let message = match &error {
            rusqlite::Error::SqliteFailure(code, message) => {
                message.clone().unwrap_or_else(|| code.to_string())
            }
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        out.push(format!("! {} {message}", sql::code(&error)));
    }
    out
}

fn all_rows(db: &Connection, sql: &str, out: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut batch = Batch::new(db, sql);
    while let Some(mut statement) = batch.next()? {
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            // Known only now: the first step may have compiled the statement again.
            let columns = row.as_ref().column_count();
            if columns == 0 {
                continue; // `PRAGMA incremental_vacuum` gives rows of nothing.
            }
            let values: Vec<String> = (0..columns)
                .map(|column| row.get_ref(column).map(show))
                .collect::<Result<_, _>>()?;
            out.push(values.join("|"));
        }
    }
    Ok(())
}

fn show(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => String::from_utf8_lossy(text).replace('\n', "\\n"),
        ValueRef::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{hex}'")
        }
    }
}
