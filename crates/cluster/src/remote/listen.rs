//! Accepting connections of other nodes: who they are, what they may call.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use linnet_proto::cluster::link_server::LinkServer;
use linnet_runtime::status::timeout_of;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use super::access::Peer;
use super::carry::Carrier;
use super::dial::{CLUSTER, FRAME, FROM, MESSAGE, SERVICE, TO, WINDOW};
use super::link::unreachable;
use super::tls::identity;
use super::{Exec, Shared};
use crate::service::Service;

/// Connections of other nodes at a time: two for each service a node calls here.
const CONNECTIONS: usize = 4096;
/// Calls with a stream of their own on one connection; more wait at their caller.
const STREAMS: u32 = 4096;
/// A peer that has not shown its certificate by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A caller that does not answer pings for both together is gone; its handlers are dropped.
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(5);
/// Pause after the system could not give a connection (no more files).
const AFTER_ERROR: Duration = Duration::from_millis(100);

const CARRY: &str = "/linnet.cluster.v1.Link/Carry";

/// Who calls which service here.
#[derive(Clone)]
pub(super) struct Caller {
    node: Arc<str>,
    peer: Peer,
    pub(super) service: Service,
}

impl Caller {
    pub(super) fn may_call(&self, path: &str) -> bool {
        self.peer.may_call(self.service, path)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.node, self.peer)
    }
}

/// Accepts until the node stops.
pub(super) async fn accept(net: Arc<Shared>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = net.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            net.metrics.refused("busy");
            continue;
        };
        let serving = Arc::clone(&net);
        net.tasks.spawn("rpc.inbound", async move {
            connection(serving, tcp).await;
            drop(place);
        });
    }
}

async fn connection(net: Arc<Shared>, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let Some(tls) = &net.tls else {
        return serve(net, tcp, Peer::Anyone).await;
    };
    let peer = tcp.peer_addr();
    let shown = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls.server()).accept(tcp)).await;
    let why = match shown {
        Ok(Ok(tls)) => match identity(tls.get_ref().1.peer_certificates()) {
            Some(identity) => return serve(net, tls, Peer::Node(identity.services.into())).await,
            None => "no certificate".to_owned(),
        },
        Ok(Err(why)) => why.to_string(),
        Err(_) => "no certificate in time".to_owned(),
    };
    net.metrics.refused("certificate");
    tracing::info!(?peer, why, "a peer was refused");
}

async fn serve<T>(net: Arc<Shared>, io: T, peer: Peer)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let gauge = net.metrics.inbound.clone();
    let closing = net.closing.clone();
    let exec = Exec(net.tasks.clone());
    let carry = LinkServer::new(Carrier { net: Arc::clone(&net) }).max_decoding_message_size(MESSAGE);
    let service = service_fn(move |request: Request<Incoming>| {
        let (net, peer, carry) = (Arc::clone(&net), peer.clone(), carry.clone());
        async move { Ok::<_, Infallible>(route(&net, peer, carry, request).await) }
    });
    let connection = http2::Builder::new(exec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    gauge.inc();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    gauge.dec();
    if let Err(why) = ended {
        tracing::debug!(%why, "connection of another node ended");
    }
}

async fn route(
    net: &Arc<Shared>,
    peer: Peer,
    mut carry: LinkServer<Carrier>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let caller = match caller(net, peer, request.headers()) {
        Ok(caller) => caller,
        Err(status) => return status.into_http(),
    };
    if request.uri().path() == CARRY {
        request.extensions_mut().insert(caller);
        let reply = carry.call(request).await;
        return reply.unwrap_or_else(|never: Infallible| match never {});
    }
    alone(net, &caller, request.map(Body::new)).await.unwrap_or_else(|status| status.into_http())
}

/// A call on a stream of its own. It is dropped with its caller.
async fn alone(net: &Shared, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Status> {
    if !caller.may_call(request.uri().path()) {
        net.metrics.refused("role");
        return Err(Status::permission_denied(format!("{caller} may not call {}", request.uri().path())));
    }
    let server = net.local.server(&net.me, caller.service).ok_or_else(unreachable)?;
    let timeout = timeout_of(request.headers()).unwrap_or_else(|| net.local.default_timeout());
    let late = |_| Err(Status::deadline_exceeded("no answer before the deadline"));
    tokio::time::timeout(timeout, server.serve(request)).await.unwrap_or_else(late)
}

/// Whether the caller means this node, and as what.
fn caller(net: &Shared, peer: Peer, headers: &HeaderMap) -> Result<Caller, Status> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text(CLUSTER) != net.cluster {
        net.metrics.refused("cluster");
        return Err(Status::permission_denied(format!("this node is of cluster {:?}", net.cluster)));
    }
    if text(TO) != net.me.as_str() {
        net.metrics.refused("node");
        // The caller's view is old: the address belongs to another node now.
        return Err(Status::unavailable(format!("this is node {}", net.me)));
    }
    let service = Service::parse(text(SERVICE)).ok_or_else(|| Status::invalid_argument("no such service"))?;
    Ok(Caller { node: text(FROM).into(), peer, service })
}
