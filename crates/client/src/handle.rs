//! The handle of a client.

use std::time::Duration;

use linnet_proto::client::{self, frame};
use linnet_runtime::{Rng, Tasks};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{self, Command};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::{Event, transport};

/// Requests waiting for the driver.
const COMMANDS: usize = 256;

/// A signed-in client; clones share the connection. The connection ends when every clone and the [`Events`] are gone, or
/// by [`Client::close`].
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    rng: Rng,
    timeout: Duration,
}

/// What the server tells, in order. Must be read: when [`Options::backlog`] events wait, the socket is not read.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event; `None` once the client has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The next message of any conversation; other events on the way are passed over.
    pub async fn message(&mut self) -> Option<(String, client::Message)> {
        loop {
            if let Event::Message { conv, message } = self.next().await? {
                return Some((conv, message));
            }
        }
    }
}

impl Client {
    /// Connects and signs in. The client lives in a task of `tasks`.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Refused`] with the code of the sign-in, [`Error::TimedOut`]. Once signed in, later
    /// losses are the driver's business.
    pub async fn connect(options: Options, tasks: &Tasks, rng: Rng) -> Result<(Self, Events)> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (out, events) = mpsc::channel(options.backlog.max(1));
        let timeout = options.timeout;
        let mut session = driver::Session::new(options, rng.clone(), out);
        let mut transport = transport::Transport::connect(session.options()).await?;
        let signed_in = tokio::time::timeout(timeout, session.sign_in(&mut transport));
        signed_in.await.map_err(|_| Error::TimedOut)??;
        tasks.spawn("client.driver", session.run(transport, inbox));
        Ok((Self { commands, rng, timeout }, Events { events }))
    }

    /// Asks anything the protocol has. Not repeated when the connection is lost.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn request(&self, body: frame::Body) -> Result<frame::Body> {
        let (answer, reply) = oneshot::channel();
        let command = Command { body, answer };
        self.commands.send(command).await.map_err(|_| Error::Ended)?;
        match tokio::time::timeout(self.timeout, reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(Error::Ended),
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// Sends a message. A lost connection and a refusal with `retry_after_ms` are answered by sending it again with the
    /// same `random`, within the time of a request.
    ///
    /// # Errors
    /// Any of [`Error`]; after [`Error::TimedOut`] the outcome is unknown and the same message may be sent again.
    pub async fn send(&self, mut send: client::Send) -> Result<client::Sent> {
        if send.random == 0 {
            send.random = self.rng.u32().max(1);
        }
        let attempt = async {
            loop {
                match self.request(frame::Body::Send(send.clone())).await {
                    Ok(frame::Body::Sent(sent)) => return Ok(sent),
                    Ok(_) => return Err(Error::Unexpected),
                    Err(Error::Refused(why)) if why.retry_after_ms > 0 => {
                        let jitter = self.rng.below(u64::from(why.retry_after_ms) / 2 + 1);
                        tokio::time::sleep(Duration::from_millis(u64::from(why.retry_after_ms) + jitter)).await;
                    }
                    Err(why) => return Err(why),
                }
            }
        };
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or(Err(Error::TimedOut))
    }

    /// Sends a text.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn text(&self, conv: &str, text: &str) -> Result<client::Sent> {
        self.send(client::Send { conv: conv.to_owned(), body: text_body(text).into(), ..client::Send::default() }).await
    }

    /// Conversations changed since `since_ms`; 0 = all.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn sync(&self, since_ms: u64) -> Result<client::Synced> {
        match self.request(frame::Body::Sync(client::Sync { since_ms, ..client::Sync::default() })).await? {
            frame::Body::Synced(synced) => Ok(synced),
            _ => Err(Error::Unexpected),
        }
    }

    /// A page of history.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn history(&self, ask: client::History) -> Result<client::Page> {
        match self.request(frame::Body::History(ask)).await? {
            frame::Body::Page(page) => Ok(page),
            _ => Err(Error::Unexpected),
        }
    }

    /// Marks a conversation read up to `seq`; 0 = everything.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn read(&self, conv: &str, seq: u64) -> Result<u64> {
        match self.request(frame::Body::Read(client::Read { conv: conv.to_owned(), seq })).await? {
            frame::Body::ReadDone(done) => Ok(done.read_seq),
            _ => Err(Error::Unexpected),
        }
    }

    /// Makes a group; the id is the server's when `ask.group_id` is empty.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn create_group(&self, ask: client::GroupCreate) -> Result<client::GroupCreated> {
        match self.request(frame::Body::GroupCreate(ask)).await? {
            frame::Body::GroupCreated(made) => Ok(made),
            _ => Err(Error::Unexpected),
        }
    }

    /// Enters a group or a live room.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn join(&self, group_id: &str) -> Result<client::GroupJoined> {
        let ask = client::GroupJoin { group_id: group_id.to_owned(), wording: String::new() };
        match self.request(frame::Body::GroupJoin(ask)).await? {
            frame::Body::GroupJoined(joined) => Ok(joined),
            _ => Err(Error::Unexpected),
        }
    }

    /// A request whose reply is `ok`.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn done(&self, body: frame::Body) -> Result<()> {
        match self.request(body).await? {
            frame::Body::Ok(_) => Ok(()),
            _ => Err(Error::Unexpected),
        }
    }

    /// Signs out and ends the client.
    pub async fn close(&self) {
        let _ = self.request(frame::Body::SignOut(client::SignOut {})).await;
    }
}

/// The body of a text message.
#[must_use]
pub(crate) fn text_body(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap_or_default();
    format!(r#"[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":{text}}}}}]"#)
}
