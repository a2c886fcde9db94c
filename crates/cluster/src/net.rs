//! Calls within one process, for one node or many.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use linnet_runtime::metrics::{Counter, Gauge};
use linnet_runtime::status::{timeout_of, to_status};
use linnet_runtime::{Metrics, Rng, TraceContext, telemetry};
use linnet_types::{NodeId, Refusal, code};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use crate::config::RpcConfig;
use crate::metrics::{Calls, ServeMetrics};
use crate::rpc::Rpc;
use crate::service::Service;
use crate::sim::{self, Sim};

/// The nodes of this process and the services they answer with. Clones share it.
#[derive(Clone, Debug)]
pub struct LocalNet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RpcConfig,
    metrics: ServeMetrics,
    servers: RwLock<HashMap<(NodeId, Service), Arc<Server>>>,
    sim: Option<Sim>,
}

/// One service of one node: the end of a call, with its limit.
#[derive(Debug)]
struct Server {
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
        self.inner.servers.write().insert((node, service), Arc::new(server));
    }

    /// Forgets a node: new calls to it are refused, running ones end by themselves.
    pub fn remove(&self, node: &NodeId) {
        self.inner.servers.write().retain(|(id, _), _| id != node);
    }

    /// The path from `from` to a service of a node of this process.
    pub(crate) fn rpc(&self, from: &NodeId, to: &NodeId, service: Service, calls: Calls) -> Option<Rpc> {
        let server = Arc::clone(self.inner.servers.read().get(&(to.clone(), service))?);
        let sim = self.inner.sim.as_ref().map(|sim| sim.link(from.clone(), to.clone()));
        Some(Rpc::new(Call { server, sim, calls, default_timeout: *self.inner.config.default_timeout }))
    }
}

/// The caller's end: deadline, trace, counts; and the simulated network when there is one.
#[derive(Clone)]
struct Call {
    server: Arc<Server>,
    sim: Option<sim::Link>,
    calls: Calls,
    default_timeout: Duration,
}

type Reply = Result<Response<Body>, Status>;

impl tower::Service<Request<Body>> for Call {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.clone();
        Box::pin(async move {
            let begun = tokio::time::Instant::now();
            let result = call.bounded(request).await;
            call.calls.done(&result, begun.elapsed());
            result
        })
    }
}

impl Call {
    /// The deadline covers the call up to the head of the reply; the streams of a long call live on.
    async fn bounded(&self, mut request: Request<Body>) -> Reply {
        let timeout = timeout_of(request.headers()).unwrap_or(self.default_timeout);
        if telemetry::extract(request.headers()).is_none() {
            telemetry::inject(request.headers_mut());
        }
        let answered = async {
            match &self.sim {
                None => self.server.serve(request).await,
                Some(link) => link.carry(request, |request| self.server.serve(request)).await,
            }
        };
        match tokio::time::timeout(timeout, answered).await {
            Ok(reply) => reply,
            Err(_) => Err(Status::deadline_exceeded("no answer before the deadline")),
        }
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
    async fn serve(&self, request: Request<Body>) -> Reply {
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
