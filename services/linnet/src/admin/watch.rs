//! Live events of every node for people who watch.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use linnet_cluster::Service;
use linnet_gateway::Event;
use linnet_proto::callback::{self, callbacks_client::CallbacksClient};
use linnet_proto::gateway::{self, gateways_client::GatewaysClient};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Streaming;

use super::{Problem, Shared, event_json};

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
pub(super) struct Wanted {
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

/// Lines as they happen on every node, one JSON object each; ends when the caller goes. A slow caller misses lines.
///
/// Nodes that start later are not watched: the stream says so by its end when one that is watched goes.
pub(super) async fn events(State(admin): Shared, Query(wanted): Query<Wanted>) -> Result<Response, Problem> {
    let mut streams = SelectAll::new();
    for node in admin.cluster.nodes(Service::Gateway) {
        let mut client = GatewaysClient::new(admin.cluster.for_node(Service::Gateway, &node)?);
        let events = client.watch(gateway::WatchRequest {}).await?.into_inner();
        let wanted = wanted.clone();
        streams.push(seen(events, move |event| wanted.line(&serde_json::from_slice(&event.json).ok()?)));
    }
    for node in admin.cluster.nodes(Service::Callback) {
        let mut client = CallbacksClient::new(admin.cluster.for_node(Service::Callback, &node)?);
        let events = client.watch(callback::WatchRequest { app: wanted.app }).await?.into_inner();
        let wanted = wanted.kind("webhook");
        streams.push(seen(events, move |event| wanted.then(|| webhook_line(event))));
    }
    let lines = streams.take_while(|seen| std::future::ready(!matches!(seen, Seen::Ended))).filter_map(|seen| {
        std::future::ready(match seen {
            Seen::Line(line) => Some(Ok::<_, std::convert::Infallible>(format!("{line}\n"))),
            Seen::Other | Seen::Ended => None,
        })
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// The events of one node as lines, and that they ended.
fn seen<T: Send + 'static>(
    events: Streaming<T>,
    line: impl Fn(T) -> Option<Value> + Send + 'static,
) -> BoxStream<'static, Seen> {
    let seen = move |event| match event {
        Ok(event) => line(event).map_or(Seen::Other, Seen::Line),
        Err(_) => Seen::Ended,
    };
    events.map(seen).chain(futures::stream::iter([Seen::Ended])).boxed()
}

/// What came from a node.
enum Seen {
    Line(Value),
    /// Nothing the caller asked for.
    Other,
    Ended,
}
