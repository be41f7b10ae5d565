//! The command line as a user sees it: each test runs the program on a store of its own.

mod catalog;
mod export;
mod import;
mod programs;
mod support;
mod usage;
