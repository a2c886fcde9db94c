//! The webhooks a call caused, as far as they can be seen: the app's deliveries from just before the call until they
//! pause.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::commands::admin::{Admin, Lines};
use crate::commands::text;
use crate::output::Output;
use crate::target::Target;

/// Longest wait for the watch to be in place; the call does not depend on it.
const READY: Duration = Duration::from_secs(1);
/// After-webhooks of a message follow within a few milliseconds; retries of a broken receiver are not waited for.
const QUIET: Duration = Duration::from_millis(300);
const LONGEST: Duration = Duration::from_secs(3);

/// A watch over the app's webhooks.
pub(crate) struct Caused {
    lines: Lines,
}

impl Caused {
    /// Begins to watch; `None` when webhooks are off or the operators' surface cannot be asked.
    pub(crate) async fn watch(target: &Target) -> Option<Self> {
        timeout(READY, Self::begin(target)).await.ok()?.ok().flatten()
    }

    async fn begin(target: &Target) -> Result<Option<Self>> {
        let (admin, app) = (Admin::new(target)?, target.app()?);
        if admin.app(app).await?.setting("webhook.url").is_empty() {
            return Ok(None);
        }
        let lines = admin.events(&[("app", app.to_string()), ("kinds", "webhook".to_owned())]).await?;
        Ok(Some(Self { lines }))
    }

    /// Prints what arrives until nothing more does.
    pub(crate) async fn print(mut self, out: Output) {
        let end = Instant::now() + LONGEST;
        while let Ok(Ok(Some(event))) = timeout_at(end.min(Instant::now() + QUIET), self.lines.next()).await {
            out.note(line(&event));
        }
    }
}

/// One delivery: `webhook C2C.CallbackAfterSendMsg  ok  HTTP 200 in 3 ms  answered {"ActionStatus":"OK",…}`.
pub(crate) fn line(event: &Value) -> String {
    let field = |name: &str| event[name].as_str().unwrap_or_default();
    let (command, verdict) = (field("command"), field("verdict"));
    let took = text::span(event["took_ms"].as_u64().unwrap_or(0));
    let status = match event["http_status"].as_u64() {
        Some(status) if status > 0 => format!("HTTP {status}"),
        _ => "no answer".to_owned(),
    };
    let again = match event["attempt"].as_u64() {
        Some(attempt) if attempt > 1 => format!("  attempt {attempt}"),
        _ => String::new(),
    };
    let answer: String = field("answer").chars().take(200).filter(|c| !c.is_control()).collect();
    let answer = if answer.is_empty() { String::new() } else { format!("  answered {answer}") };
    format!("webhook {command}  {verdict}  {status} in {took}{again}{answer}")
}
