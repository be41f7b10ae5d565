//! SQLite's file format: what of it Interleaf must understand.
