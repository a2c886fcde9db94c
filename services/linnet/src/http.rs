//! One port for everything: REST, WebSocket, the operators' surface, probes, and in `dev` the playground.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use linnet_gateway::Gateway;
use linnet_runtime::Tasks;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A request's head, and a TLS handshake, must be there within this time (slow-loris).
const HEAD: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// Connections that are not (yet) WebSockets; more wait in the backlog.
const PLAIN_CONNECTIONS: usize = 8192;

/// What the port serves.
#[derive(Clone)]
pub(crate) struct Site {
    /// With the role `api`.
    pub(crate) api: Option<Router>,
    /// With the role `gateway`.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) admin: Router,
    pub(crate) ops: Router,
    /// Only in `dev`.
    pub(crate) play: Option<Router>,
    /// `/admin`, `/metrics` and the probes for everyone.
    pub(crate) operators_anywhere: bool,
    /// How long the start took.
    pub(crate) ready_ms: u64,
}

/// Serves `site` until the owner it returns drains: then nothing new is accepted.
pub(crate) fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, site: Site, tasks: &Tasks) -> Tasks {
    let acceptor = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(PLAIN_CONNECTIONS));
    let owner = tasks.child("http");
    let (ending, tasks) = (owner.draining(), owner.clone());
    owner.spawn("http.accept", async move {
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ending.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, mostly: accepting again at once would spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (site, acceptor, ending) = (site.clone(), acceptor.clone(), ending.clone());
            tasks.spawn("http.connection", async move {
                let _permit = permit;
                // Answers are small; waiting to merge them only adds delay.
                let _ = stream.set_nodelay(true);
                match acceptor {
                    None => connection(TokioIo::new(stream), peer, site, ending).await,
                    Some(acceptor) => handshake(acceptor, stream, peer, site, ending).await,
                }
            });
        }
    });
    owner
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr, site: Site, ending: CancellationToken) {
    match tokio::time::timeout(HEAD, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => connection(TokioIo::new(stream), peer, site, ending).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

/// Serves a connection; once the node ends, no more than what it is answering.
async fn connection<I>(io: I, peer: SocketAddr, site: Site, ending: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    server.http2().timer(TokioTimer::new()).max_header_list_size(16 * 1024).keep_alive_interval(Some(HEAD));
    let service = service_fn(move |request| answer(request, peer, site.clone()));
    let mut serving = std::pin::pin!(server.serve_connection_with_upgrades(io, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = ending.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended");
    }
}

async fn answer(mut request: Request<Incoming>, peer: SocketAddr, site: Site) -> Result<Response, Infallible> {
    let path = request.uri().path();
    let upgrade = request.headers().contains_key(http::header::UPGRADE);
    // Kits that speak to the vendor's gateway open `/binfo` or the root (`docs/protocol.md`, Where).
    if let Some(gateway) = &site.gateway
        && (path == "/ws" || path == "/binfo" || (path == "/" && upgrade))
    {
        let answer = gateway.upgrade(request, &peer.ip().to_string());
        return Ok(answer.map(Body::new));
    }
    let operators = path.starts_with("/admin/") || matches!(path, "/metrics" | "/healthz" | "/readyz");
    if operators && !site.operators_anywhere && !peer.ip().to_canonical().is_loopback() {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    let router = match path {
        _ if path == "/v4" || path.starts_with("/v4/") => site.api,
        _ if path.starts_with("/admin/") => Some(site.admin),
        "/metrics" | "/healthz" | "/readyz" => Some(site.ops),
        _ => site.play,
    };
    let Some(router) = router else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request.map(Body::new)).await
}
