//! The groups in memory: finding, activating and forgetting their actors.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use linnet_admission::{Flight, Taken};
use linnet_cluster::{RouteKey, Service};
use linnet_proto::msg::{Message, SendReply};
use linnet_store::groups::GroupGuard;
use linnet_types::{ConvId, GroupId, GroupType, SdkAppId};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::error::{Result, busy, from_store, unknown};
use crate::group::{self, Group};
use crate::shared::Shared;

/// Answer of work done in an actor.
pub(crate) type Call<'a, T> = BoxFuture<'a, Result<T>>;
/// Work done in an actor.
pub(crate) type Job = Box<dyn for<'a> FnOnce(&'a mut Group) -> BoxFuture<'a, ()> + Send>;
type Key = (SdkAppId, GroupId);

/// Longest pause before a group that was taken from us is claimed again.
const PAUSE_MAX_MS: u64 = 5_000;

/// A message on its way through the loop.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) message: Message,
    /// The sender's connection: it has the reply.
    pub(crate) connection: String,
    /// Asked by an administrator of the app.
    pub(crate) admin: bool,
    /// Live rooms: messages its gateway had for each it forwarded.
    pub(crate) stands_for: u32,
    /// Its place in the line of its connection, and that the actor holds it.
    pub(crate) flight: Flight,
    pub(crate) taken: Option<Taken>,
    pub(crate) reply: oneshot::Sender<Sent>,
}

impl Sending {
    /// Tells the outcome; what is behind it in its line goes on, or is held up, from now on.
    pub(crate) fn answer(self, sent: Sent) {
        if let Some(taken) = self.taken {
            taken.settled(sent.0.as_ref().err());
        }
        // The caller may be gone.
        let _ = self.reply.send(sent);
    }
}

/// What became of it: the answer, and whether it may be stored all the same.
pub(crate) type Sent = (Result<SendReply>, bool);

/// What an actor is asked.
pub(crate) enum Command {
    Send(Box<Sending>),
    Job(Job),
    /// The group belongs to another node: what was taken is finished, and the group let go.
    Yield,
}

/// An actor's address.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) conv: ConvId,
    pub(crate) kind: GroupType,
    pub(crate) mailbox: mpsc::Sender<Command>,
}

impl Handle {
    /// Runs `work` in its turn.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Group) -> Call<'a, T> + Send + 'static,
    {
        let (tell, answer) = oneshot::channel();
        let job: Job = Box::new(move |group| {
            Box::pin(async move {
                // The caller may be gone; the work is done all the same.
                let _ = tell.send(work(group).await);
            })
        });
        match self.mailbox.try_send(Command::Job(job)) {
            Ok(()) => answer.await.map_err(|_| busy("the group is moving"))?,
            Err(mpsc::error::TrySendError::Full(_)) => Err(busy("the group is busy")),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(busy("the group is moving")),
        }
    }
}

#[derive(Default)]
struct Slot {
    handle: OnceCell<Handle>,
}

/// Every group of this node that is in memory.
#[derive(Default)]
pub(crate) struct Hub {
    groups: Mutex<HashMap<Key, Arc<Slot>>>,
    /// Groups others took from us: how often, and until when we leave them alone (ms).
    lost: Mutex<HashMap<Key, (u32, u64)>>,
    /// No group is activated any more.
    draining: AtomicBool,
}

impl Hub {
    /// The actor of a group; concurrent first calls activate it once.
    pub(crate) async fn get(&self, shared: &Shared, app: SdkAppId, group: &GroupId) -> Result<Handle> {
        let key = (app, group.clone());
        for _ in 0..3 {
            let slot = Arc::clone(self.groups.lock().entry(key.clone()).or_default());
            match slot.handle.get_or_try_init(|| activate(shared, app, group)).await {
                Ok(handle) if !handle.mailbox.is_closed() => return Ok(handle.clone()),
                Ok(_) => self.remove(&key, &slot),
                Err(refusal) => {
                    self.remove(&key, &slot);
                    return Err(refusal);
                }
            }
        }
        Err(busy("the group is moving"))
    }

