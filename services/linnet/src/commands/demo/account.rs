//! What became of every message of a scene. Each number is counted where it happens; none is made from the others, so
//! that the sums can be wrong and are worth printing.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::commands::text;

/// What a message is, from the most to the least important.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gift,
    Text,
    Like,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Gift, Kind::Text, Kind::Like];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gift => "gift",
            Self::Text => "text",
            Self::Like => "like",
        }
    }

    pub(super) fn priority(self) -> &'static str {
        match self {
            Self::Gift => "High",
            Self::Text => "Normal",
            Self::Like => "Lowest",
        }
    }
}

/// How a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Published,
    Shaped,
    Refused,
    /// No answer came: it may have been published.
    Unanswered,
}

#[derive(Debug, Default)]
struct Sends {
    sent: AtomicU64,
    published: AtomicU64,
    shaped: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
}

/// The counters of a running scene.
#[derive(Debug)]
pub(super) struct Account {
    sends: [Sends; 3],
    received: AtomicU64,
    /// Viewers whose connection ended before the scene did.
    lost: AtomicU64,
    /// From the server's acceptance to a viewer, in milliseconds.
    delay: Mutex<Histogram<u64>>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// sent, published, shaped, refused, unanswered of each kind.
    pub(super) kinds: [[u64; 5]; 3],
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) p50_ms: u64,
    pub(super) p99_ms: u64,
}

impl Account {
    pub(super) fn new() -> Self {
        let delay = Histogram::new_with_bounds(1, 60_000, 2).expect("the bounds are constants");
        Self {
            sends: Default::default(),
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            delay: Mutex::new(delay),
        }
    }

    pub(super) fn sent(&self, kind: Kind) {
        self.sends[kind as usize].sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, kind: Kind, outcome: Outcome) {
        let sends = &self.sends[kind as usize];
        let counter = match outcome {
            Outcome::Published => &sends.published,
            Outcome::Shaped => &sends.shaped,
            Outcome::Refused => &sends.refused,
            Outcome::Unanswered => &sends.unanswered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, delay_ms: u64) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.delay.lock().saturating_record(delay_ms.max(1));
    }

    pub(super) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let kinds = std::array::from_fn(|i| {
            let sends: &Sends = &self.sends[i];
            [&sends.sent, &sends.published, &sends.shaped, &sends.refused, &sends.unanswered].map(load)
        });
        let delay = self.delay.lock();
        let quantile = |q| if delay.is_empty() { 0 } else { delay.value_at_quantile(q) };
        let (p50_ms, p99_ms) = (quantile(0.5), quantile(0.99));
        Totals { kinds, received: load(&self.received), lost: load(&self.lost), p50_ms, p99_ms }
    }
}

impl Totals {
    fn sum(&self, term: usize) -> u64 {
        self.kinds.iter().map(|kind| kind[term]).sum()
    }

    pub(super) fn sent(&self) -> u64 {
        self.sum(0)
    }

    pub(super) fn published(&self) -> u64 {
        self.sum(1)
    }

    pub(super) fn shaped(&self) -> u64 {
        self.sum(2)
    }

    pub(super) fn refused(&self) -> u64 {
        self.sum(3)
    }

    pub(super) fn unanswered(&self) -> u64 {
        self.sum(4)
    }

    /// Sends that have not ended.
    pub(super) fn pending(&self) -> u64 {
        self.sent() - (self.published() + self.shaped() + self.refused() + self.unanswered()).min(self.sent())
    }

    pub(super) fn running(&self, second: u64) -> String {
        format!(
            "{second:>4} s  sent {}  published {}  shaped {}  refused {}  received {}  delay p50 {} ms p99 {} ms",
            text::number(self.sent()),
            text::number(self.published()),
            text::number(self.shaped()),
            text::number(self.refused()),
            text::number(self.received),
            self.p50_ms,
            self.p99_ms
        )
    }

