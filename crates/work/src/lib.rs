//! Works off a stored queue: every key by one task at a time and in its order, keys beside one another, at least once.
//!
//! Hides which partitions of the queue are this node's, how work that others put is noticed, and when what failed is looked
//! at again. Knows nothing of what the work is: a [`Handler`] does it, says what is finished, and when the key is worth
//! looking at again.
//!
//! ```text
//! producer --enqueue--> Queues (durable) --wake--> owner of the partition     wake-ups are repeated; the sweep, every 30 s
//!                                                    |  one task a key: read, Handler::work, ack, again
//!                                                    +-- Next::At -> later     Next::Park -> the app later
//! ```
//!
//! Two nodes may for a while both believe they own a partition: work is then done twice, as it is after a kill.
#![warn(missing_docs)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linnet_bus::{Bus, Event, subject};
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_runtime::{Clock, Tasks};
use linnet_store::Store;
use linnet_store::queues::{self, Item, PARTITIONS, Queues, WorkId};
use linnet_types::{SdkAppId, UnixMillis};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The whole queue is looked through this often, should a wake-up have been lost.
const SWEEP: Duration = Duration::from_secs(30);
/// The bus may lose a wake-up: it is repeated after these pauses; at 10 % loss one in 10,000 waits for the sweep.
const WAKES: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(750), Duration::from_secs(1)];
/// Keys of a partition looked at in one read.
const KEYS: usize = 100;
/// What could not be read or marked is tried again after this long.
const AGAIN_MS: u64 = 1_000;
/// A key for which there is no room is looked at again after this long.
const FULL_MS: u64 = 50;

/// Does the work of a queue.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Works on the oldest work of one key, in order; `queue` is whose work it is, for work that follows from it.
    async fn work(&self, queue: &Worker, app: SdkAppId, key: &str, items: &[Item]) -> Worked;

    /// When a key whose oldest work is `head` is worth a task; asked often, so from memory.
    fn due(&self, head: &Item) -> UnixMillis {
        head.next
    }
}

/// How far the work of a key went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worked {
    /// What is finished and may be forgotten. Work that was buried is finished already and need not be here.
    pub done: Vec<WorkId>,
    /// How it goes on.
    pub next: Next,
}

/// How the work of a key goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once, with whatever there is.
    More,
    /// Not before this time.
    At(UnixMillis),
    /// Nothing of the app for this long.
    Park(Duration),
}

/// What a worker runs on.
#[derive(Clone)]
pub struct Deps {
    /// The queue.
    pub store: Store,
    /// Which partitions are ours.
    pub cluster: Cluster,
    /// Wakes workers of other nodes.
    pub bus: Bus,
    /// Time.
    pub clock: Clock,
    /// Owner of the worker's tasks.
    pub tasks: Tasks,
}

/// How a queue is worked off.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Name of the stored queue.
    pub queue: &'static str,
    /// Whose ring says which partitions are ours.
    pub service: Service,
    /// Work of one key read, and acknowledged, at once.
    pub batch: usize,
    /// Keys worked on at once.
    pub at_once: usize,
    /// Of these, of one app.
    pub per_app: usize,
}

/// The worker of this node's partitions of one queue; clones share it.
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

type KeyName = (SdkAppId, String);

struct Inner {
    handler: Arc<dyn Handler>,
    options: Options,
    queues: Queues,
    cluster: Cluster,
    bus: Bus,
    clock: Clock,
    tasks: Tasks,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Partitions to look through.
    dirty: BTreeSet<u16>,
    /// Keys with a task, and whether more came meanwhile.
    busy: HashMap<KeyName, bool>,
    /// Tasks by app.
    tasks: HashMap<SdkAppId, usize>,
    /// Apps not to look at before this time.
    parked: HashMap<SdkAppId, Duration>,
    /// Partitions to look through later.
    later: BTreeSet<(UnixMillis, u16)>,
    /// Partitions of others that are being told of.
    waking: BTreeSet<u16>,
}

impl Worker {
    /// Begins with whatever the queue holds.
    #[must_use]
    pub fn start(options: Options, deps: Deps, handler: Arc<dyn Handler>) -> Self {
        let inner = Inner {
            handler,
            queues: Queues::new(deps.store, options.queue),
            cluster: deps.cluster,
            bus: deps.bus,
            clock: deps.clock,
            tasks: deps.tasks.child(options.queue),
            state: Mutex::new(State { dirty: (0..PARTITIONS).collect(), ..State::default() }),
            wake: Notify::new(),
            options,
        };
        let worker = Self { inner: Arc::new(inner) };
        worker.inner.tasks.spawn("work.look", worker.clone().look());
        worker.inner.tasks.spawn("work.wake", worker.clone().listen());
        worker
    }

