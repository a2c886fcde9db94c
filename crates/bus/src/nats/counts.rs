//! What is counted about the bus.

use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Family, Gauge};

type Why = [(&'static str, &'static str); 1];

#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) connected: Gauge,
    pub(crate) connects: Counter,
    pub(crate) published: Counter,
    pub(crate) published_bytes: Counter,
    pub(crate) delivered: Counter,
    pub(crate) delivered_bytes: Counter,
    pub(crate) dropped: Counter,
    pub(crate) slow: Counter,
    pub(crate) holes: Counter,
    pub(crate) server_errors: Counter,
    unsent: Family<Why, Counter>,
    lost: Family<Why, Counter>,
}

impl Counts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.scope("bus", |scope| Self {
            connected: scope.gauge("connected", "Whether this node has a connection to the bus"),
            connects: scope.counter("connects", "Connections made; more than one are reconnects"),
            published: scope.counter("published", "Messages published"),
            published_bytes: scope.counter("published_bytes", "Payload bytes published"),
            delivered: scope.counter("delivered", "Messages put into a subscriber's queue"),
            delivered_bytes: scope.counter("delivered_bytes", "Payload bytes put into a subscriber's queue"),
            dropped: scope.counter("slow_consumer_dropped", "Messages lost because a subscriber's queue was full"),
            slow: scope
                .counter("slow_consumers", "Times the client or the server said that this node reads too slowly"),
            holes: scope.counter("holes", "Times a subscription was told that messages are missing, queues aside"),
            server_errors: scope.counter("server_errors", "Errors the server sent, such as a subject not permitted"),
            unsent: scope.counters("unsent", "Messages that were not sent, by reason"),
            lost: scope.counters("faults_lost", "Messages thrown away on an operator's order, by direction"),
        })
    }

    pub(crate) fn unsent(&self, why: &'static str) {
        self.unsent.get_or_create(&[("reason", why)]).inc();
    }

    pub(crate) fn lost(&self, direction: &'static str) {
        self.lost.get_or_create(&[("direction", direction)]).inc();
    }
}
