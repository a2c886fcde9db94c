//! Works off what waits for a provider: a request at a time per lane, at the app's rate, until it is taken or too old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linnet_admission::apps::{App, Apps};
use linnet_cluster::{Cluster, Service};
use linnet_proto::push::Batch;
use linnet_runtime::{Clock, Rng};
use linnet_store::push::Push;
use linnet_store::queues::{Item, Queues};
use linnet_types::{Refusal, SdkAppId, UnixMillis, UserId};
use linnet_work::{Handler, Next, Worked, Worker};
use parking_lot::Mutex;
use prost::Message as _;

use crate::metrics::{Meters, Skip};
use crate::provider::{Fault, Provider};
use crate::rate::Rates;

/// Name of the stored queue.
pub(crate) const QUEUE: &str = "push_send";
/// Requests of one lane read at once.
pub(crate) const BATCH: usize = 50;
/// Waits between tries; the last one repeats.
const BACKOFF_MS: [u64; 6] = [1_000, 2_000, 5_000, 10_000, 30_000, 60_000];
/// A provider is not left alone for longer than this, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(600);
/// A dead letter that was put back is tried for this long, however old it is.
const REPLAY_MS: u64 = 600_000;
const AGAIN_MS: u64 = 500;

pub(crate) struct Sender {
    provider: Arc<dyn Provider>,
    store: Push,
    apps: Apps,
    cluster: Cluster,
    clock: Clock,
    rng: Rng,
    meters: Meters,
    rates: Rates,
    /// Apps whose provider is left alone until then: it cannot be reached, or asked for it.
    away: Mutex<HashMap<SdkAppId, UnixMillis>>,
}

/// What the sender stands on.
pub(crate) struct Parts {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) store: Push,
    pub(crate) apps: Apps,
    pub(crate) cluster: Cluster,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) meters: Meters,
}

/// How the lane goes on after one request.
enum Step {
    /// It is finished; so is the item.
    Done,
    /// It is put off or buried; the next one may go.
    Left,
    /// Nothing may go before this time.
    Stop(UnixMillis),
}

impl Sender {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { provider, store, apps, cluster, clock, rng, meters } = parts;
        let rates = Rates::new(clock.clone());
        Self { provider, store, apps, cluster, clock, rng, meters, rates, away: Mutex::default() }
    }

    /// How long this node has to wait before its next request of `app`: its part of what all push nodes may send.
    fn wait(&self, app: &App) -> Option<Duration> {
        let nodes = u32::try_from(self.cluster.nodes(Service::Push).len()).unwrap_or(u32::MAX).max(1);
        self.rates.until(app.id, app.settings.push_rate / nodes)
    }

    async fn one(&self, queues: &Queues, app: &App, item: &Item) -> linnet_store::Result<Step> {
        let now = self.clock.now();
        let Ok(batch) = Batch::decode(item.payload.clone()) else {
            tracing::error!(app = app.id.0, request = item.id.event, "a stored push cannot be read; dropped");
            return Ok(Step::Done);
        };
        if self.is_over(&batch, item, now) {
            let why = if item.last_error.is_empty() { Skip::Expired.label() } else { &item.last_error };
            queues.bury(item, now, why).await?;
            self.meters.buried();
            return Ok(Step::Left);
        }
        if let Some(wait) = self.wait(app) {
            return Ok(Step::Stop(now.plus_ms(millis(wait).max(1))));
        }
        match self.provider.send(app, &batch, now).await {
            Ok(taken) => {
                self.away.lock().remove(&app.id);
                self.meters.sent();
                let newest = batch.notifications.iter().map(|one| one.time_ms).max().unwrap_or_default();
                self.meters
                    .delay
                    .observe(Duration::from_millis(self.clock.now().0.saturating_sub(newest)).as_secs_f64());
                self.remove(app.id, &batch, &taken.invalid_tokens).await?;
                Ok(Step::Done)
            }
            Err(fault) => self.failed(queues, item, fault).await,
        }
    }

    fn is_over(&self, batch: &Batch, item: &Item, now: UnixMillis) -> bool {
        if item.replayed {
            return item.first_try.is_some_and(|first| now.since(first) >= REPLAY_MS);
        }
        batch.notifications.iter().all(|one| one.expire_ms <= now.0)
    }

    async fn failed(&self, queues: &Queues, item: &Item, fault: Fault) -> linnet_store::Result<Step> {
        self.meters.failed(fault.reason);
        let now = self.clock.now();
        let at = usize::try_from(item.attempts).unwrap_or(usize::MAX).min(BACKOFF_MS.len() - 1);
        let backoff = BACKOFF_MS[at] * (80 + self.rng.below(41)) / 100;
        let wait = fault.retry_after.map_or(backoff, |asked| millis(asked.min(LONGEST)).max(backoff));
        queues.retry(item, now, now.plus_ms(wait), fault.reason.label()).await?;
        // A server that cannot be reached is not knocked at for each request; one that is there may not like this one only.
        if fault.reason.is_unreached() || fault.retry_after.is_some() {
            let until = now.plus_ms(wait);
            self.away.lock().insert(item.id.app, until);
            return Ok(Step::Stop(until));
        }
        Ok(Step::Left)
    }

    /// Removes tokens that a provider named, from the users they were used for.
    async fn remove(&self, app: SdkAppId, batch: &Batch, invalid: &[String]) -> linnet_store::Result<()> {
        if invalid.is_empty() {
            return Ok(());
        }
        for receiver in batch.notifications.iter().flat_map(|one| &one.receivers) {
            let named = receiver.devices.iter().filter(|device| invalid.contains(&device.token));
            let tokens: Vec<&str> = named.map(|device| device.token.as_str()).collect();
            if !tokens.is_empty() {
                let user = UserId::trusted(receiver.user.as_str());
                let removed =
                    self.store.remove_devices(app, &user, |device| tokens.contains(&device.token.as_str())).await?;
                self.meters.invalid_tokens.inc_by(removed as u64);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for Sender {
    async fn work(&self, queue: &Worker, app: SdkAppId, _: &str, items: &[Item]) -> Worked {
        let again = |done| Worked { done, next: Next::At(self.clock.now().plus_ms(AGAIN_MS)) };
        let app = match self.apps.get(app).await {
            Ok(app) if !app.settings.push_url.is_empty() => app,
            // Gone or off: nobody to hand it to.
            Ok(_) | Err(Refusal { retry_after_ms: None, .. }) => {
                self.meters.skipped(Skip::Off, items.len());
                return Worked { done: items.iter().map(|item| item.id.clone()).collect(), next: Next::More };
            }
            Err(_) => return again(Vec::new()),
        };
        let away = self.away.lock().get(&app.id).copied();
        if let Some(until) = away.filter(|until| *until > self.clock.now()) {
            return Worked { done: Vec::new(), next: Next::At(until) };
        }
        let (mut done, mut later) = (Vec::new(), None::<UnixMillis>);
        for item in items {
            if item.next > self.clock.now() {
                later = Some(later.map_or(item.next, |known| known.min(item.next)));
                continue;
            }
            match self.one(queue.queues(), &app, item).await {
                Ok(Step::Done) => done.push(item.id.clone()),
                Ok(Step::Left) => {}
                Ok(Step::Stop(at)) => return Worked { done, next: Next::At(at) },
                Err(error) => {
                    tracing::warn!(app = app.id.0, %error, "a push could not be booked; it may be sent again");
                    return again(done);
                }
            }
        }
        // Nothing but what is put off was left of these.
        let only_put_off = done.is_empty() && later.is_some();
        Worked { done, next: later.filter(|_| only_put_off).map_or(Next::More, Next::At) }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
