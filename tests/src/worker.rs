//! The process that tests start to do SQL outside their own: `interleaf-test-worker`.
//!
//! `sql URI STATEMENT...` runs statements on one connection and prints one [`Answer`] a
//! line; the other commands are described where they are implemented, in
//! `src/bin/interleaf-test-worker.rs`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::artefacts;
use crate::process::{self, Guard, LIMIT};
use crate::transfers::Plan;

/// What one statement came to, or the opening.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Its rows.
    Rows(Vec<Vec<Value>>),
    /// SQLite's extended code and message.
    Error(i64, String),
}

impl Answer {
    /// As printed by the worker.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Rows(rows) => json!({ "rows": rows }),
            Self::Error(code, message) => json!({ "code": code, "message": message }),
        }
    }

    fn from_json(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        match value["rows"].as_array() {
            Some(rows) => {
                Self::Rows(rows.iter().map(|row| row.as_array().unwrap().clone()).collect())
            }
            None => Self::Error(
                value["code"].as_i64().unwrap(),
                value["message"].as_str().unwrap().to_owned(),
            ),
        }
    }

    /// The primary result code; 0 for rows.
    #[must_use]
    pub const fn primary_code(&self) -> i64 {
        match self {
            Self::Rows(_) => 0,
            Self::Error(code, _) => *code & 0xff,
        }
    }

    /// The only value of the only row.
    ///
    /// # Panics
    /// Where it is anything else.
    #[must_use]
    pub fn value(&self) -> &Value {
        match self {
            Self::Rows(rows) if rows.len() == 1 && rows[0].len() == 1 => &rows[0][0],
            other => panic!("{other:?} is not one value"),
        }
    }
}

/// What a worker's `sql` came to.
#[derive(Debug)]
pub struct Report {
    /// One an executed statement; a failed opening is the only one.
    pub answers: Vec<Answer>,
    /// What the libraries wrote to standard error.
    pub stderr: String,
}

impl Report {
    /// The last answer.
    #[must_use]
    pub fn last(&self) -> &Answer {
        self.answers.last().unwrap_or_else(|| panic!("no answer; stderr: {}", self.stderr))
    }

    /// Checks that the last answer is an error of this primary code, and that the reason
    /// given names each of `words`.
    ///
    /// # Panics
    /// Where it is not.
    pub fn assert_refused(&self, code: i64, words: &[&str]) {
        let last = self.last();
        assert_eq!(last.primary_code(), code, "{last:?}; stderr: {}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not named in: {}", self.stderr);
        }
    }
}

/// A worker, to be given a command and its arguments.
#[must_use]
pub fn command() -> Command {
    command_at(&[])
}

/// As [`command`], behind the words that make it run elsewhere.
#[must_use]
pub fn command_at(enter: &[OsString]) -> Command {
    let mut command = process::entering(enter, artefacts::artefact("interleaf-test-worker"));
    command.env_remove("INTERLEAF_STORE").env("INTERLEAF_LOG", "warn");
    command
}

/// How a worker reaches a store.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The store's URL.
    pub url: String,
    /// The words before its command that make it run elsewhere.
    pub enter: Vec<OsString>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

impl Client {
    /// The URI of a database.
    #[must_use]
    pub fn uri(&self, name: &str) -> String {
        format!("file:{name}?vfs=interleaf&store={}", self.url)
    }

    /// Starts a worker that makes transfers as `plan` says.
    #[must_use]
    pub fn transfer(&self, plan: &Plan<'_>) -> Guard {
        let millis = plan.duration.as_millis().to_string();
        Guard::spawn(
            command_at(&self.enter)
                .args(["transfer", plan.uri])
                .args([plan.worker.to_string(), plan.incarnation.to_string()])
                .args([plan.seed.to_string(), millis])
                .arg(plan.log)
                .env("INTERLEAF_LOG", "off")
                .envs(self.env.iter().cloned()),
        )
    }
}

/// Runs statements on one connection in a process of its own.
#[must_use]
pub fn sql(uri: &str, statements: &[&str]) -> Report {
    sql_with(uri, &[], statements)
}

/// As [`sql`], with environment variables.
///
/// # Panics
/// Where the worker does not end by itself.
#[must_use]
pub fn sql_with(uri: &str, env: &[(&str, &str)], statements: &[&str]) -> Report {
    let output =
        process::run(command().arg("sql").arg(uri).args(statements).envs(env.iter().copied()));
    let (stdout, stderr) = process::text(&output);
    assert!(output.status.success(), "worker: {}: {stderr}", output.status);
    Report { answers: stdout.lines().map(Answer::from_json).collect(), stderr }
}

/// A worker with one connection that is given statement after statement.
#[derive(Debug)]
pub struct Talk {
    guard: Guard,
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Talk {
    /// Opens the database of this URI, at the place to which the words lead.
    ///
    /// # Panics
    /// Where the worker cannot be started.
    #[must_use]
    pub fn open(enter: &[OsString], uri: &str) -> Self {
        let mut command = command_at(enter);
        let mut guard =
            Guard::spawn(command.arg("talk").arg(uri).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = guard.child().stdin.take();
        let answers = BufReader::new(guard.child().stdout.take().unwrap());
        Self { guard, input, answers }
    }

    /// What one statement, of one line, comes to.
    ///
    /// # Panics
    /// Where the worker has ended.
    pub fn ask(&mut self, statement: &str) -> Answer {
        assert!(!statement.contains('\n'), "one line: {statement}");
        writeln!(self.input.as_mut().unwrap(), "{statement}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "no answer to {statement}: {:?}", self.guard.ended());
        Answer::from_json(&line)
    }

    /// Ends the worker.
    ///
    /// # Panics
    /// Where it does not end by itself.
    pub fn end(mut self) {
        drop(self.input.take());
        let status = self.guard.wait(LIMIT);
        assert!(status.success(), "worker: {status}");
    }
}
