//! A router over scripted services: what they were asked is written down, what they answer is set by a test.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use futures::future::BoxFuture;
use http::Response;
use linnet_admission::apps::{App, Apps};
use linnet_api::{Config, Deps, Running, start};
use linnet_cluster::{Cluster, RpcConfig, Service};
use linnet_runtime::status::to_status;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{AppSettings, NodeId, Refusal, SdkAppId, UnixMillis};
use linnet_usersig::Claims;
use parking_lot::Mutex;
use tonic::Status;
use tonic::server::{Grpc, UnaryService};
use tonic::service::Routes;
use tonic_prost::ProstCodec;
use tower::ServiceExt;

pub(crate) const APP: SdkAppId = SdkAppId(1_600_000_001);
pub(crate) const OTHER_APP: SdkAppId = SdkAppId(1_600_000_002);
pub(crate) const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";
pub(crate) const NOW_S: u64 = 1_700_000_000;

type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Response<tonic::body::Body>> + Send + Sync>;

/// The scripted services.
#[derive(Clone, Default)]
pub(crate) struct Fakes {
    handlers: Arc<Mutex<HashMap<&'static str, Handler>>>,
    calls: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Script<F>(F);

impl<Q, R, F, O> UnaryService<Q> for Script<F>
where
    F: Fn(Q) -> O,
    O: Future<Output = Result<R, Status>>,
{
    type Response = R;
    type Future = BoxFutureOf<O, R>;
    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        BoxFutureOf(Box::pin((self.0)(request.into_inner())), std::marker::PhantomData)
    }
}

struct BoxFutureOf<O, R>(std::pin::Pin<Box<O>>, std::marker::PhantomData<fn() -> R>);

impl<O: Future<Output = Result<R, Status>>, R> Future for BoxFutureOf<O, R> {
    type Output = Result<tonic::Response<R>, Status>;
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(cx).map_ok(tonic::Response::new)
    }
}

impl Fakes {
    /// Answers `method` (`Groups/Info`) with `answer` from now on.
    pub(crate) fn on<Q, R>(
        &self,
        method: &'static str,
        answer: impl Fn(Q) -> Result<R, Refusal> + Clone + Send + Sync + 'static,
    ) where
        Q: prost::Message + Default + std::fmt::Debug + 'static,
        R: prost::Message + Default + 'static,
    {
        self.on_status(method, move |request| std::future::ready(answer(request).map_err(|why| to_status(&why))));
    }

    /// The same with any status, after any time.
    pub(crate) fn on_status<Q, R, O>(
        &self,
        method: &'static str,
        answer: impl Fn(Q) -> O + Clone + Send + Sync + 'static,
    ) where
        Q: prost::Message + Default + std::fmt::Debug + 'static,
        R: prost::Message + Default + 'static,
        O: Future<Output = Result<R, Status>> + Send + 'static,
    {
        let calls = Arc::clone(&self.calls);
        let handler: Handler = Arc::new(move |request| {
            let (calls, answer) = (Arc::clone(&calls), answer.clone());
            Box::pin(async move {
                let script = Script(move |message: Q| {
                    calls.lock().push(format!("{method} {}", shown(&message)));
                    answer(message)
                });
                Grpc::new(ProstCodec::<R, Q>::default()).unary(script, request).await
            })
        });
        self.handlers.lock().insert(method, handler);
    }

    /// Refuses everything, whatever is asked.
    pub(crate) fn refuse_all(&self, refusal: impl Fn() -> Refusal + Send + Sync + 'static) {
        let refusal = Arc::new(refusal);
        for handler in self.handlers.lock().values_mut() {
            let refusal = Arc::clone(&refusal);
            *handler = Arc::new(move |_| {
                let reply = to_status(&refusal()).into_http();
                Box::pin(std::future::ready(reply))
            });
        }
    }

    /// What was asked since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn routes(&self) -> Routes {
        let fakes = self.clone();
        let answer = move |request: Request| {
            let fakes = fakes.clone();
            async move {
                let method = request.uri().path().rsplit_once('.').map(|(_, method)| method.to_owned());
                let handler = method.and_then(|method| fakes.handlers.lock().get(method.as_str()).cloned());
                match handler {
                    Some(handler) => handler(request).await.map(Body::new),
                    None => panic!("a test did not expect {}", request.uri().path()),
                }
            }
        };
        axum::Router::new().fallback(answer).into()
    }
}

