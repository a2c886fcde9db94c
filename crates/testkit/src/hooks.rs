//! An app's server that records webhooks and answers as told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::eventually;

/// One webhook received.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Query parameters.
    pub query: HashMap<String, String>,
    /// The body.
    pub body: Value,
}

impl Hook {
    /// Its command.
    #[must_use]
    pub fn command(&self) -> &str {
        self.query.get("CallbackCommand").map_or("", String::as_str)
    }
}

/// How to answer one.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200 with this JSON.
    Json(Value),
    /// 200 with this text.
    Text(String),
    /// Another status.
    Status(u16),
    /// OK, late.
    After(Duration),
}

impl Reply {
    /// Processed.
    #[must_use]
    pub fn ok() -> Self {
        Self::code(0)
    }
    /// A decision.
    #[must_use]
    pub fn code(code: i64) -> Self {
        Self::Json(json!({ "ActionStatus": "OK", "ErrorCode": code, "ErrorInfo": "from the app" }))
    }
}

type Decide = Box<dyn Fn(&Hook) -> Reply + Send + Sync>;

struct Shared {
    seen: Mutex<Vec<Hook>>,
    decide: Mutex<Decide>,
}

/// The server; ends when dropped.
pub struct Hooks {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    url: String,
}

impl Hooks {
    /// Starts one on a free port that answers OK to everything.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start() -> Self {
        Self::on("127.0.0.1:0").await
    }

    /// Starts one on a given address.
    ///
    /// # Panics
    /// When it cannot be bound.
    pub async fn on(address: &str) -> Self {
        let decide: Decide = Box::new(|_| Reply::ok());
        let shared = Arc::new(Shared { seen: Mutex::default(), decide: Mutex::new(decide) });
        let listener = TcpListener::bind(address).await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves until aborted") });
        Self { shared, task, url }
    }

    /// Where webhooks go.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers from now on as `decide` says.
    pub fn answer(&self, decide: impl Fn(&Hook) -> Reply + Send + Sync + 'static) {
        *self.shared.decide.lock() = Box::new(decide);
    }

    /// Everything received of `command`.
    #[must_use]
    pub fn of(&self, command: &str) -> Vec<Hook> {
        self.shared.seen.lock().iter().filter(|hook| hook.command() == command).cloned().collect()
    }

    /// Waits for at least `count` of `command`.
    ///
    /// # Panics
    /// When they do not come within 10 s.
    pub async fn wait(&self, command: &str, count: usize) -> Vec<Hook> {
        eventually(command, Duration::from_secs(10), || async {
            let seen = self.of(command);
            if seen.len() >= count { Ok(seen) } else { Err(format!("{} of {count}", seen.len())) }
        })
        .await
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let hook = Hook { query, body: serde_json::from_slice(&body).unwrap_or(Value::Null) };
    shared.seen.lock().push(hook.clone());
    let reply = shared.decide.lock()(&hook);
    match reply {
        Reply::Json(json) => json.to_string().into_response(),
        Reply::Text(text) => text.into_response(),
        Reply::Status(status) => StatusCode::from_u16(status).expect("a status").into_response(),
        Reply::After(wait) => {
            tokio::time::sleep(wait).await;
            json!({ "ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "" }).to_string().into_response()
        }
    }
}
