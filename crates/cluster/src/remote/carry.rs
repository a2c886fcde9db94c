//! The target's end of a stream: starts handlers in the order of calls, sends replies in the order they are ready.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use linnet_proto::cluster as proto;
use linnet_proto::cluster::link_server;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::link::{BATCH_BYTES, BATCH_ITEMS, unreachable};
use super::listen::Caller;
use super::wire;

/// Replies that wait for the connection; above, no further call is read until the caller has taken some.
const REPLY_BYTES: usize = 8 << 20;
const REPLIES: usize = 16_384;
/// A larger reply is sent in pieces of this size, among the others.
const PIECE: usize = 64 << 10;

/// Serves the streams of calls of other nodes.
#[derive(Clone)]
pub(super) struct Carrier {
    pub(super) net: Arc<Shared>,
}

#[tonic::async_trait]
impl link_server::Link for Carrier {
    type CarryStream = Replies;

    async fn carry(&self, request: Request<Streaming<proto::Batch>>) -> Result<Response<Replies>, Status> {
        let caller = request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("no caller"))?;
        let outbox = Arc::new(Outbox::default());
        let line = Line { net: Arc::clone(&self.net), caller, outbox: Arc::clone(&outbox) };
        let calls = request.into_inner();
        self.net.tasks.spawn("rpc.serve", async move { line.run(calls).await });
        Ok(Response::new(Replies { outbox, waited: false }))
    }
}

/// One stream.
struct Line {
    net: Arc<Shared>,
    caller: Caller,
    outbox: Arc<Outbox>,
}

impl Line {
    async fn run(&self, mut calls: Streaming<proto::Batch>) {
        let closing = self.net.closing.clone();
        while self.outbox.room().await {
            let batch = tokio::select! {
                biased;
                () = self.outbox.gone.cancelled() => break,
                () = closing.cancelled(), if !self.outbox.is_closing() => {
                    self.outbox.close();
                    continue;
                }
                batch = calls.message() => batch,
            };
            // A caller that ends the stream, or whose connection broke, waits for nothing any more.
            let Ok(Some(batch)) = batch else { break };
            for call in batch.calls {
                self.start(call);
            }
            for id in batch.cancelled {
                self.outbox.cancel(id);
            }
        }
        self.outbox.end();
    }

    /// Runs the handler up to its first wait before the next call is looked at.
    fn start(&self, call: proto::Call) {
        let id = call.id;
        if self.outbox.is_closing() {
            return self.outbox.push(wire::status_out(id, &unreachable()));
        }
        if !self.caller.may_call(&call.path) {
            self.net.metrics.refused("role");
            let status = Status::permission_denied(format!("{} may not call {}", self.caller, call.path));
            return self.outbox.push(wire::status_out(id, &status));
        }
        let Some(server) = self.net.local.server(&self.net.me, self.caller.service) else {
            return self.outbox.push(wire::status_out(id, &unreachable()));
        };
        let timeout = Duration::from_micros(call.timeout_us);
        let Some(request) = wire::call_in(call) else {
            return self.outbox.push(wire::status_out(id, &Status::invalid_argument("the path is none")));
        };
        let mut work: Work = Box::pin(async move { wire::reply_out(id, server.serve(request).await).await });
        // Out of budget, a channel would look busy and the order would be lost.
        let first = AssertUnwindSafe(|| tokio::task::unconstrained(work.as_mut()).now_or_never());
        match std::panic::catch_unwind(first) {
            Ok(Some(reply)) => self.outbox.push(reply),
            Ok(None) => self.outbox.run(id, || self.spawn(id, timeout, work)),
            Err(panic) => {
                self.outbox.push(wire::status_out(id, &panicked()));
                // Logged and counted as every panic is.
                self.net.tasks.spawn("rpc.call", async move { std::panic::resume_unwind(panic) });
            }
        }
    }

    fn spawn(&self, id: u64, timeout: Duration, work: Work) -> AbortHandle {
        let answer = Unanswered { outbox: Arc::clone(&self.outbox), id, reply: None };
        let task = self.net.tasks.spawn("rpc.call", async move {
            let late = || wire::status_out(id, &Status::deadline_exceeded("no answer before the deadline"));
            let reply = tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| late());
            answer.with(reply);
        });
        task.abort_handle()
    }
}

type Work = BoxFuture<'static, proto::Reply>;

fn panicked() -> Status {
    Status::internal("the handler panicked")
}

/// Answers when the handler is done, also when it panicked.
struct Unanswered {
    outbox: Arc<Outbox>,
    id: u64,
    reply: Option<proto::Reply>,
}

