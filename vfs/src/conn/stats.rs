//! Counters of one connection: `PRAGMA interleaf_stats`.

use serde_json::json;

/// What a connection did since it was opened.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Times it waited for a server or a store outside the process.
    pub round_trips: u64,
    /// Pages read from the store, read ahead included.
    pub pages_read: u64,
    /// Pages that SQLite asked for and the process had.
    pub cache_hits: u64,
    /// Commits that took effect.
    pub commits: u64,
    /// Commits that conflicted.
    pub conflicts: u64,
    /// Transactions that the preload library ran again.
    pub retries: u64,
    /// The last error's reason.
    pub last_error: Option<String>,
}

impl Stats {
    /// Adds what another file of the same connection counted.
    pub fn add(&mut self, other: Self) {
        self.round_trips += other.round_trips;
        self.pages_read += other.pages_read;
        self.cache_hits += other.cache_hits;
        self.commits += other.commits;
        self.conflicts += other.conflicts;
        self.retries += other.retries;
        self.last_error = other.last_error.or(self.last_error.take());
    }

    /// The JSON object that the pragma answers.
    #[must_use]
    pub fn to_json(&self) -> String {
        json!({
            "round_trips": self.round_trips,
            "pages_read": self.pages_read,
            "cache_hits": self.cache_hits,
            "commits": self.commits,
            "conflicts": self.conflicts,
            "retries": self.retries,
            "last_error": self.last_error,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_the_last_error_stays() {
        let mut a = Stats { commits: 1, last_error: Some("x".into()), ..Stats::default() };
        a.add(Stats { commits: 2, ..Stats::default() });
        assert_eq!((a.commits, a.last_error.as_deref()), (3, Some("x")));
        let text = a.to_json();
        assert!(text.contains("\"commits\":3") && text.contains("\"last_error\":\"x\""), "{text}");
    }
}
