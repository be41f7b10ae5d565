//! Messages: the requests and replies of `store::api`, and their bytes.
//!
//! `docs/protocol.md` has a table for each. Decoders never panic and never allocate more
//! than a small multiple of what they were given.

mod error;
mod field;
mod hello;
mod reply;
mod request;

#[cfg(test)]
mod tests;

pub use hello::{CAN_SHARE_HEADS, ClientHello, ServerHello};
pub use reply::{DatabasePage, LogPage, Reply};
pub use request::{Request, RequestKind};

/// Message type of an error reply: the same in every protocol version.
pub const KIND_ERROR: u8 = 0xff;

/// Message type of a client's hello: the same in every protocol version.
pub const KIND_HELLO: u8 = 0x01;

/// Message type of a server's hello: the same in every protocol version.
pub const KIND_HELLO_REPLY: u8 = 0x81;
