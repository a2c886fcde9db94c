//! Repeats of last numbers when streams fall quiet: one message per gateway for everything that is due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use linnet_bus::subject;
use linnet_proto::delivery::LastNumbers;
use linnet_runtime::Tasks;
use linnet_types::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Inner;
use super::stream::StreamState;
use crate::quiet::{Due, Quiet};
use crate::receiver::LinkCount;
use crate::remote::Ended;
use crate::wire;

/// Repeats due within this span travel together.
const TOGETHER: Duration = Duration::from_millis(25);
/// Registrations of gateways gone for longer are forgotten; one that comes back sooner was only not heard.
const GONE_FOR: Duration = Duration::from_secs(90);
/// Streams named in one message.
const STREAMS_MAX: usize = 500;
/// How often old things are swept while nothing else is due.
const SWEEP: Duration = Duration::from_secs(5);

/// Whose time comes.
#[derive(Clone)]
pub(super) enum Which {
    Stream(Arc<StreamState>),
    Link(NodeId),
}

struct Entry {
    at: Duration,
    order: u64,
    which: Which,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The queue of due times. A stream or link has one valid place in it.
#[derive(Default)]
pub(super) struct Repeats {
    queue: Mutex<(BinaryHeap<Reverse<Entry>>, u64)>,
    earlier: Notify,
}

impl Repeats {
    /// Adds what [`Quiet::touched`] asked for.
    pub(super) fn add(&self, due: Option<Duration>, which: impl FnOnce() -> Which) {
        let Some(at) = due else { return };
        let mut queue = self.queue.lock();
        let earliest = queue.0.peek().is_none_or(|Reverse(first)| at < first.at);
        queue.1 += 1;
        let order = queue.1;
        queue.0.push(Reverse(Entry { at, order, which: which() }));
        drop(queue);
        if earliest {
            self.earlier.notify_one();
        }
    }

    fn next(&self) -> Option<Duration> {
        self.queue.lock().0.peek().map(|Reverse(entry)| entry.at)
    }

    fn take_due(&self, until: Duration) -> Vec<(Duration, Which)> {
        let mut queue = self.queue.lock();
        let mut due = Vec::new();
        while queue.0.peek().is_some_and(|Reverse(entry)| entry.at <= until) {
            due.extend(queue.0.pop().map(|Reverse(entry)| (entry.at, entry.which)));
        }
        due
    }
}

pub(super) async fn run(inner: Arc<Inner>, tasks: Tasks) {
    let draining = tasks.draining();
    loop {
        let now = inner.clock.mono();
        let wait = inner.repeats.next().map_or(SWEEP, |at| (at.saturating_sub(now) + TOGETHER).min(SWEEP));
        tokio::select! {
            () = draining.cancelled() => return,
            () = inner.repeats.earlier.notified() => continue,
            () = tokio::time::sleep(wait) => {}
        }
        inner.repeat(inner.clock.mono());
        inner.sweep(inner.clock.mono());
    }
}

impl Inner {
    /// Tells the subject of a conversation who owns it now.
    pub(super) fn announce(&self, stream: &StreamState) {
        let last = LastNumbers { streams: vec![stream.last_number()], ..self.last_numbers() };
        self.send(subject::fan(&self.site, stream.conv), wire::last_envelope(last));
        self.metrics.repeats.inc();
    }

    /// The bus was away: whatever it lost, and every repeat since, is made good by saying all numbers again.
    pub(super) fn repeat_all(&self) {
        let now = self.clock.mono();
        for gateway in self.direct.gateways() {
            let due = self.direct.on_quiet(&gateway, |quiet| quiet.touched(now)).flatten();
            self.repeats.add(due, || Which::Link(gateway));
        }
        let streams: Vec<_> = self.streams.lock().values().cloned().collect();
        for stream in streams {
            let due = stream.on_quiet(|quiet| quiet.touched(now));
            self.repeats.add(due, || Which::Stream(Arc::clone(&stream)));
            if stream.is_group() {
                self.announce(&stream);
            }
        }
    }

