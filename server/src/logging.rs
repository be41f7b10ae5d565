//! Log lines on stderr, at the level that `INTERLEAF_LOG` asks for.

use interleaf_vfs::config::LogLevel;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging. A second call changes nothing.
pub fn init(level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // An error means that a subscriber is there already: the first one stays.
    drop(
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .with_target(false)
            // It would say on stderr, and panic there, what stderr does not take: as where
            // that is a file on a full disk.
            .log_internal_errors(false)
            .try_init(),
    );
}
