//! Errors on the wire: a code and the variant's fields.

use interleaf_store::codec::{Reader, Writer};
use interleaf_store::types::CommitId;
use interleaf_store::{Error, Result};

use super::field;
use crate::limits::MAX_ERROR_TEXT_BYTES;

/// Kinds of ids that [`Error::InvalidId`] names.
const ID_KINDS: [&str; 6] =
    ["database id", "branch id", "content domain id", "store id", "commit id", "incarnation"];

fn put_text(w: &mut Writer, text: &str) {
    field::put_cut_text(w, text, MAX_ERROR_TEXT_BYTES);
}

/// Writes an error. Codes are never used for another meaning: docs/protocol.md lists them.
pub(super) fn put(w: &mut Writer, error: &Error) {
    match error {
        Error::Conflict { what } => put_text(w.u8(1), what),
        Error::Pruned { version, oldest } => {
            w.u8(2).bytes(&version.to_bytes()).bytes(&oldest.to_bytes());
        }
        Error::NotFound { what } => put_text(w.u8(3), what),
        Error::AlreadyExists { what } => put_text(w.u8(4), what),
        Error::Importing { name } => put_text(w.u8(5), name),
        Error::ReadOnly { what } => put_text(w.u8(6), what),
        Error::Unavailable { what } => put_text(w.u8(7), what),
        Error::Timeout { after } => field::put_duration(w.u8(8), *after),
        Error::OutcomeUnknown { id, why } => {
            put_text(w.u8(9).bytes(&id.to_bytes()), why);
        }
        Error::TooLarge { what, size, limit } => {
            put_text(w.u8(10), what);
            w.u64(*size).u64(*limit);
        }
        Error::Corrupt { what } => put_text(w.u8(11), what),
        Error::FormatVersion { what, found, known } => {
            put_text(w.u8(12), what);
            w.u32(*found).u32(*known);
        }
        Error::ProtocolVersion { found, known } => {
            w.u8(13).u32(*found).u32(*known);
        }
        Error::Locked { path, holder } => put_two(w.u8(14), path, holder),
        Error::IncarnationChanged => {
            w.u8(15);
        }
        Error::InvalidName { name, why } => put_two(w.u8(16), name, why),
        Error::InvalidWhen { text } => put_text(w.u8(17), text),
        Error::InvalidVersion { text } => put_text(w.u8(18), text),
        Error::InvalidId { what, text } => put_two(w.u8(19), what, text),
        Error::InvalidPageSize { bytes } => {
            w.u8(20).u32(*bytes);
        }
        Error::InvalidUrl { url, why } => put_two(w.u8(21), url, why),
        Error::InvalidRequest { what } => put_text(w.u8(22), what),
        Error::Unsupported { what } => put_text(w.u8(23), what),
        Error::Io { what } => put_text(w.u8(24), what),
        Error::InvalidSetting { setting, value, allowed } => {
            put_two(w.u8(25), setting, value);
            put_text(w, allowed);
        }
        Error::DiskFull { what } => put_text(w.u8(26), what),
    }
}

fn put_two(w: &mut Writer, first: &str, second: &str) {
    put_text(w, first);
    put_text(w, second);
}

/// Reads an error.
///
/// # Errors
/// `Corrupt` where the bytes are none.
pub(super) fn get(r: &mut Reader<'_>) -> Result<Error> {
    let code = r.u8()?;
    Ok(match code {
        1 => Error::Conflict { what: text(r)? },
        2 => Error::Pruned { version: field::version(r)?, oldest: field::version(r)? },
        3 => Error::NotFound { what: text(r)? },
        4 => Error::AlreadyExists { what: text(r)? },
        5 => Error::Importing { name: text(r)? },
        6 => Error::ReadOnly { what: text(r)? },
        7 => Error::Unavailable { what: text(r)? },
        8 => Error::Timeout { after: field::duration(r)? },
        9 => Error::OutcomeUnknown { id: r.array().map(CommitId::from_bytes)?, why: text(r)? },
        10 => Error::TooLarge { what: text(r)?, size: r.u64()?, limit: r.u64()? },
        11 => Error::Corrupt { what: text(r)? },
        12 => Error::FormatVersion { what: text(r)?, found: r.u32()?, known: r.u32()? },
        13 => Error::ProtocolVersion { found: r.u32()?, known: r.u32()? },
        14 => Error::Locked { path: text(r)?, holder: text(r)? },
        15 => Error::IncarnationChanged,
        16 => Error::InvalidName { name: text(r)?, why: text(r)? },
        17 => Error::InvalidWhen { text: text(r)? },
        18 => Error::InvalidVersion { text: text(r)? },
        19 => Error::InvalidId { what: id_kind(&text(r)?), text: text(r)? },
        20 => Error::InvalidPageSize { bytes: r.u32()? },
        21 => Error::InvalidUrl { url: text(r)?, why: text(r)? },
        22 => Error::InvalidRequest { what: text(r)? },
        23 => Error::Unsupported { what: text(r)? },
        24 => Error::Io { what: text(r)? },
        25 => Error::InvalidSetting { setting: text(r)?, value: text(r)?, allowed: text(r)? },
        26 => Error::DiskFull { what: text(r)? },
        other => return Err(r.corrupt(&format!("an error of unknown code {other}"))),
    })
}

