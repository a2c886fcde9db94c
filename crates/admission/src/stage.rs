//! Admission itself: one call around the hand-over to an actor.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linnet_cluster::{Cluster, Service};
use linnet_proto::callback::{self, callbacks_client::CallbacksClient};
use linnet_proto::msg::{InLine, Message, Outcome, SendReply};
use linnet_runtime::{Clock, Metrics, Tasks, status};
use linnet_types::{ConvId, MsgBody, Refusal, SdkAppId, UserId, code};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{oneshot, watch};

use crate::arrivals::{Arrivals, Place};
use crate::dedup::{Done, Seen, Table, Token};
use crate::line::{Flight, Lines};

/// Locks that spread the tables; by conversation.
const SHARDS: usize = 16;
/// Sends in flight on this node, webhooks included.
const PENDING: usize = 64 * 1024;
/// Sends in flight of one sender in one conversation; what one connection may have in flight (`gateway.sends_per_connection`).
const PENDING_PER_SENDER: usize = 256;
/// Remembered outcomes on this node (about 200 bytes each).
const DONE: usize = 1024 * 1024;
/// Longer than the longest `webhook.timeout_ms`, so that the app's failure policy decides and not this.
const ASK: Duration = Duration::from_millis(10_500);

/// Which codes a webhook's decision becomes (`spec/webhooks.md` §1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 20006 when refused.
    C2c,
    /// 10016 when refused.
    Group,
}

/// One send to admit.
pub struct Admit {
    /// De-duplication token.
    pub token: Token,
    /// How long the outcome is remembered.
    pub window: Duration,
    /// The message as the caller sent it.
    pub message: Message,
    /// The before-webhook to ask, if it is on and not forbidden.
    pub before: Option<callback::Event>,
    /// Code family.
    pub family: Family,
    /// Largest body a rewrite may have.
    pub max_bytes: usize,
    /// The app's failure policy is `block`.
    pub block_on_failure: bool,
    /// Its place in its connection's line.
    pub flight: Flight,
}

/// Who asks the app; the cluster does, tests script it.
#[async_trait]
pub trait Ask: Send + Sync + 'static {
    /// Asks a before-webhook and waits for the decision.
    ///
    /// # Errors
    /// When the callback service cannot be reached.
    async fn before(&self, event: callback::Event) -> Result<callback::BeforeReply, Refusal>;
}

#[async_trait]
impl Ask for Cluster {
    async fn before(&self, event: callback::Event) -> Result<callback::BeforeReply, Refusal> {
        let rpc = self.any(Service::Callback)?;
        let request = status::with_deadline(callback::BeforeRequest { event: Some(event) }, ASK);
        let reply = CallbacksClient::new(rpc).before(request).await;
        reply.map(tonic::Response::into_inner).map_err(|why| status::refusal_or(&why, code::BUSY))
    }
}

/// The stage; cheap to clone, one per service and node.
#[derive(Clone)]
pub struct Admission {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<Mutex<Shard>>,
    arrivals: Arrivals,
    lines: Lines,
    ask: Arc<dyn Ask>,
    clock: Clock,
    tasks: Tasks,
    pending: Gauge,
    joined: Counter,
    repeated: Counter,
}

struct Shard {
    table: Table,
    senders: HashMap<(ConvId, UserId), Line>,
}

/// The messages of one sender that are not handed over yet.
#[derive(Default)]
struct Line {
    waiting: usize,
    /// Tells when the last of them is.
    last: Option<oneshot::Receiver<()>>,
}

/// What a before-webhook made of a message.
enum Decision {
    Go(Box<Message>),
    Drop,
}

impl Admission {
    /// Builds the stage of `service`.
    #[must_use]
    pub fn new(service: &str, ask: Arc<dyn Ask>, clock: Clock, tasks: &Tasks, metrics: &Metrics) -> Self {
        let shard = || Shard { table: Table::new(PENDING / SHARDS, DONE / SHARDS), senders: HashMap::new() };
        let (pending, joined, repeated) = metrics.scope(service, |scope| {
            (
                scope.gauge("admission_pending", "sends admitted and not yet answered"),
                scope.counter("admission_joined", "retries that joined a pending send"),
                scope.counter("admission_repeated", "retries answered with the first outcome"),
            )
        });
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        let tasks = tasks.child("admission");
        Self {
            inner: Arc::new(Inner {
                shards,
                arrivals: Arrivals::default(),
                lines: Lines::default(),
                ask,
                clock,
                tasks,
                pending,
                joined,
                repeated,
            }),
        }
    }

