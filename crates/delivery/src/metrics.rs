//! Counts of the link law: sent = received + reported missing + lost with a dead gateway.

use linnet_runtime::Metrics;
use linnet_runtime::metrics::Counter;

/// Counts of an owner.
#[derive(Clone, Debug)]
pub(crate) struct OwnerMetrics {
    pub(crate) sent: Counter,
    pub(crate) resent: Counter,
    pub(crate) repeats: Counter,
    pub(crate) not_queued: Counter,
    pub(crate) lookups: Counter,
    pub(crate) lookups_failed: Counter,
}

impl OwnerMetrics {
    pub(crate) fn new(metrics: &Metrics, service: &str) -> Self {
        let part = format!("{}_delivery", service.replace('-', "_"));
        metrics.scope(&part, |scope| Self {
            sent: scope.counter("sent", "Batches and frames sent, counted per receiving gateway"),
            resent: scope.counter("resent", "Batches and frames given again to a gateway that missed them"),
            repeats: scope.counter("repeats", "Repeated last numbers sent"),
            not_queued: scope.counter("not_queued", "Bus messages lost because the way to the bus was full or down"),
            lookups: scope.counter("lookups", "Users whose place was asked of the session service"),
            lookups_failed: scope.counter("lookups_failed", "Users whose place could not be learned in time"),
        })
    }
}

/// Counts of a gateway.
#[derive(Clone, Debug)]
pub(crate) struct GatewayMetrics {
    pub(crate) received: Counter,
    pub(crate) missing: Counter,
    pub(crate) asked: Counter,
    pub(crate) doubles: Counter,
    pub(crate) stale: Counter,
    pub(crate) registers: Counter,
    pub(crate) malformed: Counter,
}

impl GatewayMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.scope("gateway_delivery", |scope| Self {
            received: scope.counter("received", "Batches and frames taken in order"),
            missing: scope.counter("missing", "Batches and frames reported missing for good"),
            asked: scope.counter("asked", "Questions for missed batches and frames"),
            doubles: scope.counter("doubles", "Batches and frames that came again"),
            stale: scope.counter("stale", "Batches of a deposed owner"),
            registers: scope.counter("registers", "Registrations of interest"),
            malformed: scope.counter("malformed", "Bus messages that could not be read"),
        })
    }
}
