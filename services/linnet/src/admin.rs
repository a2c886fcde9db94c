//! The operators' surface, `/admin/v1`: JSON, one token, loopback only unless configured. An app's key never opens it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use linnet_bus::Nats;
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_proto::account::{self, accounts_client::AccountsClient};
use linnet_proto::callback::{self, callbacks_client::CallbacksClient};
use linnet_runtime::config::Secret;
use linnet_runtime::{Clock, status};
use linnet_store::{Store, inspect};
use linnet_types::{AppSettings, Refusal, SdkAppId, UnixMillis, code};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::node::Recovered;

mod overview;
mod push;
mod watch;

pub(crate) use watch::webhook_line;

const CALL: Duration = Duration::from_secs(5);

/// What the surface reads.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) cluster: Cluster,
    /// `None` on a node whose roles keep nothing.
    pub(crate) store: Option<Store>,
    pub(crate) clock: Clock,
    pub(crate) token: Secret,
    pub(crate) started: UnixMillis,
    pub(crate) ready_ms: u64,
    pub(crate) recovered: Recovered,
    /// The bus, where it is a server's.
    pub(crate) nats: Option<Nats>,
    /// Ends the process as a signal would.
    pub(crate) stop: CancellationToken,
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
        .merge(push::router())
        .route("/admin/v1/events", get(watch::events))
        .route("/admin/v1/status", get(overview::overview))
        .route("/admin/v1/drain", post(drain))
        .route("/admin/v1/faults/loss", post(lose))
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

/// This process leaves: off the rings, clients sent elsewhere, accepted work finished, then its end.
async fn drain(State(admin): Shared) -> Json<Value> {
    admin.stop.cancel();
    Json(json!({ "node": admin.cluster.me().as_str(), "draining": true }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Loss {
    percent: u32,
}

/// Lets this node lose messages of the bus, to try what happens; only where `bus.faults` allows it.
async fn lose(State(admin): Shared, Json(loss): Json<Loss>) -> Answer {
    let Some(nats) = admin.nats.as_ref().filter(|nats| nats.faults_allowed()) else {
        let why = "this node makes no faults: bus.backend must be nats, and bus.faults true";
        return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, why).into());
    };
    if loss.percent > 100 {
        return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "percent must be 0 to 100").into());
    }
    nats.set_loss(loss.percent);
    Ok(Json(json!({ "node": admin.cluster.me().as_str(), "percent": nats.loss() })))
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
    let Some(store) = &admin.store else {
        let why =
            "this node keeps no rows; ask an api node, or one that runs account, group, message-store or callback";
        return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, why).into());
    };
    let found = inspect::inspect(store, &table, &parts, limit).await;
    let internal = |error: linnet_store::Error| Refusal::new(code::ACCOUNT_INTERNAL, error.to_string());
    let Some(partitions) = found.map_err(internal)? else {
        let why = format!("no table {table}; there are {}", inspect::tables().join(", "));
        return Err(Problem(StatusCode::NOT_FOUND, Refusal::new(code::ACCOUNT_BAD_PARAM, why)));
    };
    let shown = partitions.into_iter().map(|p| json!({ "key": p.key, "guard": p.guard, "rows": p.rows }));
    Ok(Json(json!({ "partitions": shown.collect::<Vec<_>>() })))
}
