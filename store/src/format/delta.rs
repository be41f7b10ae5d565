//! A page as its difference from another one of the same size.
//!
//! Runs of bytes that differ, each as how many bytes after the last run it begins
//! (`varint`), its length (`varint`) and its bytes. Equal bytes between two runs that are
//! fewer than a run's own numbers are taken into them.

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::error::Result;

/// Equal bytes that end a run.
const GAP: usize = 4;

/// How `page` differs from `base`; `None` where that takes more than `limit` bytes, or the
/// two are not equally long.
#[must_use]
pub fn encode(base: &[u8], page: &[u8], limit: usize) -> Option<Vec<u8>> {
    if base.len() != page.len() {
        return None;
    }
    let mut out = Writer::new();
    let (mut at, mut written) = (0, 0);
    while let Some(start) = next_difference(base, page, at) {
        let end = run_end(base, page, start);
        let run = page.get(start..end)?;
        written += run.len() + 4;
        if written > limit {
            return None;
        }
        out.varint((start - at) as u64).blob(run);
        at = end;
    }
    let delta = out.finish();
    (delta.len() <= limit).then_some(delta)
}

/// Where the two differ first from `at` on.
fn next_difference(base: &[u8], page: &[u8], at: usize) -> Option<usize> {
    const WORD: usize = size_of::<u64>();
    let (base, page) = (base.get(at..)?, page.get(at..)?);
    let same = base.chunks_exact(WORD).zip(page.chunks_exact(WORD)).take_while(|(a, b)| a == b);
    let skipped = same.count() * WORD;
    let rest = base.get(skipped..)?.iter().zip(page.get(skipped..)?);
    rest.enumerate().find(|(_, (a, b))| a != b).map(|(index, _)| at + skipped + index)
}

/// Where the run that begins at `start` ends.
fn run_end(base: &[u8], page: &[u8], start: usize) -> usize {
    let mut end = start;
    for (index, (a, b)) in base.iter().zip(page).enumerate().skip(start) {
        if a != b {
            end = index + 1;
        } else if index >= end + GAP {
            break;
        }
    }
    end
}

/// The page that differs from `base` so.
///
/// # Errors
/// `Corrupt` for what is no difference from a page of that size.
pub fn apply(base: &[u8], delta: &[u8]) -> Result<Bytes> {
    let mut page = base.to_vec();
    let mut r = Reader::new(delta, "page difference");
    let mut at = 0usize;
    while r.remaining() > 0 {
        let start = usize::try_from(r.varint()?).ok().and_then(|skip| at.checked_add(skip));
        let run = r.blob()?;
        let end = start.and_then(|start| start.checked_add(run.len()));
        let place = start.zip(end).and_then(|(start, end)| page.get_mut(start..end));
        let Some(place) = place else {
            return Err(r.corrupt("a run beyond the page's end"));
        };
        place.copy_from_slice(run);
        at = end.unwrap_or(at);
    }
    Ok(page.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_pages_differ_by_nothing() {
        assert_eq!(encode(&[7; 512], &[7; 512], 100), Some(Vec::new()));
        assert_eq!(apply(&[7; 512], &[]).unwrap(), vec![7; 512]);
    }

    #[test]
    fn a_small_change_is_small() {
        let base = vec![1; 4096];
        let mut page = base.clone();
        page[4000] = 2;
        page[4003] = 2;
        let delta = encode(&base, &page, 1024).unwrap();
        assert_eq!(delta.len(), 2 + 1 + 4, "one run");
        assert_eq!(apply(&base, &delta).unwrap(), page);
    }

    #[test]
    fn too_much_or_of_another_size_is_none() {
        assert_eq!(encode(&[0; 512], &[1; 512], 128), None);
        assert_eq!(encode(&[0; 512], &[0; 1024], 1024), None);
    }

    #[test]
    fn what_is_no_difference_is_refused() {
        for damaged in [&[0xff][..], &[0, 200], &[0xff, 0x7f, 1, 0], &[250, 3, 13]] {
            let result = apply(&[0; 512], damaged);
            assert!(matches!(result, Err(crate::Error::Corrupt { .. })), "{damaged:?}");
        }
    }

    proptest! {
        #[test]
        fn differences_give_the_page_back(
            base in prop::collection::vec(any::<u8>(), 512),
            changes in prop::collection::vec((0usize..512, any::<u8>()), 0..60),
        ) {
            let mut page = base.clone();
            for (at, byte) in changes {
                page[at] = byte;
            }
            if let Some(delta) = encode(&base, &page, 256) {
                prop_assert!(delta.len() <= 256);
                prop_assert_eq!(apply(&base, &delta).unwrap(), page);
            }
        }

        #[test]
        fn any_bytes_are_a_page_or_refused(delta in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(page) = apply(&[0; 512], &delta) {
                prop_assert_eq!(page.len(), 512);
            }
        }
    }
}
