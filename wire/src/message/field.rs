//! The fields that messages are made of.

use std::time::Duration;

use bytes::Bytes;
use interleaf_store::Result;
use interleaf_store::api::Allocation;
use interleaf_store::codec::{Reader, Writer};
use interleaf_store::types::{
    ContentHash, DatabaseName, PageCount, PageNumber, PageSet, PageSize, Version,
};
use interleaf_store::when::When;

pub(super) fn version(r: &mut Reader<'_>) -> Result<Version> {
    r.array().map(Version::from_bytes)
}

pub(super) fn hash(r: &mut Reader<'_>) -> Result<ContentHash> {
    r.array().map(ContentHash::from_bytes)
}

pub(super) fn page_number(r: &mut Reader<'_>) -> Result<PageNumber> {
    let number = r.u32()?;
    PageNumber::new(number).ok_or_else(|| r.corrupt(&format!("{number} is no page number")))
}

pub(super) fn page_count(r: &mut Reader<'_>) -> Result<PageCount> {
    let count = r.u32()?;
    if count > PageNumber::MAX {
        return Err(r.corrupt(&format!("{count} pages; the limit is {}", PageNumber::MAX)));
    }
    Ok(PageCount(count))
}

/// A page's bytes, copied: a slice would keep its whole frame in memory.
pub(super) fn page_bytes(r: &mut Reader<'_>) -> Result<Bytes> {
    let bytes = r.blob()?;
    u32::try_from(bytes.len())
        .ok()
        .and_then(|len| PageSize::new(len).ok())
        .ok_or_else(|| r.corrupt(&format!("a page of {} bytes", bytes.len())))?;
    Ok(Bytes::copy_from_slice(bytes))
}

pub(super) fn page_set(r: &mut Reader<'_>) -> Result<PageSet> {
    PageSet::from_bytes(r.blob()?)
}

pub(super) fn put_page_set(w: &mut Writer, set: &PageSet) {
    w.blob(&set.to_bytes());
}

pub(super) fn name(r: &mut Reader<'_>) -> Result<DatabaseName> {
    DatabaseName::new(r.text()?)
}

pub(super) fn put_name(w: &mut Writer, name: &DatabaseName) {
    w.text(name.as_str());
}

/// Text of at most `limit` bytes.
pub(super) fn text(r: &mut Reader<'_>, what: &str, limit: usize) -> Result<String> {
    let text = r.text()?;
    if text.len() > limit {
        return Err(r.corrupt(&format!("{what} of {} bytes; the limit is {limit}", text.len())));
    }
    Ok(text.to_owned())
}

/// Text cut to at most `limit` bytes, between two characters.
pub(super) fn put_cut_text(w: &mut Writer, text: &str, limit: usize) {
    w.text(cut(text, limit));
}

fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|&i| text.is_char_boundary(i));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

pub(super) fn option<T>(
    r: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if r.bool()? { read(r).map(Some) } else { Ok(None) }
}

pub(super) fn put_option<T>(w: &mut Writer, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
    w.bool(value.is_some());
    if let Some(value) = value {
        write(w, value);
    }
}

pub(super) fn list<T>(
    r: &mut Reader<'_>,
    item_bytes: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let len = r.len(item_bytes)?;
    (0..len).map(|_| read(r)).collect()
}

pub(super) fn allocation(r: &mut Reader<'_>) -> Result<Allocation> {
    let pages = page_count(r)?;
    let freelist_trunk = r.u32()?;
    let freelist_pages = r.u32()?;
    let size = r.u32()?;
    let page_size =
        PageSize::new(size).map_err(|_| r.corrupt(&format!("{size} is no page size")))?;
    Ok(Allocation { pages, freelist_trunk, freelist_pages, page_size })
}

pub(super) fn put_allocation(w: &mut Writer, a: &Allocation) {
    w.u32(a.pages.0).u32(a.freelist_trunk).u32(a.freelist_pages).u32(a.page_size.get());
}

pub(super) fn duration(r: &mut Reader<'_>) -> Result<Duration> {
    let seconds = r.u64()?;
    let nanos = r.u32()?;
    if nanos >= 1_000_000_000 {
        return Err(r.corrupt("a fraction of a second above one"));
    }
    Ok(Duration::new(seconds, nanos))
}

pub(super) fn put_duration(w: &mut Writer, duration: Duration) {
    w.u64(duration.as_secs()).u32(duration.subsec_nanos());
}

pub(super) fn when(r: &mut Reader<'_>) -> Result<When> {
    Ok(match r.u8()? {
        0 => When::Version(version(r)?),
        1 => When::Time(r.i64()?),
        2 => When::Ago(duration(r)?),
        3 => When::Pin(text(r, "a pin's label", DatabaseName::MAX_LEN)?),
        other => return Err(r.corrupt(&format!("a WHEN of kind {other}"))),
    })
}

pub(super) fn put_when(w: &mut Writer, when: &When) {
    match when {
        When::Version(version) => w.u8(0).bytes(&version.to_bytes()),
        When::Time(micros) => w.u8(1).i64(*micros),
        When::Ago(ago) => {
            w.u8(2);
            put_duration(w, *ago);
            w
        }
        When::Pin(label) => w.u8(3).text(label),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("añb", 2), "a");
        assert_eq!(cut("añb", 3), "añ");
        assert_eq!(cut("ab", 9), "ab");
        assert_eq!(cut("é", 1), "");
    }
}
