//! Everything that this library takes from environment variables, in one place.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `INTERLEAF_STORE` | the store's URL | the default store |
//! | `INTERLEAF_TIMEOUT_MS` | how long a store may take to answer, in ms | 10000 |
//! | `INTERLEAF_LOG` | `off`, `error`, `warn`, `info` or `debug`: what is told on stderr | `warn` |
//! | `INTERLEAF_DEFAULT_VFS` | `1`: the extension's VFS becomes the process's default | `0` |
//! | `INTERLEAF_DATABASES` | which names are Interleaf's ([`crate::names`]) | `*` |
//! | `INTERLEAF_AUTOSTART` | `0`: never start a server on demand | `1` |
//! | `INTERLEAF_BIN` | the program `interleaf` to start | beside the library, then on PATH |
//! | `INTERLEAF_CACHE_BYTES` | size of the page cache that all connections of the process share | 100663296 |
//!
//! A variable that is set to the empty text counts as not set. A value that a variable
//! cannot have is an error that names the variable, the value and what is allowed; it is
//! never replaced by a default in silence.

use std::path::PathBuf;
use std::time::Duration;

use interleaf_store::url::StoreUrl;
use interleaf_store::{Error, Result};

use crate::names::Rules;

/// Shortest time that a store can be given to answer.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Longest time that a store can be given to answer: a day.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Time that a store is given to answer where nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Smallest page cache, in bytes: less than this and a single scan evicts its own b-tree.
pub const MIN_CACHE_BYTES: u64 = 1 << 20;

/// Largest page cache, in bytes.
pub const MAX_CACHE_BYTES: u64 = 1 << 40;

/// Size of the page cache where nothing else is said, in bytes. Memory is taken as pages
/// arrive, so that a small database costs no more than itself.
pub const DEFAULT_CACHE_BYTES: u64 = 96 << 20;

/// Longest part of a bad value that an error shows, in characters.
const SHOWN: usize = 64;

/// How much is told on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// An invariant broke, or data are damaged.
    Error,
    /// The user must do something.
    Warn,
    /// Start and stop.
    Info,
    /// The rest.
    Debug,
}

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `INTERLEAF_STORE`.
    pub store: StoreUrl,
    /// `INTERLEAF_TIMEOUT_MS`.
    pub timeout: Duration,
    /// `INTERLEAF_LOG`.
    pub log: LogLevel,
    /// `INTERLEAF_DEFAULT_VFS`.
    pub default_vfs: bool,
    /// `INTERLEAF_DATABASES`.
    pub databases: Rules,
    /// `INTERLEAF_AUTOSTART`.
    pub autostart: bool,
    /// `INTERLEAF_BIN`.
    pub bin: Option<PathBuf>,
    /// `INTERLEAF_CACHE_BYTES`.
    pub cache_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: StoreUrl::Default,
            timeout: DEFAULT_TIMEOUT,
            log: LogLevel::Warn,
            default_vfs: false,
            databases: Rules::default(),
            autostart: true,
            bin: None,
            cache_bytes: DEFAULT_CACHE_BYTES,
        }
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a value that is not UTF-8 or not allowed, and
    /// [`Error::InvalidUrl`] for a bad `INTERLEAF_STORE`.
    pub fn from_env() -> Result<Self> {
        let mut not_text = None;
        let config = Self::from_vars(|name| match std::env::var(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(value)) => {
                not_text.get_or_insert_with(|| {
                    invalid(name, &value.to_string_lossy(), "text in UTF-8".into())
                });
                None
            }
        });
        match not_text {
            Some(error) => Err(error),
            None => config,
        }
    }

    /// Reads variables through `lookup`, which gives the value of a name or `None`.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_vars(mut lookup: impl FnMut(&str) -> Option<String>) -> Result<Self> {
        let mut get = |name: &'static str| lookup(name).filter(|value| !value.is_empty());
        let default = Self::default();
        Ok(Self {
            store: get("INTERLEAF_STORE").map_or(Ok(default.store), |url| url.parse())?,
            timeout: match get("INTERLEAF_TIMEOUT_MS") {
                None => default.timeout,
                Some(value) => timeout("INTERLEAF_TIMEOUT_MS", &value)?,
            },
            log: match get("INTERLEAF_LOG") {
                None => default.log,
                Some(value) => log_level("INTERLEAF_LOG", &value)?,
            },
            default_vfs: match get("INTERLEAF_DEFAULT_VFS") {
                None => default.default_vfs,
                Some(value) => switch("INTERLEAF_DEFAULT_VFS", &value)?,
            },
            databases: match get("INTERLEAF_DATABASES") {
                None => default.databases,
                Some(value) => Rules::parse(&value)?,
            },
            autostart: match get("INTERLEAF_AUTOSTART") {
                None => default.autostart,
                Some(value) => switch("INTERLEAF_AUTOSTART", &value)?,
            },
            bin: get("INTERLEAF_BIN").map(PathBuf::from),
            cache_bytes: match get("INTERLEAF_CACHE_BYTES") {
                None => default.cache_bytes,
                Some(value) => cache_bytes("INTERLEAF_CACHE_BYTES", &value)?,
            },
        })
    }
}

