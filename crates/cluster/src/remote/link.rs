//! The caller's end: one stream to one service of one node, with the calls that wait and those that are out.
//!
//! ```text
//! call --queue--> Outgoing --Batch--> the target          queue full, or no connection -> BUSY, surely not carried out
//!   ^                                    |
//!   +---- by id <---- run: read <--Batch-+                the stream breaks -> unavailable, outcome unknown
//! ```

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::Stream;
use http::Request;
use http::request::Parts;
use linnet_proto::STREAMING;
use linnet_proto::cluster as proto;
use linnet_runtime::status::{TRANSPORT_RETRY_MS, to_status};
use linnet_types::{NodeId, Refusal, code};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::{Status, Streaming};

use super::Shared;
use super::dial::{self, Sender};
use super::wire::{self, Gathered};
use crate::call::Reply;
use crate::service::Service;

/// Calls and their bytes that may wait for the connection to take them; more are refused.
const QUEUE_CALLS: usize = 16_384;
const QUEUE_BYTES: usize = 16 << 20;
/// What one frame takes.
pub(super) const BATCH_ITEMS: usize = 1024;
pub(super) const BATCH_BYTES: usize = 128 << 10;
/// Longest wait of a call for a connection that is being made.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// Longest attempt to reach a node; longer than callers wait, so that a slow one is reached in the end.
const CONNECT: Duration = Duration::from_secs(3);
/// Pauses between attempts grow from the first to the last.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The path to one service of one node of another process. Clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<Shared>,
    target: Target,
    lane: Mutex<Lane>,
    bulk: tokio::sync::Mutex<Option<Sender>>,
    retired: CancellationToken,
}

/// Who is called.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) node: NodeId,
    pub(super) service: Service,
    pub(super) address: String,
}

struct Lane {
    state: State,
    /// Calls that are out may end, new ones are refused.
    retiring: bool,
    /// Tells streams apart: only the newest takes calls.
    stream: u64,
    next_id: u64,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    calls: HashMap<u64, Waiting>,
    /// Of the stream that takes the queue.
    taker: Option<Waker>,
}

enum State {
    /// Calls wait until then.
    Connecting(Instant),
    Up,
    /// Calls are refused with this.
    Down(Status),
}

enum Queued {
    Call { call: proto::Call, deadline: Instant, size: usize },
    Cancel(u64),
}

/// A call without its whole reply.
struct Waiting {
    sent: bool,
    begun: Option<proto::Reply>,
    parts: Vec<u8>,
    answer: oneshot::Sender<Answered>,
}

impl Link {
    /// Begins to reach `target`.
    pub(super) fn new(net: Arc<Shared>, target: Target) -> Self {
        let lane = Lane {
            state: State::Connecting(Instant::now() + CONNECT_WAIT),
            retiring: false,
            stream: 0,
            next_id: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            calls: HashMap::new(),
            taker: None,
        };
        let retired = net.closing.child_token();
        let link = Self {
            inner: Arc::new(Inner {
                net,
                target,
                lane: Mutex::new(lane),
                bulk: tokio::sync::Mutex::default(),
                retired,
            }),
        };
        let running = link.clone();
        link.inner.net.tasks.spawn("rpc.link", async move { running.run().await });
        link
    }

    pub(super) fn address(&self) -> &str {
        &self.inner.target.address
    }

