//! Interleaf for unchanged programs: `LD_PRELOAD=libinterleaf_preload.so program`.
//!
//! The library stands in front of six functions of SQLite's interface and does two things:
//!
//! * before a program's first open it registers the Interleaf VFS, as the default, in the
//!   very copy of SQLite that the caller uses (`open`). Nothing runs before that: a
//!   process that never opens a database, and every child that inherits `LD_PRELOAD`, pays
//!   for the mapping of this file and nothing else. What an open means is not changed: the
//!   arguments go to SQLite as they came, and an explicit VFS stays the one used;
//! * a single statement in autocommit mode that ends in a conflict (SQLITE_BUSY_SNAPSHOT)
//!   is run again (`retry`), since nobody but its own text knows that it ran. A
//!   transaction of several statements is the program's to repeat.
//!
//! Everything else goes through. Which copy of SQLite is asked is found by the address of
//! the caller (`copies`): one process may hold several.
//!
//! **Rule.** The host is never aborted: no panic leaves this library, a copy that cannot be
//! found is an error code.

mod backoff;
mod caller;
mod copies;
mod host;
mod nesting;
mod open;
mod retry;
mod sql;
mod symbols;
