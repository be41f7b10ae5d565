use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::when::When;

/// A database's name: 1 to 255 bytes of UTF-8 without control characters, and not of the
/// form `NAME@WHEN`, which means a snapshot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseName(String);

impl DatabaseName {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::InvalidName`] that says what is wrong and names the limit.
    pub fn new(name: &str) -> Result<Self> {
        let refuse = |why: String| {
            let shown: String = name.chars().take(64).collect();
            Err(Error::InvalidName { name: shown, why })
        };
        if name.is_empty() {
            return refuse("a name has at least one byte".into());
        }
        if name.len() > Self::MAX_LEN {
            return refuse(format!("{} bytes; the limit is {}", name.len(), Self::MAX_LEN));
        }
        if name.chars().any(char::is_control) {
            return refuse("it contains a control character".into());
        }
        if let (_, Some(when)) = When::split_name(name) {
            return refuse(format!("the part behind '@' ({when}) names a snapshot"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseName {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Self::new(s)
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_and_named() {
        assert!(DatabaseName::new(&"a".repeat(255)).is_ok());
        let error = DatabaseName::new(&"a".repeat(256)).unwrap_err().to_string();
        assert!(error.contains("255"), "{error}");
        assert!(DatabaseName::new("").is_err());
        assert!(DatabaseName::new("a\nb").is_err());
        assert!(DatabaseName::new("/srv/app/db.sqlite3").is_ok());
        assert!(DatabaseName::new("user@example.com").is_ok(), "not a WHEN");
        assert!(DatabaseName::new("app@-15m").is_err());
    }
}
