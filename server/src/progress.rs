//! A progress bar on a terminal, nothing elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bytes done of bytes to do, with the time it takes.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    bytes: u64,
}

impl Progress {
    /// A bar over `total` bytes, on stderr where that is a terminal.
    pub fn new(what: &str, total: u64, now: Instant) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} \
                        {decimal_bytes_per_sec} {eta}";
        // The template is a constant; were it wrong, the default style would do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        Self { bar, started: now, bytes: 0 }
    }

    /// So many more bytes are done.
    pub fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bar.inc(bytes);
    }

    /// Removes the bar; bytes done and time taken.
    pub fn finish(self, now: Instant) -> (u64, Duration) {
        self.bar.finish_and_clear();
        (self.bytes, now.saturating_duration_since(self.started))
    }
}
