//! The gRPC surface.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use linnet_cluster::Cluster;
use linnet_proto::callback::{self as pb, callbacks_server::Callbacks as Rpc};
use linnet_runtime::status::to_status;
use linnet_store::queues::{DeadId, PARTITIONS};
use linnet_types::{Refusal, SdkAppId, code};
use linnet_work::Worker;
use prost::Message as _;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use crate::breaker::Gate;
use crate::forward;
use crate::live::Live;
use crate::samples;
use crate::worker::{self, Courier, fault};

/// Dead letters on one page.
const PAGE: u32 = 100;
/// Rows of one partition counted for statistics.
const COUNTED: usize = 10_000;

/// Deliveries as they happen.
pub type WatchEvents = Pin<Box<dyn Stream<Item = Result<pb::WatchEvent, Status>> + Send>>;

pub(crate) struct Service {
    cluster: Cluster,
    courier: Arc<Courier>,
    worker: Worker,
    live: Live,
}

fn reply<T>(outcome: Result<T, Refusal>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|refusal| to_status(&refusal))
}

impl Service {
    pub(crate) fn new(cluster: Cluster, courier: Arc<Courier>, worker: Worker, live: Live) -> Self {
        Self { cluster, courier, worker, live }
    }

    async fn ask(&self, event: pb::Event) -> Result<pb::BeforeReply, Refusal> {
        let app = self.courier.apps.get(SdkAppId(event.app)).await?;
        if !app.settings.webhook_on(&event.command) {
            return Ok(pb::BeforeReply { verdict: "off".to_owned(), ..pb::BeforeReply::default() });
        }
        let failed = |verdict: &str| pb::BeforeReply {
            asked: true,
            failed_block: app.settings.webhook_before_failure == "block",
            verdict: verdict.to_owned(),
            ..pb::BeforeReply::default()
        };
        if self.courier.breakers.gate(app.id, self.courier.clock.mono()) == Gate::Open {
            return Ok(failed("refused"));
        }
        let attempt = self.courier.post(&app, &event, 1).await;
        let verdict = attempt.verdict();
        let mut reply = attempt.outcome.unwrap_or_else(|_| failed(verdict));
        reply.took_ms = u32::try_from(attempt.took.as_millis()).unwrap_or(u32::MAX);
        verdict.clone_into(&mut reply.verdict);
        Ok(reply)
    }

    async fn list_failed(&self, request: pb::FailedRequest) -> Result<pb::FailedReply, Refusal> {
        let app = SdkAppId(request.app);
        let after = match request.after.as_str() {
            "" => None,
            text => Some(text.parse::<DeadId>().map_err(|()| bad("not the id of a dead letter"))?),
        };
        let limit = if request.limit == 0 { PAGE } else { request.limit.min(1000) } as usize;
        let queues = self.worker.queues();
        let mut letters = queues.dead(app, after, limit + 1).await.map_err(|error| fault(&error))?;
        let more = letters.len() > limit;
        letters.truncate(limit);
        let total = queues.dead(app, None, COUNTED).await.map_err(|error| fault(&error))?.len() as u64;
        let letters = letters.into_iter().map(|letter| pb::DeadLetter {
            id: letter.id.to_string(),
            event: pb::Event::decode(letter.item.payload).ok(),
            reason: letter.why,
            attempts: letter.item.attempts,
            failed_ms: letter.id.died.0,
        });
        Ok(pb::FailedReply { letters: letters.collect(), more, total })
    }

    async fn send_again(&self, request: pb::ReplayRequest) -> Result<pb::ReplayReply, Refusal> {
        let app = SdkAppId(request.app);
        let queues = self.worker.queues();
        // A replay is an operator saying that the server is well again.
        self.courier.breakers.reset(app);
        self.worker.unpark(app);
        let mut replayed = 0;
        let mut ids: Vec<DeadId> = Vec::new();
        for id in &request.ids {
            ids.push(id.parse().map_err(|()| bad("not the id of a dead letter"))?);
        }
        if request.all {
            let letters = queues.dead(app, None, COUNTED).await.map_err(|error| fault(&error))?;
            ids.extend(letters.into_iter().map(|letter| letter.id));
        }
        for id in ids {
            if let Some(item) = queues.replay(app, id).await.map_err(|error| fault(&error))? {
                replayed += 1;
                self.worker.wake(item.id.app, &item.id.key).await;
            }
        }
        Ok(pb::ReplayReply { replayed })
    }

