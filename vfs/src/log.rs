//! One line on stderr, by `INTERLEAF_LOG`.
//!
//! Not a `tracing` subscriber: this code lives in somebody else's process, whose own
//! subscriber it must neither need nor replace.

use std::io::Write;

use crate::config::LogLevel;

/// Writes a line where `level` is at most `limit`.
pub fn line(limit: LogLevel, level: LogLevel, text: &str) {
    if level > limit || level == LogLevel::Off {
        return;
    }
    let name = match level {
        LogLevel::Off => return,
        LogLevel::Error => "error",
        LogLevel::Warn => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    let whole = format!("interleaf: {name}: {}\n", text.replace('\n', " "));
    // A process without a stderr is no reason to fail, and there is nobody left to tell.
    drop(std::io::stderr().lock().write_all(whole.as_bytes()));
}