    /// Whether the node could not be reached when last tried.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.inner.lane.lock().state, State::Down(_))
    }

    /// Lets calls that are out end, and makes no new connection.
    pub(super) fn retire(&self) {
        self.inner.retired.cancel();
    }

    /// Carries a call. It has its place in the order of calls once this was polled; dropping it cancels the call.
    pub(crate) async fn call(&self, request: Request<Body>, timeout: Duration) -> Reply {
        let (head, body) = request.into_parts();
        if STREAMING.contains(&head.uri.path()) {
            return self.alone(head, body, timeout).await;
        }
        match wire::gather(body)? {
            Gathered::Whole(body) => self.carried(&head, body, timeout).await,
            Gathered::Open(body) => self.alone(head, body, timeout).await,
        }
    }

    async fn carried(&self, head: &Parts, body: Bytes, timeout: Duration) -> Reply {
        let (id, answer) = self.queue(wire::call_out(head, body), timeout)?;
        // Until answered, dropping this future takes the call back.
        let _waiting = Taken { link: self, id };
        match answer.await {
            Ok(reply) => reply.map(wire::reply_in),
            Err(_) => Err(lost()),
        }
    }

    fn queue(&self, mut call: proto::Call, timeout: Duration) -> Result<(u64, Answer), Status> {
        let size = wire::size(&call.headers, &call.body);
        let now = Instant::now();
        let (sender, answer) = oneshot::channel();
        let mut lane = self.inner.lane.lock();
        lane.takes(now)?;
        if lane.queue.len() >= QUEUE_CALLS || lane.queued_bytes + size > QUEUE_BYTES {
            drop(lane);
            self.inner.net.metrics.overflowed(self.inner.target.service);
            return Err(busy("too many calls wait for the connection"));
        }
        lane.next_id += 1;
        let id = lane.next_id;
        call.id = id;
        lane.calls.insert(id, Waiting { sent: false, begun: None, parts: Vec::new(), answer: sender });
        let taker = lane.push(Queued::Call { call, deadline: now + timeout, size });
        drop(lane);
        wake(taker);
        Ok((id, answer))
    }

    /// A call with a stream, or a large one: over a connection where it holds nobody up.
    async fn alone(&self, mut head: Parts, body: Body, timeout: Duration) -> Reply {
        self.inner.lane.lock().takes(Instant::now())?;
        let mut bulk = self.bulk().await?;
        dial::address_to(&mut head, &self.inner.net, &self.inner.target, timeout);
        bulk.send(Request::from_parts(head, body)).await
    }

    async fn bulk(&self) -> Result<Sender, Status> {
        let mut bulk = self.inner.bulk.lock().await;
        if let Some(sender) = bulk.as_ref().filter(|sender| sender.is_open()) {
            return Ok(sender.clone());
        }
        let dialled = tokio::time::timeout(CONNECT_WAIT, dial::connect(&self.inner.net, &self.inner.target)).await;
        let sender = dialled.unwrap_or(Err(dial::Failure::Timeout)).map_err(|why| why.told())?;
        *bulk = Some(sender.clone());
        Ok(sender)
    }

    /// Keeps a stream up for as long as the node is known.
    async fn run(self) {
        let Inner { net, target, retired, .. } = &*self.inner;
        let (mut pause, mut told) = (PAUSE, false);
        while !retired.is_cancelled() {
            match self.connect().await {
                Ok(replies) => {
                    net.metrics.connected(target.service, true);
                    tracing::debug!(node = %target.node, service = %target.service, "connected");
                    told = false;
                    let begun = Instant::now();
                    let up = net.metrics.up(target.service);
                    up.inc();
                    let why = self.read(replies).await;
                    up.dec();
                    self.broken(&why);
                    if begun.elapsed() > LONGEST_PAUSE {
                        pause = PAUSE;
                        continue;
                    }
                }
                Err(why) => {
                    net.metrics.connected(target.service, false);
                    let first = !std::mem::replace(&mut told, true);
                    if first && !retired.is_cancelled() {
                        let (node, service, address) = (&target.node, target.service, &target.address);
                        tracing::warn!(%node, %service, address, %why, "cannot be reached; trying on");
                    }
                    self.down(&why.told());
                }
            }
            let wait = pause / 2 + net.rng.jitter(pause / 2);
            pause = (pause * 2).min(LONGEST_PAUSE);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = retired.cancelled() => {}
            }
        }
        self.down(&unreachable());
        let last = self.inner.lane.lock().next_stream();
        wake(last);
    }

    /// One attempt. Callers stop waiting for it after a second.
    async fn connect(&self) -> Result<Streaming<proto::Batch>, dial::Failure> {
        let Inner { net, target, retired, .. } = &*self.inner;
        let outgoing = self.next_stream();
        let attempt = async {
            let sender = dial::connect(net, target).await?;
            dial::open(net, target, sender, outgoing).await
        };
        let patience = async {
            tokio::time::sleep(CONNECT_WAIT).await;
            self.down(&unreachable());
            tokio::time::sleep(CONNECT - CONNECT_WAIT).await;
        };
        let replies = tokio::select! {
            replies = attempt => replies?,
            () = patience => return Err(dial::Failure::Timeout),
            () = retired.cancelled() => return Err(dial::Failure::Retired),
        };
        let mut lane = self.inner.lane.lock();
        lane.state = State::Up;
        let taker = lane.taker.take();
        drop(lane);
        wake(taker);
        Ok(replies)
    }

    fn next_stream(&self) -> Outgoing {
        let mut lane = self.inner.lane.lock();
        let last = lane.next_stream();
        let outgoing = Outgoing { link: self.clone(), stream: lane.stream, waited: false };
        drop(lane);
        wake(last);
        outgoing
    }

    /// Hands replies to their callers until the stream ends; why it did.
    async fn read(&self, mut replies: Streaming<proto::Batch>) -> String {
        let retired = &self.inner.retired;
        loop {
            let leaving = retired.is_cancelled();
            if leaving && self.idle() {
                return "the node has left".to_owned();
            }
            let batch = tokio::select! {
                biased;
                batch = replies.message() => batch,
                () = retired.cancelled(), if !leaving => continue,
                // A call that was cancelled leaves without a reply.
                () = tokio::time::sleep(PAUSE), if leaving => continue,
            };
            match batch {
                Ok(Some(batch)) => self.deliver(batch.replies),
                Ok(None) => return "the node ended the stream".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
        }
    }

    /// Whether nothing is out; refuses what comes from now on.
    fn idle(&self) -> bool {
        let mut lane = self.inner.lane.lock();
        lane.retiring = true;
        lane.calls.is_empty()
    }

    fn deliver(&self, replies: Vec<proto::Reply>) {
        let mut answered = Vec::with_capacity(replies.len());
        {
            let mut lane = self.inner.lane.lock();
            for reply in replies {
                // A reply nobody waits for belongs to a call that was cancelled.
                if let Some(done) = lane.reply(reply) {
                    answered.push(done);
                }
            }
        }
        for (answer, reply) in answered {
            let _ = answer.send(Ok(reply));
        }
    }

    /// The stream is gone: what was sent may have been carried out. What was not waits for the next one.
    fn broken(&self, why: &str) {
        let mut lane = self.inner.lane.lock();
        lane.state = State::Connecting(Instant::now() + CONNECT_WAIT);
        let last = lane.next_stream();
        let sent: Vec<_> = lane.calls.extract_if(|_, waiting| waiting.sent).collect();
        lane.queue.retain(|queued| matches!(queued, Queued::Call { .. }));
        drop(lane);
        wake(last);
        let target = &self.inner.target;
        if !self.inner.retired.is_cancelled() {
            tracing::info!(node = %target.node, service = %target.service, calls = sent.len(), why, "connection lost");
        }
        for (_, waiting) in sent {
            let _ = waiting.answer.send(Err(lost()));
        }
    }

    /// Nothing can be sent: what waits is refused, and what comes.
    fn down(&self, why: &Status) {
        let mut lane = self.inner.lane.lock();
        lane.state = State::Down(why.clone());
        lane.queue.clear();
        lane.queued_bytes = 0;
        let waiting: Vec<_> = lane.calls.drain().collect();
        drop(lane);
        for (_, waiting) in waiting {
            let _ = waiting.answer.send(Err(why.clone()));
        }
    }
}

