//! The fjall module.