impl Unanswered {
    fn with(mut self, reply: proto::Reply) {
        self.reply = Some(reply);
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let panicked = || std::thread::panicking().then(|| wire::status_out(self.id, &panicked()));
        let reply = self.reply.take().or_else(panicked);
        self.outbox.done(self.id, reply);
    }
}

/// Replies on their way, and handlers at work.
#[derive(Default)]
struct Outbox {
    state: Mutex<Out>,
    /// Told when replies were taken.
    taken: Notify,
    /// Nobody takes replies any more.
    gone: CancellationToken,
}

#[derive(Default)]
struct Out {
    queue: VecDeque<proto::Reply>,
    bytes: usize,
    running: HashMap<u64, AbortHandle>,
    taker: Option<Waker>,
    /// No new calls; ends when everything is answered.
    closing: bool,
    ended: bool,
}

impl Outbox {
    /// Waits until the caller has taken enough replies; false when it has gone.
    async fn room(&self) -> bool {
        loop {
            let taken = self.taken.notified();
            {
                let out = self.state.lock();
                if out.ended {
                    return false;
                }
                if out.bytes < REPLY_BYTES && out.queue.len() < REPLIES {
                    return true;
                }
            }
            tokio::select! {
                () = taken => {}
                () = self.gone.cancelled() => return false,
            }
        }
    }

    fn push(&self, reply: proto::Reply) {
        let mut out = self.state.lock();
        let taker = out.push(reply);
        drop(out);
        wake(taker);
    }

    /// Keeps a handler so that it can be cancelled.
    fn run(&self, id: u64, spawn: impl FnOnce() -> AbortHandle) {
        // Under the lock: a handler that is done at once is not entered after it was removed.
        let mut out = self.state.lock();
        if !out.ended {
            let task = spawn();
            out.running.insert(id, task);
        }
    }

    fn done(&self, id: u64, reply: Option<proto::Reply>) {
        let mut out = self.state.lock();
        out.running.remove(&id);
        let taker = match reply {
            Some(reply) => out.push(reply),
            None => out.taker.take(),
        };
        drop(out);
        wake(taker);
    }

    fn cancel(&self, id: u64) {
        let task = self.state.lock().running.remove(&id);
        if let Some(task) = task {
            task.abort();
        }
    }

    fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    fn close(&self) {
        let mut out = self.state.lock();
        out.closing = true;
        let taker = out.taker.take();
        drop(out);
        wake(taker);
    }

    /// Nobody waits for replies: handlers end at their next await point.
    fn end(&self) {
        let mut out = self.state.lock();
        out.ended = true;
        out.queue.clear();
        let running = std::mem::take(&mut out.running);
        let taker = out.taker.take();
        drop(out);
        running.into_values().for_each(|task| task.abort());
        wake(taker);
    }
}

impl Out {
    fn push(&mut self, reply: proto::Reply) -> Option<Waker> {
        if self.ended {
            return None;
        }
        self.bytes += reply.body.len() + 64;
        self.queue.push_back(reply);
        self.taker.take()
    }

    fn batch(&mut self) -> proto::Batch {
        let mut batch = proto::Batch::default();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && batch.replies.len() < BATCH_ITEMS {
            let Some(mut reply) = self.queue.pop_front() else { break };
            if reply.body.len() > PIECE {
                reply = self.piece(reply);
            } else {
                self.bytes -= reply.body.len() + 64;
            }
            bytes += reply.body.len() + 64;
            batch.replies.push(reply);
        }
        batch
    }

    /// Cuts a piece off a large reply, whose rest waits behind what waits now.
    fn piece(&mut self, mut reply: proto::Reply) -> proto::Reply {
        let head = std::mem::take(&mut reply.head);
        let body = reply.body.split_to(PIECE);
        self.bytes -= body.len();
        let piece = proto::Reply { id: reply.id, head, body, tail: Vec::new(), more: true };
        self.queue.push_back(reply);
        piece
    }
}

/// The replies of one stream, as the connection takes them.
pub(super) struct Replies {
    outbox: Arc<Outbox>,
    waited: bool,
}

impl Stream for Replies {
    type Item = Result<proto::Batch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut out = this.outbox.state.lock();
        if out.queue.is_empty() {
            if out.ended || (out.closing && out.running.is_empty()) {
                return Poll::Ready(None);
            }
            out.taker = Some(context.waker().clone());
            return Poll::Pending;
        }
        if !std::mem::replace(&mut this.waited, true) {
            // Handlers that are ready now may add their replies to the same frame.
            drop(out);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.waited = false;
        let batch = out.batch();
        drop(out);
        this.outbox.taken.notify_one();
        Poll::Ready(Some(Ok(batch)))
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.outbox.gone.cancel();
    }
}

fn wake(taker: Option<Waker>) {
    if let Some(waker) = taker {
        waker.wake();
    }
}