impl Lane {
    /// Whether a call may be queued now.
    fn takes(&self, now: Instant) -> Result<(), Status> {
        match &self.state {
            _ if self.retiring => Err(unreachable()),
            State::Up => Ok(()),
            State::Connecting(until) if now < *until => Ok(()),
            State::Connecting(_) => Err(unreachable()),
            State::Down(why) => Err(why.clone()),
        }
    }

    /// Ends the stream that takes the queue, and with it its connection; whom to wake.
    fn next_stream(&mut self) -> Option<Waker> {
        self.stream += 1;
        self.taker.take()
    }

    /// Queues an item; whom to wake, after the lock is released.
    fn push(&mut self, item: Queued) -> Option<Waker> {
        if let Queued::Call { size, .. } = &item {
            self.queued_bytes += size;
        }
        self.queue.push_back(item);
        self.taker.take()
    }

    /// The next frame; `None` when nothing waits.
    fn batch(&mut self) -> Option<proto::Batch> {
        let mut batch = proto::Batch::default();
        let (mut bytes, now) = (0, Instant::now());
        while bytes < BATCH_BYTES && batch.calls.len() + batch.cancelled.len() < BATCH_ITEMS {
            match self.queue.pop_front() {
                None => break,
                Some(Queued::Cancel(id)) => batch.cancelled.push(id),
                Some(Queued::Call { mut call, deadline, size }) => {
                    self.queued_bytes -= size;
                    // Cancelled while it waited.
                    let Some(waiting) = self.calls.get_mut(&call.id) else { continue };
                    waiting.sent = true;
                    let left = deadline.saturating_duration_since(now);
                    call.timeout_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
                    bytes += size;
                    batch.calls.push(call);
                }
            }
        }
        (!batch.calls.is_empty() || !batch.cancelled.is_empty()).then_some(batch)
    }

