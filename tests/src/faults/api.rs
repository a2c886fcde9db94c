//! The REST surface and `/admin/v1`, over several nodes that may be away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::Place;

/// Codes of REST that say "again": internal, network, time-out, overload, busy.
pub const AGAIN: [u64; 10] = [10002, 20004, 20005, 60007, 60008, 60018, 70169, 70500, 91000, 200_004];
/// How long one answer may take; a node answers a retryable code within 3 s.
const ANSWER: Duration = Duration::from_secs(6);

/// A backend of the app and an operator, at every REST node in turn.
pub struct Api {
    http: reqwest::Client,
    place: Place,
    query: String,
    turn: AtomicUsize,
}

impl Api {
    /// A caller as the app's administrator.
    #[must_use]
    pub fn new(place: &Place) -> Self {
        // Installed once; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (app, admin, sig) = (place.app, &place.admin, place.sig(&place.admin));
        let query = format!("sdkappid={app}&identifier={admin}&usersig={sig}&random=1&contenttype=json");
        let http = reqwest::Client::builder().timeout(ANSWER).build().expect("no TLS files are read");
        Self { http, place: place.clone(), query, turn: AtomicUsize::new(0) }
    }

    /// One try of `SERVICE/COMMAND` at the next node.
    ///
    /// # Errors
    /// When no JSON came back.
    pub async fn attempt(&self, command: &str, body: &Value) -> Result<Value> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let base = &self.place.rest[turn % self.place.rest.len()];
        let reply = self.http.post(format!("{base}/v4/{command}?{}", self.query)).body(body.to_string()).send().await?;
        if reply.status() != 200 {
            bail!("HTTP {}", reply.status());
        }
        Ok(serde_json::from_slice(&reply.bytes().await?)?)
    }

    /// Calls until it is answered with success, at most `patience`.
    ///
    /// # Errors
    /// With the last answer.
    pub async fn ok_within(&self, command: &str, body: Value, patience: Duration) -> Result<Value> {
        let end = Instant::now() + patience;
        loop {
            let why = match self.attempt(command, &body).await {
                Ok(reply) if reply["ErrorCode"] == 0 => return Ok(reply),
                Ok(reply) if !AGAIN.contains(&reply["ErrorCode"].as_u64().unwrap_or(0)) => {
                    bail!("{command}: {reply}");
                }
                Ok(reply) => reply.to_string(),
                Err(why) => format!("{why:#}"),
            };
            if Instant::now() > end {
                bail!("{command}: {why} for {patience:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Calls until it is answered with success, at most 30 s.
    ///
    /// # Errors
    /// With the last answer.
    pub async fn ok(&self, command: &str, body: Value) -> Result<Value> {
        self.ok_within(command, body, Duration::from_secs(30)).await
    }

    /// Asks `/admin/v1/PATH` at any node that answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn admin(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut last = None;
        for base in self.place.rest.iter().cycle().take(self.place.rest.len() * 3) {
            let request = self.http.request(method.clone(), format!("{base}/admin/v1/{path}"));
            let mut request = request.bearer_auth(&self.place.operator);
            if let Some(body) = &body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            match request.send().await {
                Ok(reply) if reply.status().is_success() => return Ok(serde_json::from_slice(&reply.bytes().await?)?),
                Ok(reply) => {
                    last = Some(format!("HTTP {}: {}", reply.status(), reply.text().await.unwrap_or_default()))
                }
                Err(why) => last = Some(why.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("/admin/v1/{path}: {}", last.unwrap_or_default())
    }

    /// Changes settings of the app.
    ///
    /// # Errors
    /// When they are refused.
    pub async fn settings(&self, settings: &[(&str, &str)]) -> Result<()> {
        let settings: std::collections::BTreeMap<_, _> = settings.iter().copied().collect();
        let path = format!("apps/{}", self.place.app);
        self.admin(reqwest::Method::PATCH, &path, Some(json!({ "settings": settings }))).await?;
        Ok(())
    }

    /// The state of the cluster.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status(&self) -> Result<Value> {
        self.admin(reqwest::Method::GET, "status", None).await
    }

    /// Dead letters of webhooks.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn dead_letters(&self) -> Result<u64> {
        let path = format!("webhooks/{}/failed?limit=1000", self.place.app);
        let reply = self.admin(reqwest::Method::GET, &path, None).await?;
        reply["total"].as_u64().or_else(|| reply["letters"].as_array().map(|l| l.len() as u64)).context("a total")
    }

    /// Sends every dead letter again; how many.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn replay(&self) -> Result<u64> {
        let path = format!("webhooks/{}/replay", self.place.app);
        let reply = self.admin(reqwest::Method::POST, &path, Some(json!({ "all": true }))).await?;
        reply["replayed"].as_u64().context("a count")
    }
}
