//! The group module.
