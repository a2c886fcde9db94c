//! The edge: from an HTTP request to its answer, with every check a command does not make itself, in one order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use linnet_admission::apps::{App, Apps};
use linnet_cluster::Cluster;
use linnet_proto::msg::Origin;
use linnet_runtime::metrics::{Counter, Family as MetricFamily, SecondsBy};
use linnet_runtime::{Clock, Metrics, RequestId, Rng, Tasks, TraceContext};
use linnet_types::{Refusal, SdkAppId, UserId, code};
use tokio::sync::Semaphore;

use crate::admin::Admins;
use crate::body;
use crate::call::{Call, World};
use crate::catalogue::{self, Entry};
use crate::config::Config;
use crate::json::Object;
use crate::limits::Limits;
use crate::reply::Reply;
use crate::target::Target;
use crate::throttle::Throttle;

/// What this service needs of its node.
pub struct Deps {
    /// The way to the other services.
    pub cluster: Cluster,
    /// Keys, administrators and settings of apps.
    pub apps: Apps,
    /// The node's clock.
    pub clock: Clock,
    /// The node's randomness.
    pub rng: Rng,
    /// Owner of the calls being served.
    pub tasks: Tasks,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The running service.
pub struct Running {
    /// Answers `/v4/…`. Serve it with connect info (`SocketAddr`) so that callers' addresses are known.
    pub router: Router,
}

/// Starts the service; it opens nothing and stops with `deps.tasks`.
#[must_use]
pub fn start(config: Config, deps: Deps) -> Running {
    let edge = Arc::new(Edge::new(config, deps));
    let router = Router::new().route("/v4", axum::routing::any(serve)).route("/v4/", axum::routing::any(serve));
    Running { router: router.route("/v4/{*command}", axum::routing::any(serve)).with_state(edge) }
}

struct Edge {
    config: Config,
    apps: Apps,
    tasks: Tasks,
    throttle: Throttle,
    permits: Semaphore,
    world: World,
    seen: Seen,
}

type CommandLabel = [(&'static str, &'static str); 1];

struct Seen {
    took: SecondsBy<CommandLabel>,
    refused: MetricFamily<CommandLabel, Counter>,
}

/// A request whose head has passed every check.
struct Admitted {
    entry: &'static Entry,
    app: Arc<App>,
    admin: UserId,
    origin: Origin,
}

async fn serve(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return with_cors(StatusCode::NO_CONTENT.into_response());
    }
    let trace = TraceContext::new(&edge.world.rng);
    let begun = edge.world.clock.mono();
    let (parts, body) = request.into_parts();
    // Boxed: the caches' loads inside make it 17 KB, which every layer above would copy.
    let answer = Box::pin(edge.answer(trace.request, &parts, body));
    let (entry, reply) = trace.scope("rest", answer).await;
    edge.seen(entry, &reply, begun);
    let body = reply.encode(trace.request, entry.map(|entry| entry.family));
    let json = HeaderValue::from_static("application/json");
    with_cors(([(header::CONTENT_TYPE, json)], body).into_response())
}

/// Whether a refused UserSig may have been made up. One that ended, or is of a user, was made with the key: its owner is to
/// read why it is refused however often he calls.
fn is_a_guess(refused: u32) -> bool {
    matches!(
        refused,
        code::SIG_UNDECODABLE | code::SIG_INVALID | code::SIG_WRONG_KEY | code::SIG_WRONG_USER | code::SIG_WRONG_APP
    )
}