    pub(super) fn object(&self) -> Value {
        let kinds = KINDS.map(|kind| {
            let [sent, published, shaped, refused, unanswered] = self.kinds[kind as usize];
            let object = json!({
                "sent": sent, "published": published, "shaped": shaped, "refused": refused, "unanswered": unanswered,
            });
            (kind.name().to_owned(), object)
        });
        json!({
            "sent": self.sent(), "published": self.published(), "shaped": self.shaped(), "refused": self.refused(),
            "unanswered": self.unanswered(), "received": self.received, "lost_viewers": self.lost,
            "delay_p50_ms": self.p50_ms, "delay_p99_ms": self.p99_ms, "kinds": Value::Object(kinds.into_iter().collect()),
        })
    }
}

/// The account at the end of a scene.
pub(super) struct Closed {
    pub(super) totals: Totals,
    /// Viewers that each published message was for: all but its sender.
    pub(super) others: u64,
    /// Deliveries the server says it left out of full queues.
    pub(super) dropped: u64,
}

impl Closed {
    pub(super) fn adds_up(&self) -> bool {
        let totals = &self.totals;
        let ended = totals.published() + totals.shaped() + totals.refused() + totals.unanswered();
        totals.sent() == ended && totals.received + self.dropped == totals.published() * self.others
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let (totals, n) = (&self.totals, text::number);
        let unanswered = match totals.unanswered() {
            0 => String::new(),
            many => format!(" + unanswered {}", n(many)),
        };
        let by_kind = KINDS.map(|kind| {
            let [sent, published, shaped, ..] = totals.kinds[kind as usize];
            format!("{} {} sent, {} published, {} shaped", kind.name(), n(sent), n(published), n(shaped))
        });
        let sign = if self.adds_up() { "=" } else { "≠" };
        vec![
            by_kind.join("; "),
            format!(
                "sent {} = published {} + shaped {} + refused {}{unanswered}",
                n(totals.sent()),
                n(totals.published()),
                n(totals.shaped()),
                n(totals.refused())
            ),
            format!(
                "received {} {sign} published {} × {} other viewers − dropped {}",
                n(totals.received),
                n(totals.published()),
                n(self.others),
                n(self.dropped)
            ),
        ]
    }

    pub(super) fn object(&self) -> Value {
        let mut object = self.totals.object();
        if let Some(fields) = object.as_object_mut() {
            fields.insert("event".to_owned(), json!("account"));
            fields.insert("other_viewers".to_owned(), json!(self.others));
            fields.insert("dropped".to_owned(), json!(self.dropped));
            fields.insert("adds_up".to_owned(), json!(self.adds_up()));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let account = Account::new();
        for (kind, outcome) in [
            (Kind::Gift, Outcome::Published),
            (Kind::Text, Outcome::Published),
            (Kind::Like, Outcome::Shaped),
            (Kind::Like, Outcome::Refused),
        ] {
            account.sent(kind);
            account.ended(kind, outcome);
        }
        (0..17).for_each(|_| account.received(3));
        account
    }

    #[test]
    fn the_account_adds_up_only_with_what_was_dropped() {
        let closed = |dropped| Closed { totals: account().totals(), others: 9, dropped };
        assert!(closed(1).adds_up());
        assert!(!closed(0).adds_up() && !closed(2).adds_up());
        let lines = closed(1).lines();
        assert_eq!(lines[1], "sent 4 = published 2 + shaped 1 + refused 1");
        assert_eq!(lines[2], "received 17 = published 2 × 9 other viewers − dropped 1");
        assert!(closed(0).lines()[2].contains('≠'));
    }

    #[test]
    fn a_send_that_has_not_ended_is_pending_and_does_not_add_up() {
        let account = account();
        account.sent(Kind::Text);
        let closed = Closed { totals: account.totals(), others: 9, dropped: 1 };
        assert_eq!(closed.totals.pending(), 1);
        assert!(!closed.adds_up());
    }
}
