//! The owner of one conversation: takes everything that waits, appends it as one batch, acknowledges, publishes, repeats.
//!
//! There is no timer: at low rate a batch is one message and nothing waits; under load batches grow. Nothing slow is
//! awaited but the log itself. Ends when idle (closing the log cleanly), when deposed, or when the node drains.

mod append;
mod revoke;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use linnet_admission::{Flight, Taken, Taker};
use linnet_delivery::{Audience, PublishOptions, Stream};
use linnet_proto::delivery::Record;
use linnet_store::logs::{self, Class, Log, LogHead};
use linnet_types::{Epoch, Seq, UnixMillis, UserId};
use tokio::sync::{mpsc, oneshot};

use crate::effects;
use crate::error::{Error, Result};
use crate::owners::{Opening, Owners};
use crate::state::{Ctx, Shared, Subject};
use crate::stored::{self, Draft, Row};

pub(crate) use append::Given;
pub(crate) use revoke::{Revoke, Revoked};

/// Commands taken from the mailbox at once.
const TAKE: usize = 512;
/// De-duplication window of one-to-one messages, and the most heads read to recover it.
pub(crate) const WINDOW: Duration = Duration::from_secs(120);
const RECOVER: usize = 12_000;
/// While side effects are behind, an idle conversation looks again this often.
const BEHIND: Duration = Duration::from_millis(500);
/// How long a draining node waits for the side effects of a conversation.
const LAST_EFFECTS: Duration = Duration::from_secs(1);

/// What an actor is asked.
pub(crate) enum Command {
    /// Store messages.
    Append(Append),
    /// Publish records that are stored nowhere, in their place between messages.
    Publish(Vec<Record>),
    /// Refuse appends of older owners of the group.
    Fence { group_epoch: Epoch, reply: oneshot::Sender<Result<LogHead>> },
    /// Recall messages.
    Revoke(Revoke),
    /// Nothing: being open is all that is wanted. Receivers are told how far the conversation is.
    Wake,
    /// The conversation belongs to another node: what was taken is finished, and the log closed.
    Yield,
}

/// Messages to store together.
pub(crate) struct Append {
    pub drafts: Vec<Draft>,
    /// 0 for pairs.
    pub group_epoch: Epoch,
    /// How long they are to be kept; in force from the next bucket on.
    pub class: Class,
    /// Monotonic time after which nobody waits for the answer: what is not assigned by then must not be, because the
    /// caller may have decided by then that it never was.
    pub expires: Option<Duration>,
    /// How it is delivered (pairs, one message); `None` when the caller delivers, or nobody is to see it now.
    pub deliver: Option<Deliver>,
    /// Its place in the line of its connection, and that the actor holds it.
    pub flight: Flight,
    pub taken: Option<Taken>,
    pub reply: oneshot::Sender<Result<Vec<Given>>>,
}

impl Append {
    /// Whether `actor` may store it now.
    fn take(&mut self, actor: Taker) -> bool {
        self.taken = self.flight.take(actor);
        self.taken.is_some()
    }

    /// Tells the outcome; what is behind it in its line goes on, or is held up, from now on.
    fn answer(self, outcome: Result<Vec<Given>>) {
        if let Some(taken) = self.taken {
            taken.settled(outcome.as_ref().err().map(Error::refusal).as_ref());
        }
        // A caller that is gone needs no answer.
        drop(self.reply.send(outcome));
    }
}

/// To whom a stored message of a pair goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deliver {
    /// Users; empty = both.
    pub only: Vec<String>,
    /// The connection that has the reply.
    pub except_connection: String,
}

/// Why an actor stopped serving.
enum End {
    Idle,
    Deposed,
    Draining,
    /// Another node is to have it.
    Yielding,
}

struct Actor {
    ctx: Arc<Ctx>,
    shared: Arc<Shared>,
    log: Log,
    stream: Option<Stream>,
    audience: Audience,
    queue: VecDeque<Command>,
    /// Version of the ring when the round began.
    ring: u64,
    /// Told to let go.
    yielding: bool,
    /// This life of the actor, as the lines of connections know it.
    taker: Taker,
}

fn out_of_line() -> Error {
    Error::Busy("a message before this one was not taken".to_owned())
}

