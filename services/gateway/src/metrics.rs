//! Every metric of the gateway, and the accounting law they are the terms of.
//!
//! receivers at arrival = written + collapsed + digested + dropped (by class) + connection closed + pending. A receiver is
//! one item for one connection; it arrives when the window of its batch closes and its receivers are known.

use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Family, Gauge, Histogram};

use crate::queue::Class;
use crate::view::CLASSES;

type Label = [(&'static str, &'static str); 1];

/// What became of deliveries other than being written or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Collapsed,
    Closed,
}

/// The terms of the accounting law at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items times receiving connections.
    pub receivers_at_arrival: u64,
    /// Handed to the kernel.
    pub written: u64,
    /// Left out for "advanced to N".
    pub collapsed: u64,
    /// Live and online-only messages left out.
    pub dropped: u64,
    /// The connection ended first.
    pub connection_closed: u64,
    /// Waiting in queues.
    pub pending: u64,
}

/// Counts deliveries.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    receivers: Counter,
    written: Counter,
    collapsed: Counter,
    closed: Counter,
    dropped: [Counter; 4],
    pending: Gauge,
    frames_out: Counter,
    bytes_out: Counter,
}

impl Ledger {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.scope("gateway_deliveries", |scope| {
            let dropped: Family<Label, Counter> =
                scope.counters("dropped", "Live and online-only messages left out of a full queue, by priority");
            Self {
                receivers: scope.counter("receivers_at_arrival", "Items times receiving connections"),
                written: scope.counter("written", "Items handed to the kernel"),
                collapsed: scope.counter("collapsed", "Items replaced by advanced-to-N"),
                closed: scope.counter("connection_closed", "Items whose connection ended first"),
                dropped: CLASSES.map(|class| dropped.get_or_create(&[("priority", class)]).clone()),
                pending: scope.gauge("pending", "Items in queues"),
                frames_out: scope.counter("frames_out", "Frames handed to the kernel"),
                bytes_out: scope.counter("bytes_out", "Bytes handed to the kernel"),
            }
        })
    }

    /// Items that now have a receiver; they are pending until their fate is known.
    pub(crate) fn arrive(&self, items: u64) {
        self.receivers.inc_by(items);
        self.pending.inc_by(items as i64);
    }

    pub(crate) fn written(&self, bytes: usize, items: u32) {
        self.frames_out.inc();
        self.bytes_out.inc_by(bytes as u64);
        if items > 0 {
            self.written.inc_by(items.into());
            self.pending.dec_by(items.into());
        }
    }

    pub(crate) fn fate(&self, fate: Fate, items: u64) {
        match fate {
            Fate::Collapsed => self.collapsed.inc_by(items),
            Fate::Closed => self.closed.inc_by(items),
        };
        self.pending.dec_by(items as i64);
    }

    pub(crate) fn dropped(&self, class: Class, items: u64) {
        let rank = match class {
            Class::Droppable(rank) => usize::from(rank.min(3)),
            Class::Stored | Class::Control => 0,
        };
        self.dropped[rank].inc_by(items);
        self.pending.dec_by(items as i64);
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            receivers_at_arrival: self.receivers.get(),
            written: self.written.get(),
            collapsed: self.collapsed.get(),
            dropped: self.dropped.iter().map(Counter::get).sum(),
            connection_closed: self.closed.get(),
            pending: u64::try_from(self.pending.get()).unwrap_or_default(),
        }
    }

    pub(crate) fn frames_out(&self) -> u64 {
        self.frames_out.get()
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }
}

/// Everything else that is counted.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    pub(crate) connections: Gauge,
    pub(crate) signed_in: Gauge,
    pub(crate) listed: Gauge,
    pub(crate) frames_in: Counter,
    pub(crate) sign_ins: Family<Label, Counter>,
    pub(crate) closed: Family<Label, Counter>,
    pub(crate) refused_frames: Family<Label, Counter>,
    pub(crate) sends: Family<Label, Counter>,
    /// Sends repeated because their owner moved or did not answer.
    pub(crate) sends_again: Counter,
    /// Sends answered "busy" because too many waited to be repeated.
    pub(crate) sends_not_held: Counter,
    pub(crate) shaped: Family<Label, Counter>,
    pub(crate) send_seconds: Histogram,
    pub(crate) request_seconds: Histogram,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.scope("gateway", |scope| Self {
            connections: scope.gauge("connections", "Open sockets"),
            signed_in: scope.gauge("signed_in", "Connections with a session"),
            listed: scope.gauge("listed", "Connections listed under registered conversations"),
            frames_in: scope.counter("frames_in", "Frames read from clients"),
            sign_ins: scope.counters("sign_ins", "Sign-ins by outcome"),
            closed: scope.counters("closed", "Connections ended, by cause"),
            refused_frames: scope.counters("refused_frames", "Client frames not carried out, by cause"),
            sends: scope.counters("sends", "Messages sent by clients, by outcome"),
            sends_again: scope
                .counter("sends_again", "Messages sent again because their owner moved or did not answer"),
            sends_not_held: scope
                .counter("sends_not_held", "Messages refused because too many waited to be sent again"),
            shaped: scope.counters("live_shaped", "Live messages shed by this gateway, by priority"),
            send_seconds: scope.seconds("send", "From a send frame to its reply"),
            request_seconds: scope.seconds("request", "From any other request to its reply"),
        })
    }
}
