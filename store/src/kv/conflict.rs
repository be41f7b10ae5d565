//! The conflict module.