/// Runs the actor until it ends by itself.
pub(crate) async fn run(owners: Owners, opening: Opening, shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let _ended = Ended(Arc::clone(&shared));
    let ctx = Arc::clone(owners.ctx());
    let mut actor = match Actor::open(&ctx, &opening, &shared).await {
        Ok(actor) => actor,
        Err(error) => {
            tracing::warn!(conv = opening.id.conv.0, %error, "a conversation could not be opened");
            shared.closed();
            for command in owners.evict(&shared, &mut commands) {
                command.fail(&Error::Busy("the conversation could not be opened".to_owned()));
            }
            return;
        }
    };
    ctx.tasks.spawn("effects", effects::run(Arc::clone(&ctx), Arc::clone(&shared)));
    loop {
        match actor.serve(&mut commands).await {
            // The ring may have come back.
            End::Yielding if !owners.is_to_yield(&shared) => actor.yielding = false,
            End::Yielding => {
                if owners.retire(&shared, &mut commands) {
                    actor.finish_effects().await;
                    actor.close().await;
                    shared.closed();
                    return;
                }
            }
            End::Idle => {
                if owners.retire(&shared, &mut commands) {
                    actor.close().await;
                    shared.closed();
                    return;
                }
            }
            End::Deposed => {
                owners.deposed(shared.id);
                shared.closed();
                let left = owners.evict(&shared, &mut commands);
                actor.queue.into_iter().chain(left).for_each(|command| command.fail(&Error::Moved));
                return;
            }
            End::Draining => {
                for command in owners.evict(&shared, &mut commands) {
                    actor.queue.push_back(command);
                }
                // What was accepted is finished; nothing new comes.
                let _ = actor.work().await;
                actor.finish_effects().await;
                actor.close().await;
                shared.closed();
                return;
            }
        }
    }
}

/// However the actor ends, also by a panic: those who wait for it to open, and its side effects, hear of it.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.closed();
    }
}

impl Command {
    /// Answers without doing it.
    pub(crate) fn fail(self, error: &Error) {
        // A caller that is gone needs no answer.
        match self {
            Self::Append(append) => append.answer(Err(error.clone())),
            Self::Fence { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Revoke(revoke) => drop(revoke.reply.send(Err(error.clone()))),
            Self::Publish(_) | Self::Wake | Self::Yield => {}
        }
    }
}

impl Actor {
    /// Claims the log, recovers what de-duplication needs, and shows it.
    async fn open(ctx: &Arc<Ctx>, opening: &Opening, shared: &Arc<Shared>) -> Result<Self> {
        let Opening { id, subject, class } = opening;
        let ring = ctx.ring();
        let log = ctx.logs.open(logs::Opening { id: *id, class: *class, route: subject.to_string() }).await?;
        ctx.meters.claimed();
        if subject.is_pair() {
            seed(ctx, &log).await?;
        }
        shared.reset_tail(log.last_seq().0);
        shared.set_cursor(log.cursor().0);
        let audience = match subject {
            Subject::Pair(a, b) if a == b => Audience::users([a.clone()]),
            Subject::Pair(a, b) => Audience::users([a.clone(), b.clone()]),
            Subject::Group(_) => Audience::users([]),
        };
        let stream =
            subject.is_pair().then(|| ctx.publisher.open(id.app, id.conv, subject.name(), log.epoch(), log.last_seq()));
        shared.show(log.snapshot(), ctx.clock.mono(), ring);
        Ok(Self {
            ctx: Arc::clone(ctx),
            shared: Arc::clone(shared),
            log,
            stream,
            audience,
            queue: VecDeque::new(),
            ring,
            yielding: false,
            taker: Taker::new(),
        })
    }

    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> End {
        let draining = self.ctx.tasks.draining();
        let mut taken = Vec::new();
        loop {
            let wait = self.rest();
            let idle = tokio::select! {
                biased;
                count = commands.recv_many(&mut taken, TAKE) => {
                    if count == 0 {
                        return End::Draining;
                    }
                    false
                }
                () = draining.cancelled() => return End::Draining,
                () = tokio::time::sleep(wait) => true,
            };
            self.queue.extend(taken.drain(..));
            while !self.queue.is_empty() {
                if self.one_round().await.is_err() {
                    return End::Deposed;
                }
                // Merge what came while the batch was written.
                while self.queue.len() < TAKE
                    && let Ok(command) = commands.try_recv()
                {
                    self.queue.push_back(command);
                }
            }
            if self.yielding {
                return End::Yielding;
            }
            self.log.set_cursor(Seq(self.shared.cursor()));
            if self.log.head_due() && self.save_head().await.is_err() {
                return End::Deposed;
            }
            let effects_done = self.shared.cursor() >= self.log.last_seq().0;
            if idle && wait >= self.idle_after() && effects_done && self.log.head_due_in().is_none() {
                return End::Idle;
            }
        }
    }

