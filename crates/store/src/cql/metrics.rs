//! What the CQL backend counts.

use linnet_runtime::metrics::{Counter, Family, Gauge, Metrics, SecondsBy};

type Work = [(&'static str, &'static str); 1];
type WorkKind = [(&'static str, &'static str); 2];

#[derive(Clone)]
pub(super) struct CqlMetrics {
    pub(super) seconds: SecondsBy<Work>,
    pub(super) under_way: Family<Work, Gauge>,
    pub(super) errors: Family<WorkKind, Counter>,
    pub(super) refused: Counter,
    pub(super) clock_off: Gauge,
}

impl CqlMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        metrics.scope("store", |scope| Self {
            seconds: scope.seconds_by("cql", "Time of one request to the CQL servers, by class of work"),
            under_way: scope.gauges("cql_under_way", "Requests under way, by class of work"),
            errors: scope.counters(
                "cql_errors",
                "Requests that failed, by class of work and kind: busy (never sent), unavailable (not done), unknown (may be \
                 done), corrupt",
            ),
            refused: scope.counter("cql_refused", "Conditional batches whose guard was not as expected"),
            clock_off: scope.gauge("cql_clock_off_ms", "The servers' clock minus ours, in milliseconds"),
        })
    }
}
