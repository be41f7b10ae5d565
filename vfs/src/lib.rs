//! The SQLite VFS.

pub mod config;
mod glob;
pub mod names;
