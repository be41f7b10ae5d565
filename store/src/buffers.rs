//! Memory for pages of SQLite's default size, used again.
//!
//! Every commit leaves two copies of each page behind for a while: in the engine's write
//! buffer, which goes as a whole when it is written out, and in a page cache. Through the
//! allocator that is memory given back to the system and cleared by it anew, page by page.

use std::sync::Mutex;

use bytes::Bytes;

/// A page of 4096 bytes, with what stands before it in a record.
const BUFFER_BYTES: usize = 4096 + 8;

/// Contents smaller than this are left to the allocator.
const LEAST_BYTES: usize = 4096;

/// Buffers kept while nobody uses them: 16 MiB, about an engine's write buffer of content.
const MOST_KEPT: usize = 4096;

/// Only ever tried: whoever finds it locked, perhaps by a thread that a fork left behind,
/// goes to the allocator.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer that comes back.
struct Buffer(Vec<u8>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(mut kept) = KEPT.try_lock()
            && kept.len() < MOST_KEPT
        {
            kept.push(std::mem::take(&mut self.0));
        }
    }
}

/// `head` and `tail`, one behind the other, in memory of their own.
#[must_use]
pub fn joined(head: &[u8], tail: &[u8]) -> Bytes {
    let len = head.len() + tail.len();
    if !(LEAST_BYTES..=BUFFER_BYTES).contains(&len) {
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(tail);
        return bytes.into();
    }
    let kept = KEPT.try_lock().ok().and_then(|mut kept| kept.pop());
    let mut buffer = kept.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
    buffer.clear();
    buffer.extend_from_slice(head);
    buffer.extend_from_slice(tail);
    Bytes::from_owner(Buffer(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_stays_while_buffers_come_and_go() {
        for len in [0, 1, 512, 4095, 4096, 4104, 4105, 65_536] {
            let mut held = Vec::new();
            for n in 0..20u8 {
                let bytes = joined(&[n], &vec![n ^ 1; len]);
                drop(joined(&[9; 9], &vec![9; len]));
                held.push((n, bytes.slice(1..), bytes));
            }
            for (n, tail, bytes) in held {
                assert_eq!((bytes.len(), bytes[0]), (len + 1, n));
                assert!(tail.len() == len && tail.iter().all(|&byte| byte == n ^ 1), "{len}");
            }
        }
    }
}
