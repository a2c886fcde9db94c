//! A client of the JSON protocol made of nothing but a WebSocket: what somebody writes from `docs/protocol.md` alone.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::server::Server;

/// How long an answer or a push may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    /// Items pushed and not yet taken.
    items: VecDeque<Value>,
    /// Frames of the server's own that are no pushes: `kicked`, `going_away`.
    notes: VecDeque<Value>,
    /// The reply to signing in.
    pub signed_in: Value,
}

impl Socket {
    /// Opens a connection without signing in.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn open(url: &str) -> Result<Self> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "linnet.v1+json".parse()?);
        let (stream, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { stream, next_id: 1, items: VecDeque::new(), notes: VecDeque::new(), signed_in: Value::Null })
    }

    /// Opens and signs in on a platform.
    ///
    /// # Errors
    /// When either is refused.
    pub async fn sign_in(server: &Server, user: &str, platform: &str) -> Result<Self> {
        let mut socket = Self::open(server.ws()).await?;
        let request = json!({
            "sdkappid": server.app().0, "user": user, "usersig": server.sig(user), "platform": platform,
            "instance": format!("{user}-{platform}"),
        });
        socket.signed_in = socket.ask("sign_in", request).await?;
        Ok(socket)
    }

    /// Sends a request and waits for its reply; an `error` is an error.
    ///
    /// # Errors
    /// The server's error as `code info`, or a lost connection.
    pub async fn ask(&mut self, kind: &str, body: Value) -> Result<Value> {
        let reply = self.exchange(kind, body).await?;
        if let Some(error) = reply.get("error") {
            bail!("{} {}", error["code"], error["info"].as_str().unwrap_or_default());
        }
        let fields = reply.as_object().context("a frame is an object")?;
        let body = fields.iter().find(|(key, _)| *key != "id").map(|(_, body)| body.clone());
        body.context("a reply has a kind")
    }

    /// Sends a request and gives the code of its refusal.
    ///
    /// # Errors
    /// When it is not refused, or the connection is lost.
    pub async fn refused(&mut self, kind: &str, body: Value) -> Result<u64> {
        let reply = self.exchange(kind, body).await?;
        reply["error"]["code"].as_u64().with_context(|| format!("{kind} was not refused: {reply}"))
    }

    /// Sends a text message and gives what `sent` says.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn say(&mut self, conv: &str, random: u32, text: &str) -> Result<Value> {
        self.ask("send", json!({ "conv": conv, "random": random, "body": text_body(text) })).await
    }

    async fn exchange(&mut self, kind: &str, body: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        self.raw(&json!({ "id": id, kind: body }).to_string()).await?;
        loop {
            let frame = self.frame().await.with_context(|| format!("waiting for the reply to {kind}"))?;
            if frame["id"] == id {
                return Ok(frame);
            }
            self.keep(frame);
        }
    }

    /// Sends text as it is.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn raw(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.send(Message::text(text)).await?)
    }

    /// Sends bytes in a binary message.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn raw_binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.stream.send(Message::Binary(Bytes::from(bytes))).await?)
    }

    /// The next frame of the server.
    ///
    /// # Errors
    /// When none comes in 10 s, or the connection ends.
    pub async fn frame(&mut self) -> Result<Value> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await.context("no frame in 10 s")?;
            match next.context("the connection ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(why) => bail!("closed: {why:?}"),
                _ => {}
            }
        }
    }

    fn keep(&mut self, frame: Value) {
        match frame.pointer("/push/items").and_then(Value::as_array) {
            Some(items) => self.items.extend(items.iter().cloned()),
            None => self.notes.push_back(frame),
        }
    }

    /// The next pushed item that `wanted` accepts; others before it are dropped.
    ///
    /// # Errors
    /// When none comes in 10 s, or the connection ends.
    pub async fn item(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Result<Value> {
        loop {
            while let Some(item) = self.items.pop_front() {
                if wanted(&item) {
                    return Ok(item);
                }
            }
            let frame = self.frame().await?;
            self.keep(frame);
        }
    }

    /// The next message pushed in a conversation.
    ///
    /// # Errors
    /// As [`Socket::item`].
    pub async fn message(&mut self, conv: &str) -> Result<Value> {
        let item = self.item(|item| item["conv"] == conv && item["message"].is_object()).await?;
        Ok(item["message"].clone())
    }

    /// The next text pushed in a conversation; tips are passed over.
    ///
    /// # Errors
    /// As [`Socket::item`].
    pub async fn text(&mut self, conv: &str) -> Result<String> {
        loop {
            let message = self.message(conv).await?;
            if let Some(text) = message["body"][0]["MsgContent"]["Text"].as_str() {
                return Ok(text.to_owned());
            }
        }
    }

    /// The next frame that is neither reply nor push.
    ///
    /// # Errors
    /// When none comes in 10 s, or the connection ends without one.
    pub async fn note(&mut self) -> Result<Value> {
        loop {
            if let Some(note) = self.notes.pop_front() {
                return Ok(note);
            }
            let frame = self.frame().await?;
            self.keep(frame);
        }
    }

    /// Everything pushed so far, without waiting.
    pub async fn drain(&mut self) -> Vec<Value> {
        // A ping is answered after everything queued before it.
        let _ = self.ask("ping", json!({})).await;
        self.items.drain(..).collect()
    }

    /// Closes.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}

/// A body of one text element.
#[must_use]
pub fn text_body(text: &str) -> Value {
    json!([{ "MsgType": "TIMTextElem", "MsgContent": { "Text": text } }])
}
