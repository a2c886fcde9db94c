//! Delivering what is stored: one task a key, in order, retried in place.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::{App, Apps};
use linnet_bus::{Bus, Event as BusEvent, subject};
use linnet_cluster::{Cluster, RouteKey, Service as Role};
use linnet_proto::callback::{Event, WatchEvent};
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::queues::{self, Item, PARTITIONS, Queues, Source, WorkId};
use linnet_types::{Refusal, SdkAppId, UnixMillis, code};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prost::Message as _;
use tokio::sync::{Notify, broadcast};

use crate::Deps;
use crate::answer::Reason;
use crate::breaker::{Breakers, Gate, PROBE};
use crate::sender::{Attempt, Sender};

/// Name of the stored queue.
pub(crate) const QUEUE: &str = "webhooks";
/// Work of one key read, and acknowledged, at once.
const BATCH: usize = 50;
/// Keys of a partition looked at in one read.
const KEYS: usize = 100;
/// Waits between tries; the last one repeats.
const BACKOFF_MS: [u64; 6] = [1_000, 5_000, 30_000, 60_000, 300_000, 600_000];
/// Tries end this long after the first.
const GIVE_UP_MS: u64 = 24 * 3600 * 1000;
/// Watchers that are slower than this many deliveries miss some.
const WATCH: usize = 1024;
/// The whole queue is looked through this often, should a wake-up have been lost.
const SWEEP: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    verdict: &'static str,
}

/// Everything that posting needs, shared by stored, live and asking deliveries.
pub(crate) struct Courier {
    pub(crate) sender: Sender,
    pub(crate) breakers: Breakers,
    pub(crate) apps: Apps,
    pub(crate) clock: Clock,
    pub(crate) watch: broadcast::Sender<WatchEvent>,
    pub(crate) attempts: Family<Outcome, Counter>,
    pub(crate) lost: Counter,
}

impl Courier {
    pub(crate) fn new(sender: Sender, deps: &Deps) -> Self {
        let (attempts, lost) = deps.metrics.scope("callback", |scope| {
            (
                scope.counters("attempts", "webhooks posted, by how they went"),
                scope.counter("best_effort_dropped", "best-effort events dropped because too many were waiting"),
            )
        });
        let (watch, _) = broadcast::channel(WATCH);
        let (apps, clock) = (deps.apps.clone(), deps.clock.clone());
        Self { sender, breakers: Breakers::default(), apps, clock, watch, attempts, lost }
    }

    /// Posts one event and books how it went.
    pub(crate) async fn post(&self, app: &App, event: &Event, attempt_no: u32) -> Attempt {
        let attempt = self.sender.post(&app.settings, event).await;
        match &attempt.outcome {
            Ok(_) => self.breakers.succeeded(app.id),
            Err(reason) => {
                if self.breakers.failed(app.id, self.clock.mono()) {
                    tracing::warn!(
                        app = app.id.0,
                        reason = reason.label(),
                        "an app's server fails; probing it from now on"
                    );
                }
            }
        }
        self.attempts.get_or_create(&Outcome { verdict: attempt.verdict() }).inc();
        // An error means that nobody watches.
        let _ = self.watch.send(attempt.shown(event, attempt_no));
        attempt
    }
}

impl Courier {
    /// Posts that went well, and that did not, since the start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let count = |verdict| self.attempts.get_or_create(&Outcome { verdict }).get();
        let failed = Reason::ALL.into_iter().map(|reason| count(reason.label())).sum();
        (count("ok"), failed)
    }
}

/// The owner of this node's partitions.
#[derive(Clone)]
pub(crate) struct Worker {
    inner: Arc<Inner>,
}

type KeyName = (SdkAppId, String);