fn text(r: &mut Reader<'_>) -> Result<String> {
    field::text(r, "an error's text", MAX_ERROR_TEXT_BYTES)
}

fn id_kind(text: &str) -> &'static str {
    ID_KINDS.iter().copied().find(|kind| *kind == text).unwrap_or("id")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use interleaf_store::types::Version;

    use super::*;

    /// One of every variant. The match in `put` is exhaustive; that none is missing here
    /// is seen by the codes, which are 1 to 26 without a gap.
    fn samples() -> Vec<Error> {
        let s = || "grün \"x\"".to_owned();
        vec![
            Error::Conflict { what: s() },
            Error::Pruned { version: Version::new(1, 2), oldest: Version::new(3, 4) },
            Error::NotFound { what: s() },
            Error::AlreadyExists { what: s() },
            Error::Importing { name: s() },
            Error::ReadOnly { what: s() },
            Error::Unavailable { what: s() },
            Error::Timeout { after: Duration::new(10, 5) },
            Error::OutcomeUnknown { id: CommitId::from_bytes([9; 16]), why: s() },
            Error::TooLarge { what: s(), size: 5, limit: 4 },
            Error::Corrupt { what: s() },
            Error::FormatVersion { what: s(), found: 2, known: 1 },
            Error::ProtocolVersion { found: 2, known: 1 },
            Error::Locked { path: s(), holder: "process 7".into() },
            Error::IncarnationChanged,
            Error::InvalidName { name: s(), why: "why".into() },
            Error::InvalidWhen { text: s() },
            Error::InvalidVersion { text: s() },
            Error::InvalidId { what: "commit id", text: s() },
            Error::InvalidPageSize { bytes: 7 },
            Error::InvalidUrl { url: s(), why: "why".into() },
            Error::InvalidRequest { what: s() },
            Error::Unsupported { what: s() },
            Error::Io { what: s() },
            Error::InvalidSetting { setting: s(), value: "v".into(), allowed: "a".into() },
            Error::DiskFull { what: s() },
        ]
    }

    #[test]
    fn every_variant_round_trips_under_its_own_code() {
        for (index, error) in samples().into_iter().enumerate() {
            let mut w = Writer::new();
            put(&mut w, &error);
            let bytes = w.finish();
            assert_eq!(usize::from(bytes[0]), index + 1, "{error}");
            let mut r = Reader::new(&bytes, "error");
            assert_eq!(get(&mut r).unwrap(), error);
            r.end().unwrap();
        }
        let past = u8::try_from(samples().len() + 1).unwrap();
        let unknown = get(&mut Reader::new(&[past], "error")).unwrap_err().to_string();
        assert!(unknown.contains("unknown code"), "{unknown}");
    }

    #[test]
    fn long_texts_are_cut_rather_than_lost() {
        let mut w = Writer::new();
        put(&mut w, &Error::Io { what: "x".repeat(MAX_ERROR_TEXT_BYTES * 2) });
        let bytes = w.finish();
        let Error::Io { what } = get(&mut Reader::new(&bytes, "error")).unwrap() else { panic!() };
        assert_eq!(what.len(), MAX_ERROR_TEXT_BYTES);
    }
}
