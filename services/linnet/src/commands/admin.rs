//! The operators' surface `/admin/v1`, from the caller's side.

use anyhow::{Context as _, Result};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::http;
use crate::output::{Exit, Failure};
use crate::target::Target;

/// Largest answer that is read.
const BODY: usize = 64 * 1024 * 1024;
/// Longest line of an event stream.
const LINE: usize = 1024 * 1024;

/// A caller with the operator token.
#[derive(Clone)]
pub(crate) struct Admin {
    http: Client,
    server: String,
    token: String,
}

/// An app as `/admin/v1/apps` shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct App {
    pub(crate) sdkappid: u32,
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) previous_key: String,
    pub(crate) previous_until_ms: u64,
    pub(crate) admins: Vec<String>,
    pub(crate) enabled: bool,
    pub(crate) created_ms: u64,
    pub(crate) settings: Vec<Setting>,
}

impl Default for App {
    fn default() -> Self {
        Self {
            sdkappid: 0,
            name: String::new(),
            key: String::new(),
            previous_key: String::new(),
            previous_until_ms: 0,
            admins: Vec::new(),
            enabled: true,
            created_ms: 0,
            settings: Vec::new(),
        }
    }
}

/// One setting of an app.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) default: String,
    pub(crate) doc: String,
}

impl App {
    /// The value of a setting; empty when the server has no such setting.
    pub(crate) fn setting(&self, name: &str) -> &str {
        self.settings.iter().find(|setting| setting.name == name).map_or("", |setting| &setting.value)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: u32,
    info: String,
}

impl Admin {
    /// # Errors
    /// [`Failure`] when the token is unknown.
    pub(crate) fn new(target: &Target) -> Result<Self> {
        let token = target.token()?.to_owned();
        Ok(Self { http: http::client(target)?, server: target.rest.clone(), token })
    }

    /// # Errors
    /// [`Failure`] when the server cannot be reached or refuses.
    pub(crate) async fn app(&self, app: u32) -> Result<App> {
        self.get(&["apps", &app.to_string()], &[]).await
    }

    /// # Errors
    /// [`Failure`] when the server cannot be reached or refuses.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T> {
        self.answer(self.request(Method::GET, path, query)?).await
    }

    /// # Errors
    /// [`Failure`] when the server cannot be reached or refuses.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &Value) -> Result<T> {
        self.answer(self.request(Method::POST, path, &[])?.json(body)).await
    }

    /// # Errors
    /// [`Failure`] when the server cannot be reached or refuses.
    pub(crate) async fn patch<T: DeserializeOwned>(&self, path: &[&str], body: &Value) -> Result<T> {
        self.answer(self.request(Method::PATCH, path, &[])?.json(body)).await
    }

    /// # Errors
    /// [`Failure`] when the server cannot be reached or refuses.
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<()> {
        let _: Value = self.answer(self.request(Method::DELETE, path, &[])?).await?;
        Ok(())
    }

    /// Events as they happen. The watch is in place when this returns.
    ///
    /// # Errors
    /// [`Failure`] when the server cannot be reached or refuses.
    pub(crate) async fn events(&self, query: &[(&str, String)]) -> Result<Lines> {
        let response = self.send(self.request(Method::GET, &["events"], query)?).await?;
        Ok(Lines { response, waiting: Vec::new(), server: self.server.clone() })
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, String)]) -> Result<RequestBuilder> {
        let mut url = Url::parse(&self.server).with_context(|| format!("--server {} is not a URL", self.server))?;
        let mut segments = url.path_segments_mut().map_err(|()| anyhow::anyhow!("--server is not an http URL"))?;
        segments.pop_if_empty().extend(["admin", "v1"]).extend(path);
        drop(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.http.request(method, url).bearer_auth(&self.token))
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request.timeout(http::ANSWER)).await?;
        let body = http::text(&self.server, response, BODY).await?;
        serde_json::from_str(&body).map_err(|why| {
            let todo = "is the server of the same version? `linnet --version`, `linnet status`";
            Failure::refused(format!("the answer of {} is not understood", self.server), why.to_string(), todo).into()
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| http::unreachable(&self.server, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, path) = (response.status(), response.url().path().to_owned());
        let body = http::text(&self.server, response, LINE).await?;
        let why = match serde_json::from_str::<Problem>(&body) {
            Ok(problem) if problem.code != 0 => format!("{}: {}", problem.code, problem.info),
            _ => format!("HTTP {status}"),
        };
        Err(Failure::new(Exit::Refused, format!("{path} was refused"), why, advice(status)).into())
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "give the operator token: --token, LINNET_TOKEN, or --data with the server's folder; it is taken from \
             loopback only unless the server is configured otherwise"
        }
        StatusCode::NOT_FOUND => "check the name; `linnet app list`, `linnet inspect`",
        status if status.is_server_error() => "try again; the server's log says more",
        _ => "correct what the line above names",
    }
}

/// Lines of a stream, one JSON object each.
pub(crate) struct Lines {
    response: Response,
    waiting: Vec<u8>,
    server: String,
}

impl Lines {
    /// The next object; `None` when the server ends the stream. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`Failure`] when the connection breaks or a line is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(value) => return Ok(Some(value)),
                    Err(_) => continue,
                }
            }
            if self.waiting.len() > LINE {
                let todo = "is this a Linnet server?";
                return Err(Failure::refused("an event is too long", format!("over {LINE} bytes"), todo).into());
            }
            let part = self.response.chunk().await.map_err(|error| http::unreachable(&self.server, &error))?;
            let Some(part) = part else { return Ok(None) };
            self.waiting.extend_from_slice(&part);
        }
    }
}
