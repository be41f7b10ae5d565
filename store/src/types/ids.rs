use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Parses exactly `2 * N` hex digits.
pub(super) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes, as stored in keys.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; $len] {
                self.0
            }
        }

        const _: () = assert!(size_of::<$name>() == $len);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(s: &str) -> Result<Self> {
                parse_hex(s).map(Self).ok_or_else(|| Error::InvalidId { what: $what, text: s.to_owned() })
            }
        }
    };
}

id!(
    /// A database: what a name in the catalog points to. Random.
    DatabaseId, 8, "database id"
);
id!(
    /// A branch: one line of versions. Random.
    BranchId, 8, "branch id"
);
id!(
    /// A content domain: one per root database, shared by its branches. Random.
    DomainId, 8, "content domain id"
);
id!(
    /// A store, fixed at its creation. Two URLs that reach one store give one id. Random.
    StoreId, 16, "store id"
);
id!(
    /// Names one commit across all its retries. Chosen by the client, random.
    CommitId, 16, "commit id"
);
id!(
    /// Changes whenever a store may have lost a suffix of what it had issued, that is after
    /// an unclean recovery of an embedded engine. Constant on FoundationDB.
    Incarnation, 8, "incarnation"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        let id = CommitId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<CommitId>().unwrap(), id);
        for bad in ["", "ab", "gg", "+b"] {
            assert!(bad.parse::<CommitId>().is_err());
        }
        assert!("+1+1+1+1+1+1+1+1".parse::<BranchId>().is_err(), "a sign is no digit");
    }
}
