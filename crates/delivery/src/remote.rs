//! What this crate asks of other nodes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_proto::delivery::delivery_client::DeliveryClient;
use linnet_proto::delivery::{
    DeregisterReply, DeregisterRequest, MissingFramesReply, MissingFramesRequest, MissingReply, MissingRequest,
    MovedRequest, RegisterReply, RegisterRequest,
};
use linnet_proto::session::sessions_client::SessionsClient;
use linnet_proto::session::{Places, WhereRequest};
use linnet_runtime::status::{refusal_or, with_deadline};
use linnet_types::{GroupId, NodeId, Refusal, SdkAppId, UserId, code};
use parking_lot::Mutex;

use crate::places::Key;

/// One call for places; the outer patience of a send is several of them.
const WHERE: Duration = Duration::from_millis(800);
/// Users per call, the service's bound.
const WHERE_MAX: usize = 500;
/// Registering may activate a conversation.
const REGISTER: Duration = Duration::from_secs(3);
const MISSING: Duration = Duration::from_secs(1);

/// Which gateways live, and since when the others are gone.
pub(crate) struct Live {
    cluster: Cluster,
    seen: Mutex<HashMap<NodeId, Seen>>,
}

struct Seen {
    incarnation: u64,
    gone: Option<Duration>,
}

/// A life of a gateway that is over: registrations of this incarnation and earlier ones are nobody's.
pub(crate) struct Ended {
    pub(crate) gateway: NodeId,
    pub(crate) incarnation: u64,
}

impl Live {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), seen: Mutex::default() }
    }

    pub(crate) fn has(&self, gateway: &NodeId) -> bool {
        self.cluster.snapshot().lives(gateway)
    }

    pub(crate) fn all(&self) -> Vec<NodeId> {
        // Also those that are on no ring because they are young or about to stop.
        let snapshot = self.cluster.snapshot();
        let gateways = snapshot.nodes().filter(|node| node.services.contains(&Service::Gateway));
        gateways.map(|node| node.id.clone()).collect()
    }

    /// Notes who came and went; answers the lives that ended: of gateways gone for `span` by now, once each, and of those that
    /// have started again.
    pub(crate) fn refresh(&self, now: Duration, span: Duration) -> Vec<Ended> {
        let snapshot = self.cluster.snapshot();
        let living: HashMap<NodeId, u64> = snapshot
            .nodes()
            .filter(|node| node.services.contains(&Service::Gateway))
            .map(|node| (node.id.clone(), node.incarnation))
            .collect();
        let mut ended = Vec::new();
        let mut seen = self.seen.lock();
        for (gateway, incarnation) in &living {
            let known = seen.entry(gateway.clone()).or_insert(Seen { incarnation: *incarnation, gone: None });
            if known.incarnation < *incarnation {
                ended.push(Ended { gateway: gateway.clone(), incarnation: *incarnation - 1 });
            }
            *known = Seen { incarnation: *incarnation, gone: None };
        }
        seen.retain(|gateway, known| {
            if living.contains_key(gateway) {
                return true;
            }
            let since = *known.gone.get_or_insert(now);
            let over = since + span <= now;
            if over {
                ended.push(Ended { gateway: gateway.clone(), incarnation: u64::MAX });
            }
            !over
        });
        ended
    }
}

/// Asks where users are; in chunks, each chunk of one app and one session node. Answers one result per chunk.
pub(crate) async fn places(cluster: &Cluster, users: Vec<Key>) -> Vec<(Vec<Key>, Result<Vec<Places>, Refusal>)> {
    let mut chunks: BTreeMap<(SdkAppId, Option<NodeId>), Vec<Key>> = BTreeMap::new();
    for (app, user) in users {
        let owner = cluster.owner_node(Service::Session, RouteKey::user(app, &user)).ok();
        chunks.entry((app, owner)).or_default().push((app, user));
    }
    let calls = chunks.into_iter().flat_map(|((app, owner), users)| {
        let parts: Vec<Vec<Key>> = users.chunks(WHERE_MAX).map(<[Key]>::to_vec).collect();
        parts.into_iter().map(move |part| (app, owner.clone(), part))
    });
    let calls = calls.map(|(app, owner, users)| async move {
        let found = match owner {
            Some(owner) => ask_places(cluster, app, &owner, &users).await,
            None => Err(Refusal::retry(code::BUSY, "no session service", 200)),
        };
        (users, found)
    });
    futures::future::join_all(calls).await
}

