//! Interleaf's page store: SQLite pages kept as multi-version, content-addressed
//! records in an ordered key-value store.
//!
//! The crate knows nothing of SQLite's C interface, of sockets or of files named by
//! users. Its layers, downwards only:
//!
//! ```text
//! Backend (api)  <-  Store  ->  format (keys, records)  ->  Kv trait  ->  mem | fjall | fdb | sim
//! ```
//!
//! * [`api`] is what a connection asks of a store, be it in this process ([`Store`]) or
//!   behind a server (the wire client implements the same trait).
//! * [`kv`] is what is asked of an engine: no more than both FoundationDB and an
//!   embedded log-structured tree can promise.
//! * [`format`](mod@format) is the only place that knows a key's or a record's bytes;
//!   `docs/format.md` describes them.
//! * [`sqlite_file`] is the only place that knows SQLite's file format.

pub mod api;
pub mod buffers;
pub mod codec;
pub(crate) mod dir_lock;
pub mod disk_space;
pub mod env;
mod error;
#[macro_use]
pub mod fault;
pub mod format;
pub mod kv;
pub mod sqlite_file;
mod store;
pub mod types;
pub mod url;
pub mod when;

pub use error::{Error, Result};
pub use store::{CommitWork, OnCommit, Store, StoreOptions, Submitted, Tended};
