//! A user with a client that comes back by itself, and everything it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::FutureExt as _;
use linnet_client::proto::{self, frame};
use linnet_client::{Client, Error, Event, Events, Options, Stream};
use linnet_runtime::{Rng, Tasks};
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::Place;
use super::record::{Conv, Entry, Fate, Screen, Told};

/// Time of one try; then the message is sent again with the same token.
const TRY: Duration = Duration::from_secs(5);
/// Signing in at the beginning of a run.
const ARRIVE: Duration = Duration::from_secs(30);

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Since(Instant);

impl Since {
    /// Begins now.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since it began.
    #[must_use]
    pub fn ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What all clients of a run share.
#[derive(Clone)]
pub struct World {
    /// Where.
    pub place: Place,
    /// Drives the clients.
    pub tasks: Tasks,
    /// Chooses.
    pub rng: Rng,
    /// The run's clock.
    pub since: Since,
}

/// One signed-in device.
pub struct Person {
    /// The user.
    pub name: String,
    /// Its connection.
    pub client: Client,
    /// What it was told.
    pub screen: Arc<Mutex<Screen>>,
    watcher: tokio::task::JoinHandle<()>,
}

/// What a device does whenever it is signed in without its session before.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// Platform; empty = Web.
    pub platform: String,
    /// Enters this live room.
    pub room: Option<String>,
    /// Has this conversation on screen.
    pub open: Option<String>,
    /// Closes gaps.
    pub follow: bool,
    /// Which gateway it tries first.
    pub door: usize,
}

