//! The page cache of the process: content by its hash, shared by all connections, all
//! databases and all stores. What a hash names never changes, so nothing is ever stale.
//!
//! **Invariant.** Every page in it was hashed in this process, on its arrival or before its
//! commit: a server that gives bytes under another content's hash would otherwise reach the
//! users of other stores. That costs a few percent of a cold read, and nothing of a warm one.

use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use interleaf_store::buffers;
use interleaf_store::types::ContentHash;
use moka::sync::Cache;

/// Bytes that an entry costs beside its page.
const ENTRY_OVERHEAD: u32 = 128;

/// A content hash is random already: its last eight bytes are as good as any hash of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TakeBytes(u64);

impl Hasher for TakeBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(tail) = bytes.last_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*tail);
        }
    }

    // Lengths, which `derive(Hash)` writes before an array's bytes.
    fn write_usize(&mut self, _: usize) {}
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ContentCache(Cache<ContentHash, Bytes, BuildHasherDefault<TakeBytes>>);

impl ContentCache {
    /// A cache of at most `bytes`.
    pub fn new(bytes: u64) -> Self {
        let weigher = |_: &ContentHash, page: &Bytes| {
            u32::try_from(page.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_OVERHEAD)
        };
        Self(
            Cache::builder()
                .max_capacity(bytes)
                .weigher(weigher)
                .build_with_hasher(BuildHasherDefault::default()),
        )
    }

    /// The page of that content.
    pub fn get(&self, hash: &ContentHash) -> Option<Bytes> {
        self.0.get(hash)
    }

    /// Whether the page is there, without counting as a use.
    pub fn contains(&self, hash: &ContentHash) -> bool {
        self.0.contains_key(hash)
    }

    /// Keeps a page whose hash the caller has computed. Copied, so that a page never keeps
    /// the whole reply alive that it came with.
    pub fn put(&self, hash: ContentHash, page: &[u8]) -> Bytes {
        let page = buffers::joined(page, &[]);
        self.keep(hash, &page);
        page
    }

    /// As [`put`](Self::put), for a page that has its memory to itself.
    pub fn keep(&self, hash: ContentHash, page: &Bytes) {
        self.0.insert(hash, page.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_by_content_and_bounded_by_weight() {
        let cache = ContentCache::new(1 << 20);
        let hash = ContentHash::of(b"x");
        assert!(cache.get(&hash).is_none());
        cache.put(hash, b"x");
        assert_eq!(cache.get(&hash).unwrap(), "x");
        for n in 0u32..2000 {
            let mut page = vec![0; 4096];
            page[..4].copy_from_slice(&n.to_be_bytes());
            cache.put(ContentHash::of(&page), &page);
        }
        cache.0.run_pending_tasks();
        assert!(cache.0.weighted_size() <= 1 << 20);
    }
}
