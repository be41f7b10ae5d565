//! The protocol between clients and `interleaf serve`.
