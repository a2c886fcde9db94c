//! A small service written as the generator would, with text for messages.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use linnet_cluster::Rpc;
use linnet_runtime::RequestId;
use linnet_runtime::status::to_status;
use linnet_types::{Refusal, code};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

type Codec = ProstCodec<String, String>;
type Frames = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

#[derive(Clone)]
pub(crate) struct Echo {
    name: &'static str,
    actor: Option<mpsc::Sender<String>>,
}

#[allow(dead_code, reason = "each test uses its part")]
impl Echo {
    pub(crate) fn routes(name: &'static str) -> Routes {
        Routes::new(Self { name, actor: None })
    }

    /// Hands each text to an actor before it waits for the first time.
    pub(crate) fn with_actor(name: &'static str, actor: mpsc::Sender<String>) -> Routes {
        Routes::new(Self { name, actor: Some(actor) })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Status>> + Send>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let Self { name, actor } = self.clone();
        Box::pin(async move {
            let text = request.get_ref().as_str();
            if let Some(actor) = actor {
                actor.send(text.to_owned()).await.expect("the actor lives");
                tokio::task::yield_now().await;
            }
            if let Some((ms, text)) = text.strip_prefix("wait ").and_then(|rest| rest.split_once(' ')) {
                tokio::time::sleep(Duration::from_millis(ms.parse().expect("a number"))).await;
                return Ok(Response::new(format!("{name}: {text}")));
            }
            if let Some(bytes) = text.strip_prefix("size ") {
                return Ok(Response::new("x".repeat(bytes.parse().expect("a number"))));
            }
            match text {
                "hang" => std::future::pending().await,
                "refuse" => Err(to_status(&Refusal::new(code::GROUP_NO_RIGHT, "not a member"))),
                "panic" => panic!("as asked"),
                "panic later" => {
                    tokio::task::yield_now().await;
                    panic!("as asked")
                }
                "fault" => Err(Status::internal("bug")),
                "trace" => {
                    let seen = RequestId::current().map_or_else(|| "none".to_owned(), |id| id.to_string());
                    Ok(Response::new(format!("{name}: {seen}")))
                }
                text => Ok(Response::new(format!("{name}: {text}"))),
            }
        })
    }
}

impl StreamingService<String> for Echo {
    type Response = String;
    type ResponseStream = Frames;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Frames>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let name = self.name;
        let replies = request.into_inner().map(move |frame| frame.map(|text| format!("{name}: {text}")));
        Box::pin(async move { Ok(Response::new(Box::pin(replies) as Frames)) })
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/test.Echo/Call" => grpc.unary(service, request).await,
                _ => grpc.streaming(service, request).await,
            })
        })
    }
}

#[derive(Clone)]
pub(crate) struct EchoClient {
    inner: tonic::client::Grpc<Rpc>,
}

#[allow(dead_code, reason = "each test uses its part")]
impl EchoClient {
    pub(crate) fn new(rpc: Rpc) -> Self {
        Self { inner: tonic::client::Grpc::new(rpc) }
    }

    pub(crate) async fn call(&mut self, text: &str) -> Result<String, Status> {
        self.request(Request::new(text.to_owned())).await
    }

    pub(crate) async fn request(&mut self, request: Request<String>) -> Result<String, Status> {
        self.inner.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Call");
        Ok(self.inner.unary(request, path, Codec::default()).await?.into_inner())
    }

    pub(crate) async fn stream(&mut self) -> Result<(mpsc::Sender<String>, Streaming<String>), Status> {
        let (send, receive) = mpsc::channel(4);
        self.inner.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Stream");
        let request = Request::new(ReceiverStream::new(receive));
        Ok((send, self.inner.streaming(request, path, Codec::default()).await?.into_inner()))
    }
}
