//! The gateway's side.

mod conversation;
mod line;
mod link;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use linnet_bus::{Bus, subject};
use linnet_cluster::Cluster;
use linnet_proto::delivery::{Batch, Kick, LiveMember, RegisterReply};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{ConvId, GroupId, NodeId, Refusal, SdkAppId, Seq, code};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::metrics::GatewayMetrics;
use crate::remote::Owners;
use conversation::{Conversation, Mail};

/// What waits for the gateway; when it is full, reading stops, and the bus's queues fill, lose, and say so.
const DELIVERED: usize = 4096;
/// What waits for one conversation.
const MAILBOX: usize = 1024;
/// Conversations whose epoch is remembered.
const EPOCHS_MAX: usize = 200_000;

/// What a receiver needs.
pub struct ReceiverDeps {
    /// This gateway.
    pub gateway: NodeId,
    /// Start of this process.
    pub incarnation: u64,
    /// This gateway's site.
    pub site: String,
    /// Where batches come from.
    pub bus: Bus,
    /// Where owners are asked.
    pub cluster: Cluster,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
    /// Owner of the receiver's tasks.
    pub tasks: Tasks,
    /// Where it counts.
    pub metrics: Metrics,
    /// What the gateway knows of its local members.
    pub locals: Arc<dyn Locals>,
}

/// The gateway's local members, read whenever a conversation is registered or checked.
///
/// A gateway keeps two sets for each registered conversation: *members*, who receive, and *new* ones, who are said to be
/// members by something outside the numbered stream (a sign-in, a join's reply, a notice) and receive nothing yet. It calls
/// [`Receiver::register`] for new ones, and takes those of [`Delivered::Registered::checked`] that are not in `not_members`
/// over when it comes to that delivery: so no late word about a join can undo a kick.
pub trait Locals: Send + Sync + 'static {
    /// Those of `conv` at this moment; called from several tasks.
    fn local(&self, app: SdkAppId, conv: ConvId, which: Which) -> Local;

    /// Whether the user has a connection here. The owner of a frame for one who has not is told that he moved.
    fn is_here(&self, _app: SdkAppId, _user: &str) -> bool {
        true
    }
}

/// Which local members to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Members and new ones.
    All,
    /// New ones only.
    New,
}

/// Local members of one conversation.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// Stored groups: the owner says which of them are no members.
    pub members: Vec<String>,
    /// Live rooms: viewers, newest first, at most 1,000.
    pub live_members: Vec<LiveMember>,
    /// Live rooms: how many viewers there are.
    pub live_count: u32,
}

/// A conversation that a gateway has members of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interest {
    /// Tenant.
    pub app: SdkAppId,
    /// The conversation.
    pub conv: ConvId,
    /// Its public id, by which the owner is found.
    pub group_id: GroupId,
}

/// What a gateway acts on, in order per conversation.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "batches are shared; the large one is rare and not worth a box for all")]
pub enum Delivered {
    /// A batch. With `users`: for these users of this gateway; without: for all local members of its conversation. With
    /// users and no records it says how far the conversation is (`head_seq`, 0 = nothing): users who are behind read the
    /// log. With `register`, users it names are new members of the conversation ([`Locals`]) unless they are present.
    Batch(Arc<Batch>),
    /// The conversation is registered or was checked, as of this place in its stream: stored positions up to
    /// `reply.head_seq` are in the log, and of `checked`, those in `reply.not_members` are no members.
    Registered {
        /// Which.
        interest: Interest,
        /// The owner's answer; its state of a live room replaces what the gateway has.
        reply: RegisterReply,
        /// The users whose membership was asked.
        checked: Vec<String>,
        /// It was registered before.
        again: bool,
    },
    /// Records up to `head_seq` were lost on the way: members read them from the log.
    Advanced {
        /// Which.
        interest: Interest,
        /// Last stored position.
        head_seq: Seq,
    },
    /// The owner will hear no more of this registration (the group is gone): the interest has ended.
    Closed {
        /// Which.
        interest: Interest,
        /// Why.
        refusal: Refusal,
    },
    /// Frames of this owner were lost for good, and with them the knowledge whom they were for: every local user syncs.
    Resync {
        /// Whose.
        owner: NodeId,
    },
    /// Close connections of a user.
    Kick(Kick),
}

/// One end of the link law, from an owner to a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCount {
    /// The gateway.
    pub peer: NodeId,
    /// Batches sent to it as a registered gateway, or received by it.
    pub batches: u64,
    /// Frames sent or received.
    pub frames: u64,
    /// Batches reported missing; 0 at an owner.
    pub missing_batches: u64,
    /// Frames reported missing; 0 at an owner.
    pub missing_frames: u64,
}

impl LinkCount {
    pub(crate) fn new(peer: NodeId) -> Self {
        Self { peer, batches: 0, frames: 0, missing_batches: 0, missing_frames: 0 }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.frames += other.frames;
        self.missing_batches += other.missing_batches;
        self.missing_frames += other.missing_frames;
    }
}

/// Turns what comes over the bus into ordered deliveries. Cheap to clone.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    gateway: NodeId,
    incarnation: u64,
    site: String,
    bus: Bus,
    owners: Owners,
    clock: Clock,
    rng: Rng,
    tasks: Tasks,
    metrics: GatewayMetrics,
    locals: Arc<dyn Locals>,
    conversations: Mutex<HashMap<(SdkAppId, ConvId), Handle>>,
    out: mpsc::Sender<Delivered>,
    count: Mutex<LinkCount>,
    /// Highest epoch seen by app and conversation: what a deposed owner still says is dropped.
    epochs: Mutex<HashMap<(u32, u64), u64>>,
}