async fn ask_places(cluster: &Cluster, app: SdkAppId, owner: &NodeId, users: &[Key]) -> Result<Vec<Places>, Refusal> {
    let rpc = cluster.for_node(Service::Session, owner)?;
    let names = users.iter().map(|(_, user)| user.as_str().to_owned()).collect();
    let request = with_deadline(WhereRequest { app: app.0, users: names }, WHERE);
    let reply = SessionsClient::new(rpc).r#where(request).await;
    let places = reply.map_err(|why| refusal_or(&why, code::BUSY))?.into_inner().places;
    if places.len() == users.len() {
        return Ok(places);
    }
    Err(Refusal::new(code::BUSY, "the session service answered for other users"))
}

/// The owners a gateway asks.
#[derive(Clone)]
pub(crate) struct Owners {
    cluster: Cluster,
}

impl Owners {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    fn of_group(&self, app: u32, group: &str) -> Result<DeliveryClient<linnet_cluster::Rpc>, Refusal> {
        let key = RouteKey::group(SdkAppId(app), &GroupId::trusted(group));
        Ok(DeliveryClient::new(self.cluster.for_owner(Service::Group, key)?))
    }

    pub(crate) async fn register(&self, request: RegisterRequest) -> Result<RegisterReply, Refusal> {
        let mut owner = self.of_group(request.app, &request.group_id)?;
        let reply = owner.register(with_deadline(request, REGISTER)).await;
        reply.map(tonic::Response::into_inner).map_err(|why| refusal_or(&why, code::BUSY))
    }

    pub(crate) async fn deregister(&self, request: DeregisterRequest) -> Result<DeregisterReply, Refusal> {
        let mut owner = self.of_group(request.app, &request.group_id)?;
        let reply = owner.deregister(with_deadline(request, MISSING)).await;
        reply.map(tonic::Response::into_inner).map_err(|why| refusal_or(&why, code::BUSY))
    }

    pub(crate) async fn missing(&self, request: MissingRequest) -> Result<MissingReply, Refusal> {
        let mut owner = self.of_group(request.app, &request.group_id)?;
        let reply = owner.missing(with_deadline(request, MISSING)).await;
        reply.map(tonic::Response::into_inner).map_err(|why| refusal_or(&why, code::BUSY))
    }

    pub(crate) async fn missing_frames(
        &self,
        service: Service,
        owner: &NodeId,
        request: MissingFramesRequest,
    ) -> Result<MissingFramesReply, Refusal> {
        let mut owner = DeliveryClient::new(self.cluster.for_node(service, owner)?);
        let reply = owner.missing_frames(with_deadline(request, MISSING)).await;
        reply.map(tonic::Response::into_inner).map_err(|why| refusal_or(&why, code::BUSY))
    }

    pub(crate) async fn moved(&self, service: Service, owner: &NodeId, request: MovedRequest) {
        let Ok(rpc) = self.cluster.for_node(service, owner) else { return };
        // Lost, it is said again with the next frame.
        let _ = DeliveryClient::new(rpc).moved(with_deadline(request, MISSING)).await;
    }

    pub(crate) fn lives(&self, node: &NodeId) -> bool {
        self.cluster.snapshot().lives(node)
    }
}

/// A key of the cache from its parts on the wire.
pub(crate) fn key(app: u32, user: &str) -> Key {
    (SdkAppId(app), UserId::trusted(user))
}
