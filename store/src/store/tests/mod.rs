//! Tests of the store over its engines.

mod basic;
mod common;