    fn idle_after(&self) -> Duration {
        self.ctx.config.idle.0
    }

    /// How long to sleep when nothing waits.
    fn rest(&self) -> Duration {
        let behind = self.shared.cursor() < self.log.last_seq().0 || self.shared.cursor() > self.log.cursor().0;
        let effects = if behind { BEHIND } else { self.idle_after() };
        self.log.head_due_in().map_or(effects, |due| due.min(effects))
    }

    /// Everything in the queue.
    async fn work(&mut self) -> Result<()> {
        while !self.queue.is_empty() {
            self.one_round().await?;
        }
        Ok(())
    }

    /// One batch, or one other command. `Err`: deposed.
    async fn one_round(&mut self) -> Result<()> {
        let Some(command) = self.queue.pop_front() else { return Ok(()) };
        self.ring = self.ctx.ring();
        match command {
            Command::Append(late) if late.expires.is_some_and(|at| self.ctx.clock.mono() >= at) => {
                Command::Append(late).fail(&Error::Busy("it waited too long".to_owned()));
            }
            Command::Append(mut first) => {
                if first.take(self.taker) {
                    self.append_waiting(first).await?;
                } else {
                    first.answer(Err(out_of_line()));
                }
            }
            Command::Publish(records) => self.publish(records),
            Command::Fence { group_epoch, reply } => {
                let done = self.log.fence(group_epoch).await.map_err(Error::from);
                self.show();
                let done = done.map(|()| self.log.snapshot());
                drop(reply.send(done));
            }
            Command::Revoke(revoke) => self.revoke(revoke).await,
            Command::Yield => self.yielding = true,
            Command::Wake => {
                if let Some(stream) = &self.stream {
                    stream.announce(self.log.last_seq(), &self.audience);
                }
            }
        }
        if self.log.is_stale() { Err(Error::Moved) } else { Ok(()) }
    }

    fn show(&self) {
        self.shared.show(self.log.snapshot(), self.ctx.clock.mono(), self.ring);
    }

    fn publish(&self, records: Vec<Record>) {
        if let Some(stream) = &self.stream
            && !records.is_empty()
        {
            stream.publish(records, self.log.last_seq(), &self.audience, PublishOptions::default());
        }
    }

    async fn save_head(&mut self) -> Result<()> {
        match self.log.write_head().await {
            Ok(()) => Ok(()),
            Err(logs::Error::StaleOwner { .. }) => Err(Error::Moved),
            Err(error) => {
                tracing::debug!(conv = self.shared.id.conv.0, %error, "log_head was not written");
                tokio::time::sleep(BEHIND).await;
                Ok(())
            }
        }
    }

    /// On a draining node: gives the side effects of what was stored a moment.
    async fn finish_effects(&mut self) {
        let caught_up = async {
            while self.shared.cursor() < self.log.last_seq().0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // What is not done in time is done by the next owner: the log stays listed as open.
        let _ = tokio::time::timeout(LAST_EFFECTS, caught_up).await;
    }

    async fn close(mut self) {
        self.log.set_cursor(Seq(self.shared.cursor()));
        let conv = self.shared.id.conv.0;
        let whole = self.shared.cursor() >= self.log.last_seq().0;
        let closed = if whole { self.log.close().await } else { self.log.write_head().await };
        if let Err(error) = closed {
            tracing::debug!(conv, %error, "a log was not closed cleanly; it stays listed as open");
        }
    }
}

/// Tells the admission stage what was stored within its window, so that a retry after a take-over is answered, not sent.
async fn seed(ctx: &Ctx, log: &Log) -> Result<()> {
    let now = ctx.clock.now();
    let since = UnixMillis(now.0.saturating_sub(u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX)));
    if log.last_seq().0 == 0 || log.last_time() < since {
        return Ok(());
    }
    for (seq, head) in log.recover(since, RECOVER).await? {
        let left = WINDOW.saturating_sub(Duration::from_millis(now.since(UnixMillis(head.time_ms))));
        ctx.admission.seed(stored::token(log.id().conv, &head), stored::reply_of(seq, &head), left);
    }
    Ok(())
}

/// A user of a record's audience.
pub(crate) fn only(user: &UserId) -> Vec<String> {
    vec![user.as_str().to_owned()]
}

pub(crate) fn shared_rows(rows: Vec<Row>) -> Vec<Arc<Row>> {
    rows.into_iter().map(Arc::new).collect()
}
