//! Messages of one connection on their way to their owners.
//!
//! Each conversation has a line of its own. In it, messages are handed over in the order the client sent them and answered
//! as they come back: the call of an earlier message has begun before that of a later one, and the owner keeps one sender's
//! messages in the order they arrived. So a slow webhook of the app delays a sender's answers, not his pace.
//!
//! All calls of a line go to one node. When that node does not take a message, or the ring names another, every message of
//! the line that is not answered is sent again, in order and with the same token, until its time is over: nothing
//! overtakes, and what had been stored is answered as a duplicate. Each names the one before it that has no answer, so that
//! an owner that did not take that one does not take this one either (`linnet_admission::Flight`). Messages of live rooms
//! are in no line: the room's shaping decides who goes first.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use linnet_proto::{client, msg};
use linnet_types::{NodeId, Refusal, code};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::hub::Hub;
use crate::send::{self, Held, Prepared};
use crate::session::{ConnRef, Session};
use crate::wire::Wire;

/// First and longest pause before the messages of a line are sent again.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Messages of this gateway that wait to be sent again; above it "busy" is answered.
const HELD_MAX: u64 = 64 * 1024;

/// One message and where its reply goes.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) at: ConnRef,
    pub(crate) wire: Wire,
    pub(crate) id: u64,
    pub(crate) send: client::Send,
}

/// The queue of one connection; its length is bounded by the shard, which stops reading.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    running: bool,
}

impl Lane {
    /// Adds a message; true when the caller must start [`run`].
    fn push(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        state.waiting.push_back(job);
        self.news.notify_one();
        !std::mem::replace(&mut state.running, true)
    }

    fn pop(&self) -> Option<Job> {
        self.state.lock().waiting.pop_front()
    }

    /// Ends the lane's task if nothing came meanwhile.
    fn rest(&self) -> bool {
        let mut state = self.state.lock();
        state.running = !state.waiting.is_empty();
        !state.running
    }
}

impl Hub {
    /// Hands a message to its owner, after those the connection sent before.
    pub(crate) fn send(self: &Arc<Self>, at: ConnRef, wire: Wire, session: Arc<Session>, id: u64, send: client::Send) {
        if session.lane.push(Job { at, wire, id, send }) {
            self.tasks.spawn("gateway.lane", run(Arc::clone(self), session));
        }
    }
}