struct Inner {
    courier: Arc<Courier>,
    queues: Queues,
    cluster: Cluster,
    bus: Bus,
    tasks: Tasks,
    rng: Rng,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Partitions to look through.
    dirty: BTreeSet<u16>,
    /// Keys with a task, and whether more came meanwhile.
    busy: HashMap<KeyName, bool>,
    /// Tasks per app.
    inflight: HashMap<SdkAppId, u32>,
    /// Apps not to look at before this time, because their breaker is open.
    parked: HashMap<SdkAppId, Duration>,
    /// Partitions to look through later.
    later: BTreeSet<(UnixMillis, u16)>,
}

/// What to do after one event.
enum Next {
    Done,
    /// The key waits; nothing after this event may go.
    Stop,
}

impl Worker {
    pub(crate) fn start(courier: Arc<Courier>, deps: &Deps) -> Self {
        let tasks = deps.tasks.child("webhooks");
        let state = State { dirty: (0..PARTITIONS).collect(), ..State::default() };
        let inner = Inner {
            courier,
            queues: Queues::new(deps.store.clone(), QUEUE),
            cluster: deps.cluster.clone(),
            bus: deps.bus.clone(),
            tasks,
            rng: deps.rng.clone(),
            state: Mutex::new(state),
            wake: Notify::new(),
        };
        let worker = Self { inner: Arc::new(inner) };
        worker.inner.tasks.spawn("webhooks.look", worker.clone().look());
        worker.inner.tasks.spawn("webhooks.wake", worker.clone().listen());
        worker
    }

    /// The stored queue, for listing and replaying.
    pub(crate) fn queues(&self) -> &Queues {
        &self.inner.queues
    }

    /// Stores events and wakes their workers; durable when it returns.
    pub(crate) async fn enqueue(&self, events: Vec<Event>) -> linnet_store::Result<()> {
        let items: Vec<Item> = events.iter().map(item).collect();
        self.inner.queues.enqueue(&items).await?;
        for item in items {
            self.wake(item.id.app, &item.id.key).await;
        }
        Ok(())
    }

    /// There is work of this key.
    pub(crate) async fn wake(&self, app: SdkAppId, key: &str) {
        let partition = queues::partition_of(app, key);
        if self.owns(partition) {
            self.begin(app, key);
            return;
        }
        let payload = bytes::Bytes::copy_from_slice(&partition.to_be_bytes());
        // Lost wake-ups are made up for by the owner's sweep.
        let _ = self.inner.bus.publish(subject::work(QUEUE), payload).await;
    }

    fn owns(&self, partition: u16) -> bool {
        self.inner.cluster.owns(Role::Callback, RouteKey::slot(partition.into()))
    }

