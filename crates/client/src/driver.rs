//! The task that owns the socket.

use std::collections::HashMap;
use std::time::Duration;

use linnet_proto::client::{self, frame, item};
use linnet_runtime::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::Event;
use crate::error::{Error, Result};
use crate::gaps::{Gaps, Todo};
use crate::options::Options;
use crate::transport::Transport;

/// Pause before an owner that knew less than was told is asked again.
const BEHIND_PAUSE: Duration = Duration::from_millis(250);
/// Group type of live rooms on the wire.
const LIVE: &str = "AVChatRoom";

/// One request of a caller.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) body: frame::Body,
    pub(crate) answer: oneshot::Sender<Result<frame::Body>>,
}

/// What a reply is for.
enum Pending {
    Caller {
        body: Box<frame::Body>,
        answer: oneshot::Sender<Result<frame::Body>>,
    },
    /// History for a gap.
    Gap {
        conv: String,
    },
    /// The sync after signing in.
    Sync,
}

/// How a connection ended.
enum End {
    Lost,
    /// After this long, as the server wishes.
    Away(Duration),
    Over,
}

/// The state that outlives connections.
pub(crate) struct Session {
    options: Options,
    rng: Rng,
    out: mpsc::Sender<Event>,
    instance: String,
    resume: String,
    position_ms: u64,
    next_id: u64,
    pending: HashMap<u64, Pending>,
    gaps: Gaps,
    /// Conversations whose history is asked for again, and when; without a name, the sync.
    again: Vec<(Instant, String)>,
    ping: Duration,
    signing_out: bool,
}