impl Person {
    /// Signs in, enters and opens what its habits say.
    ///
    /// # Errors
    /// When it cannot within 30 s.
    pub async fn arrive(world: &World, name: &str, habits: Habits) -> Result<Self> {
        let options = options(world, name, &habits)?;
        let end = Instant::now() + ARRIVE;
        let rng = world.rng.fork(&format!("{name} {}", habits.platform));
        let (client, events) = loop {
            match Client::connect(options.clone(), &world.tasks, rng.fork("client")).await {
                Ok(connected) => break connected,
                Err(why) if Instant::now() > end => bail!("{name} cannot sign in: {why}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        let screen = Screen { user: name.to_owned(), follows: habits.follow, ..Screen::default() };
        let screen = Arc::new(Mutex::new(screen));
        settle(&client, &habits).await.with_context(|| format!("{name} enters"))?;
        let watching = watch(world.since, name.to_owned(), client.clone(), events, habits, Arc::clone(&screen));
        let watcher = tokio::spawn(watching);
        Ok(Self { name: name.to_owned(), client, screen, watcher })
    }

    /// What a device that signs in is told instead, which must be to come again later.
    ///
    /// # Errors
    /// When it is told anything else.
    pub async fn is_told(world: &World, name: &str, door: usize) -> Result<String> {
        let habits = Habits { platform: "Mac".to_owned(), door, ..Habits::default() };
        let options = options(world, name, &habits)?;
        match Client::connect(options, &world.tasks, world.rng.fork("newcomer")).await {
            Err(linnet_client::Error::Refused(why)) if why.retry_after_ms > 0 => {
                Ok(format!("{} {}", why.code, why.info))
            }
            Err(why) => bail!("{name} is told: {why}"),
            Ok(_) => bail!("{name} may sign in"),
        }
    }

    /// Sends until there is a final answer or `give_up`.
    pub async fn insist(&self, since: Since, mut told: Told, give_up: Instant) -> Told {
        let body = text_body(&told.text);
        let view = told.conv.view(&self.name);
        let send = proto::Send { conv: view, random: told.random, body: body.into(), ..proto::Send::default() };
        told.begun_ms = since.ms();
        let mut unanswered = false;
        let drops = self.screen.lock().drops;
        while Instant::now() < give_up {
            told.tries += 1;
            match self.client.request(frame::Body::Send(send.clone())).await {
                Ok(frame::Body::Sent(sent)) => {
                    told.fate = match sent.outcome.as_str() {
                        "stored" => Fate::Stored((sent.seq != 0).then_some(sent.seq)),
                        "published" => Fate::Published,
                        _ => Fate::Shaped,
                    };
                    told.ended_ms = since.ms();
                    return told;
                }
                // What was told to be tried again may have been done by a try nobody heard of.
                Err(Error::Refused(why)) if why.retry_after_ms > 0 => {
                    unanswered = true;
                    told.trail.push(format!("{} ms: {} {}", since.ms(), why.code, why.info));
                    tokio::time::sleep(Duration::from_millis(why.retry_after_ms.into())).await;
                }
                Err(Error::Refused(why)) => {
                    // What was under way when a connection was lost went out again by itself.
                    unanswered |= self.screen.lock().drops > drops;
                    told.fate = if unanswered { Fate::Unknown } else { Fate::Refused(why.code) };
                    told.ended_ms = since.ms();
                    return told;
                }
                Err(Error::Ended) => break,
                Err(why) => {
                    unanswered = true;
                    told.trail.push(format!("{} ms: {why}", since.ms()));
                }
                Ok(_) => unanswered = true,
            }
        }
        told.fate = Fate::Unknown;
        told.ended_ms = since.ms();
        told
    }

    /// Everything of a conversation from `from` on, as this user may read it: entries, the head.
    ///
    /// # Errors
    /// When it is refused, or not answered within `patience`.
    pub async fn history(&self, conv: &Conv, mut from: u64, patience: Duration) -> Result<(Vec<Entry>, u64)> {
        let end = Instant::now() + patience;
        let mut all = Vec::new();
        let view = conv.view(&self.name);
        loop {
            let ask = proto::History { conv: view.clone(), from_seq: from, to_seq: 0, ascending: true, limit: 100 };
            let page = match self.client.history(ask).await {
                Ok(page) => page,
                Err(Error::Refused(why)) if why.retry_after_ms == 0 => bail!("{} {}", why.code, why.info),
                Err(why) if Instant::now() > end => bail!("{} reads {conv}: {why}", self.name),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            all.extend(page.messages.iter().map(entry));
            if page.complete || page.covered_to < from {
                return Ok((all, page.head));
            }
            from = page.covered_to + 1;
        }
    }

    /// Signs out.
    pub async fn leave(self) {
        self.client.close().await;
        self.watcher.abort();
    }
}

/// How a device connects: at each try another gateway, its own first.
fn options(world: &World, name: &str, habits: &Habits) -> Result<Options> {
    let place = &world.place;
    let mut doors = Vec::new();
    for url in &place.ws {
        doors.push(url.split('/').nth(2).with_context(|| format!("{url} is no address"))?.to_owned());
    }
    let mut options = Options::new(place.ws[0].clone(), place.app, name, place.sig(name));
    options.platform.clone_from(&habits.platform);
    options.instance = format!("{name}-{}", habits.platform);
    options.follow = habits.follow;
    options.backlog = 100_000;
    options.backoff_max = Duration::from_secs(1);
    options.timeout = TRY;
    let tries = Arc::new(AtomicUsize::new(habits.door));
    options.dial = Some(Arc::new(move || {
        let door = doors[tries.fetch_add(1, Ordering::Relaxed) % doors.len()].clone();
        async move {
            let stream = TcpStream::connect(door).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }));
    Ok(options)
}

/// Enters and opens, until it is done.
async fn settle(client: &Client, habits: &Habits) -> Result<()> {
    let end = Instant::now() + ARRIVE;
    if let Some(room) = &habits.room {
        while let Err(why) = client.join(room).await {
            again(why, end).await?;
        }
    }
    if let Some(open) = &habits.open {
        let ask = || frame::Body::Open(proto::Open { conv: open.clone() });
        while let Err(why) = client.done(ask()).await {
            again(why, end).await?;
        }
    }
    Ok(())
}

async fn again(why: Error, end: Instant) -> Result<()> {
    match why {
        Error::Refused(why) if why.retry_after_ms == 0 => bail!("{} {}", why.code, why.info),
        Error::Ended => bail!("the session is over"),
        why if Instant::now() > end => bail!("{why}"),
        _ => tokio::time::sleep(Duration::from_millis(100)).await,
    }
    Ok(())
}

async fn watch(
    since: Since,
    name: String,
    client: Client,
    mut events: Events,
    habits: Habits,
    screen: Arc<Mutex<Screen>>,
) {
    let mut lost = None;
    while let Some(event) = events.next().await {
        match event {
            Event::Message { conv, message } => {
                if message.replayed {
                    continue;
                }
                let Some(conv) = Conv::of(&conv, &name) else { continue };
                screen.lock().shown.entry(conv).or_default().push(entry(&message));
            }
            Event::SignedIn(signed_in) => {
                let Some(from) = lost.take() else { continue };
                let mut habits = habits.clone();
                habits.room = habits.room.filter(|_| !signed_in.resumed);
                let (client, screen) = (client.clone(), Arc::clone(&screen));
                tokio::spawn(async move {
                    if let Err(why) = settle(&client, &habits).await {
                        // A connection lost meanwhile is told by the next sign-in.
                        tracing::debug!("settling again: {why:#}");
                    }
                    screen.lock().away.push((from, since.ms()));
                });
            }
            Event::Disconnected => lost = lost.or_else(|| Some(since.ms())),
            Event::Kicked(kicked) => screen.lock().ended = Some(format!("kicked: {}", kicked.reason)),
            Event::Refused(why) => screen.lock().ended = Some(format!("refused: {} {}", why.code, why.info)),
            Event::Item(_) => {}
        }
    }
}

/// A message as it is written down.
pub(crate) fn entry(message: &proto::Message) -> Entry {
    Entry {
        seq: message.seq,
        from: message.from.clone(),
        random: message.random,
        text: text_of(&message.body),
        time_ms: message.time_ms,
        tip: message.kind == "tip",
    }
}

fn text_of(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body[0]["MsgContent"]["Text"].as_str().unwrap_or_default().to_owned()
}

/// The body of a text.
pub(crate) fn text_body(text: &str) -> String {
    format!(r#"[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":"{text}"}}}}]"#)
}
