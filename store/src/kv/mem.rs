//! The mem module.
