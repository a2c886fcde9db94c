//! Calls to other services: where each goes and how its failure is shown.

use std::time::Duration;

use linnet_cluster::{Cluster, RouteKey, Rpc, Service};
use linnet_proto::account::accounts_client::AccountsClient;
use linnet_proto::gateway::gateways_client::GatewaysClient;
use linnet_proto::group::groups_client::GroupsClient;
use linnet_proto::messages::messages_client::MessagesClient;
use linnet_proto::push::pushes_client::PushesClient;
use linnet_proto::session::sessions_client::SessionsClient;
use linnet_runtime::status;
use linnet_types::{ConvId, GroupId, NodeId, Refusal, SdkAppId, UserId};
use tonic::{Request, Response, Status};

/// Largest reply of an inner call: a list of 3,000 groups with their profiles.
const REPLY_BYTES: usize = 32 << 20;

/// The other services as a gateway sees them.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    cluster: Cluster,
    timeout: Duration,
}

impl Calls {
    pub(crate) fn new(cluster: Cluster, timeout: Duration) -> Self {
        Self { cluster, timeout }
    }

    /// A request with the deadline of every call.
    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        status::with_deadline(message, self.timeout)
    }

    /// Versions of the ring, as they come.
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.cluster.changes()
    }

    /// The node that owns a group or a pair now.
    pub(crate) fn owner(&self, service: Service, key: &RouteKey) -> Result<NodeId, Refusal> {
        self.cluster.owner_node(service, key)
    }

    pub(crate) fn group_at(&self, node: &NodeId) -> Result<GroupsClient<Rpc>, Refusal> {
        Ok(GroupsClient::new(self.cluster.for_node(Service::Group, node)?))
    }

    pub(crate) fn messages_at(&self, node: &NodeId) -> Result<MessagesClient<Rpc>, Refusal> {
        Ok(MessagesClient::new(self.cluster.for_node(Service::MessageStore, node)?))
    }

    /// A request that is answered within the deadline of every call, and within `left`.
    pub(crate) fn ask_within<T>(&self, message: T, left: Duration) -> Request<T> {
        status::with_deadline(message, self.timeout.min(left))
    }

    pub(crate) fn group(&self, app: SdkAppId, group: &GroupId) -> Result<GroupsClient<Rpc>, Refusal> {
        let rpc = self.cluster.for_owner(Service::Group, RouteKey::group(app, group))?;
        Ok(GroupsClient::new(rpc).max_decoding_message_size(REPLY_BYTES))
    }

    /// Questions about groups that any node answers.
    pub(crate) fn any_group(&self) -> Result<GroupsClient<Rpc>, Refusal> {
        Ok(GroupsClient::new(self.cluster.any(Service::Group)?).max_decoding_message_size(REPLY_BYTES))
    }

    pub(crate) fn pair(&self, app: SdkAppId, one: &UserId, other: &UserId) -> Result<MessagesClient<Rpc>, Refusal> {
        self.messages(RouteKey::pair(app, one, other))
    }

    pub(crate) fn log(&self, conv: ConvId) -> Result<MessagesClient<Rpc>, Refusal> {
        self.messages(RouteKey::conv(conv))
    }

    /// Lists and positions of a user.
    pub(crate) fn lists(&self, app: SdkAppId, user: &UserId) -> Result<MessagesClient<Rpc>, Refusal> {
        self.messages(RouteKey::user(app, user))
    }

    fn messages(&self, key: RouteKey) -> Result<MessagesClient<Rpc>, Refusal> {
        let rpc = self.cluster.for_owner(Service::MessageStore, key)?;
        Ok(MessagesClient::new(rpc).max_decoding_message_size(REPLY_BYTES))
    }

    pub(crate) fn account(&self, app: SdkAppId, user: &UserId) -> Result<AccountsClient<Rpc>, Refusal> {
        Ok(AccountsClient::new(self.cluster.for_owner(Service::Account, RouteKey::user(app, user))?))
    }

    pub(crate) fn push(&self, app: SdkAppId, user: &UserId) -> Result<PushesClient<Rpc>, Refusal> {
        Ok(PushesClient::new(self.cluster.for_owner(Service::Push, RouteKey::user(app, user))?))
    }

    pub(crate) fn session(&self, app: SdkAppId, user: &UserId) -> Result<SessionsClient<Rpc>, Refusal> {
        Ok(SessionsClient::new(self.cluster.for_owner(Service::Session, RouteKey::user(app, user))?))
    }

    /// The node that keeps the sessions of a user.
    pub(crate) fn session_node(&self, app: SdkAppId, user: &UserId) -> Result<NodeId, Refusal> {
        self.cluster.owner_node(Service::Session, RouteKey::user(app, user))
    }

    pub(crate) fn session_of(&self, node: &NodeId) -> Result<SessionsClient<Rpc>, Refusal> {
        Ok(SessionsClient::new(self.cluster.for_node(Service::Session, node)?))
    }

    /// The next best session node: all of them share the directory.
    pub(crate) fn other_session(&self, than: &NodeId) -> Option<SessionsClient<Rpc>> {
        let nodes = self.cluster.nodes(Service::Session);
        let after = nodes.iter().position(|node| node == than).map_or(0, |at| at + 1);
        let other = nodes.iter().cycle().skip(after).take(nodes.len()).find(|node| *node != than)?;
        self.session_of(other).ok()
    }

    pub(crate) fn gateway(&self, node: &NodeId) -> Result<GatewaysClient<Rpc>, Refusal> {
        Ok(GatewaysClient::new(self.cluster.for_node(Service::Gateway, node)?))
    }
}

/// The message of a reply, or the refusal; a fault of the other side is shown as `internal`.
pub(crate) fn answer<T>(reply: Result<Response<T>, Status>, internal: u32) -> Result<T, Refusal> {
    reply.map(Response::into_inner).map_err(|why| status::refusal_or(&why, internal))
}

/// A `GroupId` of a request.
pub(crate) fn group_id(text: &str) -> Result<GroupId, Refusal> {
    GroupId::parse(text)
}
