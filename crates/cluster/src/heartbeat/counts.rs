//! What is counted about membership.

use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Gauge};

#[derive(Debug)]
pub(super) struct Counts {
    pub(super) live: Gauge,
    pub(super) version: Gauge,
    pub(super) frozen: Gauge,
    pub(super) clock_behind: Gauge,
    pub(super) sent: Counter,
    pub(super) heard: Counter,
    pub(super) skipped: Counter,
    pub(super) dead: Counter,
    pub(super) foreign: Counter,
    pub(super) conflicts: Counter,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        metrics.scope("members", |scope| Self {
            live: scope.gauge("live", "Nodes this node takes for alive, itself among them"),
            version: scope.gauge("ring_version", "Version of the rings, which rises with every change"),
            frozen: scope.gauge("frozen", "Whether deaths are held back: no connection, or too many silent at once"),
            clock_behind: scope
                .gauge("clock_behind_ms", "How far this node's wall clock is behind those of most nodes"),
            sent: scope.counter("beats_sent", "Signs of life sent"),
            heard: scope.counter("beats_heard", "Signs of life of other nodes heard"),
            skipped: scope.counter("beats_skipped", "Signs of life not sent because this process made no progress"),
            dead: scope.counter("deaths", "Nodes taken for dead"),
            foreign: scope.counter("beats_foreign", "Signs of life of other clusters, ignored"),
            conflicts: scope.counter("conflicts", "Signs of life of a process whose node id another one has"),
        })
    }
}