impl Session {
    pub(crate) fn new(options: Options, rng: Rng, out: mpsc::Sender<Event>) -> Self {
        Self {
            instance: options.instance.clone(),
            options,
            rng,
            out,
            resume: String::new(),
            position_ms: 0,
            next_id: 1,
            pending: HashMap::new(),
            gaps: Gaps::default(),
            again: Vec::new(),
            ping: Duration::from_secs(30),
            signing_out: false,
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Signs in on a new connection.
    pub(crate) async fn sign_in(&mut self, transport: &mut Transport) -> Result<()> {
        let ask = client::SignIn {
            sdkappid: self.options.app,
            user: self.options.user.clone(),
            usersig: self.options.usersig.clone(),
            platform: self.options.platform.clone(),
            instance: self.instance.clone(),
            resume: self.resume.clone(),
            client: concat!("linnet-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let id = self.id();
        transport.send(&client::Frame { id, body: Some(frame::Body::SignIn(ask)) }).await?;
        loop {
            let Some(frame) = transport.next().await? else { continue };
            match frame.body {
                Some(frame::Body::SignedIn(reply)) if frame.id == id => {
                    self.instance.clone_from(&reply.instance);
                    self.resume.clone_from(&reply.resume);
                    self.ping = Duration::from_millis(reply.ping_ms.max(1000).into());
                    self.tell(Event::SignedIn(reply)).await;
                    break;
                }
                Some(frame::Body::Error(why)) => return Err(Error::Refused(why)),
                Some(frame::Body::GoingAway(_)) => return Err(Error::Disconnected),
                _ => {}
            }
        }
        if self.options.follow {
            self.sync(transport).await?;
        }
        Ok(())
    }

    async fn sync(&mut self, transport: &mut Transport) -> Result<()> {
        let ask = client::Sync { since_ms: self.position_ms, ..client::Sync::default() };
        self.ask(transport, frame::Body::Sync(ask), Pending::Sync).await
    }

    /// Lives until closed, kicked or refused.
    pub(crate) async fn run(mut self, transport: Transport, mut inbox: mpsc::Receiver<Command>) {
        let mut transport = Some(transport);
        let mut tries = 0;
        loop {
            let end = match transport.take() {
                Some(connected) => {
                    tries = 0;
                    self.serve(connected, &mut inbox).await
                }
                None => End::Lost,
            };
            let wait = match end {
                End::Over => return self.finish(&mut inbox, Error::Ended),
                End::Away(wait) => wait,
                End::Lost => self.backoff(tries),
            };
            self.lost();
            if !self.options.reconnect {
                self.tell(Event::Disconnected).await;
                return self.finish(&mut inbox, Error::Disconnected);
            }
            if tries == 0 {
                self.tell(Event::Disconnected).await;
            }
            tries += 1;
            tokio::time::sleep(wait).await;
            if inbox.is_closed() && inbox.is_empty() && self.out.is_closed() {
                return;
            }
            match self.reconnect().await {
                Ok(connected) => transport = Some(connected),
                Err(Error::Refused(why)) if why.retry_after_ms == 0 => {
                    self.tell(Event::Refused(why)).await;
                    return self.finish(&mut inbox, Error::Ended);
                }
                Err(Error::Refused(why)) => tokio::time::sleep(Duration::from_millis(why.retry_after_ms.into())).await,
                Err(_) => {}
            }
        }
    }

    fn backoff(&self, tries: u32) -> Duration {
        let base = self.options.backoff.saturating_mul(1 << tries.min(16)).min(self.options.backoff_max);
        let ms = u64::try_from(base.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(ms / 2 + self.rng.below(ms / 2 + 1))
    }

    async fn reconnect(&mut self) -> Result<Transport> {
        let mut transport = Transport::connect(&self.options).await?;
        let timeout = self.options.timeout;
        tokio::time::timeout(timeout, self.sign_in(&mut transport)).await.map_err(|_| Error::TimedOut)??;
        // What was not answered goes again: first sends, in their order, then what gaps still need.
        let mut again: Vec<u64> =
            self.pending.iter().filter(|(_, p)| matches!(p, Pending::Caller { .. })).map(|(id, _)| *id).collect();
        again.sort_unstable();
        for id in again {
            if let Some(Pending::Caller { body, .. }) = self.pending.get(&id) {
                transport.send(&client::Frame { id, body: Some((**body).clone()) }).await?;
            }
        }
        for (conv, todo) in self.gaps.resume() {
            self.act(&mut transport, &conv, todo).await?;
        }
        Ok(transport)
    }

    /// The connection is gone: sends stay to be repeated, other requests end.
    fn lost(&mut self) {
        self.gaps.lost();
        self.again.clear();
        let pending = std::mem::take(&mut self.pending);
        for (id, entry) in pending {
            match entry {
                Pending::Caller { body, answer } if self.options.reconnect && is_send(&body) => {
                    self.pending.insert(id, Pending::Caller { body, answer });
                }
                Pending::Caller { answer, .. } => drop(answer.send(Err(Error::Disconnected))),
                Pending::Gap { .. } | Pending::Sync => {}
            }
        }
    }

    fn finish(&mut self, inbox: &mut mpsc::Receiver<Command>, why: Error) {
        inbox.close();
        for (_, entry) in self.pending.drain() {
            if let Pending::Caller { answer, .. } = entry {
                let _ = answer.send(Err(why.clone()));
            }
        }
        while let Ok(command) = inbox.try_recv() {
            let _ = command.answer.send(Err(why.clone()));
        }
    }

    /// One connection, until it ends.
    async fn serve(&mut self, mut transport: Transport, inbox: &mut mpsc::Receiver<Command>) -> End {
        // The server pings; silence for two periods and a bit means the path is dead.
        let patience = self.ping * 2 + Duration::from_secs(5);
        let mut deadline = Instant::now() + patience;
        loop {
            let again = self.again.iter().map(|(at, _)| *at).min();
            let step = tokio::select! {
                () = tokio::time::sleep_until(again.unwrap_or(deadline)), if again.is_some() => {
                    self.ask_again(&mut transport).await
                }
                incoming = transport.next() => {
                    deadline = Instant::now() + patience;
                    match incoming {
                        Ok(Some(frame)) => self.incoming(&mut transport, frame).await,
                        Ok(None) => Ok(None),
                        Err(why) => Err(why),
                    }
                }
                command = inbox.recv() => match command {
                    Some(command) => self.command(&mut transport, command).await.map(|()| None),
                    // Every handle is gone; events may still be read.
                    None if self.out.is_closed() => Ok(Some(End::Over)),
                    None => self.listen(&mut transport).await,
                },
                () = tokio::time::sleep_until(deadline) => Err(Error::Disconnected),
            };
            match step {
                Ok(None) => {}
                Ok(Some(end)) => {
                    transport.close().await;
                    return end;
                }
                Err(_) if self.signing_out => return End::Over,
                Err(_) => return End::Lost,
            }
        }
    }

    /// No handle is left: only reads, until nobody reads the events either.
    async fn listen(&mut self, transport: &mut Transport) -> Result<Option<End>> {
        tokio::select! {
            incoming = transport.next() => match incoming? {
                Some(frame) => self.incoming(transport, frame).await,
                None => Ok(None),
            },
            () = self.out.closed() => Ok(Some(End::Over)),
        }
    }

    async fn command(&mut self, transport: &mut Transport, command: Command) -> Result<()> {
        let Command { body, answer } = command;
        if answer.is_closed() {
            return Ok(());
        }
        self.signing_out |= matches!(body, frame::Body::SignOut(_));
        let pending = Pending::Caller { body: Box::new(body.clone()), answer };
        self.ask(transport, body, pending).await
    }

    async fn ask(&mut self, transport: &mut Transport, body: frame::Body, pending: Pending) -> Result<()> {
        let id = self.id();
        self.pending.insert(id, pending);
        transport.send(&client::Frame { id, body: Some(body) }).await
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    async fn tell(&self, event: Event) {
        let _ = self.out.send(event).await;
    }

    async fn incoming(&mut self, transport: &mut Transport, frame: client::Frame) -> Result<Option<End>> {
        let Some(body) = frame.body else { return Ok(None) };
        match body {
            frame::Body::Push(push) => {
                for item in push.items {
                    self.item(transport, item).await?;
                }
            }
            frame::Body::Kicked(kicked) => {
                self.tell(Event::Kicked(kicked)).await;
                return Ok(Some(End::Over));
            }
            frame::Body::GoingAway(away) => {
                return Ok(Some(End::Away(Duration::from_millis(away.after_ms.into()))));
            }
            body if frame.id != 0 => return self.reply(transport, frame.id, body).await,
            _ => {}
        }
        Ok(None)
    }

    async fn reply(&mut self, transport: &mut Transport, id: u64, body: frame::Body) -> Result<Option<End>> {
        match self.pending.remove(&id) {
            None => {}
            Some(Pending::Caller { answer, .. }) => {
                if let frame::Body::Sent(sent) = &body
                    && self.options.follow
                {
                    let todo = self.gaps.sent(&sent.conv, sent.seq);
                    self.act(transport, &sent.conv.clone(), todo).await?;
                }
                if let frame::Body::GroupJoined(joined) = &body
                    && joined.group.as_ref().is_some_and(|group| group.r#type == LIVE)
                {
                    self.gaps.live(&format!("GROUP:{}", joined.group_id));
                }
                let _ = answer.send(match body {
                    frame::Body::Error(why) => Err(Error::Refused(why)),
                    body => Ok(body),
                });
                if self.signing_out && self.pending.is_empty() {
                    return Ok(Some(End::Over));
                }
            }
            Some(Pending::Gap { conv }) => {
                let todo = match body {
                    frame::Body::Page(page) if self.gaps.is_behind(&conv, &page) => {
                        return self.later(conv, BEHIND_PAUSE);
                    }
                    frame::Body::Page(page) => self.gaps.page(&conv, page),
                    frame::Body::Error(why) if why.retry_after_ms > 0 => {
                        return self.later(conv, Duration::from_millis(why.retry_after_ms.min(1000).into()));
                    }
                    _ => self.gaps.refused(&conv),
                };
                self.act(transport, &conv, todo).await?;
            }
            Some(Pending::Sync) => self.synced(transport, body).await?,
        }
        Ok(None)
    }

    /// Asks for the history of `conv` again after a pause.
    fn later(&mut self, conv: String, pause: Duration) -> Result<Option<End>> {
        self.again.push((Instant::now() + pause, conv));
        Ok(None)
    }

    /// Asks again what is due.
    async fn ask_again(&mut self, transport: &mut Transport) -> Result<Option<End>> {
        let now = Instant::now();
        let due: Vec<_> = self.again.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, conv) in due {
            if conv.is_empty() {
                self.sync(transport).await?;
                continue;
            }
            let todo = self.gaps.again(&conv);
            self.act(transport, &conv, todo).await?;
        }
        Ok(None)
    }

    async fn synced(&mut self, transport: &mut Transport, body: frame::Body) -> Result<()> {
        let synced = match body {
            frame::Body::Synced(synced) => synced,
            // Without it nothing would tell of what happened while away.
            frame::Body::Error(why) if why.retry_after_ms > 0 => {
                let pause = Duration::from_millis(why.retry_after_ms.min(1000).into());
                self.again.push((Instant::now() + pause, String::new()));
                return Ok(());
            }
            _ => return Ok(()),
        };
        for found in &synced.conversations {
            if found.group_type == LIVE {
                self.gaps.live(&found.conv);
                continue;
            }
            let todo = self.gaps.synced(found);
            self.act(transport, &found.conv, todo).await?;
        }
        if synced.more {
            let ask = client::Sync { since_ms: self.position_ms, cursor: synced.cursor, ..client::Sync::default() };
            return self.ask(transport, frame::Body::Sync(ask), Pending::Sync).await;
        }
        self.position_ms = self.position_ms.max(synced.position_ms);
        self.gaps.synced_all();
        Ok(())
    }

    async fn item(&mut self, transport: &mut Transport, item: client::Item) -> Result<()> {
        let client::Item { conv, what } = item;
        match what {
            Some(item::What::Message(message)) if self.options.follow => {
                let todo = self.gaps.message(&conv, message);
                self.act(transport, &conv, todo).await
            }
            Some(item::What::Message(message)) => {
                self.tell(Event::Message { conv, message }).await;
                Ok(())
            }
            Some(item::What::Advanced(_)) if self.options.follow && conv.is_empty() => self.sync(transport).await,
            Some(item::What::Advanced(advanced)) if self.options.follow => {
                let todo = self.gaps.head(&conv, advanced.head);
                self.act(transport, &conv, todo).await
            }
            Some(what) => {
                self.tell(Event::Item(client::Item { conv, what: Some(what) })).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn act(&mut self, transport: &mut Transport, conv: &str, todo: Todo) -> Result<()> {
        for message in todo.show {
            self.tell(Event::Message { conv: conv.to_owned(), message }).await;
        }
        match todo.ask {
            Some(ask) => self.ask(transport, frame::Body::History(ask), Pending::Gap { conv: conv.to_owned() }).await,
            None => Ok(()),
        }
    }
}

/// Sends carry a token, so they may be repeated.
fn is_send(body: &frame::Body) -> bool {
    matches!(body, frame::Body::Send(_))
}
