//! The server as its clients and its operator see it: each test runs the program.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is how a test fails"
)]

mod autostart;
mod directory;
mod frames;
mod full;
mod heads;
mod http;
mod large;
mod lifecycle;
mod loss;
mod sharing;
mod support;
