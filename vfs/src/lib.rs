//! The SQLite VFS.
