//! Calls between processes: long-lived streams that carry many calls in each write.
//!
//! One stream for each (target node, service), over one HTTP/2 connection of its own:
//!
//! - Calls that wait share a frame, and so do replies; no timer holds either back.
//! - The target starts handlers in the order in which callers made their calls, as in one process.
//! - Every queue is bounded; over the bound a call is refused with a retryable code and counted.
//! - A call that was surely not carried out is refused with BUSY; one whose connection broke is `unavailable` without a
//!   refusal, so that only idempotent calls are repeated.
//! - Streams of requests or replies, and requests above 256 KiB, go over a second connection; large replies travel in
//!   pieces among the others.
//!
//! Over loopback, 200 bytes each way, 16 to 128 callers, two shared cores: 8.7 µs of CPU a call for both ends together
//! (9.8 with TLS) and 58,000 to 76,000 calls/s, where unary gRPC takes 28 to 35 µs and does 19,000 (`examples/link.rs`).

mod access;
mod carry;
mod dial;
mod link;
mod listen;
mod metrics;
mod tls;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linnet_runtime::config::Documented;
use linnet_runtime::{Metrics, Rng, Tasks};
use linnet_types::NodeId;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::link::Link;
use self::link::Target;
use self::metrics::LinkMetrics;
use self::tls::Tls;
use crate::call::{Call, Way};
use crate::config::ClusterConfig;
use crate::error::{Error, Result};
use crate::members::{Members, Snapshot};
use crate::metrics::Calls;
use crate::net::LocalNet;
use crate::rpc::Rpc;
use crate::service::Service;

/// What the transport is given.
#[derive(Debug)]
pub struct RemoteDeps {
    /// This node.
    pub me: NodeId,
    /// Services of this node, which other nodes may call.
    pub local: LocalNet,
    /// Owner of every task of the transport.
    pub tasks: Tasks,
    /// Spreads attempts.
    pub rng: Rng,
    /// Where it counts.
    pub metrics: Metrics,
}

/// The connections of one node with the others. Clones share them.
#[derive(Clone)]
pub struct RemoteNet {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    address: SocketAddr,
    advertised: String,
    /// Version of the members that `links` were last compared with.
    pruned: AtomicU64,
    links: RwLock<HashMap<NodeId, BTreeMap<Service, Link>>>,
}

/// What both ends use.
struct Shared {
    me: NodeId,
    cluster: String,
    via: HashMap<String, String>,
    local: LocalNet,
    tls: Option<Tls>,
    tasks: Tasks,
    rng: Rng,
    metrics: LinkMetrics,
    /// Cancelled when the node stops: no new calls either way.
    closing: CancellationToken,
}

impl RemoteNet {
    /// Answers calls of other nodes to the services of this one from now on.
    ///
    /// # Errors
    /// When the port cannot be had, a certificate cannot be used, or the configuration would leave calls open to others.
    pub async fn listen(config: &ClusterConfig, deps: RemoteDeps) -> Result<Self> {
        let wrong = |key: &'static str, what: String| Error::Config { key, what };
        let listen: SocketAddr = config
            .listen
            .parse()
            .map_err(|_| wrong("listen", format!("{:?} is no address and port", config.listen)))?;
        let problems = config.problems();
        if let Some(problem) = problems.first() {
            return Err(Error::Config { key: "", what: problem.to_string() });
        }
        let via = config.routes().map_err(|what| wrong("via", what))?;
        let tls = if config.has_tls() { Some(Tls::load(config)?) } else { None };
        let listener = TcpListener::bind(listen).await.map_err(|source| Error::Listen { address: listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: listen, source })?;
        let RemoteDeps { me, local, tasks, rng, metrics } = deps;
        let tasks = tasks.child("rpc");
        let shared = Arc::new(Shared {
            me,
            cluster: config.name.clone(),
            via,
            local,
            tls,
            closing: tasks.draining(),
            tasks,
            rng,
            metrics: LinkMetrics::new(&metrics),
        });
        if let Some(tls) = &shared.tls {
            shared.metrics.expiry.set(i64::try_from(tls.until().secs()).unwrap_or(i64::MAX));
            shared.tasks.spawn("rpc.certificates", watch(Arc::clone(&shared)));
        }
        shared.tasks.spawn("rpc.accept", listen::accept(Arc::clone(&shared), listener));
        let advertised = if config.advertise.is_empty() { address.to_string() } else { config.advertise.clone() };
        let (pruned, links) = (AtomicU64::new(0), RwLock::default());
        Ok(Self { inner: Arc::new(Inner { shared, address, advertised, pruned, links }) })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The address other nodes are told.
    #[must_use]
    pub fn advertised(&self) -> &str {
        &self.inner.advertised
    }

    /// Takes no more calls, finishes those that were accepted, says goodbye to peers; what is not done by `deadline` is
    /// dropped. True when all was done.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.inner.shared.tasks.shutdown(deadline).await
    }