async fn run(hub: Arc<Hub>, session: Arc<Session>) {
    let (mut changes, mut ring_changes) = (hub.calls.changes(), true);
    changes.mark_unchanged();
    let mut lines =
        Lines { hub, session: Arc::clone(&session), lines: HashMap::new(), flying: FuturesUnordered::new(), last: 0 };
    loop {
        while let Some(job) = session.lane.pop() {
            lines.take(job).await;
        }
        lines.go();
        if lines.flying.is_empty() && lines.lines.is_empty() {
            if session.lane.rest() {
                return;
            }
            continue;
        }
        let wake = lines.next();
        // New calls are polled first in the order they were pushed.
        tokio::select! {
            Some(landed) = lines.flying.next() => lines.land(landed),
            () = session.lane.news.notified() => {}
            changed = changes.changed(), if ring_changes => {
                ring_changes = changed.is_ok();
                lines.look_at_owners();
            }
            () = until(wake) => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

/// What a future of the lane ended with.
enum Landed {
    Tried { conv: String, no: u64, round: u32, outcome: Result<client::Sent, Refusal> },
    Given,
}

/// One message that is not answered.
struct Flight {
    no: u64,
    held: Arc<Held>,
    deadline: Instant,
    /// Its call, while there is one.
    call: Option<AbortHandle>,
    /// It waits to be sent again, and counts as such.
    waits: Option<Waits>,
    /// A try before this one may have been stored.
    uncertain: bool,
}

/// The messages of one conversation that are not answered, in order.
#[derive(Default)]
struct Line {
    flights: VecDeque<Flight>,
    /// The node the calls of this round go to.
    owner: Option<NodeId>,
    /// Rises when everything is sent again.
    round: u32,
    /// Nothing is sent before this.
    resume: Option<Instant>,
    pause: Duration,
}

struct Lines {
    hub: Arc<Hub>,
    session: Arc<Session>,
    lines: HashMap<String, Line>,
    flying: FuturesUnordered<BoxFuture<'static, Landed>>,
    last: u64,
}

impl Lines {
    async fn take(&mut self, job: Job) {
        let (hub, session) = (Arc::clone(&self.hub), Arc::clone(&self.session));
        match send::prepare(&hub, &session, job).await {
            Prepared::Refused(reply, refusal) => {
                self.flying.push(Box::pin(async move {
                    send::finish(&hub, &session, &reply, Err(refusal)).await;
                    Landed::Given
                }));
            }
            Prepared::Live(held) => self.flying.push(Box::pin(async move {
                let outcome = send::live(&hub, &session, &held).await;
                send::finish(&hub, &session, &held.reply, outcome).await;
                Landed::Given
            })),
            Prepared::InLine(held) => {
                self.last += 1;
                let deadline = Instant::now() + hub.config.send_patience.get();
                let line = self.lines.entry(held.reply.conv.clone()).or_default();
                line.flights.push_back(Flight {
                    no: self.last,
                    held: Arc::new(held),
                    deadline,
                    call: None,
                    waits: None,
                    uncertain: false,
                });
            }
        }
    }

    /// Starts the calls that may start, in the order of their lines.
    fn go(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for (conv, line) in &mut self.lines {
            let over = |flight: &Flight| flight.call.is_none() && flight.deadline <= now;
            while let Some(at) = line.flights.iter().position(over) {
                late.extend(line.flights.remove(at));
            }
            if line.resume.is_some_and(|at| at > now) || line.flights.iter().all(|flight| flight.call.is_some()) {
                continue;
            }
            line.resume = None;
            let Some(first) = line.flights.front() else { continue };
            let (first, owner) = (first.no, first.held.owner(&self.hub));
            let Ok(owner) = owner else {
                line.again(&self.hub, now);
                continue;
            };
            if line.owner.as_ref() != Some(&owner) && line.flights.iter().any(|flight| flight.call.is_some()) {
                line.again(&self.hub, now);
                line.resume = None;
            }
            line.owner = Some(owner.clone());
            let mut after = 0;
            for flight in &mut line.flights {
                let place = msg::InLine { no: flight.no, after, first };
                after = flight.no;
                if flight.call.is_some() {
                    continue;
                }
                let (abort, registration) = AbortHandle::new_pair();
                (flight.call, flight.waits) = (Some(abort), None);
                let (hub, held, owner) = (Arc::clone(&self.hub), Arc::clone(&flight.held), owner.clone());
                let (no, round, conv) = (flight.no, line.round, conv.clone());
                let left = flight.deadline.saturating_duration_since(now);
                let call = async move {
                    let outcome = held.call(&hub, &owner, place, left).await;
                    Landed::Tried { conv, no, round, outcome }
                };
                self.flying
                    .push(Box::pin(async move { Abortable::new(call, registration).await.unwrap_or(Landed::Given) }));
            }
        }
        for flight in late {
            let why = Refusal::retry(
                code::BUSY,
                "the conversation has no owner that answers; retry with the same token",
                200,
            );
            self.answer(&flight.held, Err(why));
        }
        self.lines.retain(|_, line| !line.flights.is_empty());
    }

    /// When a line goes on.
    fn next(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| line.resume).min()
    }

    fn land(&mut self, landed: Landed) {
        let Landed::Tried { conv, no, round, outcome } = landed else { return };
        let now = Instant::now();
        let Some(line) = self.lines.get_mut(&conv) else { return };
        let Some(at) = line.flights.iter().position(|flight| flight.no == no) else { return };
        if let Err(refusal) = &outcome
            && refusal.is_worth_a_retry()
        {
            if round != line.round {
                return;
            }
            let asked = Duration::from_millis(refusal.retry_after_ms.unwrap_or(0).into()).min(PAUSE_MAX);
            let in_time = now + asked.max(line.pause) < line.flights[at].deadline;
            let room = self.hub.waiting_sends.load(Ordering::Relaxed) < HELD_MAX;
            if in_time && room {
                line.again(&self.hub, now);
                return;
            }
            if !room {
                self.hub.meters.sends_not_held.inc();
            }
        } else {
            line.pause = Duration::ZERO;
        }
        if let Some(flight) = line.flights.remove(at) {
            let outcome = match outcome {
                // "Refused" would say that it is not stored. A sender who repeats it is refused, or told where it is.
                Err(refusal) if flight.uncertain && !refusal.is_worth_a_retry() => Err(Refusal::retry(
                    code::BUSY,
                    "refused now, and perhaps stored before; repeat it with the same token",
                    50,
                )),
                outcome => outcome,
            };
            self.answer(&flight.held, outcome);
        }
        self.lines.retain(|_, line| !line.flights.is_empty());
    }

    /// The ring changed: lines whose node does not own their conversation any more go to the one that does.
    fn look_at_owners(&mut self) {
        let now = Instant::now();
        for line in self.lines.values_mut() {
            let owner = line.flights.front().and_then(|first| first.held.owner(&self.hub).ok());
            if owner.is_some() && owner != line.owner {
                line.again(&self.hub, now);
                (line.resume, line.pause) = (None, Duration::ZERO);
            }
        }
    }

    fn answer(&self, held: &Arc<Held>, outcome: Result<client::Sent, Refusal>) {
        let (hub, session, held) = (Arc::clone(&self.hub), Arc::clone(&self.session), Arc::clone(held));
        self.flying.push(Box::pin(async move {
            send::finish(&hub, &session, &held.reply, outcome).await;
            Landed::Given
        }));
    }
}

impl Line {
    /// Everything that is not answered is sent again after a pause.
    fn again(&mut self, hub: &Hub, now: Instant) {
        self.round += 1;
        for flight in &mut self.flights {
            if let Some(call) = flight.call.take() {
                call.abort();
                flight.uncertain = true;
                flight.waits = Some(Waits::new(hub));
                hub.meters.sends_again.inc();
            }
        }
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        let jitter = self.pause.mul_f64(hub.rng.below(50) as f64 / 100.0);
        self.resume = Some(now + self.pause + jitter);
    }
}

/// One message that waits to be sent again, as the gateway counts them.
struct Waits(Arc<AtomicU64>);

impl Waits {
    fn new(hub: &Hub) -> Self {
        hub.waiting_sends.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&hub.waiting_sends))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
