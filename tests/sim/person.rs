//! A user with a client, and everything he was shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use linnet_client::proto::{self, Message, frame};
use linnet_client::{Client, Error, Event, Events, Options};
use linnet_types::SdkAppId;
use linnet_usersig::{Claims, sign};
use parking_lot::Mutex;

use crate::world::{APP, KEY, World, dial};

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored {
        seq: u64,
    },
    /// Refused by every try that was answered.
    Refused,
    /// Refused in the end, after a try of which nothing is known; or never answered.
    Unknown,
}

/// A send as its sender saw it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) conv: String,
    pub(crate) from: String,
    pub(crate) random: u32,
    pub(crate) text: String,
    pub(crate) fate: Fate,
}

#[derive(Default)]
pub(crate) struct Screen {
    /// Messages by conversation, in the order they were shown.
    pub(crate) shown: BTreeMap<String, Vec<Message>>,
    pub(crate) ended: Option<String>,
    pub(crate) sign_ins: u64,
}

#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) screen: Arc<Mutex<Screen>>,
}

impl Person {
    pub(crate) async fn arrive(world: &World, name: &str) -> Self {
        let claims = Claims {
            app: SdkAppId(APP),
            identifier: name.into(),
            time_s: world.clock.now().secs(),
            expire_s: 86_400,
            userbuf: None,
        };
        let rng = world.rng.fork(name);
        let (doors, choice) = (world.doors.clone(), rng.fork("door"));
        let mut options = Options::new("ws://gateway/ws", APP, name, sign(&claims, KEY));
        options.instance = name.into();
        options.backlog = 100_000;
        options.backoff_max = Duration::from_secs(1);
        options.timeout = Duration::from_secs(10);
        options.dial = Some(Arc::new(move || {
            let connected = dial(&doors, choice.u64());
            async move { connected }.boxed()
        }));
        let (client, events) = loop {
            match Client::connect(options.clone(), &world.tasks, rng.fork("client")).await {
                Ok(connected) => break connected,
                Err(why) => assert!(world.clock.mono() < Duration::from_secs(30), "{name} cannot sign in: {why}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let screen = Arc::<Mutex<Screen>>::default();
        world.tasks.spawn("sim.person", watch(events, Arc::clone(&screen)));
        Self { name: name.into(), client, screen }
    }

    /// Sends until there is a final answer.
    pub(crate) async fn insist(&self, conv: &str, random: u32, text: &str) -> Told {
        let body = format!(r#"[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":"{text}"}}}}]"#);
        let send = proto::Send { conv: conv.into(), random, body: body.into(), ..proto::Send::default() };
        let told = |fate| Told { conv: conv.into(), from: self.name.clone(), random, text: text.into(), fate };
        let mut unknown = false;
        for _ in 0..60 {
            match self.client.request(frame::Body::Send(send.clone())).await {
                Ok(frame::Body::Sent(sent)) => {
                    assert_eq!(sent.outcome, "stored", "{conv} {text}");
                    return told(Fate::Stored { seq: sent.seq });
                }
                Err(Error::Refused(why)) if why.retry_after_ms > 0 => {
                    unknown = true;
                    tokio::time::sleep(Duration::from_millis(why.retry_after_ms.into())).await;
                }
                Err(Error::Refused(why)) => {
                    assert!(matches!(why.code, 10007 | 10017), "{} to {conv}: {} {}", self.name, why.code, why.info);
                    return told(if unknown { Fate::Unknown } else { Fate::Refused });
                }
                Err(Error::TimedOut) => unknown = true,
                other => panic!("{} to {conv}: {other:?}", self.name),
            }
        }
        panic!("{} to {conv}: {text} was never answered for good", self.name)
    }

    /// Asks until there is an answer; a refusal for good is one too.
    pub(crate) async fn ask(&self, body: frame::Body) -> Result<frame::Body, proto::Error> {
        for _ in 0..60 {
            match self.client.request(body.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(Error::Refused(why)) if why.retry_after_ms == 0 => return Err(why),
                Err(Error::Refused(why)) => tokio::time::sleep(Duration::from_millis(why.retry_after_ms.into())).await,
                Err(Error::TimedOut | Error::Disconnected) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(other) => panic!("{}: {other}", self.name),
            }
        }
        panic!("{}: {body:?} was never answered", self.name)
    }

    /// Every message of a conversation that he may read from `from` on.
    pub(crate) async fn history(&self, conv: &str, mut from: u64) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let ask = proto::History { conv: conv.into(), from_seq: from, to_seq: 0, ascending: true, limit: 100 };
            let page = match self.ask(frame::Body::History(ask)).await {
                Ok(frame::Body::Page(page)) => page,
                other => panic!("{} reads {conv}: {other:?}", self.name),
            };
            all.extend(page.messages);
            if page.complete || page.covered_to < from {
                return all;
            }
            from = page.covered_to + 1;
        }
    }
}

async fn watch(mut events: Events, screen: Arc<Mutex<Screen>>) {
    while let Some(event) = events.next().await {
        let mut screen = screen.lock();
        match event {
            Event::Message { conv, message } => screen.shown.entry(conv).or_default().push(message),
            Event::SignedIn(_) => screen.sign_ins += 1,
            Event::Kicked(kicked) => screen.ended = Some(format!("kicked: {}", kicked.reason)),
            Event::Refused(why) => screen.ended = Some(format!("refused: {} {}", why.code, why.info)),
            Event::Item(_) | Event::Disconnected => {}
        }
    }
}
