//! Delivering what is stored: in order per key, retried in place.

use std::sync::Arc;

use async_trait::async_trait;
use linnet_admission::apps::{App, Apps};
use linnet_cluster::Service as Role;
use linnet_proto::callback::{Event, WatchEvent};
use linnet_runtime::{Clock, Rng};
use linnet_store::queues::{Item, Queues, Source, WorkId};
use linnet_types::{Refusal, SdkAppId, UnixMillis, code};
use linnet_work::{Handler, Next, Options, Worked, Worker};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prost::Message as _;
use tokio::sync::broadcast;

use crate::Deps;
use crate::answer::Reason;
use crate::breaker::{Breakers, Gate, PROBE};
use crate::sender::{Attempt, Sender};
use crate::slots::Slots;

/// Name of the stored queue.
pub(crate) const QUEUE: &str = "webhooks";
/// Work of one key read, and acknowledged, at once.
const BATCH: usize = 50;
/// Keys worked on at once, and of one app.
const AT_ONCE: usize = 1_024;
const PER_APP: usize = 256;
/// Waits between tries; the last one repeats.
const BACKOFF_MS: [u64; 6] = [1_000, 5_000, 30_000, 60_000, 300_000, 600_000];
/// Tries end this long after the first.
const GIVE_UP_MS: u64 = 24 * 3600 * 1000;
/// Watchers that are slower than this many deliveries miss some.
const WATCH: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    verdict: &'static str,
}

/// Everything that posting needs, shared by stored, live and asking deliveries.
pub(crate) struct Courier {
    pub(crate) sender: Sender,
    pub(crate) breakers: Breakers,
    pub(crate) slots: Slots,
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
        Self { sender, breakers: Breakers::default(), slots: Slots::default(), apps, clock, watch, attempts, lost }
    }

    /// Posts an event of which no answer is waited for, once fewer than the app allows are in flight.
    pub(crate) async fn post_in_turn(&self, app: &App, event: &Event, attempt_no: u32) -> Attempt {
        let _slot = self.slots.take(app.id, app.settings.webhook_max_inflight).await;
        self.post(app, event, attempt_no).await
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

/// Delivers stored events, for the worker of their queue.
pub(crate) struct Deliveries {
    courier: Arc<Courier>,
    rng: Rng,
}

/// What to do after one event.
enum Step {
    Done,
    /// The key waits; nothing after this event may go.
    Stop(Next),
}

/// Begins with whatever the queue holds.
pub(crate) fn start(courier: Arc<Courier>, deps: &Deps) -> Worker {
    let options = Options { queue: QUEUE, service: Role::Callback, batch: BATCH, at_once: AT_ONCE, per_app: PER_APP };
    let work = linnet_work::Deps {
        store: deps.store.clone(),
        cluster: deps.cluster.clone(),
        bus: deps.bus.clone(),
        clock: deps.clock.clone(),
        tasks: deps.tasks.clone(),
    };
    Worker::start(options, work, Arc::new(Deliveries { courier, rng: deps.rng.clone() }))
}

#[async_trait]
impl Handler for Deliveries {
    async fn work(&self, queue: &Worker, app: SdkAppId, _: &str, items: &[Item]) -> Worked {
        let mut done = Vec::with_capacity(items.len());
        for item in items {
            match self.deliver(queue.queues(), app, item).await {
                Step::Done => done.push(item.id.clone()),
                Step::Stop(next) => return Worked { done, next },
            }
        }
        Worked { done, next: Next::More }
    }

    /// A time further away than any pause was written by a node whose clock is wrong.
    fn due(&self, item: &Item) -> UnixMillis {
        let pause = pause_ms(item.attempts.saturating_sub(1));
        let far = item.next.since(self.courier.clock.now()) > pause * 5 / 4;
        if far { UnixMillis(0) } else { item.next }
    }
}

/// The pause after a try that failed, before jitter of a fifth.
fn pause_ms(failed_before: u32) -> u64 {
    BACKOFF_MS[usize::try_from(failed_before).unwrap_or(usize::MAX).min(BACKOFF_MS.len() - 1)]
}

impl Deliveries {
    fn later(&self, ms: u64) -> Step {
        Step::Stop(Next::At(self.courier.clock.now().plus_ms(ms)))
    }

    async fn deliver(&self, queues: &Queues, app: SdkAppId, item: &Item) -> Step {
        let due = self.due(item);
        if due > self.courier.clock.now() {
            return Step::Stop(Next::At(due));
        }
        let Ok(event) = Event::decode(item.payload.clone()) else {
            tracing::error!(app = app.0, event = item.id.event, "a stored webhook cannot be read; dropped");
            return Step::Done;
        };
        let app = match self.courier.apps.get(app).await {
            Ok(app) => app,
            // Gone or off: nobody to tell.
            Err(Refusal { retry_after_ms: None, .. }) => return Step::Done,
            Err(_) => return self.later(500),
        };
        if !app.settings.webhook_on(&event.command) {
            return Step::Done;
        }
        if self.courier.breakers.gate(app.id, self.courier.clock.mono()) == Gate::Open {
            return Step::Stop(Next::Park(PROBE));
        }
        let attempt = self.courier.post_in_turn(&app, &event, item.attempts + 1).await;
        match attempt.outcome {
            Ok(_) => Step::Done,
            Err(reason) => self.failed(queues, item, &app, reason).await,
        }
    }

    async fn failed(&self, queues: &Queues, item: &Item, app: &App, reason: Reason) -> Step {
        let now = self.courier.clock.now();
        let first = item.first_try.unwrap_or(now);
        let one_try = reason == Reason::Timeout && !app.settings.webhook_after_retry;
        let written = if one_try || now.since(first) >= GIVE_UP_MS {
            let mut item = item.clone();
            item.attempts += 1;
            queues.bury(&item, now, reason.label()).await.map(|_| Step::Done)
        } else {
            let wait = pause_ms(item.attempts) * (80 + self.rng.below(41)) / 100;
            let next = now.plus_ms(wait);
            queues.retry(item, now, next, reason.label()).await.map(|_| Step::Stop(Next::At(next)))
        };
        written.unwrap_or_else(|error| {
            tracing::warn!(app = app.id.0, %error, "a failed webhook could not be put off");
            self.later(1_000)
        })
    }
}

/// The stored form of events.
pub(crate) fn items(events: &[Event]) -> Vec<Item> {
    events.iter().map(item).collect()
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
    fn pauses_grow_and_the_last_repeats() {
        assert_eq!([0, 1, 5, 6, u32::MAX].map(pause_ms), [1_000, 5_000, 600_000, 600_000, 600_000]);
    }

    #[test]
    fn ids_carry_their_order() {
        assert_eq!(number("c5/7"), 7);
        assert_eq!(number("c5/12/C2C.CallbackAfterSendMsg"), 12);
        assert_eq!(number("profile/alice/3"), 3);
        assert_eq!(number("x"), 0);
    }
}