    /// Lets go of nodes as they leave, also when nobody calls.
    pub(crate) fn follow(&self, members: Members) {
        let (net, closing) = (self.clone(), self.inner.shared.closing.clone());
        self.inner.shared.tasks.spawn("rpc.members", async move {
            let mut changes = members.changes();
            while let Some(Ok(())) = closing.run_until_cancelled(changes.changed()).await {
                net.prune(&members.snapshot());
            }
        });
    }

    /// The path to a service of a node of another process; `None` when its address is not known.
    pub(crate) fn rpc(&self, members: &Snapshot, node: &NodeId, service: Service, calls: Calls) -> Option<Rpc> {
        let link = self.link(members, node, service)?;
        let default_timeout = self.inner.shared.local.default_timeout();
        Some(Rpc::new(Call { way: Way::Remote(link), calls, default_timeout }))
    }

    /// Whether the node could not be reached when last tried.
    pub(crate) fn is_down(&self, node: &NodeId, service: Service) -> bool {
        let links = self.inner.links.read();
        links.get(node).and_then(|links| links.get(&service)).is_some_and(Link::is_down)
    }

    fn link(&self, members: &Snapshot, node: &NodeId, service: Service) -> Option<Link> {
        let address = &members.node(node)?.address;
        if address.is_empty() {
            return None;
        }
        self.prune(members);
        let known = |links: &HashMap<NodeId, BTreeMap<Service, Link>>| {
            links.get(node)?.get(&service).filter(|link| link.address() == address).cloned()
        };
        if let Some(link) = known(&self.inner.links.read()) {
            return Some(link);
        }
        let mut links = self.inner.links.write();
        if let Some(link) = known(&links) {
            return Some(link);
        }
        let target = Target { node: node.clone(), service, address: address.clone() };
        let link = Link::new(Arc::clone(&self.inner.shared), target);
        if let Some(old) = links.entry(node.clone()).or_default().insert(service, link.clone()) {
            old.retire();
        }
        Some(link)
    }

    /// Lets go of nodes that left.
    fn prune(&self, members: &Snapshot) {
        let seen = self.inner.pruned.load(Ordering::Relaxed);
        let newer = self.inner.pruned.compare_exchange(seen, members.version, Ordering::Relaxed, Ordering::Relaxed);
        if seen >= members.version || newer.is_err() {
            return;
        }
        self.inner.links.write().retain(|node, links| {
            let lives = members.lives(node);
            if !lives {
                links.values().for_each(Link::retire);
            }
            lives
        });
    }
}

impl std::fmt::Debug for RemoteNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteNet").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

async fn watch(shared: Arc<Shared>) {
    if let Some(tls) = &shared.tls {
        tls.watch(&shared.metrics, shared.closing.clone()).await;
    }
}

/// Gives hyper's tasks an owner.
#[derive(Clone)]
struct Exec(Tasks);

impl<F> hyper::rt::Executor<F> for Exec
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("rpc.http2", future);
    }
}