    /// A message's place in its sender's order, for [`Admission::admit_at`]. `conv` is the conversation by any name the
    /// caller always uses for it.
    pub fn arrive(&self, app: SdkAppId, conv: &str, from: &str) -> Place {
        self.inner.arrivals.take(app, conv, from)
    }

    /// A message's place in the line of its connection; whoever stores it asks [`Flight::take`] first.
    pub fn in_line(&self, connection: &str, conv: &str, place: Option<InLine>) -> Flight {
        self.inner.lines.take(connection, conv, place, self.inner.clock.mono())
    }

    /// As [`Admission::admit`], after the messages whose places were taken before.
    ///
    /// # Errors
    /// As [`Admission::admit`].
    pub async fn admit_at<H, F>(&self, mut place: Place, admit: Admit, hand_over: H) -> Result<SendReply, Refusal>
    where
        H: FnOnce(Message) -> F + Send + 'static,
        F: Future<Output = Done> + Send + 'static,
    {
        place.reached().await;
        let entered = self.enter(admit, hand_over);
        drop(place);
        settle(entered).await
    }

    /// Admits one send and waits for its outcome.
    ///
    /// `hand_over` is called once, in the order in which this sender's messages of this conversation came; calling it must
    /// put the message into the actor's mailbox without waiting, and the future it returns waits for the outcome. The send
    /// goes on when this future is dropped (a caller's deadline): a retry with the same token joins it.
    ///
    /// # Errors
    /// The webhook's refusal ([`code::C2C_REFUSED`], [`code::GROUP_VETO`], [`code::CALLBACK_FAILED`] or the app's own),
    /// [`code::BUSY`] when too many are in flight, or what the actor answered.
    pub async fn admit<H, F>(&self, admit: Admit, hand_over: H) -> Result<SendReply, Refusal>
    where
        H: FnOnce(Message) -> F + Send + 'static,
        F: Future<Output = Done> + Send + 'static,
    {
        settle(self.enter(admit, hand_over)).await
    }

    /// Enters the sender's line, which is where the order is decided; nothing is awaited.
    fn enter<H, F>(&self, admit: Admit, hand_over: H) -> Entered
    where
        H: FnOnce(Message) -> F + Send + 'static,
        F: Future<Output = Done> + Send + 'static,
    {
        let now = self.inner.clock.mono();
        let shard = self.inner.shard(admit.token.conv);
        let seen = shard.lock().table.begin(&admit.token, now);
        let tell = match seen {
            Seen::Done(reply) => {
                self.inner.repeated.inc();
                return Entered::Known(Ok(SendReply { duplicate: true, ..reply }));
            }
            Seen::Full => return Entered::Known(Err(busy())),
            Seen::Pending(outcome) => {
                self.inner.joined.inc();
                return Entered::Joined(outcome);
            }
            Seen::New(tell) => tell,
        };
        let outcome = tell.subscribe();
        let turn = shard.lock().queue(&admit.token);
        match turn {
            Ok(turn) => {
                self.inner.pending.inc();
                let inner = Arc::clone(&self.inner);
                self.inner.tasks.spawn("admission.send", inner.run(admit, turn, tell, hand_over));
                Entered::First(outcome)
            }
            Err(refusal) => {
                self.inner.finish(&admit.token, admit.window, &tell, Err(refusal.clone()));
                Entered::Known(Err(refusal))
            }
        }
    }

    /// Remembers an outcome found in the log, so that a retry after a take-over is answered and not sent again.
    pub fn seed(&self, token: Token, reply: SendReply, left: Duration) {
        let until = self.inner.clock.mono() + left;
        self.inner.shard(token.conv).lock().table.remember(token, reply, until);
    }

    /// Sends admitted and not yet answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.lock().table.pending()).sum()
    }
}

/// How a message entered.
enum Entered {
    Known(Done),
    /// A retry of one that is pending.
    Joined(watch::Receiver<Option<Done>>),
    First(watch::Receiver<Option<Done>>),
}

async fn settle(entered: Entered) -> Done {
    match entered {
        Entered::Known(done) => done,
        Entered::Joined(outcome) => wait(outcome).await.map(|reply| SendReply { duplicate: true, ..reply }),
        Entered::First(outcome) => wait(outcome).await,
    }
}

/// A message's place in its sender's order of handing over.
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
}

impl Shard {
    fn queue(&mut self, token: &Token) -> Result<Turn, Refusal> {
        let line = self.senders.entry((token.conv, token.from.clone())).or_default();
        if line.waiting >= PENDING_PER_SENDER {
            return Err(busy());
        }
        let (done, after) = oneshot::channel();
        line.waiting += 1;
        Ok(Turn { before: line.last.replace(after), done })
    }

