//! WHEN: how a user names a point in a database's history.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::types::Version;

/// What a WHEN may be, for errors. Pins are read, and not named here until they can be made.
pub const FORMS: &str = "20 hex digits, an RFC 3339 time, -30s, -15m, -2h, -7d";

/// A point in history, as written by a user. No form has a slash, so that a folder's name in a
/// path (`dir@pin:x/app.db`) is never taken for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// 20 hex digits.
    Version(Version),
    /// An RFC 3339 time, in microseconds since the Unix epoch.
    Time(i64),
    /// `-15m`, `-2h`, `-7d`, `-30s`: so long before now on the sampling clock.
    Ago(Duration),
    /// `pin:LABEL`; a label has no slash.
    Pin(String),
}

impl When {
    /// Splits `NAME@WHEN` at the last `@`, and only where the rest is a WHEN.
    #[must_use]
    pub fn split_name(text: &str) -> (&str, Option<Self>) {
        match text.rsplit_once('@') {
            Some((name, rest)) => match rest.parse() {
                Ok(when) => (name, Some(when)),
                Err(_) => (text, None),
            },
            None => (text, None),
        }
    }
}

impl FromStr for When {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let refuse = || Error::InvalidWhen { text: s.chars().take(64).collect() };
        if s.contains('/') {
            return Err(refuse());
        }
        if let Some(label) = s.strip_prefix("pin:") {
            return if label.is_empty() { Err(refuse()) } else { Ok(Self::Pin(label.to_owned())) };
        }
        if let Some(ago) = s.strip_prefix('-') {
            return parse_ago(ago).map(Self::Ago).ok_or_else(refuse);
        }
        if let Ok(version) = s.parse() {
            return Ok(Self::Version(version));
        }
        let time: jiff::Timestamp = s.parse().map_err(|_| refuse())?;
        Ok(Self::Time(time.as_microsecond()))
    }
}

/// `15m` and the like: a whole number and one of s, m, h, d.
fn parse_ago(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Time(micros) => f.write_str(&format_time(*micros)),
            Self::Ago(ago) => write!(f, "-{}s", ago.as_secs()),
            Self::Pin(label) => write!(f, "pin:{label}"),
        }
    }
}

/// Microseconds since the Unix epoch as RFC 3339 in UTC.
#[must_use]
pub fn format_time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(
        |_| format!("{micros} µs from 1970, beyond the years -9999 to 9999"),
        |t| t.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        assert_eq!("-15m".parse::<When>().unwrap(), When::Ago(Duration::from_secs(900)));
        assert_eq!("-7d".parse::<When>().unwrap(), When::Ago(Duration::from_secs(604_800)));
        assert_eq!("1970-01-01T00:00:01Z".parse::<When>().unwrap(), When::Time(1_000_000));
        assert_eq!("1970-01-01T01:00:01+01:00".parse::<When>().unwrap(), When::Time(1_000_000));
        assert_eq!("pin:a".parse::<When>().unwrap(), When::Pin("a".into()));
        assert!(matches!("00000000000000010000".parse::<When>().unwrap(), When::Version(_)));
        for bad in [
            "",
            "-",
            "-m",
            "-5",
            "-5y",
            "-+5m",
            "yesterday",
            "pin:",
            "2024-01-01",
            "-99999999999999999999d",
            "pin:x/app.db",
            "2024-01-01T00:00:00Z[Europe/Berlin]",
        ] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_that_no_calendar_has_is_told_in_words() {
        assert_eq!(format_time(1_000_000), "1970-01-01T00:00:01Z");
        assert!(format_time(i64::MIN).contains("beyond the years"));
    }

    #[test]
    fn names_split_only_before_a_when() {
        assert_eq!(When::split_name("a@b.com"), ("a@b.com", None));
        let (name, when) = When::split_name("a@b.com@-2h");
        assert_eq!((name, when), ("a@b.com", Some(When::Ago(Duration::from_secs(7200)))));
        let (name, when) = When::split_name("dir@pin:x/app.db@pin:y");
        assert_eq!((name, when), ("dir@pin:x/app.db", Some(When::Pin("y".into()))));
        assert_eq!(When::split_name("dir@pin:x/app.db"), ("dir@pin:x/app.db", None));
    }
}
