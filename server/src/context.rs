//! What every command works with: the store, the clock, how long to wait.

use std::fmt::Display;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use interleaf_store::Error;
use interleaf_store::api::Backend;
use interleaf_store::env::{Deadline, Env};
use interleaf_store::types::{BranchId, DatabaseName, Version};
use interleaf_store::url::StoreUrl;
use interleaf_store::when::When;
use interleaf_vfs::config::Config;
use interleaf_wire::ConnectOptions;

use crate::libraries;

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    /// Where the store is.
    pub store: StoreUrl,
    /// Time and randomness.
    pub env: Env,
    /// What the environment says.
    pub config: Config,
}

impl Context {
    /// Reads the environment.
    ///
    /// # Errors
    /// For a variable with a value that it cannot have.
    pub fn new(store: StoreUrl) -> Result<Self, Error> {
        Ok(Self { store, env: Env::system(), config: Config::from_env()? })
    }

    /// The store, direct or through its server.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub fn connect(&self) -> anyhow::Result<Arc<dyn Backend>> {
        let program = libraries::program()?;
        let options = ConnectOptions {
            env: self.env.clone(),
            timeout: self.config.timeout,
            autostart: self.config.autostart,
            // A server started on demand is this very program, unless another one is named.
            server_binary: self.config.bin.clone().or(Some(program)),
            ..ConnectOptions::default()
        };
        Ok(interleaf_wire::connect(&self.store, &options)?)
    }

    /// The store's URL: for the default store that of its directory.
    ///
    /// # Errors
    /// Where the default store has no directory, for want of an environment.
    pub fn store_url(&self) -> Result<String, Error> {
        match &self.store {
            StoreUrl::Default => {
                let directory = interleaf_wire::connect::default_directory()?;
                Ok(StoreUrl::Directory(directory).to_string())
            }
            other => Ok(other.to_string()),
        }
    }

    /// When a request sent now must have been answered.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.env.deadline(self.config.timeout)
    }

    /// The deadline of a request that does much: `factor` times the usual wait.
    #[must_use]
    pub fn long_deadline(&self, factor: u32) -> Deadline {
        self.env.deadline(self.config.timeout.saturating_mul(factor))
    }
}

/// A database, and perhaps a point in its history: `NAME` or `NAME@WHEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The database.
    pub name: DatabaseName,
    /// The point; none is the head.
    pub when: Option<When>,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, when) = When::split_name(text);
        Ok(Self { name: DatabaseName::new(name)?, when })
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.when {
            Some(when) => write!(f, "{}@{when}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl Target {
    /// The URI by which SQLite opens it.
    #[must_use]
    pub fn uri(&self) -> String {
        let mut uri = String::from("file:");
        // Two slashes would begin a host's name.
        let path = match self.name.as_str().strip_prefix("//") {
            Some(rest) => {
                uri.push_str("%2F/");
                rest
            }
            None => self.name.as_str(),
        };
        percent_encode(path, &mut uri);
        uri.push_str("?vfs=interleaf");
        if let Some(when) = &self.when {
            uri.push_str("&at=");
            percent_encode(&when.to_string(), &mut uri);
        }
        uri
    }

    /// The version meant, the head being `head`.
    ///
    /// # Errors
    /// Those of [`Backend::resolve`].
    pub fn version(
        &self,
        backend: &dyn Backend,
        branch: BranchId,
        head: Version,
        deadline: Deadline,
    ) -> Result<Version, Error> {
        match &self.when {
            None => Ok(head),
            Some(when) => backend.resolve(branch, when, deadline),
        }
    }
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

/// Writes to stdout; the error of a closed pipe ends a command quietly.
///
/// # Errors
/// Those of the write.
pub fn out(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).context("stdout")
}

/// Writes a JSON value and a line's end to stdout.
///
/// # Errors
/// Those of the write.
pub fn out_json(value: &serde_json::Value) -> anyhow::Result<()> {
    out(format_args!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_target_is_a_name_with_or_without_a_when() {
        let target: Target = "user@example.com@-2h".parse().unwrap();
        assert_eq!(target.name.as_str(), "user@example.com");
        assert_eq!(target.when, Some(When::Ago(Duration::from_secs(7200))));
        assert_eq!("a@b".parse::<Target>().unwrap().when, None);
        assert!("".parse::<Target>().is_err());
        assert!("@-2h".parse::<Target>().is_err(), "no name");
    }

    #[test]
    fn names_become_uris_that_sqlite_reads_back() {
        let uri_of = |name: &str| name.parse::<Target>().unwrap().uri();
        assert_eq!(uri_of("app.db"), "file:app.db?vfs=interleaf");
        assert_eq!(uri_of("/srv/a b?c#d%.db"), "file:/srv/a%20b%3Fc%23d%25.db?vfs=interleaf");
        assert_eq!(uri_of("//srv/a"), "file:%2F/srv/a?vfs=interleaf");
        assert_eq!(uri_of("zürich"), "file:z%C3%BCrich?vfs=interleaf");
        assert_eq!(uri_of("a&b@-2h"), "file:a%26b?vfs=interleaf&at=-7200s");
    }
}