    /// Takes over a group that was just created, already claimed.
    pub(crate) async fn adopt(&self, shared: &Shared, held: GroupGuard) -> Result<Handle> {
        let key = (held.app(), held.record().group.clone());
        let slot = Arc::new(Slot::default());
        let old = self.groups.lock().insert(key.clone(), Arc::clone(&slot));
        drop(old);
        let handle = slot.handle.get_or_try_init(|| group::start(shared, held)).await.cloned();
        if handle.is_err() {
            self.remove(&key, &slot);
        }
        handle
    }

    /// Forgets an actor that ends; a newer one of the same id stays.
    pub(crate) fn forget(&self, app: SdkAppId, group: &GroupId, conv: ConvId) {
        let mut groups = self.groups.lock();
        let key = (app, group.clone());
        if groups.get(&key).and_then(|slot| slot.handle.get()).is_some_and(|handle| handle.conv == conv) {
            groups.remove(&key);
        }
    }

    /// Notes that another node took a group: it is not claimed back at once.
    pub(crate) fn deposed(&self, app: SdkAppId, group: &GroupId, now_ms: u64) {
        let mut lost = self.lost.lock();
        lost.retain(|_, (_, until)| until.saturating_add(60_000) > now_ms);
        let (times, until) = lost.entry((app, group.clone())).or_default();
        *times += 1;
        *until = now_ms + (100 << (*times).min(6)).min(PAUSE_MAX_MS);
    }

    /// No group is activated any more.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether a group that is in memory should go to another node.
    pub(crate) fn is_to_yield(&self, shared: &Shared, app: SdkAppId, group: &GroupId) -> bool {
        self.draining.load(Ordering::Acquire) || !shared.cluster.owns(Service::Group, RouteKey::group(app, group))
    }

    /// Lets go of the groups that belong to other nodes, at a bounded rate. Answers how many there were.
    pub(crate) async fn yield_lost(&self, shared: &Shared) -> usize {
        let lost: Vec<Handle> = {
            let groups = self.groups.lock();
            let lost = groups.iter().filter(|((app, group), _)| self.is_to_yield(shared, *app, group));
            lost.filter_map(|(_, slot)| slot.handle.get().cloned()).collect()
        };
        let pause = Duration::from_secs(1) / shared.config.takeover_per_s.max(1);
        for handle in &lost {
            // A full mailbox is that of a busy group: it is deposed by the next owner.
            let _ = handle.mailbox.try_send(Command::Yield);
            tokio::time::sleep(pause).await;
        }
        lost.len()
    }

    fn paused(&self, key: &Key, now_ms: u64) -> bool {
        self.lost.lock().get(key).is_some_and(|(_, until)| *until > now_ms)
    }

    fn remove(&self, key: &Key, slot: &Arc<Slot>) {
        let mut groups = self.groups.lock();
        if groups.get(key).is_some_and(|now| Arc::ptr_eq(now, slot)) {
            groups.remove(key);
        }
    }
}

/// Finds and claims a group, and starts its actor once its log is fenced.
async fn activate(shared: &Shared, app: SdkAppId, id: &GroupId) -> Result<Handle> {
    if !shared.cluster.owns(Service::Group, RouteKey::group(app, id)) {
        return Err(busy("another node owns the group"));
    }
    if shared.hub.paused(&(app, id.clone()), shared.clock.now().0) {
        return Err(busy("another node took the group a moment ago"));
    }
    if shared.hub.draining.load(Ordering::Acquire) || shared.tasks.draining().is_cancelled() {
        return Err(busy("the node is stopping"));
    }
    let store = |error| from_store(&error).0;
    let name = shared.groups.find(app, id).await.map_err(store)?.ok_or_else(unknown)?;
    let mut held = shared.groups.claim(app, name.conv).await.map_err(store)?.ok_or_else(unknown)?;
    shared.groups.resume(&mut held).await.map_err(store)?;
    if held.record().destroyed.is_some() {
        return Err(unknown());
    }
    group::start(shared, held).await
}