    async fn try_out(&self, request: pb::TestRequest) -> Result<pb::TestReply, Refusal> {
        let app = self.courier.apps.get(SdkAppId(request.app)).await?;
        if app.settings.webhook_url.is_empty() {
            return Err(bad("the app has no webhook.url"));
        }
        let now = self.courier.clock.now();
        let body = samples::body(&request.command, now.0)
            .ok_or_else(|| bad(format!("no sample of it; try one of {}", samples::KNOWN.join(", "))))?;
        let event = pb::Event {
            app: request.app,
            command: request.command,
            key: "test".to_owned(),
            id: format!("test/{now}"),
            body: body.to_string().into(),
            client_ip: "127.0.0.1".to_owned(),
            platform: "RESTAPI".to_owned(),
            time_ms: now.0,
        };
        let attempt = self.courier.post(&app, &event, 1).await;
        Ok(pb::TestReply {
            ok: attempt.outcome.is_ok(),
            http_status: attempt.http_status.into(),
            reason: attempt.verdict().to_owned(),
            body: String::from_utf8_lossy(&attempt.answer[..attempt.answer.len().min(4096)]).into_owned(),
            took_ms: u32::try_from(attempt.took.as_millis()).unwrap_or(u32::MAX),
            url: attempt.url,
        })
    }

    async fn count(&self, app: SdkAppId) -> Result<pb::StatsReply, Refusal> {
        let mut stats = pb::StatsReply::default();
        let mut oldest = None;
        for partition in 0..PARTITIONS {
            let waiting = self.worker.queues().waiting(partition, COUNTED).await.map_err(|error| fault(&error))?;
            stats.queued += waiting.depth as u64;
            oldest = oldest.into_iter().chain(waiting.oldest).min();
        }
        stats.oldest_ms = oldest.map_or(0, |at| self.courier.clock.now().since(at));
        stats.dead = self.worker.queues().dead(app, None, COUNTED).await.map_err(|error| fault(&error))?.len() as u64;
        (stats.delivered, stats.failed) = self.courier.totals();
        Ok(stats)
    }
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal::new(code::ACCOUNT_BAD_PARAM, why)
}

#[tonic::async_trait]
impl Rpc for Service {
    type WatchStream = WatchEvents;

    async fn before(&self, request: Request<pb::BeforeRequest>) -> Result<Response<pb::BeforeReply>, Status> {
        let event = request.into_inner().event.ok_or_else(|| to_status(&bad("no event")))?;
        reply(self.ask(event).await)
    }
    async fn enqueue(&self, request: Request<pb::EnqueueRequest>) -> Result<Response<pb::EnqueueReply>, Status> {
        let forwarded = forward::is_forwarded(request.metadata());
        let mut events = request.into_inner().events;
        if !forwarded {
            events = forward::enqueue(&self.cluster, events).await;
        }
        let done = self.worker.enqueue(&worker::items(&events)).await;
        reply(done.map(|()| pb::EnqueueReply {}).map_err(|error| fault(&error)))
    }
    async fn post(&self, request: Request<pb::PostRequest>) -> Result<Response<pb::PostReply>, Status> {
        let forwarded = forward::is_forwarded(request.metadata());
        let mut events = request.into_inner().events;
        if !forwarded {
            events = forward::post(&self.cluster, events).await;
        }
        self.live.post(events);
        Ok(Response::new(pb::PostReply {}))
    }
    async fn failed(&self, request: Request<pb::FailedRequest>) -> Result<Response<pb::FailedReply>, Status> {
        reply(self.list_failed(request.into_inner()).await)
    }
    async fn replay(&self, request: Request<pb::ReplayRequest>) -> Result<Response<pb::ReplayReply>, Status> {
        reply(self.send_again(request.into_inner()).await)
    }
    async fn test(&self, request: Request<pb::TestRequest>) -> Result<Response<pb::TestReply>, Status> {
        reply(self.try_out(request.into_inner()).await)
    }
    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<WatchEvents>, Status> {
        let app = request.into_inner().app;
        let events = BroadcastStream::new(self.courier.watch.subscribe());
        // A watcher that is too slow misses some; it is shown the next.
        let wanted = events.filter_map(move |event| async move {
            let event = event.ok()?;
            let mine = app == 0 || event.event.as_ref().is_some_and(|event| event.app == app);
            mine.then_some(Ok(event))
        });
        Ok(Response::new(Box::pin(wanted)))
    }
    async fn stats(&self, request: Request<pb::StatsRequest>) -> Result<Response<pb::StatsReply>, Status> {
        reply(self.count(SdkAppId(request.into_inner().app)).await)
    }
}
