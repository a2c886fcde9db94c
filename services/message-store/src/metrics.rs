//! Every metric of the service, and the owner's accounting law over one-to-one sends.
//!
//! arrived = stored + published only + shaped + refused + dropped by webhook + duplicate + unknown + pending. Every send is
//! counted when it arrives and once more when it ends; no term is a difference. Group messages are counted by the group.

use std::sync::Arc;

use linnet_proto::messages::StatsReply;
use linnet_proto::msg::{Outcome, SendReply};
use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Family, Gauge, Histogram};

use crate::error::{Error, Result};

type By = [(&'static str, &'static str); 1];

/// Handles; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    arrived: Counter,
    ended: Family<By, Counter>,
    pending: Gauge,
    open_logs: Gauge,
    appended: Counter,
    append: Histogram,
    batch: Histogram,
    claims: Counter,
    deposed: Counter,
    settled: Counter,
    busy: Counter,
    tail: Family<By, Counter>,
    events: Counter,
    effects_retried: Counter,
}

/// What became of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Stored,
    Published,
    Shaped,
    Refused,
    Dropped,
    Duplicate,
    Unknown,
}

impl Term {
    fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Published => "published_only",
            Self::Shaped => "shaped",
            Self::Refused => "refused",
            Self::Dropped => "dropped_by_webhook",
            Self::Duplicate => "duplicate",
            Self::Unknown => "unknown",
        }
    }

    /// The term of a finished send.
    pub(crate) fn of(outcome: &Result<SendReply>) -> Self {
        match outcome {
            Err(Error::Unknown) => Self::Unknown,
            Err(_) => Self::Refused,
            Ok(reply) if reply.duplicate => Self::Duplicate,
            Ok(reply) => match reply.outcome() {
                Outcome::Stored | Outcome::Blocked => Self::Stored,
                Outcome::Published => Self::Published,
                Outcome::Shaped => Self::Shaped,
                Outcome::Dropped => Self::Dropped,
                Outcome::Unspecified => Self::Unknown,
            },
        }
    }
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let inner = metrics.scope("message_store", |scope| Inner {
            arrived: scope.counter("arrived", "One-to-one sends that arrived"),
            ended: scope.counters("ended", "One-to-one sends that ended, by what became of them"),
            pending: scope.gauge("pending", "One-to-one sends that arrived and have not ended"),
            open_logs: scope.gauge("open_logs", "Conversations this node holds in memory"),
            appended: scope.counter("appended", "Messages appended to logs"),
            append: scope.seconds("append", "Time of one conditional batch"),
            batch: scope.histogram("batch_messages", "Messages in one batch", [1., 2., 4., 8., 12., 16., 20.]),
            claims: scope.counter("claims", "Epochs raised at activation"),
            deposed: scope.counter("deposed", "Conversations lost to another owner"),
            settled: scope.counter("settled", "Writes of unknown outcome that were settled by a claim"),
            busy: scope.counter("busy", "Commands refused because a mailbox was full"),
            tail: scope.counters("tail_reads", "History pages by where they were found"),
            events: scope.counter("events", "Webhook events derived from logs"),
            effects_retried: scope.counter("effects_retried", "Rounds of side effects that had to be repeated"),
        });
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn arrive(&self) {
        self.inner.arrived.inc();
        self.inner.pending.inc();
    }

    pub(crate) fn end(&self, term: Term) {
        self.inner.ended.get_or_create(&[("outcome", term.label())]).inc();
        self.inner.pending.dec();
    }

    pub(crate) fn opened(&self) {
        self.inner.open_logs.inc();
    }

    pub(crate) fn closed(&self) {
        self.inner.open_logs.dec();
    }

    pub(crate) fn appended(&self, messages: usize, seconds: f64) {
        self.inner.appended.inc_by(messages as u64);
        self.inner.batch.observe(messages as f64);
        self.inner.append.observe(seconds);
    }

    pub(crate) fn claimed(&self) {
        self.inner.claims.inc();
    }

    pub(crate) fn deposed(&self) {
        self.inner.deposed.inc();
    }

    pub(crate) fn settled(&self) {
        self.inner.settled.inc();
    }

    pub(crate) fn busy(&self) {
        self.inner.busy.inc();
    }

    pub(crate) fn page(&self, from_tail: bool) {
        let found = if from_tail { "memory" } else { "store" };
        self.inner.tail.get_or_create(&[("from", found)]).inc();
    }

    pub(crate) fn events(&self, count: usize) {
        self.inner.events.inc_by(count as u64);
    }

    pub(crate) fn effects_retried(&self) {
        self.inner.effects_retried.inc();
    }

    fn ended(&self, term: Term) -> u64 {
        self.inner.ended.get_or_create(&[("outcome", term.label())]).get()
    }

    /// The law, term by term.
    pub(crate) fn stats(&self) -> StatsReply {
        let gauge = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        StatsReply {
            arrived: self.inner.arrived.get(),
            stored: self.ended(Term::Stored),
            published_only: self.ended(Term::Published),
            shaped: self.ended(Term::Shaped),
            refused: self.ended(Term::Refused),
            dropped_by_webhook: self.ended(Term::Dropped),
            duplicate: self.ended(Term::Duplicate),
            unknown_outcome: self.ended(Term::Unknown),
            pending: gauge(&self.inner.pending),
            open_logs: gauge(&self.inner.open_logs),
            ..StatsReply::default()
        }
    }
}

/// One send from its arrival to its end; a send whose task is dropped ends as unknown.
pub(crate) struct Account {
    meters: Meters,
    ended: bool,
}

impl Account {
    pub(crate) fn arrive(meters: &Meters) -> Self {
        meters.arrive();
        Self { meters: meters.clone(), ended: false }
    }

    pub(crate) fn end(mut self, term: Term) {
        self.ended = true;
        self.meters.end(term);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.ended {
            self.meters.end(Term::Unknown);
        }
    }
}
