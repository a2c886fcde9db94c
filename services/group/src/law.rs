//! The owner's accounting law, and every other metric of the service.
//!
//! arrived = stored + published only + shaped + refused + dropped by webhook + duplicate + unknown + pending. A send is
//! counted when it arrives and once more when it ends, also if its caller is gone by then; no term is a difference.

use linnet_proto::group::StatsReply;
use linnet_proto::msg::{Outcome, SendReply};
use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Gauge, Histogram};
use linnet_types::Refusal;

/// Counters of one node.
#[derive(Clone, Debug)]
pub(crate) struct Law {
    arrived: Counter,
    stored: Counter,
    published_only: Counter,
    shaped: Counter,
    refused: Counter,
    dropped_by_webhook: Counter,
    duplicate: Counter,
    unknown: Counter,
    pending: Gauge,
    /// Groups in memory.
    pub(crate) active: Gauge,
    /// Time of one append.
    pub(crate) append: Histogram,
    /// Best-effort webhooks that could not be handed over.
    pub(crate) posts_lost: Counter,
    /// Tips an owner before had announced with a change and not stored.
    pub(crate) tips_finished: Counter,
}

impl Law {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.scope("group", |scope| Self {
            arrived: scope.counter("sends_arrived", "messages that arrived"),
            stored: scope.counter("sends_stored", "messages stored in a log"),
            published_only: scope.counter("sends_published_only", "messages delivered without being stored"),
            shaped: scope.counter("sends_shaped", "messages dropped by the rate of their group"),
            refused: scope.counter("sends_refused", "messages refused"),
            dropped_by_webhook: scope.counter("sends_dropped_by_webhook", "messages the app's server dropped"),
            duplicate: scope.counter("sends_duplicate", "retries answered with the first outcome"),
            unknown: scope.counter("sends_unknown", "messages whose outcome could not be told"),
            pending: scope.gauge("sends_pending", "messages that arrived and have not ended"),
            active: scope.gauge("active", "groups in memory"),
            append: scope.seconds("append_seconds", "time of one append to a log"),
            posts_lost: scope.counter("posts_lost", "best-effort webhooks that could not be handed over"),
            tips_finished: scope.counter("tips_finished", "tips stored for an owner that died before it came to them"),
        })
    }

    /// A message arrived.
    pub(crate) fn begin(&self) {
        self.arrived.inc();
        self.pending.inc();
    }

    /// It ended. `unknown`: it may be stored or not.
    pub(crate) fn end(&self, outcome: &Result<SendReply, Refusal>, unknown: bool) {
        let term = match outcome {
            Err(_) if unknown => &self.unknown,
            Err(_) => &self.refused,
            Ok(reply) if reply.duplicate => &self.duplicate,
            Ok(reply) => match reply.outcome() {
                Outcome::Stored => &self.stored,
                Outcome::Shaped => &self.shaped,
                Outcome::Dropped => &self.dropped_by_webhook,
                Outcome::Published | Outcome::Blocked | Outcome::Unspecified => &self.published_only,
            },
        };
        term.inc();
        self.pending.dec();
    }

    pub(crate) fn stats(&self) -> StatsReply {
        StatsReply {
            arrived: self.arrived.get(),
            stored: self.stored.get(),
            published_only: self.published_only.get(),
            shaped: self.shaped.get(),
            refused: self.refused.get(),
            dropped_by_webhook: self.dropped_by_webhook.get(),
            duplicate: self.duplicate.get(),
            unknown_outcome: self.unknown.get(),
            pending: u64::try_from(self.pending.get()).unwrap_or_default(),
            active_groups: u64::try_from(self.active.get()).unwrap_or_default(),
            ..StatsReply::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_one_term_and_the_sum_is_exact() {
        let law = Law::new(&Metrics::new());
        let reply =
            |outcome: Outcome, duplicate| Ok(SendReply { outcome: outcome.into(), duplicate, ..SendReply::default() });
        let ends = [
            (reply(Outcome::Stored, false), false),
            (reply(Outcome::Stored, true), false),
            (reply(Outcome::Published, false), false),
            (reply(Outcome::Shaped, false), false),
            (reply(Outcome::Dropped, false), false),
            (Err(Refusal::new(1, "")), false),
            (Err(Refusal::new(1, "")), true),
        ];
        for (outcome, unknown) in &ends {
            law.begin();
            law.end(outcome, *unknown);
        }
        law.begin();
        let s = law.stats();
        let ended = [s.stored, s.duplicate, s.published_only, s.shaped, s.dropped_by_webhook, s.refused];
        assert_eq!(ended, [1; 6]);
        assert_eq!((s.unknown_outcome, s.pending), (1, 1));
        assert_eq!(s.arrived, ended.iter().sum::<u64>() + s.unknown_outcome + s.pending);
    }
}
