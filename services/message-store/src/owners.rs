//! The conversations this node has in memory: one actor each, found or started here.
//!
//! A conversation is in the table from the moment its actor is started until the actor has closed its log; what comes in
//! between waits in the actor's bounded mailbox. A full mailbox answers "busy" before anything is assigned.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linnet_store::logs::{Class, LogHead, LogId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::actor::{self, Command};
use crate::error::{Error, Result};
use crate::state::{Ctx, Shared, Shown, Subject, owned};

const SHARDS: usize = 64;
/// A conversation lost this recently is claimed again only after a pause.
const DEPOSED_FOR: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Conversations let go between two pauses.
const YIELDS: u32 = 20;

/// The table; cheap to clone.
#[derive(Clone)]
pub(crate) struct Owners {
    inner: Arc<Inner>,
}

struct Inner {
    ctx: Arc<Ctx>,
    shards: Vec<Mutex<Shard>>,
    draining: AtomicBool,
}

#[derive(Default)]
struct Shard {
    active: HashMap<LogId, Handle>,
    deposed: HashMap<LogId, Deposed>,
}

struct Deposed {
    at: Duration,
    pause: Duration,
}

/// A way to one actor.
#[derive(Clone)]
pub(crate) struct Handle {
    pub shared: Arc<Shared>,
    mailbox: mpsc::Sender<Command>,
}

/// What a conversation is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub id: LogId,
    pub subject: Subject,
    pub class: Class,
}

impl Owners {
    pub(crate) fn new(ctx: Arc<Ctx>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { inner: Arc::new(Inner { ctx, shards, draining: AtomicBool::new(false) }) }
    }

    pub(crate) fn ctx(&self) -> &Arc<Ctx> {
        &self.inner.ctx
    }

    /// The conversation, if it is in memory.
    pub(crate) fn active(&self, id: LogId) -> Option<Handle> {
        self.shard(id).lock().active.get(&id).cloned()
    }

    /// The conversation, its actor started if need be.
    ///
    /// # Errors
    /// [`Error::Moved`] while the node drains, where its own ring names another node, and for a while after another node
    /// took the conversation: whoever calls asks the owner he knows by then.
    pub(crate) fn open(&self, opening: &Opening) -> Result<Handle> {
        let mut shard = self.shard(opening.id).lock();
        match shard.active.get(&opening.id) {
            Some(handle) if !handle.mailbox.is_closed() => return Ok(handle.clone()),
            // It ended without taking itself off the table: a panic.
            Some(_) => self.inner.ctx.meters.closed(),
            None => {}
        }
        let ctx = &self.inner.ctx;
        if self.is_draining()
            || !owned(&ctx.cluster, opening.id, &opening.subject)
            || shard.is_lost(opening.id, ctx.clock.mono())
        {
            return Err(Error::Moved);
        }
        let (mailbox, commands) = mpsc::channel(ctx.config.mailbox);
        let shared = Arc::new(Shared::new(opening.id, opening.subject.clone(), &ctx.config));
        let handle = Handle { shared: Arc::clone(&shared), mailbox };
        shard.active.insert(opening.id, handle.clone());
        ctx.meters.opened();
        ctx.tasks.spawn("conversation", actor::run(self.clone(), opening.clone(), shared, commands));
        Ok(handle)
    }

