//! Interleaf's client-server protocol: frames, messages, the synchronous client, and
//! [`connect`]: from a store URL to a [`Backend`](interleaf_store::api::Backend).
//!
//! `docs/protocol.md` gives every byte. Layers, downwards only:
//!
//! ```text
//! connect  ->  client (pool, retry)  ->  socket, frame  ->  message (codec)
//! ```
//!
//! Nothing here starts a thread: a process that loads the VFS may fork at any time.

pub mod client;
pub mod connect;
pub mod frame;
pub mod limits;
pub mod looks;
pub mod marker;
pub mod message;

pub use client::{Client, ClientOptions, Endpoint};
pub use connect::{ConnectOptions, connect};
