use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A point in the history of a store: 10 bytes, ordered as bytes, written as 20 hex digits.
///
/// The first eight bytes are the engine's commit version (big endian), the last two the
/// place within a batch that shares one commit version. Embedded engines issue a counter
/// and batch 0; FoundationDB fills in its versionstamp.
///
/// The version of a *commit* and the version of a *snapshot* have the same shape. A
/// snapshot sees every commit whose version is at most its own; on FoundationDB a read
/// version `R` therefore becomes the snapshot `(R, 0xffff)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version([u8; Version::LEN]);

impl Version {
    /// Length in bytes.
    pub const LEN: usize = 10;
    /// Before every commit.
    pub const ZERO: Self = Self([0; Self::LEN]);
    /// After every commit.
    pub const MAX: Self = Self([0xff; Self::LEN]);
    /// Batch number of a FoundationDB snapshot: sees the whole batch.
    pub const BATCH_ALL: u16 = 0xffff;

    /// A version from the engine's commit version and the order within its batch.
    #[must_use]
    pub const fn new(commit: u64, batch: u16) -> Self {
        let c = commit.to_be_bytes();
        let b = batch.to_be_bytes();
        Self([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], b[0], b[1]])
    }

    /// A version from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, in the order in which versions compare.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// The engine's commit version.
    #[must_use]
    pub const fn commit(self) -> u64 {
        let b = self.0;
        u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    }

    /// The order within the batch.
    #[must_use]
    pub const fn batch(self) -> u16 {
        u16::from_be_bytes([self.0[8], self.0[9]])
    }

    /// The smallest version after this one, or `None` after [`Version::MAX`].
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.batch().checked_add(1) {
            Some(batch) => Some(Self::new(self.commit(), batch)),
            None => match self.commit().checked_add(1) {
                Some(commit) => Some(Self::new(commit, 0)),
                None => None,
            },
        }
    }
}

const _: () = assert!(size_of::<Version>() == Version::LEN);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Version {
    type Err = Error;

    /// Parses exactly 20 hex digits, upper or lower case.
    fn from_str(s: &str) -> Result<Self> {
        super::ids::parse_hex(s)
            .map(Self)
            .ok_or_else(|| Error::InvalidVersion { text: s.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip_and_order_as_numbers() {
        let v = Version::new(0x0102_0304_0506_0708, 0x090a);
        assert_eq!(v.to_string(), "0102030405060708090a");
        assert_eq!("0102030405060708090A".parse::<Version>().unwrap(), v);
        assert_eq!((v.commit(), v.batch()), (0x0102_0304_0506_0708, 0x090a));
        assert!(Version::new(1, Version::BATCH_ALL) < Version::new(2, 0));
        assert_eq!(Version::new(1, Version::BATCH_ALL).next(), Some(Version::new(2, 0)));
        assert_eq!(Version::MAX.next(), None);
    }

    #[test]
    fn bad_text_is_refused() {
        for bad in ["", "0102030405060708090", "0102030405060708090aa", "zz02030405060708090a", "é"]
        {
            assert!(matches!(bad.parse::<Version>(), Err(Error::InvalidVersion { .. })), "{bad}");
        }
    }
}