    /// Puts a command into the conversation's mailbox without waiting.
    ///
    /// # Errors
    /// [`Error::Busy`] when the mailbox is full, [`Error::Moved`] while the node drains; the command is dropped, and with it
    /// whatever it was to answer.
    pub(crate) fn post(&self, opening: &Opening, mut command: Command) -> Result<()> {
        // An actor that closes takes no more commands; the next attempt starts a new one.
        for _ in 0..3 {
            match self.open(opening)?.mailbox.try_send(command) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.inner.ctx.meters.busy();
                    return Err(Error::Busy("the mailbox is full".to_owned()));
                }
                Err(mpsc::error::TrySendError::Closed(back)) => command = back,
            }
        }
        Err(Error::Moved)
    }

    /// The conversation once its log is claimed and recovered.
    ///
    /// # Errors
    /// Why it could not be.
    pub(crate) async fn ready(&self, opening: &Opening) -> Result<(Handle, Arc<LogHead>)> {
        let handle = self.open(opening)?;
        let mut shown = handle.shared.watch();
        let opened = shown.wait_for(|shown| !matches!(shown, Shown::Opening)).await;
        let head = opened.ok().and_then(|shown| shown.head());
        head.map(|head| (handle, head)).ok_or_else(|| Error::Busy("the conversation could not be opened".to_owned()))
    }

    /// Takes the actor of `shared` off the table when nothing waits for it; its mailbox is closed then.
    pub(crate) fn retire(&self, shared: &Arc<Shared>, commands: &mut mpsc::Receiver<Command>) -> bool {
        let mut shard = self.shard(shared.id).lock();
        if !commands.is_empty() {
            return false;
        }
        self.remove(&mut shard, shared);
        commands.close();
        true
    }

    /// Takes the actor of `shared` off the table; what still waits is given back.
    pub(crate) fn evict(&self, shared: &Arc<Shared>, commands: &mut mpsc::Receiver<Command>) -> Vec<Command> {
        self.remove(&mut self.shard(shared.id).lock(), shared);
        commands.close();
        let mut left = Vec::new();
        while let Ok(command) = commands.try_recv() {
            left.push(command);
        }
        left
    }

    /// Notes that another node took the conversation: it is claimed back only after a growing pause.
    pub(crate) fn deposed(&self, id: LogId) {
        let now = self.inner.ctx.clock.mono();
        let mut shard = self.shard(id).lock();
        shard.deposed.retain(|_, lost| now.saturating_sub(lost.at) < DEPOSED_FOR);
        let pause = shard.deposed.get(&id).map_or(FIRST_PAUSE, |lost| (lost.pause * 2).min(LONGEST_PAUSE));
        shard.deposed.insert(id, Deposed { at: now, pause });
        self.inner.ctx.meters.deposed();
    }

    /// No conversation is opened any more.
    pub(crate) fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Whether this node opens nothing any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire) || self.inner.ctx.tasks.draining().is_cancelled()
    }

    /// Whether a conversation that is open here should go to another node.
    pub(crate) fn is_to_yield(&self, shared: &Shared) -> bool {
        self.is_draining() || !owned(&self.inner.ctx.cluster, shared.id, &shared.subject)
    }

    /// Lets go of the conversations that belong to other nodes, at a bounded rate: each finishes what it has taken and
    /// closes its log, so that the next owner finds it closed. Answers how many there were.
    pub(crate) async fn yield_lost(&self) -> usize {
        let mut lost = Vec::new();
        for shard in &self.inner.shards {
            lost.extend(shard.lock().active.values().filter(|handle| self.is_to_yield(&handle.shared)).cloned());
        }
        let pause = Duration::from_secs(1) * YIELDS / self.inner.ctx.config.takeover_per_s.max(1);
        let count = lost.len();
        for (n, handle) in lost.into_iter().enumerate() {
            // A full mailbox is that of a busy conversation: it is deposed by the next owner.
            let _ = handle.mailbox.try_send(Command::Yield);
            if n % YIELDS as usize == YIELDS as usize - 1 {
                tokio::time::sleep(pause).await;
            }
        }
        count
    }

    /// Conversations in memory.
    pub(crate) fn len(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.lock().active.len()).sum()
    }

    fn remove(&self, shard: &mut Shard, shared: &Arc<Shared>) {
        if shard.active.get(&shared.id).is_some_and(|handle| Arc::ptr_eq(&handle.shared, shared)) {
            shard.active.remove(&shared.id);
            self.inner.ctx.meters.closed();
        }
    }

    fn shard(&self, id: LogId) -> &Mutex<Shard> {
        let at = (id.conv.0 ^ u64::from(id.app.0)) % SHARDS as u64;
        &self.inner.shards[usize::try_from(at).expect("below SHARDS")]
    }
}

impl Shard {
    fn is_lost(&self, id: LogId, now: Duration) -> bool {
        self.deposed.get(&id).is_some_and(|lost| now.saturating_sub(lost.at) < lost.pause)
    }
}
