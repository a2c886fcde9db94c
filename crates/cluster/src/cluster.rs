//! The handle services use to reach each other.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use linnet_runtime::Metrics;
use linnet_runtime::status::TRANSPORT_RETRY_MS;
use linnet_types::{NodeId, Refusal, UnixMillis, code};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::config::RpcConfig;
use crate::key::RouteKey;
use crate::members::{Members, Snapshot};
use crate::metrics::CallMetrics;
use crate::net::LocalNet;
use crate::remote::RemoteNet;
use crate::rpc::Rpc;
use crate::service::Service;

/// One node's view of the cluster; clones share it.
#[derive(Clone, Debug)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    me: NodeId,
    members: Members,
    net: LocalNet,
    remote: Option<RemoteNet>,
    calls: CallMetrics,
    turn: AtomicUsize,
}

impl Cluster {
    /// The view of node `me`: who lives comes from `members`, calls go through `net`.
    #[must_use]
    pub fn new(me: NodeId, members: Members, net: LocalNet, metrics: &Metrics) -> Self {
        Self::build(me, members, net, None, metrics)
    }

    /// The view of node `me` of a cluster of processes: services of this process are called in place, others over
    /// `remote` at the address `members` know.
    #[must_use]
    pub fn joined(me: NodeId, members: Members, net: LocalNet, remote: RemoteNet, metrics: &Metrics) -> Self {
        remote.follow(members.clone());
        Self::build(me, members, net, Some(remote), metrics)
    }

    fn build(me: NodeId, members: Members, net: LocalNet, remote: Option<RemoteNet>, metrics: &Metrics) -> Self {
        let calls = CallMetrics::new(metrics);
        Self { inner: Arc::new(Inner { me, members, net, remote, calls, turn: AtomicUsize::new(0) }) }
    }

    /// One process that runs every service.
    #[must_use]
    pub fn alone(me: NodeId, config: RpcConfig, metrics: &Metrics) -> Self {
        Self::new(me.clone(), Members::alone(me), LocalNet::new(config, metrics), metrics)
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> &NodeId {
        &self.inner.me
    }

    /// `now` of this node's clock, as the clocks of most nodes have it; see [`Members::ahead_ms`].
    #[must_use]
    pub fn common_time(&self, now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.saturating_add_signed(self.inner.members.ahead_ms()))
    }

    /// Answers calls to `service` of `node`, a node of this process, with `routes`.
    pub fn register_local(&self, node: &NodeId, service: Service, routes: Routes) {
        self.inner.net.register(node.clone(), service, routes);
    }

    /// The path to the node that owns `key` in `service`, as far as this node knows.
    ///
    /// # Errors
    /// A retryable [`code::BUSY`] while no node serves it.
    pub fn for_owner(&self, service: Service, key: impl Borrow<RouteKey>) -> Result<Rpc, Refusal> {
        self.for_node(service, &self.owner_node(service, key)?)
    }

    /// The path to `service` of one node.
    ///
    /// # Errors
    /// A retryable [`code::BUSY`] when the node is not reachable.
    pub fn for_node(&self, service: Service, node: &NodeId) -> Result<Rpc, Refusal> {
        let calls = self.inner.calls.of(service);
        if let Some(rpc) = self.inner.net.rpc(&self.inner.me, node, service, calls.clone()) {
            return Ok(rpc);
        }
        let remote = self.inner.remote.as_ref().filter(|_| *node != self.inner.me);
        remote.and_then(|net| net.rpc(&self.snapshot(), node, service, calls)).ok_or_else(|| nobody(service))
    }

    /// The path to any node that runs `service`: this one if it does, else each in turn, those that could not be reached
    /// when last tried only if there is no other.
    ///
    /// # Errors
    /// A retryable [`code::BUSY`] while no node serves it.
    pub fn any(&self, service: Service) -> Result<Rpc, Refusal> {
        let snapshot = self.snapshot();
        let nodes = snapshot.ring(service).nodes();
        if nodes.contains(&self.inner.me) {
            return self.for_node(service, &self.inner.me);
        }
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..nodes.len()).map(|n| &nodes[turn.wrapping_add(n) % nodes.len()]);
        let is_down = |node: &NodeId| self.inner.remote.as_ref().is_some_and(|net| net.is_down(node, service));
        let node = in_turn().find(|node| !is_down(node)).or_else(|| in_turn().next());
        self.for_node(service, node.ok_or_else(|| nobody(service))?)
    }

    /// The live nodes that run `service`, sorted.
    #[must_use]
    pub fn nodes(&self, service: Service) -> Vec<NodeId> {
        self.snapshot().serving(service).cloned().collect()
    }

    /// The node that owns `key` in `service`, as far as this node knows.
    ///
    /// # Errors
    /// A retryable [`code::BUSY`] while no node serves it.
    pub fn owner_node(&self, service: Service, key: impl Borrow<RouteKey>) -> Result<NodeId, Refusal> {
        self.snapshot().ring(service).owner(key.borrow()).cloned().ok_or_else(|| nobody(service))
    }

    /// Whether this node should own `key`. A hint: the guard in the store decides.
    #[must_use]
    pub fn owns(&self, service: Service, key: impl Borrow<RouteKey>) -> bool {
        self.snapshot().ring(service).owner(key.borrow()) == Some(&self.inner.me)
    }

    /// The live nodes and their rings now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.members.snapshot()
    }

    /// Shows the version of each new snapshot: owners look again at what they hold, gateways register again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.members.changes()
    }
}

fn nobody(service: Service) -> Refusal {
    Refusal::retry(code::BUSY, format!("no node answers for {service} now"), TRANSPORT_RETRY_MS)
}