    /// The stored queue, for counting, listing and replaying.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.inner.queues
    }

    /// Stores work and wakes its workers; durable when it returns.
    ///
    /// # Errors
    /// [`linnet_store::Error`]: repeat.
    pub async fn enqueue(&self, items: &[Item]) -> linnet_store::Result<()> {
        self.inner.queues.enqueue(items).await?;
        let keys: BTreeSet<(SdkAppId, &str)> = items.iter().map(|item| (item.id.app, item.id.key.as_str())).collect();
        for (app, key) in keys {
            self.wake(app, key).await;
        }
        Ok(())
    }

    /// There is work of this key.
    pub async fn wake(&self, app: SdkAppId, key: &str) {
        let partition = queues::partition_of(app, key);
        if self.owns(partition) {
            self.begin(app, key);
            return;
        }
        let payload = bytes::Bytes::copy_from_slice(&partition.to_be_bytes());
        let (bus, queue) = (self.inner.bus.clone(), self.inner.options.queue);
        let _ = bus.publish(subject::work(queue), payload.clone()).await;
        if !self.inner.state.lock().waking.insert(partition) {
            return;
        }
        let worker = self.clone();
        self.inner.tasks.spawn("work.wakes", async move {
            for pause in WAKES {
                tokio::time::sleep(pause).await;
                let _ = bus.publish(subject::work(queue), payload.clone()).await;
            }
            worker.inner.state.lock().waking.remove(&partition);
        });
    }

    /// Ends the parking of an app.
    pub fn unpark(&self, app: SdkAppId) {
        let mut state = self.inner.state.lock();
        if state.parked.remove(&app).is_some() {
            state.dirty.extend(0..PARTITIONS);
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    fn owns(&self, partition: u16) -> bool {
        self.inner.cluster.owns(self.inner.options.service, RouteKey::slot(partition.into()))
    }

    async fn listen(self) {
        let Ok(mut wakes) = self.inner.bus.subscribe(subject::work(self.inner.options.queue)).await else { return };
        let ending = self.inner.tasks.draining();
        let mut ring = self.inner.cluster.changes();
        loop {
            let event = tokio::select! {
                event = wakes.recv() => event,
                // What was another node's may be ours now.
                Ok(()) = ring.changed() => {
                    self.all_dirty();
                    continue;
                }
                () = ending.cancelled() => return,
            };
            match event {
                Some(Event::Message { payload, .. }) => {
                    if let Ok(partition) = payload.as_ref().try_into().map(u16::from_be_bytes) {
                        self.inner.state.lock().dirty.insert(partition);
                        self.inner.wake.notify_one();
                    }
                }
                Some(Event::Lagged { .. }) => self.all_dirty(),
                None => return,
            }
        }
    }

    fn all_dirty(&self) {
        self.inner.state.lock().dirty.extend(0..PARTITIONS);
        self.inner.wake.notify_one();
    }

    /// Looks through partitions that may have work nobody is doing.
    async fn look(self) {
        let ending = self.inner.tasks.draining();
        let mut swept = self.inner.clock.mono();
        loop {
            let now = self.inner.clock.mono();
            if now.saturating_sub(swept) >= SWEEP {
                swept = now;
                self.inner.state.lock().dirty.extend(0..PARTITIONS);
            }
            if let Some(partition) = self.next_partition() {
                if self.owns(partition)
                    && let Err(error) = self.look_through(partition).await
                {
                    let queue = self.inner.options.queue;
                    tracing::warn!(queue, partition, %error, "a partition of a queue could not be read; again soon");
                    self.partition_later(partition, AGAIN_MS);
                }
                if ending.is_cancelled() {
                    return;
                }
                continue;
            }
            let wait = self.until_next();
            tokio::select! {
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
                () = ending.cancelled() => return,
            }
        }
    }

    fn next_partition(&self) -> Option<u16> {
        let (now, mono) = (self.inner.clock.now(), self.inner.clock.mono());
        let mut state = self.inner.state.lock();
        while let Some((at, partition)) = state.later.first().copied()
            && at <= now
        {
            state.later.pop_first();
            state.dirty.insert(partition);
        }
        let parked = state.parked.len();
        state.parked.retain(|_, until| *until > mono);
        if state.parked.len() < parked {
            state.dirty.extend(0..PARTITIONS);
        }
        state.dirty.pop_first()
    }

    fn until_next(&self) -> Duration {
        let (now, mono) = (self.inner.clock.now(), self.inner.clock.mono());
        let state = self.inner.state.lock();
        let later = state.later.first().map(|(at, _)| Duration::from_millis(at.since(now)));
        let parked = state.parked.values().min().map(|until| until.saturating_sub(mono));
        [later, parked, Some(SWEEP)].into_iter().flatten().min().unwrap_or(SWEEP).max(Duration::from_millis(5))
    }

    async fn look_through(&self, partition: u16) -> linnet_store::Result<()> {
        let mut cursor = None;
        loop {
            let Some(skip) = self.skipped(partition) else { return Ok(()) };
            let (heads, next) = self.inner.queues.heads(partition, cursor.as_ref(), KEYS, &skip).await?;
            let now = self.inner.clock.now();
            for head in heads {
                let due = self.inner.handler.due(&head);
                if due > now {
                    self.inner.state.lock().later.insert((due, partition));
                } else {
                    self.begin(head.id.app, &head.id.key);
                }
            }
            let Some(next) = next else { return Ok(()) };
            cursor = Some(next);
        }
    }

    /// Apps not to look at now: parked ones, and those with as many tasks as they may have. `None`: there is no room at all.
    /// Where that is so, the partition is looked through again soon.
    fn skipped(&self, partition: u16) -> Option<Vec<SdkAppId>> {
        let Options { at_once, per_app, .. } = self.inner.options;
        let state = self.inner.state.lock();
        let full: Vec<SdkAppId> =
            state.tasks.iter().filter(|(_, tasks)| **tasks >= per_app).map(|(app, _)| *app).collect();
        let no_room = state.busy.len() >= at_once;
        let skipped = state.parked.keys().copied().chain(full.iter().copied()).collect();
        drop(state);
        if no_room || !full.is_empty() {
            self.partition_later(partition, FULL_MS);
        }
        (!no_room).then_some(skipped)
    }

    /// Starts the task of a key, or tells the one there is that more came; later when there is no room.
    fn begin(&self, app: SdkAppId, key: &str) {
        let name = (app, key.to_owned());
        let Options { at_once, per_app, .. } = self.inner.options;
        {
            let mut state = self.inner.state.lock();
            if let Some(more) = state.busy.get_mut(&name) {
                *more = true;
                return;
            }
            if state.parked.contains_key(&app) {
                return;
            }
            let full = state.busy.len() >= at_once || state.tasks.get(&app).is_some_and(|tasks| *tasks >= per_app);
            if full {
                drop(state);
                return self.partition_later(queues::partition_of(app, key), FULL_MS);
            }
            state.busy.insert(name.clone(), false);
            *state.tasks.entry(app).or_default() += 1;
        }
        let worker = self.clone();
        self.inner.tasks.spawn("work.key", async move {
            worker.work(&name).await;
            worker.end(&name);
        });
    }

    /// Works a key off until it is empty or must wait.
    async fn work(&self, name: &KeyName) {
        let (app, key) = name;
        let ending = self.inner.tasks.draining();
        let partition = queues::partition_of(*app, key);
        // When the ring gives the partition to another node, that one goes on with what is not marked as done.
        while !ending.is_cancelled() && self.owns(partition) {
            let items = match self.inner.queues.of_key(*app, key, self.inner.options.batch).await {
                Ok(items) => items,
                Err(error) => {
                    tracing::warn!(app = app.0, queue = self.inner.options.queue, %error, "a queue could not be read");
                    return self.later(*app, key, self.inner.clock.now().plus_ms(AGAIN_MS));
                }
            };
            if items.is_empty() {
                let mut state = self.inner.state.lock();
                match state.busy.get_mut(name) {
                    Some(more) if *more => *more = false,
                    _ => return,
                }
                continue;
            }
            let worked = self.inner.handler.work(self, *app, key, &items).await;
            if !worked.done.is_empty()
                && let Err(error) = self.inner.queues.ack(&worked.done).await
            {
                let queue = self.inner.options.queue;
                tracing::warn!(app = app.0, queue, %error, "finished work could not be marked; it will be done again");
                return self.later(*app, key, self.inner.clock.now().plus_ms(AGAIN_MS));
            }
            match worked.next {
                Next::More => {}
                Next::At(at) => return self.later(*app, key, at),
                Next::Park(span) => {
                    let until = self.inner.clock.mono() + span;
                    self.inner.state.lock().parked.insert(*app, until);
                    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                    return self.later(*app, key, self.inner.clock.now().plus_ms(ms));
                }
            }
        }
    }

    fn end(&self, name: &KeyName) {
        let mut state = self.inner.state.lock();
        if let Some(tasks) = state.tasks.get_mut(&name.0) {
            *tasks -= 1;
            if *tasks == 0 {
                state.tasks.remove(&name.0);
            }
        }
        // What came while the key had to wait is found when it is looked at again.
        if state.busy.remove(name).unwrap_or(false) {
            state.dirty.insert(queues::partition_of(name.0, &name.1));
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    fn later(&self, app: SdkAppId, key: &str, at: UnixMillis) {
        self.inner.state.lock().later.insert((at, queues::partition_of(app, key)));
        self.inner.wake.notify_one();
    }

    fn partition_later(&self, partition: u16, ms: u64) {
        self.inner.state.lock().later.insert((self.inner.clock.now().plus_ms(ms), partition));
        self.inner.wake.notify_one();
    }
}