/// A message without the fields that have their default value.
fn shown(message: &impl std::fmt::Debug) -> String {
    const EMPTY: [&str; 6] = [": \"\",", ": 0,", ": false,", ": None,", ": [],", ": b\"\","];
    let text = format!("{message:#?}");
    let lines = text.lines().filter(|line| !EMPTY.iter().any(|empty| line.ends_with(empty)));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

pub(crate) struct Rig {
    pub(crate) fakes: Fakes,
    pub(crate) apps: Apps,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    router: axum::Router,
}

pub(crate) fn app(id: SdkAppId, settings: AppSettings) -> App {
    let admins = vec!["administrator".into()];
    App { id, key: KEY.into(), previous: None, admins, settings, enabled: true }
}

impl Rig {
    pub(crate) fn new() -> Self {
        // Tests call faster than any backend; those of rates say so themselves.
        let settings = AppSettings { command_rates: String::new(), ..AppSettings::default() };
        Self::with(settings, Config::default())
    }

    pub(crate) fn with(settings: AppSettings, config: Config) -> Self {
        let (metrics, fakes) = (Metrics::new(), Fakes::default());
        let clock = Clock::simulated(UnixMillis::from_secs(NOW_S));
        let node = NodeId::trusted("n1");
        let cluster = Cluster::alone(node.clone(), RpcConfig::default(), &metrics);
        for service in [Service::Account, Service::Session, Service::Group, Service::MessageStore, Service::Push] {
            cluster.register_local(&node, service, fakes.routes());
        }
        let apps = Apps::fixed([app(APP, settings), app(OTHER_APP, AppSettings::default())]);
        let deps = Deps {
            cluster,
            apps: apps.clone(),
            clock: clock.clone(),
            rng: Rng::seeded(7),
            tasks: Tasks::new(&metrics),
            metrics: metrics.clone(),
        };
        let Running { router, .. } = start(config, deps);
        let rig = Self { fakes, apps, clock, metrics, router };
        crate::golden::world(&rig.fakes);
        rig
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request) -> (http::response::Parts, String) {
        let reply = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = reply.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        (parts, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    /// Calls `command` as the administrator; the answer is checked to be an envelope.
    pub(crate) async fn call(&self, command: &str, body: impl Into<Body>) -> serde_json::Value {
        let request = Request::post(url(command)).body(body.into()).expect("a request");
        self.envelope(request).await
    }

    /// The answer to `request`, checked to be an envelope.
    pub(crate) async fn envelope(&self, request: Request) -> serde_json::Value {
        let (parts, body) = self.send(request).await;
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers["access-control-allow-origin"], "*");
        assert_eq!(parts.headers["content-type"], "application/json");
        let reply: serde_json::Value = serde_json::from_str(&body).expect("a JSON reply");
        let failed = reply["ErrorCode"].as_u64().expect("a code") != 0;
        assert_eq!(reply["ActionStatus"] == "FAIL", failed, "{body}");
        assert!(reply["ErrorInfo"].is_string(), "{body}");
        assert_eq!(reply["ErrorInfo"] != "", failed, "{body}");
        assert_eq!(reply["RequestId"].as_str().map(str::len), Some(16), "{body}");
        reply
    }

    /// The code `command` is answered with.
    pub(crate) async fn code(&self, command: &str, body: impl Into<Body>) -> u64 {
        self.call(command, body).await["ErrorCode"].as_u64().expect("a code")
    }

    /// The code a request is answered with.
    pub(crate) async fn code_of(&self, request: Request) -> u64 {
        self.envelope(request).await["ErrorCode"].as_u64().expect("a code")
    }
}

/// A UserSig made now.
pub(crate) fn sig(app: SdkAppId, identifier: &str) -> String {
    sig_at(app, identifier, NOW_S)
}

pub(crate) fn sig_at(app: SdkAppId, identifier: &str, time_s: u64) -> String {
    let claims = Claims { app, identifier: identifier.into(), time_s, expire_s: 604_800, userbuf: None };
    linnet_usersig::sign(&claims, KEY)
}

pub(crate) fn url(command: &str) -> String {
    url_as(command, "administrator")
}

pub(crate) fn url_as(command: &str, identifier: &str) -> String {
    let sig = sig(APP, identifier);
    format!("/v4/{command}?sdkappid={APP}&identifier={identifier}&usersig={sig}&random=1&contenttype=json")
}
