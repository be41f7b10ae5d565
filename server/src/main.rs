//! The command `interleaf`.

fn main() {}
