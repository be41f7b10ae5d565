//! Where each word lies, and how a slot is read and written.
//!
//! A slot is guarded by a sequence number (a seqlock: H. Boehm, "Can seqlocks get along with
//! programming language memory models?", MSPC 2012): odd while it is being written.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::map::Words;

/// First word of the file: what it is and its version, as bytes `ILHEADS` and 1.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"ILHEADS\x01");

/// Bytes of a word.
pub(crate) const WORD: usize = 8;

/// Words of the header, and of a slot: a cache line each.
const LINE: usize = 8;

/// Branches that may share a set of slots.
const WAYS: usize = 4;

/// Sets of slots, as a power of two.
const SET_BITS: u32 = 10;

/// Words in the file.
pub(crate) const WORDS: usize = LINE * (1 + (WAYS << SET_BITS));

/// Bytes in the file.
pub(crate) const FILE_BYTES: usize = WORDS * WORD;

const AT_GENERATION: usize = 1;
const AT_NEWEST: usize = 2;
const AT_STORE: usize = 3;

/// Longest that a reader tries while a slot is written: a writer that was stopped in the
/// middle must not hold it up.
const TRIES: u32 = 64;

/// The mapped file, by its parts.
#[derive(Debug)]
pub(crate) struct Layout(pub(crate) Words);

/// One slot.
pub(crate) struct Slot<'a> {
    sequence: &'a AtomicU64,
    branch: &'a AtomicU64,
    head: &'a AtomicU64,
}

impl Layout {
    fn word(&self, index: usize) -> &AtomicU64 {
        // The file has that many words: `Words` is made for no other.
        self.0.get(index)
    }

    pub(crate) fn generation(&self) -> &AtomicU64 {
        self.word(AT_GENERATION)
    }

    pub(crate) fn newest(&self) -> &AtomicU64 {
        self.word(AT_NEWEST)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.word(0).load(Ordering::Acquire) == MAGIC
    }

    pub(crate) fn store(&self) -> [u64; 2] {
        [AT_STORE, AT_STORE + 1].map(|at| self.word(at).load(Ordering::Relaxed))
    }

    pub(crate) fn set_store(&self, store: [u64; 2]) {
        for (at, half) in (AT_STORE..).zip(store) {
            self.word(at).store(half, Ordering::Relaxed);
        }
    }

    /// The slots in which a branch may be.
    pub(crate) fn set_of(&self, branch: u64) -> [Slot<'_>; WAYS] {
        // Fibonacci hashing: ids need not be random.
        let set = (branch.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SET_BITS)) as usize;
        std::array::from_fn(|way| self.slot(set * WAYS + way))
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..WAYS << SET_BITS).map(|index| self.slot(index))
    }

    fn slot(&self, index: usize) -> Slot<'_> {
        let at = LINE * (1 + index);
        Slot { sequence: self.word(at), branch: self.word(at + 1), head: self.word(at + 2) }
    }
}

impl Slot<'_> {
    /// The branch in it, 0 for none: for the writer, who needs no guard.
    pub(crate) fn branch(&self) -> u64 {
        self.branch.load(Ordering::Relaxed)
    }

    /// Branch and head as they were at one moment; `None` where it is being written.
    pub(crate) fn read(&self) -> Option<(u64, u64)> {
        for _ in 0..TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            let seen = (self.branch.load(Ordering::Relaxed), self.head.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return Some(seen);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Writes both. There is one writer.
    pub(crate) fn write(&self, branch: u64, head: u64) {
        // A writer that was killed in the middle left it odd.
        let odd = self.sequence.load(Ordering::Relaxed) | 1;
        self.sequence.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        self.branch.store(branch, Ordering::Relaxed);
        self.head.store(head, Ordering::Relaxed);
        self.sequence.store(odd.wrapping_add(1), Ordering::Release);
    }
}
