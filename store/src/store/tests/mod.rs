//! Tests of the store over its engines.

mod basic;
mod branches;
mod catalog;
pub(super) mod common;
mod deltas;
mod faults;
mod history;
mod large;
mod memory;
mod model;
mod refusals;
mod staging;
mod submitted;
mod transfers;
mod world;
