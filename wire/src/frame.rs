//! Frames: length, request id, message type, body.

use interleaf_store::codec::{Reader, Writer};
use interleaf_store::{Error, Result};

use crate::limits::{HEADER_LEN, LENGTH_OVERHEAD, MAX_BODY};

/// The fields before a frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the body, in bytes; at most [`MAX_BODY`].
    pub body: usize,
    /// Chosen by the client; a reply bears its request's.
    pub request: u64,
    /// Message type.
    pub kind: u8,
}

impl Header {
    /// Length of the whole frame, in bytes.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        HEADER_LEN + self.body
    }
}

/// Reads the header at the beginning of `bytes`; `None` where there are too few bytes yet.
///
/// The length is judged as soon as its four bytes are there.
///
/// # Errors
/// `Corrupt` for a length that no frame has, `TooLarge` past [`MAX_BODY`].
pub fn parse_header(bytes: &[u8]) -> Result<Option<Header>> {
    let Some((length, _)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(body) = length.checked_sub(LENGTH_OVERHEAD) else {
        return Err(Error::Corrupt {
            what: format!("a frame of length {length}; the least is {LENGTH_OVERHEAD}"),
        });
    };
    if body > MAX_BODY {
        return Err(Error::TooLarge {
            what: "the body of a frame, in bytes,".into(),
            size: body as u64,
            limit: MAX_BODY as u64,
        });
    }
    let Some(head) = bytes.get(..HEADER_LEN) else { return Ok(None) };
    let mut reader = Reader::new(head, "frame header");
    reader.u32()?;
    Ok(Some(Header { body, request: reader.u64()?, kind: reader.u8()? }))
}

/// Whether bytes that should be a frame begin an HTTP request or reply. As a frame's length
/// each of these would be far beyond [`MAX_BODY`].
#[must_use]
pub fn is_http(bytes: &[u8]) -> bool {
    const BEGINNINGS: [&[u8; 4]; 11] = [
        b"HTTP", b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"TRAC", b"CONN",
        b"PRI ",
    ];
    bytes.first_chunk().is_some_and(|beginning| BEGINNINGS.contains(&beginning))
}

/// Builds a frame: `body` writes what stands behind the header.
///
/// # Errors
/// `TooLarge` where the body passes [`MAX_BODY`].
pub fn build(
    request: u64,
    kind: u8,
    capacity: usize,
    body: impl FnOnce(&mut Writer),
) -> Result<Vec<u8>> {
    let mut writer = Writer::with_capacity(HEADER_LEN + capacity);
    writer.u32(0).u64(request).u8(kind);
    body(&mut writer);
    let mut frame = writer.finish();
    let size = frame.len().saturating_sub(HEADER_LEN);
    let length = u32::try_from(size + LENGTH_OVERHEAD).ok().filter(|_| size <= MAX_BODY);
    match (length, frame.first_chunk_mut::<4>()) {
        (Some(length), Some(field)) => *field = length.to_be_bytes(),
        _ => {
            return Err(Error::TooLarge {
                what: "the body of a frame, in bytes,".into(),
                size: size as u64,
                limit: MAX_BODY as u64,
            });
        }
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_round_trips() {
        let frame = build(7, 3, 2, |w| {
            w.u16(0xabcd);
        })
        .unwrap();
        assert_eq!(frame.len(), HEADER_LEN + 2);
        let header = parse_header(&frame).unwrap().unwrap();
        assert_eq!(header, Header { body: 2, request: 7, kind: 3 });
        assert_eq!(header.frame_len(), frame.len());
        for cut in 0..HEADER_LEN {
            assert_eq!(parse_header(&frame[..cut]).unwrap(), None, "{cut}");
        }
    }

    #[test]
    fn http_is_told_from_frames() {
        for text in ["GET / HTTP/1.1", "HTTP/1.1 400 Bad Request", "PRI * HTTP/2.0"] {
            assert!(is_http(text.as_bytes()));
            assert!(parse_header(text.as_bytes()).is_err(), "no frame begins so");
        }
        assert!(!is_http(b"GET"));
        assert!(!is_http(&build(1, 1, 0, |_| {}).unwrap()));
    }

    #[test]
    fn lengths_are_bounded_before_anything_else_is_read() {
        let error = parse_header(&u32::MAX.to_be_bytes()).unwrap_err().to_string();
        assert!(error.contains(&MAX_BODY.to_string()), "{error}");
        let error = parse_header(b"GET / HTTP/1.1\r\n").unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert!(matches!(parse_header(&8u32.to_be_bytes()), Err(Error::Corrupt { .. })));
        let error = build(1, 1, 0, |w| {
            w.bytes(&vec![0; MAX_BODY + 1]);
        })
        .unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert!(
            build(1, 1, 0, |w| {
                w.bytes(&vec![0; MAX_BODY]);
            })
            .is_ok()
        );
    }
}
