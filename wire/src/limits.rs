//! Limits of the protocol, each with its unit, and how they fit together.

use interleaf_store::api::{MAX_BEGIN_CHANGES, MAX_READ_PAGES};
use interleaf_store::types::{ContentHash, PageSize, Version};

/// The protocol version spoken here.
pub const PROTOCOL_VERSION: u16 = 1;

/// First bytes of a client's hello.
pub const MAGIC: [u8; 4] = *b"ILF1";

/// Longest body of a frame, in bytes.
pub const MAX_BODY: usize = 16 << 20;

/// Bytes of a frame before its body: length, request id, message type.
pub const HEADER_LEN: usize = 13;

/// What the length field of a frame counts besides the body: request id and message type.
pub const LENGTH_OVERHEAD: usize = 9;

/// Most bytes of pages that the server puts into one reply to a read.
pub const READ_REPLY_BYTES: usize = 8 << 20;

/// Most bytes of items that the server puts into one reply to a list or a log request,
/// the last item excepted.
pub const LIST_REPLY_BYTES: usize = 4 << 20;

/// Most bytes of pages that a client puts into one request: what is more goes ahead, staged.
pub const STAGE_REQUEST_BYTES: usize = 8 << 20;

/// Longest `software` text of a hello, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 128;

/// Longest path of a file in a hello, in bytes: the system's own limit.
pub const MAX_PATH_BYTES: usize = 4096;

/// Longest name of a machine's run in a hello, in bytes.
pub const MAX_BOOT_BYTES: usize = 64;

/// Longest `client` text of a commit, in bytes.
pub const MAX_CLIENT_BYTES: usize = 64;

/// Longest text within an error, in bytes; a longer one is cut.
pub const MAX_ERROR_TEXT_BYTES: usize = 4096;

/// Most parts (attached databases) of one commit: SQLite's own limit is 125.
pub const MAX_COMMIT_PARTS: usize = 126;

/// Longest time a request may ask the server to work, in milliseconds: one day.
pub const MAX_WAIT_MS: u32 = 86_400_000;

/// Bytes of one page in a reply to a read, beside its content.
const PAGE_READ_OVERHEAD: usize = Version::LEN + ContentHash::LEN + 5;

// A full reply to a read, and one more page than its budget, fit a frame.
const _: () = assert!(
    READ_REPLY_BYTES + PageSize::MAX.len() + MAX_READ_PAGES * PAGE_READ_OVERHEAD + 64 <= MAX_BODY
);
// A begin's changes fit a frame, each page in a commit of its own.
const _: () = assert!(MAX_BEGIN_CHANGES * (Version::LEN + 5 + 5 + 37) + 128 <= MAX_BODY);
// A full stage request fits a frame, whatever its page size.
const _: () = assert!(
    STAGE_REQUEST_BYTES + STAGE_REQUEST_BYTES / PageSize::MIN.len() * 9 + PageSize::MAX.len() + 64
        <= MAX_BODY
);
// A list's reply leaves room for its last item, however large one of usual size is.
const _: () = assert!(LIST_REPLY_BYTES * 2 <= MAX_BODY);
