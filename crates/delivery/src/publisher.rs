//! The owner's side.

mod direct;
mod grpc;
mod repeat;
mod stream;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use linnet_bus::{Bus, Subject};
use linnet_cluster::{Cluster, Service};
use linnet_proto::delivery::delivery_server::DeliveryServer;
use linnet_proto::delivery::{Batch, DeregisterRequest, Record, RegisterReply, RegisterRequest, batch};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{ConvId, Epoch, NodeId, Refusal, SdkAppId, Seq, UserId};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::ConvName;
use crate::keep::Total;
use crate::metrics::OwnerMetrics;
use crate::receiver::LinkCount;
use crate::remote::Live;
use direct::Direct;
pub use grpc::Grpc;
use repeat::Repeats;
pub use stream::Stream;
use stream::StreamState;

/// Bus messages waiting to leave.
const OUT: usize = 16_384;
/// While the bus is away it is tried this often.
const PROBE: Duration = Duration::from_millis(200);
/// How long the way to the bus stays open for others who still finish work while the node drains.
const LINGER: Duration = Duration::from_millis(500);

/// What a publisher needs.
pub struct PublisherDeps {
    /// This node.
    pub node: NodeId,
    /// Start of this process: rises with every start of the same node.
    pub incarnation: u64,
    /// The service whose conversations are published: the one gateways route questions to.
    pub service: Service,
    /// This node's site.
    pub site: String,
    /// Where batches go.
    pub bus: Bus,
    /// Live gateways, and the session service.
    pub cluster: Cluster,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
    /// Owner of the publisher's tasks.
    pub tasks: Tasks,
    /// Where it counts.
    pub metrics: Metrics,
}

/// What the owner of conversations decides about registrations.
#[async_trait]
pub trait Registrar: Send + Sync + 'static {
    /// A gateway has members of `request.conv` (again). Implementations hand this to the conversation's actor, activating
    /// it, and **in the actor** call [`Stream::register`], then fill in `live` and `not_members` (those of
    /// `request.members` who are no members now): so the number in the reply and what is said about members are of the
    /// same moment, and a kick can fall through neither.
    ///
    /// # Errors
    /// A refusal ends the gateway's interest (the group is gone) unless it is retryable.
    async fn on_register(&self, request: &RegisterRequest) -> Result<RegisterReply, Refusal>;

    /// A gateway has no members any more. The registration is removed already.
    async fn on_deregister(&self, _request: &DeregisterRequest) {}
}

