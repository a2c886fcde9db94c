//! The playground: two people side by side, served from the binary by `linnet dev`, or beside any server by `linnet play`;
//! `serve` has none.
//!
//! The page signs in as the sample people, so it answers only requests whose `Host` is this machine (or who carry the
//! link token when the listener is public), and cross-site requests never.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use linnet_cluster::{Cluster, Service};
use linnet_proto::callback::{self, callbacks_client::CallbacksClient};
use linnet_runtime::{Clock, status};
use linnet_types::{SdkAppId, UserId};
use linnet_usersig::Claims;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::webhook_line;
use crate::commands::admin::Admin;

const PAGE: &str = include_str!("../assets/play.html");
const STYLE: &str = include_str!("../assets/play.css");
const SCRIPT: &str = include_str!("../assets/play.js");
/// A sig of the page lives this long; reloading makes a new one.
const SIG_S: u64 = 86_400;

/// Where the page's webhook lines come from.
#[derive(Clone)]
pub(crate) enum Webhooks {
    /// The services of this process.
    Here(Cluster),
    /// A server's operators' surface.
    There(Admin),
}

#[derive(Clone)]
pub(crate) struct Play {
    pub(crate) webhooks: Webhooks,
    pub(crate) clock: Clock,
    /// The socket of each of the two, a path of this server or an address.
    pub(crate) ws: [String; 2],
    pub(crate) app: SdkAppId,
    pub(crate) key: String,
    pub(crate) people: [&'static str; 2],
    /// Set when the listener is public: only links that carry it open the page.
    pub(crate) link_token: Option<String>,
    /// Host names besides localhost that are this machine.
    pub(crate) hosts: Vec<String>,
}

type Shared = State<Arc<Play>>;

pub(crate) fn router(play: Play) -> Router {
    let play = Arc::new(play);
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/play") }))
        .route("/play", get(|| async { asset("text/html; charset=utf-8", PAGE) }))
        .route("/play/play.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/play/play.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/play/config.json", get(config))
        .route("/play/events", get(events))
        .layer(middleware::from_fn_with_state(Arc::clone(&play), guard))
        .with_state(play)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; img-src data:; connect-src 'self' ws: wss:; frame-ancestors 'none'",
        ),
    ];
    (headers, text).into_response()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Link {
    link: String,
}

/// Refuses other hosts (DNS rebinding) and other sites.
async fn guard(State(play): Shared, Query(link): Query<Link>, request: Request, next: Next) -> Response {
    let refuse = |why: &'static str| (StatusCode::FORBIDDEN, why).into_response();
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| request.uri().host());
    if !host.is_some_and(|host| play.is_here(host)) && play.link_token.is_none() {
        return refuse("the playground answers on localhost only");
    }
    if cross_site(headers, host) {
        return refuse("the playground is not for other sites");
    }
    let secret = request.uri().path() == "/play/config.json" || request.uri().path() == "/play/events";
    if secret && play.link_token.as_ref().is_some_and(|token| *token != link.link) {
        return refuse("open the link that `linnet dev` printed");
    }
    next.run(request).await
}

impl Play {
    fn is_here(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        matches!(name, "localhost" | "127.0.0.1" | "[::1]") || self.hosts.iter().any(|here| here == name)
    }
}

fn cross_site(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return true;
    }
    text("origin").is_some_and(|origin| origin.split_once("://").map(|(_, origin)| origin) != host)
}

async fn config(State(play): Shared) -> Response {
    let now = play.clock.now().secs();
    let users = [0, 1].map(|which| {
        let user = play.people[which];
        let claims = Claims {
            app: play.app,
            identifier: UserId::trusted(user).to_string(),
            time_s: now,
            expire_s: SIG_S,
            userbuf: None,
        };
        json!({ "user": user, "usersig": linnet_usersig::sign(&claims, &play.key), "ws": play.ws[which] })
    });
    let body = json!({ "sdkappid": play.app, "users": users });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn events(State(play): Shared) -> Result<Response, Response> {
    let unavailable = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    let lines: BoxStream<'static, Value> = match &play.webhooks {
        Webhooks::Here(cluster) => {
            let rpc = cluster.any(Service::Callback).map_err(|why| unavailable(why.info))?;
            let request = tonic::Request::new(callback::WatchRequest { app: play.app.0 });
            let watching = CallbacksClient::new(rpc).watch(request).await;
            let watching = watching.map_err(|why| unavailable(status::refusal_or(&why, 0).info))?.into_inner();
            watching.filter_map(|event| async move { Some(webhook_line(event.ok()?)) }).boxed()
        }
        Webhooks::There(admin) => {
            let query = [("app", play.app.to_string()), ("kinds", "webhook".to_owned())];
            let lines = admin.events(&query).await.map_err(|why| unavailable(format!("{why:#}")))?;
            futures::stream::unfold(lines, |mut lines| async move { Some((lines.next().await.ok()??, lines)) }).boxed()
        }
    };
    let events = lines.map(|line| Ok::<_, Infallible>(Event::default().event("webhook").data(line.to_string())));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_are_told_apart() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
        };
        let here = Some("localhost:8080");
        assert!(!cross_site(&headers(&[]), here));
        assert!(!cross_site(&headers(&[("origin", "http://localhost:8080")]), here));
        assert!(cross_site(&headers(&[("origin", "http://evil.example")]), here));
        assert!(cross_site(&headers(&[("origin", "null")]), here));
        assert!(cross_site(&headers(&[("sec-fetch-site", "cross-site")]), here));
    }
}