    /// Takes a reply or a part of one; the call it completes.
    fn reply(&mut self, mut reply: proto::Reply) -> Option<(oneshot::Sender<Answered>, proto::Reply)> {
        if !reply.more {
            let waiting = self.calls.remove(&reply.id)?;
            if let Some(first) = waiting.begun {
                reply.head = first.head;
                reply.body = [&waiting.parts[..], &reply.body[..]].concat().into();
            }
            return Some((waiting.answer, reply));
        }
        let waiting = self.calls.get_mut(&reply.id)?;
        waiting.parts.extend_from_slice(&reply.body);
        waiting.begun.get_or_insert(reply);
        None
    }
}

/// The calls of one stream, as the connection takes them.
pub(super) struct Outgoing {
    link: Link,
    stream: u64,
    waited: bool,
}

impl Stream for Outgoing {
    type Item = proto::Batch;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<proto::Batch>> {
        let this = &mut *self;
        let mut lane = this.link.inner.lane.lock();
        if lane.stream != this.stream {
            return Poll::Ready(None);
        }
        if !matches!(lane.state, State::Up) || lane.queue.is_empty() {
            lane.taker = Some(context.waker().clone());
            return Poll::Pending;
        }
        if !std::mem::replace(&mut this.waited, true) {
            // Tasks that are ready now may add their calls to the same frame.
            drop(lane);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.waited = false;
        let batch = lane.batch();
        if batch.is_none() {
            lane.taker = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(lane);
        this.link.inner.net.metrics.batch.observe(batch.as_ref().map_or(0, |batch| batch.calls.len()) as f64);
        Poll::Ready(batch)
    }
}

type Answered = Result<proto::Reply, Status>;
type Answer = oneshot::Receiver<Answered>;

/// Takes a call back when its caller goes away.
struct Taken<'a> {
    link: &'a Link,
    id: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut lane = self.link.inner.lane.lock();
        // Answered calls are gone from the table; unsent ones are left out when their turn comes.
        let cancel = lane.calls.remove(&self.id).is_some_and(|waiting| waiting.sent);
        let taker = if cancel { lane.push(Queued::Cancel(self.id)) } else { None };
        drop(lane);
        wake(taker);
    }
}

fn wake(taker: Option<Waker>) {
    if let Some(waker) = taker {
        waker.wake();
    }
}

/// The call was surely not carried out.
pub(super) fn unreachable() -> Status {
    busy("the service cannot be reached now")
}

fn busy(why: &str) -> Status {
    to_status(&Refusal::retry(code::BUSY, why, TRANSPORT_RETRY_MS))
}

/// The call may have been carried out.
pub(super) fn lost() -> Status {
    Status::unavailable("the connection broke before the answer")
}
