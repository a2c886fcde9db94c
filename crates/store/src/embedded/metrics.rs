//! What the embedded backend counts.

use linnet_runtime::metrics::{Counter, Gauge, Histogram, Metrics};

#[derive(Clone)]
pub(super) struct StoreMetrics {
    pub(super) commits: Counter,
    pub(super) refused: Counter,
    pub(super) bytes: Counter,
    pub(super) swept: Counter,
    pub(super) requests_per_commit: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) stopped: Gauge,
    pub(super) damaged: Counter,
}

impl StoreMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        metrics.scope("store", |scope| Self {
            commits: scope.counter("commits", "Commits, each one write and one fsync"),
            refused: scope.counter("refused", "Conditional batches whose guard was not as expected"),
            bytes: scope.counter("written_bytes", "Bytes of keys and values committed"),
            swept: scope.counter("swept", "Expired rows removed"),
            requests_per_commit: scope.histogram(
                "requests_per_commit",
                "Batches merged into one commit",
                [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0],
            ),
            commit_seconds: scope.seconds("commit", "Time of one commit: write, fsync, apply"),
            stopped: scope.gauge("stopped", "1 when a failed write has ended writing until the next start"),
            damaged: scope.counter("damaged_files", "Table files found damaged after the start"),
        })
    }
}
