//! Reading and writing of bytes: shared by durable records and by frames.
//!
//! Numbers are big endian. `varint` is LEB128 of at most 10 bytes, in its shortest form.
//! A [`Reader`] never panics and never allocates more than what it was given.

use crate::error::{Error, Result};

/// Reads fields off a byte slice.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    #[must_use]
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The error for a record that is not what it must be.
    #[must_use]
    pub fn corrupt(&self, why: &str) -> Error {
        Error::Corrupt { what: format!("{}: {why}", self.what) }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// `Corrupt` where there are fewer; likewise all below.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, tail) =
            self.rest.split_at_checked(len).ok_or_else(|| self.corrupt("cut short"))?;
        self.rest = tail;
        Ok(head)
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) =
            self.rest.split_first_chunk().ok_or_else(|| self.corrupt("cut short"))?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Eight bytes, signed.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// 0 or 1.
    ///
    /// # Errors
    /// `Corrupt`, for any other byte too.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.corrupt("a flag that is neither 0 nor 1")),
        }
    }

    /// A LEB128 number in its shortest form.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    return Err(self.corrupt("a number not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.corrupt("a number too large"))
    }

    /// A length: a `varint` that cannot exceed what is left, each item taking at least
    /// `item_bytes`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn len(&mut self, item_bytes: usize) -> Result<usize> {
        let len =
            usize::try_from(self.varint()?).map_err(|_| self.corrupt("a length too large"))?;
        if len.saturating_mul(item_bytes.max(1)) > self.rest.len() {
            return Err(self.corrupt("a length beyond the end"));
        }
        Ok(len)
    }

    /// A length and so many bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn blob(&mut self) -> Result<&'a [u8]> {
        let len = self.len(1)?;
        self.bytes(len)
    }

    /// A length and so many bytes of UTF-8.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.blob()?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("text that is not UTF-8"))
    }

    /// Asserts that nothing is left.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes behind its end")) }
    }
}

/// Writes fields.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// LEB128.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or(0x7f);
            value >>= 7;
            if value == 0 {
                return self.u8(low);
            }
            self.u8(low | 0x80);
        }
    }

    /// A length, as a varint.
    pub fn len_of(&mut self, len: usize) -> &mut Self {
        self.varint(len as u64)
    }

    /// A length and the bytes.
    pub fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        self.len_of(bytes.len()).bytes(bytes)
    }

    /// A length and the text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.blob(text.as_bytes())
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut w = Writer::new();
            w.varint(value);
            let bytes = w.finish();
            let mut r = Reader::new(&bytes, "test");
            assert_eq!(r.varint().unwrap(), value);
            r.end().unwrap();
        }
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(Reader::new(&[0x80, 0x00], "t").varint().is_err(), "not the shortest form");
        assert!(Reader::new(&[0xff; 11], "t").varint().is_err(), "too large");
        assert!(Reader::new(&[5, 1, 2], "t").blob().is_err(), "cut short");
        assert!(Reader::new(&[2], "t").bool().is_err());
        assert!(Reader::new(&[1, 0xff], "t").text().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], "t").len(8).is_err());
        assert!(Reader::new(&[1], "t").end().is_err());
    }
}