    fn handed_over(&mut self, token: &Token) {
        let key = (token.conv, token.from.clone());
        if let Some(line) = self.senders.get_mut(&key) {
            line.waiting -= 1;
            if line.waiting == 0 {
                self.senders.remove(&key);
            }
        }
    }
}

impl Inner {
    fn shard(&self, conv: ConvId) -> &Mutex<Shard> {
        &self.shards[usize::try_from(conv.0 % SHARDS as u64).expect("below SHARDS")]
    }

    async fn run<H, F>(self: Arc<Self>, mut admit: Admit, turn: Turn, tell: watch::Sender<Option<Done>>, hand_over: H)
    where
        H: FnOnce(Message) -> F + Send + 'static,
        F: Future<Output = Done> + Send + 'static,
    {
        let decision = self.decide(&mut admit).await;
        if let Some(before) = turn.before {
            // An error means the message before is gone, which is as good as handed over.
            let _ = before.await;
        }
        let sent = match decision {
            Ok(Decision::Go(message)) => Ok(Some(hand_over(*message))),
            Ok(Decision::Drop) => {
                admit.flight.settled(None);
                Ok(None)
            }
            Err(refusal) => {
                admit.flight.settled(Some(&refusal));
                Err(refusal)
            }
        };
        self.shard(admit.token.conv).lock().handed_over(&admit.token);
        // The receiver is gone when no later message waits.
        let _ = turn.done.send(());
        let outcome = match sent {
            Ok(Some(outcome)) => outcome.await,
            Ok(None) => Ok(SendReply {
                outcome: Outcome::Dropped.into(),
                time_ms: self.clock.now().0,
                msg_seq: admit.message.msg_seq,
                random: admit.message.random,
                ..SendReply::default()
            }),
            Err(refusal) => Err(refusal),
        };
        self.pending.dec();
        self.finish(&admit.token, admit.window, &tell, outcome);
    }

    fn finish(&self, token: &Token, window: Duration, tell: &watch::Sender<Option<Done>>, outcome: Done) {
        let until = self.clock.mono() + window;
        self.shard(token.conv).lock().table.end(token, &outcome, until);
        tell.send_replace(Some(outcome));
    }

    async fn decide(&self, admit: &mut Admit) -> Result<Decision, Refusal> {
        let mut message = admit.message.clone();
        let Some(event) = admit.before.take() else { return Ok(Decision::Go(Box::new(message))) };
        let reply = match self.ask.before(event).await {
            Ok(reply) => reply,
            Err(refusal) => {
                tracing::warn!(%refusal, "a before-webhook could not be asked");
                return on_failure(admit.block_on_failure, message);
            }
        };
        if reply.failed_block {
            return on_failure(true, message);
        }
        match reply.decision {
            0 => {}
            2 => return Ok(Decision::Drop),
            own if code::is_app_defined(own) => return Err(Refusal::new(own, reply.info)),
            _ => {
                let code = match admit.family {
                    Family::C2c => code::C2C_REFUSED,
                    Family::Group => code::GROUP_VETO,
                };
                return Err(Refusal::new(code, reply.info));
            }
        }
        if !reply.msg_body.is_empty() {
            let body = std::str::from_utf8(&reply.msg_body).ok().and_then(|text| MsgBody::parse(text).ok());
            if body.is_none_or(|body| body.len() > admit.max_bytes) {
                return on_failure(admit.block_on_failure, message);
            }
            message.body = reply.msg_body;
        }
        if let Some(data) = reply.cloud_custom_data {
            message.cloud_custom_data = data;
        }
        Ok(Decision::Go(Box::new(message)))
    }
}

fn on_failure(block: bool, message: Message) -> Result<Decision, Refusal> {
    if block {
        return Err(Refusal::new(code::CALLBACK_FAILED, "the app's server did not answer the before-webhook"));
    }
    Ok(Decision::Go(Box::new(message)))
}

fn busy() -> Refusal {
    Refusal::retry(code::BUSY, "too many messages in flight", 500)
}

async fn wait(mut outcome: watch::Receiver<Option<Done>>) -> Done {
    match outcome.wait_for(Option::is_some).await {
        Ok(done) => done.clone().unwrap_or_else(|| Err(busy())),
        // The node is stopping: whether it was sent is not known here, and the retry finds out.
        Err(_) => Err(Refusal::retry(code::BUSY, "the node is stopping", 1000)),
    }
}

/// Hash of what makes two messages of one token different: body and custom data.
#[must_use]
pub fn content_hash(body: &[u8], cloud_custom_data: &str) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(body);
    hash.update(&[0]);
    hash.update(cloud_custom_data.as_bytes());
    hash.finalize()
}

#[cfg(test)]
mod tests;
