//! What the server counts, in Prometheus' text format.

use std::time::Duration;

use interleaf_store::Error;
use interleaf_store::api::StoreStatus;
use interleaf_wire::message::{Reply, RequestKind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    kind: &'static str,
    result: &'static str,
}

type Seconds = Family<ByKind, Histogram, fn() -> Histogram>;

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    /// Connections now open.
    pub connections: Gauge,
    /// Connections ever accepted.
    pub accepted: Counter,
    /// Connections refused: there were too many.
    pub refused: Counter,
    /// Connections closed because their client broke the protocol.
    pub faults: Counter,
    /// Bytes of frames received.
    pub bytes_in: Counter,
    /// Bytes of frames sent.
    pub bytes_out: Counter,
    requests: Family<ByResult, Counter>,
    seconds: Seconds,
    commits: Counter,
    conflicts: Counter,
}

/// From 10 microseconds to some 80 seconds.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(10e-6, 2.0, 24))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections: Gauge::default(),
            accepted: Counter::default(),
            refused: Counter::default(),
            faults: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(latencies),
            commits: Counter::default(),
            conflicts: Counter::default(),
        }
    }
}

impl Metrics {
    /// Counts a reply.
    pub fn answered(&self, kind: RequestKind, reply: &Reply, took: Duration) {
        let result = match reply {
            Reply::Error(Error::Conflict { .. }) => {
                self.conflicts.inc();
                "conflict"
            }
            Reply::Error(_) => "error",
            _ => "ok",
        };
        if let Reply::Committed(_) = reply {
            self.commits.inc();
        }
        self.requests.get_or_create(&ByResult { kind: kind.label(), result }).inc();
        self.seconds.get_or_create(&ByKind { kind: kind.label() }).observe(took.as_secs_f64());
    }

    /// All of it and the store's own numbers as text.
    ///
    /// # Errors
    /// Those of formatting, which a `String` does not have.
    pub fn text(&self, status: StoreStatus) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("interleaf");
        let r = &mut registry;
        r.register("connections", "Connections now open", self.connections.clone());
        r.register("connections_accepted", "Connections accepted", self.accepted.clone());
        r.register("connections_refused", "Connections too many", self.refused.clone());
        r.register("protocol_faults", "Connections that broke the protocol", self.faults.clone());
        r.register("received_bytes", "Bytes of frames received", self.bytes_in.clone());
        r.register("sent_bytes", "Bytes of frames sent", self.bytes_out.clone());
        r.register("requests", "Requests answered", self.requests.clone());
        r.register("request_seconds", "Time from request to reply", self.seconds.clone());
        r.register("commits", "Commits that took effect", self.commits.clone());
        r.register("conflicts", "Commits that met a conflict", self.conflicts.clone());
        r.register_collector(Box::new(StoreNumbers(status)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// The numbers of `interleaf status`, as gauges.
#[derive(Debug)]
struct StoreNumbers(StoreStatus);

impl Collector for StoreNumbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, number) in &self.0.numbers {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            let name = format!("store_{}", name.chars().map(plain).collect::<String>());
            let gauge = ConstGauge::<u64>::new(*number);
            let metric = encoder.encode_descriptor(
                &name,
                "As in interleaf status",
                None,
                gauge.metric_type(),
            )?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_counted_and_the_stores_numbers() {
        let metrics = Metrics::default();
        let conflict = Reply::Error(Error::Conflict { what: "page 1".into() });
        metrics.answered(RequestKind::Commit, &conflict, Duration::from_micros(100));
        metrics.answered(RequestKind::Begin, &Reply::Done, Duration::from_micros(5));
        let status =
            StoreStatus { numbers: [("disk.bytes".into(), 77)].into(), ..Default::default() };
        let text = metrics.text(status).unwrap();
        for line in [
            "interleaf_requests_total{kind=\"commit\",result=\"conflict\"} 1",
            "interleaf_conflicts_total 1",
            "interleaf_commits_total 0",
            "interleaf_request_seconds_count{kind=\"begin\"} 1",
            "interleaf_store_disk_bytes 77",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in:\n{text}");
        }
    }
}
