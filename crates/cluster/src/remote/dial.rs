//! Reaching a node: TCP, TLS, HTTP/2, the stream.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use linnet_proto::cluster as proto;
use linnet_proto::cluster::link_client::LinkClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use super::link::{Outgoing, Target, lost, unreachable};
use super::tls::name_of;
use super::{Exec, Shared};
use crate::call::Reply;

pub(super) const CLUSTER: HeaderName = HeaderName::from_static("linnet-cluster");
pub(super) const FROM: HeaderName = HeaderName::from_static("linnet-from");
pub(super) const TO: HeaderName = HeaderName::from_static("linnet-to");
pub(super) const SERVICE: HeaderName = HeaderName::from_static("linnet-service");

/// A peer that does not answer a ping within the two together is gone (half-open, stopped, cut off).
pub(super) const PING: Duration = Duration::from_secs(2);
pub(super) const PONG: Duration = Duration::from_secs(3);
/// What a stream and a connection may have on the way, and the largest piece of it.
pub(super) const WINDOW: u32 = 4 << 20;
pub(super) const FRAME: u32 = 128 << 10;
/// The largest message of a stream: what a frame takes and the last item of it.
pub(super) const MESSAGE: usize = 4 << 20;

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("connection: {0}")]
    Tcp(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    #[error("refused: {0}")]
    Refused(Status),
    #[error("no answer in time")]
    Timeout,
    #[error("the node has left")]
    Retired,
}

impl Failure {
    /// What callers are told.
    pub(super) fn told(self) -> Status {
        match self {
            Self::Refused(status) if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) => status,
            _ => unreachable(),
        }
    }
}

/// One connection; clones share it.
#[derive(Clone)]
pub(super) struct Sender(http2::SendRequest<Body>);

impl Sender {
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    pub(super) async fn send(&mut self, request: Request<Body>) -> Reply {
        if self.0.is_closed() {
            return Err(unreachable());
        }
        let response: Response<hyper::body::Incoming> = self.0.send_request(request).await.map_err(|_| lost())?;
        Ok(response.map(|body| Body::new(body.map_err(|_| lost()))))
    }
}

impl tower::Service<Request<Body>> for Sender {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Reply>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut sender = self.clone();
        Box::pin(async move { sender.send(request).await })
    }
}

/// A connection to the node of `target`.
pub(super) async fn connect(net: &Arc<Shared>, target: &Target) -> Result<Sender, Failure> {
    let address = net.via.get(&target.address).unwrap_or(&target.address);
    let tcp = TcpStream::connect(address.as_str()).await.map_err(Failure::Tcp)?;
    tcp.set_nodelay(true).map_err(Failure::Tcp)?;
    let Some(tls) = &net.tls else {
        return handshake(net, tcp).await;
    };
    let connected = TlsConnector::from(tls.client()).connect(name_of(target.service), tcp).await;
    handshake(net, connected.map_err(Failure::Tls)?).await
}

async fn handshake<T>(net: &Shared, io: T) -> Result<Sender, Failure>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(Exec(net.tasks.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await?;
    // It ends with its last stream and sender, or with the peer.
    net.tasks.spawn("rpc.connection", async move {
        if let Err(why) = connection.await {
            tracing::debug!(%why, "connection ended");
        }
    });
    Ok(Sender(sender))
}

/// Opens the stream of calls; the stream of replies.
pub(super) async fn open(
    net: &Shared,
    target: &Target,
    sender: Sender,
    calls: Outgoing,
) -> Result<Streaming<proto::Batch>, Failure> {
    let mut client = LinkClient::with_origin(sender, origin("/")).max_decoding_message_size(MESSAGE);
    let mut request = tonic::Request::new(calls);
    let mut marks = HeaderMap::new();
    mark(&mut marks, net, target);
    *request.metadata_mut() = MetadataMap::from_headers(marks);
    Ok(client.carry(request).await.map_err(Failure::Refused)?.into_inner())
}

fn origin(path: &str) -> Uri {
    let path: PathAndQuery = path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/"));
    Uri::builder().scheme("http").authority("linnet").path_and_query(path).build().expect("all parts are there")
}

/// Says in a request of its own who calls whom.
pub(super) fn address_to(head: &mut Parts, net: &Shared, target: &Target, timeout: Duration) {
    head.uri = origin(head.uri.path());
    head.version = http::Version::HTTP_2;
    mark(&mut head.headers, net, target);
    if !head.headers.contains_key("grpc-timeout") {
        let us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        head.headers.insert("grpc-timeout", super::wire::timeout(us));
    }
}

fn mark(headers: &mut HeaderMap, net: &Shared, target: &Target) {
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"));
    headers.insert(CLUSTER, text(&net.cluster));
    headers.insert(FROM, text(net.me.as_str()));
    headers.insert(TO, text(target.node.as_str()));
    headers.insert(SERVICE, HeaderValue::from_static(target.service.name()));
}
