//! Liveness, readiness, and the router that shows them beside the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use parking_lot::Mutex;

use crate::metrics::Metrics;

/// The checks of one node; clones share them. A node is ready when every check is and it is not draining.
#[derive(Clone, Debug, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    checks: BTreeMap<String, CheckState>,
    draining: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum CheckState {
    Ready,
    Failing(String),
    Fatal(String),
}

/// The reporter of one named check.
#[derive(Clone, Debug)]
pub struct Check {
    name: String,
    health: Health,
}

impl Health {
    /// No checks yet: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that fails ("starting") until its owner reports.
    #[must_use]
    pub fn check(&self, name: impl Into<String>) -> Check {
        let check = Check { name: name.into(), health: self.clone() };
        check.failing("starting");
        check
    }

    /// Not ready from now on: balancers send no more, accepted work goes on.
    pub fn drain(&self) {
        self.inner.lock().draining = true;
    }

    /// Whether new work should come here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let inner = self.inner.lock();
        !inner.draining && inner.checks.values().all(|state| *state == CheckState::Ready)
    }

    /// False when a check said that only a restart helps.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.inner.lock().checks.values().any(|state| matches!(state, CheckState::Fatal(_)))
    }

    /// One line a check, failures with their reason.
    #[must_use]
    pub fn report(&self) -> String {
        let inner = self.inner.lock();
        let draining = inner.draining.then(|| "drain: draining\n".to_owned());
        let checks = inner.checks.iter().map(|(name, state)| match state {
            CheckState::Ready => format!("{name}: ok\n"),
            CheckState::Failing(why) => format!("{name}: {why}\n"),
            CheckState::Fatal(why) => format!("{name}: fatal: {why}\n"),
        });
        draining.into_iter().chain(checks).collect()
    }
}

impl Check {
    /// All is well.
    pub fn ready(&self) {
        self.set(CheckState::Ready);
    }

    /// Not able to work now; may pass.
    pub fn failing(&self, why: impl Into<String>) {
        self.set(CheckState::Failing(why.into()));
    }

    /// Only a restart helps; `/healthz` says so.
    pub fn fatal(&self, why: impl Into<String>) {
        self.set(CheckState::Fatal(why.into()));
    }

    fn set(&self, state: CheckState) {
        self.health.inner.lock().checks.insert(self.name.clone(), state);
    }
}

/// `/metrics`, `/healthz` and `/readyz` of one node.
pub fn ops_router(metrics: Metrics, health: Health) -> Router {
    let metrics = get(|State(metrics): State<Metrics>| async move {
        ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.encode())
    })
    .with_state(metrics);
    let healthz = get(|State(health): State<Health>| async move { answer(health.is_live(), &health) });
    let readyz = get(|State(health): State<Health>| async move { answer(health.is_ready(), &health) });
    Router::new().route("/healthz", healthz).route("/readyz", readyz).with_state(health).route("/metrics", metrics)
}

fn answer(good: bool, health: &Health) -> impl IntoResponse + use<> {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], health.report())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn fetch(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).expect("valid");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("small");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn ready_only_when_every_check_is_and_not_draining() {
        let health = Health::new();
        let router = ops_router(Metrics::new(), health.clone());
        let (store, bus) = (health.check("store"), health.check("bus"));
        store.ready();
        assert_eq!(fetch(&router, "/readyz").await, (503, "bus: starting\nstore: ok\n".to_owned()));
        bus.ready();
        assert_eq!(fetch(&router, "/readyz").await.0, 200);
        health.drain();
        assert_eq!(fetch(&router, "/readyz").await, (503, "drain: draining\nbus: ok\nstore: ok\n".to_owned()));
        assert_eq!(fetch(&router, "/healthz").await.0, 200);
        store.fatal("disk gone");
        assert_eq!(fetch(&router, "/healthz").await.0, 503);
    }

    #[tokio::test]
    async fn metrics_are_served_as_openmetrics() {
        let metrics = Metrics::new();
        metrics.scope("group", |scope| scope.counter("sent", "messages")).inc();
        let (status, text) = fetch(&ops_router(metrics, Health::new()), "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("linnet_group_sent_total 1\n") && text.ends_with("# EOF\n"), "{text}");
    }
}
