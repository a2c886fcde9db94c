//! Counters of the service.

use linnet_outbound::Reason;
use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Family, Gauge, Histogram};

type Label = [(&'static str, &'static str); 1];

/// Why somebody is not pushed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    Online,
    Muted,
    Quiet,
    NoDevice,
    /// Too old by the time it could be planned.
    Expired,
    /// The app has no provider, or is gone.
    Off,
}

impl Skip {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Muted => "muted",
            Self::Quiet => "quiet",
            Self::NoDevice => "no_device",
            Self::Expired => "expired",
            Self::Off => "off",
        }
    }
}

#[derive(Clone)]
pub(crate) struct Meters {
    planned: Family<Label, Counter>,
    skipped: Family<Label, Counter>,
    receivers: Counter,
    sent: Counter,
    failed: Family<Label, Counter>,
    buried: Counter,
    pub(crate) invalid_tokens: Counter,
    pub(crate) retried: Counter,
    pub(crate) delay: Histogram,
    waiting: Family<Label, Gauge>,
    oldest: Family<Label, Gauge>,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.scope("push", |scope| Self {
            planned: scope.counters("planned", "notifications planned, by what they are"),
            skipped: scope.counters("skipped", "users that were not pushed to, by why"),
            receivers: scope.counter("receivers", "receivers of notifications planned"),
            sent: scope.counter("sent", "requests that a provider took"),
            failed: scope.counters("failed", "requests that a provider did not take, by why"),
            buried: scope.counter("dead_letters", "batches given up"),
            invalid_tokens: scope.counter("invalid_tokens", "tokens removed because a provider named them"),
            retried: scope.counter("plans_retried", "plans put off because another service could not be asked"),
            delay: scope.seconds("delay", "from the newest message of a request until a provider took it"),
            waiting: scope.gauges("waiting", "work waiting on this node, by queue"),
            oldest: scope.gauges("oldest_seconds", "age of the oldest work waiting on this node, by queue"),
        })
    }

    pub(crate) fn planned(&self, kind: &'static str, receivers: usize) {
        self.planned.get_or_create(&[("kind", kind)]).inc();
        self.receivers.inc_by(receivers as u64);
    }

    pub(crate) fn skipped(&self, why: Skip, users: usize) {
        if users > 0 {
            self.skipped.get_or_create(&[("why", why.label())]).inc_by(users as u64);
        }
    }

    pub(crate) fn sent(&self) {
        self.sent.inc();
    }

    pub(crate) fn failed(&self, reason: Reason) {
        self.failed.get_or_create(&[("reason", reason.label())]).inc();
    }

    pub(crate) fn buried(&self) {
        self.buried.inc();
    }

    pub(crate) fn waiting(&self, queue: &'static str, depth: usize, oldest_s: u64) {
        self.waiting.get_or_create(&[("queue", queue)]).set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.oldest.get_or_create(&[("queue", queue)]).set(i64::try_from(oldest_s).unwrap_or(i64::MAX));
    }
}