/// The headers of the published sample (`spec/rest-accounts.md` §1.4), and what a browser asks for before a call.
fn with_cors(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Edge {
    fn new(config: Config, deps: Deps) -> Self {
        let Deps { cluster, apps, clock, rng, tasks, metrics } = deps;
        let seen = metrics.scope("api", |scope| Seen {
            took: scope.seconds_by("command", "time to answer a command"),
            refused: scope.counters("refused", "calls not answered with 0, by command"),
        });
        let throttle = Throttle::new(clock.clone(), config.auth_failures);
        let permits = Semaphore::new(usize::try_from(config.max_inflight).unwrap_or(Semaphore::MAX_PERMITS));
        let world = World { cluster, admins: Admins::new(), limits: Limits::new(clock.clone()), clock, rng };
        Self { config, apps, tasks: tasks.child("api"), throttle, permits, world, seen }
    }

    async fn answer(
        self: &Arc<Self>,
        request: RequestId,
        parts: &Parts,
        body: Body,
    ) -> (Option<&'static Entry>, Reply) {
        let Ok(permit) = self.permits.try_acquire() else {
            return (None, Reply::refused(&Refusal::new(code::OVERLOADED, "too many requests, retry later")));
        };
        let mut entry = None;
        let admitted = match self.admit(request, parts, &mut entry).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                // Who may not call takes no place while he is slow to send.
                drop(permit);
                body::discard(body).await;
                return (entry, Reply::refused(&refusal));
            }
        };
        let text = body::read(body, self.config.body_limit.bytes(), self.config.body_timeout.get()).await;
        let reply = match text {
            Ok(text) => self.run(admitted, text).await,
            Err(refusal) => Err(refusal),
        };
        (entry, reply.unwrap_or_else(|refusal| Reply::refused(&refusal)))
    }

    /// Every check of the head, in the order of `spec/rest-accounts.md` §1.6.5 and `spec/rest-messages.md` §1. Sets
    /// `found` as soon as the command is known.
    async fn admit(
        &self,
        request: RequestId,
        parts: &Parts,
        found: &mut Option<&'static Entry>,
    ) -> Result<Admitted, Refusal> {
        let target = Target::parse(&parts.uri)?;
        if !matches!(parts.method, Method::POST | Method::GET) {
            return Err(Refusal::new(code::UNKNOWN_COMMAND, "use POST"));
        }
        let unknown = || Refusal::new(code::UNKNOWN_COMMAND, "no such service or command");
        let entry = catalogue::find(&target.command).ok_or_else(unknown)?;
        *found = Some(entry);
        let app = self.app(target.sdkappid.as_deref()).await?;
        let ip = self.caller_ip(parts);
        let admin = self.authenticate(&app, &target, ip).await?;
        self.world.limits.app(app.id, app.settings.app_rate)?;
        self.world.limits.command(app.id, entry.name, app.settings.rest_rate(entry.name, entry.rate))?;
        let origin = Origin {
            operator: admin.to_string(),
            platform: "RESTAPI".to_owned(),
            client_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
            request_id: request.to_string(),
            admin: true,
            connection: String::new(),
        };
        Ok(Admitted { entry, app, admin, origin })
    }

    async fn app(&self, sdkappid: Option<&str>) -> Result<Arc<App>, Refusal> {
        let missing = || Refusal::new(code::NO_SDKAPPID, "sdkappid is missing");
        let text = sdkappid.filter(|text| !text.is_empty()).ok_or_else(missing)?;
        let digits = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let bad = || Refusal::new(code::BAD_SDKAPPID, "sdkappid must be a positive whole number");
        let id = digits.filter(|id| *id > 0).map(SdkAppId).ok_or_else(bad)?;
        self.apps.get(id).await.map_err(|refusal| match refusal.code {
            code::BUSY => Refusal { code: code::TIMEOUT, ..refusal },
            _ => refusal,
        })
    }

    /// The administrator who signed.
    async fn authenticate(&self, app: &App, target: &Target, ip: Option<IpAddr>) -> Result<UserId, Refusal> {
        let missing = || Refusal::new(code::NO_IDENTIFIER, "identifier is missing");
        let identifier = target.identifier.as_deref().filter(|text| !text.is_empty()).ok_or_else(missing)?;
        let caller = (app.id, identifier.chars().take(linnet_types::id::OFFICIAL_ID_BYTES).collect(), ip);
        if self.throttle.is_shut_out(&caller) {
            return Err(Refusal::new(code::SIG_RETRY, "too many failed attempts, retry after one minute"));
        }
        let sig = target.usersig.as_deref().unwrap_or_default();
        let checked = self.world.admins.check(&self.world.cluster, &self.world.clock, app, identifier, sig).await;
        if checked.as_ref().is_err_and(|refusal| is_a_guess(refusal.code)) {
            self.throttle.failed(caller);
        }
        checked
    }

    fn caller_ip(&self, parts: &Parts) -> Option<IpAddr> {
        let socket = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        if !self.config.trust_forwarded {
            return socket;
        }
        let forwarded = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        let nearest = forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
        nearest.or(socket)
    }

    /// Runs the command in a task of its own: a caller who hangs up must not leave a change half made.
    async fn run(self: &Arc<Self>, admitted: Admitted, text: String) -> Result<Reply, Refusal> {
        let edge = Arc::clone(self);
        let internal = admitted.entry.family.internal();
        let trace = TraceContext::current();
        let work = async move {
            let call = async { edge.handle(&admitted, &text).await };
            match trace {
                Some(trace) => trace.scope("command", call).await,
                None => call.await,
            }
        };
        let done = self.tasks.spawn("api.command", work).await;
        done.ok().flatten().unwrap_or_else(|| Err(Refusal::new(internal, "internal error")))
    }

    async fn handle(&self, admitted: &Admitted, text: &str) -> Result<Reply, Refusal> {
        let not_json = || Refusal::new(code::NOT_JSON, "the body is not a JSON object");
        let body = Object::parse(text).ok_or_else(not_json)?;
        // A before-webhook may be given longer than the rest of a call.
        let webhook = Duration::from_millis(admitted.app.settings.webhook_timeout_ms.into()) + Duration::from_secs(1);
        let call = Call {
            app: &admitted.app,
            admin: &admitted.admin,
            origin: &admitted.origin,
            body,
            world: &self.world,
            family: admitted.entry.family,
            deadline: self.world.clock.mono() + self.config.deadline.get().max(webhook),
        };
        (admitted.entry.handler)(&call).await
    }

    fn seen(&self, entry: Option<&'static Entry>, reply: &Reply, begun: Duration) {
        let took = self.world.clock.mono().saturating_sub(begun);
        let command = entry.map_or("none", |entry| entry.name);
        self.seen.took.get_or_create(&[("command", command)]).observe(took.as_secs_f64());
        if reply.code() != code::OK {
            self.seen.refused.get_or_create(&[("command", command)]).inc();
        }
        tracing::debug!(command, code = reply.code(), took_ms = took.as_millis(), "answered");
    }
}
