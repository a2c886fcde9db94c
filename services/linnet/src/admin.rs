//! The operators' surface, `/admin/v1`: JSON, one token, loopback only unless configured. An app's key never opens it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt as _;
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_gateway::{Event, Gateway};
use linnet_proto::account::{self, accounts_client::AccountsClient};
use linnet_proto::callback::{self, callbacks_client::CallbacksClient};
use linnet_proto::group::{self, groups_client::GroupsClient};
use linnet_proto::messages::{self, messages_client::MessagesClient};
use linnet_runtime::config::Secret;
use linnet_runtime::{Clock, status};
use linnet_store::{Store, inspect};
use linnet_types::{AppSettings, Refusal, SdkAppId, UnixMillis, code};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::node::Recovered;

const CALL: Duration = Duration::from_secs(5);
/// Lines of events a slow watcher may be behind.
const BEHIND: usize = 256;

/// What the surface reads.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) cluster: Cluster,
    pub(crate) store: Store,
    pub(crate) gateway: Gateway,
    pub(crate) clock: Clock,
    pub(crate) token: Secret,
    pub(crate) started: UnixMillis,
    pub(crate) ready_ms: u64,
    pub(crate) recovered: Recovered,
}

type Shared = State<Arc<Admin>>;

/// An error as an operator's tool reads it.
struct Problem(StatusCode, Refusal);

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "code": self.1.code, "info": self.1.info }))).into_response()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            code::APP_UNKNOWN => StatusCode::NOT_FOUND,
            _ if refusal.retry_after_ms.is_some() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, refusal)
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        status::refusal_or(&status, code::ACCOUNT_INTERNAL).into()
    }
}

type Answer = Result<Json<Value>, Problem>;

/// The routes; every one of them needs the token.
pub(crate) fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    Router::new()
        .route("/admin/v1/apps", get(apps).post(create))
        .route("/admin/v1/apps/{app}", get(app).patch(update).delete(remove))
        .route("/admin/v1/webhooks/{app}/failed", get(failed))
        .route("/admin/v1/webhooks/{app}/replay", post(replay))
        .route("/admin/v1/webhooks/{app}/test", post(try_webhook))
        .route("/admin/v1/webhooks/{app}/stats", get(webhook_stats))
        .route("/admin/v1/events", get(events))
        .route("/admin/v1/status", get(overview))
        .route("/admin/v1/inspect/tables", get(tables))
        .route("/admin/v1/inspect/{table}", get(rows))
        .fallback(|| async { Problem(StatusCode::NOT_FOUND, Refusal::new(code::UNKNOWN_COMMAND, "no such path")) })
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), guard))
        .with_state(admin)
}

/// Compares digests, so that the time taken says nothing about the token.
async fn guard(State(admin): Shared, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let right = admin.token.expose();
    if right.is_empty() || Sha256::digest(given) != Sha256::digest(right) {
        let refusal = Refusal::new(code::AUTH_FAILED, "an operator token is needed: Authorization: Bearer …");
        return Problem(StatusCode::UNAUTHORIZED, refusal).into_response();
    }
    next.run(request).await
}

fn accounts(admin: &Admin, app: u32) -> Result<AccountsClient<linnet_cluster::Rpc>, Refusal> {
    Ok(AccountsClient::new(admin.cluster.for_owner(Service::Account, RouteKey::app(SdkAppId(app)))?))
}

fn callbacks(admin: &Admin) -> Result<CallbacksClient<linnet_cluster::Rpc>, Refusal> {
    Ok(CallbacksClient::new(admin.cluster.any(Service::Callback)?))
}