/// The error for a value that a setting cannot have.
pub(crate) fn invalid(setting: &str, value: &str, allowed: String) -> Error {
    Error::InvalidSetting {
        setting: setting.to_owned(),
        value: value.chars().take(SHOWN).collect(),
        allowed,
    }
}

fn timeout(name: &str, value: &str) -> Result<Duration> {
    value
        .parse()
        .ok()
        .map(Duration::from_millis)
        .filter(|timeout| (MIN_TIMEOUT..=MAX_TIMEOUT).contains(timeout))
        .ok_or_else(|| {
            let (low, high) = (MIN_TIMEOUT.as_millis(), MAX_TIMEOUT.as_millis());
            invalid(name, value, format!("a whole number of milliseconds from {low} to {high}"))
        })
}

fn cache_bytes(name: &str, value: &str) -> Result<u64> {
    value
        .parse()
        .ok()
        .filter(|bytes| (MIN_CACHE_BYTES..=MAX_CACHE_BYTES).contains(bytes))
        .ok_or_else(|| {
            let (low, high) = (MIN_CACHE_BYTES, MAX_CACHE_BYTES);
            invalid(name, value, format!("a whole number of bytes from {low} to {high}"))
        })
}

fn switch(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(invalid(name, value, "0 or 1".into())),
    }
}

fn log_level(name: &str, value: &str) -> Result<LogLevel> {
    match value {
        "off" => Ok(LogLevel::Off),
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        _ => Err(invalid(name, value, "off, error, warn, info or debug".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Result<Config> {
        Config::from_vars(|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set_is_the_default_and_empty_counts_as_not_set() {
        assert_eq!(with(&[]).unwrap(), Config::default());
        let names = [
            "INTERLEAF_STORE",
            "INTERLEAF_TIMEOUT_MS",
            "INTERLEAF_LOG",
            "INTERLEAF_DEFAULT_VFS",
            "INTERLEAF_DATABASES",
            "INTERLEAF_AUTOSTART",
            "INTERLEAF_BIN",
            "INTERLEAF_CACHE_BYTES",
        ];
        assert_eq!(with(&names.map(|name| (name, ""))).unwrap(), Config::default());
    }

    #[test]
    fn each_variable_is_read() {
        let config = with(&[
            ("INTERLEAF_STORE", "dir:/srv/x"),
            ("INTERLEAF_TIMEOUT_MS", "250"),
            ("INTERLEAF_LOG", "debug"),
            ("INTERLEAF_DEFAULT_VFS", "1"),
            ("INTERLEAF_DATABASES", "*.db"),
            ("INTERLEAF_AUTOSTART", "0"),
            ("INTERLEAF_BIN", "/opt/interleaf"),
            ("INTERLEAF_CACHE_BYTES", "1048576"),
        ])
        .unwrap();
        assert_eq!(
            config,
            Config {
                store: StoreUrl::Directory("/srv/x".into()),
                timeout: Duration::from_millis(250),
                log: LogLevel::Debug,
                default_vfs: true,
                databases: Rules::parse("*.db").unwrap(),
                autostart: false,
                bin: Some("/opt/interleaf".into()),
                cache_bytes: 1_048_576,
            }
        );
    }

    #[test]
    fn a_bad_value_is_an_error_that_names_variable_value_and_what_is_allowed() {
        for (name, value, allowed) in [
            ("INTERLEAF_TIMEOUT_MS", "0", "from 1 to 86400000"),
            ("INTERLEAF_TIMEOUT_MS", "10s", "from 1 to 86400000"),
            ("INTERLEAF_TIMEOUT_MS", "-1", "milliseconds"),
            ("INTERLEAF_TIMEOUT_MS", "86400001", "milliseconds"),
            ("INTERLEAF_LOG", "WARN", "off, error, warn, info or debug"),
            ("INTERLEAF_DEFAULT_VFS", "yes", "0 or 1"),
            ("INTERLEAF_AUTOSTART", "2", "0 or 1"),
            ("INTERLEAF_CACHE_BYTES", "1048575", "from 1048576"),
            ("INTERLEAF_CACHE_BYTES", "64M", "bytes"),
            ("INTERLEAF_DATABASES", "a,,b", "globs"),
            ("INTERLEAF_DATABASES", "[a-z]*.db", "no classes"),
        ] {
            let error = with(&[(name, value)]).unwrap_err().to_string();
            for part in [name, value, allowed] {
                assert!(error.contains(part), "{name}={value}: {error}");
            }
        }
        assert!(matches!(with(&[("INTERLEAF_STORE", "ftp:x")]), Err(Error::InvalidUrl { .. })));
    }

    #[test]
    fn a_long_value_is_cut_in_the_error() {
        let value = "é".repeat(5000);
        let error = with(&[("INTERLEAF_LOG", &value)]).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }
}
