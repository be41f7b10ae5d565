//! Connections: everything between SQLite's calls and a store, in safe Rust.
//!
//! ```text
//! handle  ->  session (files, locks)  ->  commit, pragma
//!                |                           |
//!              file  ->  source  ->  page_map, cache  ->  store (Backend)
//!                |         |
//!   write_buffer, spill  pager          journal, super_journal
//! ```

mod ahead;
mod applied;
mod cache;
mod commit;
mod file;
mod handle;
mod journal;
mod page_map;
mod pager;
mod parts;
mod pragma;
mod session;
mod source;
mod spill;
mod stats;
mod store;
pub mod super_journal;
mod write_buffer;

pub use commit::commit_super;
pub use handle::{DatabaseFile, JournalFile, OpenDatabase};
pub use journal::{Temp, TempFile};
pub use session::Session;
pub use store::Connect;
