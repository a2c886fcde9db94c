//! The erased call: what generated clients run on, local or remote.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tower::util::BoxCloneSyncService;

/// A cloneable path to one service of one node; generated clients are made over it: `GroupsClient::new(rpc)`.
///
/// The error type is `tonic::Status`: with tonic's boxed error, clients do not compile inside spawned futures, and the
/// refusal a status carries would be lost.
#[derive(Clone)]
pub struct Rpc(BoxCloneSyncService<Request<Body>, Response<Body>, Status>);

impl Rpc {
    /// Erases a transport.
    pub(crate) fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Status> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(service))
    }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rpc")
    }
}

impl Service<Request<Body>> for Rpc {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