/// An app for people: every setting with its default and meaning.
fn shown(app: account::App) -> Value {
    let settings: AppSettings = serde_json::from_str(&app.settings_json).unwrap_or_default();
    json!({
        "sdkappid": app.sdkappid, "name": app.name, "key": app.key, "previous_key": app.previous_key,
        "previous_until_ms": app.previous_until_ms, "admins": app.admins, "enabled": app.enabled,
        "created_ms": app.created_ms, "settings": settings.list(),
    })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Page {
    after: String,
    limit: u32,
}

async fn apps(State(admin): Shared, Query(page): Query<Page>) -> Answer {
    let request = account::ListAppsRequest { after: page.after.parse().unwrap_or(0), limit: page.limit };
    let reply = accounts(&admin, 0)?.list_apps(status::with_deadline(request, CALL)).await?.into_inner();
    let apps: Vec<_> = reply.apps.into_iter().map(shown).collect();
    Ok(Json(json!({ "apps": apps, "more": reply.more })))
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct NewApp {
    sdkappid: u32,
    key: String,
    name: String,
}

async fn create(State(admin): Shared, Json(new): Json<NewApp>) -> Answer {
    let request = account::CreateAppRequest { sdkappid: new.sdkappid, key: new.key, name: new.name };
    let reply = accounts(&admin, new.sdkappid)?.create_app(status::with_deadline(request, CALL)).await?;
    Ok(Json(shown(reply.into_inner())))
}

async fn app(State(admin): Shared, Path(app): Path<u32>) -> Answer {
    let request = account::GetAppRequest { sdkappid: app };
    Ok(Json(shown(accounts(&admin, app)?.get_app(status::with_deadline(request, CALL)).await?.into_inner())))
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Change {
    settings: std::collections::HashMap<String, String>,
    add_admins: Vec<String>,
    remove_admins: Vec<String>,
    rotate_key: bool,
    keep_previous_s: u64,
    enabled: Option<bool>,
}

async fn update(State(admin): Shared, Path(app): Path<u32>, Json(change): Json<Change>) -> Answer {
    let request = account::UpdateAppRequest {
        sdkappid: app,
        settings: change.settings,
        add_admins: change.add_admins,
        remove_admins: change.remove_admins,
        rotate_key: change.rotate_key,
        keep_previous_s: change.keep_previous_s,
        enabled: change.enabled,
    };
    Ok(Json(shown(accounts(&admin, app)?.update_app(status::with_deadline(request, CALL)).await?.into_inner())))
}

async fn remove(State(admin): Shared, Path(app): Path<u32>) -> Answer {
    let request = account::GetAppRequest { sdkappid: app };
    accounts(&admin, app)?.delete_app(status::with_deadline(request, CALL)).await?;
    Ok(Json(json!({ "deleted": app })))
}

/// An event for people; its body is JSON already.
fn event_json(event: Option<callback::Event>) -> Value {
    let event = event.unwrap_or_default();
    let body: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    json!({ "app": event.app, "command": event.command, "key": event.key, "id": event.id, "time_ms": event.time_ms, "body": body })
}

async fn failed(State(admin): Shared, Path(app): Path<u32>, Query(page): Query<Page>) -> Answer {
    let request = callback::FailedRequest { app, after: page.after, limit: page.limit };
    let reply = callbacks(&admin)?.failed(status::with_deadline(request, CALL)).await?.into_inner();
    let letters = reply.letters.into_iter().map(|letter| {
        json!({
            "id": letter.id, "event": event_json(letter.event), "reason": letter.reason, "attempts": letter.attempts,
            "failed_ms": letter.failed_ms,
        })
    });
    Ok(Json(json!({ "letters": letters.collect::<Vec<_>>(), "more": reply.more, "total": reply.total })))
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Again {
    ids: Vec<String>,
    all: bool,
}

async fn replay(State(admin): Shared, Path(app): Path<u32>, Json(again): Json<Again>) -> Answer {
    let request = callback::ReplayRequest { app, ids: again.ids, all: again.all };
    let reply = callbacks(&admin)?.replay(status::with_deadline(request, CALL)).await?.into_inner();
    Ok(Json(json!({ "replayed": reply.replayed })))
}

#[derive(Deserialize)]
struct Command {
    command: String,
}

async fn try_webhook(State(admin): Shared, Path(app): Path<u32>, Json(command): Json<Command>) -> Answer {
    let request = callback::TestRequest { app, command: command.command };
    let reply = callbacks(&admin)?.test(status::with_deadline(request, CALL * 3)).await?.into_inner();
    Ok(Json(json!({
        "ok": reply.ok, "http_status": reply.http_status, "reason": reply.reason, "body": reply.body,
        "took_ms": reply.took_ms, "url": reply.url,
    })))
}

async fn webhook_stats(State(admin): Shared, Path(app): Path<u32>) -> Answer {
    Ok(Json(webhook_counts(&admin, app).await?))
}

async fn webhook_counts(admin: &Admin, app: u32) -> Result<Value, Problem> {
    let request = status::with_deadline(callback::StatsRequest { app }, CALL);
    let stats = callbacks(admin)?.stats(request).await?.into_inner();
    Ok(json!({
        "queued": stats.queued, "oldest_ms": stats.oldest_ms, "dead": stats.dead, "delivered": stats.delivered,
        "failed": stats.failed,
    }))
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Wanted {
    /// 0 = every app.
    app: u32,
    /// `C2C:alice:bob` or `GROUP:id`.
    conv: String,
    user: String,
    /// `message`, `webhook`, `drop`, `session`, separated by commas; empty = all.
    kinds: String,
}

impl Wanted {
    fn kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.split(',').any(|wanted| wanted == kind)
    }

    /// One gateway event as a line, if it is wanted.
    fn line(&self, event: &Event) -> Option<Value> {
        let mut line = serde_json::to_value(event).ok()?;
        let (app, kind) = match event {
            Event::SignedIn { app, user, .. } | Event::SignedOut { app, user, .. } => {
                if !self.conv.is_empty() || !(self.user.is_empty() || self.user == *user) {
                    return None;
                }
                (*app, "session")
            }
            Event::Message { app, from, to, outcome, .. } => {
                let conv = match self.conv.split_once(':') {
                    Some(("C2C", pair)) => {
                        pair.split_once(':').is_some_and(|(a, b)| (a, b) == (from, to) || (b, a) == (from, to))
                    }
                    Some(("GROUP", group)) => group == to,
                    _ => true,
                };
                if !conv || !(self.user.is_empty() || self.user == *from || self.user == *to) {
                    return None;
                }
                (*app, if outcome == "shaped" { "drop" } else { "message" })
            }
        };
        if !self.kind(kind) || (self.app != 0 && self.app != app) {
            return None;
        }
        let fields = line.as_object_mut()?;
        fields.insert("kind".to_owned(), json!(kind));
        fields.insert("line".to_owned(), json!(event.to_string()));
        Some(line)
    }
}

/// One webhook delivery as watchers see it.
pub(crate) fn webhook_line(event: callback::WatchEvent) -> Value {
    let answer = String::from_utf8_lossy(&event.answer).into_owned();
    let mut line = event_json(event.event);
    if let Some(fields) = line.as_object_mut() {
        fields.insert("kind".to_owned(), json!("webhook"));
        fields.insert("url".to_owned(), json!(event.url));
        fields.insert("http_status".to_owned(), json!(event.http_status));
        fields.insert("verdict".to_owned(), json!(event.verdict));
        fields.insert("took_ms".to_owned(), json!(event.took_ms));
        fields.insert("attempt".to_owned(), json!(event.attempt));
        fields.insert("answer".to_owned(), json!(answer));
    }
    line
}

/// Lines as they happen, one JSON object each; ends when the caller goes. A slow caller misses lines.
async fn events(State(admin): Shared, Query(wanted): Query<Wanted>) -> Result<Response, Problem> {
    let mut gateway = admin.gateway.events();
    let request = tonic::Request::new(callback::WatchRequest { app: wanted.app });
    let mut webhooks = callbacks(&admin)?.watch(request).await?.into_inner();
    let (lines, body) = mpsc::channel::<Result<String, std::convert::Infallible>>(BEHIND);
    let watch = async move {
        loop {
            let line = tokio::select! {
                event = gateway.recv() => match event {
                    Ok(event) => wanted.line(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => None,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                event = webhooks.next() => match event {
                    Some(Ok(event)) if wanted.kind("webhook") => Some(webhook_line(event)),
                    Some(_) => None,
                    None => return,
                },
                () = lines.closed() => return,
            };
            if let Some(line) = line
                && lines.send(Ok(format!("{line}\n"))).await.is_err()
            {
                return;
            }
        }
    };
    let stream = ReceiverStream::new(body);
    let driven = futures::stream::select(stream, futures::stream::once(watch).filter_map(|()| async { None }));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(driven)).into_response())
}

/// Everything about this node at one glance, with the accounting laws term by term.
async fn overview(State(admin): Shared) -> Answer {
    let messages = MessagesClient::new(admin.cluster.any(Service::MessageStore)?);
    let owner = { messages }.stats(status::with_deadline(messages::StatsRequest {}, CALL)).await?.into_inner();
    let groups = GroupsClient::new(admin.cluster.any(Service::Group)?);
    let group = { groups }.stats(status::with_deadline(group::StatsRequest {}, CALL)).await?.into_inner();
    let gateway = admin.gateway.stats();
    let c2c = Law::of([
        ("arrived", owner.arrived),
        ("stored", owner.stored),
        ("published_only", owner.published_only),
        ("shaped", owner.shaped),
        ("refused", owner.refused),
        ("dropped_by_webhook", owner.dropped_by_webhook),
        ("duplicate", owner.duplicate),
        ("unknown_outcome", owner.unknown_outcome),
        ("pending", owner.pending),
    ]);
    let groups = Law::of([
        ("arrived", group.arrived),
        ("stored", group.stored),
        ("published_only", group.published_only),
        ("shaped", group.shaped),
        ("refused", group.refused),
        ("dropped_by_webhook", group.dropped_by_webhook),
        ("duplicate", group.duplicate),
        ("unknown_outcome", group.unknown_outcome),
        ("pending", group.pending),
    ]);
    let delivered = Law::of([
        ("receivers_at_arrival", gateway.receivers_at_arrival),
        ("written", gateway.written),
        ("collapsed", gateway.collapsed),
        ("dropped", gateway.dropped),
        ("connection_closed", gateway.connection_closed),
        ("pending", gateway.pending),
    ]);
    let link = Links::of(&group, &owner, admin.gateway.link());
    let unaccounted = c2c.gap() + groups.gap() + delivered.gap();
    let webhooks = webhook_counts(&admin, 0).await?;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": admin.cluster.me().as_str(),
        "uptime_s": admin.clock.now().since(admin.started) / 1000,
        "ready_ms": admin.ready_ms,
        "recovered": admin.recovered,
        "connections": gateway.connections,
        "online": gateway.signed_in,
        "frames_in": gateway.frames_in,
        "frames_out": gateway.frames_out,
        "bytes_out": gateway.bytes_out,
        "open_logs": owner.open_logs,
        "active_groups": group.active_groups,
        "laws": {
            "owner_c2c": c2c.shown(), "owner_group": groups.shown(), "gateway": delivered.shown(),
            "link_batches": link.batches, "link_frames": link.frames,
        },
        "unaccounted": unaccounted,
        "webhooks": webhooks,
    })))
}

