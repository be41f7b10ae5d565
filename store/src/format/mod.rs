//! Keys and records: `docs/format.md` in code.