    async fn listen(self) {
        let Ok(mut wakes) = self.inner.bus.subscribe(subject::work(QUEUE)).await else { return };
        let ending = self.inner.tasks.draining();
        loop {
            let event = tokio::select! {
                event = wakes.recv() => event,
                () = ending.cancelled() => None,
            };
            let mut state = self.inner.state.lock();
            match event {
                Some(BusEvent::Message { payload, .. }) => {
                    if let Ok(partition) = payload.as_ref().try_into().map(u16::from_be_bytes) {
                        state.dirty.insert(partition);
                    }
                }
                Some(BusEvent::Lagged { .. }) => state.dirty.extend(0..PARTITIONS),
                None => return,
            }
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// Looks through partitions that may have work nobody is doing.
    async fn look(self) {
        let ending = self.inner.tasks.draining();
        let mut swept = self.inner.courier.clock.mono();
        loop {
            let now = self.inner.courier.clock.mono();
            if now.saturating_sub(swept) >= SWEEP {
                swept = now;
                self.inner.state.lock().dirty.extend(0..PARTITIONS);
            }
            let partition = self.next_partition();
            if let Some(partition) = partition {
                if self.owns(partition)
                    && let Err(error) = self.look_through(partition).await
                {
                    tracing::warn!(partition, %error, "a partition of the webhook queue could not be read; again soon");
                    let soon = self.inner.courier.clock.now().plus_ms(1000);
                    self.inner.state.lock().later.insert((soon, partition));
                }
                continue;
            }
            let wait = self.until_next();
            tokio::select! {
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
                () = ending.cancelled() => return,
            }
        }
    }

    fn next_partition(&self) -> Option<u16> {
        let (now, mono) = (self.inner.courier.clock.now(), self.inner.courier.clock.mono());
        let mut state = self.inner.state.lock();
        while let Some((at, partition)) = state.later.first().copied()
            && at <= now
        {
            state.later.pop_first();
            state.dirty.insert(partition);
        }
        let parked = state.parked.len();
        state.parked.retain(|_, until| *until > mono);
        if state.parked.len() < parked {
            state.dirty.extend(0..PARTITIONS);
        }
        state.dirty.pop_first()
    }

    fn until_next(&self) -> Duration {
        let (now, mono) = (self.inner.courier.clock.now(), self.inner.courier.clock.mono());
        let state = self.inner.state.lock();
        let later = state.later.first().map(|(at, _)| Duration::from_millis(at.since(now)));
        let parked = state.parked.values().min().map(|until| until.saturating_sub(mono));
        [later, parked, Some(SWEEP)].into_iter().flatten().min().unwrap_or(SWEEP).max(Duration::from_millis(5))
    }

    async fn look_through(&self, partition: u16) -> linnet_store::Result<()> {
        let mut cursor = None;
        loop {
            let parked: Vec<SdkAppId> = self.inner.state.lock().parked.keys().copied().collect();
            let (heads, next) = self.inner.queues.heads(partition, cursor.as_ref(), KEYS, &parked).await?;
            let now = self.inner.courier.clock.now();
            for head in heads {
                if head.next > now {
                    self.inner.state.lock().later.insert((head.next, partition));
                } else {
                    self.begin(head.id.app, &head.id.key);
                }
            }
            let Some(next) = next else { return Ok(()) };
            cursor = Some(next);
        }
    }

    /// Starts the task of a key, or tells the one there is that more came.
    fn begin(&self, app: SdkAppId, key: &str) {
        let name = (app, key.to_owned());
        {
            let mut state = self.inner.state.lock();
            if let Some(more) = state.busy.get_mut(&name) {
                *more = true;
                return;
            }
            if state.parked.contains_key(&app) {
                return;
            }
            state.busy.insert(name.clone(), false);
            *state.inflight.entry(app).or_default() += 1;
        }
        let worker = self.clone();
        self.inner.tasks.spawn("webhooks.key", async move {
            let stopped = worker.work(&name).await;
            worker.end(name, stopped);
        });
    }

    /// Works a key off until it is empty (false) or must wait (true).
    async fn work(&self, name: &KeyName) -> bool {
        let (app, key) = name;
        loop {
            let items = match self.inner.queues.of_key(*app, key, BATCH).await {
                Ok(items) => items,
                Err(error) => {
                    tracing::warn!(app = app.0, %error, "the webhook queue could not be read");
                    self.later(*app, key, 1000);
                    return true;
                }
            };
            if items.is_empty() {
                let mut state = self.inner.state.lock();
                match state.busy.get_mut(name) {
                    Some(more) if *more => *more = false,
                    _ => return false,
                }
                continue;
            }
            let mut done = Vec::with_capacity(items.len());
            let mut stopped = false;
            for item in items {
                match self.deliver(&item).await {
                    Next::Done => done.push(item.id),
                    Next::Stop => {
                        stopped = true;
                        break;
                    }
                }
            }
            if !done.is_empty()
                && let Err(error) = self.inner.queues.ack(&done).await
            {
                tracing::warn!(app = app.0, %error, "delivered webhooks could not be marked; they will be sent again");
                self.later(*app, key, 1000);
                return true;
            }
            if stopped {
                return true;
            }
        }
    }

    fn end(&self, name: KeyName, stopped: bool) {
        let mut state = self.inner.state.lock();
        let more = state.busy.remove(&name).unwrap_or(false);
        if let Some(count) = state.inflight.get_mut(&name.0) {
            *count -= 1;
            if *count == 0 {
                state.inflight.remove(&name.0);
            }
        }
        if more && !stopped {
            state.dirty.insert(queues::partition_of(name.0, &name.1));
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    fn later(&self, app: SdkAppId, key: &str, ms: u64) {
        let at = self.inner.courier.clock.now().plus_ms(ms);
        self.inner.state.lock().later.insert((at, queues::partition_of(app, key)));
        self.inner.wake.notify_one();
    }

    async fn deliver(&self, item: &Item) -> Next {
        let now = self.inner.courier.clock.now();
        if item.next > now {
            self.later(item.id.app, &item.id.key, item.next.since(now));
            return Next::Stop;
        }
        let Ok(event) = Event::decode(item.payload.clone()) else {
            tracing::error!(app = item.id.app.0, event = item.id.event, "a stored webhook cannot be read; dropped");
            return Next::Done;
        };
        let app = match self.inner.courier.apps.get(item.id.app).await {
            Ok(app) => app,
            // Gone or off: nobody to tell.
            Err(Refusal { retry_after_ms: None, .. }) => return Next::Done,
            Err(_) => {
                self.later(item.id.app, &item.id.key, 500);
                return Next::Stop;
            }
        };
        if !app.settings.webhook_on(&event.command) {
            return Next::Done;
        }
        let mono = self.inner.courier.clock.mono();
        if self.inner.courier.breakers.gate(app.id, mono) == Gate::Open {
            self.inner.state.lock().parked.insert(app.id, mono + PROBE);
            self.later(app.id, &item.id.key, u64::try_from(PROBE.as_millis()).unwrap_or(u64::MAX));
            return Next::Stop;
        }
        let attempt = self.inner.courier.post(&app, &event, item.attempts + 1).await;
        match attempt.outcome {
            Ok(_) => Next::Done,
            Err(reason) => self.failed(item, &app, reason).await,
        }
    }

    async fn failed(&self, item: &Item, app: &App, reason: Reason) -> Next {
        let now = self.inner.courier.clock.now();
        let first = item.first_try.unwrap_or(now);
        let one_try = reason == Reason::Timeout && !app.settings.webhook_after_retry;
        let written = if one_try || now.since(first) >= GIVE_UP_MS {
            let mut item = item.clone();
            item.attempts += 1;
            self.inner.queues.bury(&item, now, reason.label()).await.map(|_| Next::Done)
        } else {
            let at = usize::try_from(item.attempts).unwrap_or(usize::MAX).min(BACKOFF_MS.len() - 1);
            let wait = BACKOFF_MS[at] * (80 + self.inner.rng.below(41)) / 100;
            let done = self.inner.queues.retry(item, now, now.plus_ms(wait), reason.label()).await;
            self.later(app.id, &item.id.key, wait);
            done.map(|_| Next::Stop)
        };
        written.unwrap_or_else(|error| {
            tracing::warn!(app = app.id.0, %error, "a failed webhook could not be put off");
            self.later(app.id, &item.id.key, 1000);
            Next::Stop
        })
    }
}

/// The stored form of an event.
fn item(event: &Event) -> Item {
    let id = WorkId {
        app: SdkAppId(event.app),
        key: event.key.clone(),
        at: UnixMillis(event.time_ms),
        source: Source::Other,
        no: number(&event.id),
        event: format!("{}/{}", event.command, event.id),
    };
    Item::new(id, event.encode_to_vec())
}

/// The last part of an id that is a number: seq or outbox number, which orders events of one time.
fn number(id: &str) -> u64 {
    id.rsplit(['/', ':', '-']).find_map(|part| part.parse().ok()).unwrap_or(0)
}

/// A fault of the store as callers see it.
pub(crate) fn fault(error: &linnet_store::Error) -> Refusal {
    tracing::error!(%error, "webhook queue");
    Refusal::retry(code::BUSY, "the webhook queue did not answer; retry", 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_order() {
        assert_eq!(number("c5/7"), 7);
        assert_eq!(number("c5/12/C2C.CallbackAfterSendMsg"), 12);
        assert_eq!(number("profile/alice/3"), 3);
        assert_eq!(number("x"), 0);
    }
}
