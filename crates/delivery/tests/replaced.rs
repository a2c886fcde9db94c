//! A gateway whose ring still names an owner that was replaced.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linnet_bus::{Local as LocalBus, subject};
use linnet_cluster::{Cluster, RpcConfig, Service};
use linnet_delivery::{Delivered, Interest, Local, Locals, Receiver, ReceiverDeps, Which};
use linnet_proto::delivery::delivery_server::{Delivery, DeliveryServer};
use linnet_proto::delivery::{self as pb, Batch, Envelope, envelope};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{ConvId, GroupId, NodeId, SdkAppId, UnixMillis};
use prost::Message as _;
use tonic::{Request, Response, Status};

/// Answers with an old tenure for a second, then with the new one.
struct Replaced {
    clock: Clock,
    asked: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Delivery for Replaced {
    async fn register(&self, _: Request<pb::RegisterRequest>) -> Result<Response<pb::RegisterReply>, Status> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        // The bound ends what would otherwise never let time go on.
        let tenure = if self.clock.mono() < Duration::from_secs(1) && asked < 10_000 { 1 } else { 2 };
        Ok(Response::new(pb::RegisterReply { tenure, ..pb::RegisterReply::default() }))
    }

    async fn deregister(&self, _: Request<pb::DeregisterRequest>) -> Result<Response<pb::DeregisterReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn missing(&self, _: Request<pb::MissingRequest>) -> Result<Response<pb::MissingReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn missing_frames(
        &self,
        _: Request<pb::MissingFramesRequest>,
    ) -> Result<Response<pb::MissingFramesReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn moved(&self, _: Request<pb::MovedRequest>) -> Result<Response<pb::MovedReply>, Status> {
        Ok(Response::new(Default::default()))
    }
}

struct Somebody;

impl Locals for Somebody {
    fn local(&self, _: SdkAppId, _: ConvId, _: Which) -> Local {
        Local { members: vec!["alice".into()], ..Local::default() }
    }

    fn is_here(&self, _: SdkAppId, _: &str) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_know_it_was_replaced_is_asked_at_growing_distances() {
    let (metrics, clock) = (Metrics::new(), Clock::simulated(UnixMillis(1_760_000_000_000)));
    let (tasks, node) = (Tasks::new(&metrics), NodeId::trusted("n1"));
    let bus = LocalBus::new(&metrics).bus();
    let cluster = Cluster::alone(node.clone(), RpcConfig::default(), &metrics);
    let asked = Arc::<AtomicU64>::default();
    let owner = Replaced { clock: clock.clone(), asked: Arc::clone(&asked) };
    cluster.register_local(&node, Service::Group, tonic::service::Routes::new(DeliveryServer::new(owner)));
    let deps = ReceiverDeps {
        gateway: node,
        incarnation: 1,
        site: "here".into(),
        bus: bus.clone(),
        cluster,
        clock,
        rng: Rng::seeded(1),
        tasks,
        metrics,
        locals: Arc::new(Somebody),
    };
    let (receiver, mut delivered) = Receiver::new(deps).await.unwrap();
    let (app, conv) = (SdkAppId(1), ConvId(7));
    receiver.register(Interest { app, conv, group_id: GroupId::trusted("g") }).await.unwrap();
    let batch = Batch { app: app.0, conv: conv.0, tenure: 2, no: 1, ..Batch::default() };
    let envelope = Envelope { kind: Some(envelope::Kind::Batch(batch)), service: "group".into() };
    bus.publish(subject::fan("here", conv), envelope.encode_to_vec().into()).await.unwrap();
    while !matches!(delivered.recv().await, Some(Delivered::Batch(batch)) if batch.tenure == 2) {}
    let asked = asked.load(Ordering::Relaxed);
    assert!((2..100).contains(&asked), "asked {asked} times");
}
