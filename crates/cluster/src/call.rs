//! The caller's end of every call, near or far: deadline, trace, counts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use linnet_runtime::status::timeout_of;
use linnet_runtime::telemetry;
use tonic::Status;
use tonic::body::Body;

use crate::metrics::Calls;
use crate::net::Server;
use crate::remote::Link;
use crate::sim;

/// What a transport answers.
pub(crate) type Reply = Result<Response<Body>, Status>;

/// How a call gets to its target.
#[derive(Clone)]
pub(crate) enum Way {
    /// A function call, through the simulated network when there is one.
    Local { server: Arc<Server>, sim: Option<sim::Link> },
    /// The connection to another process.
    Remote(Link),
}

/// The path to one service of one node.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) way: Way,
    pub(crate) calls: Calls,
    pub(crate) default_timeout: Duration,
}

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
            match &self.way {
                Way::Local { server, sim: None } => server.serve(request).await,
                Way::Local { server, sim: Some(link) } => link.carry(request, |request| server.serve(request)).await,
                Way::Remote(link) => link.call(request, timeout).await,
            }
        };
        match tokio::time::timeout(timeout, answered).await {
            Ok(reply) => reply,
            Err(_) => Err(Status::deadline_exceeded("no answer before the deadline")),
        }
    }
}