    fn last_numbers(&self) -> LastNumbers {
        LastNumbers {
            owner: self.node.as_str().to_owned(),
            incarnation: self.incarnation,
            service: self.service.name().to_owned(),
            ..LastNumbers::default()
        }
    }

    fn repeat(&self, now: Duration) {
        let mut by_gateway: HashMap<NodeId, LastNumbers> = HashMap::new();
        let fresh = || self.last_numbers();
        for (at, which) in self.repeats.take_due(now) {
            let step = |quiet: &mut Quiet| quiet.due(at, now);
            let due = match &which {
                Which::Stream(stream) => Some(stream.on_quiet(step)),
                Which::Link(gateway) => self.direct.on_quiet(gateway, step),
            };
            let again = match due {
                None | Some(Due::Elsewhere) => continue,
                Some(Due::Later(at)) => {
                    self.repeats.add(Some(at), || which);
                    continue;
                }
                Some(Due::Repeat(at)) => Some(at),
                Some(Due::Last) => None,
            };
            match &which {
                Which::Link(gateway) if self.live.has(gateway) => {
                    let last = by_gateway.entry(gateway.clone()).or_insert_with(fresh);
                    last.frame_no = self.direct.last_no(gateway);
                }
                Which::Link(_) => {}
                Which::Stream(stream) => self.repeat_stream(stream, now, &mut by_gateway, again.is_none()),
            }
            self.repeats.add(again, || which);
        }
        for (gateway, last) in by_gateway {
            self.send_last(&gateway, last);
        }
    }

    fn repeat_stream(
        &self,
        stream: &Arc<StreamState>,
        now: Duration,
        by_gateway: &mut HashMap<NodeId, LastNumbers>,
        last_time: bool,
    ) {
        if stream.is_new(now) {
            self.announce(stream);
        }
        for gateway in stream.registered() {
            if self.live.has(&gateway) {
                let last = by_gateway.entry(gateway).or_insert_with(|| self.last_numbers());
                last.streams.push(stream.last_number());
            }
        }
        stream.trim(now);
        if last_time && stream.is_closed() {
            self.forget(stream);
        }
    }

    fn send_last(&self, gateway: &NodeId, mut last: LastNumbers) {
        let mut streams = std::mem::take(&mut last.streams);
        loop {
            let rest = streams.split_off(streams.len().min(STREAMS_MAX));
            let part = LastNumbers { streams, ..last.clone() };
            self.send(subject::gw(gateway), wire::last_envelope(part));
            self.metrics.repeats.inc();
            if rest.is_empty() {
                return;
            }
            streams = rest;
        }
    }

    /// Nothing of the stream can be asked for any more; its counts stay.
    fn forget(&self, stream: &Arc<StreamState>) {
        let mut streams = self.streams.lock();
        if streams.get(&(stream.app, stream.conv)).is_some_and(|present| Arc::ptr_eq(present, stream)) {
            streams.remove(&(stream.app, stream.conv));
        } else {
            self.replaced.lock().retain(|old| !Arc::ptr_eq(old, stream));
        }
        drop(streams);
        stream.add_counts(&mut self.closed_counts.lock());
    }

    fn sweep(&self, now: Duration) {
        for Ended { gateway, incarnation } in self.live.refresh(now, GONE_FOR) {
            for stream in self.all_streams() {
                if let (_, Some(count)) = stream.deregister(&gateway, incarnation) {
                    self.count_closed(count);
                }
            }
        }
        self.direct.sweep(now);
    }

    pub(super) fn count_closed(&self, count: LinkCount) {
        let mut counts = self.closed_counts.lock();
        counts.entry(count.peer.clone()).or_insert_with(|| LinkCount::new(count.peer.clone())).add(&count);
    }
}
