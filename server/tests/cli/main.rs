//! The command line as a user sees it: each test runs the program on a store of its own.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is how a test fails"
)]

mod catalog;
mod export;
mod import;
mod programs;
mod support;
mod usage;
mod verify;
mod versions;