/// Numbers, sends, repeats and keeps the batches of one service on one node. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    node: NodeId,
    incarnation: u64,
    service: Service,
    site: String,
    clock: Clock,
    live: Live,
    out: mpsc::Sender<(Subject, Bytes)>,
    streams: Mutex<HashMap<(SdkAppId, ConvId), Arc<StreamState>>>,
    /// Streams of earlier tenures of this node, until they are quiet.
    replaced: Mutex<Vec<Arc<StreamState>>>,
    direct: Direct,
    repeats: Repeats,
    /// Sent to gateways on streams that are closed.
    closed_counts: Mutex<HashMap<NodeId, LinkCount>>,
    kept: Total,
    metrics: OwnerMetrics,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Starts a publisher; its tasks end with `deps.tasks`.
    #[must_use]
    pub fn new(deps: PublisherDeps) -> Self {
        let tasks = deps.tasks.child("delivery");
        let (out, outgoing) = mpsc::channel(OUT);
        let kept = Total::default();
        let metrics = OwnerMetrics::new(&deps.metrics, deps.service.name());
        let inner = Arc::new(Inner {
            direct: Direct::new(Arc::clone(&kept)),
            repeats: Repeats::default(),
            live: Live::new(&deps.cluster),
            node: deps.node,
            incarnation: deps.incarnation,
            service: deps.service,
            site: deps.site,
            clock: deps.clock,
            out,
            streams: Mutex::default(),
            replaced: Mutex::default(),
            closed_counts: Mutex::default(),
            kept,
            metrics,
        });
        tasks.spawn("delivery.out", send_all(deps.bus.clone(), outgoing, tasks.clone(), Arc::downgrade(&inner)));
        tasks.spawn("delivery.repeat", repeat::run(Arc::clone(&inner), tasks.clone()));
        tasks.spawn("delivery.hints", direct::hints(Arc::clone(&inner), deps.bus, tasks.clone()));
        tasks.spawn("delivery.places", direct::lookups(Arc::clone(&inner), deps.cluster, deps.rng, tasks.clone()));
        Self { inner }
    }

    /// Begins to publish a conversation this node has claimed with `epoch`, whose last stored position is `head_seq`.
    ///
    /// Gateways registered with an owner before hear of the new tenure and register again. One stream per conversation:
    /// a new one replaces the old. To tell users by name how far the conversation is after a take-over, publish nothing
    /// to them: [`Stream::announce`].
    #[must_use]
    pub fn open(&self, app: SdkAppId, conv: ConvId, name: ConvName, epoch: Epoch, head_seq: Seq) -> Stream {
        Stream::open(Arc::clone(&self.inner), app, conv, name, epoch, head_seq)
    }

    /// Sends `records` to a user's devices, outside any conversation: list changes, notices, profile. In order per user
    /// and gateway; nothing is stored.
    pub fn notify_user(&self, app: SdkAppId, user: &UserId, records: Vec<Record>) {
        let batch = Batch {
            app: app.0,
            key: Some(batch::Key::User(user.as_str().to_owned())),
            records,
            published_ms: self.inner.clock.now().0,
            ..Batch::default()
        };
        let batch = Bytes::from(batch.encode_to_vec());
        let direct = crate::places::Direct { conv: 0, epoch: 0, announce: batch.clone(), batch };
        self.inner.send_direct(app, std::slice::from_ref(user), direct);
    }

    /// The `Delivery` service of this node.
    pub fn service(&self, registrar: Arc<dyn Registrar>) -> DeliveryServer<Grpc> {
        DeliveryServer::new(Grpc::new(Arc::clone(&self.inner), registrar))
    }

    /// [`Publisher::service`] as routes, to be added to those of the owner's service.
    pub fn routes(&self, registrar: Arc<dyn Registrar>) -> tonic::service::Routes {
        tonic::service::Routes::new(self.service(registrar))
    }

    /// What was sent to each gateway: the owner's side of the link law.
    #[must_use]
    pub fn links(&self) -> Vec<LinkCount> {
        let mut counts = self.inner.closed_counts.lock().clone();
        for stream in self.inner.all_streams() {
            stream.add_counts(&mut counts);
        }
        self.inner.direct.add_counts(&mut counts);
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_by(|a, b| a.peer.cmp(&b.peer));
        counts
    }
}

impl Inner {
    /// Queues a bus message; when that is impossible it is lost like on the bus, and seen by its number.
    fn send(&self, subject: Subject, payload: Bytes) {
        if self.out.try_send((subject, payload)).is_err() {
            self.metrics.not_queued.inc();
        }
    }

    fn all_streams(&self) -> Vec<Arc<StreamState>> {
        let streams = self.streams.lock();
        streams.values().cloned().chain(self.replaced.lock().iter().cloned()).collect()
    }

    fn stream(&self, app: u32, conv: u64) -> Option<Arc<StreamState>> {
        self.streams.lock().get(&(SdkAppId(app), ConvId(conv))).cloned()
    }
}

/// Moves what was published to the bus, in order. While the node drains it goes on until nothing came for a while.
async fn send_all(bus: Bus, mut outgoing: mpsc::Receiver<(Subject, Bytes)>, tasks: Tasks, inner: Weak<Inner>) {
    let draining = tasks.draining();
    let mut down = false;
    loop {
        let next = tokio::select! {
            biased;
            next = outgoing.recv() => next,
            () = draining.cancelled() => tokio::time::timeout(LINGER, outgoing.recv()).await.ok().flatten(),
            () = tokio::time::sleep(PROBE), if down => {
                down = bus.flush().await.is_err();
                back(&inner, down);
                continue;
            }
        };
        let Some((subject, payload)) = next else { return };
        let sent = bus.publish(subject, payload).await;
        if down && sent.is_ok() {
            down = false;
            back(&inner, down);
        }
        if let Err(error) = sent {
            down = true;
            if let Some(inner) = inner.upgrade() {
                inner.metrics.not_queued.inc();
            }
            tracing::debug!(%error, "not published");
        }
    }
}

/// Once the bus is back, says all numbers again.
fn back(inner: &Weak<Inner>, down: bool) {
    if !down && let Some(inner) = inner.upgrade() {
        inner.repeat_all();
    }
}
