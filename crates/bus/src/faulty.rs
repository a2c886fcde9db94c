//! A bus that misbehaves by seed. For simulations only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use linnet_runtime::metrics::Counter;
use linnet_runtime::{Rng, Tasks};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::queue::{Event, Limits, Queue, Subscription};
use crate::subject::Subject;
use crate::{Bus, Error, Port, Result};

/// A message held to be overtaken goes on alone after this.
const HOLD: Duration = Duration::from_millis(50);

/// How often each fault strikes, in percent of the messages a subscriber would have received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Lost without a sign.
    pub drop_percent: u32,
    /// Held back for up to `max_delay`; others pass it.
    pub delay_percent: u32,
    /// Delivered after its successor.
    pub reorder_percent: u32,
    /// Longest delay.
    pub max_delay: Duration,
}

impl FaultPlan {
    /// Loses `percent` of everything.
    #[must_use]
    pub fn dropping(percent: u32) -> Self {
        Self { drop_percent: percent, ..Self::default() }
    }
}

/// How often each fault struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Messages that went through the faulty bus, by receiver.
    pub seen: u64,
    /// Lost.
    pub dropped: u64,
    /// Held back.
    pub delayed: u64,
    /// Delivered after a successor.
    pub reordered: u64,
    /// Times the whole bus went away.
    pub outages: u64,
}

/// Puts faults between a bus and its subscribers, drawn for each receiver by itself: one gateway misses what another has.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    rng: Rng,
    tasks: Tasks,
    plan: Mutex<FaultPlan>,
    connected: watch::Sender<bool>,
    queues: Mutex<Vec<Weak<Queue>>>,
    counts: Mutex<FaultCounts>,
    subscriptions: AtomicU64,
    slow: Counter,
}

impl Faulty {
    /// Wraps `bus`; begins without faults. `tasks` owns the forwarding tasks.
    #[must_use]
    pub fn new(bus: Bus, rng: Rng, tasks: Tasks) -> Self {
        Self {
            inner: Arc::new(Inner {
                bus,
                rng,
                tasks,
                plan: Mutex::default(),
                connected: watch::Sender::new(true),
                queues: Mutex::default(),
                counts: Mutex::default(),
                subscriptions: AtomicU64::new(0),
                slow: Counter::default(),
            }),
        }
    }

    /// A handle to this bus.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::new(self.clone())
    }

    /// Changes what happens from now on.
    pub fn set(&self, plan: FaultPlan) {
        *self.inner.plan.lock() = plan;
    }

    /// No more faults; messages held back still arrive.
    pub fn heal(&self) {
        self.set(FaultPlan::default());
    }

    /// Every server of the bus is gone: publishing and flushing fail, nothing arrives.
    pub fn down(&self) {
        self.inner.connected.send_replace(false);
        self.inner.counts.lock().outages += 1;
    }

    /// The bus is back. Subscriptions still stand and are told that messages are missing, as after a reconnect.
    pub fn up(&self) {
        self.inner.connected.send_replace(true);
        self.inner.queues.lock().iter().filter_map(Weak::upgrade).for_each(|queue| queue.lagged(1));
    }

    /// What struck so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        *self.inner.counts.lock()
    }
}

#[async_trait]
impl Port for Faulty {
    async fn publish(&self, subject: Subject, payload: Bytes) -> Result<()> {
        self.inner.connected()?;
        self.inner.bus.publish(subject, payload).await
    }

    async fn subscribe(&self, subject: Subject, limits: Limits) -> Result<Subscription> {
        let source = self.inner.bus.subscribe_with(subject.clone(), limits).await?;
        let queue = Queue::new(limits, self.inner.slow.clone());
        {
            let mut queues = self.inner.queues.lock();
            queues.retain(|queue| queue.strong_count() > 0);
            queues.push(Arc::downgrade(&queue));
        }
        let nth = self.inner.subscriptions.fetch_add(1, Ordering::Relaxed);
        let receiver = Receiver {
            inner: Arc::clone(&self.inner),
            rng: self.inner.rng.fork(&format!("{subject}#{nth}")),
            queue: Arc::clone(&queue),
            held: None,
        };
        self.inner.tasks.spawn("faulty-bus", receiver.run(source));
        // The forwarding task sees the queue end and drops its source.
        Ok(Subscription::new(queue, || ()))
    }

    async fn flush(&self) -> Result<()> {
        self.inner.connected()?;
        self.inner.bus.flush().await
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected.subscribe()
    }
}

impl Inner {
    fn connected(&self) -> Result<()> {
        if !*self.connected.borrow() {
            return Err(Error::Disconnected("simulated outage".to_owned()));
        }
        Ok(())
    }
}

type Message = (Subject, Bytes);

/// Forwards to one subscriber.
struct Receiver {
    inner: Arc<Inner>,
    rng: Rng,
    queue: Arc<Queue>,
    held: Option<Message>,
}

impl Receiver {
    async fn run(mut self, mut source: Subscription) {
        let queue = Arc::clone(&self.queue);
        loop {
            let event = tokio::select! {
                biased;
                () = queue.closed() => return,
                event = source.recv() => event,
                () = tokio::time::sleep(HOLD), if self.held.is_some() => {
                    self.release(|counts| counts.delayed += 1);
                    continue;
                }
            };
            match event {
                Some(Event::Message { subject, payload }) => self.pass((subject, payload)),
                Some(Event::Lagged { dropped }) => self.queue.lagged(dropped),
                None => break,
            }
        }
        self.release(|_| ());
        self.queue.end();
    }

    fn pass(&mut self, message: Message) {
        let plan = *self.inner.plan.lock();
        self.count(|counts| counts.seen += 1);
        if self.inner.connected().is_err() || self.rng.chance(plan.drop_percent) {
            return self.count(|counts| counts.dropped += 1);
        }
        if self.rng.chance(plan.delay_percent) {
            self.count(|counts| counts.delayed += 1);
            return self.later(message, plan.max_delay);
        }
        if self.held.is_none() && self.rng.chance(plan.reorder_percent) {
            self.held = Some(message);
            return;
        }
        self.queue.push(message.0, message.1);
        self.release(|counts| counts.reordered += 1);
    }

    fn later(&self, message: Message, max: Duration) {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(1 + self.rng.below(micros));
        let queue = Arc::clone(&self.queue);
        self.inner.tasks.spawn("faulty-bus-delay", async move {
            tokio::time::sleep(delay).await;
            queue.push(message.0, message.1);
        });
    }

    fn release(&mut self, count: impl FnOnce(&mut FaultCounts)) {
        if let Some((subject, payload)) = self.held.take() {
            self.queue.push(subject, payload);
            self.count(count);
        }
    }

    fn count(&self, change: impl FnOnce(&mut FaultCounts)) {
        change(&mut self.inner.counts.lock());
    }
}
