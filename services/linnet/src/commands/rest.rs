//! Signed calls of the public REST surface, from the caller's side.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use linnet_runtime::{Clock, Rng};
use linnet_types::{SdkAppId, code};
use linnet_usersig::{Claims, sign};
use reqwest::{Client, header};
use serde::Deserialize;
use url::Url;

use super::http;
use super::text::shell;
use crate::output::{Exit, Failure};
use crate::target::Target;

/// Life of the sig of one call.
const SIG_S: u64 = 3600;
const BODY: usize = 64 * 1024 * 1024;

/// A caller that signs as an administrator.
#[derive(Clone)]
pub(crate) struct Rest {
    http: Client,
    target: Target,
    admin: String,
    rng: Rng,
}

/// One call, ready to be made or shown.
pub(crate) struct Prepared {
    pub(crate) url: Url,
    pub(crate) body: String,
}

/// What came back.
pub(crate) struct Reply {
    /// The body as it came.
    pub(crate) text: String,
    envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    #[serde(default)]
    action_status: String,
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    error_info: String,
}

impl Rest {
    /// Signs as `admin`, or as the data folder's administrator.
    ///
    /// # Errors
    /// [`Failure`] when app or key are unknown.
    pub(crate) fn new(target: &Target, admin: Option<String>) -> Result<Self> {
        target.app()?;
        target.key()?;
        let admin = admin.unwrap_or_else(|| target.admin.clone());
        Ok(Self { http: http::client(target)?, target: target.clone(), admin, rng: Rng::system() })
    }

    /// # Errors
    /// When the server's address is not a URL.
    pub(crate) fn prepare(&self, command: &str, body: impl Into<String>) -> Result<Prepared> {
        let server = &self.target.rest;
        let mut url = Url::parse(server).with_context(|| format!("--server {server} is not a URL"))?;
        let mut segments = url.path_segments_mut().map_err(|()| anyhow::anyhow!("--server is not an http URL"))?;
        segments.pop_if_empty().push("v4").extend(command.split('/'));
        drop(segments);
        let claims = Claims {
            app: SdkAppId(self.target.app()?),
            identifier: self.admin.clone(),
            time_s: Clock::system().now().secs(),
            expire_s: SIG_S,
            userbuf: None,
        };
        url.query_pairs_mut()
            .append_pair("sdkappid", &claims.app.to_string())
            .append_pair("identifier", &self.admin)
            .append_pair("usersig", &sign(&claims, self.target.key()?))
            .append_pair("random", &self.rng.u32().to_string())
            .append_pair("contenttype", "json");
        Ok(Prepared { url, body: body.into() })
    }

    /// # Errors
    /// [`Failure`] when there is no answer, or none of this surface. A refusal is a [`Reply`].
    pub(crate) async fn send(&self, call: &Prepared) -> Result<Reply> {
        let server = &self.target.rest;
        let request = self.http.post(call.url.clone()).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(call.body.clone()).timeout(http::ANSWER);
        let response = request.send().await.map_err(|error| http::unreachable(server, &error))?;
        let status = response.status();
        let text = http::text(server, response, BODY).await?;
        let envelope = serde_json::from_str(&text).map_err(|_| {
            let todo = "check --server: it is the address of Linnet's REST surface, without a path";
            Failure::refused(
                format!("{server} did not answer as the REST surface does"),
                format!("HTTP {status}"),
                todo,
            )
        })?;
        Ok(Reply { text, envelope })
    }

    /// Makes a call that must succeed.
    ///
    /// # Errors
    /// [`Failure`] when there is no answer or a refusal.
    pub(crate) async fn call(&self, command: &str, body: impl Into<String>) -> Result<Reply> {
        let call = self.prepare(command, body)?;
        let reply = self.send(&call).await?;
        match reply.failure(command) {
            Some(failure) => Err(failure.into()),
            None => Ok(reply),
        }
    }

    /// The same call as a line for a shell.
    pub(crate) fn curl(&self, call: &Prepared) -> String {
        let mut line = "curl -sS".to_owned();
        if let Some(ca) = self.target.ca.as_ref().filter(|_| call.url.scheme() == "https") {
            let _ = write!(line, " --cacert {}", shell(&ca.display().to_string()));
        }
        let _ = write!(line, " {} -d {}", shell(call.url.as_str()), shell(&call.body));
        line
    }
}

impl Reply {
    pub(crate) fn exit(&self) -> Exit {
        match self.envelope.action_status.as_str() {
            "OK" => Exit::Done,
            "SomeError" => Exit::Partial,
            _ => Exit::Refused,
        }
    }

    pub(crate) fn code(&self) -> u32 {
        self.envelope.error_code
    }

    /// What to tell a person when not all was done.
    pub(crate) fn failure(&self, command: &str) -> Option<Failure> {
        let exit = self.exit();
        let what = match exit {
            Exit::Done => return None,
            Exit::Partial => format!("{command}: part of it was refused"),
            Exit::Refused | Exit::Usage | Exit::Unreachable => format!("{command} was refused"),
        };
        let why = format!("{}: {}", self.code(), self.envelope.error_info);
        let todo = match self.code() {
            code::UNKNOWN_COMMAND => {
                let word = command.rsplit('/').next().unwrap_or(command);
                format!("`linnet call --list` has the commands; `linnet call --list {word}` searches")
            }
            code => advice(code).map_or_else(
                || format!("correct the request; `linnet call --list {command}` has the limits"),
                str::to_owned,
            ),
        };
        Some(Failure::new(exit, what, why, todo))
    }
}

/// What to do about a public code, when there is something to say beyond the refusal.
pub(super) fn advice(code: u32) -> Option<&'static str> {
    Some(match code {
        code::NOT_JSON => "the body must be one JSON object; in a shell, put it between single quotes",
        code::NOT_ADMIN => "call as an administrator: --as USER; `linnet app admins` lists and adds them",
        code::APP_UNKNOWN | code::SIG_WRONG_APP => "check --app; `linnet app list` has the apps",
        code::SIG_WRONG_KEY => "the key is not this app's; check --key or --data, `linnet app show` has it",
        code::C2C_NO_USER | code::ACCOUNT_UNKNOWN | code::MSG_ACCOUNT_UNKNOWN => {
            "register the account first: linnet call im_open_login_svc/account_import '{\"UserID\":\"…\"}'"
        }
        code::C2C_REFUSED | code::CALLBACK_FAILED => {
            "the app's server decided; `linnet tail --webhooks` shows what it is asked and answers"
        }
        code::COMMAND_RATE | code::APP_RATE | code::OVERLOADED => "slow down and try again",
        _ => return None,
    })
}
