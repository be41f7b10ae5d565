//! The process that tests start to do SQL outside their own: `interleaf-test-worker`.
//!
//! `sql URI STATEMENT...` runs statements on one connection and prints one [`Answer`] a
//! line; the other commands are described where they are implemented, in
//! `src/bin/interleaf-test-worker.rs`.

use std::process::Command;

use serde_json::{Value, json};

use crate::{artefacts, process};

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
    let mut command = Command::new(artefacts::artefact("interleaf-test-worker"));
    command.env_remove("INTERLEAF_STORE").env("INTERLEAF_LOG", "warn");
    command
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
