//! FoundationDB's client library, opened at run time, and its network's life.
//!
//! The `foundationdb` crate links `libfdb_c`, and a program that links it does
//! not start on a machine without it. This crate offers the linker a static
//! archive of that name instead: one jump per function, through a table that
//! [`load`] fills with the functions of the library it opens. Nothing but the
//! linker is told, and the `foundationdb` crate is used as it is.
//!
//! Call [`start`] before anything of the `foundationdb` crate, and [`check`]
//! where the process may have been forked. A call made earlier harms nothing: it
//! answers error 2200 ("API version is not set") or null, and so the first step
//! of every use, selecting the API version, fails.

#![allow(unsafe_code)] // Filling the table and starting the network is this crate's purpose.

mod library;
mod network;

pub use library::{
    API_VERSION, LIBRARY_NAME, LIBRARY_VARIABLE, LoadError, Loaded, default_library, load, loaded,
};
pub use network::{Forked, NetworkError, Started, check, start};
