use std::fmt;
use std::num::NonZeroU32;

use crate::error::{Error, Result};

/// A page's number within a database: 1 to 2^32 - 2, as in SQLite.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(NonZeroU32);

impl PageNumber {
    /// Page 1, which holds SQLite's database header.
    pub const ONE: Self = Self(NonZeroU32::MIN);
    /// The largest page number that SQLite allows.
    pub const MAX: u32 = u32::MAX - 1;

    /// The page with this number; `None` for 0 and 2^32 - 1.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number > Self::MAX {
            return None;
        }
        match NonZeroU32::new(number) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

const _: () = assert!(size_of::<Option<PageNumber>>() == 4);

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Debug for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{self}")
    }
}

/// A number of pages: a database's size. 0 is an empty database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PageCount(pub u32);

impl PageCount {
    /// Whether `page` lies within a database of this size.
    #[must_use]
    pub const fn contains(self, page: PageNumber) -> bool {
        page.get() <= self.0
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes in a page: a power of two from 512 to 65536.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

#[expect(clippy::len_without_is_empty, reason = "no page is empty")]
impl PageSize {
    /// SQLite's smallest page.
    pub const MIN: Self = Self(512);
    /// SQLite's largest page.
    pub const MAX: Self = Self(65536);
    /// SQLite's default, assumed for a database that has no page yet.
    pub const DEFAULT: Self = Self(4096);

    /// The size in bytes, if it is one that SQLite allows.
    ///
    /// # Errors
    /// [`Error::InvalidPageSize`] otherwise.
    pub const fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 {
            Ok(Self(bytes))
        } else {
            Err(Error::InvalidPageSize { bytes })
        }
    }

    /// Bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Bytes, as a length.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert!(PageNumber::new(0).is_none());
        assert!(PageNumber::new(u32::MAX).is_none());
        assert_eq!(PageNumber::new(u32::MAX - 1).unwrap().get(), u32::MAX - 1);
        for bad in [0, 1, 256, 513, 1000, 131_072] {
            assert!(PageSize::new(bad).is_err(), "{bad}");
        }
        for good in [512, 1024, 4096, 65536] {
            assert_eq!(PageSize::new(good).unwrap().get(), good);
        }
    }
}
