//! Calls within one process, for one node or many.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use linnet_runtime::metrics::{Counter, Gauge};
use linnet_runtime::status::to_status;
use linnet_runtime::{Metrics, Rng, TraceContext, telemetry};
use linnet_types::{NodeId, Refusal, code};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use crate::call::{Call, Reply, Way};
use crate::config::RpcConfig;
use crate::metrics::{Calls, ServeMetrics};
use crate::rpc::Rpc;
use crate::service::Service;
use crate::sim::Sim;

/// The nodes of this process and the services they answer with. Clones share it.
#[derive(Clone, Debug)]
pub struct LocalNet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RpcConfig,
    metrics: ServeMetrics,
    servers: RwLock<HashMap<NodeId, BTreeMap<Service, Arc<Server>>>>,
    sim: Option<Sim>,
}

/// One service of one node: the end of a call, with its limit.
#[derive(Debug)]
pub(crate) struct Server {
    routes: Routes,
    permits: Semaphore,
    shed_retry: Duration,
    active: Gauge,
    shed: Counter,
}

impl LocalNet {
    /// A network without faults.
    #[must_use]
    pub fn new(config: RpcConfig, metrics: &Metrics) -> Self {
        Self::build(config, metrics, None)
    }

    /// A network whose nodes can be killed, paused and cut off, and whose calls fail by seed, through the [`Sim`].
    #[must_use]
    pub fn simulated(config: RpcConfig, metrics: &Metrics, rng: Rng) -> (Self, Sim) {
        let sim = Sim::new(rng);
        (Self::build(config, metrics, Some(sim.clone())), sim)
    }

    fn build(config: RpcConfig, metrics: &Metrics, sim: Option<Sim>) -> Self {
        let metrics = ServeMetrics::new(metrics);
        Self { inner: Arc::new(Inner { config, metrics, servers: RwLock::default(), sim }) }
    }

    /// Answers calls to `service` of `node` with `routes` from now on.
    pub fn register(&self, node: NodeId, service: Service, routes: Routes) {
        let label = [("service", service.name())];
        let server = Server {
            routes: routes.prepare(),
            permits: Semaphore::new(self.inner.config.concurrency.min(Semaphore::MAX_PERMITS)),
            shed_retry: *self.inner.config.shed_retry,
            active: self.inner.metrics.active.get_or_create(&label).clone(),
            shed: self.inner.metrics.shed.get_or_create(&label).clone(),
        };
        self.inner.servers.write().entry(node).or_default().insert(service, Arc::new(server));
    }

    /// Forgets a node: new calls to it are refused, running ones end by themselves.
    pub fn remove(&self, node: &NodeId) {
        self.inner.servers.write().remove(node);
    }

    /// The path from `from` to a service of a node of this process.
    pub(crate) fn rpc(&self, from: &NodeId, to: &NodeId, service: Service, calls: Calls) -> Option<Rpc> {
        let server = self.server(to, service)?;
        let sim = self.inner.sim.as_ref().map(|sim| sim.link(from.clone(), to.clone()));
        Some(Rpc::new(Call { way: Way::Local { server, sim }, calls, default_timeout: self.default_timeout() }))
    }

    /// The end of calls to a service of a node of this process.
    pub(crate) fn server(&self, node: &NodeId, service: Service) -> Option<Arc<Server>> {
        self.inner.servers.read().get(node)?.get(&service).map(Arc::clone)
    }

    /// Deadline of a call whose caller names none.
    pub(crate) fn default_timeout(&self) -> Duration {
        *self.inner.config.default_timeout
    }
}

/// Decrements the gauge also when the call is dropped at its deadline.
struct Active<'a>(&'a Gauge);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Server {
    /// Works on a call, or refuses it when there are too many.
    pub(crate) async fn serve(&self, request: Request<Body>) -> Reply {
        let Ok(_permit) = self.permits.try_acquire() else {
            self.shed.inc();
            let ms = u32::try_from(self.shed_retry.as_millis()).unwrap_or(u32::MAX);
            return Err(to_status(&Refusal::retry(code::BUSY, "the service is at its limit of calls", ms)));
        };
        self.active.inc();
        let _active = Active(&self.active);
        let trace = telemetry::extract(request.headers());
        let mut routes = self.routes.clone();
        let handled = async move { routes.call(request).await };
        // Within one process the caller's task is usually inside the request's scope already.
        let reply = match trace {
            Some(trace) if TraceContext::current().map(|context| context.request) != Some(trace.request) => {
                trace.scope("rpc", handled).await
            }
            _ => handled.await,
        };
        reply.map_err(|never: Infallible| match never {})
    }
}
