//! Posting one webhook and naming what went wrong.

use std::time::Duration;

use linnet_outbound::{Answered, Outbound, Post, body_signature};
use linnet_proto::callback::{BeforeReply, Event, WatchEvent};
use linnet_runtime::Clock;
use linnet_types::AppSettings;

use crate::answer::{self, ANSWER_BYTES, Reason};
use crate::request;

/// How much of an answer watchers see.
const SHOWN: usize = 4096;

/// Posts webhooks.
pub(crate) struct Sender {
    outbound: Outbound,
    allow_private: bool,
    clock: Clock,
}

/// How one attempt went.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) outcome: Result<BeforeReply, Reason>,
    pub(crate) http_status: u16,
    pub(crate) took: Duration,
    pub(crate) url: String,
    pub(crate) answer: Vec<u8>,
}

impl Attempt {
    pub(crate) fn verdict(&self) -> &'static str {
        self.outcome.as_ref().map_or_else(|reason| reason.label(), |_| "ok")
    }

    /// What watchers are shown.
    pub(crate) fn shown(&self, event: &Event, attempt: u32) -> WatchEvent {
        WatchEvent {
            event: Some(event.clone()),
            url: self.url.clone(),
            http_status: self.http_status.into(),
            verdict: self.verdict().to_owned(),
            took_ms: u32::try_from(self.took.as_millis()).unwrap_or(u32::MAX),
            attempt,
            answer: self.answer[..self.answer.len().min(SHOWN)].to_vec().into(),
        }
    }
}

impl Sender {
    /// `allow_private`: every app may name private addresses (one machine, for trying out).
    pub(crate) fn new(allow_private: bool, clock: Clock) -> Result<Self, reqwest::Error> {
        Ok(Self { outbound: Outbound::new()?, allow_private, clock })
    }

    /// Posts `event` once and waits at most the app's time-out.
    pub(crate) async fn post(&self, settings: &AppSettings, event: &Event) -> Attempt {
        let started = self.clock.mono();
        let mut answered = Answered::default();
        let mut attempt = Attempt {
            outcome: Err(Reason::Dns),
            http_status: 0,
            took: Duration::ZERO,
            url: String::new(),
            answer: Vec::new(),
        };
        attempt.outcome = self.exchange(settings, event, &mut attempt.url, &mut answered).await;
        (attempt.http_status, attempt.answer) = (answered.status, answered.body);
        attempt.took = self.clock.mono().saturating_sub(started);
        attempt
    }

    async fn exchange(
        &self,
        settings: &AppSettings,
        event: &Event,
        shown: &mut String,
        answered: &mut Answered,
    ) -> Result<BeforeReply, Reason> {
        let now_s = self.clock.now().secs();
        let url = request::url(settings, event, now_s).map_err(|_| Reason::Dns)?;
        *shown = url.to_string();
        let body = request::body(event).map_err(|error| {
            tracing::error!(command = event.command, %error, "a webhook body is not a JSON object");
            Reason::BadBody
        })?;
        let post = Post {
            url,
            signature: settings.webhook_auth.then(|| body_signature(&settings.webhook_token, now_s, &body)),
            body,
            private: self.allow_private || settings.webhook_allow_private,
            timeout: Duration::from_millis(settings.webhook_timeout_ms.into()),
            answer_bytes: ANSWER_BYTES,
        };
        self.outbound.post(post, answered).await?;
        answer::read(&answered.body)
    }
}