/// One accounting law: the first term equals the sum of the others.
struct Law<const N: usize>([(&'static str, u64); N]);

impl<const N: usize> Law<N> {
    fn of(terms: [(&'static str, u64); N]) -> Self {
        Self(terms)
    }
    /// How far it is from exact.
    fn gap(&self) -> u64 {
        let sum: u64 = self.0[1..].iter().map(|(_, value)| value).sum();
        self.0[0].1.abs_diff(sum)
    }
    fn shown(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
    }
}

/// The link law: sent = received + reported missing, plus what is on its way at this moment, which is why a gap here is
/// no loss until the streams are quiet. In one process no gateway dies alone.
struct Links {
    batches: Value,
    frames: Value,
}

impl Links {
    fn of(group: &group::StatsReply, owner: &messages::StatsReply, gateway: Option<linnet_gateway::LinkCount>) -> Self {
        let terms = |sent: u64, received: u64, missing: u64| json!({ "sent": sent, "received": received, "reported_missing": missing });
        let (batches, frames, missing_batches, missing_frames) =
            gateway.map_or((0, 0, 0, 0), |link| (link.batches, link.frames, link.missing_batches, link.missing_frames));
        Self {
            batches: terms(group.link_sent + owner.link_sent, batches, missing_batches),
            frames: terms(group.link_frames + owner.link_frames, frames, missing_frames),
        }
    }
}

async fn tables() -> Json<Value> {
    Json(json!({ "tables": inspect::tables() }))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Key {
    /// Parts of the partition key, separated by commas; numbers or text.
    key: String,
    limit: usize,
}

async fn rows(State(admin): Shared, Path(table): Path<String>, Query(key): Query<Key>) -> Answer {
    let parts: Vec<String> = key.key.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let limit = if key.limit == 0 { 100 } else { key.limit.min(10_000) };
    let found = inspect::inspect(&admin.store, &table, &parts, limit).await;
    let internal = |error: linnet_store::Error| Refusal::new(code::ACCOUNT_INTERNAL, error.to_string());
    let Some(partitions) = found.map_err(internal)? else {
        let why = format!("no table {table}; there are {}", inspect::tables().join(", "));
        return Err(Problem(StatusCode::NOT_FOUND, Refusal::new(code::ACCOUNT_BAD_PARAM, why)));
    };
    let shown = partitions.into_iter().map(|p| json!({ "key": p.key, "guard": p.guard, "rows": p.rows }));
    Ok(Json(json!({ "partitions": shown.collect::<Vec<_>>() })))
}
