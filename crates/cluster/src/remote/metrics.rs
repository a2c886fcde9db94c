//! What is counted about connections.

use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Family, Gauge, Histogram};

use crate::service::Service;

type ByService = [(&'static str, &'static str); 1];
type ByOutcome = [(&'static str, &'static str); 2];
type ByReason = [(&'static str, &'static str); 1];

/// Bounds of items per frame.
const BATCH: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0];

#[derive(Clone, Debug)]
pub(super) struct LinkMetrics {
    up: Family<ByService, Gauge>,
    connects: Family<ByOutcome, Counter>,
    overflow: Family<ByService, Counter>,
    refused: Family<ByReason, Counter>,
    /// Calls or replies in one frame.
    pub(super) batch: Histogram,
    /// Connections other processes have to this one.
    pub(super) inbound: Gauge,
    /// End of this process's certificate.
    pub(super) expiry: Gauge,
    reloads: Family<ByReason, Counter>,
}

impl LinkMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        metrics.scope("rpc", |scope| Self {
            up: scope.gauges("links_up", "Streams to other nodes that carry calls, by target service"),
            connects: scope.counters("link_connects", "Attempts to reach another node, by target service and outcome"),
            overflow: scope.counters("link_overflow", "Calls refused because too many waited for the connection"),
            refused: scope.counters("peers_refused", "Peers and calls of theirs that were refused, by reason"),
            batch: scope.histogram("link_batch_items", "Calls or replies that shared a frame", BATCH),
            inbound: scope.gauge("inbound_connections", "Connections of other nodes to this one"),
            expiry: scope.gauge("certificate_expiry_timestamp_seconds", "End of this node's certificate (Unix time)"),
            reloads: scope
                .counters("certificate_reloads", "Certificates read again because a file changed, by outcome"),
        })
    }

    pub(super) fn up(&self, service: Service) -> Gauge {
        self.up.get_or_create(&[("service", service.name())]).clone()
    }

    pub(super) fn connected(&self, service: Service, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.connects.get_or_create(&[("service", service.name()), ("outcome", outcome)]).inc();
    }

    pub(super) fn overflowed(&self, service: Service) {
        self.overflow.get_or_create(&[("service", service.name())]).inc();
    }

    /// `reason` is one of `certificate`, `cluster`, `node`, `role`, `busy`.
    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn reloaded(&self, ok: bool) {
        self.reloads.get_or_create(&[("outcome", if ok { "ok" } else { "failed" })]).inc();
    }
}