struct Handle {
    mail: mpsc::Sender<Mail>,
    /// Since when no local member is left.
    released: Option<Instant>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("gateway", &self.inner.gateway).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Starts receiving; the gateway is subscribed to its frames when this returns, so users may sign in. The deliveries
    /// must be drained by a loop that awaits none of this type's calls: they may wait for that loop.
    ///
    /// # Errors
    /// [`Error::Bus`] when the bus takes no subscription.
    pub async fn new(deps: ReceiverDeps) -> Result<(Self, mpsc::Receiver<Delivered>)> {
        let (out, delivered) = mpsc::channel(DELIVERED);
        let inner = Arc::new(Inner {
            count: Mutex::new(LinkCount::new(deps.gateway.clone())),
            gateway: deps.gateway,
            incarnation: deps.incarnation,
            site: deps.site,
            bus: deps.bus,
            owners: Owners::new(deps.cluster),
            clock: deps.clock,
            rng: deps.rng,
            tasks: deps.tasks.child("delivery"),
            metrics: GatewayMetrics::new(&deps.metrics),
            locals: deps.locals,
            conversations: Mutex::default(),
            epochs: Mutex::default(),
            out,
        });
        let frames = inner.bus.subscribe(subject::gw(&inner.gateway)).await?;
        inner.bus.flush().await?;
        inner.tasks.spawn("delivery.links", link::run(Arc::clone(&inner), frames));
        Ok((Self { inner }, delivered))
    }

    /// There are new local members ([`Locals`]) of a conversation. Subscribes and registers with the owner, for as long as
    /// it takes; when it is registered, only asks the owner about the new ones (calls within 100 ms share one question). The
    /// answer also comes as [`Delivered::Registered`] in its place in the stream, which is what to act on. Live rooms, whose
    /// joins are local, need this for the first viewer only.
    ///
    /// # Errors
    /// [`Error::Refused`]: the owner's refusal, or `BUSY` while the receiver stops.
    pub async fn register(&self, interest: Interest) -> Result<RegisterReply> {
        let (reply, answer) = oneshot::channel();
        self.inner.want(interest, reply)?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// The last local member is gone. The registration is kept 30 s for those who come back.
    pub fn release(&self, app: SdkAppId, conv: ConvId) {
        if let Some(handle) = self.inner.conversations.lock().get_mut(&(app, conv))
            && handle.released.is_none()
        {
            handle.released = Some(Instant::now());
            // A full mailbox is read soon, and looks at `released` then.
            let _ = handle.mail.try_send(Mail::Released);
        }
    }

    /// Whether the conversation is registered or being registered.
    #[must_use]
    pub fn has(&self, app: SdkAppId, conv: ConvId) -> bool {
        self.inner.conversations.lock().contains_key(&(app, conv))
    }

    /// The highest epoch of an owner of this conversation that was heard of here; 0 = none. An answer of a lower one is from
    /// an owner that was replaced and does not know it.
    #[must_use]
    pub fn epoch(&self, app: SdkAppId, conv: ConvId) -> u64 {
        self.inner.epochs.lock().get(&(app.0, conv.0)).copied().unwrap_or(0)
    }

    /// What this gateway received and reported missing: its side of the link law.
    #[must_use]
    pub fn count(&self) -> LinkCount {
        self.inner.count.lock().clone()
    }
}

impl Inner {
    fn want(self: &Arc<Self>, interest: Interest, reply: oneshot::Sender<Result<RegisterReply>>) -> Result<()> {
        let key = (interest.app, interest.conv);
        let mut conversations = self.conversations.lock();
        if let Some(handle) = conversations.get_mut(&key) {
            match handle.mail.try_send(Mail::Check(reply)) {
                Ok(()) => handle.released = None,
                Err(_) => return Err(stopping()),
            }
            return Ok(());
        }
        let (mail, mailbox) = mpsc::channel(MAILBOX);
        conversations.insert(key, Handle { mail, released: None });
        drop(conversations);
        let conversation = Conversation::new(Arc::clone(self), interest, mailbox, reply);
        self.tasks.spawn("delivery.conversation", conversation.run());
        Ok(())
    }

    fn mail(&self, app: u32, conv: u64) -> Option<mpsc::Sender<Mail>> {
        self.conversations.lock().get(&(SdkAppId(app), ConvId(conv))).map(|handle| handle.mail.clone())
    }

    /// Notes the epoch of an owner; false when a higher one is known.
    fn is_current(&self, app: u32, conv: u64, epoch: u64) -> bool {
        let mut epochs = self.epochs.lock();
        if epochs.len() >= EPOCHS_MAX {
            epochs.clear();
        }
        let seen = epochs.entry((app, conv)).or_insert(epoch);
        *seen = (*seen).max(epoch);
        *seen == epoch
    }

    /// Hands on; false when nobody listens any more.
    async fn deliver(&self, delivered: Delivered) -> bool {
        self.out.send(delivered).await.is_ok()
    }

    fn received(&self, add: impl FnOnce(&mut LinkCount)) {
        self.metrics.received.inc();
        add(&mut self.count.lock());
    }

    fn lost_batches(&self, lost: u64) {
        self.metrics.missing.inc_by(lost);
        self.count.lock().missing_batches += lost;
    }

    fn lost_frames(&self, lost: u64) {
        self.metrics.missing.inc_by(lost);
        self.count.lock().missing_frames += lost;
    }
}

fn stopping() -> Error {
    Error::Refused(Refusal::retry(code::BUSY, "this gateway cannot register the conversation now", 200))
}
