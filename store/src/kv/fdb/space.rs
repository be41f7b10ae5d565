//! Where the store's keys are in FoundationDB, and where their conflicts are.

use foundationdb::options::MutationType;

use super::super::{KeyRange, KvError, KvResult};
use crate::types::Version;

/// First byte, behind the store's prefix, of the keys that stand for logical conflicts. No
/// value is ever written there.
///
/// FoundationDB has one space for both and adds a conflict by itself for the key that a
/// versionstamp completes. With conflicts elsewhere than data, and data only ever read
/// without conflicts, the logical conflict keys alone decide.
const CONFLICTS: u8 = 0xfe;

/// The end of what a client may write to where there is no prefix: the system's keys.
const SYSTEM: &[u8] = &[0xff];

/// The keys of one store.
#[derive(Clone, Debug)]
pub(super) struct Space {
    prefix: Vec<u8>,
}

impl Space {
    /// The space of the stores of that name; the whole cluster for an empty one. The name
    /// ends in a zero byte, so that no name's keys begin with another name's prefix.
    pub(super) fn new(name: &str) -> Self {
        let mut prefix = name.as_bytes().to_vec();
        if !prefix.is_empty() {
            prefix.push(0);
        }
        Self { prefix }
    }

    /// A key in FoundationDB.
    pub(super) fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }

    /// A key as the store knows it.
    pub(super) fn strip<'a>(&self, key: &'a [u8]) -> KvResult<&'a [u8]> {
        key.strip_prefix(self.prefix.as_slice()).ok_or_else(|| KvError::Corrupt {
            what: "FoundationDB answered a range read with a key outside the range".into(),
        })
    }

    /// A range of data. Its end never reaches into the system's keys.
    pub(super) fn range(&self, range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
        let clip = |key: Vec<u8>| if key.as_slice() > SYSTEM { SYSTEM.to_vec() } else { key };
        (clip(self.key(&range.start)), clip(self.key(&range.end)))
    }

    /// A range of logical conflicts.
    pub(super) fn conflict(&self, range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
        let key = |key: &[u8]| [self.prefix.as_slice(), &[CONFLICTS], key].concat();
        (key(&range.start), key(&range.end))
    }

    /// Everything of this store.
    pub(super) fn everything(&self) -> (Vec<u8>, Vec<u8>) {
        let mut end = self.prefix.clone();
        match end.last_mut() {
            Some(last) => *last = 1, // It is the zero that ends the name.
            None => end = SYSTEM.to_vec(),
        }
        (self.prefix.clone(), end)
    }

    /// A versioned key as FoundationDB takes it: with room for the version and, at the end,
    /// where that room is.
    pub(super) fn versioned_key(&self, prefix: &[u8], suffix: &[u8]) -> Vec<u8> {
        stamped(&self.key(prefix), suffix)
    }
}

/// Parameter of [`MutationType::SetVersionstampedKey`] and `SetVersionstampedValue`.
pub(super) fn stamped(prefix: &[u8], suffix: &[u8]) -> Vec<u8> {
    // Keys and values are bounded far below 4 GiB; past it FoundationDB refuses the length.
    let offset = u32::try_from(prefix.len()).unwrap_or(u32::MAX);
    [prefix, &[0; Version::LEN], suffix, &offset.to_le_bytes()].concat()
}

/// The kinds of mutation that [`stamped`] is for.
pub(super) const STAMP_KEY: MutationType = MutationType::SetVersionstampedKey;
/// See [`STAMP_KEY`].
pub(super) const STAMP_VALUE: MutationType = MutationType::SetVersionstampedValue;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_space_lies_within_another() {
        let (start, end) = Space::new("app").everything();
        assert_eq!((start.as_slice(), end.as_slice()), (&b"app\0"[..], &b"app\x01"[..]));
        let other = Space::new("app2").key(b"M");
        assert!(other < start || other >= end);
        let (start, end) = Space::new("").everything();
        assert_eq!((start.as_slice(), end.as_slice()), (&b""[..], &b"\xff"[..]));
    }

    #[test]
    fn keys_come_back_as_they_were() {
        let space = Space::new("app");
        assert_eq!(space.strip(&space.key(b"k")), Ok(&b"k"[..]));
        assert!(space.strip(b"apq").is_err());
        let (_, end) = Space::new("").range(&(b"a".to_vec()..b"\xff\xff".to_vec()));
        assert_eq!(end, SYSTEM);
    }

    #[test]
    fn the_version_has_its_place() {
        let key = Space::new("a").versioned_key(b"L", b"z");
        assert_eq!(key, b"a\0L\0\0\0\0\0\0\0\0\0\0z\x03\0\0\0");
    }
}
